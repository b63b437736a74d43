"""The way out of one container's private network: a slirp4netns(1) of its own (host/slirp.py).

It is begun while the container waits at its gate, in the machine's network, as is its supervisor.
"""

from __future__ import annotations

import os

from roadstead.host import process, slirp


def begin(program: str, pid: int) -> slirp.Slirp:
    """Lead out of the network of a process.  Raises OSError where that has ended."""
    pidfd = os.pidfd_open(pid)
    spaces: list[int] = []
    try:
        spaces.append(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        spaces.append(os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC))
        if process.has_ended(pidfd):  # the number may be another's by now
            raise ProcessLookupError(3, os.strerror(3))
        network, owner = [f"/proc/self/fd/{fd}" for fd in spaces]
        is_own = process.namespace(pid, "user") == process.namespace("self", "user")
        return slirp.Slirp(program, lambda: (network, "" if is_own else owner), *spaces)
    finally:
        for fd in (pidfd, *spaces):
            os.close(fd)
