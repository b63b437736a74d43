"""What a supervisor writes down: what it is about to make, and how the step ended.

The *claim* is written before anything else of a step exists, in its directory.  Whoever finds the
directory without a live supervisor can remove everything that the claim names.  The *exit record*
is a file of its own, beside the step directories, written whole before anyone is told; the
controller deletes it once it is in the journal.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from typing import Any, Final

from roadstead.core.model import ExitRecord, from_json, to_json
from roadstead.host import files, removal

CLAIM = "claim.json"
SOCKET = "ctl.sock"
# Below the step's directory: one for each program of ours that a task runs and that makes what has
# to be swept (a pod, a daemon), with a claim of its own.
INNER: Final = "inner"
# What marks a step's processes: its directory, which no other step of any engine has.  (JOB.STEP
# did in version 1; another engine of the same user has jobs with the same numbers.)
MARK: Final = "ROADSTEAD_STEP_DIR"
_ENDED: Final = ("Z", "X")  # proc(5), state: somebody has yet to reap it


def exit_path(directory: str) -> str:
    """Where the exit record of the step whose directory this is goes."""
    return f"{directory}.exit"


def highest_job(runtime: str) -> int:
    """The highest number of a job that has left a directory or an exit record; 0: none has."""
    numbers = [name.partition(".")[0] for name in os.listdir(f"{runtime}/steps")]
    return max((int(number) for number in numbers if number.isdecimal()), default=0)


def hold(directory: str) -> int:
    """Lock a step's directory, for its supervisor: a descriptor that closes when a program is
    executed.

    Until then a child that is to become a task or a runtime has no mark of its own and cannot be
    told from other processes; but it holds this lock (flock(2): it goes with the descriptor).
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def claim_of_ours(mark: str, **more: object) -> dict[str, Any]:
    """What this process writes down of itself, for whoever finds it gone, and more."""
    pid = os.getpid()
    return {"pid": pid, "start_time": start_time(pid), "mark": mark, **more}


def write_claim(directory: str, claim: dict[str, Any]) -> None:
    files.write_atomically(f"{directory}/{CLAIM}", json.dumps(claim))


def write_exit(directory: str, record: ExitRecord) -> None:
    files.write_atomically(exit_path(directory), json.dumps(to_json(record)))


def read_exit(directory: str) -> ExitRecord | None:
    """The exit record of a step that has ended, or None."""
    try:
        with open(exit_path(directory), encoding="utf-8") as file:
            return from_json(ExitRecord, json.load(file))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def forget(directory: str) -> None:
    """Delete the exit record, and what a sweep has left of the directory: it is in the journal now.

    Raises OSError for a directory that cannot be removed.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(exit_path(directory))
    if os.path.lexists(directory):
        removal.remove_tree(directory)


def read_claim(directory: str) -> dict[str, Any] | None:
    try:
        with open(f"{directory}/{CLAIM}", encoding="utf-8") as file:
            claim = json.load(file)
    except (FileNotFoundError, ValueError):
        return None
    return claim if isinstance(claim, dict) else None


def start_time(pid: int) -> str:
    """A process's start time in clock ticks since boot, "" when it has ended.

    With the pid this names one process for ever: pids are used again, start times are not.
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] in _ENDED else fields[19]


def is_running(claim: dict[str, Any]) -> bool:
    """Whether the supervisor that made this claim is still there."""
    pid, started = claim.get("pid"), claim.get("start_time")
    return isinstance(pid, int) and bool(started) and start_time(pid) == started


def supervisors(steps: str) -> set[int]:
    """The pids of the supervisors that run, by the claims in the directory of steps."""
    claims = [read_claim(entry.path) for entry in os.scandir(steps) if entry.is_dir()]
    return {claim["pid"] for claim in claims if claim and is_running(claim)}
