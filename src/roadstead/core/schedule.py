"""Who starts now: in the order of the queue, and behind who must wait, whoever delays nobody.

A job that does not fit gets a reservation: the earliest time at which, by the time limits of what
runs and by the reservations before it, it fits.  A job further behind starts now if it fits until
its own time limit beside what runs and what is reserved (conservative backfill).  So a reservation
never moves to a later time because of somebody behind it, and the first in the queue starts at its
reservation or earlier.

Who has no time limit may run for ever.  What it uses is taken to be free again at ``_HORIZON``,
and who wants to start without a limit is taken to stay longer than that: otherwise those without a
limit could go on overtaking one that waits for all of a node.

With --time-min a job's limit is lowered where it starts now for that, by as little as it takes: to
the beginning of a reservation that is in its way.  A --deadline lowers it likewise.

The components of a heterogeneous job start in the same turn or not at all: each is reserved its
place while one is looked for for the next.

A turn costs what it looks at: nothing when no CPU is free, else the first ``depth`` of the queue.
Plans are made anew each time; nothing of them is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from roadstead.core.model import Allocation, JobSpec, Share
from roadstead.core.placement import Free, GresKey, Slot, fit, in_partition, orders, subtract
from roadstead.core.pool import Pool
from roadstead.core.site import NodeCondition, Partition, Site

_YEAR: Final = 365 * 86400.0
_HORIZON: Final = _YEAR
_FOR_EVER: Final = 2 * _YEAR
_RESERVATIONS: Final = 16  # so many jobs that wait are protected at a time
_MOMENT: Final = 1.0  # who is past its time limit ends "soon"

# A job that waits: its number, and what it needs.  The components of a heterogeneous job are
# several, whose numbers follow each other.
Waiting = tuple[int, Sequence[JobSpec]]


@dataclass(frozen=True, slots=True)
class Start:
    """A job that starts now, with what has been taken for it, and its time limit."""

    job_id: int
    time_limit: int | None
    partition: str
    shares: tuple[Share, ...]


@dataclass(frozen=True, slots=True)
class Reservation:
    """Nodes that a waiting job will have from ``start`` on, until ``end`` if it takes that long.
    ``spec`` is the job as it is in that partition, and with the time limit that it has then."""

    job_id: int
    start: float
    end: float
    spec: JobSpec
    partition: str
    slots: tuple[Slot, ...]


@dataclass(slots=True)
class Plan:
    """What a turn of the scheduler comes to."""

    starts: list[Start] = field(default_factory=list)
    reservations: list[Reservation] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Holding:
    """A job that runs: what it has, and when its time is up."""

    spec: JobSpec
    allocation: Allocation


def plan(
    waiting: Iterable[Waiting],
    running: Iterable[Holding],
    pool: Pool,
    site: Site,
    conditions: Mapping[str, NodeCondition],
    now: float,
) -> Plan:
    """The jobs that start now, out of ``waiting`` in its order; what they get leaves ``pool``."""
    return _plan(waiting, Outlook(running, pool, now), site, conditions, through=False)


def _plan(
    waiting: Iterable[Waiting],
    outlook: Outlook,
    site: Site,
    conditions: Mapping[str, NodeCondition],
    *,
    through: bool,
) -> Plan:
    """The plan; ``through``: with reservations even where nobody can start."""
    made = Plan()
    hopeless: set[object] = set()
    for job_id, specs in waiting:
        if not through and not outlook.pool.has_cpu:
            break
        shape = tuple([_shape(spec) for spec in specs])
        if shape in hopeless:
            continue
        starts = _start(job_id, specs, outlook, site, conditions)
        if starts:
            made.starts += starts
            continue
        hopeless.add(shape)
        if not site.backfill:
            break
        if len(made.reservations) < _RESERVATIONS:
            reserved = _reserve(job_id, specs, outlook, site, conditions)
            made.reservations += reserved
            outlook.reservations += reserved
    return made


def expected(
    waiting: Iterable[Waiting],
    running: Iterable[Holding],
    pool: Pool,
    site: Site,
    conditions: Mapping[str, NodeCondition],
    now: float,
) -> list[Reservation]:
    """When and where the first of those that wait would start if nobody else came (squeue --start).
    ``pool`` stays as it is."""
    outlook = Outlook(running, pool.copy(), now)
    for job_id, specs in waiting:
        if len(outlook.reservations) >= _RESERVATIONS:
            break
        outlook.reservations += _reserve(job_id, specs, outlook, site, conditions)
    return outlook.reservations


@dataclass(frozen=True, slots=True)
class Forecast:
    """When and where a job would start, as far as time limits tell."""

    start: float
    partition: str
    slots: tuple[Slot, ...]


def forecast(
    specs: Sequence[JobSpec],
    waiting: Iterable[Waiting],
    running: Iterable[Holding],
    pool: Pool,
    site: Site,
    conditions: Mapping[str, NodeCondition],
    now: float,
) -> Forecast | None:
    """When a job would start behind those in ``waiting``; None for one that waits for more than
    time.  ``pool`` stays as it is."""
    outlook = Outlook(running, pool.copy(), now)
    _plan(waiting, outlook, site, conditions, through=True)
    found = _earliest(0, specs, [now, *outlook.times()], outlook, site, conditions)
    if not found:
        return None
    partitions = dict.fromkeys([each.partition for each in found])
    slots = tuple([slot for each in found for slot in each.slots])
    return Forecast(found[0].start, ",".join(partitions), slots)


def partitions_of(spec: JobSpec, site: Site) -> list[Partition]:
    """The partitions that a job may start in, its first choice first."""
    found = [site.partition(name) for name in spec.partition.split(",")]
    return [each for each in found if each is not None and each.starts_jobs]


def usable(partition: Partition, conditions: Mapping[str, NodeCondition]) -> list[str]:
    """The partition's nodes that take new jobs."""
    return [name for name in partition.nodes if conditions.get(name, _UP).word == "UP"]


