"""What is known of pods, running and ended: a file each, which its runner writes.

    STATE/pods/JOB.STEP.TOKEN.json      STATE is $XDG_STATE_HOME/roadstead

On a cluster the runner is on a node, and writes where the user's state directory is there too, as
home directories are on most.  What a pod has printed is not kept a second time: the record says in
which files it is.  A runner that was killed leaves its record as it was: readers look whether it
still runs (``is_alive``).  Records are kept for 30 days, as those of jobs are.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from roadstead.host import files, paths
from roadstead.step import record

VERSION: Final = 1
Record = dict[str, Any]
_KEPT_SECONDS: Final = 30 * 86400.0
_LARGEST: Final = 1 << 20


def place(environ: Mapping[str, str]) -> str:
    """The directory of the records (not made)."""
    return f"{os.path.dirname(paths.state_directory(environ))}/pods"


def new(environ: Mapping[str, str], **more: Any) -> Record:
    """The record of a pod that begins in this process: who runs it, where, and where its output
    goes, with ``more``."""
    pid = os.getpid()
    return {
        "version": VERSION,
        "cluster": environ.get("SLURM_CLUSTER_NAME", ""),
        "job": int(environ.get("SLURM_JOB_ID") or 0),
        "step": environ.get("SLURM_STEP_ID") or "batch",
        "node": environ.get("SLURMD_NODENAME") or os.uname().nodename,
        "boot": _boot(),
        "pid": pid,
        "start_time": record.start_time(pid),
        "began": time.time(),
        "ended": None,
        "code": None,
        "reason": "",
        "outputs": _outputs(),
        "containers": [],
        **more,
    }


def path_of(environ: Mapping[str, str], found: Record) -> str:
    """Where a new record goes; the directory is made, and what is too old in it removed.  Raises
    OSError, EngineError."""
    directory = place(environ)
    paths.make_private(os.path.dirname(directory))
    paths.make_private(directory)
    for entry in os.scandir(directory):
        with contextlib.suppress(FileNotFoundError):  # another pod's runner was faster
            if time.time() - entry.stat(follow_symlinks=False).st_mtime > _KEPT_SECONDS:
                os.unlink(entry.path)
    return f"{directory}/{found['job']}.{found['step']}.{os.urandom(4).hex()}.json"


def write(path: str, found: Record) -> None:
    """Write it.  Raises OSError."""
    files.write_atomically(path, json.dumps(found))


def end(found: Record, code: int) -> None:
    """The pod has ended: what it printed is in its files up to here."""
    found.update(ended=time.time(), code=code)
    for each in found["outputs"]:
        with contextlib.suppress(OSError):
            each["end"] = os.stat(each["path"]).st_size


def _outputs() -> list[dict[str, Any]]:
    """The files that our standard output and error are, and from where on they are the pod's."""
    found: dict[str, dict[str, Any]] = {}
    for fd in (1, 2):
        with contextlib.suppress(OSError):
            status = os.fstat(fd)
            path = os.readlink(f"/proc/self/fd/{fd}")
            if stat.S_ISREG(status.st_mode) and status.st_nlink:
                found[path] = {"path": path, "begin": status.st_size, "end": None}
    return list(found.values())


def _boot() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


# -- what readers make of them ---------------------------------------------------------------------


def every(environ: Mapping[str, str]) -> list[tuple[str, Record]]:
    """All records with their files, the oldest first.  What is not whole is none."""
    directory = place(environ)
    try:
        names = [name for name in os.listdir(directory) if name.endswith(".json")]
    except FileNotFoundError:
        return []
    found = [(f"{directory}/{name}", _read(f"{directory}/{name}")) for name in names]
    whole = [(path, each) for path, each in found if each is not None]
    return sorted(whole, key=lambda each: (each[1]["began"], each[0]))


def _read(path: str) -> Record | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with open(fd, encoding="utf-8") as file:
            found = json.loads(file.read(_LARGEST))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("version") == VERSION else None


def is_here(found: Record) -> bool:
    """Whether the pod's runner is a process of this machine's."""
    return bool(found["boot"] == _boot())


def is_alive(found: Record, jobs: Callable[[], Iterable[int]]) -> bool:
    """Whether the pod still runs.  ``jobs`` are asked for where only the engine knows."""
    if found["ended"] is not None:
        return False
    return record.is_running(found) if is_here(found) else found["job"] in jobs()


def status(found: Record, *, alive: bool) -> str:
    """The word that `kubectl get pods` has for it.  Pure."""
    if found["ended"] is not None:
        if found["reason"] == "deadline":
            return "DeadlineExceeded"
        return "Error" if found["code"] else "Completed"
    if not alive:
        return "Lost"
    if found["reason"]:
        return "Terminating"
    first = [each for each in found["containers"] if each["role"] != "main"]
    mains = [each for each in found["containers"] if each["role"] == "main"]
    if any(each["runs"] for each in mains):
        return "CrashLoopBackOff" if any(map(_waits_again, mains)) else "Running"
    if any(_waits_again(each) for each in first):
        return "Init:CrashLoopBackOff"
    passed = [each for each in first if each["started"] or each["code"] == 0]
    if len(passed) < len(first):
        return f"Init:{len(passed)}/{len(first)}"
    return "ContainerCreating"


def _waits_again(container: Record) -> bool:
    return bool(container["due"] and container["runs"] and container["state"] != "running")


def readiness(found: Record) -> tuple[int, int]:
    """How many of its containers are ready, and how many there are that run side by side.  Pure."""
    beside = [each for each in found["containers"] if each["role"] != "init"]
    return sum(1 for each in beside if each["ready"]), len(beside)
