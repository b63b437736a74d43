"""Reading a bundle: a directory with a config.json and a root file system (OCI runtime-spec,
"bundle").

A bundle comes from anywhere.  What we read of its config.json is checked for its type before it is
used, and each fault has its own sentence, with what to type next.  Nothing in a bundle is ever
written by us.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any, Final

from roadstead.errors import BundleError

MAX_CONFIG: Final = 16 << 20
MAX_ENTRIES: Final = 10_000  # of any array in it

_RANGE: Final = {"hostID": int, "size": int}
# Types of what config.py touches: an object's by its names, an array's by the one of its entries.
_SHAPE: Final[dict[str, Any]] = {
    "root": {"path": str, "readonly": bool},
    "process": {
        "args": [str],
        "env": [str],
        "cwd": str,
        "terminal": bool,
        "user": {"uid": int, "gid": int, "additionalGids": [int]},
        "rlimits": [{"type": str, "hard": int, "soft": int}],
        "oomScoreAdj": int,
    },
    "mounts": [{"destination": str, "source": str, "type": str, "options": [str]}],
    "annotations": {},
    "hooks": {},
    "linux": {
        "namespaces": [{"type": str}],
        "seccomp": {},
        "uidMappings": [_RANGE],
        "gidMappings": [_RANGE],
    },
}
_CALLED: Final = {
    str: "a string",
    int: "a number",
    bool: "true or false",
    list: "an array",
    dict: "an object",
}


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that can be run: its directory, its config as read, its root file system."""

    path: str
    config: dict[str, Any]
    rootfs: str


def read(path: str) -> Bundle:
    """Read and check the bundle at ``path``.  Raises BundleError: what is wrong, and what to do."""
    _check_directory(path)
    config = check(f"{path}/config.json", text(path))
    return Bundle(path, config, _rootfs(path, config))


def check(where: str, text: str) -> dict[str, Any]:
    """The config that ``text`` holds, if we can use it.  Raises BundleError."""
    config = _parse(where, text)
    _check_shape(where, config)
    return config


def _check_directory(path: str) -> None:
    try:
        if not os.path.isdir(path):
            os.stat(path)
            raise BundleError(
                f"container bundle {path} is not a directory",
                hint="name the directory that holds config.json",
            )
        if not os.access(path, os.X_OK):
            raise PermissionError(13, "Permission denied")
    except FileNotFoundError:
        raise BundleError(
            f"container bundle {path} does not exist",
            hint="name the directory that holds config.json",
        ) from None
    except OSError as error:
        raise BundleError(f"container bundle {path}: {error.strerror}") from None


def text(path: str) -> str:
    """What the config.json of the bundle at ``path`` says.  Raises BundleError."""
    try:
        # Not to be kept waiting by a pipe without a writer; a regular file never keeps anybody.
        fd = os.open(f"{path}/config.json", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            data = file.read(MAX_CONFIG + 1)
    except FileNotFoundError:
        raise BundleError(
            f"container bundle {path} has no config.json",
            hint=f"make one: cd {path} && runc spec --rootless",
        ) from None
    except OSError as error:
        raise BundleError(f"{path}/config.json: {error.strerror}") from None
    if len(data) > MAX_CONFIG:
        raise BundleError(f"{path}/config.json is larger than {MAX_CONFIG >> 20} MiB")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise BundleError(f"{path}/config.json is not UTF-8 (byte {error.start})") from None


def _parse(where: str, text: str) -> dict[str, Any]:
    try:
        config = json.loads(text, object_hook=_without_nulls)
    except json.JSONDecodeError as error:
        raise BundleError(
            f"{where}: not valid JSON: line {error.lineno}, column {error.colno}: "
            f"{error.msg[:1].lower()}{error.msg[1:]}",
            hint="runc spec --rootless, in an empty directory, writes one that is",
        ) from None
    except RecursionError:
        raise BundleError(f"{where}: nested too deeply") from None
    if not isinstance(config, dict):
        raise BundleError(f"{where}: not an object")
    return config


def _without_nulls(node: dict[str, Any]) -> dict[str, Any]:
    """A null counts as absent, as it does for the runtimes."""
    if None in node.values():
        return {name: value for name, value in node.items() if value is not None}
    return node


def _check_shape(where: str, config: dict[str, Any]) -> None:
    misfit = _misfit(config, _SHAPE)
    if misfit is not None:
        path, kind = misfit
        raise BundleError(f"{where}: {path} is not {_CALLED[kind]}")
    _check_arrays(where, config)
    if not isinstance(config.get("root"), dict) or not config["root"].get("path"):
        raise BundleError(f"{where}: no root.path", hint='add "root": {"path": "rootfs"}')
    for number, mount in enumerate(config.get("mounts", [])):
        if not mount.get("destination"):
            raise BundleError(f"{where}: mounts[{number}] has no destination")
        if os.path.normpath("/" + mount["destination"].lstrip("/")) == "/":
            raise BundleError(
                f"{where}: mounts[{number}] covers the container's whole root",
                hint="root.path is what the root is",
            )


def _misfit(node: Any, shape: Any, path: str = "") -> tuple[str, type] | None:
    """Where something is not of its type, and what that would be.  (A task's start waits for this:
    what fits costs one look.  JSON has no types but these, and True is no int here.)"""
    kind: type = shape if isinstance(shape, type) else type(shape)
    found_kind = type(node)
    if found_kind is not kind:
        return path, kind
    if isinstance(shape, dict):
        pairs = [
            (f"{path}.{name}" if path else name, node[name], shape[name])
            for name in shape
            if name in node and type(node[name]) is not shape[name]
        ]
    else:
        (inner,) = shape
        pairs = [(f"{path}[]", each, inner) for each in node if type(each) is not inner]
    for where, each, inner in pairs:
        found = _misfit(each, inner, where)
        if found is not None:
            return found
    return None


def _check_arrays(where: str, config: dict[str, Any]) -> None:
    """Runtimes take minutes for what nobody needs: some compare each entry with all others."""
    pending: list[Any] = [config]
    while pending:
        node = pending.pop()
        if type(node) is list and len(node) > MAX_ENTRIES:
            raise BundleError(
                f"{where}: {_path_of(node, config)} has {len(node)} entries, "
                f"and {MAX_ENTRIES} are the most"
            )
        inner = node.values() if type(node) is dict else node
        pending += [each for each in inner if type(each) is dict or type(each) is list]


def _path_of(wanted: Any, config: dict[str, Any]) -> str:
    """Where in a config that is."""
    pending: list[tuple[str, Any]] = [("", config)]
    while pending:
        path, node = pending.pop()
        if node is wanted:
            return path
        if isinstance(node, dict):
            pending += [(f"{path}.{name}" if path else name, each) for name, each in node.items()]
        elif isinstance(node, list):
            pending += [(f"{path}[]", each) for each in node]
    return ""


def _rootfs(path: str, config: dict[str, Any]) -> str:
    named = config["root"]["path"]
    rootfs = os.path.normpath(os.path.join(path, named))
    where = f"{path}/config.json: root.path is {named}, and {rootfs}"
    try:
        if not os.path.isdir(rootfs):
            os.stat(rootfs)
            raise BundleError(f"{where} is not a directory")
        os.listdir(rootfs)
    except FileNotFoundError:
        raise BundleError(
            f"{where} does not exist", hint="unpack the root file system there, or mend root.path"
        ) from None
    except OSError as error:
        raise BundleError(f"{where} cannot be read: {error.strerror}") from None
    return os.path.realpath(rootfs)  # runc refuses a link
