"""Environment Definition Files: TOML that describes a container, as CSCS's Container Engine has it.

    image = "nvcr.io#nvidia/pytorch:24.01-py3"     mounts = ["${SCRATCH}:/scratch"]
    base_environment = ["common"]                  workdir, entrypoint, writable, devices
    [env]  NAME = "value"                          [annotations]

A file inherits from those that it names in ``base_environment``, in their order: mounts and devices
are added, tables merged, all else replaced.  ${NAME} is a variable of the environment that the
command was typed in; in [env] it can also be one of the image's, so there it is left for the step
(core/expand.py).  Pure, but for ``read``, which is the caller's.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from roadstead.core.expand import expand
from roadstead.errors import ConfigError, UsageError

_MOST_LEVELS: Final = 10
_MOST_FILES: Final = 100  # each of ten levels may name the next a thousand times
_LONGEST: Final = 1 << 20
_KINDS: Final[dict[str, tuple[type, str]]] = {
    "image": (str, "a string"),
    "workdir": (str, "a string"),
    "entrypoint": (bool, "true or false"),
    "writable": (bool, "true or false"),
    "mounts": (list, "an array of strings"),
    "devices": (list, "an array of strings"),
    "env": (dict, "a table of strings"),
    "annotations": (dict, "a table"),
    "base_environment": (list, "a string or an array of strings"),
}
# What other versions of the format have; they say nothing about the container.
_HARMLESS: Final = ("description", "title", "version")


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """What a file says, with all that it inherits.  None: not said."""

    image: str = ""
    workdir: str = ""
    entrypoint: bool | None = None
    writable: bool | None = None
    mounts: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)


# A name or path → the path of the file, and its text.
Read = Callable[[str], tuple[str, str]]


def load(name: str, read: Read, environ: Mapping[str, str]) -> Definition:
    """The definition that ``name`` leads to.  Raises ConfigError."""
    count = 0

    def counted(name: str) -> tuple[str, str]:
        nonlocal count
        count += 1
        if count > _MOST_FILES:
            raise ConfigError(f"base_environment: more than {_MOST_FILES} files", path=name)
        return read(name)

    merged = _inherited(name, counted, ())
    path = str(merged.pop("", name))
    try:
        return _expanded(merged, environ)
    except UsageError as error:
        raise ConfigError(str(error), path=path, hint=error.hint) from None


def parse(path: str, text: str) -> dict[str, Any]:
    """The table in a file, each entry of its right type.  Raises ConfigError."""
    if len(text) > _LONGEST:
        raise ConfigError(f"larger than {_LONGEST >> 20} MiB", path=path)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not valid TOML: {error}", path=path) from None
    except RecursionError:
        raise ConfigError("nested too deeply", path=path) from None
    if isinstance(table.get("base_environment"), str):
        table["base_environment"] = [table["base_environment"]]
    for name, value in table.items():
        if name in _HARMLESS:
            continue
        if name not in _KINDS:
            raise ConfigError(
                f"unknown entry {name!r}", path=path, hint=f"there are: {', '.join(sorted(_KINDS))}"
            )
        kind, words = _KINDS[name]
        strings = value if kind is list else list(value.values()) if name == "env" else []
        if not isinstance(value, kind) or not all(isinstance(each, str) for each in strings):
            raise ConfigError(f"{name} is not {words}", path=path)
    if "annotations" in table:
        table["annotations"] = _flat(table["annotations"], path)
    return {name: value for name, value in table.items() if name not in _HARMLESS}


def _flat(table: dict[str, Any], path: str) -> dict[str, str]:
    """``[annotations.com.hooks] x = "y"`` as com.hooks.x: a dot in a key and a table are the same
    in TOML."""
    found: dict[str, str] = {}
    pending = [("", table)]
    while pending:
        above, inner = pending.pop()
        for name, value in inner.items():
            if isinstance(value, dict):
                pending.append((f"{above}{name}.", value))
            elif isinstance(value, str):
                found[f"{above}{name}"] = value
            elif isinstance(value, bool):
                found[f"{above}{name}"] = "true" if value else "false"
            else:
                raise ConfigError(f"annotations: {above}{name} is not a string", path=path)
    return found


def _inherited(name: str, read: Read, above: tuple[str, ...]) -> dict[str, Any]:
    path, text = read(name)
    if path in above:
        raise ConfigError(f"base_environment leads back to {path}", path=above[-1])
    if len(above) >= _MOST_LEVELS:
        raise ConfigError(f"base_environment: more than {_MOST_LEVELS} levels", path=path)
    own = parse(path, text)
    merged: dict[str, Any] = {}
    for base in own.pop("base_environment", []):
        _merge(merged, _inherited(base, read, (*above, path)))
    _merge(merged, own)
    merged[""] = path
    return merged


def _merge(merged: dict[str, Any], over: dict[str, Any]) -> None:
    for name, value in over.items():
        if isinstance(value, list):
            merged[name] = [*merged.get(name, []), *value]
        elif isinstance(value, dict):
            merged[name] = {**merged.get(name, {}), **value}
        else:
            merged[name] = value


def _expanded(table: dict[str, Any], environ: Mapping[str, str]) -> Definition:
    def text(value: str) -> str:
        return expand(value, environ)

    return Definition(
        image=text(table.get("image", "")),
        workdir=text(table.get("workdir", "")),
        entrypoint=table.get("entrypoint"),
        writable=table.get("writable"),
        mounts=tuple(text(each) for each in table.get("mounts", [])),
        devices=tuple(text(each) for each in table.get("devices", [])),
        env=dict(table.get("env", {})),
        annotations={n: text(value) for n, value in table.get("annotations", {}).items()},
    )
