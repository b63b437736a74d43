"""A function in a process of its own: with a time limit, and with nothing of it left afterwards.

For what must not take its caller with it: a probe that may hang in a system call, that enters
namespaces, or that is stopped with Ctrl-C half-way.  The child says what it finds as JSON lines in
a pipe.  It holds the reading end of a second pipe, the *lifeline*, on which nothing is ever
written: when it hangs up, the caller wants an end, or is no more, and the child cleans up.

The caller waits by events, and is meanwhile the reaper of all that the child leaves
(PR_SET_CHILD_SUBREAPER).  It must be single-threaded, and must not reap children of others.
"""

from __future__ import annotations

import json
import os
import select
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from roadstead.host import fork, linux, process
from roadstead.host.loop import Loop

Say = Callable[[Any], None]
Body = Callable[[Say, int], None]

_STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_REAPING_SECONDS: Final = 2.0


@dataclass(slots=True)
class Ending:
    """How it went: what was said; whether ``body`` returned; the exception that came out (our bug)
    and what was printed; whether the time was over; which signal stopped us, or 0."""

    said: list[Any] = field(default_factory=list)
    complete: bool = False
    crash: str = ""
    output: str = ""
    overdue: bool = False
    signal: int = 0


def run(
    body: Body,
    *,
    seconds: float,
    grace: float = 0.0,
    hear: Callable[[Any], None] | None = None,
    lifeline: int = -1,
) -> Ending:
    """Run ``body(say, lifeline)`` in a child, for ``seconds`` at the most.

    ``hear`` is called with each thing said, as it comes.  ``grace``: the seconds that the child
    has from the end of its lifeline to its own; with 0 it is killed at once, and also when we are.
    ``lifeline`` is our own, where we are such a child ourselves: its end is the child's as well.
    """
    return _Run(seconds, grace, hear, lifeline).run(body)


class _Run:
    def __init__(
        self, seconds: float, grace: float, hear: Callable[[Any], None] | None, above: int
    ) -> None:
        self._above = above
        self._ending = Ending()
        self._seconds = seconds
        self._grace = grace
        self._hear = hear
        self._partial = b""
        self._loop = Loop()

    def run(self, body: Body) -> Ending:
        reaped_before = linux.is_child_subreaper()
        linux.set_child_subreaper()
        others = set(process.children(os.getpid()))
        self._said, said_write = os.pipe2(os.O_CLOEXEC)
        lifeline, self._lifeline = os.pipe2(os.O_CLOEXEC)
        output = os.memfd_create("roadstead-apart", os.MFD_CLOEXEC)
        handlers = {number: signal.getsignal(number) for number in _STOPPING}
        for number, handler in handlers.items():
            if handler != signal.SIG_IGN or number == signal.SIGINT:  # nohup
                self._loop.on_signal(number, lambda number=number: self._stopped(number))  # type: ignore[misc]
        parent = os.getpid()

        def child() -> None:
            self._loop.close()
            os.close(self._lifeline)
            os.close(self._said)
            if not self._grace:
                linux.set_parent_death_signal(process.KILL)
                if os.getppid() != parent:
                    return
            _in_child(body, said_write, lifeline, output)

        self._child = process.adopt(fork.run_in_child(child, session=True))
        os.close(said_write)
        os.close(lifeline)
        try:
            self._wait()
        except BaseException:  # of who hears: nobody to talk to is no reason to leave something
            self._hear = None
            self._end()
            if self._grace:
                self._loop.run()
            raise
        finally:
            self._kill()
            self._reap_others(others)
            linux.set_child_subreaper(reaped_before)
            self._close_lifeline()
            os.close(self._said)
            self._loop.close()
            for number, handler in handlers.items():
                signal.signal(number, handler)
            self._ending.output = os.pread(output, 1 << 16, 0).decode(errors="replace")
            os.close(output)
        return self._ending

    def _wait(self) -> None:
        os.set_blocking(self._said, False)
        self._loop.watch(self._said, self._read)
        self._loop.watch(self._child, self._loop.stop)
        self._loop.call_later(self._seconds, self._overdue)
        if self._above >= 0:
            self._loop.watch(self._above, self._cut)
        self._loop.run()
        self._loop.unwatch(self._child)
        self._read()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._said, 1 << 16)
            except BlockingIOError:
                return
            if not data:
                self._loop.unwatch(self._said)
                return
            *lines, self._partial = (self._partial + data).split(b"\n")
            for line in lines:
                self._take(json.loads(line))

    def _take(self, heard: Any) -> None:
        match heard:
            case {"said": said}:
                self._ending.said.append(said)
                if self._hear is not None:
                    self._hear(said)
            case {"crash": crash}:
                self._ending.crash = str(crash)
            case _:
                self._ending.complete = True

    def _stopped(self, number: int) -> None:
        self._ending.signal = self._ending.signal or number
        self._end()

    def _overdue(self) -> None:
        self._ending.overdue = True
        self._end()

    def _cut(self) -> None:
        self._loop.unwatch(self._above)
        self._end()

    def _end(self) -> None:
        self._close_lifeline()
        if self._grace:
            self._loop.call_later(self._grace, self._loop.stop)
        else:
            self._loop.stop()

    def _close_lifeline(self) -> None:
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1

    def _kill(self) -> None:
        """The child and all below it; an orphan of theirs becomes ours."""
        for pid in process.descendants(self._child.pid):
            process.send(pid, process.KILL)
        self._child.signal(process.KILL)
        if _ends(self._child):
            self._child.reap()

    @staticmethod
    def _reap_others(others: set[int]) -> None:
        while left := set(process.children(os.getpid())) - others:
            for pid in left:
                for below in (pid, *process.descendants(pid)):
                    process.send(below, process.KILL)
                orphan = process.adopt(pid)
                if not _ends(orphan):
                    others.add(pid)  # stuck in the kernel: nobody can do more
                    continue
                orphan.reap()


def _ends(child: process.Child) -> bool:
    poll = select.poll()
    poll.register(child, select.POLLIN)
    return bool(poll.poll(int(_REAPING_SECONDS * 1000)))


def _in_child(body: Body, write: int, lifeline: int, output: int) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (output, 1), (output, 2)):
        os.dup2(source, target)

    def write_line(line: dict[str, Any]) -> None:
        data = json.dumps(line).encode() + b"\n"
        try:
            while data:
                data = data[os.write(write, data) :]
        except BrokenPipeError:
            return  # nobody listens any more: the lifeline tells what to do about it

    try:
        body(lambda something: write_line({"said": something}), lifeline)
    except Exception as error:  # told by name: it is our bug, and the caller has to show it
        write_line({"crash": f"{type(error).__name__}: {error}"})
        os.write(2, traceback.format_exc().encode(errors="replace"))
        return
    write_line({"complete": True})


def printed() -> str:
    """What programs that this child has started have printed so far."""
    return os.pread(2, 1 << 16, 0).decode(errors="replace")
