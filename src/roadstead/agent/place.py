"""Where agents keep what they make, one directory a user and node:

    $XDG_RUNTIME_DIR/roadstead-NODE/    else $TMPDIR/roadstead-UID-NODE/, or in /tmp
        steps/JOB.STEP.TASK/            a task's files, and its claim
        containers/                     the runtime's state

With the built-in command lines both are in memory, in the agent's own mount namespace, and the
directory is only where that is mounted.  With an oci.conf they are on disk, as the runtime may keep
more elsewhere: an agent that was killed with its guard is swept by the next one here.

Each agent holds a shared lock of the directory; the last one, who alone can have it exclusively,
removes it.  (It must be the last: rmdir(2) takes away what is mounted there in other namespaces.)
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Mapping

from roadstead.errors import EngineError
from roadstead.host import mounts, paths
from roadstead.step import sweep


def node_name(environ: Mapping[str, str]) -> str:
    """What Slurm calls this node; without Slurm, the host's short name."""
    return environ.get("SLURMD_NODENAME") or os.uname().nodename.partition(".")[0]


class Place:
    """The directory of this user on this node, for as long as an agent needs it."""

    def __init__(self, environ: Mapping[str, str], node: str) -> None:
        """Make it, and look at it.  Raises EngineError."""
        if "/" in node or node in ("", ".", ".."):
            raise EngineError(f"{node!r} is not the name of a node")
        self.node = node
        self.path = _path(environ, node)
        self._lock = _hold(self.path)

    def sweep(self) -> None:
        """Remove what agents that are no more have left."""
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(f"{self.path}/steps"):
                sweep.sweep(f"{self.path}/steps/{name}")

    def close(self) -> None:
        """Let go of it; the last one removes it."""
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # others are there
            return
        if not mounts.detach(self.path):  # it is on disk, and mounts may be anywhere in it
            mounts.detach_below(self.path)
        for name in ("/steps", "/containers", ""):
            with contextlib.suppress(OSError):  # it is not there, or not empty: an oci.conf's
                os.rmdir(self.path + name)


def _path(environ: Mapping[str, str], node: str) -> str:
    base = environ.get("XDG_RUNTIME_DIR", "")
    if base.startswith("/") and _is_ours(base):
        return f"{base.rstrip('/')}/roadstead-{node}"
    base = environ.get("TMPDIR", "")
    if not (base.startswith("/") and os.path.isdir(base)):
        base = "/tmp"  # that was of the host where the job was submitted
    return f"{base.rstrip('/')}/roadstead-{os.getuid()}-{node}"


def _is_ours(path: str) -> bool:
    """XDG_RUNTIME_DIR may be that of a login elsewhere, or of another user (su)."""
    with contextlib.suppress(OSError):
        return os.stat(path).st_uid == os.getuid()
    return False


def _hold(path: str) -> int:
    """Make a directory, if need be, and lock it against its removal."""
    while True:
        paths.make_private(path)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
            fcntl.flock(fd, fcntl.LOCK_SH)
            if os.path.samestat(os.stat(path), os.fstat(fd)):
                return fd
        except FileNotFoundError:
            pass  # the last one there has just removed it
