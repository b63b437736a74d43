"""``oci.conf``: which commands drive the OCI runtime on this host.

``KEYS`` is the file's vocabulary, one row a key: all keys of Slurm 22.05 and later.  A key that
matters to ``scrun`` alone is accepted and checked, and has no other effect; its row says so.
``parse`` is pure: it takes the text, and a function that reads what the text includes.

Which commands go together is as in Slurm 23.02.  There are two ways to run a container:
``RunTimeRun``, or ``RunTimeCreate`` and ``RunTimeStart`` with ``RunTimeQuery``; both need
``RunTimeKill`` and ``RunTimeDelete``.  With ``IgnoreFileConfigJson`` there is no bundle to create
from, so only ``RunTimeRun`` makes sense, and all six may be missing.

Departures from Slurm: the Singularity example of Slurm's guide is accepted, with warnings
(``OCIRunTime…`` for ``RunTime…``, a quote that is never closed: see ``grammar``); patterns are
checked when they are read, not when a container has been half made; an empty value is refused, as
nothing good comes of running ``sh -c ''``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any, Literal

from roadstead.core.grammar import Assignment, Read, assignments, written
from roadstead.errors import ConfigError
from roadstead.oci import patterns
from roadstead.oci.ere import compile_ere


class EnvFile(StrEnum):
    """``CreateEnvFile``: whether the environment is written to the file ``%e``, and how."""

    DISABLED = "disabled"
    NULL = "null"
    NEWLINE = "newline"

    @property
    def separator(self) -> str:
        """What ends each ``NAME=value``; empty when there is no file."""
        return {EnvFile.NULL: "\0", EnvFile.NEWLINE: "\n"}.get(self, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class OciConf:
    """What one ``oci.conf`` says.  ``warnings`` are sentences that start with ``file:line:``."""

    source: str
    warnings: tuple[str, ...] = ()

    container_path: str | None = None
    create_env_file: EnvFile = EnvFile.DISABLED
    debug_flags: str | None = None
    disable_cleanup: bool = False
    disable_hooks: tuple[str, ...] = ()
    env_exclude: re.Pattern[str] | None = None
    file_debug: str | None = None
    ignore_file_config_json: bool = False
    mount_spool_dir: str | None = None
    runtime_create: str | None = None
    runtime_delete: str | None = None
    runtime_env_exclude: re.Pattern[str] | None = None
    runtime_kill: str | None = None
    runtime_query: str | None = None
    runtime_run: str | None = None
    runtime_start: str | None = None
    srun_args: tuple[str, ...] = ()
    srun_path: str | None = None
    stdio_debug: str | None = None
    syslog_debug: str | None = None

    @property
    def mode(self) -> Literal["run", "create"]:
        """How a container is started: one command, or create and then start."""
        return "run" if self.runtime_create is None else "create"

    @property
    def has_commands(self) -> bool:
        """False for a file that starts no container, as ``IgnoreFileConfigJson`` allows."""
        return self.runtime_run is not None or self.runtime_create is not None


Convert = Callable[["Key", Assignment], object]


@dataclass(frozen=True, slots=True)
class Key:
    """One key: its spelling, where it goes in ``OciConf``, its type, default and first release."""

    name: str
    attribute: str
    type: Convert
    default: object
    since: str
    scrun_only: bool = False


_YES = frozenset({"yes", "up", "true", "1"})
_NO = frozenset({"no", "down", "false", "0"})
_ENV_FILE = {
    **dict.fromkeys((*_YES, "y", "null"), EnvFile.NULL),
    **dict.fromkeys((*_NO, "n", "disabled"), EnvFile.DISABLED),
    "newline": EnvFile.NEWLINE,
}
_LEVELS = (
    "quiet",
    "fatal",
    "error",
    "info",
    "verbose",
    "debug",
    *(f"debug{n}" for n in range(2, 6)),
)


def _text(key: Key, entry: Assignment) -> str:
    return entry.value


def _pattern(key: Key, entry: Assignment) -> str:
    patterns.check(entry.value, key.name, entry.path, entry.line)
    return entry.value


def _boolean(key: Key, entry: Assignment) -> bool:
    value = entry.value.lower()
    if value not in _YES | _NO:
        raise entry.error(
            f"{key.name} is neither yes nor no: {entry.value}", hint=f"write {key.name}=yes"
        )
    return value in _YES


def _env_file(key: Key, entry: Assignment) -> EnvFile:
    try:
        return _ENV_FILE[entry.value.lower()]
    except KeyError:
        raise entry.error(
            f"{key.name} cannot be {entry.value}",
            hint=f"write {key.name}=null, {key.name}=newline or {key.name}=disabled",
        ) from None


def _expression(key: Key, entry: Assignment) -> re.Pattern[str]:
    try:
        return compile_ere(entry.value)
    except ValueError as failure:
        raise entry.error(
            f"{key.name}: {failure}",
            hint=r"write a POSIX extended regular expression; in this file, \ is written \\",
        ) from None


def _names(key: Key, entry: Assignment) -> tuple[str, ...]:
    return tuple(name for part in entry.value.split(",") if (name := part.strip()))


def _argument(key: Key, entry: Assignment) -> tuple[str, ...]:
    return (entry.value,)


def _level(key: Key, entry: Assignment) -> str:
    level = entry.value.lower()
    if level not in _LEVELS and not (len(level) == 1 and level in "0123456789"):
        raise entry.error(
            f"{key.name} is not a log level: {entry.value}",
            hint=f"write a number from 0 to 9 or one of {', '.join(_LEVELS)}",
        )
    return level


KEYS = {
    key.name: key
    for key in (
        Key("ContainerPath", "container_path", _pattern, None, "21.08"),
        Key("CreateEnvFile", "create_env_file", _env_file, EnvFile.DISABLED, "21.08"),
        Key("DebugFlags", "debug_flags", _text, None, "23.02", scrun_only=True),
        Key("DisableCleanup", "disable_cleanup", _boolean, False, "23.02"),
        Key("DisableHooks", "disable_hooks", _names, (), "23.02"),
        Key("EnvExclude", "env_exclude", _expression, None, "23.02"),
        Key("FileDebug", "file_debug", _level, None, "23.02", scrun_only=True),
        Key("IgnoreFileConfigJson", "ignore_file_config_json", _boolean, False, "23.02"),
        Key("MountSpoolDir", "mount_spool_dir", _pattern, None, "23.02"),
        Key("RunTimeCreate", "runtime_create", _pattern, None, "21.08"),
        Key("RunTimeDelete", "runtime_delete", _pattern, None, "21.08"),
        Key("RunTimeEnvExclude", "runtime_env_exclude", _expression, None, "23.02"),
        Key("RunTimeKill", "runtime_kill", _pattern, None, "21.08"),
        Key("RunTimeQuery", "runtime_query", _pattern, None, "21.08"),
        Key("RunTimeRun", "runtime_run", _pattern, None, "21.08"),
        Key("RunTimeStart", "runtime_start", _pattern, None, "21.08"),
        Key("SrunArgs", "srun_args", _argument, (), "23.02", scrun_only=True),
        Key("SrunPath", "srun_path", _text, None, "23.02", scrun_only=True),
        Key("StdIODebug", "stdio_debug", _level, None, "23.02", scrun_only=True),
        Key("SyslogDebug", "syslog_debug", _level, None, "23.02", scrun_only=True),
    )
}

# The six commands, each with what it looks like for a runtime that follows runc's command line.
COMMANDS = {
    "RunTimeQuery": "crun state %n.%u.%j.%s.%t",
    "RunTimeCreate": "crun create --bundle %b %n.%u.%j.%s.%t",
    "RunTimeStart": "crun start %n.%u.%j.%s.%t",
    "RunTimeKill": "crun kill --all %n.%u.%j.%s.%t",
    "RunTimeDelete": "crun delete --force %n.%u.%j.%s.%t",
    "RunTimeRun": "crun run --bundle %b %n.%u.%j.%s.%t",
}

_SPELLINGS = {name.lower(): name for name in KEYS}
# Slurm's guide had these in its Singularity example until 2025 (Slurm commit da0979c3d5).
_GUIDE_SPELLINGS = {f"oci{name}".lower(): name for name in COMMANDS}


def parse(text: str, path: str, read: Read) -> OciConf:
    """The configuration in ``text``.  ``read`` returns the text of an included file."""
    found: dict[str, list[Assignment]] = {}
    warnings: list[str] = []
    for entry in assignments(text, path, read):
        key = _key(entry, warnings)
        if not entry.value:
            raise entry.error(
                f"{key.name} is empty", hint="remove the line: what is not set has its default"
            )
        found.setdefault(key.name, []).append(entry)
    values: dict[str, Any] = {
        KEYS[name].attribute: _value(KEYS[name], found[name], warnings) for name in found
    }
    ignore_json = bool(values.get("ignore_file_config_json"))
    _check_commands({name: found[name][-1] for name in found}, path, ignore_json=ignore_json)
    return OciConf(source=path, warnings=tuple(warnings), **values)


def _key(entry: Assignment, warnings: list[str]) -> Key:
    """The row of an entry's key; what was forgiven on the way is added to ``warnings``."""
    spelled = entry.key.lower()
    name = _SPELLINGS.get(spelled) or _GUIDE_SPELLINGS.get(spelled)
    if name is None:
        raise entry.error(f"unknown key {entry.key}", hint=f"the keys are {', '.join(KEYS)}")
    if spelled in _GUIDE_SPELLINGS:
        warnings.append(f"{entry.where}: {entry.key} is taken for {name}; write {name}=")
    if entry.unclosed:
        warnings.append(
            f"{entry.where}: {name}: the double quote is never closed; "
            f"write {written(name, entry.value)}"
        )
    return KEYS[name]


