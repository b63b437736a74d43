"""Short lines over TCP between processes of one user's on several machines."""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_LONGEST: Final = 200  # bytes


class Lines:
    """A connection on which both ends say lines."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._begun = b""

    def fileno(self) -> int:
        return self._socket.fileno()

    def say(self, line: str) -> None:
        """Say one; that the other end has gone is heard, and not said here."""
        with contextlib.suppress(OSError):
            self._socket.sendall(f"{line}\n".encode())

    def hear(self) -> list[str] | None:
        """What has come, which may be no whole line yet; None once no more will."""
        try:
            data = self._socket.recv(_LONGEST)
        except OSError:
            return None
        *lines, self._begun = (self._begun + data).split(b"\n")
        if not data or len(self._begun) > _LONGEST:
            return None
        return [line.decode("ascii", "replace") for line in lines]

    def close(self) -> None:
        self._socket.close()


class Listener:
    """Where this machine is reached, at all its addresses and a port that is free."""

    def __init__(self, ports: Iterable[int] = (0,)) -> None:
        """``ports``: the first of these that is free.  Raises OSError where none is."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._bind(ports)
            self._socket.listen(1024)
        except OSError:
            self._socket.close()
            raise
        self.port: int = self._socket.getsockname()[1]

    def _bind(self, ports: Iterable[int]) -> None:
        for port in ports:
            try:
                self._socket.bind(("", port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return
        raise OSError(errno.EADDRINUSE, "none of the ports is free")

    def fileno(self) -> int:
        return self._socket.fileno()

    def accept(self) -> Lines | None:
        """The next that has come; None if it has gone again."""
        try:
            connection, _ = self._socket.accept()
        except OSError:
            return None
        return Lines(connection)

    def close(self) -> None:
        self._socket.close()


def connect(address: str, port: int, seconds: float) -> Lines:
    """The other end's.  ``seconds`` is how long it may take to come there, and each line of its to
    come.  Raises OSError."""
    return Lines(socket.create_connection((address, port), timeout=seconds))
