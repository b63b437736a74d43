"""Pseudo-terminals and window sizes."""

from __future__ import annotations

import fcntl
import os
import struct
import termios


def open_pty(rows: int, columns: int) -> tuple[int, int, str]:
    """A new pty: master, slave, and the slave's path; both close-on-exec."""
    master, slave = os.openpty()
    resize(master, rows, columns)
    return master, slave, os.ttyname(slave)


def resize(fd: int, rows: int, columns: int) -> None:
    """Set a terminal's size; its foreground processes get SIGWINCH (tty_ioctl(4))."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
