"""On which nodes a job's tasks go, counted: how many tasks and CPUs on each.

The same function serves what is free now, what will be free later (schedule.py) and what an empty
site has (request.py): it sees numbers, not which CPUs they are.

Tasks go to nodes in blocks, as Slurm's do: each node takes as many as it can while one is left for
each node behind it.  Four tasks on three nodes of two CPUs are 2, 1 and 1 (seen: Slurm 22.05).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from roadstead.core.model import Gres, JobSpec
from roadstead.core.site import Node, Partition

GresKey = tuple[str, str]
_ANY_NUMBER = 1 << 30


@dataclass(slots=True)
class Free:
    """What a node has to give: numbers only."""

    node: Node
    cpus: int
    memory: int
    gres: dict[GresKey, int]

    @classmethod
    def all_of(cls, node: Node) -> Free:
        """A node that nobody uses."""
        units: dict[GresKey, int] = {}
        for each in node.gres:
            key = (each.name, each.type)
            units[key] = units.get(key, 0) + each.count
        return cls(node, len(node.cpus), node.memory, units)


@dataclass(frozen=True, slots=True)
class Slot:
    """So many tasks on so many CPUs of a node."""

    node: Node
    ntasks: int
    cpus: int


def fit(spec: JobSpec, frees: Sequence[Free]) -> list[Slot] | None:
    """Where the job can be, in the order of ``frees``; None where it cannot."""
    if spec.nodes > spec.ntasks:
        return None  # a partition with MinNodes; of a job's own nodes there are never more
    room = [(free, tasks) for free in frees if (tasks := capacity(spec, free))]
    least = max(spec.nodes, len(spec.nodelist), 1)
    most = min(spec.max_nodes or len(room), len(room), max(least, spec.ntasks))
    for count in range(least, most + 1):
        chosen = _choose(spec, room, count)
        if chosen is not None:
            return _deal(spec, chosen)
    return None


def in_partition(spec: JobSpec, partition: Partition) -> JobSpec:
    """The job as it is in a partition: with no more and no fewer nodes than that gives, and alone
    on them where its jobs share none (OverSubscribe=EXCLUSIVE)."""
    least, most = max(spec.nodes, partition.min_nodes), partition.max_nodes
    most = spec.max_nodes if most is None else min(spec.max_nodes or most, most)
    exclusive = spec.exclusive or partition.exclusive
    if (least, most, exclusive) == (spec.nodes, spec.max_nodes, spec.exclusive):
        return spec
    return replace(spec, nodes=least, max_nodes=most, exclusive=exclusive)


def capacity(spec: JobSpec, free: Free) -> int:
    """How many of the job's tasks the node can take; 0 where it may take none."""
    node = free.node
    if node.name in spec.exclude or not set(spec.features) <= set(node.features):
        return 0
    if spec.memory > free.memory or free.cpus < max(spec.cpus_per_task, spec.least_cpus):
        return 0
    shape = spec.topology
    if shape.sockets > node.sockets or shape.cores > node.cores_per_socket:
        return 0
    if shape.threads > node.threads_per_core:
        return 0
    if spec.exclusive and free.cpus < len(node.cpus):
        return 0
    if any(units_free(free.gres, wanted) < wanted.count for wanted in spec.gres):
        return 0
    tasks = _ANY_NUMBER if spec.overcommit else free.cpus // spec.cpus_per_task
    if spec.memory_per_cpu:
        cpus = len(node.cpus) if spec.exclusive else spec.cpus_per_task
        fitting = free.memory // (spec.memory_per_cpu * cpus)
        if spec.exclusive or spec.overcommit:
            tasks = tasks if fitting else 0
        else:
            tasks = min(tasks, fitting)
    if spec.ntasks_per_node:
        tasks = min(tasks, spec.ntasks_per_node)
    if shape.tasks:
        tasks = min(tasks, shape.tasks * node.sockets)
    return tasks


