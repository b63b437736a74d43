"""Slurm's own commands: where they are, and becoming one of them.

A command of ours and one of Slurm's have the same name, and both may be on PATH.  Slurm's are
programs, or a site's scripts around them; ours are scripts that name this package.
"""

from __future__ import annotations

import os

from roadstead.errors import EngineError
from roadstead.host import child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

_HEAD = 4096
_OURS = b"roadstead"


def find(command: str, environ: Mapping[str, str]) -> str:
    """The first ``command`` on PATH that is not ours; "" where there is none."""
    for directory in environ.get("PATH", os.defpath).split(":"):
        path = f"{directory or '.'}/{command}"
        if os.access(path, os.X_OK) and os.path.isfile(path) and not _is_ours(path):
            return path
    return ""


def _is_ours(path: str) -> bool:
    try:
        with open(path, "rb", buffering=0) as file:
            head = file.read(_HEAD)
    except OSError:  # it may be executed and not be read: nothing of ours is like that
        return False
    return head.startswith(b"#!") and _OURS in head


def must_find(command: str, environ: Mapping[str, str]) -> str:
    """The same; raises EngineError where there is none."""
    found = find(command, environ)
    if not found:
        raise EngineError(
            f"Slurm's own {command} is not on PATH",
            hint="add its directory to PATH, or set ROADSTEAD_ENGINE=local",
        )
    return found


def become(
    command: str, argv: Sequence[str], environ: Mapping[str, str], *, called: str = ""
) -> NoReturn:
    """Become Slurm's ``command`` with these arguments; ``called`` is who says what it has to say,
    if the user has typed another.  Raises EngineError."""
    path = must_find(command, environ)
    try:
        child.become(path, [called or command, *argv], environ)
    except OSError as error:
        raise EngineError(f"cannot execute {path}: {error.strerror}") from None
