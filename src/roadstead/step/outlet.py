"""The way out of one container's private network: a slirp4netns(1) of its own (host/slirp.py).

It is begun while the container waits at its gate, in the machine's network, as is its supervisor;
it ends when that does, whose end of a pipe it watches.
"""

from __future__ import annotations

import os

from roadstead.host import fork, process, slirp


class Outlet:
    """One, in progress: an ending (life.py) that has come once the network is there."""

    peak = 0

    def __init__(self, program: str, pid: int) -> None:
        """Begin it, for the network of a process.  Raises OSError where that has ended."""
        pidfd = os.pidfd_open(pid)
        spaces: list[int] = []
        try:
            spaces.append(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC))
            spaces.append(os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC))
            if process.has_ended(pidfd):  # the number may be another's by now
                raise ProcessLookupError(3, os.strerror(3))
            is_own = process.namespace(pid, "user") == process.namespace("self", "user")
            self._begin(program, *spaces, users=not is_own)
        finally:
            for fd in (pidfd, *spaces):
                os.close(fd)

    def _begin(self, program: str, network: int, owner: int, *, users: bool) -> None:
        said, ready = os.pipe2(os.O_CLOEXEC)
        leave, self._leave = os.pipe2(os.O_CLOEXEC)
        kept = (network, owner, ready, leave)

        def body() -> None:
            process.keep_only(*kept)
            for fd in kept:
                os.set_inheritable(fd, True)
            fork.replace_process(
                slirp.command(
                    program,
                    f"/proc/self/fd/{network}",
                    users=f"/proc/self/fd/{owner}" if users else "",
                    ready=ready,
                    leave=leave,
                )
            )

        self._child = process.adopt(fork.run_in_child(body, session=True))
        self._said = open(said, "rb", buffering=0)  # noqa: SIM115
        os.close(ready)
        os.close(leave)

    def fileno(self) -> int:
        """Readable once it has led out of the network, or has failed."""
        return self._said.fileno()

    def reap(self) -> int:
        """0 if it leads out."""
        return 0 if self._said.read(1) == slirp.READY else 1

    def close(self) -> None:
        """End it."""
        self._said.close()
        os.close(self._leave)
        self._child.signal(process.KILL)
        self._child.reap()
