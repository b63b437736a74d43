"""Several pods in one allocation: those of a manifest beside each other, and those of a Job until
enough of them have succeeded.

Each pod is a process (runner.py), with namespaces of its own.  The rules of a Job are Kubernetes'
("Jobs"): a pod that has failed is made anew, after 10 s, 20 s, 40 s … six minutes; when more have
failed than backoffLimit says, all are ended, and the job has failed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Final

from roadstead.host import fork, process
from roadstead.host.loop import Loop
from roadstead.pods.model import Job, Plan
from roadstead.pods.output import say
from roadstead.pods.runner import SIGNALS, Runner

_FIRST_DELAY: Final = 10.0
_LONGEST_DELAY: Final = 360.0


@dataclass(slots=True)
class Tally:
    """How far a Job is.  Pure.  Pods are numbered; of an indexed job by what they are to do."""

    job: Job
    waiting: list[int] = field(default_factory=list)
    running: set[int] = field(default_factory=set)
    succeeded: int = 0
    failures: int = 0
    code: int = 0
    over: bool = False

    def __post_init__(self) -> None:
        self.waiting = list(range(self.job.completions))

    def start(self) -> list[int]:
        """The pods that are to be started now."""
        room = 0 if self.over else self.job.parallelism - len(self.running)
        started, self.waiting = self.waiting[:room], self.waiting[room:]
        self.running |= set(started)
        return started

    def ended(self, number: int, code: int) -> float | None:
        """A pod has ended; the seconds after which it is to be tried again, if it is."""
        self.running.discard(number)
        if code == 0:
            self.succeeded += 1
            return None
        self.failures += 1
        if self.over:
            self.code = self.code or code
            return None
        if self.failures > self.job.backoff_limit:
            self.over, self.code = True, code
            return None
        return float(min(_FIRST_DELAY * 2 ** (self.failures - 1), _LONGEST_DELAY))

    def again(self, number: int) -> None:
        """A pod's time to be tried again has come."""
        self.waiting.insert(0, number)

    def stop(self) -> None:
        """No more pods are started."""
        self.over = True

    @property
    def done(self) -> bool:
        """Whether nothing runs, and nothing will."""
        if self.running:
            return False
        return self.over or self.succeeded >= self.job.completions


class Batch:
    """The jobs of a plan, in progress."""

    def __init__(self, plan: Plan, step: str) -> None:
        self._plan = plan
        self._step = step
        self._loop = Loop()
        self._tallies = [Tally(job) for job in plan.jobs]
        self._children: dict[int, tuple[process.Child, Tally, int]] = {}
        self._tries = 0
        self._stopped = 0

    def run(self) -> int:
        """Run them all; the exit code is the highest of theirs."""
        for signo in SIGNALS:
            self._loop.on_signal(signo, lambda signo=signo: self._stop(signo))  # type: ignore[misc]
        for tally in self._tallies:
            if tally.job.deadline is not None:
                self._loop.call_later(tally.job.deadline, lambda t=tally: self._overdue(t))  # type: ignore[misc]
            self._start(tally)
        self._loop.run()
        self._loop.close()
        code = max(tally.code for tally in self._tallies)
        return code or (128 + self._stopped if self._stopped else 0)

    def _start(self, tally: Tally) -> None:
        for number in tally.start():
            self._tries += 1
            several = len(self._plan.jobs) > 1 or tally.job.retried
            runner = Runner(
                tally.job.pod,
                self._plan,
                self._step,
                index=number if tally.job.indexed else None,
                number=number if tally.job.retried else None,
                serial=self._tries,
                restarts=tally.job.backoff_limit if tally.job.retried else None,
                labelled=several,
            )

            def body(runner: Runner = runner) -> None:
                self._loop.close()
                os._exit(runner.run())

            child = process.adopt(fork.run_in_child(body))
            self._children[child.pid] = child, tally, number
            self._loop.watch(child, lambda child=child: self._ended(child))  # type: ignore[misc]
        if all(each.done for each in self._tallies):
            self._loop.stop()

    def _ended(self, child: process.Child) -> None:
        self._loop.unwatch(child)
        _, tally, number = self._children.pop(child.pid)
        status = child.reap()
        code = status if status >= 0 else 128 - status
        was_over = tally.over
        delay = tally.ended(number, code)
        if delay is not None:
            say(f"job {tally.job.pod.name}: a pod has failed: another one starts in {delay:g} s")
            self._loop.call_later(delay, lambda: self._again(tally, number))
        elif tally.over and not was_over and tally.job.retried:
            say(f"job {tally.job.pod.name}: {tally.failures} of its pods have failed: it has too")
            self._tell(tally)
        self._start(tally)

    def _again(self, tally: Tally, number: int) -> None:
        tally.again(number)
        self._start(tally)

    def _overdue(self, tally: Tally) -> None:
        if not tally.done:
            say(f"job {tally.job.pod.name}: has run for {tally.job.deadline:g} s: ending it")
            tally.stop()
            tally.code = tally.code or 1
            self._tell(tally)

    def _stop(self, signo: int) -> None:
        self._stopped = self._stopped or signo
        for tally in self._tallies:
            tally.stop()
            self._tell(tally)
        self._start(self._tallies[0])

    def _tell(self, tally: Tally) -> None:
        for child, owner, _ in self._children.values():
            if owner is tally:
                child.signal(process.TERM)
