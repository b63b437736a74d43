"""What a step's tasks leave running: killed and reaped, each end an event."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from roadstead.host import process
from roadstead.step import processes

if TYPE_CHECKING:
    from roadstead.host.loop import Loop, Timer
    from roadstead.step.life import Lives

SECONDS: Final = 10.0  # that a killed process may take to end


class Orphans:
    """The processes below a supervisor that are its step's.

    ``without`` says which child does not count: that in which plugins are called, until the step's
    very end.
    """

    def __init__(
        self, loop: Loop, lives: Lives, directory: str, without: Callable[[], int]
    ) -> None:
        self._loop = loop
        self._lives = lives
        self._directory = directory
        self._without = without
        self._deadline = 0.0
        self._timer: Timer | None = None

    def pids(self) -> list[int]:
        """All that run."""
        return processes.below(os.getpid(), self._directory, without=self._without())

    def end(self, ended: Callable[[], None], stuck: Callable[[list[int]], None]) -> None:
        """Kill and reap them all, and call ``ended``; or ``stuck``, with those that SIGKILL does
        not end in time."""
        self._deadline = time.monotonic() + SECONDS
        self._end(ended, stuck)

    def _end(self, ended: Callable[[], None], stuck: Callable[[list[int]], None]) -> None:
        while left := self.pids():
            for pid in left:
                process.send(pid, process.KILL)
            if not self._reap_one():
                self._wait(ended, stuck)
                return
        ended()

    def end_now(self) -> None:
        """The same without an event; blocks."""
        if left := self.pids():
            process.kill_all(left, SECONDS)
            while self._reap_one():
                pass

    def _children(self) -> list[int]:
        return [pid for pid in process.children(os.getpid()) if pid != self._without()]

    def _reap_one(self) -> bool:
        """Reap a child that has ended, if one has."""
        for pid in self._children():
            ended, _, used = os.wait4(pid, os.WNOHANG)
            if ended:
                self._lives.peak = max(self._lives.peak, used.ru_maxrss)
                return True
        return False

    def _wait(self, ended: Callable[[], None], stuck: Callable[[list[int]], None]) -> None:
        try:
            orphan = process.adopt(self._children()[0])
        except (ProcessLookupError, IndexError):
            self._loop.call_later(0, lambda: self._end(ended, stuck))
            return
        timer = self._loop.call_at(self._deadline, lambda: stuck(self.pids()))

        def gone() -> None:
            self._loop.unwatch(orphan)
            orphan.reap()
            self._lives.peak = max(self._lives.peak, orphan.peak)
            timer.cancel()
            self._end(ended, stuck)

        self._loop.watch(orphan, gone)
