"""A place to come to, for processes of one user's on one machine that come in any order.

Its name is an address of unix(7) that is in no file system: nothing of it can be left behind, and
of all who want it the first one has it.  The others need not wait until that is ready: what comes
is a datagram with an end of a connection, which arrives as soon as the name is taken and is read
whenever it is.

Such names are no secret (/proc/net/unix).  Who comes is known by the connection, which the kernel
says whose it is, and turned away unread.  Who is there has to show a secret that those who come
know as well, before they say anything: else whoever waited for the name to be free again could be
told everything, and tell them what to run.
"""

from __future__ import annotations

import errno
import os
import socket
from _operator import _compare_digest  # hmac's, without hashlib

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

    def accept(self, secret: str) -> wire.Connection | None:
        """The next who has come; None where nobody has, or only somebody else's process."""
        try:
            _, fds, _, _ = socket.recv_fds(self._socket, _BYTES, 1)
        except BlockingIOError:
            return None
        for more in fds[1:]:  # there is room for two where there is room for one (cmsg(3))
            os.close(more)
        return _known(fds[0], secret) if fds else None

    def close(self) -> None:
        self._socket.close()


def _known(fd: int, secret: str) -> wire.Connection | None:
    try:
        connection = wire.from_fd(fd)
    except OSError:  # no socket
        os.close(fd)
        return None
    try:
        if connection.peer_uid() == os.getuid():
            connection.send({"secret": secret})
            return connection
    except OSError:  # of another kind, or he has gone
        pass
    connection.close()
    return None


def come(name: str) -> wire.Connection:
    """A connection to whoever has the place, to be told nothing before it is ``trusted``.  Raises
    ConnectionRefusedError where nobody has it."""
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


def trusted(greeting: object, secret: str) -> bool:
    """Whether the first message that came is of somebody who knows the secret."""
    said = greeting.get("secret") if isinstance(greeting, dict) else None
    return isinstance(said, str) and _compare_digest(said.encode(), secret.encode())
