"""--container-per=node: one container that the tasks of a node share.

They see each other's processes and memory (MPI copies between them by process_vm_readv(2), GPUs by
handles of CUDA IPC), have one /dev/shm and one writable layer. The container's first process is one
that waits (oci/pause.py): so the end of a task is not the end of the others. Each task joins by the
runtime's own ``exec``, which gives it the identity, the capabilities and the filters that
config.json asks for, and whose exit status is the task's.

No other process can be mistaken for the container: its first process is a child of ours (create,
then start), watched by its pidfd, and not reaped before the last task has left. Until then the
kernel gives its number to nobody.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from roadstead.errors import LaunchError, RoadsteadError, RuntimeFailure
from roadstead.host import process
from roadstead.oci import runtime
from roadstead.step.container import Container, Stdio
from roadstead.step.life import Life, Until
from roadstead.step.moment import Moment

if TYPE_CHECKING:
    from roadstead.core.model import TaskSpec
    from roadstead.step.around import Around
    from roadstead.step.plan import Plan

NOT_FOR_SCRIPTS: Final = "--container-per=node is for the tasks of a step, not for a batch script"
NOT_WITH_A_TERMINAL: Final = "--pty needs a container of the task's own, not --container-per=node"


class Shared(Container):
    """The container of a node's tasks, from the first one's start to the last one's end."""

    def __init__(
        self,
        plan: Plan,
        first: TaskSpec,
        notice: Callable[[str], None],
        inside: AbstractContextManager[int | None],
        around: Around,
    ) -> None:
        _check(plan)
        super().__init__(plan, first, notice, inside, around, per_node=True)
        assert isinstance(self.commands, runtime.BuiltIn)
        self.commands: runtime.BuiltIn = replace(self.commands, mode="create", descriptors=0)
        self.members = 0
        self.failure: RoadsteadError | None = None
        self._ready, self._over = Moment(), Moment()
        self._begun = False

    def join(self) -> Life[None]:
        """Wait until it is there.  Raises what it has failed with."""
        assert self._around is not None
        if not self._begun:
            self._begun = True
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            life = self._life_on(null)
            self._around.lives.start(life, self._has_ended, self._has_failed)
        yield Until(self._ready.awaited())
        if self.failure is not None:
            raise self.failure

    def _life_on(self, null: int) -> Life[int]:
        try:
            return (yield from self.life((null, null, 2), ""))
        finally:
            os.close(null)

    def begun(self) -> None:
        super().begun()
        self._ready.come()

    def leave(self) -> Life[None]:
        """A task has ended; with the last one the container does, and is waited for."""
        self.members -= 1
        if self.members or not self._begun:
            return
        if self.child is not None and self.child.status is None:
            self.child.signal(process.KILL)
        yield Until(self._over.awaited())

    def _has_ended(self, status: int) -> None:
        self._has_failed(RuntimeFailure(f"the container has ended with status {status}"))

    def _has_failed(self, failure: RoadsteadError) -> None:
        self.failure = failure
        self._ready.come()
        self._over.come()

    def processes(self) -> list[int]:
        """Its first process alone: all others are those of tasks."""
        return super().processes()[:1]

    def close(self) -> None:
        super().close()
        self._ready.close()
        self._over.close()


class Member(Container):
    """A task in a container that it shares."""

    def __init__(
        self,
        shared: Shared,
        task: TaskSpec,
        notice: Callable[[str], None],
        inside: AbstractContextManager[int | None],
        around: Around,
    ) -> None:
        self.shared = shared
        self._owns = shared.task.procid == task.procid
        super().__init__(shared.plan, task, notice, inside, around, host=shared)
        shared.members += 1

    @property
    def items(self) -> dict[str, Any]:
        return self.shared.items

    def life(self, stdio: Stdio, terminal: str) -> Life[int]:
        """Join the container and run the task to its end; its wait status."""
        if terminal:
            raise LaunchError(NOT_WITH_A_TERMINAL)
        mine = tuple(os.dup(fd) for fd in stdio)  # the step's are closed once all are started
        try:
            yield from self.shared.join()
            child = self.child = self._joined(mine)
            assert self._around is not None
            yield from self._around.plugged.call(
                "task_post_fork", self.task, {"S_TASK_PID": child.pid, **self.items}
            )
            status = yield Until(child)
            assert status is not None
            said = runtime.complaint(self._log) if status else ""
            if said:
                raise self._failure(f"{self.commands.program}: {said}")
            return status
        finally:
            for fd in mine:
                os.close(fd)
            if self.child is not None and self.child.status is None:
                self._kill(self.child)
                self.child.reap()
            self.child = None
            yield from self.shared.leave()

    @property
    def _log(self) -> str:
        return f"{self.directory.path}/runtime.log"

    def _joined(self, stdio: Stdio) -> process.Child:
        built_in = replace(self.shared.commands, log=self._log, descriptors=max(0, len(stdio) - 3))
        argv = built_in.joining(f"{self.directory.path}/process.json")
        return self._spawn("run", argv, stdio, "")

    def stop_setup(self, processes: list[int]) -> bool:
        if self.child is None:
            return self.shared.stop_setup(self.shared.processes())
        return super().stop_setup(processes)

    def claim(self) -> dict[str, object]:
        return self.shared.claim() if self._owns else {}

    def close(self) -> None:
        if self._owns:
            self.shared.close()


def _check(plan: Plan) -> None:
    called = os.path.basename(plan.program)
    if plan.conf is not None or called not in runtime.KNOWN:
        raise LaunchError(
            f"--container-per=node: {plan.conf.source if plan.conf else called} has no words for "
            "joining a container",
            hint="ROADSTEAD_OCI_CONF=none uses crun or runc by their own",
        )
    if plan.spec.script:
        raise LaunchError(NOT_FOR_SCRIPTS)


def of_tasks(
    supervised: list[tuple[Plan | None, TaskSpec, AbstractContextManager[int | None]]],
    notice: Callable[[str], None],
    around: Around,
) -> list[Container | None]:
    """The containers of a step's tasks, in their order."""
    found: list[Container | None] = []
    shared: dict[tuple[int, str], Shared] = {}
    for plan, task, inside in supervised:
        if plan is None:
            found.append(None)
        elif plan.request.per == "task":
            found.append(Container(plan, task, notice, inside, around))
        else:
            where = (task.part, task.node)
            if where not in shared:
                shared[where] = Shared(plan, task, notice, inside, around)
            found.append(Member(shared[where], task, notice, inside, around))
    return found
