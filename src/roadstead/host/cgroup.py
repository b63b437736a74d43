"""Control groups: what runtimes called by root make, and do not always remove.

A runtime makes one directory a container in every hierarchy; when it fails half-way, or is killed,
crun leaves them.  Empty ones are removed by name.
"""

from __future__ import annotations

import os
import time

_ROOT = "/sys/fs/cgroup"


def remove_empty(name: str) -> None:
    """Remove the group ``name`` from every hierarchy in which it is empty, and no other."""
    try:
        hierarchies = [_ROOT, *(f"{_ROOT}/{entry}" for entry in os.listdir(_ROOT))]
    except OSError:
        return  # no cgroups here
    for hierarchy in hierarchies:
        try:
            os.rmdir(f"{hierarchy}/{name}")
        except OSError:
            continue  # not there, or something runs in it: then it is not ours to remove


def own_paths() -> set[str]:
    """Where this process is in the hierarchies, without the first "/": below that a runtime may put
    its containers (cgroups(7), /proc/PID/cgroup)."""
    try:
        with open("/proc/self/cgroup", encoding="utf-8", errors="replace") as file:
            paths = {line.rstrip("\n").split(":", 2)[2].strip("/") for line in file}
    except OSError:
        return set()
    return paths - {""}


def empty(prefixes: tuple[str, ...], age: float) -> set[str]:
    """The groups whose names begin so, that have no process in any hierarchy, and have been there
    for ``age`` seconds; as ``remove_empty`` takes them."""
    found: set[str] = set()
    used: set[str] = set()
    try:
        hierarchies = [_ROOT, *(f"{_ROOT}/{entry}" for entry in os.listdir(_ROOT))]
    except OSError:
        return found
    for hierarchy in hierarchies:
        for parent in ("", *(f"{path}/" for path in own_paths())):
            for name in _names(f"{hierarchy}/{parent}"):
                if name.startswith(prefixes):
                    group = f"{parent}{name}"
                    (found if _unused(f"{hierarchy}/{group}", age) else used).add(group)
    return found - used


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _unused(group: str, age: float) -> bool:
    try:
        young = time.time() - os.stat(group).st_mtime < age
        with open(f"{group}/cgroup.procs", encoding="ascii") as file:
            return not young and not file.read()
    except OSError:
        return False