def _value(key: Key, entries: list[Assignment], warnings: list[str]) -> object:
    """Convert every entry, so that none hides a mistake; the last one counts."""
    converted = [key.type(key, entry) for entry in entries]
    if key.type is _argument:
        return tuple(entry.value for entry in entries)
    warnings.extend(
        f"{later.where}: {key.name} is set again, and this line counts; remove {earlier.where}"
        for earlier, later in pairwise(entries)
    )
    return converted[-1]


def _check_commands(found: dict[str, Assignment], path: str, *, ignore_json: bool) -> None:
    """Slurm 23.02's rules on which of the six commands go together."""
    run = found.get("RunTimeRun")
    create = found.get("RunTimeCreate") or found.get("RunTimeStart")
    if run and create:
        raise create.error(
            f"{create.key} and {run.key} ({run.where}) exclude each other",
            hint="keep RunTimeRun and remove RunTimeCreate and RunTimeStart",
        )
    if ignore_json and create:
        raise create.error(
            f"{create.key} needs the bundle that IgnoreFileConfigJson leaves out",
            hint="set RunTimeRun in its place, or remove IgnoreFileConfigJson",
        )
    if ignore_json:
        return
    if not run and not create:
        raise ConfigError(
            "no command starts a container",
            path=path,
            hint="add " + written("RunTimeRun", COMMANDS["RunTimeRun"]),
        )
    needed = ["RunTimeKill", "RunTimeDelete"]
    if not run:
        needed = ["RunTimeQuery", "RunTimeCreate", "RunTimeStart", *needed]
    missing = [name for name in needed if name not in found]
    if missing:
        raise ConfigError(
            f"{' and '.join(missing)} not set",
            path=path,
            hint="add, in your runtime's words: "
            + " and ".join(written(name, COMMANDS[name]) for name in missing),
        )
