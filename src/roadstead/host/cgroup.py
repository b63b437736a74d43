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


def empty(prefix: str, age: float) -> set[str]:
    """The names of groups that begin with ``prefix``, have no process in any hierarchy, and have
    been there for ``age`` seconds."""
    found: set[str] = set()
    used: set[str] = set()
    try:
        hierarchies = [_ROOT, *(f"{_ROOT}/{entry}" for entry in os.listdir(_ROOT))]
    except OSError:
        return found
    for hierarchy in hierarchies:
        for name in os.listdir(hierarchy) if os.path.isdir(hierarchy) else ():
            if name.startswith(prefix):
                young = time.time() - os.stat(f"{hierarchy}/{name}").st_mtime < age
                (used if young or _processes(f"{hierarchy}/{name}") else found).add(name)
    return found - used


def _processes(group: str) -> str:
    try:
        with open(f"{group}/cgroup.procs", encoding="ascii") as file:
            return file.read()
    except OSError:
        return "unknown"
