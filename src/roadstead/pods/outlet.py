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

from roadstead.host import process, slirp

_PATIENCE: Final = 20.0
_SAME, _OTHER = b"s", b"o"  # the user namespace that we are in when the network is there


class Outlet:
    """One pod's, in progress."""

    def __init__(self, path: str) -> None:
        """Begin it, in the node's network."""
        go, self._go = os.pipe2(os.O_CLOEXEC)
        runner = os.getpid()
        self._users = process.namespace("self", "user")

        def where() -> tuple[str, str] | None:
            word = os.read(go, 1)
            users = f"/proc/{runner}/ns/user" if word == _OTHER else ""
            return (f"/proc/{runner}/ns/net", users) if word else None

        self._slirp = slirp.Slirp(path, where, go)
        os.close(go)

    def open(self) -> bool:
        """Lead it into the network that we are in now; whether it has come there."""
        is_other = process.namespace("self", "user") != self._users
        os.write(self._go, _OTHER if is_other else _SAME)
        return process.becomes_readable(self._slirp, _PATIENCE) and self._slirp.reap() == 0

    def close(self) -> None:
        """End it."""
        os.close(self._go)
        self._slirp.close()
