"""The spawner: a process whose only work is to have supervisors ready.

It is forked before the controller opens anything but its lock, stays single-threaded, and has all
that a supervisor needs imported.  A supervisor that has brought its step to its end, and has
nothing of it left, waits for the next one: its memory is its own by then, while a fresh child
copies every page that it touches (an array of containers spent a third of our CPU time on that).
Where none waits one is forked, before the launch comes: the fork, and the page faults of its first
calls, are over by then (measured: 1 ms from launch to supervisor, 4 ms with a fork in between,
20 ms for a new interpreter).

It hears of one thing, ``launch``, with the descriptors that go to the supervisor: the controller's
end of their conversation, then the user's standard streams.  It ends when the controller does;
supervisors end when their step has.

It is the subreaper of its supervisors: what one that is killed had started becomes its child, and
is killed at once, even if no mark in its environment tells whose it was.

It shares the controller's lock, and passes it on with each launch; the supervisor keeps it until
the step has a directory and tasks: the next controller cannot begin before the last launch that
this one has asked for can be found.  So a step without a directory was never started.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from roadstead.core.model import ContainerRequest, StepSpec, from_json, to_json
from roadstead.host import fork, linux, process, wire
from roadstead.host.loop import Loop, Timer

# What the node side imports where it needs it, as a cluster's agents are in a hurry: here it is
# imported once for all steps.
from roadstead.images import described, store, translate  # noqa: F401
from roadstead.oci import conf, patterns, plainyaml  # noqa: F401
from roadstead.step import layout, limits, named, processes, taskdir  # noqa: F401
from roadstead.step.place import Place

# A step, its controller, the user's streams, what to call once it has begun; whether this process
# can supervise another step.
Supervise = Callable[[StepSpec, wire.Connection, list[int], Callable[[], None]], bool]

_QUIET_SECONDS: Final = 0.012  # between two launches: then there is time for a rehearsal
_IDLE_SECONDS: Final = 10.0  # without a launch: then one that waits is enough
_MOST_WAITING: Final = 1 + min(8, os.cpu_count() or 1)
_SPARE: Final = "roadstead-spare"
_MOST_STEPS: Final = 500  # of one supervisor: what leaks in Python itself does not add up

log = logging.getLogger(__name__)


def start(supervise: Supervise, lock: int, listener: int) -> tuple[wire.Connection, process.Child]:
    """Fork the spawner; the controller's end of the conversation, and the process.

    ``listener`` is the socket at which clients wait already, -1 for none: it is the controller's
    alone, or nobody would see it gone while a supervisor lives.
    """
    ours, theirs = wire.pair()

    def body() -> None:
        ours.close()
        if listener >= 0:
            os.close(listener)
        Spawner(theirs, supervise, lock).run()

    child = process.adopt(fork.run_in_child(body))
    theirs.close()
    return ours, child


class Spawner:
    """The spawner's process."""

    def __init__(self, link: wire.Connection, supervise: Supervise, lock: int) -> None:
        self._link = link
        self._supervise = supervise
        self._lock = lock
        self._loop = Loop()
        self._children: dict[int, process.Child] = {}
        self._supervisors: list[wire.Connection] = []
        self._waiting: list[wire.Connection] = []  # the one that ended its step last comes last
        self._in_hand: list[int] = []  # the descriptors of the launch that is under way
        self._retirement: Timer | None = None
        self._launched_at = 0.0
        self._directory = ""  # of the last step
        self._pause = 1.0  # between the last two launches

    def run(self) -> None:
        """Fork supervisors until the controller is gone."""
        linux.set_process_name("roadstead-spawn")
        linux.set_child_subreaper()
        fork.freeze()
        self._prepare()
        self._loop.watch(self._link, self._hear)
        self._loop.run()

    def _hear(self) -> None:
        received = self._link.receive()
        if received is None:
            self._loop.stop()
            return
        message, fds = received
        try:
            self._launch(message, fds)
        except OSError as error:  # no more processes: the controller sees its end close
            log.error("launch failed error=%r", error.strerror)
        finally:
            fds.close()

    def _launch(self, message: dict[str, object], fds: wire.FdSet) -> None:
        now = time.monotonic()
        self._pause, self._launched_at = now - self._launched_at, now
        taken = self._in_hand = fds.take_all()
        order = {"step": message["step"]}
        self._directory = message["step"]["directory"]  # type: ignore[index]
        try:
            while not self._order(order, (self._lock, *taken)):
                pass
        finally:
            self._in_hand = []
            for fd in taken:
                os.close(fd)
        self._retire_later()

    def _order(self, order: dict[str, object], fds: tuple[int, ...]) -> bool:
        """Give the step to a supervisor that waits; False where somebody has killed it."""
        if not self._waiting:
            self._fork_spare(rehearse=False)
        supervisor = self._waiting.pop()
        try:
            supervisor.send(order, fds)
        except (BrokenPipeError, ConnectionResetError):
            self._part(supervisor)
            return False
        return True

    def _hear_supervisor(self, supervisor: wire.Connection) -> None:
        received = supervisor.receive()
        if received is None:
            self._part(supervisor)
        elif received[0].get("event") == "free" and len(self._waiting) < _MOST_WAITING:
            self._waiting.append(supervisor)
        elif received[0].get("event") == "free":
            self._part(supervisor)
        # It has started its tasks, or has ended: now the next fork disturbs nobody.
        self._prepare()

    def _part(self, supervisor: wire.Connection) -> None:
        """It has ended, or ends now, as nobody has a step for it."""
        if supervisor in self._waiting:
            self._waiting.remove(supervisor)
        self._supervisors.remove(supervisor)
        self._loop.unwatch(supervisor)
        supervisor.close()

    def _retire_later(self) -> None:
        """After a while without launches, keep one supervisor."""
        if self._retirement is None:
            self._retirement = self._loop.call_later(_IDLE_SECONDS, self._retire)

    def _retire(self) -> None:
        self._retirement = None
        if time.monotonic() - self._launched_at < _IDLE_SECONDS:
            self._retire_later()
            return
        for supervisor in self._waiting[:-1]:
            self._part(supervisor)

    def _prepare(self) -> None:
        """Have the next supervisor ready.  If it cannot be forked now, the next launch tries."""
        if not self._waiting:
            try:
                # While launch follows launch, the next step is waiting for this fork already.
                self._fork_spare(rehearse=self._pause > _QUIET_SECONDS)
            except OSError as error:
                log.warning("fork failed error=%r", error.strerror)

    def _fork_spare(self, *, rehearse: bool) -> None:
        ours, theirs = wire.pair()
        body = partial(self._become_supervisor, ours, theirs, rehearse)
        pid = fork.run_in_child(body, session=True)
        theirs.close()
        child = process.adopt(pid)
        self._children[pid] = child
        self._loop.watch(child, partial(self._reap, child))
        self._loop.watch(ours, partial(self._hear_supervisor, ours))
        self._supervisors.append(ours)
        self._waiting.append(ours)

    def _reap(self, child: process.Child) -> None:
        self._loop.unwatch(child)
        del self._children[child.pid]
        child.reap()
        self._end_orphans()

    def _end_orphans(self) -> None:
        """A supervisor was killed: end what it had started, whatever that may look like by now.

        All of that is ours, as we are the nearest subreaper: a child that we have not forked.  A
        supervisor that ends by itself leaves nothing but a controller that its step has started.
        """
        for pid in process.children(os.getpid()):
            if pid in self._children:
                continue
            if not processes.is_of_engine(pid, self._directory):
                for each in (*processes.below(pid, self._directory), pid):
                    process.send(each, process.KILL)
            orphan = self._children[pid] = process.adopt(pid)
            self._loop.watch(orphan, partial(self._reap, orphan))

    def _become_supervisor(
        self, ours: wire.Connection, theirs: wire.Connection, rehearse: bool
    ) -> None:
        """In the child: give up what is the spawner's, and supervise the steps that come."""
        ours.close()
        self._link.close()
        self._loop.close()
        for connection in self._supervisors:
            connection.close()
        for child in self._children.values():
            os.close(child.pidfd)
        for fd in self._in_hand:  # they come again with the order, and go with the step
            os.close(fd)
        os.close(self._lock)
        linux.set_process_name(_SPARE)
        if rehearse:
            from_json(StepSpec, _SAMPLE)
            taskdir.rehearse()
            limits.rehearse()
        place = Place.of_this_process()
        left = _MOST_STEPS
        while (received := theirs.receive()) is not None:
            again = self._serve(theirs, *received) and place.restored()
            left -= 1
            if not again or not left:
                return  # who says that it is free is given a step
            linux.set_process_name(_SPARE)
            try:
                theirs.send({"event": "free"})
            except (BrokenPipeError, ConnectionResetError):
                return

    def _serve(self, spawner: wire.Connection, message: dict[str, object], fds: wire.FdSet) -> bool:
        """Supervise one step; whether this process can have another."""
        lock, ctl, *stdio = fds.take_all()
        spec = from_json(StepSpec, message["step"])

        def settled() -> None:
            os.close(lock)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                spawner.send({"event": "settled"})

        return self._supervise(spec, wire.from_fd(ctl), stdio, settled)


# Any step: reading one makes the child's copy of what reading a step needs.
_SAMPLE = to_json(
    StepSpec(
        job_id=0, step_id=0, kind="run", name="", user="", uid=0, gid=0, node="", cwd="/",
        argv=("",), env={"": ""}, container=ContainerRequest(bundle="/"),
    )
)  # fmt: skip