def units_free(units: Mapping[GresKey, int], wanted: Gres) -> int:
    """How many units would do: those of its type, or of any where none is named."""
    if wanted.type:
        return units.get((wanted.name, wanted.type), 0)
    return sum([number for (name, _), number in units.items() if name == wanted.name])


Room = list[tuple[Free, int]]


def _choose(spec: JobSpec, room: Room, count: int) -> Room | None:
    """``count`` nodes that can have all tasks: the first ones, or else the roomiest."""
    if spec.nodelist:
        wanted = [each for each in room if each[0].node.name in spec.nodelist]
        if len(wanted) < len(spec.nodelist):
            return None
        others = [each for each in room if each[0].node.name not in spec.nodelist]
    else:
        wanted, others = [], room
    missing = count - len(wanted)
    if missing < 0 or missing > len(others):
        return None
    needed = spec.ntasks - sum(tasks for _, tasks in wanted)
    if count == 1 and missing:
        # One node: the first that holds everything.
        return next(([each] for each in others if each[1] >= needed), None)
    chosen = others[:missing]
    if sum(tasks for _, tasks in chosen) < needed:
        chosen = sorted(others, key=lambda each: -each[1])[:missing]
        if sum(tasks for _, tasks in chosen) < needed:
            return None
    picked = {id(free) for free, _ in [*wanted, *chosen]}
    return [each for each in room if id(each[0]) in picked]


def _deal(spec: JobSpec, chosen: Room) -> list[Slot]:
    numbers = deal(spec.ntasks, [tasks for _, tasks in chosen], evenly=spec.overcommit)
    slots = []
    for (free, _), tasks in zip(chosen, numbers, strict=True):
        cpus = spec.cpus_per_task * (1 if spec.overcommit else max(1, tasks))
        cpus = max(cpus, spec.least_cpus)
        slots.append(Slot(free.node, tasks, len(free.node.cpus) if spec.exclusive else cpus))
    return slots


def deal(ntasks: int, capacities: Sequence[int], *, evenly: bool = False) -> list[int]:
    """How many of ``ntasks`` each place takes, one for each place as long as there are any.

    The capacities add up to ``ntasks`` or more.  ``evenly``: where a place could take any number.
    """
    left, numbers = ntasks, []
    for at, most in enumerate(capacities):
        behind = len(capacities) - at - 1
        share = -(-left // (behind + 1)) if evenly else max(min(1, left), left - behind)
        numbers.append(max(0, min(most, share)))
        left -= numbers[-1]
    return numbers


def orders(specs: Sequence[JobSpec]) -> list[tuple[int, ...]]:
    """In which orders to place the components of a job: as they are, then the choosiest first, so
    that one that could be anywhere does not take the only place of another."""
    natural = tuple(range(len(specs)))

    def demand(at: int) -> tuple[int, bool, int, int]:
        spec = specs[at]
        cpus = spec.ntasks * spec.cpus_per_task
        return -len(spec.nodelist), not spec.exclusive, -len(spec.features) - len(spec.gres), -cpus

    choosy = tuple(sorted(natural, key=demand))
    return [natural] if choosy == natural else [natural, choosy]


def memory_of(spec: JobSpec, slot: Slot) -> int:
    """MiB that a job takes of a node; 0 takes none."""
    return spec.memory or spec.memory_per_cpu * slot.cpus


def subtract(frees: Iterable[Free], spec: JobSpec, slots: Sequence[Slot]) -> None:
    """Take what the slots need from the numbers."""
    by_name = {slot.node.name: slot for slot in slots}
    for free in frees:
        slot = by_name.get(free.node.name)
        if slot is None:
            continue
        free.cpus -= slot.cpus
        free.memory -= memory_of(spec, slot)
        for wanted in spec.gres:
            take_units(free.gres, wanted)


def take_units(units: dict[GresKey, int], wanted: Gres) -> None:
    """Take as many units as are wanted, of the first types that have some."""
    missing = wanted.count
    for key in sorted(units):
        if key[0] == wanted.name and wanted.type in ("", key[1]):
            taken = min(missing, max(0, units[key]))
            units[key] -= taken
            missing -= taken
