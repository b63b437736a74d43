"""Waiting, written as a straight line: a task's life is a generator that yields what it waits for.

``status = yield Until(child, 60)`` reads like a blocking call and blocks nobody: ``Lives`` watches
the child's pidfd and a timer, and resumes the generator with the wait status, or with None when the
time is over.  So the life of a container (create, query, start, wait, kill, delete) is one function
that can be read from top to bottom, while the supervisor's loop serves all of its tasks.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from roadstead.errors import RoadsteadError
from roadstead.host import process
from roadstead.host.loop import Loop, Timer

T = TypeVar("T")


class Ending(Protocol):
    """What ends, and can be watched: a child (host.process.Child), a call of a plugin."""

    @property
    def peak(self) -> int: ...

    def fileno(self) -> int: ...

    def reap(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Until:
    """Wait until ``child`` has ended, for ``seconds`` at the most (None: for ever)."""

    child: Ending
    seconds: float | None = None


Life = Generator[Until, int | None, T]


def until_ours(init: process.Child) -> Life[None]:
    """Wait until a container's first process is our child, as that of a subreaper.

    crun's ``run --detach`` has it made by a child of its own, which crun does not wait for: that
    ends a moment later, and until then nobody else can reap what it has made.
    """
    maker = process.parent(init.pid)
    if maker != os.getpid() and process.parent(maker) == os.getpid():
        with contextlib.suppress(ProcessLookupError):
            yield Until(process.adopt(maker))


class Lives:
    """Runs generators on a loop."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.peak = 0  # KiB of memory, of the largest child that has ended

    def start(
        self,
        life: Life[T],
        done: Callable[[T], None],
        failed: Callable[[RoadsteadError], None],
    ) -> None:
        """Run ``life``; call ``done`` with what it returns or ``failed`` with what it raises.

        Both are called from the loop, never from here: a life that fails at once must not end a
        step whose other tasks are still being started.
        """
        self._resume(life, None, done, failed)

    def _resume(
        self,
        life: Life[T],
        status: int | None,
        done: Callable[[T], None],
        failed: Callable[[RoadsteadError], None],
    ) -> None:
        try:
            until = life.send(status)
        except StopIteration as end:
            value = end.value
            self._loop.call_later(0, lambda: done(value))
            return
        except RoadsteadError as error:
            failure = error
            self._loop.call_later(0, lambda: failed(failure))
            return
        timer: list[Timer] = []

        def ended() -> None:
            self._loop.unwatch(until.child)
            for each in timer:
                each.cancel()
            status = until.child.reap()
            self.peak = max(self.peak, until.child.peak)
            self._resume(life, status, done, failed)

        def overdue() -> None:
            self._loop.unwatch(until.child)
            self._resume(life, None, done, failed)

        self._loop.watch(until.child, ended)
        if until.seconds is not None:
            timer.append(self._loop.call_later(until.seconds, overdue))
