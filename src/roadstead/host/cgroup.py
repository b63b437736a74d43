"""Control groups: what runtimes called by root make, and do not always remove.

A runtime makes one directory a container in every hierarchy; when it fails half-way, or is killed,
crun leaves them.  Empty ones are removed by name.
"""

from __future__ import annotations

import os

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
