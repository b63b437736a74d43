"""The way out of a pod's own network: slirp4netns(1), where the node has it and lets its user open
a tun device (host/slirp.py).

What is published is what hostPorts say.  It is begun before any namespace is entered, as
nothing leads back, and told then where they are: who owns a user namespace may enter it from
outside, and has all rights there.  It ends when the runner does, whose end of a pipe it watches.
A node without it has pods with a loopback interface and nothing beyond.
"""

from __future__ import annotations

import os
from typing import Final

from roadstead.host import fork, process, slirp

_PATIENCE: Final = 20.0
_SAME, _OTHER = b"s", b"o"  # the user namespace that we are in when the network is there


class Outlet:
    """One pod's, in progress."""

    def __init__(self, path: str) -> None:
        """Begin it, in the node's network."""
        go, self._go = os.pipe2(os.O_CLOEXEC)
        said, ready = os.pipe2(os.O_CLOEXEC)
        self._ready = open(said, "rb", buffering=0)  # noqa: SIM115
        leave, self._leave = os.pipe2(os.O_CLOEXEC)
        runner = os.getpid()
        self._users = process.namespace("self", "user")

        def body() -> None:
            process.keep_only(go, ready, leave)
            word = os.read(go, 1)
            if not word:
                return
            users = f"/proc/{runner}/ns/user" if word == _OTHER else ""
            for fd in (ready, leave):
                os.set_inheritable(fd, True)
            network = f"/proc/{runner}/ns/net"
            fork.replace_process(
                slirp.command(path, network, users=users, ready=ready, leave=leave)
            )

        self._child = process.adopt(fork.run_in_child(body, session=True))
        for fd in (go, ready, leave):
            os.close(fd)

    def open(self) -> bool:
        """Lead it into the network that we are in now; whether it has come there."""
        is_other = process.namespace("self", "user") != self._users
        os.write(self._go, _OTHER if is_other else _SAME)
        return (
            process.becomes_readable(self._ready, _PATIENCE) and self._ready.read(1) == slirp.READY
        )

    def close(self) -> None:
        """End it."""
        self._ready.close()
        for fd in (self._go, self._leave):
            os.close(fd)
        self._child.signal(process.KILL)
        self._child.reap()
