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

# path in config.json → type; "[]" steps into each element.  Only what config.py touches.
_SHAPE: Final[tuple[tuple[str, type | tuple[type, ...], str], ...]] = (
    ("root", dict, "an object"),
    ("root.path", str, "a string"),
    ("root.readonly", bool, "true or false"),
    ("process", dict, "an object"),
    ("process.args", list, "an array"),
    ("process.args.[]", str, "a string"),
    ("process.env", list, "an array"),
    ("process.env.[]", str, "a string"),
    ("process.cwd", str, "a string"),
    ("process.terminal", bool, "true or false"),
    ("process.user", dict, "an object"),
    ("process.user.uid", int, "a number"),
    ("process.user.gid", int, "a number"),
    ("process.user.additionalGids", list, "an array"),
    ("process.user.additionalGids.[]", int, "a number"),
    ("process.rlimits", list, "an array"),
    ("process.rlimits.[]", dict, "an object"),
    ("process.rlimits.[].type", str, "a string"),
    ("process.rlimits.[].hard", int, "a number"),
    ("process.rlimits.[].soft", int, "a number"),
    ("process.oomScoreAdj", int, "a number"),
    ("mounts", list, "an array"),
    ("mounts.[]", dict, "an object"),
    ("mounts.[].destination", str, "a string"),
    ("mounts.[].source", str, "a string"),
    ("mounts.[].type", str, "a string"),
    ("mounts.[].options", list, "an array"),
    ("mounts.[].options.[]", str, "a string"),
    ("annotations", dict, "an object"),
    ("hooks", dict, "an object"),
    ("linux", dict, "an object"),
    ("linux.namespaces", list, "an array"),
    ("linux.namespaces.[]", dict, "an object"),
    ("linux.namespaces.[].type", str, "a string"),
    ("linux.seccomp", dict, "an object"),
    ("linux.uidMappings", list, "an array"),
    ("linux.uidMappings.[]", dict, "an object"),
    ("linux.uidMappings.[].hostID", int, "a number"),
    ("linux.uidMappings.[].size", int, "a number"),
    ("linux.gidMappings", list, "an array"),
    ("linux.gidMappings.[]", dict, "an object"),
    ("linux.gidMappings.[].hostID", int, "a number"),
    ("linux.gidMappings.[].size", int, "a number"),
)


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
    return {name: value for name, value in node.items() if value is not None}


def _check_shape(where: str, config: dict[str, Any]) -> None:
    for path, kind, name in _SHAPE:
        for found in _values(config, path.split(".")):
            if not isinstance(found, kind) or (kind is int and isinstance(found, bool)):
                raise BundleError(f"{where}: {path.replace('.[]', '[]')} is not {name}")
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


def _check_arrays(where: str, config: dict[str, Any]) -> None:
    """Runtimes take minutes for what nobody needs: some compare each entry with all others."""
    pending: list[tuple[str, Any]] = [("", config)]
    while pending:
        path, node = pending.pop()
        if isinstance(node, dict):
            pending += [(f"{path}.{name}" if path else name, each) for name, each in node.items()]
        elif isinstance(node, list):
            if len(node) > MAX_ENTRIES:
                raise BundleError(
                    f"{where}: {path} has {len(node)} entries, and {MAX_ENTRIES} are the most"
                )
            pending += [(f"{path}[]", each) for each in node if isinstance(each, dict | list)]


def _values(node: Any, steps: list[str]) -> list[Any]:
    """What stands at a path; nothing where it is absent."""
    nodes = [node]
    for step in steps:
        if step == "[]":
            nodes = [item for node in nodes if isinstance(node, list) for item in node]
        else:
            nodes = [n[step] for n in nodes if isinstance(n, dict) and step in n]
    return nodes


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