_UP: Final = NodeCondition()


class Outlook:
    """What will be free when, as far as time limits tell."""

    def __init__(self, running: Iterable[Holding], pool: Pool, now: float) -> None:
        self.pool = pool
        self.now = now
        self.reservations: list[Reservation] = []
        self._releases: list[tuple[float, Holding]] = []
        for each in running:
            self._add(each)
        self._levels: dict[tuple[str, float], Free] = {}

    def _add(self, holding: Holding) -> None:
        end = holding.allocation.ends_at
        if end is None:
            end = self.now + _HORIZON
        elif end <= self.now:
            end = self.now + _MOMENT
        self._releases.append((end, holding))

    def start(self, job_id: int, spec: JobSpec, slots: Sequence[Slot]) -> tuple[Share, ...]:
        """Take what the job needs now."""
        shares = self.pool.take(spec, slots)
        end = None if spec.time_limit is None else self.now + spec.time_limit
        granted = Allocation(job_id=job_id, shares=shares, started_at=self.now, ends_at=end)
        self._add(Holding(spec, granted))
        self._levels.clear()
        return shares

    def times(self) -> list[float]:
        """When something becomes free: the only times at which a job can fit that did not."""
        ends = [at for at, _ in self._releases]
        return sorted({*ends, *[each.end for each in self.reservations]})

    def frees(self, names: Sequence[str], start: float, end: float) -> list[Free]:
        """What of the nodes is free all the time from ``start`` to ``end``."""
        during = [each for each in self.reservations if each.start < end and each.end > start]
        instants = {start, *[each.start for each in during if each.start > start]}
        found = []
        for name in names:
            low: Free | None = None
            for at in instants:
                level = self._level(name, at)
                for each in during:
                    if each.start <= at < each.end:
                        level = _copy(level)
                        subtract([level], each.spec, each.slots)
                low = _copy(level) if low is None else _lower(low, level)
            if low is not None:
                found.append(low)
        return found

    def _level(self, name: str, at: float) -> Free:
        """The node at a time, before reservations."""
        known = self._levels.get((name, at))
        if known is None:
            known = self.pool.nodes[name].free()
            for when, holding in self._releases:
                if when <= at:
                    _release(known, name, holding.allocation)
            self._levels[name, at] = known
        return known

    def has_licenses(self, spec: JobSpec, start: float, end: float) -> bool:
        """Whether the job's licences are free all that time."""
        for wanted in spec.licenses:
            free = self.pool.licenses.get(wanted.name, 0)
            free += sum(
                _licenses(holding.spec, wanted.name)
                for when, holding in self._releases
                if when <= start
            )
            free -= sum(
                _licenses(each.spec, wanted.name)
                for each in self.reservations
                if each.start < end and each.end > start
            )
            if free < wanted.count:
                return False
        return True


def _licenses(spec: JobSpec, name: str) -> int:
    return sum([each.count for each in spec.licenses if each.name == name])


def _copy(free: Free) -> Free:
    return Free(free.node, free.cpus, free.memory, dict(free.gres))


def _lower(one: Free, other: Free) -> Free:
    units: dict[GresKey, int] = {
        key: min(number, other.gres.get(key, 0)) for key, number in one.gres.items()
    }
    return Free(one.node, min(one.cpus, other.cpus), min(one.memory, other.memory), units)


def _release(free: Free, name: str, allocation: Allocation) -> None:
    for share in allocation.shares:
        if share.node == name:
            free.cpus += len(share.cpus)
            free.memory += share.memory
            for each in share.gres:
                key = (each.name, each.type)
                free.gres[key] = free.gres.get(key, 0) + each.count


