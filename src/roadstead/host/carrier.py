"""TCP carried between network namespaces, by whoever holds the sockets.

A socket belongs to the namespace it was made in, whoever holds it.  So a process that listens on
the host by sockets it was given, and is itself in a namespace from which it reaches a container,
publishes the container's ports: no tun device and no privilege of the host's is needed
(network_namespaces(7)).
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Callable
from functools import partial
from typing import Final

from roadstead.host.loop import Loop

_BACKLOG: Final = 128
_CHUNK: Final = 1 << 16
_PAUSE_SECONDS: Final = 0.1
_OUT_OF_DESCRIPTORS: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def listen(address: str, port: int) -> tuple[int, int]:
    """A descriptor that listens there, and its port: for 0, one that is free.  Raises OSError."""
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((address, port))
        found.listen(_BACKLOG)
    except BaseException:
        found.close()
        raise
    bound: int = found.getsockname()[1]
    return found.detach(), bound


def addresses(name: str) -> list[str]:
    """The IPv4 addresses that this machine knows for a name; none where it knows none."""
    try:
        found = socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        return []
    return [str(each[4][0]) for each in found]


class Carrier:
    """Carries what connects to listening sockets to other places, from the namespace we are in."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def serve(self, listener: int, target: tuple[str, int]) -> None:
        """Carry each connection of a listening socket to ``target``, an address and a port."""
        accepting = socket.socket(fileno=listener)
        accepting.setblocking(False)
        # What is watched is kept: a socket that is forgotten closes.
        self._loop.watch(accepting, partial(self._accept, accepting, target))

    def _accept(self, accepting: socket.socket, target: tuple[str, int]) -> None:
        try:
            client, _ = accepting.accept()
            server = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            if error.errno not in _OUT_OF_DESCRIPTORS:
                raise
            # Some connection will end; nobody tells when.
            self._loop.unwatch(accepting)
            again = partial(self._accept, accepting, target)
            self._loop.call_later(_PAUSE_SECONDS, partial(self._loop.watch, accepting, again))
            return
        server.setblocking(False)
        failed = server.connect_ex(target)
        if failed not in (0, errno.EINPROGRESS):
            _reset(client, server)
            return
        self._loop.watch_writable(server, partial(self._connected, client, server))

    def _connected(self, client: socket.socket, server: socket.socket) -> None:
        self._loop.unwatch(server)
        if server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            _reset(client, server)
            return
        _Pair(self._loop, client, server)


def _reset(client: socket.socket, server: socket.socket) -> None:
    """Nobody is there, or not yet.  As it cannot be refused any more, the connection is reset."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    server.close()


class _Pair:
    """A connection and the one that it is carried to, both ways, until both have ended."""

    def __init__(self, loop: Loop, client: socket.socket, server: socket.socket) -> None:
        self._loop = loop
        self._sockets = (client, server)
        self._waiting = {client: b"", server: b""}  # what that one has yet to take
        self._ended: set[socket.socket] = set()  # those that send no more
        for each in self._sockets:
            each.setblocking(False)
            loop.watch(each, self._reader(each))

    def _other(self, one: socket.socket) -> socket.socket:
        return self._sockets[1] if one is self._sockets[0] else self._sockets[0]

    def _reader(self, source: socket.socket) -> Callable[[], None]:
        sink = self._other(source)

        def ready() -> None:
            try:
                data = source.recv(_CHUNK)
            except BlockingIOError:
                return
            except OSError:
                self._close()
                return
            self._stop_reading(source)
            if data:
                self._waiting[sink] = data
                self._write(sink)
            else:
                self._ended.add(source)
                self._flushed(sink)

        return ready

    def _stop_reading(self, source: socket.socket) -> None:
        self._loop.unwatch(source)
        if self._waiting[source]:  # it may still have something to take
            self._loop.watch_writable(source, partial(self._write, source))

    def _write(self, sink: socket.socket) -> None:
        try:
            done = sink.send(self._waiting[sink])
        except BlockingIOError:
            done = 0
        except OSError:
            self._close()
            return
        self._waiting[sink] = self._waiting[sink][done:]
        if self._waiting[sink]:
            self._loop.watch_writable(sink, partial(self._write, sink))
            return
        self._loop.unwatch_writable(sink)
        self._flushed(sink)

    def _flushed(self, sink: socket.socket) -> None:
        """All that there was has gone to ``sink``: read on, or pass the end on."""
        source = self._other(sink)
        if source not in self._ended:
            self._loop.watch(source, self._reader(source))
            return
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        if len(self._ended) == len(self._sockets) and not any(self._waiting.values()):
            self._close()

    def _close(self) -> None:
        for each in self._sockets:
            if each.fileno() >= 0:
                self._loop.unwatch(each)
                each.close()
