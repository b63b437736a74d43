"""The spawner: a process whose only work is to fork supervisors.

It is forked before the controller opens anything but its lock, stays single-threaded, and has all
that a supervisor needs imported.  It keeps one supervisor forked and ready, waiting for its step:
the fork, and the page faults of a fresh child's first calls, are over when the launch comes, and
the next one is forked as soon as this step's tasks are on their way (measured: 1 ms from launch to
supervisor, 4 ms with a fork in between, 20 ms for a new interpreter).

It hears of one thing, ``launch``, with the descriptors that go to the supervisor: the controller's
end of their conversation, then the user's standard streams.  It ends when the controller does;
supervisors do not.

It is the subreaper of its supervisors: what one that is killed had started becomes its child, and
is killed at once, even if no mark in its environment tells whose it was.

It shares the controller's lock, and so does the supervisor that waits, until its step has a
directory and tasks: the next controller cannot begin before the last launch that this one has
asked for can be found.  So a step without a directory was never started.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from roadstead.core.model import ContainerRequest, StepSpec, from_json, to_json
from roadstead.host import fork, linux, process, wire
from roadstead.host.loop import Loop
from roadstead.step import limits, processes, taskdir

Supervise = Callable[[StepSpec, wire.Connection, list[int], Callable[[], None]], None]

_QUIET_SECONDS: Final = 0.012  # between two launches: then there is time for a rehearsal

log = logging.getLogger(__name__)


def start(supervise: Supervise, lock: int) -> wire.Connection:
    """Fork the spawner; the controller's end of the conversation."""
    ours, theirs = wire.pair()

    def body() -> None:
        ours.close()
        Spawner(theirs, supervise, lock).run()

    fork.run_in_child(body)
    theirs.close()
    return ours


class Spawner:
    """The spawner's process."""

    def __init__(self, link: wire.Connection, supervise: Supervise, lock: int) -> None:
        self._link = link
        self._supervise = supervise
        self._lock = lock
        self._loop = Loop()
        self._children: dict[int, process.Child] = {}
        self._spare: wire.Connection | None = None
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
        if self._spare is None:
            self._spare = self._fork_spare(rehearse=False)
        spare, self._spare = self._spare, None
        taken = fds.take_all()
        order = {"step": message["step"]}
        self._directory = message["step"]["directory"]  # type: ignore[index]
        try:
            try:
                spare.send(order, tuple(taken))
            except (BrokenPipeError, ConnectionResetError):  # somebody has killed it
                spare.close()
                spare = self._fork_spare(rehearse=False)
                spare.send(order, tuple(taken))
        finally:
            for fd in taken:
                os.close(fd)
        self._loop.watch(spare, partial(self._settled, spare))

    def _settled(self, launched: wire.Connection) -> None:
        """A supervisor has started its tasks, or has ended: now the next fork disturbs nobody."""
        self._loop.unwatch(launched)
        launched.close()
        self._prepare()

    def _prepare(self) -> None:
        """Have the next supervisor ready.  If it cannot be forked now, the next launch tries."""
        if self._spare is None:
            try:
                # While launch follows launch, the next step is waiting for this fork already.
                self._spare = self._fork_spare(rehearse=self._pause > _QUIET_SECONDS)
            except OSError as error:
                log.warning("fork failed error=%r", error.strerror)

    def _fork_spare(self, *, rehearse: bool) -> wire.Connection:
        ours, theirs = wire.pair()
        body = partial(self._become_supervisor, ours, theirs, rehearse)
        pid = fork.run_in_child(body, session=True)
        theirs.close()
        child = process.adopt(pid)
        self._children[pid] = child
        self._loop.watch(child, partial(self._reap, child))
        return ours

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
        """In the child: give up what is the spawner's, wait for a step, and supervise it."""
        ours.close()
        self._link.close()
        self._loop.close()
        for child in self._children.values():
            os.close(child.pidfd)
        linux.set_process_name("roadstead-spare")
        if rehearse:
            from_json(StepSpec, _SAMPLE)
            taskdir.rehearse()
            limits.rehearse()
        received = theirs.receive()
        if received is None:
            return
        message, fds = received
        ctl, *stdio = fds.take_all()
        spec = from_json(StepSpec, message["step"])

        def settled() -> None:
            os.close(self._lock)
            theirs.close()

        self._supervise(spec, wire.from_fd(ctl), stdio, settled)


# Any step: reading one makes the child's copy of what reading a step needs.
_SAMPLE = to_json(
    StepSpec(
        job_id=0, step_id=0, kind="run", name="", user="", uid=0, gid=0, node="", cwd="/",
        argv=("",), env={"": ""}, container=ContainerRequest(bundle="/"),
    )
)  # fmt: skip
