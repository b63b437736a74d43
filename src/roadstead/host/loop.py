"""One event loop for the controller and the supervisors: epoll, a heap of timers, and signals.

Handlers are plain functions, called one after the other, so nothing interleaves inside a state
change and no lock is needed.  The loop sleeps in epoll_wait until something is ready or the next
timer is due; nothing is polled.  A pidfd is readable once its process has ended, so watching a
child is watching a descriptor (pidfd_open(2)).  Signals arrive by ``signal.set_wakeup_fd`` as bytes
in a pipe: they become events like all others and never interrupt a handler.

Readiness is level-triggered: a handler need not drain its descriptor.  Regular files cannot be
watched (epoll_ctl(2) gives EPERM; they are always ready).  A source is unwatched before it is
closed.  Deadlines are those of ``time.monotonic``.  A forked child makes a loop of its own.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # no enums: 4 ms
import heapq
import os
import select
import time
from collections.abc import Callable
from typing import Protocol

Callback = Callable[[], None]

_LONGEST_SLEEP = 86400.0  # epoll_wait(2) counts milliseconds in an int: 24 days


class HasFileno(Protocol):
    def fileno(self) -> int: ...


Source = int | HasFileno


class Timer:
    """A call to be made at a deadline, until it is cancelled."""

    __slots__ = ("callback", "deadline")

    def __init__(self, deadline: float, callback: Callback) -> None:
        self.deadline = deadline
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        self.callback = None

    def __lt__(self, other: Timer) -> bool:
        return self.deadline < other.deadline


class _Watch:
    """Who wants to know about one descriptor."""

    __slots__ = ("readable", "writable")

    def __init__(self) -> None:
        self.readable: Callback | None = None
        self.writable: Callback | None = None

    def mask(self) -> int:
        return (select.EPOLLIN if self.readable else 0) | (select.EPOLLOUT if self.writable else 0)


class Loop:
    """Waits for descriptors, deadlines and signals, and calls who asked for them.

    ``after_turn`` is called when everything that one wake-up brought has been handled, before the
    loop sleeps again: the place to commit and to answer.
    """

    def __init__(self, after_turn: Callback | None = None) -> None:
        self._epoll = select.epoll()
        self._watches: dict[int, _Watch] = {}
        self._timers: list[Timer] = []
        self._signals: dict[int, Callback] = {}
        self._signal_pipe: tuple[int, int] | None = None
        self._after_turn = after_turn
        self._running = False

    def watch(self, source: Source, callback: Callback) -> None:
        """Call ``callback`` while ``source`` can be read, or has hung up."""
        self._change(_fd(source), readable=callback)

    def watch_writable(self, source: Source, callback: Callback) -> None:
        """Call ``callback`` while ``source`` can be written to, or its reader is gone."""
        self._change(_fd(source), writable=callback)

    def unwatch(self, source: Source) -> None:
        """Forget ``source``, both ways.  Not being watched is no error."""
        fd = _fd(source)
        if self._watches.pop(fd, None):
            self._epoll.unregister(fd)

    def unwatch_writable(self, source: Source) -> None:
        """Forget that ``source`` was to be written to; reading goes on."""
        fd = _fd(source)
        watch = self._watches.get(fd)
        if watch is None or watch.writable is None:
            return
        watch.writable = None
        if watch.readable:
            self._epoll.modify(fd, watch.mask())
        else:
            self.unwatch(fd)

    def _change(
        self, fd: int, readable: Callback | None = None, writable: Callback | None = None
    ) -> None:
        watch = self._watches.get(fd)
        if watch is None:
            watch = _Watch()
            watch.readable, watch.writable = readable, writable
            self._epoll.register(fd, watch.mask())
            self._watches[fd] = watch
            return
        watch.readable = readable or watch.readable
        watch.writable = writable or watch.writable
        self._epoll.modify(fd, watch.mask())

    def call_at(self, deadline: float, callback: Callback) -> Timer:
        """Call ``callback`` once ``time.monotonic()`` has reached ``deadline``."""
        timer = Timer(deadline, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def call_later(self, seconds: float, callback: Callback) -> Timer:
        return self.call_at(time.monotonic() + seconds, callback)

    def on_signal(self, signo: int, callback: Callback) -> None:
        """Call ``callback`` from the loop when ``signo`` arrives.  Main thread only."""
        if self._signal_pipe is None:
            self._signal_pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            signal.set_wakeup_fd(self._signal_pipe[1], warn_on_full_buffer=False)
            self.watch(self._signal_pipe[0], self._deliver_signals)
        self._signals[signo] = callback
        signal.signal(signo, _noted)

    def run(self) -> None:
        """Handle events until ``stop``.  What a handler raises ends the loop and comes out here."""
        self._running = True
        while self._running:
            self._turn()

    def stop(self) -> None:
        """Make ``run`` return once the current turn is over."""
        self._running = False

    def close(self) -> None:
        """Give back descriptors and signal handlers."""
        if self._signal_pipe is not None:
            for signo in self._signals:
                signal.signal(signo, signal.SIG_DFL)
            signal.set_wakeup_fd(-1)
            for fd in self._signal_pipe:
                os.close(fd)
            self._signal_pipe = None
        self._epoll.close()

    def _turn(self) -> None:
        ready = self._epoll.poll(self._until_next_timer())
        # A handler may unwatch, close and reopen a descriptor that is still in this list.
        found = [(fd, mask, self._watches[fd]) for fd, mask in ready if fd in self._watches]
        for fd, mask, watch in found:
            if watch.readable and mask & ~select.EPOLLOUT and self._watches.get(fd) is watch:
                watch.readable()
            if watch.writable and mask & ~select.EPOLLIN and self._watches.get(fd) is watch:
                watch.writable()
        self._run_timers(time.monotonic())
        if self._after_turn is not None:
            self._after_turn()

    def _until_next_timer(self) -> float | None:
        while self._timers and self._timers[0].callback is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return None
        return min(max(0.0, self._timers[0].deadline - time.monotonic()), _LONGEST_SLEEP)

    def _run_timers(self, now: float) -> None:
        while self._timers and self._timers[0].deadline <= now:
            callback = heapq.heappop(self._timers).callback
            if callback is not None:
                callback()

    def _deliver_signals(self) -> None:
        assert self._signal_pipe is not None
        for signo in os.read(self._signal_pipe[0], 4096):
            callback = self._signals.get(signo)
            if callback is not None:
                callback()


def _fd(source: Source) -> int:
    return source if isinstance(source, int) else source.fileno()


def _noted(signo: int, frame: object) -> None:
    """The Python-level handler: nothing to do, the wake-up descriptor has the number already."""
