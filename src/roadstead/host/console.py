"""A container's terminal, as an OCI runtime hands it over: ``--console-socket``.

The runtime connects to a socket of ours and sends the master of the pty that it made in the
container (runtime-spec's terminal; crun(1), runc's docs/terminals.md).  Where it does not, it
stands between the two terminals and copies; and crun 1.8 writes what it has not yet copied at the
program's end into its log of errors.
"""

from __future__ import annotations

import contextlib
import os
from _socket import (
    AF_UNIX,
    CMSG_SPACE,
    SCM_RIGHTS,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    SOL_SOCKET,
    socket,
)
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from roadstead.host.loop import Loop

LONGEST: Final = 107  # of a socket's path (unix(7)), its terminating zero not counted
_MSG_CMSG_CLOEXEC: Final = 0x40000000


class ConsoleSocket:
    """Listens at ``path``; calls ``arrived`` with the terminal, whose owner it then is.

    Raises OSError.
    """

    def __init__(self, loop: Loop, path: str, arrived: Callable[[int], None]) -> None:
        self.path = path
        self._loop = loop
        self._arrived = arrived
        self._socket = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC)
        try:
            self._socket.bind(path)
            self._socket.listen(1)
        except OSError:
            self._socket.close()
            raise
        self._open = True
        self._connected = False
        loop.watch(self._socket.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            fd, _ = self._socket._accept()  # type: ignore[attr-defined]  # as socket.accept does
        except BlockingIOError:
            return
        os.set_blocking(fd, False)
        self._loop.unwatch(self._socket.fileno())  # one runtime comes, once
        self._socket.close()
        self._socket = socket(AF_UNIX, SOCK_STREAM, fileno=fd)
        self._connected = True
        self._loop.watch(fd, self._receive)

    def _receive(self) -> None:
        try:
            _, ancillary, _, _ = self._socket.recvmsg(4096, CMSG_SPACE(4), _MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            ancillary = []
        self.close()
        for level, kind, data in ancillary:
            if level == SOL_SOCKET and kind == SCM_RIGHTS and len(data) >= 4:
                fd = int.from_bytes(data[:4], "little", signed=True)
                if os.isatty(fd):
                    self._arrived(fd)
                else:
                    os.close(fd)

    def finish(self) -> None:
        """The runtime has ended: take what it has sent, if we have not come to that, and close."""
        if self._open and not self._connected:
            self._accept()
        if self._open and self._connected:
            self._receive()
        self.close()

    def close(self) -> None:
        """Wait for no terminal any more."""
        if not self._open:
            return
        self._open = False
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
