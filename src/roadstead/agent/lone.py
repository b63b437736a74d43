"""A container that slurmstepd has asked for in a runtime's words, and this process as its
supervisor, from the claim to the last thing removed.

It is on disk under a name that others are told (``roadstead oci state``), which is what sets it
apart from a task of ours (task.py): that is nobody's business, and may be in a mount namespace.
What a signal means is the same for both (signals.py).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from roadstead.agent.guard import Guard
from roadstead.agent.signals import Signals
from roadstead.errors import LaunchError, RoadsteadError
from roadstead.host import linux, paths, process, removal, watching
from roadstead.host.loop import Loop
from roadstead.oci import runtime
from roadstead.step import plan as plans
from roadstead.step import processes, record, sweep
from roadstead.step.container import Container
from roadstead.step.life import Lives

if TYPE_CHECKING:
    from roadstead.core.model import StepSpec, TaskSpec
    from roadstead.step.plan import Plan

_DEATH_SECONDS: Final = 10.0
_TRIES: Final = 20


class Lone:
    """A container, and this process as its supervisor."""

    def __init__(self, directory: str, say: Callable[[str], None]) -> None:
        self.directory = directory
        self.loop = Loop()
        self._lives = Lives(self.loop)
        self._say = say
        self._plan: Plan | None = None
        self._container: Container | None = None
        self._claim = record.claim_of_ours(directory)
        self._hold = -1
        self._guard: Guard | None = None
        self._signals = Signals(self.loop)
        self._more: tuple[int, ...] = ()
        self.status: int | None = None
        self.failure: RoadsteadError | None = None

    # -- before -------------------------------------------------------------------------------

    def make_directory(self) -> None:
        """Take the directory that we were made for; what an earlier owner has left in it goes."""
        linux.set_child_subreaper()
        if os.path.lexists(self.directory):
            if record.is_running(record.read_claim(self.directory) or {}):
                name = os.path.basename(self.directory)
                raise LaunchError(f"container {name} is there already")
            sweep.sweep(self.directory)
        self._make()
        self._hold = record.hold(self.directory)

    def _make(self) -> None:
        parent = os.path.dirname(self.directory)
        for _ in range(_TRIES):
            try:
                paths.make_private(os.path.dirname(parent))
                paths.make_private(parent)
                os.mkdir(self.directory, 0o700)
            except FileNotFoundError:  # the user's last container was about to leave nothing
                continue
            return
        raise LaunchError(f"{parent} goes away as soon as it is made")

    def note(self, **more: object) -> None:
        """Write down what is there, for somebody who finds us gone; and how far it is."""
        self._claim.update(more)
        record.write_claim(self.directory, self._claim)

    def prepare(self, spec: StepSpec, task: TaskSpec, pmi: int) -> None:
        """Read and check all, make the task's directory, write the claim.  Nothing runs yet.
        ``pmi`` is the descriptor that an MPI library is to have as its 3, or 0.

        Raises RoadsteadError; ``close`` removes what was made.
        """
        for signo in watching.MESSAGES:
            self.loop.on_signal(signo, partial(self.hear, signo))
        self._guard = Guard(self.directory, watching.MESSAGES)
        self._signals.watch(self._guard)
        self._more = (pmi,) if pmi else ()
        (self._plan,) = plans.prepare(spec, self._say)
        assert self._plan is not None
        made = Container(self._plan, task, self._say)
        self._container = self._signals.container = made
        made.session = False
        if isinstance(made.commands, runtime.BuiltIn) and spec.terminal is None:
            made.commands = replace(made.commands, mode="detach", own_groups=False)
        self.note(containers=[made.claim()])

    # -- meanwhile ----------------------------------------------------------------------------

    def run(self, stdio: tuple[int, ...]) -> None:
        """Run the container to its end: ``status`` then is its wait status, negative for a signal,
        or ``failure`` says why it did not run."""
        self.start(stdio, self.loop.stop)
        self.loop.run()

    def start(self, stdio: tuple[int, ...], ended: Callable[[], None]) -> None:
        """The same on a loop that runs already, or will."""
        assert self._container is not None
        if self._signals.ended_by:
            self.status = -self._signals.ended_by
            self.loop.call_later(0, ended)
            return

        def done(status: int) -> None:
            killed = status in (-process.KILL, 128 + process.KILL)
            self.status = -self._signals.ended_by if killed and self._signals.ended_by else status
            ended()

        def failed(error: RoadsteadError) -> None:
            if self._signals.ended_by and error.kind == "runtime":  # we have stopped it at its work
                self.status = -self._signals.ended_by
            else:
                self.failure = error
            ended()

        self._lives.start(self._container.life((*stdio, *self._more), ""), done, failed)

    def hear(self, number: int, *, alone: bool = False) -> None:
        """A signal has come; ``alone``: to us, and the container has not got it."""
        if self._container is None or self._container.child is None:
            if number in process.ENDING:
                self._signals.ended_by = self._signals.ended_by or number
            return
        self._signals.hear(number, alone=alone)

    def heard_lately(self, number: int) -> bool:
        """Whether a signal has come to us in the last moment."""
        return self._signals.heard_lately(number)

    def kill(self) -> None:
        """SIGKILL to the container, or to the runtime that is about to make it."""
        self._signals.kill()

    # -- after --------------------------------------------------------------------------------

    def close(self, *, keep: bool = False) -> None:
        """Kill and reap what the container has left, and remove all that was made; with ``keep``
        save the directory and its claim."""
        guard = self._guard.process.pid if self._guard is not None else 0
        processes.end_below(self.directory, _DEATH_SECONDS, without=guard)
        if self._container is not None:
            self._container.close()
        if self._plan is not None:
            self._plan.close()
        if self._guard is not None:
            self._guard.close()
        os.chdir("/")
        if self._hold >= 0:
            removal.remove_tree(self.directory, keep=record.CLAIM if keep else "")
            os.close(self._hold)
            self._hold = -1
            remove_if_last(self.directory)


def remove_if_last(directory: str) -> None:
    """Remove what is above a container's directory, if there is no other."""
    parent = os.path.dirname(directory)
    top = os.path.dirname(parent)
    with contextlib.suppress(OSError):
        for path in (parent, f"{top}/containers", top):
            os.rmdir(path)


def end_as(status: int) -> int:
    """End this process as a child has ended that had this wait status; returns an exit code where
    it was no signal."""
    if status < 0:
        linux.leave_no_core()
        watching.die_by(-status)
        return 128 - status
    return status
