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
import time
from collections.abc import Iterator
from typing import Any, Final

from roadstead.core.model import ExitRecord, from_json, to_json
from roadstead.host import cgroup, files, fork, mounts, process, removal

CLAIM = "claim.json"
SOCKET = "ctl.sock"
# What marks a step's processes: its directory, which no other step of any engine has.  (JOB.STEP
# did in version 1; another engine of the same user has jobs with the same numbers.)
MARK: Final = "ROADSTEAD_STEP_DIR"
_OLD_MARK: Final = b"ROADSTEAD_STEP"
_STATE_OF_RUNC: Final = b"_LIBCONTAINER_STATEDIR="
_ENDED: Final = ("Z", "X")  # proc(5), state: somebody has yet to reap it
_DEATH_SECONDS: Final = 10.0
_FORK_SECONDS: Final = 5.0  # from a fork to the program that it becomes; more than it ever takes


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


def sweep(directory: str, *, keep: bool = False) -> list[str]:
    """Remove what a supervisor that is gone left: processes, runtime state, its directory.

    With ``keep`` the directory stays, with the claim in it: it is the only sign that the step has
    begun, until its end is in the journal (``forget``).

    Returns a line for each thing that was there.  Does nothing while the supervisor lives.
    """
    claim = read_claim(directory) or {}
    if is_running(claim):
        return []
    mark = str(claim.get("mark") or directory)
    _wait_for_forks(directory)
    found = _kill_all(claim, mark)
    for group in claim.get("groups", []):
        found += [f"process {pid}" for pid in cgroup.kill(str(group))]
    # Nothing runs that could make more: what is there now is all that has to go.
    for container in claim.get("containers", []):
        found += _remove_container(container)
    for group in claim.get("groups", []):
        cgroup.remove(str(group))
    for path in claim.get("files", []):
        with contextlib.suppress(FileNotFoundError):
            removal.remove(str(path))
            found.append(f"file {path}")
    if "pid" in claim:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(files.temporary(exit_path(directory), claim["pid"]))
    _remove(directory, keep=CLAIM if keep else "")
    return found


def _wait_for_forks(directory: str) -> None:
    """Wait until every child that the supervisor has forked is the program that it was to be."""
    try:
        held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # there is none, or it is no step's
        return
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        # flock(2) knows no time limit: a child waits for it, and we for the child.
        waiter = process.adopt(fork.run_in_child(lambda: fcntl.flock(held, fcntl.LOCK_EX)))
        if not waiter.ends_within(_FORK_SECONDS):
            waiter.signal(process.KILL)
        waiter.reap()
    finally:
        os.close(held)


def _remove(directory: str, *, keep: str = "") -> None:
    """Remove a directory, but never what is mounted in it."""
    mounts.detach_below(directory)
    removal.remove_tree(directory, keep=keep)


def _remove_container(claim: dict[str, Any]) -> list[str]:
    """Have the runtime delete a container; what it does not remove of its state, we do.

    A runtime that could only be called in the step's own namespace cannot be called from here, but
    its processes are gone, and its state is a directory of ours.
    """
    found = []
    if claim.get("delete"):
        command = [str(word) for word in claim["delete"]]
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            env = {"PATH": os.environ.get("PATH", os.defpath)}
            process.spawn(command, env=env, stdio=(null, null, null)).reap()
        except OSError as error:
            found.append(f"{command[0]} could not be called: {error.strerror}")
        finally:
            os.close(null)
    for kind in ("state", "directory"):
        path = str(claim.get(kind) or "")
        if path and os.path.lexists(path):
            _remove(path)
            found.append(f"{kind} {path}")
    for name in claim.get("cgroups", []):
        cgroup.remove_empty(str(name))
    return found


def marked_processes() -> dict[int, str]:
    """Every process of ours that carries a step's mark, and the mark."""
    marks = {pid: _mark_of(environ) for pid, environ in _environments()}
    return {pid: mark for pid, mark in marks.items() if mark is not None}


def _environments() -> Iterator[tuple[int, bytes]]:
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            yield int(name), process.environment(int(name))


def _processes_of(claim: dict[str, Any], mark: str) -> list[int]:
    found = []
    for pid, environ in _environments():
        if _mark_of(environ) == mark or _is_first_process(environ, claim):
            found += [pid, *process.descendants(pid)]
    return list(dict.fromkeys(found))


def _is_first_process(environ: bytes, claim: dict[str, Any]) -> bool:
    """Whether that is runc's, on its way to become the first of a container in the claim.

    It has an environment of runc's making, in which we have no part (libcontainer: STATEDIR); it
    waits for ever if it is stopped when its runc is killed.
    """
    start = environ.find(_STATE_OF_RUNC)
    if start < 0:
        return False
    path = os.fsdecode(environ[start + len(_STATE_OF_RUNC) :].partition(b"\0")[0])
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
        if name == MARK.encode():
            return os.fsdecode(value)
        if name == _OLD_MARK:
            old = os.fsdecode(value)
    return old


def _kill_all(claim: dict[str, Any], mark: str) -> list[str]:
    """Kill every process with the step's mark, those below them, and runc's that have none; what
    they start meanwhile, too; and see them end."""
    found: list[str] = []
    deadline = time.monotonic() + _DEATH_SECONDS
    while pids := _processes_of(claim, mark):
        found += [f"process {pid}" for pid in pids if f"process {pid}" not in found]
        if not process.kill_all(pids, deadline - time.monotonic()):
            break  # blocked in the kernel: no more to be done
    return found
