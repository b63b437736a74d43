"""slirp4netns(1): TCP and UDP of a network namespace, carried by a process of the user's that is in
the machine's network.  It needs no privilege, but a tun device that its user may open."""

from __future__ import annotations

import os
from typing import Final

from roadstead.host import process

ADDRESS: Final = "10.0.2.100"  # of the network (slirp4netns(1), --configure)
RESOLVER: Final = "10.0.2.3"  # there, who asks the machine's own
READY: Final = b"1"  # what it writes, once all is there
_TUN: Final = "/dev/net/tun"
# The machine's loopback stays the machine's: services that listen there trust who can reach them.
_OPTIONS: Final = ("--configure", "--mtu=65520", "--disable-host-loopback", "--netns-type=path")


def program(path: str) -> str:
    """The program, where this user could run it to some end; "" for none.  ``path`` is a PATH."""
    if not os.access(_TUN, os.R_OK | os.W_OK):
        return ""
    return process.which("slirp4netns", path) or ""


def command(program: str, network: str, *, users: str = "", ready: int, leave: int) -> list[str]:
    """What carries the network namespace at a path; ``users`` is the user namespace that owns it,
    unless that is the caller's own.

    ``ready`` is where it writes READY, and ``leave`` the end of a pipe whose other end's closing
    ends it: both are descriptors that it inherits.
    """
    owner = (f"--userns-path={users}",) if users else ()
    ends = (f"--ready-fd={ready}", f"--exit-fd={leave}")
    return [program, *_OPTIONS, *owner, *ends, network, "tap0"]
