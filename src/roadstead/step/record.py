"""What a supervisor writes down: what it is about to make, and how the step ended.

The *claim* is written before anything else of a step exists, in its directory.  Whoever finds the
directory without a live supervisor can remove everything that the claim names.  The *exit record*
is a file of its own, beside the step directories, written whole before anyone is told; the
controller deletes it once it is in the journal.
"""

from __future__ import annotations

import json
import os
from typing import Any

from roadstead.core.model import ExitRecord, from_json, to_json
from roadstead.host import cgroup, files, process, removal

CLAIM = "claim.json"
SOCKET = "ctl.sock"


def exit_path(directory: str) -> str:
    """Where the exit record of the step whose directory this is goes."""
    return f"{directory}.exit"


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


def forget_exit(directory: str) -> None:
    """Delete the exit record: it is in the journal now."""
    try:
        os.unlink(exit_path(directory))
    except FileNotFoundError:
        return


def read_claim(directory: str) -> dict[str, Any] | None:
    try:
        with open(f"{directory}/{CLAIM}", encoding="utf-8") as file:
            claim = json.load(file)
    except (FileNotFoundError, ValueError):
        return None
    return claim if isinstance(claim, dict) else None


def start_time(pid: int) -> str:
    """A process's start time in clock ticks since boot, "" when it is gone, or is but a zombie.

    With the pid this names one process for ever: pids are used again, start times are not.
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def is_running(claim: dict[str, Any]) -> bool:
    """Whether the supervisor that made this claim is still there."""
    pid, started = claim.get("pid"), claim.get("start_time")
    return isinstance(pid, int) and bool(started) and start_time(pid) == started


def sweep(directory: str) -> list[str]:
    """Remove what a supervisor that is gone left: processes, runtime state, its directory.

    Returns a line for each thing that was there.  Does nothing while the supervisor lives.
    """
    claim = read_claim(directory)
    if claim is None:
        removal.remove_tree(directory)
        return []
    if is_running(claim):
        return []
    found = _kill_marked(str(claim.get("mark", "")))
    for group in claim.get("groups", []):
        found += [f"process {pid}" for pid in cgroup.kill(str(group))]
    for container in claim.get("containers", []):
        found += _remove_container(container)
    for group in claim.get("groups", []):
        cgroup.remove(str(group))
    removal.remove_tree(directory)
    return found


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
            removal.remove_tree(path)
            found.append(f"{kind} {path}")
    for name in claim.get("cgroups", []):
        cgroup.remove_empty(str(name))
    return found


def _kill_marked(mark: str) -> list[str]:
    """Kill every process of ours whose environment carries the step's mark."""
    if not mark:
        return []
    needle = f"ROADSTEAD_STEP={mark}".encode()
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                marked = needle in file.read().split(b"\0")
        except OSError:
            continue
        if marked and process.send(int(name), process.KILL):
            found.append(f"process {name}")
    return found
