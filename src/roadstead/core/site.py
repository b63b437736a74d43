"""What a site has: nodes, partitions, licences, and by what weights jobs are put in order.

A site without a roadstead.conf is one node, this machine, in one partition.  With one, nodes are
parts of this machine, or pretend to be more of it than there is: ``-N4`` can be tried on a laptop.
The states of nodes change at run time (scontrol update); everything else is read once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from roadstead.core.model import Gres

PARTITION: Final = "local"
_DAY: Final = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What there is to be given out, and what sinfo and scontrol tell of it.

    ``cpus`` are the node's numbers for its CPUs, ``kernel_cpus`` the kernel's, in the same order
    (empty: the same).  ``memory`` is MiB.
    """

    name: str
    cpus: tuple[int, ...]
    memory: int
    kernel_cpus: tuple[int, ...] = ()
    gres: tuple[Gres, ...] = ()
    features: tuple[str, ...] = ()
    weight: int = 1
    boot_time: float = 0.0
    os: str = ""
    arch: str = ""
    sockets: int = 1
    cores_per_socket: int = 1
    threads_per_core: int = 1

    def kernel_numbers(self, cpus: tuple[int, ...]) -> tuple[int, ...]:
        """The kernel's numbers for some of the node's CPUs, each once."""
        if not self.kernel_cpus:
            return cpus
        place = {number: self.kernel_cpus[at] for at, number in enumerate(self.cpus)}
        return tuple(sorted({place[number] for number in cpus if number in place}))


NodeWord = Literal["UP", "DRAIN", "DOWN"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCondition:
    """Whether a node takes jobs: UP, DRAIN (no new ones) or DOWN; who says so, why and when."""

    word: NodeWord = "UP"
    reason: str = ""
    user: str = ""
    since: float = 0.0


PartitionWord = Literal["UP", "DOWN", "DRAIN", "INACTIVE"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """A set of nodes with limits; times are seconds, None is no limit.

    UP: jobs are taken and started; DOWN: taken; DRAIN: started; INACTIVE: neither (slurm.conf(5)).
    ``job_factor`` counts towards a job's priority, ``tier`` goes before any priority.
    """

    name: str
    nodes: tuple[str, ...]
    default: bool = False
    state: PartitionWord = "UP"
    max_time: int | None = None
    default_time: int | None = None
    min_nodes: int = 0
    max_nodes: int | None = None
    default_memory_per_node: int = 0
    default_memory_per_cpu: int = 0
    exclusive: bool = False
    tier: int = 1
    job_factor: int = 1

    @property
    def starts_jobs(self) -> bool:
        return self.state in ("UP", "DRAIN")

    @property
    def takes_jobs(self) -> bool:
        return self.state in ("UP", "DOWN")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Points of a job's priority (slurm.conf(5), PriorityWeight…).

    ``age`` points are gained in ``max_age`` seconds of waiting, and as many again in the next: age
    has no ceiling here, so that whoever waits long enough is first.
    """

    age: float = 1000.0
    max_age: float = 7 * _DAY
    size: float = 0.0
    partition: float = 0.0
    favour_small: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What requests are judged by.  ``login``: the variables that a login would set;
    ``hooks_dirs``: directories of hooks that every container has."""

    nodes: tuple[Node, ...]
    uid: int
    host: str = ""
    login: Mapping[str, str] = field(default_factory=dict)
    partitions: tuple[Partition, ...] = ()
    licenses: Mapping[str, int] = field(default_factory=dict)
    weights: Weights = Weights()
    backfill: bool = True
    depth: int = 100
    requeue: bool = True
    requeue_exit: frozenset[int] = frozenset()
    requeue_exit_hold: frozenset[int] = frozenset()
    hooks_dirs: tuple[str, ...] = ()
    source: str = ""

    @classmethod
    def of(cls, node: Node, uid: int, login: Mapping[str, str] | None = None) -> Site:
        """A site that nobody has configured: one node in one partition."""
        only = Partition(name=PARTITION, nodes=(node.name,), default=True)
        return cls(nodes=(node,), uid=uid, host=node.name, login=login or {}, partitions=(only,))

    @property
    def default_partition(self) -> Partition | None:
        return next((each for each in self.partitions if each.default), None)

    def partition(self, name: str) -> Partition | None:
        return next((each for each in self.partitions if each.name == name), None)

    def node(self, name: str) -> Node | None:
        return next((each for each in self.nodes if each.name == name), None)
