"""Who starts now, and on which CPUs: jobs on the node, steps in their job.

Jobs are served first come, first served, strictly: while the oldest one does not fit, none behind
it starts.  A job owns its CPUs and reserves its memory until its last step has gone.  Finding out
who starts costs as much as there are starts: the queue is a heap, and a job that left the queue by
another way is skipped when it comes up.

A step has all CPUs of its job, or with --exact as many as its tasks need, and nobody beside it may
run on them unless one of the two says --overlap; a step that finds them taken waits for its turn.
A step that was started from inside another one may use what that one has: ``srun srun`` in a job
of one CPU would wait for itself otherwise (it does, in Slurm 22.05).  So steps wait in one line for
each step that they were started from, and lines do not wait for each other.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from roadstead.core.lifecycle import Place
from roadstead.core.model import JobSpec, StepRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """The machine: what there is to be given out, and what sinfo and scontrol tell of it."""

    name: str
    cpus: tuple[int, ...]
    memory: int
    boot_time: float = 0.0
    os: str = ""
    arch: str = ""
    version: str = ""
    sockets: int = 1
    cores_per_socket: int = 1
    threads_per_core: int = 1


def cpus_needed(spec: JobSpec, node: Node) -> int:
    """How many CPUs a job takes.  With --overcommit, as many as a single task (sbatch(1))."""
    if spec.exclusive:
        return len(node.cpus)
    return spec.cpus_per_task * (1 if spec.overcommit else spec.ntasks)


class Resources:
    """What of the node is free."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.memory = node.memory
        self._cpus = set(node.cpus)

    @property
    def cpus(self) -> tuple[int, ...]:
        return tuple(sorted(self._cpus))

    @property
    def cpu_count(self) -> int:
        return len(self._cpus)

    def fits(self, spec: JobSpec) -> bool:
        return cpus_needed(spec, self.node) <= len(self._cpus) and spec.memory <= self.memory

    def take(self, spec: JobSpec) -> tuple[int, ...]:
        """CPUs for a job that fits: the lowest numbers."""
        cpus = tuple(heapq.nsmallest(cpus_needed(spec, self.node), self._cpus))
        self.take_again(cpus, spec.memory)
        return cpus

    def take_again(self, cpus: Iterable[int], memory: int) -> None:
        """Note what a job has that was started by the controller before this one."""
        self._cpus.difference_update(cpus)
        self.memory -= memory

    def give_back(self, cpus: Iterable[int], memory: int) -> None:
        # The node may have fewer CPUs now than when the job started.
        self._cpus.update(set(cpus) & set(self.node.cpus))
        self.memory += memory


class Queue:
    """Ids of waiting jobs, lowest first."""

    def __init__(self) -> None:
        self._heap: list[int] = []

    def add(self, job_id: int) -> None:
        heapq.heappush(self._heap, job_id)

    def head(self, waits: Callable[[int], bool]) -> int | None:
        """The first job that still ``waits``; forgets those before it that do not."""
        while self._heap and not waits(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0] if self._heap else None

    def pop(self) -> int:
        return heapq.heappop(self._heap)


def starts(
    queue: Queue, resources: Resources, spec_of: Callable[[int], JobSpec | None]
) -> Iterator[tuple[int, tuple[int, ...]]]:
    """The jobs that start now, each with its CPUs, which are taken from ``resources``.

    ``spec_of`` gives the specification of a job that waits, None for one that no longer does.
    """
    while True:
        job_id = queue.head(lambda number: spec_of(number) is not None)
        spec = None if job_id is None else spec_of(job_id)
        if job_id is None or spec is None or not resources.fits(spec):
            return
        queue.pop()
        yield job_id, resources.take(spec)


class Seats:
    """The CPUs of one job, and which of its steps claim them."""

    def __init__(self, cpus: tuple[int, ...]) -> None:
        self.cpus = cpus
        self._claims: dict[int, set[int]] = {}  # CPU → steps
        self._places: dict[int, Place] = {}  # step → its place
        self._parents: dict[int, int | None] = {}
        self._waiting: dict[int | None, dict[int, StepRequest]] = {}

    def can_ever_place(self, request: StepRequest) -> bool:
        """Whether the step fits the job at all."""
        return _needed(request) <= len(self.cpus)

    def place(self, step_id: int, request: StepRequest) -> Place | None:
        """CPUs for the step now, or None while others claim them."""
        place = self._find(request)
        if place is not None:
            self.seat(step_id, request, place)
        return place

    def seat(self, step_id: int, request: StepRequest, place: Place) -> None:
        """Note that a step has ``place``."""
        self._places[step_id] = place
        self._parents[step_id] = request.parent_step
        if place.claimed:
            for cpu in place.cpus:
                self._claims.setdefault(cpu, set()).add(step_id)

    def leave(self, step_id: int) -> None:
        """The step has gone, from its CPUs or from its line."""
        place = self._places.pop(step_id, None)
        parent = self._parents.pop(step_id, None)
        if place is not None and place.claimed:
            for cpu in place.cpus:
                self._claims[cpu].discard(step_id)
        line = self._waiting.get(parent)
        if line is not None:
            line.pop(step_id, None)
            if not line:
                del self._waiting[parent]

    def wait(self, step_id: int, request: StepRequest) -> None:
        """Put the step at the end of its line."""
        self._parents[step_id] = request.parent_step
        self._waiting.setdefault(request.parent_step, {})[step_id] = request

    def has_line(self, request: StepRequest) -> bool:
        """Whether others wait already where this step would."""
        return request.parent_step in self._waiting

    def next(self) -> tuple[int, Place] | None:
        """The next waiting step that finds its CPUs, seated."""
        for line in self._waiting.values():
            step_id, request = next(iter(line.items()))
            place = self._find(request)
            if place is not None:
                self.leave(step_id)
                self.seat(step_id, request, place)
                return step_id, place
        return None

    def _find(self, request: StepRequest) -> Place | None:
        needed = _needed(request)
        parent = self._places.get(-1 if request.parent_step is None else request.parent_step)
        pool = self.cpus
        if parent is not None and parent.claimed and needed <= len(parent.cpus):
            pool = parent.cpus
        if request.overlap or request.interactive:
            return Place(cpus=pool[:needed] if request.exact else pool, claimed=False)
        ancestors = self._ancestors(request)
        free = tuple(cpu for cpu in pool if self._claims.get(cpu, set()) <= ancestors)
        wanted = needed if request.exact else len(pool)
        if len(free) < wanted:
            return None
        return Place(cpus=free[:wanted], claimed=True)

    def _ancestors(self, request: StepRequest) -> set[int]:
        found: set[int] = set()
        step_id = request.parent_step
        while step_id is not None and step_id not in found:
            found.add(step_id)
            step_id = self._parents.get(step_id)
        return found


def _needed(request: StepRequest) -> int:
    return request.cpus_per_task * (1 if request.overcommit else request.ntasks)
