"""System calls that Python's standard library has no name for, through libc.

Node side only: ``ctypes`` costs 2 ms to import.  Every function raises OSError with the kernel's
errno, as ``os`` does.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
from typing import Final

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000
MS_RDONLY: Final = 0x1
MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_NOEXEC: Final = 0x8
MS_REMOUNT: Final = 0x20
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x40000
MNT_DETACH: Final = 0x2
UMOUNT_NOFOLLOW: Final = 0x8

IN_MODIFY: Final = 0x2
IN_ATTRIB: Final = 0x4
IN_MOVED_TO: Final = 0x80
IN_CREATE: Final = 0x100
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NAME: Final = 15
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_GET_CHILD_SUBREAPER: Final = 37

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = [
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
]
_libc.prctl.argtypes = [
    ctypes.c_int,
    ctypes.c_ulong,
    ctypes.c_ulong,
    ctypes.c_ulong,
    ctypes.c_ulong,
]


def _check(result: int, path: str | None = None) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)


def set_child_subreaper(on: bool = True) -> None:
    """Orphaned descendants become our children, not init's (prctl(2), PR_SET_CHILD_SUBREAPER)."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0))


def is_child_subreaper() -> bool:
    """Whether ``set_child_subreaper`` was called in this process."""
    found = ctypes.c_int()
    _check(_libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.addressof(found), 0, 0, 0))
    return bool(found.value)


def set_parent_death_signal(signo: int) -> None:
    """Be sent ``signo`` when the thread that forked us ends (prctl(2), PR_SET_PDEATHSIG)."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signo, 0, 0, 0))


def leave_no_core() -> None:
    """Dump no core, whatever ends this process and whoever collects them (core(5))."""
    _check(_libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))


def set_process_name(name: str) -> None:
    """The name that ps and top show; the kernel keeps 15 bytes of it."""
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    _check(_libc.prctl(_PR_SET_NAME, ctypes.addressof(buffer), 0, 0, 0))


def unshare(flags: int) -> None:
    """Leave the namespaces named in ``flags`` for new ones (unshare(2))."""
    _check(_libc.unshare(ctypes.c_int(flags)))


def set_namespaces(pidfd: int, flags: int) -> None:
    """Move to the namespaces named in ``flags`` of the process behind a pidfd (setns(2))."""
    _check(_libc.setns(pidfd, ctypes.c_int(flags)))


def set_host_name(name: str) -> None:
    """The name of the host in this UTS namespace (sethostname(2))."""
    data = name.encode()
    _check(_libc.sethostname(data, ctypes.c_size_t(len(data))))


def enter_network(pidfd: int) -> None:
    """Move to the network of the process behind a pidfd, and before that to its user namespace, if
    it has one of its own: that owns the network."""
    try:
        set_namespaces(pidfd, CLONE_NEWUSER | CLONE_NEWNET)
    except OSError as error:
        if error.errno != errno.EINVAL:  # it is our own already (setns(2))
            raise
        set_namespaces(pidfd, CLONE_NEWNET)


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    _check(
        _libc.mount(
            os.fsencode(source), os.fsencode(target), kind.encode(), flags, os.fsencode(data)
        ),
        target,
    )


def unmount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _check(_libc.umount2(os.fsencode(target), ctypes.c_int(flags)), target)


class FileWatch:
    """Readable when a file has been written to, or what ``events`` says has happened to it or in it
    (inotify(7)).  ``fileno()`` for a loop."""

    __slots__ = ("_fd",)

    def __init__(self, path: str, events: int = IN_MODIFY) -> None:
        self._fd: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        _check(self._fd)
        try:
            _check(_libc.inotify_add_watch(self._fd, os.fsencode(path), events), path)
        except OSError:
            os.close(self._fd)
            raise

    def fileno(self) -> int:
        return self._fd

    def wait(self) -> None:
        """Block until something has happened, and forget it."""
        select.select([self._fd], [], [])
        self.drain()

    def drain(self) -> None:
        """Forget what has happened so far: the file itself tells more."""
        try:
            os.read(self._fd, 4096)
        except BlockingIOError:
            return

    def close(self) -> None:
        os.close(self._fd)
