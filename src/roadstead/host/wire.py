"""One JSON document a datagram, file descriptors with it: how our processes talk.

SOCK_SEQPACKET keeps message boundaries and delivers descriptors with the message they belong to.
A message that does not fit the socket's buffer (an environment can be 2 MiB, the default buffer is
208 KiB) travels in a memfd whose descriptor is sent instead.  The peer's uid comes from the kernel
(SO_PEERCRED) and is checked on both sides: the directory's mode 0700 is the lock, this is the bolt.

This module is on the commands' start-up path: it uses ``_socket`` (``socket`` builds four IntEnums,
4 to 7 ms) and ``_json`` (``json`` imports ``re``, 6 ms).
"""

from __future__ import annotations

import os
from _socket import (
    AF_UNIX,
    CMSG_LEN,
    CMSG_SPACE,
    SCM_RIGHTS,
    SHUT_RDWR,
    SO_PEERCRED,
    SO_SNDBUF,
    SOCK_CLOEXEC,
    SOCK_SEQPACKET,
    SOL_SOCKET,
    socket,
)

from roadstead.errors import EngineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERSION = 1  # of the protocol; a controller answers only its own
MAX_FDS = 16
MAX_MESSAGE = 64 << 20
_INLINE = 160 << 10  # below net.core.wmem_default's usual 208 KiB, with room for its bookkeeping
_MSG_CMSG_CLOEXEC = 0x40000000
_MSG_CTRUNC = 0x08
_MSG_TRUNC = 0x20
_MSG_NOSIGNAL = 0x4000
_MSG_DONTWAIT = 0x40


def _codec() -> tuple[Any, Any]:
    """``dumps`` and ``loads`` from CPython's C halves of ``json``; the package itself elsewhere."""
    try:
        from _json import encode_basestring_ascii, make_encoder, make_scanner
    except ImportError:
        import json

        return json.dumps, json.loads

    class Context:
        strict = True
        object_hook = None
        object_pairs_hook = None
        parse_float = float
        parse_int = int
        parse_constant = float

        def __init__(self) -> None:
            self.memo: dict[str, str] = {}

    def refuse(value: object) -> Any:
        raise TypeError(f"{type(value).__name__} is not JSON")

    encode = make_encoder(
        None, refuse, encode_basestring_ascii, None, ":", ",", False, False, False
    )
    scan = make_scanner(Context())  # type: ignore[arg-type]

    def dumps(value: Any) -> str:
        if isinstance(value, (str, int, float)) or value is None:
            return dumps([value])[1:-1]
        return "".join(encode(value, 0))

    def loads(text: str) -> Any:
        try:
            value, end = scan(text, 0)
        except StopIteration:
            raise ValueError("not JSON") from None
        if end != len(text):
            raise ValueError("not JSON: trailing data")
        return value

    return dumps, loads


dumps, loads = _codec()


class FdSet:
    """Descriptors received with a message; closes those that nobody took."""

    __slots__ = ("_fds",)

    def __init__(self, fds: list[int]) -> None:
        self._fds = fds

    def __len__(self) -> int:
        return len(self._fds)

    def take(self, index: int) -> int:
        """The descriptor at ``index``, which is the caller's from now on."""
        fd = self._fds[index]
        if fd < 0:
            raise ValueError("descriptor taken twice")
        self._fds[index] = -1
        return fd

    def take_all(self) -> list[int]:
        taken = [fd for fd in self._fds if fd >= 0]
        self._fds = []
        return taken

    def close(self) -> None:
        for fd in self.take_all():
            os.close(fd)


class Connection:
    """One end of a conversation.  ``fileno()`` so that a loop can watch it."""

    __slots__ = ("_socket",)

    def __init__(self, sock: socket) -> None:
        self._socket = sock

    def fileno(self) -> int:
        return self._socket.fileno()

    def set_inheritable(self, inheritable: bool) -> None:
        os.set_inheritable(self._socket.fileno(), inheritable)

    def detach(self) -> int:
        return self._socket.detach()

    def close(self) -> None:
        self._socket.close()

    def shut_down(self) -> None:
        """End the conversation for both ends: a thread that waits in ``receive`` returns."""
        try:
            self._socket.shutdown(SHUT_RDWR)
        except OSError:
            return  # the other end did so before

    def peer_uid(self) -> int:
        """The user at the other end, as the kernel knows it (unix(7), SO_PEERCRED)."""
        raw = self._socket.getsockopt(SOL_SOCKET, SO_PEERCRED, 12)
        return int.from_bytes(raw[4:8], "little")

    def peer_pid(self) -> int:
        """The process that connected; it may have ended, or passed its end on, since."""
        raw = self._socket.getsockopt(SOL_SOCKET, SO_PEERCRED, 12)
        return int.from_bytes(raw[0:4], "little")

    def send(self, message: Any, fds: tuple[int, ...] = (), *, wait: bool = True) -> None:
        """Send one message.  Raises BrokenPipeError or ConnectionResetError if the peer is gone,
        BlockingIOError if ``wait`` is false and its queue is full."""
        data = dumps(message).encode()
        flags = _MSG_NOSIGNAL | (0 if wait else _MSG_DONTWAIT)
        if len(data) > _INLINE:
            memfd = os.memfd_create("roadstead-message", os.MFD_CLOEXEC)
            try:
                with open(memfd, "wb", closefd=False) as file:
                    file.write(data)
                self._send(b'{"memfd":%d}' % len(data), (memfd, *fds), flags)
            finally:
                os.close(memfd)
            return
        self._send(data, fds, flags)

    def _send(self, data: bytes, fds: tuple[int, ...], flags: int) -> None:
        packed = b"".join(fd.to_bytes(4, "little", signed=True) for fd in fds)
        ancillary = [(SOL_SOCKET, SCM_RIGHTS, packed)] if fds else []
        self._socket.sendmsg([data], ancillary, flags)

    def receive(self, *, wait: bool = True) -> tuple[Any, FdSet] | None:
        """The next message and its descriptors; None when the peer has closed.

        Raises BlockingIOError if ``wait`` is false and nothing is there, ValueError for a message
        that is not ours (truncated, not JSON, not an object, too large).
        """
        flags = _MSG_CMSG_CLOEXEC | (0 if wait else _MSG_DONTWAIT)
        try:
            data, ancillary, got, _ = self._socket.recvmsg(
                _INLINE + 1, CMSG_SPACE(4 * MAX_FDS), flags
            )
        except ConnectionResetError:
            return None
        fds = FdSet(_descriptors(ancillary))
        try:
            if got & (_MSG_CTRUNC | _MSG_TRUNC):
                raise ValueError("message truncated")
            if not data:
                fds.close()
                return None
            message = loads(data.decode())
            if not isinstance(message, dict):
                raise ValueError("message is not an object")
            if "memfd" in message:
                message, fds = _unpack(message["memfd"], fds)
        except (ValueError, RecursionError) as error:
            fds.close()
            raise ValueError(str(error)) from None
        return message, fds


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds: list[int] = []
    for level, kind, data in ancillary:
        if level == SOL_SOCKET and kind == SCM_RIGHTS:
            usable = len(data) - len(data) % 4
            fds += [
                int.from_bytes(data[i : i + 4], "little", signed=True) for i in range(0, usable, 4)
            ]
    return fds


