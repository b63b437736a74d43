"""Directories of hooks: oci-hooks(5) of containers/common, as Podman and CRI-O read them.

Each ``*.json`` says a hook and when it is wanted: always, or where annotations, the command or bind
mounts match.  All conditions that a file has must be met.  A file of a later directory replaces one
of the same name in an earlier one; hooks run in the order of the files' names.

Unlike the hooks of a bundle, which came with it, these are chosen by whoever names the directory:
they run (docs/decisions/0007 and 0024).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from roadstead.errors import ConfigError

if TYPE_CHECKING:
    import re

STAGES: Final = (
    "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop",
)  # fmt: skip
_VERSION: Final = "1.0.0"
_CONDITIONS: Final = ("always", "annotations", "commands", "hasBindMounts")


@dataclass(frozen=True, slots=True)
class Hook:
    """A file's: the stages, the entry for config.json, and when it is wanted."""

    path: str
    stages: tuple[str, ...]
    entry: dict[str, Any]
    always: bool | None = None
    annotations: tuple[tuple[re.Pattern[str], re.Pattern[str]], ...] = ()
    commands: tuple[re.Pattern[str], ...] = ()
    bind_mounts: bool | None = None

    def is_wanted(self, annotations: Mapping[str, str], command: str, *, bind_mounts: bool) -> bool:
        """Whether a container with these has it.  ``command`` is its first word."""
        met = []
        if self.always is not None:
            met.append(self.always)
        if self.bind_mounts is not None:
            met.append(not self.bind_mounts or bind_mounts)
        if self.commands:
            met.append(any(each.search(command) for each in self.commands))
        met += [
            any(name.search(key) and value.search(text) for key, text in annotations.items())
            for name, value in self.annotations
        ]
        return bool(met) and all(met)


def read(directories: Sequence[str], read_file: Callable[[str], str]) -> list[Hook]:
    """The hooks of some directories, in their order.  Raises ConfigError."""
    found: dict[str, str] = {}
    for directory in directories:
        try:
            names = os.listdir(directory)
        except OSError as error:
            raise ConfigError(f"hooks cannot be read: {error.strerror}", path=directory) from None
        found.update({name: f"{directory}/{name}" for name in names if name.endswith(".json")})
    ordered = sorted(found, key=lambda name: (name.lower(), name))
    return [parse(found[name], read_file(found[name])) for name in ordered]


def parse(path: str, text: str) -> Hook:
    """The hook in a file.  Raises ConfigError."""
    try:
        root = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"not valid JSON: {error.msg}", path=path, line=error.lineno) from None
    except RecursionError:
        raise ConfigError("nested too deeply", path=path) from None
    if not isinstance(root, dict) or root.get("version") != _VERSION:
        raise ConfigError(f"not a hook's file of version {_VERSION}", path=path)
    stages = root.get("stages")
    if not isinstance(stages, list) or not stages or not all(each in STAGES for each in stages):
        raise ConfigError(f"stages are of {', '.join(STAGES)}", path=path)
    when = root.get("when")
    if not isinstance(when, dict) or not when:
        raise ConfigError("no condition in when", path=path, hint='"when": {"always": true}')
    unknown = [name for name in when if name not in _CONDITIONS]
    if unknown:
        raise ConfigError(
            f"when: unknown condition {unknown[0]!r}",
            path=path,
            hint=f"there are: {', '.join(_CONDITIONS)}",
        )
    return Hook(
        path,
        tuple(stages),
        _entry(path, root.get("hook")),
        _switch(path, when, "always"),
        _patterns(path, when),
        tuple(_pattern(path, each) for each in _texts(path, when.get("commands"), "commands")),
        _switch(path, when, "hasBindMounts"),
    )


def _entry(path: str, hook: Any) -> dict[str, Any]:
    if not isinstance(hook, dict) or not isinstance(hook.get("path"), str):
        raise ConfigError("no hook.path", path=path)
    if not hook["path"].startswith("/"):
        raise ConfigError(f"hook.path {hook['path']!r} is not absolute", path=path)
    if not os.path.exists(hook["path"]):
        raise ConfigError(f"hook.path {hook['path']}: no such file", path=path)
    found: dict[str, Any] = {"path": hook["path"]}
    for key in ("args", "env"):
        if words := _texts(path, hook.get(key), f"hook.{key}"):
            found[key] = words
    timeout = hook.get("timeout")
    if timeout is not None:
        if type(timeout) is not int or timeout <= 0:
            raise ConfigError("hook.timeout is not a number of seconds", path=path)
        found["timeout"] = timeout
    return found


def _texts(path: str, value: Any, where: str) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ConfigError(f"{where} is not an array of strings", path=path)
    return value


def _switch(path: str, when: dict[str, Any], name: str) -> bool | None:
    value = when.get(name)
    if value is not None and not isinstance(value, bool):
        raise ConfigError(f"when.{name} is not true or false", path=path)
    return value


def _patterns(
    path: str, when: dict[str, Any]
) -> tuple[tuple[re.Pattern[str], re.Pattern[str]], ...]:
    found = when.get("annotations")
    if found is None:
        return ()
    if not isinstance(found, dict) or not all(isinstance(each, str) for each in found.values()):
        raise ConfigError("when.annotations is not an object of strings", path=path)
    return tuple((_pattern(path, name), _pattern(path, value)) for name, value in found.items())


def _pattern(path: str, text: str) -> re.Pattern[str]:
    import re  # most containers have no such hooks, and an agent's start counts

    try:
        return re.compile(text)
    except re.error as error:
        raise ConfigError(f"{text!r} is not a regular expression: {error}", path=path) from None
