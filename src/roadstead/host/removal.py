"""Removing directories that a container could write to.

A container with subordinate ids may leave files there that belong to one of them, in directories
that are closed to the user who owns those ids.  Only in a user namespace that maps them is the user
their root again (user_namespaces(7)), as ``podman unshare rm`` does it.
"""

from __future__ import annotations

import os
import pwd
from functools import partial

from roadstead.host import files, fork, namespaces


def remove_tree(path: str, *, keep: str = "") -> None:
    """As ``files.remove_tree``, whichever of the user's ids the files belong to.

    The caller must be single-threaded.  Raises PermissionError for what is not even the user's.
    """
    try:
        files.remove_tree(path, keep=keep)
    except PermissionError:
        child = fork.run_in_child(partial(_remove_as_their_root, path, keep))
        os.waitpid(child, 0)
        if _is_left(path, keep):
            raise


def remove(path: str) -> None:
    """Remove a file, or a directory with all that is in it.  Raises FileNotFoundError."""
    if os.path.isdir(path) and not os.path.islink(path):
        remove_tree(path)
    else:
        os.unlink(path)


def _is_left(path: str, keep: str) -> bool:
    if not keep:
        return os.path.lexists(path)
    return os.path.isdir(path) and set(os.listdir(path)) - {keep} != set()


def _remove_as_their_root(path: str, keep: str) -> None:
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    namespaces.enter(ranges=namespaces.subordinate_ids(name, uid), hide_unified=False)
    files.remove_tree(path, keep=keep)