def _unpack(size: object, fds: FdSet) -> tuple[Any, FdSet]:
    """The real message of one that came in a memfd (its first descriptor)."""
    if type(size) is not int or not 0 < size <= MAX_MESSAGE or not len(fds):
        raise ValueError("message too large")
    rest = fds.take_all()
    try:
        data = os.pread(rest[0], size, 0)
    except OSError as error:
        for fd in rest:
            os.close(fd)
        raise ValueError(f"message body unreadable: {error.strerror}") from None
    os.close(rest[0])
    remaining = FdSet(rest[1:])
    try:
        message = loads(data.decode())
        if len(data) != size or not isinstance(message, dict):
            raise ValueError("message is not an object")
    except (ValueError, RecursionError):
        remaining.close()
        raise
    return message, remaining


def pair() -> tuple[Connection, Connection]:
    """Two connected ends, for a parent and its child."""
    from _socket import socketpair

    a, b = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
    return Connection(a), Connection(b)


def from_fd(fd: int) -> Connection:
    """The connection whose descriptor was inherited or received."""
    return Connection(socket(AF_UNIX, SOCK_SEQPACKET, 0, fd))


def _address(path: str) -> tuple[str, int]:
    """An address for ``path`` that fits sun_path's 108 bytes, and a descriptor to close after.

    A long path is reached through its directory's descriptor: /proc/self/fd/N/name.
    """
    if len(os.fsencode(path)) < 100:
        return path, -1
    directory, name = os.path.split(path)
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return f"/proc/self/fd/{fd}/{name}", fd


def connect(path: str) -> Connection:
    """Connect to the socket at ``path``.

    Raises FileNotFoundError or ConnectionRefusedError when nobody listens, EngineError when the
    process that listens is another user's.
    """
    sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
    address, fd = _address(path)
    try:
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    finally:
        if fd >= 0:
            os.close(fd)
    connection = Connection(sock)
    uid = connection.peer_uid()
    if uid != os.getuid():
        connection.close()
        raise EngineError(
            f"{path}: the process that listens there belongs to uid {uid}, not to you",
            hint="set XDG_RUNTIME_DIR to a directory of your own (mode 0700)",
        )
    return connection


class Listener:
    """A listening socket at ``path``, mode 0600; whoever connects must be this user.

    ``fd`` is one that listens there already: it was kept when its process became another program.
    """

    __slots__ = ("_socket", "path")

    def __init__(self, path: str, fd: int = -1) -> None:
        self.path = path
        if fd >= 0:
            self._socket = socket(AF_UNIX, SOCK_SEQPACKET, 0, fd)
            return
        self._socket = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
        address, fd = _address(path)
        old = os.umask(0o177)
        try:
            self._socket.bind(address)
        finally:
            os.umask(old)
            if fd >= 0:
                os.close(fd)
        self._socket.listen(1024)

    def fileno(self) -> int:
        return self._socket.fileno()

    def accept(self) -> Connection | None:
        """The next caller; None if it was another user's process (and is gone already)."""
        fd, _ = self._socket._accept()  # type: ignore[attr-defined]
        os.set_inheritable(fd, False)
        connection = from_fd(fd)
        if connection.peer_uid() != os.getuid():
            connection.close()
            return None
        return connection

    def detach(self) -> int:
        """Its descriptor, which stays open; whoever connects waits."""
        return self._socket.detach()

    def close(self, *, unlink: bool = True) -> None:
        self._socket.close()
        if unlink:
            os.unlink(self.path)


def raise_buffer(connection: Connection, size: int) -> None:
    """Ask for a larger send queue (the kernel gives at most net.core.wmem_max)."""
    connection._socket.setsockopt(SOL_SOCKET, SO_SNDBUF, size)


__all__ = [
    "CMSG_LEN",
    "Connection",
    "FdSet",
    "Listener",
    "connect",
    "dumps",
    "from_fd",
    "loads",
    "pair",
]
