"""Removing what a supervisor that is gone has left, by the claim in its step's directory.

Whoever does it can be killed at it: then it is begun again.  Processes go first, as only they can
make more of anything.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from typing import Any, Final

from roadstead.host import cgroup, files, fork, mounts, process, removal
from roadstead.step import processes, record

_DEATH_SECONDS: Final = 10.0
_DELETIONS: Final = 5  # of one container, where the runtime is killed at it
_FORK_SECONDS: Final = 5.0  # from a fork to the program that it becomes; more than it ever takes


def sweep(directory: str, *, keep: bool = False) -> list[str]:
    """Remove what a supervisor that is gone left: processes, runtime state, its directory.

    With ``keep`` the directory stays, with the claim in it: it is the only sign that the step has
    begun, until its end is in the journal (``record.forget``).

    Returns a line for each thing that was there.  Does nothing while the supervisor lives.
    """
    claim = record.read_claim(directory) or {}
    if record.is_running(claim):
        return []
    with _alone(directory):
        return _swept(directory, claim, keep=keep)


def _swept(directory: str, claim: dict[str, Any], *, keep: bool) -> list[str]:
    mark = str(claim.get("mark") or directory)
    found = _kill_all(claim, mark)
    for group in claim.get("groups", []):
        found += [f"process {pid}" for pid in cgroup.kill(str(group))]
    if patterns := {str(each.get("litter") or "") for each in claim.get("containers", [])} - {""}:
        with contextlib.suppress(FileNotFoundError):  # somebody else has swept meanwhile
            since = os.stat(f"{directory}/{record.CLAIM}").st_mtime
            found += [line for pattern in patterns for line in remove_litter(pattern, since)]
    # Nothing runs that could make more: what is there now is all that has to go.
    found += sweep_inner(directory)
    found += remove_claimed(claim)
    if "pid" in claim:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(files.temporary(record.exit_path(directory), claim["pid"]))
    _remove(directory, keep=record.CLAIM if keep else "")
    return found


def sweep_inner(directory: str) -> list[str]:
    """Remove what programs of ours that a step's tasks ran have written down and left
    (``record.INNER``).  None of them runs.  A line for each thing that was there."""
    found: list[str] = []
    try:
        names = os.listdir(f"{directory}/{record.INNER}")
    except FileNotFoundError:
        return found
    for name in names:
        found += remove_claimed(record.read_claim(f"{directory}/{record.INNER}/{name}") or {})
    return found


def remove_claimed(claim: dict[str, Any]) -> list[str]:
    """Remove the containers, groups and files that a claim names; a line for each."""
    found: list[str] = []
    for container in claim.get("containers", []):
        found += _remove_container(container)
    for group in claim.get("groups", []):
        cgroup.remove(str(group))
    for path in claim.get("files", []):
        with contextlib.suppress(FileNotFoundError):
            removal.remove(str(path))
            found.append(f"file {path}")
    return found


def remove_litter(pattern: str, since: float) -> list[str]:
    """Remove what a container system's own processes leave elsewhere when they are killed
    (``System.litter``): what is named after a process that is no more, and no older than the step.
    A line for each."""
    found = []
    folder, _, name = pattern.rpartition("/")
    before, _, after = name.rstrip("*").partition("{pid}")
    for entry in os.scandir(folder):
        pid, _, _ = entry.name.removeprefix(before).partition(after)
        if entry.name.startswith(f"{before}{pid}{after}") and pid.isdecimal():
            seen = entry.stat(follow_symlinks=False)
            mine = seen.st_uid == os.getuid() and seen.st_ctime >= since
            if mine and not record.start_time(int(pid)):
                removal.remove(entry.path)
                found.append(f"file {entry.path}")
    return found


@contextlib.contextmanager
def _alone(directory: str) -> Iterator[None]:
    """Wait until every child that the supervisor has forked is the program that it was to be, and
    until nobody else sweeps here: whoever joins a named container does, and the controller; of two
    that remove one tree, one finds directories that it has just emptied not empty."""
    try:
        held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # there is none, or it is no step's
        yield
        return
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # flock(2) knows no time limit: a child waits for it, and we for the child.
            waiter = process.adopt(fork.run_in_child(lambda: fcntl.flock(held, fcntl.LOCK_EX)))
            if not waiter.ends_within(_FORK_SECONDS):
                waiter.signal(process.KILL)
            waiter.reap()
        yield
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
            # As it was called before (plan.py), but for the mark: where a runtime keeps its state
            # may be in XDG_RUNTIME_DIR.
            env = {name: value for name, value in os.environ.items() if name != record.MARK}
            env.update(claim.get("env") or {})
            env["PATH"] = str(claim.get("path") or env.get("PATH", os.defpath))
            for _ in range(_DELETIONS):
                child = process.spawn(command, env=env, stdio=(null, null, null))
                if not process.was_killed(child.reap()):
                    break
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


def _kill_all(claim: dict[str, Any], mark: str) -> list[str]:
    """Kill all processes of the step, and what they start meanwhile, and see them end."""
    found: list[str] = []
    deadline = time.monotonic() + _DEATH_SECONDS
    while pids := processes.of_claim(claim, mark):
        found += [f"process {pid}" for pid in pids if f"process {pid}" not in found]
        if not process.kill_all(pids, deadline - time.monotonic()):
            break  # blocked in the kernel: no more to be done
    return found
