"""The spawner: a process whose only work is to fork supervisors.

It is forked before the controller opens anything but its lock, stays single-threaded, and has all
that a supervisor needs imported, so that a step's supervisor is there in 2 ms.  It hears of one
thing, ``launch``, with the descriptors that go to the supervisor: the controller's end of their
conversation, then the user's standard streams.  It ends when the controller does; supervisors
do not.

It shares the controller's lock: the next controller cannot begin before the last launch that this
one has asked for has become a supervisor.  So a step without a directory was never started.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import partial

from roadstead.core.model import StepSpec, from_json
from roadstead.host import fork, linux, process, wire
from roadstead.host.loop import Loop

Supervise = Callable[[StepSpec, wire.Connection, list[int]], None]

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

    def run(self) -> None:
        """Fork supervisors until the controller is gone."""
        linux.set_process_name("roadstead-spawn")
        fork.freeze()
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
        pid = fork.run_in_child(partial(self._become_supervisor, message, fds), session=True)
        child = process.adopt(pid)
        self._children[pid] = child
        self._loop.watch(child, partial(self._reap, child))

    def _reap(self, child: process.Child) -> None:
        self._loop.unwatch(child)
        del self._children[child.pid]
        child.reap()

    def _become_supervisor(self, message: dict[str, object], fds: wire.FdSet) -> None:
        """In the child: give up what is the spawner's, and supervise."""
        self._link.close()
        self._loop.close()
        for child in self._children.values():
            os.close(child.pidfd)
        os.close(self._lock)
        ctl, *stdio = fds.take_all()
        self._supervise(from_json(StepSpec, message["step"]), wire.from_fd(ctl), stdio)
