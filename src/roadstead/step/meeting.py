"""--container-sync: no program starts before the containers of all tasks stand.

A container stands once it waits at its gate (gate.py); one that is run by a container system, or in
any other way that has no gate, once it could be started.  A task that ends before all stand lets
nobody start: a step does not begin half.  Sarus does it by a hook of its own for its containers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from roadstead.errors import RuntimeFailure
from roadstead.step.life import Life, Until
from roadstead.step.moment import Moment
from roadstead.step.network import owners

if TYPE_CHECKING:
    from collections.abc import Iterable

    from roadstead.core.model import ContainerRequest, StepSpec, TaskSpec


class Meeting(Protocol):
    """Where the tasks of a step wait for each other."""

    def wants(self, task: TaskSpec) -> bool:
        """Whether this task's container waits."""

    def stand(self, task: TaskSpec) -> Life[None]:
        """Its container is there: wait for those of all others.  Raises RuntimeFailure where one
        of them will not be."""

    def left(self, task: TaskSpec) -> None:
        """The task has ended, in whatever way."""

    def close(self) -> None:
        """The step has ended."""


def broken(procid: int) -> RuntimeFailure:
    """What all others hear where one will not come."""
    return RuntimeFailure(
        f"--container-sync: task {procid} has no container: nothing was started",
        hint="what it has failed with is above; without the option the others would run",
    )


def of(spec: StepSpec, tasks: list[TaskSpec]) -> Here | None:
    """The meeting of a step's tasks, if they are to wait for each other.  Tasks that share a
    container are there with the one that has brought it."""

    def request(task: TaskSpec) -> ContainerRequest | None:
        return (spec.parts or (spec,))[task.part].container

    def shares(task: TaskSpec) -> bool:
        found = request(task)
        return found is not None and found.per == "node"

    waiting = [each for each in tasks if (found := request(each)) is not None and found.sync]
    if len(waiting) < 2:
        return None
    owner = owners(tasks, shares)
    return Here({owner[each.procid] for each in waiting})


class Here:
    """The meeting of tasks that one supervisor has."""

    def __init__(self, procids: Iterable[int]) -> None:
        """Those of the tasks that have a container of their own, and are to wait."""
        self._all = frozenset(procids)
        self._missing = set(self._all)
        self._absent: int | None = None
        self._come = False
        self._moment = Moment()

    def wants(self, task: TaskSpec) -> bool:
        return task.procid in self._all

    def stand(self, task: TaskSpec) -> Life[None]:
        self._missing.discard(task.procid)
        if not self._missing:
            self._let_go()
        yield Until(self._moment.awaited())
        if self._absent is not None:
            raise broken(self._absent)

    def left(self, task: TaskSpec) -> None:
        if task.procid in self._all and not self._come:
            self._absent = task.procid
            self._let_go()

    def _let_go(self) -> None:
        if not self._come:
            self._come = True
            self._moment.come()

    def close(self) -> None:
        self._moment.close()
