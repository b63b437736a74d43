"""Devices by name: the Container Device Interface (CDI specification 0.3 to 1.0).

A specification is a file in one of a few directories, JSON or YAML, that says for devices of one
kind, ``vendor.com/class``, what a container needs to use them: device nodes, mounts, variables,
hooks.  ``vendor.com/class=name`` is a device.  Of directories the later one counts where two have
the same device; two files of one directory that have it are a mistake that is said.

Administrators write these files, or tools for them; they make programs run outside the container
and mount what they like.  So a file counts only if it is root's or the user's own, and nobody else
can write to it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from roadstead.errors import ConfigError, LaunchError
from roadstead.host.files import read_trusted as read_trusted
from roadstead.oci.edits import Edits
from roadstead.oci.hooks import STAGES

DIRECTORIES: Final = ("/etc/cdi", "/var/run/cdi")
VARIABLE: Final = "ROADSTEAD_CDI_DIRS"
_UNDERSTOOD: Final = ("env", "deviceNodes", "mounts", "hooks")
_KIND: Final = r"[A-Za-z]([A-Za-z0-9_.-]*[A-Za-z0-9])?/[A-Za-z]([A-Za-z0-9_-]*[A-Za-z0-9])?"
_NAME: Final = r"[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?"
_PERMISSIONS: Final = r"r?w?m?"


def _matches(pattern: str, text: str) -> bool:
    import re  # most containers have no such devices, and an agent's start counts

    return re.fullmatch(pattern, text) is not None


@dataclass(frozen=True, slots=True)
class Specification:
    """One file: the devices of a kind, and what all of them need."""

    path: str
    kind: str
    devices: Mapping[str, Edits]
    common: Edits


class Registry:
    """All specifications of some directories, the later ones first in importance."""

    def __init__(self, directories: Sequence[str]) -> None:
        self.directories = tuple(directories)
        self.errors: list[ConfigError] = []
        self._found: dict[str, list[Specification]] = {}  # device → of the directory that counts
        self.kinds: dict[str, list[str]] = {}  # kind → names
        for directory in directories:
            here: dict[str, list[Specification]] = {}
            for each in self._read(directory):
                for name in each.devices:
                    here.setdefault(f"{each.kind}={name}", []).append(each)
            self._found.update(here)
        for device in self._found:
            kind, _, name = device.partition("=")
            self.kinds.setdefault(kind, []).append(name)

    def _read(self, directory: str) -> list[Specification]:
        try:
            names = sorted(os.listdir(directory))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            self.errors.append(ConfigError(error.strerror or str(error), path=directory))
            return []
        found = []
        for name in names:
            if name.endswith((".json", ".yaml")) and not name.startswith("."):
                try:
                    found.append(parse(f"{directory}/{name}", read_trusted(f"{directory}/{name}")))
                except ConfigError as error:
                    self.errors.append(error)
        return found

    def edits(self, names: Sequence[str], option: str = "--device") -> Edits:
        """What a container with these devices needs.  Raises LaunchError."""
        used: dict[str, Specification] = {}
        found = Edits()
        for name in dict.fromkeys(names):
            specification = self._one(name, option)
            if specification.path not in used:
                used[specification.path] = specification
                found = specification.common + found
            found += specification.devices[name.partition("=")[2]]
        return found

    def nodes(self, name: str) -> tuple[str, ...]:
        """The host's device files that come with a device alone."""
        specifications = self._found.get(name, [])
        edits = [each.devices[name.partition("=")[2]] for each in specifications]
        return tuple(host for each in edits for host, _, _ in each.nodes)

    def _one(self, name: str, option: str) -> Specification:
        there = self._found.get(name, [])
        if len(there) > 1:
            files = " and ".join(each.path for each in there)
            raise LaunchError(
                f"{option}={name}: {files} both have it", hint="remove it from one of them"
            )
        if there:
            return there[0]
        if self.errors:
            raise LaunchError(f"{option}={name}: not found; {self.errors[0]}")
        kind = name.partition("=")[0]
        if kind in self.kinds:
            known = ", ".join(f"{kind}={each}" for each in self.kinds[kind][:8])
            raise LaunchError(f"{option}={name}: no such device", hint=f"there is: {known}")
        kinds = f"there is: {', '.join(self.kinds)}" if self.kinds else ""
        raise LaunchError(
            f"{option}={name}: no CDI specification of {kind} in {', '.join(self.directories)}",
            hint=kinds or f"generate one there, or set {VARIABLE}",
        )


