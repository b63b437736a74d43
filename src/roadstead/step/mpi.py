"""Serving MPI libraries: PMI by one socket for each task, found by PMI_FD; PMIx by pmix.py.

The conversation itself is in pmi.py.  A task gets its end of a socket pair as descriptor 3: nothing
is listened on, so nobody but the task can speak for it, and it works in a container as outside
without a mount (crun and runc pass descriptors on when told to).

Tasks in containers of their own are told that they share no node: each has its /dev/shm and its
process numbers for itself, so that MPI must not try to meet the others there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from roadstead.host import pipes
from roadstead.step import pmi, pmix

if TYPE_CHECKING:
    from roadstead.core.model import StepSpec, TaskSpec
    from roadstead.host.loop import Loop

DESCRIPTOR: Final = 3
_CHUNK: Final = 65536
_MOST_PENDING: Final = 1 << 24  # bytes that a task has not read yet


def environment(spec: StepSpec, procid: int) -> dict[str, str]:
    """The variables by which a task finds us."""
    if spec.launch.mpi != "pmi2":
        return {}
    return {
        "PMI_FD": str(DESCRIPTOR),
        "PMI_JOBID": f"{spec.job_id}.{spec.step_id}",
        "PMI_RANK": str(procid),
        "PMI_SIZE": str(spec.ntasks),
        "SLURM_MPI_TYPE": spec.launch.mpi,
    }


class Server:
    """The PMI server of one step.

    ``abort`` is called with the task that wants the step to end (MPI_Abort), its exit code and what
    it says; ``complain`` with a sentence about a task that speaks no PMI.
    """

    def __init__(
        self,
        loop: Loop,
        spec: StepSpec,
        abort: Callable[[int, int, str], None],
        complain: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._spec = spec
        self._abort = abort
        self._complain = complain
        self._exchange: pmi.Exchange | None = None
        self._pmix: pmix.Helper | None = None
        self._ends: dict[int, int] = {}  # by task, ours
        self._theirs: list[int] = []
        self._pending: dict[int, bytearray] = {}

    def prepared(self, tasks: list[TaskSpec]) -> list[TaskSpec]:
        """The tasks as they are with the server that they ask for.  Raises LaunchError."""
        if self._spec.launch.mpi != "pmix":
            return tasks
        self._pmix = pmix.Helper(self._loop, self._spec, self._abort)
        return self._pmix.prepared(tasks)

    def open(self, tasks: Sequence[TaskSpec]) -> list[tuple[int, ...]]:
        """What each task gets beyond its three streams; until ``started`` ours too."""
        if self._spec.launch.mpi != "pmi2":
            return [() for _ in tasks]
        apart = any(part.container is not None for part in self._spec.parts or (self._spec,))
        nodes = [number if apart else task.nodeid for number, task in enumerate(tasks)]
        # MPICH names its files in /dev/shm by this, and leaves them there if it is killed: another
        # engine's job of the same number must not meet them.
        name = f"{self._spec.job_id}.{self._spec.step_id}.{self._spec.uid}.{os.getpid()}"
        self._exchange = pmi.Exchange(name, nodes, self._send, self._abort)
        for number in range(len(tasks)):
            ours, theirs = pipes.socket_pair()
            self._ends[number] = ours
            self._theirs.append(theirs)
            self._loop.watch(ours, lambda number=number: self._hear(number))  # type: ignore[misc]
        return [(fd,) for fd in self._theirs]

    def started(self) -> None:
        """The tasks have their ends."""
        for fd in self._theirs:
            os.close(fd)
        self._theirs.clear()

    def close(self) -> None:
        for number in list(self._ends):
            self._hang_up(number)
        if self._pmix is not None:
            self._pmix.close()

    def _hear(self, number: int) -> None:
        assert self._exchange is not None
        try:
            data = os.read(self._ends[number], _CHUNK)
        except (BlockingIOError, ConnectionResetError):
            data = b""
        if not data:
            self._hang_up(number)
            return
        try:
            self._exchange.ranks[number].receive(data)
        except pmi.ProtocolError as error:
            self._complain(f"error: task {number}: not understood on PMI_FD: {error}")
            self._hang_up(number)

    def _hang_up(self, number: int) -> None:
        fd = self._ends.pop(number, None)
        if fd is not None:
            self._pending.pop(number, None)
            self._loop.unwatch(fd)
            os.close(fd)

    def _send(self, number: int, data: bytes) -> None:
        if number not in self._ends:
            return  # it has ended meanwhile
        waiting = self._pending.setdefault(number, bytearray())
        waiting += data
        if len(waiting) > _MOST_PENDING:
            self._complain(f"error: task {number} does not read what it asks for on PMI_FD")
            self._hang_up(number)
        elif len(waiting) == len(data):
            self._flush(number)

    def _flush(self, number: int) -> None:
        waiting, fd = self._pending[number], self._ends[number]
        try:
            while waiting:
                del waiting[: os.write(fd, waiting)]
        except BlockingIOError:
            self._loop.watch_writable(fd, lambda: self._flush(number))
            return
        except OSError:  # it has ended, which its reading end tells as well
            waiting.clear()
        self._loop.unwatch_writable(fd)
