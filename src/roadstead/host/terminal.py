"""Pseudo-terminals and window sizes."""

from __future__ import annotations

import fcntl
import os
import struct
import termios


def size(fd: int) -> tuple[int, int]:
    """Rows and columns; 24 by 80 where the terminal does not say."""
    try:
        columns, rows = os.get_terminal_size(fd)
    except OSError:
        return 24, 80
    return rows or 24, columns or 80


def open_pty(rows: int, columns: int) -> tuple[int, int, str]:
    """A new pty: master, slave, and the slave's path; both close-on-exec."""
    master, slave = os.openpty()
    resize(master, rows, columns)
    return master, slave, os.ttyname(slave)


def open_raw() -> tuple[int, int]:
    """A new pty for output alone: what is written to it comes out as it is, no newline changed."""
    master, slave = os.openpty()
    modes = termios.tcgetattr(slave)
    modes[1] &= ~termios.OPOST
    termios.tcsetattr(slave, termios.TCSANOW, modes)
    return master, slave


def resize(fd: int, rows: int, columns: int) -> None:
    """Set a terminal's size; its foreground processes get SIGWINCH (tty_ioctl(4))."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def resize_of_process(pid: int, rows: int, columns: int) -> None:
    """Set the size of the terminal that is standard input of a process in a container.

    Its pty is in a devpts that only that process can name; its descriptor can be opened through
    /proc.  What a container puts there is not trusted: nothing is waited for, and an ioctl on
    anything but a terminal fails.
    """
    try:
        fd = os.open(f"/proc/{pid}/fd/0", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return  # it has ended, or has closed it
    try:
        if os.isatty(fd):
            resize(fd, rows, columns)
    finally:
        os.close(fd)
