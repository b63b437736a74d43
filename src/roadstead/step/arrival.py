"""Output directories that are made when sbatch has answered.

submitit makes the directory of a job's output once it knows the job's id, a few milliseconds after
it could have started.  Slurm 22.05 was seen to start a batch script up to a second after it was
submitted, and users have come to depend on that: a directory made half a second later was in time.
So a batch step whose output directory is not there waits for it, by inotify(7), and for no longer
than ``SECONDS``; then it fails as it would have.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from roadstead.host import linux
from roadstead.host.loop import Loop, Timer

SECONDS: Final = 2.0


class Arrival:
    """Calls ``done`` once, from the loop: when ``missing`` finds nothing, or in ``SECONDS``."""

    def __init__(self, loop: Loop, missing: Callable[[], str], done: Callable[[], None]) -> None:
        self._loop = loop
        self._missing = missing
        self._done = done
        self._watch: linux.FileWatch | None = None
        self._timer: Timer = loop.call_later(SECONDS, self.end)
        self._look()

    def _look(self) -> None:
        """Watch the nearest directory there is; it may be another one each time."""
        self._unwatch()
        while path := self._missing():
            nearest = os.path.dirname(path)
            while not os.path.exists(nearest):
                nearest = os.path.dirname(nearest)
            try:
                self._watch = linux.FileWatch(nearest, linux.IN_CREATE | linux.IN_MOVED_TO)
            except OSError:  # one that we may not read, or that has gone by now
                break
            # What was made between the look and the watch tells nobody.
            if self._missing() == path and not os.path.exists(_next(nearest, path)):
                self._loop.watch(self._watch, self._look)
                return
            self._unwatch()
        self._timer.cancel()
        self._timer = self._loop.call_later(0, self.end)

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._loop.unwatch(self._watch)
            self._watch.close()
            self._watch = None

    def end(self) -> None:
        """Wait no longer."""
        self._unwatch()
        self._timer.cancel()
        self._done()


def _next(nearest: str, path: str) -> str:
    """The first directory on the way from ``nearest`` to ``path``."""
    return os.path.join(nearest, os.path.relpath(path, nearest).split("/", 1)[0])
