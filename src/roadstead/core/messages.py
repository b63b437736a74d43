"""What any message must be before somebody looks into it.

Messages come from commands of ours, and from whatever else the user runs: a test of somebody's, a
container that was given the socket, an older release.  The kernel has vouched for the user
(host/wire.py), not for the contents.  Here is refused what no command sends and what breaks those
who use it later, far from here: a NUL in what becomes a path, an argument or a variable, text that
is neither UTF-8 nor the bytes of a file name, a number that fits no system call, no row and no
clock, a nest that nobody can print.  What a field means is request.py's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from roadstead.errors import EngineError

LARGEST: Final = (1 << 63) - 1
_LEVELS: Final = 6  # the deepest that a command sends is 3: message, terminal, rows


def check(body: Mapping[str, Any]) -> None:
    """Raise EngineError for a message that holds what none of ours does."""
    level: list[object] = [body]
    for _ in range(_LEVELS):
        below: list[object] = []
        for value in level:
            if isinstance(value, str):
                _check_text(value)
            elif isinstance(value, dict):
                below += value.keys()
                below += value.values()
            elif isinstance(value, list):
                below += value
            elif isinstance(value, (int, float)) and not -LARGEST <= value <= LARGEST:
                raise EngineError("malformed request: a number that is too large")
        if not below:
            return
        level = below
    raise EngineError("malformed request: nested too deeply")


def _check_text(text: str) -> None:
    if "\0" in text:
        raise EngineError("malformed request: text with a NUL byte")
    if text.isascii():
        return
    try:
        text.encode("utf-8", "surrogateescape")  # as Python keeps bytes that are not UTF-8
    except UnicodeEncodeError:
        raise EngineError("malformed request: text that is no UTF-8 and no bytes") from None
