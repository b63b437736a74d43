"""Links, addresses and routes of the network namespace that we are in: rtnetlink(7), four messages.

Whoever owns a network namespace may do this in it without being root (user_namespaces(7)); ip(8) is
not installed everywhere, and a process for each message would be slower than all of them.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Final

_NEWLINK: Final = 16
_NEWADDR: Final = 20
_NEWROUTE: Final = 24
_ERROR: Final = 2  # NLMSG_ERROR, which with 0 is the acknowledgement
_REQUEST_ACK: Final = 0x1 | 0x4
_CREATE_EXCL: Final = 0x400 | 0x200
_IFF_UP: Final = 0x1
_IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_NET_NS_FD = 3, 18, 28
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_PREFSRC = 1, 4, 7
_MAIN, _LOCAL = 254, 255  # tables
_SCOPE_LINK, _SCOPE_HOST = 253, 254
_UNICAST, _OF_US = 1, 2  # RTN_UNICAST, RTN_LOCAL
_BOOT: Final = 3


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + b"\0" * (-len(data) % 4)


def _link(index: int = 0, *, up: bool = False) -> bytes:
    flags = _IFF_UP if up else 0
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, flags, flags)


def _address(text: str) -> bytes:
    return socket.inet_aton(text)


class Netlink:
    """A conversation with the kernel about one network namespace."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        self._socket.bind((0, 0))

    def close(self) -> None:
        self._socket.close()

    def _ask(self, kind: int, flags: int, body: bytes) -> None:
        """Have it done.  Raises OSError."""
        head = struct.pack("=IHHII", 16 + len(body), kind, _REQUEST_ACK | flags, 1, 0)
        self._socket.send(head + body)
        answer = self._socket.recv(65536)
        (what,) = struct.unpack_from("=H", answer, 4)
        number = struct.unpack_from("=i", answer, 16)[0] if what == _ERROR else 0
        if number:
            raise OSError(-number, os.strerror(-number))

    def add_pair(self, name: str, peer: str, namespace: int) -> None:
        """A veth(4) pair, of which the other end is in the namespace open as ``namespace``."""
        other = _link() + _attribute(_IFLA_IFNAME, peer.encode() + b"\0")
        other += _attribute(_IFLA_NET_NS_FD, struct.pack("=I", namespace))
        data = _attribute(_INFO_DATA, _attribute(_VETH_PEER, other))
        info = _attribute(_IFLA_LINKINFO, _attribute(_INFO_KIND, b"veth") + data)
        own = _attribute(_IFLA_IFNAME, name.encode() + b"\0")
        self._ask(_NEWLINK, _CREATE_EXCL, _link() + own + info)

    def bring_up(self, name: str) -> None:
        """Bring a link up."""
        self._ask(_NEWLINK, 0, _link(socket.if_nametoindex(name), up=True))

    def add_address(self, name: str, address: str) -> None:
        """An address of a link, with no network about it."""
        data = _address(address)
        body = struct.pack("=BBBBI", socket.AF_INET, 32, 0, 0, socket.if_nametoindex(name))
        body += _attribute(_IFA_LOCAL, data) + _attribute(_IFA_ADDRESS, data)
        self._ask(_NEWADDR, _CREATE_EXCL, body)

    def add_route(self, name: str, to: str, length: int, *, source: str = "") -> None:
        """What is at the other end of a link; ``source`` is who we are to it."""
        self._route(name, to, length, _MAIN, _SCOPE_LINK, _UNICAST, source)

    def take_for_ours(self, to: str, length: int) -> None:
        """Have all addresses of a network be this machine's own."""
        self._route("lo", to, length, _LOCAL, _SCOPE_HOST, _OF_US, "")

    def _route(
        self, name: str, to: str, length: int, table: int, scope: int, kind: int, source: str
    ) -> None:
        body = struct.pack("=BBBBBBBBI", socket.AF_INET, length, 0, 0, table, _BOOT, scope, kind, 0)
        body += _attribute(_RTA_DST, _address(to))
        body += _attribute(_RTA_OIF, struct.pack("=I", socket.if_nametoindex(name)))
        if source:
            body += _attribute(_RTA_PREFSRC, _address(source))
        self._ask(_NEWROUTE, _CREATE_EXCL, body)
