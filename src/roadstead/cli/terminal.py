"""The user's terminal: its size, and raw mode for ``--pty``."""

from __future__ import annotations

import os
import termios

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_IFLAG, _OFLAG, _CFLAG, _LFLAG, _ISPEED, _OSPEED, _CC = range(7)


def size(fd: int) -> tuple[int, int]:
    """Rows and columns; 24 by 80 where the terminal does not say."""
    try:
        columns, rows = os.get_terminal_size(fd)
    except OSError:
        return 24, 80
    return rows or 24, columns or 80


def make_raw(fd: int) -> list[Any]:
    """Put the terminal in raw mode, as cfmakeraw(3); returns its old settings."""
    old = termios.tcgetattr(fd)
    new = termios.tcgetattr(fd)
    new[_IFLAG] &= ~(
        termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
        | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
    )  # fmt: skip
    new[_OFLAG] &= ~termios.OPOST
    new[_LFLAG] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    new[_CFLAG] = new[_CFLAG] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    new[_CC][termios.VMIN], new[_CC][termios.VTIME] = 1, 0
    termios.tcsetattr(fd, termios.TCSADRAIN, new)
    return old


def restore(fd: int, old: list[Any]) -> None:
    """Give the terminal its settings back, if it is still there."""
    try:
        termios.tcsetattr(fd, termios.TCSADRAIN, old)
    except termios.error:
        return  # its window was closed
