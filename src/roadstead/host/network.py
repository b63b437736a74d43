"""A network namespace of one's own, and what can be asked over a network.

In a new network namespace there is a loopback interface, and it is down (network_namespaces(7)).
Questions are asked by whoever may block: a child of its own (fork.py).
"""

from __future__ import annotations

import fcntl
import http.client
import os
import socket
import struct
from collections.abc import Sequence
from typing import Final

_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 0x1
_INTERFACE: Final = "16sh22x"  # struct ifreq, with ifr_flags (netdevice(7))
_LONGEST_ANSWER: Final = 4096
_GOOD: Final = range(200, 400)


def raise_loopback() -> None:
    """Make 127.0.0.1 and ::1 there.  Raises OSError where the namespace is not ours."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        asked = struct.pack(_INTERFACE, b"lo", 0)
        name, flags = struct.unpack(_INTERFACE, fcntl.ioctl(channel, _SIOCGIFFLAGS, asked))
        fcntl.ioctl(channel, _SIOCSIFFLAGS, struct.pack(_INTERFACE, name, flags | _IFF_UP))


def accepts(host: str, port: int, seconds: float) -> str:
    """Whether somebody listens there: "" or why not.  Blocks."""
    try:
        socket.create_connection((host, port), seconds).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def answers(
    scheme: str,
    host: str,
    port: int,
    path: str,
    headers: Sequence[tuple[str, str]],
    seconds: float,
) -> str:
    """Whether a GET is answered with success or a redirection: "" or why not.  Blocks.  Of a server
    that speaks TLS the certificate is not looked at: Kubernetes' probes do not either."""
    import ssl

    if scheme == "https":
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        made: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, port, timeout=seconds, context=context
        )
    else:
        made = http.client.HTTPConnection(host, port, timeout=seconds)
    try:
        made.request("GET", path, headers=dict(headers))
        status = made.getresponse().status
    except (OSError, http.client.HTTPException, ValueError) as error:
        return str(error) or type(error).__name__
    finally:
        made.close()
    return "" if status in _GOOD else f"status {status}"


class _Local(http.client.HTTPConnection):
    """HTTP over a socket of this machine's."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.sock.connect(self._path)


def listens(path: str) -> int:
    """Whether somebody listens at a path: 0, or the errno of connect(2)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as channel:
        return channel.connect_ex(path)


def ask_local(path: str, method: str, target: str, body: str = "") -> str:
    """A request to the server that listens at a path, with the contents of a file as its body: ""
    or why it has not succeeded.  Blocks for as long as the server does."""
    made = _Local(path)
    try:
        if body:
            with open(body, "rb") as file:
                length = str(os.fstat(file.fileno()).st_size)
                headers = {"Content-Type": "application/x-tar", "Content-Length": length}
                made.request(method, target, body=file, headers=headers)
                answer = made.getresponse()
        else:
            made.request(method, target)
            answer = made.getresponse()
        said = answer.read(_LONGEST_ANSWER).decode(errors="replace").strip()
        good = answer.status in _GOOD and '"error"' not in said
        return "" if good else f"status {answer.status}: {said}"
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    finally:
        made.close()
