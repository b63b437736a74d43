"""Something that will have happened once; any number of lives can wait for it (life.py)."""

from __future__ import annotations

import os
from collections.abc import Callable

from roadstead.step.life import Life, Until


class Moment:
    """One, which comes when somebody says so."""

    def __init__(self) -> None:
        # Its end is read once nobody can write any more.
        self._event, self._before = os.pipe2(os.O_CLOEXEC)
        self._awaited: list[Awaited] = []

    def come(self) -> None:
        """Let all go on that wait for it, and those that will."""
        if self._before >= 0:
            os.close(self._before)
            self._before = -1

    def awaited(self) -> Awaited:
        """What one life waits for."""
        made = Awaited(os.dup(self._event))
        self._awaited.append(made)
        return made

    def close(self) -> None:
        """Nobody waits any more."""
        self.come()
        os.close(self._event)
        for each in self._awaited:
            each.reap()


class Awaited:
    """One that waits for it, as for a child."""

    peak = 0

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def reap(self) -> int:
        """It has come, or nobody waits."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        return 0


def called_back(begin: Callable[[Callable[[], None]], None]) -> Life[None]:
    """Begin what calls back once it has ended, and wait for that."""
    ended = Moment()
    try:
        begin(ended.come)
        yield Until(ended.awaited())
    finally:
        ended.close()


def passing(seconds: float) -> Life[None]:
    """Wait so long."""
    never = Moment()
    try:
        yield Until(never.awaited(), seconds)
    finally:
        never.close()