def _start(
    job_id: int,
    specs: Sequence[JobSpec],
    outlook: Outlook,
    site: Site,
    conditions: Mapping[str, NodeCondition],
) -> list[Start]:
    """Start a job, with all of its components; nothing where it cannot."""
    found = _together(
        specs, outlook, lambda at, spec: _now(job_id + at, spec, outlook, site, conditions)
    )
    return [
        Start(
            each.job_id,
            each.spec.time_limit,
            each.partition,
            outlook.start(each.job_id, each.spec, each.slots),
        )
        for each in found
    ]


def _together(
    specs: Sequence[JobSpec], outlook: Outlook, find: Callable[[int, JobSpec], Reservation | None]
) -> list[Reservation]:
    """What ``find`` finds for each of a job's components beside the others; nothing where one of
    them is left over."""
    if len(specs) == 1:
        alone = find(0, specs[0])
        return [] if alone is None else [alone]
    before = len(outlook.reservations)
    for order in orders(specs):
        found: dict[int, Reservation] = {}
        for at in order:
            placed = find(at, specs[at])
            if placed is None:
                break
            found[at] = placed
            outlook.reservations.append(placed)
        del outlook.reservations[before:]
        if len(found) == len(specs):
            return [found[at] for at in sorted(found)]
    return []


def _now(
    job_id: int,
    spec: JobSpec,
    outlook: Outlook,
    site: Site,
    conditions: Mapping[str, NodeCondition],
) -> Reservation | None:
    """Where the job fits now, and with which time limit."""
    now = outlook.now
    for limit in _limits(spec, outlook):
        end = now + (_FOR_EVER if limit is None else limit)
        if not outlook.has_licenses(spec, now, end):
            continue
        for partition in partitions_of(spec, site):
            wanted = in_partition(spec, partition)
            slots = fit(wanted, outlook.frees(usable(partition, conditions), now, end))
            if slots is not None:
                if limit != wanted.time_limit:
                    wanted = replace(wanted, time_limit=limit)
                return Reservation(job_id, now, end, wanted, partition.name, tuple(slots))
    return None


def _limits(spec: JobSpec, outlook: Outlook) -> list[int | None]:
    """The time limits that the job could start with now, the longest first."""
    longest, now = spec.time_limit, outlook.now
    if spec.deadline is not None:
        left = max(0, int(spec.deadline - now))
        longest = left if longest is None else min(longest, left)
    if spec.least_time is None:
        return [longest]
    until = {int(each.start - now) for each in outlook.reservations}
    lower = [each for each in until if spec.least_time <= each]
    if longest is not None:
        lower = [each for each in lower if each < longest]
    return [longest, *sorted(lower, reverse=True)]


def _reserve(
    job_id: int,
    specs: Sequence[JobSpec],
    outlook: Outlook,
    site: Site,
    conditions: Mapping[str, NodeCondition],
) -> list[Reservation]:
    """The earliest time that the job fits; nothing for one that waits for more than time."""
    return _earliest(job_id, specs, outlook.times(), outlook, site, conditions)


def _earliest(
    job_id: int,
    specs: Sequence[JobSpec],
    times: Iterable[float],
    outlook: Outlook,
    site: Site,
    conditions: Mapping[str, NodeCondition],
) -> list[Reservation]:
    """Where all of the job's components fit at the first of the ``times`` at which they do."""
    choices = [
        [(each, in_partition(spec, each), usable(each, conditions))
         for each in partitions_of(spec, site)]
        for spec in specs
    ]  # fmt: skip
    for when in times:

        def there(at: int, spec: JobSpec, when: float = when) -> Reservation | None:
            end = when + _length(spec)
            if not outlook.has_licenses(spec, when, end):
                return None
            for partition, wanted, names in choices[at]:
                slots = fit(wanted, outlook.frees(names, when, end))
                if slots is not None:
                    place = wanted, partition.name, tuple(slots)
                    return Reservation(job_id + at, when, end, *place)
            return None

        found = _together(specs, outlook, there)
        if found:
            return found
    return []


def _length(spec: JobSpec) -> float:
    """How long the job has to be able to stay."""
    if spec.least_time is not None:
        return spec.least_time
    return _FOR_EVER if spec.time_limit is None else spec.time_limit


def _shape(spec: JobSpec) -> object:
    """What makes two jobs the same to the scheduler: if one cannot start, neither can the other."""
    return (
        spec.partition, spec.ntasks, spec.cpus_per_task, spec.ntasks_per_node, spec.nodes,
        spec.max_nodes, spec.memory, spec.memory_per_cpu, spec.gres, spec.licenses, spec.features,
        spec.nodelist, spec.exclude, spec.time_limit, spec.exclusive, spec.overcommit,
        spec.least_time, spec.least_cpus, spec.deadline, spec.topology,
    )  # fmt: skip
