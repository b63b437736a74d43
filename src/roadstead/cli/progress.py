"""How far something is that takes long: one line on a terminal, nothing in a pipe."""

from __future__ import annotations

import os
import time
from typing import TextIO

_EVERY_SECONDS = 0.1
_BAR = 24
_WIDTH = 80  # of a terminal that does not know its own


class Line:
    """The line, as a context; it is taken away at the end.

    It is called with what is done, and with how many bytes of how many (0: not known; where both
    are, nothing is counted).
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream if stream.isatty() else None
        self._last = 0.0

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        if self._last and self._stream:
            self._stream.write("\r\033[K")
            self._stream.flush()

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if self._stream is None or now - self._last < _EVERY_SECONDS:
            return
        self._last = now
        text = f"{what} {size(done)}" if done else what
        if total:
            full = min(_BAR, _BAR * done // total)
            bar = f"[{'#' * full}{' ' * (_BAR - full)}]"
            text = f"{what} {bar} {size(done)} of {size(total)}"
        try:
            width = os.get_terminal_size(self._stream.fileno()).columns or _WIDTH
        except OSError:
            width = _WIDTH
        self._stream.write(f"\r\033[K{text[: max(1, width - 1)]}")
        self._stream.flush()


def size(count: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
