"""Pipes, terminals and FIFOs that are written to without ever blocking.

A descriptor that a user gave us shares its flags with the user's shell and with whoever else has
it: O_NONBLOCK set on it would hit them all.  Opening it again through /proc/self/fd gives an open
file description of our own (proc(5)), which can be non-blocking.  Where that is not possible (a
socket, another user's terminal) writes are kept so small that they cannot block a pipe (pipe(7):
a pipe that poll(2) calls writable takes PIPE_BUF bytes).
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import stat
from typing import Final

PIPE_BUF: Final = select.PIPE_BUF


def socket_pair() -> tuple[int, int]:
    """Two ends of a connection between ourselves and a child: ours, which never blocks, and its."""
    from _socket import AF_UNIX, SOCK_STREAM, socketpair

    ours, theirs = socketpair(AF_UNIX, SOCK_STREAM)
    first, second = ours.detach(), theirs.detach()
    os.set_blocking(first, False)
    return first, second


def own_writer(fd: int) -> int | None:
    """A non-blocking descriptor for the pipe or terminal ``fd``, which stays as it is; or None."""
    mode = os.fstat(fd).st_mode
    if not stat.S_ISFIFO(mode) and not (stat.S_ISCHR(mode) and os.isatty(fd)):
        return None
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        return os.open(f"/proc/self/fd/{fd}", flags)
    except OSError:  # not permitted; or a pipe that nobody reads any more: its writer shall see it
        return None


def can_poll(fd: int) -> bool:
    """Whether epoll(7) takes it: regular files, directories and /dev/null are always ready."""
    probe = select.epoll()
    try:
        probe.register(fd, 0)
    except PermissionError:
        return False
    finally:
        probe.close()
    return True


def widen(fd: int, size: int) -> None:
    """Let a pipe hold ``size`` bytes, if the user has as many left (pipe(7))."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, size)
    except OSError:
        return


def open_fifo_writer(path: str) -> int | None:
    """Open a FIFO for writing, without waiting for a reader: None where it has none."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise
    os.set_blocking(fd, True)
    return fd


def await_fifo_writer(path: str) -> int:
    """Open a FIFO for writing once it has a reader; a descriptor that can be read when it is open.

    What is read there is the number of the new descriptor; the end of file, that it failed.  The
    thread is needed: nothing but a blocked open(2) hears of a reader that is itself in open(2)
    (fifo(7)).  It ends with the process.
    """
    from threading import Thread

    read, write = os.pipe2(os.O_CLOEXEC)

    def wait() -> None:
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            os.write(write, str(fd).encode())
        except OSError:
            pass  # it has been removed; the reader of the pipe sees its end
        finally:
            os.close(write)

    Thread(target=wait, daemon=True).start()
    return read
