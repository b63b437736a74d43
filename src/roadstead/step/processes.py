"""Which processes are a step's: those below its supervisor or its task, without the engine's own.

A script's srun starts a controller if none runs, and that one is below the script's supervisor for
as long as both live (a subreaper gets what is orphaned below it); so are its spawner and all
supervisors that come of it.  They are of other jobs: no signal, limit or end of this one is theirs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any, Final

from roadstead.host import process
from roadstead.step import record

_WITH_LOCK: Final = ("roadstead-ctl", "roadstead-spawn", "roadstead-spare")
_LOCK: Final = "/controller.lock"
_SUPERVISOR: Final = "roadstead-step"
_OLD_MARK: Final = b"ROADSTEAD_STEP"
_STATE_OF_RUNC: Final = b"_LIBCONTAINER_STATEDIR="


def below(pid: int, directory: str, *, without: int = 0) -> list[int]:
    """All processes below ``pid`` that are its step's, parents before their children.

    ``directory`` is that of the step, or of any other of the same engine.  ``without`` is one that
    does not count, with what is below it.
    """
    return process.descendants(
        pid, apart=lambda each: each == without or is_of_engine(each, directory)
    )


def end_below(directory: str, seconds: float, *, without: int = 0) -> list[int]:
    """SIGKILL to all processes below us that are the step's, and to what they start meanwhile; see
    them end, and reap those that are ours; blocks.  What has not ended in time is returned: it is
    blocked in the kernel."""
    deadline = time.monotonic() + seconds
    while pids := below(os.getpid(), directory, without=without):
        ended = process.kill_all(pids, deadline - time.monotonic())
        for pid in set(pids) & set(process.children(os.getpid())):
            os.waitpid(pid, os.WNOHANG)
        if not ended:
            return pids
    return []


def is_of_engine(pid: int, directory: str) -> bool:
    """Whether that is a controller, a spawner, or a supervisor of a step."""
    name = process.name(pid)
    if name in _WITH_LOCK:
        return any(path.endswith(_LOCK) for path in process.open_files(pid))
    # A child that is yet to become a task has its supervisor's name, and no claim.
    return name == _SUPERVISOR and pid in record.supervisors(os.path.dirname(directory))


# -- of steps whose supervisors are gone: by what they were started with --------------------------


def marked() -> dict[int, str]:
    """Every process of ours that carries a step's mark, and the mark."""
    marks = {pid: _mark_of(environ) for pid, environ in _environments()}
    return {pid: mark for pid, mark in marks.items() if mark is not None}


def _environments() -> Iterator[tuple[int, bytes]]:
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            yield int(name), process.environment(int(name))


def of_claim(claim: dict[str, Any], mark: str) -> list[int]:
    """The processes that a supervisor which is gone has left: those with the step's mark, those
    below them, and runc's and conmon's, which have none."""
    found = []
    states = [str(each.get("state") or "") for each in claim.get("containers", [])]
    # conmon has an environment of Podman's making: where that keeps its state is in it.
    marks = [f"XDG_RUNTIME_DIR={state}\0".encode() for state in states if state]
    for pid, environ in _environments():
        if (
            _mark_of(environ) == mark
            or _is_first_process(environ, claim, mark)
            or any(each in environ + b"\0" for each in marks)
        ):
            found += [pid, *below(pid, mark)]
    return list(dict.fromkeys(found))


def _is_first_process(environ: bytes, claim: dict[str, Any], mark: str) -> bool:
    """Whether that is runc's, on its way to become the first of a container in the claim, or of one
    whose state is in the step's directory, which ``mark`` is.

    It has an environment of runc's making, in which we have no part (libcontainer: STATEDIR); it
    waits for ever if it is stopped when its runc is killed.
    """
    start = environ.find(_STATE_OF_RUNC)
    if start < 0:
        return False
    path = os.fsdecode(environ[start + len(_STATE_OF_RUNC) :].partition(b"\0")[0])
    if path.startswith(f"{mark}/"):
        return True
    root, name = os.path.split(path)
    for container in claim.get("containers", []):
        words = " ".join(map(str, container.get("delete") or [])).replace("'", " ").split()
        if path == container.get("state"):
            return True
        if name in words and ("--root" not in words or root in words):
            return True
    return False


def _mark_of(environ: bytes) -> str | None:
    """The step's directory; of a task that an earlier version started, JOB.STEP."""
    old = None
    for entry in environ.split(b"\0"):
        name, _, value = entry.partition(b"=")
        if name == record.MARK.encode():
            return os.fsdecode(value)
        if name == _OLD_MARK:
            old = os.fsdecode(value)
    return old
