"""ConfigMaps, Secrets and the pod's own fields: where values come from that a container does not
have in its manifest.

Pure.  They are looked up when the pod is submitted; ``Later`` is what only the node knows.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any, Final

from roadstead.pods.check import wrong
from roadstead.pods.model import File, Variable

# What the node fills in (runner.py).
LATER: Final = (
    *("spec.nodeName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"),
    "metadata.uid",
)
_DEFAULT_MODE: Final = 0o644
_MODES: Final = range(0o1000)
_LIMITS: Final = {"cpu": "cpu_limit", "memory": "memory_limit"}


@dataclass(frozen=True, slots=True)
class Sources:
    """The ConfigMaps and Secrets of a submission, each its keys and bytes."""

    config_maps: dict[str, dict[str, bytes]] = field(default_factory=dict)
    secrets: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def add(self, where: str, document: dict[str, Any]) -> None:
        """Take up a ConfigMap or a Secret.  Raises RequestError."""
        name = name_of(where, document)
        secret = document["kind"] == "Secret"
        taken = self.secrets if secret else self.config_maps
        if name in taken:
            raise wrong(where, f"there is a {document['kind']} {name} already")
        coded, plain = ("data", "stringData") if secret else ("binaryData", "data")
        found = {
            key: _decoded(f"{where}: {coded}.{key}", text)
            for key, text in document.get(coded, {}).items()
        }
        taken[name] = found | {k: text.encode() for k, text in document.get(plain, {}).items()}

    def of(self, where: str, kind: str, name: str, optional: bool) -> dict[str, bytes]:
        """The keys of a ConfigMap ("config") or a Secret ("secret").  Raises RequestError."""
        found = (self.secrets if kind == "secret" else self.config_maps).get(name)
        if found is None and not optional:
            words = "Secret" if kind == "secret" else "ConfigMap"
            raise wrong(
                where, f"there is no {words} {name}", f"give the file that has {words} {name} too"
            )
        return found or {}


def name_of(where: str, document: dict[str, Any]) -> str:
    """metadata.name, which is there."""
    name = document.get("metadata", {}).get("name", "")
    if not name:
        raise wrong(f"{where}: metadata.name", "missing")
    return str(name)


def _decoded(where: str, text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise wrong(where, "not base64", "plain text goes into stringData:") from None


@dataclass(frozen=True, slots=True)
class Downward:
    """What a pod can be told of itself; ``requests`` and ``limits`` are by container."""

    metadata: dict[str, Any]
    resources: dict[str, dict[str, dict[str, float]]]

    def field(self, where: str, reference: dict[str, Any]) -> tuple[str, str]:
        """The value of a fieldRef, or the field for the node to fill in.  Raises RequestError."""
        path = reference.get("fieldPath", "")
        if path in LATER:
            return "", path
        if path in ("spec.serviceAccountName",):
            return "default", ""
        if path in ("metadata.name", "metadata.namespace"):
            default = "default" if path.endswith("space") else ""
            return str(self.metadata.get(path.partition(".")[2], default)), ""
        top, _, rest = path.partition("[")
        if top in ("metadata.labels", "metadata.annotations"):
            table = self.metadata.get(top.partition(".")[2], {})
            if not rest:
                return "\n".join(f'{name}="{table[name]}"' for name in sorted(table)), ""
            return table.get(rest.rstrip("]").strip("'\""), ""), ""
        raise wrong(f"{where}.fieldPath", f"{path} is not supported")

    def resource(self, where: str, reference: dict[str, Any], container: str) -> tuple[str, str]:
        """The value of a resourceFieldRef, rounded up to whole units of its divisor."""
        named = reference.get("containerName", container)
        kind, _, name = reference.get("resource", "").partition(".")
        if named not in self.resources:
            raise wrong(f"{where}.containerName", f"there is no container {named!r}")
        if kind not in ("limits", "requests") or name not in ("cpu", "memory"):
            raise wrong(f"{where}.resource", "one of limits.cpu, limits.memory, requests.cpu, …")
        value = self.resources[named][kind].get(name)
        divisor = reference.get("divisor", 0) or 1
        if value is None:  # of a limit: what the job has, which the node knows
            return ("0", "") if kind == "requests" else ("", f"limits.{name}/{divisor}")
        return str(-int(-value // divisor)), ""


def variables(
    where: str, entries: list[dict[str, Any]], sources: Sources, pod: Downward, container: str
) -> list[Variable]:
    """The ``env`` of a container.  Raises RequestError."""
    found = []
    for number, entry in enumerate(entries):
        at = f"{where}[{number}]"
        name = entry.get("name", "")
        if not name or "=" in name or "\0" in name:
            raise wrong(f"{at}.name", "not the name of a variable")
        if "valueFrom" not in entry:
            found.append(Variable(name=name, value=entry.get("value", "")))
            continue
        if entry.get("value"):
            raise wrong(at, "has a value and a valueFrom", "leave one out")
        got = _from(f"{at}.valueFrom", entry["valueFrom"], sources, pod, container)
        if got is not None:
            found.append(Variable(name=name, value=got[0], field=got[1]))
    return found


def _from(
    where: str, source: dict[str, Any], sources: Sources, pod: Downward, container: str
) -> tuple[str, str] | None:
    if len(source) != 1:
        raise wrong(where, "names not one source")
    ((kind, reference),) = source.items()
    at = f"{where}.{kind}"
    if kind == "fieldRef":
        return pod.field(at, reference)
    if kind == "resourceFieldRef":
        return pod.resource(at, reference, container)
    optional = reference.get("optional", False)
    of = "secret" if kind == "secretKeyRef" else "config"
    keys = sources.of(at, of, reference.get("name", ""), optional)
    key = reference.get("key", "")
    if key not in keys:
        if optional:
            return None
        raise wrong(f"{at}.key", f"there is no key {key!r} in {reference.get('name', '')}")
    return _text(f"{at}.key", keys[key]), ""


def _text(where: str, data: bytes) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise wrong(where, "not UTF-8, which a variable has to be", "mount it as a file") from None
    if "\0" in text:
        raise wrong(where, "has a zero byte in it, which no variable can", "mount it as a file")
    return text


def all_variables(where: str, entries: list[dict[str, Any]], sources: Sources) -> list[Variable]:
    """The ``envFrom`` of a container.  Raises RequestError."""
    found = []
    for number, entry in enumerate(entries):
        prefix = entry.get("prefix", "")
        for of, name in (("config", "configMapRef"), ("secret", "secretRef")):
            if name not in entry:
                continue
            at = f"{where}[{number}].{name}"
            reference = entry[name]
            keys = sources.of(at, of, reference.get("name", ""), reference.get("optional", False))
            found += [
                Variable(name=prefix + key, value=_text(f"{at}: {key}", data))
                for key, data in keys.items()
                if "=" not in key
            ]
    return found


def files(
    where: str, kind: str, source: dict[str, Any], sources: Sources, pod: Downward, mode: int
) -> list[File]:
    """What a volume of that kind has in it.  Raises RequestError."""
    mode = _mode(f"{where}.defaultMode", source.get("defaultMode", mode))
    if kind == "downwardAPI":
        return [
            _downward(f"{where}.items[{number}]", item, pod, mode)
            for number, item in enumerate(source.get("items", []))
        ]
    if kind == "projected":
        found = []
        for number, entry in enumerate(source.get("sources", [])):
            for inner, below in entry.items():
                at = f"{where}.sources[{number}].{inner}"
                found += files(at, inner, below, sources, pod, mode)
        return found
    of, name = ("secret", source.get("secretName") or source.get("name", ""))
    if kind == "configMap":
        of, name = "config", source.get("name", "")
    optional = source.get("optional", False)
    keys = sources.of(where, of, name, optional)
    if "items" not in source:
        return [_file(where, key, data, mode) for key, data in keys.items()]
    found = []
    for number, item in enumerate(source["items"]):
        at, key = f"{where}.items[{number}]", item.get("key", "")
        if key in keys:
            own = _mode(f"{at}.mode", item.get("mode", mode))
            found.append(_file(f"{at}.path", item.get("path", ""), keys[key], own))
        elif not optional:
            raise wrong(f"{at}.key", f"there is no key {key!r} in {name}")
    return found


def _downward(where: str, item: dict[str, Any], pod: Downward, mode: int) -> File:
    mode = _mode(f"{where}.mode", item.get("mode", mode))
    if "fieldRef" in item:
        value, later = pod.field(f"{where}.fieldRef", item["fieldRef"])
    elif "resourceFieldRef" in item:
        value, later = pod.resource(f"{where}.resourceFieldRef", item["resourceFieldRef"], "")
    else:
        raise wrong(where, "names no field")
    made = _file(f"{where}.path", item.get("path", ""), value.encode(), mode)
    return File(path=made.path, data=made.data, mode=mode, field=later)


def _file(where: str, path: str, data: bytes, mode: int) -> File:
    parts = path.split("/")
    if {"", ".", ".."} & set(parts) or "\0" in path:
        raise wrong(where, f"{path!r} is not a path below the volume")
    return File(path=path, data=base64.b64encode(data).decode(), mode=mode)


def _mode(where: str, mode: int) -> int:
    if mode not in _MODES:
        raise wrong(where, f"{mode} is not a file's mode", "0644, or 420, which is the same")
    return mode
