"""Waiting jobs, in the order in which they are to start.

A job's priority grows as it waits, and everybody's grows alike, without end.  So the difference
between two jobs never changes, and neither does their order: the queue is a sorted list, in which
a job is put once, by what its priority would have been at the beginning of time (``standing``).
Nobody's priority is ever computed again, however many wait.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from typing import Final

from roadstead.core.model import JobSpec
from roadstead.core.site import Partition, Site

Key = tuple[int, float, int]
_BASE: Final = 10000.0  # points that every job has, so that --nice can take some away


def standing(spec: JobSpec, submitted_at: float, site: Site) -> float:
    """A job's points less those of its age: what does not change."""
    weights = site.weights
    # Slurm, AccrueTime: a job does not age before its --begin.
    grown = weights.age / weights.max_age * max(submitted_at, spec.begin or 0.0)
    if spec.priority is not None:
        return spec.priority - grown
    size, partition = _factors(spec, site)
    return _BASE - spec.nice + size + partition - grown


def _factors(spec: JobSpec, site: Site) -> tuple[float, float]:
    """The points of a job's size, and those of its partition."""
    weights = site.weights
    of_size = of_partition = 0.0
    partition = _first(spec, site)
    if partition is not None and weights.partition:
        highest = max(each.job_factor for each in site.partitions) or 1
        of_partition = weights.partition * partition.job_factor / highest
    if weights.size:
        total = sum(len(node.cpus) for node in site.nodes)
        size = min(1.0, spec.ntasks * spec.cpus_per_task / max(1, total))
        of_size = weights.size * (1 - size if weights.favour_small else size)
    return of_size, of_partition


def factors(spec: JobSpec, submitted_at: float, site: Site, now: float) -> dict[str, float]:
    """What a job's points are made of (sprio).  ``site`` is what every job has, or what somebody
    has set: then nothing but age is added."""
    since = max(submitted_at, spec.begin or 0.0)
    age = max(0.0, site.weights.age / site.weights.max_age * (now - since))
    if spec.priority is not None:
        return {"site": spec.priority, "age": age, "size": 0.0, "partition": 0.0, "nice": 0.0}
    size, partition = _factors(spec, site)
    return {"site": _BASE, "age": age, "size": size, "partition": partition, "nice": spec.nice}


def priority(spec: JobSpec, submitted_at: float, site: Site, now: float) -> int:
    """A job's points now; 1 at least, as 0 is a held job's."""
    grown = site.weights.age / site.weights.max_age * max(now, spec.begin or 0.0)
    return max(1, round(standing(spec, submitted_at, site) + grown))


def key(job_id: int, spec: JobSpec, submitted_at: float, site: Site) -> Key:
    """What jobs are sorted by: their partition's tier, their points, their numbers."""
    partition = _first(spec, site)
    tier = 1 if partition is None else partition.tier
    return -tier, -standing(spec, submitted_at, site), job_id


def _first(spec: JobSpec, site: Site) -> Partition | None:
    return site.partition(spec.partition.partition(",")[0])


class Queue:
    """Ids of waiting jobs, whoever is to start first in front."""

    def __init__(self) -> None:
        self._order: list[Key] = []
        self._keys: dict[int, Key] = {}

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, job_id: int) -> bool:
        return job_id in self._keys

    def __iter__(self) -> Iterator[int]:
        return (each[2] for each in self._order)

    def add(self, where: Key) -> None:
        """Put a job in its place."""
        self._keys[where[2]] = where
        insort(self._order, where)

    def fill(self, places: Iterable[Key]) -> None:
        """Put many jobs in their places: when a controller starts."""
        for where in places:
            self._keys[where[2]] = where
        self._order = sorted(self._keys.values())

    def remove(self, job_id: int) -> None:
        """Take a job out, if it is in."""
        where = self._keys.pop(job_id, None)
        if where is not None:
            del self._order[bisect_left(self._order, where)]

    def standing_of(self, job_id: int) -> float | None:
        """A job's ``standing``, if it is in the queue."""
        where = self._keys.get(job_id)
        return None if where is None else -where[1]

    def position(self, job_id: int) -> int:
        """How many are before it."""
        return bisect_left(self._order, self._keys[job_id])

    def first(self, number: int) -> list[int]:
        """The first jobs."""
        return [each[2] for each in self._order[:number]]

    @property
    def head(self) -> int | None:
        return self._order[0][2] if self._order else None