def directories(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Where specifications are looked for, the most important last: the machine's, the user's."""
    named = environ.get(VARIABLE)
    if named is not None:
        return tuple(each for each in named.split(":") if each.startswith("/"))
    config = environ.get("XDG_CONFIG_HOME", "")
    if not config.startswith("/"):
        home = environ.get("HOME", "")
        config = f"{home}/.config" if home.startswith("/") else ""
    return (*DIRECTORIES, *([f"{config}/cdi"] if config else []))


def parse(path: str, text: str) -> Specification:
    """The specification in a file.  Raises ConfigError."""
    from roadstead.oci import plainyaml

    try:
        root = plainyaml.load(text) if path.endswith(".yaml") else json.loads(text)
    except plainyaml.YamlError as error:
        raise ConfigError(f"not YAML as we read it: {error}", path=path, line=error.line) from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"not valid JSON: {error.msg}", path=path, line=error.lineno) from None
    except RecursionError:
        raise ConfigError("nested too deeply", path=path) from None
    reader = _Checked(path)
    root = reader.table(root, "the file")
    kind = reader.text(root.get("kind"), "kind")
    if not _matches(_KIND, kind):
        raise ConfigError(f"kind {kind!r} is not VENDOR/CLASS", path=path)
    if not reader.text(root.get("cdiVersion"), "cdiVersion"):
        raise ConfigError("no cdiVersion", path=path)
    devices: dict[str, Edits] = {}
    for number, entry in enumerate(reader.array(root.get("devices"), "devices")):
        where = f"devices[{number}]"
        device = reader.table(entry, where)
        name = reader.text(device.get("name"), f"{where}.name")
        if not _matches(_NAME, name):
            raise ConfigError(f"{where}.name {name!r} is not a device's name", path=path)
        if name in devices:
            raise ConfigError(f"device {name!r} is there twice", path=path)
        devices[name] = reader.edits(device.get("containerEdits"), f"{where}.containerEdits")
    if not devices:
        raise ConfigError("no devices", path=path)
    common = reader.edits(root.get("containerEdits"), "containerEdits")
    return Specification(path, kind, devices, common)


class _Checked:
    """Reads what has to be of a type; every fault names the file and the place in it."""

    def __init__(self, path: str) -> None:
        self._path = path

    def _wrong(self, where: str, what: str) -> ConfigError:
        return ConfigError(f"{where} is not {what}", path=self._path)

    def table(self, value: Any, where: str) -> dict[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self._wrong(where, "an object")
        return value

    def array(self, value: Any, where: str) -> list[Any]:
        if value is None:
            return []
        if not isinstance(value, list):
            raise self._wrong(where, "an array")
        return value

    def text(self, value: Any, where: str) -> str:
        if value is None:
            return ""
        if not isinstance(value, str) or "\0" in value:
            raise self._wrong(where, "a string")
        return value

    def texts(self, value: Any, where: str) -> list[str]:
        return [self.text(each, f"{where}[]") for each in self.array(value, where)]

    def absolute(self, value: Any, where: str) -> str:
        path = self.text(value, where)
        if not path.startswith("/") or ".." in path.split("/"):
            raise self._wrong(where, "an absolute path")
        return path

    def edits(self, value: Any, where: str) -> Edits:
        """Its ``containerEdits``.  Raises ConfigError."""
        found = self.table(value, where)
        env = self.texts(found.get("env"), f"{where}.env")
        if any("=" not in each or each.startswith("=") for each in env):
            raise self._wrong(f"{where}.env[]", "NAME=VALUE")
        return Edits(
            tuple(env),
            tuple(
                self._node(entry, f"{where}.deviceNodes[{number}]")
                for number, entry in enumerate(self.array(found.get("deviceNodes"), where))
            ),
            tuple(
                self._mount(entry, f"{where}.mounts[{number}]")
                for number, entry in enumerate(self.array(found.get("mounts"), where))
            ),
            tuple(
                self._hook(entry, f"{where}.hooks[{number}]")
                for number, entry in enumerate(self.array(found.get("hooks"), where))
            ),
            tuple(f"{where}.{name} of {self._path}" for name in found if name not in _UNDERSTOOD),
        )

    def _node(self, value: Any, where: str) -> tuple[str, str, str]:
        found = self.table(value, where)
        inside = self.absolute(found.get("path"), f"{where}.path")
        host = self.absolute(found.get("hostPath") or inside, f"{where}.hostPath")
        permissions = self.text(found.get("permissions"), f"{where}.permissions")
        if not _matches(_PERMISSIONS, permissions):
            raise self._wrong(f"{where}.permissions", "of r, w and m")
        return host, inside, permissions or "rwm"

    def _mount(self, value: Any, where: str) -> dict[str, Any]:
        found = self.table(value, where)
        inside = self.absolute(found.get("containerPath"), f"{where}.containerPath")
        options = self.texts(found.get("options"), f"{where}.options")
        kind = self.text(found.get("type"), f"{where}.type")
        source = self.text(found.get("hostPath"), f"{where}.hostPath")
        if kind in ("", "none", "bind"):
            source = self.absolute(found.get("hostPath"), f"{where}.hostPath")
            kind = "none"
            if "bind" not in options and "rbind" not in options:
                options = ["rbind", *options]
        return {"destination": inside, "type": kind, "source": source, "options": options}

    def _hook(self, value: Any, where: str) -> tuple[str, dict[str, Any]]:
        found = self.table(value, where)
        stage = self.text(found.get("hookName"), f"{where}.hookName")
        if stage not in STAGES:
            raise self._wrong(f"{where}.hookName", f"one of {', '.join(STAGES)}")
        hook: dict[str, Any] = {"path": self.absolute(found.get("path"), f"{where}.path")}
        for key in ("args", "env"):
            if words := self.texts(found.get(key), f"{where}.{key}"):
                hook[key] = words
        timeout = found.get("timeout")
        if timeout is not None:
            if type(timeout) is not int or timeout <= 0:
                raise self._wrong(f"{where}.timeout", "a number of seconds")
            hook["timeout"] = timeout
        return stage, hook
