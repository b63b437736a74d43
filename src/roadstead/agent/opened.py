"""The directory of a container that ``roadstead oci`` makes, and those that others have left."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

from roadstead.agent.oci_call import say

if TYPE_CHECKING:
    from collections.abc import Callable

    from roadstead.agent.lone import Lone
    from roadstead.agent.oci_call import Call

_MAKING_SECONDS: Final = 300.0


def opened(call: Call) -> Lone:
    """What will be the container: so far its directory."""
    from roadstead.agent import lone

    _sweep_others(call)
    container = lone.Lone(call.directory, say)
    container.make_directory()
    return container


def _sweep_others(call: Call) -> None:
    """Remove what this user's containers have left whose supervisors are gone: a node that lost its
    power comes back without anybody who remembers them."""
    try:
        names = os.listdir(call.directories)
    except FileNotFoundError:
        return
    for name in names:
        path = f"{call.directories}/{name}"
        if name != call.name and not _is_being_made(path):
            sweep(path, say_nothing)


def _is_being_made(path: str) -> bool:
    """Whether a directory has no claim yet, as another container of this user's starts."""
    from roadstead.step import record

    if record.read_claim(path) is not None:
        return False
    try:
        return time.time() - os.stat(path).st_mtime < _MAKING_SECONDS
    except FileNotFoundError:
        return True


def say_nothing(sentence: str) -> None:
    """For what nobody asked about."""


def sweep(directory: str, tell: Callable[[str], None]) -> None:
    """Remove what a container has left, and its directory; a line for each is told."""
    from roadstead.step import sweep

    try:
        for line in sweep.sweep(directory):
            tell(line)
    except OSError as error:
        tell(f"warning: {directory} cannot be removed: {error.strerror}")
