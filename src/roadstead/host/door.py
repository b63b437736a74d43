"""A place to come to, for processes of one user's on one machine that come in any order.

Its name is an address of unix(7) that is in no file system: nothing of it can be left behind, and
of all who want it the first one has it.  The others need not wait until that is ready: what comes
is a datagram with an end of a connection, which arrives as soon as the name is taken and is read
whenever it is.  Whoever knows the name can come; who that is the connection tells (wire.py).
"""

from __future__ import annotations

import errno
import os
import socket

from roadstead.host import wire

_BYTES = 16


class Door:
    """The place, for whoever has it."""

    def __init__(self, fd: int) -> None:
        """It is open as ``fd``, as ``detach`` has left it."""
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(False)

    @classmethod
    def taken(cls, name: str) -> Door | None:
        """The place, for the first one who asks; None for others.  Raises OSError."""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            made.bind(f"\0{name}")
        except OSError as error:
            made.close()
            if error.errno != errno.EADDRINUSE:
                raise
            return None
        return cls(made.detach())

    def fileno(self) -> int:
        return self._socket.fileno()

    def accept(self) -> wire.Connection | None:
        """The next who has come; None where nobody has, or only somebody else's process."""
        try:
            _, fds, _, _ = socket.recv_fds(self._socket, _BYTES, 1)
        except BlockingIOError:
            return None
        for fd in fds:
            connection = wire.from_fd(fd)
            if connection.peer_uid() == os.getuid():
                return connection
            connection.close()
        return None

    def close(self) -> None:
        self._socket.close()


def come(name: str) -> wire.Connection:
    """A connection to whoever has the place.  Raises ConnectionRefusedError where nobody has."""
    mine, theirs = wire.pair()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.connect(f"\0{name}")
            socket.send_fds(sender, [b"me"], [theirs.fileno()])
    except OSError:
        mine.close()
        raise
    finally:
        theirs.close()
    return mine
