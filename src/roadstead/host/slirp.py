"""slirp4netns(1): TCP and UDP of a network namespace, carried by a process of the user's that is in
the machine's network.  It needs no privilege, but a tun device that its user may open."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from roadstead.host import fork, process

ADDRESS: Final = "10.0.2.100"  # of the network (slirp4netns(1), --configure)
RESOLVER: Final = "10.0.2.3"  # there, who asks the machine's own
_READY: Final = b"1"  # what it writes, once all is there
_TUN: Final = "/dev/net/tun"
# The machine's loopback stays the machine's: services that listen there trust who can reach them.
_OPTIONS: Final = ("--configure", "--mtu=65520", "--disable-host-loopback", "--netns-type=path")


def program(path: str) -> str:
    """The program, where this user could run it to some end; "" for none.  ``path`` is a PATH."""
    if not os.access(_TUN, os.R_OK | os.W_OK):
        return ""
    return process.which("slirp4netns", path) or ""


class Slirp:
    """One in progress; it ends when whoever has begun it does, whose end of a pipe it watches."""

    peak = 0  # an ending (step/life.py), which has come once it leads out of the network, or fails

    def __init__(
        self, program: str, where: Callable[[], tuple[str, str] | None], *kept: int
    ) -> None:
        """Begin it.  ``where`` is called in its process, with the descriptors ``kept`` and no
        others: the paths of the network namespace and of the user namespace that owns it, "" for
        the one it is in; None to begin nothing."""
        said, ready = os.pipe2(os.O_CLOEXEC)
        leave, self._leave = os.pipe2(os.O_CLOEXEC)

        def body() -> None:
            process.keep_only(*kept, ready, leave)
            found = where()
            if found is None:
                return
            for fd in (*kept, ready, leave):
                os.set_inheritable(fd, True)
            network, users = found
            owner = (f"--userns-path={users}",) if users else ()
            ends = (f"--ready-fd={ready}", f"--exit-fd={leave}")
            fork.replace_process([program, *_OPTIONS, *owner, *ends, network, "tap0"])

        self._child = process.adopt(fork.run_in_child(body, session=True))
        self._said = open(said, "rb", buffering=0)  # noqa: SIM115
        os.close(ready)
        os.close(leave)

    def fileno(self) -> int:
        return self._said.fileno()

    def reap(self) -> int:
        """0 if it leads out."""
        return 0 if self._said.read(1) == _READY else 1

    def close(self) -> None:
        """End it."""
        self._said.close()
        os.close(self._leave)
        self._child.signal(process.KILL)
        self._child.reap()
