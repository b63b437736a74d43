"""Which of a job's CPUs and devices each of its steps has.

A step has all CPUs of its job's nodes, or with --exact as many as its tasks need, and nobody beside
it may run on them unless one of the two says --overlap; a step that finds them taken waits for its
turn.  A step that was started from inside another one may use what that one has: ``srun srun`` in a
job of one CPU would wait for itself otherwise (it does, in Slurm 22.05).  So steps wait in one line
for each step that they were started from, and lines do not wait for each other.

The components of a heterogeneous job have their seats in one place: a step may span several of
them, each part of it in its own, and gets all of them or waits.

Devices that a step asks for by --gres are its own, like the CPUs; one that does not ask sees all of
its job's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from roadstead.core.lifecycle import Place
from roadstead.core.model import Gres, Share, StepRequest
from roadstead.core.placement import deal

_ANY_NUMBER = 1 << 30
Unit = tuple[str, str, str, int]  # node, name, type, index; a CPU has no name


_NOBODY = -1  # claims units while the parts of a step are placed


class Seats:
    """The CPUs and devices of one job, and which of its steps claim them.  ``others`` are those of
    a heterogeneous job's components beside the first, by their offset."""

    def __init__(
        self, shares: tuple[Share, ...], others: Mapping[int, tuple[Share, ...]] | None = None
    ) -> None:
        self.groups = {0: shares, **(others or {})}
        self._claims: dict[Unit, set[int]] = {}
        self._places: dict[int, Place] = {}  # step → its place
        self._parents: dict[int, int | None] = {}
        self._waiting: dict[int | None, dict[int, StepRequest]] = {}

    def can_ever_place(self, request: StepRequest) -> bool:
        """Whether the step fits the job at all."""
        if request.parts:
            return Seats((), self.groups)._find(request) is not None
        shares = self.groups[request.group]
        return self._layout(request, shares, shares, None) is not None

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
        self._claim(step_id, request, place)

    def _claim(self, step_id: int, request: StepRequest, place: Place) -> None:
        for part, shares in zip(request.parts or (request,), place.parts, strict=False):
            for unit in _claimed(part, replace(place, shares=shares, lengths=())):
                self._claims.setdefault(unit, set()).add(step_id)

    def leave(self, step_id: int) -> None:
        """The step has gone, from its CPUs or from its line."""
        place = self._places.pop(step_id, None)
        parent = self._parents.pop(step_id, None)
        if place is not None:
            self._unclaim(step_id)
        line = self._waiting.get(parent)
        if line is not None:
            line.pop(step_id, None)
            if not line:
                del self._waiting[parent]

    def _unclaim(self, step_id: int) -> None:
        for claims in self._claims.values():
            claims.discard(step_id)

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
        if not request.parts:
            return self._find_alone(request)
        found: list[Place] = []
        for part in request.parts:
            place = self._find_alone(part)
            if place is None:
                break
            found.append(place)
            self._claim(_NOBODY, part, place)
        self._unclaim(_NOBODY)
        if len(found) < len(request.parts):
            return None
        return Place(
            shares=tuple([share for each in found for share in each.shares]),
            claimed=found[0].claimed,
            lengths=tuple([len(each.shares) for each in found]),
        )

    def _find_alone(self, request: StepRequest) -> Place | None:
        parent = self._places.get(-1 if request.parent_step is None else request.parent_step)
        ancestors = self._ancestors(request)
        shares = self.groups[request.group]
        if parent is not None and parent.claimed and len(self.groups) == 1:
            # What the parent has, if that is enough; else whatever of the job is free.
            inside = self._layout(request, parent.shares, shares, ancestors)
            if inside is not None or self._layout(request, parent.shares, shares, None):
                return self._placed(request, inside)
        return self._placed(request, self._layout(request, shares, shares, ancestors))

    def _placed(self, request: StepRequest, shares: tuple[Share, ...] | None) -> Place | None:
        if shares is None:
            return None
        return Place(shares=shares, claimed=not (request.overlap or request.interactive))

    def _layout(
        self,
        request: StepRequest,
        pool: Sequence[Share],
        owned: Sequence[Share],
        ancestors: set[int] | None,
    ) -> tuple[Share, ...] | None:
        """The step's shares of ``pool``; units claimed by others than ``ancestors`` are not free
        (None: whoever claims them), unless the step shares."""
        shared = request.overlap or request.interactive or ancestors is None
        parts: list[tuple[Share, tuple[int, ...], tuple[Gres, ...], int]] = []
        for share in self._candidates(request, pool):
            allowed = set() if ancestors is None else ancestors
            cpus = share.cpus
            if not shared:
                cpus = tuple([c for c in cpus if self._free((share.node, "", "", c), allowed)])
            if not request.exact and len(cpus) < len(share.cpus):
                cpus = ()
            gres = self._gres(request, share, None if shared else allowed)
            tasks = len(cpus) // request.cpus_per_task
            if request.overcommit and cpus:
                tasks = _ANY_NUMBER
            if request.ntasks_per_node:
                tasks = min(tasks, request.ntasks_per_node)
            if request.launch.hosts:
                listed = request.launch.hosts.count(share.node)
                tasks = listed if listed <= tasks else 0
            if tasks and gres is not None:
                parts.append((share, cpus, gres, tasks))
        count = max(len(request.nodelist), min(request.nodes or len(owned), request.ntasks))
        count = min(count, len(owned))
        if pool is not owned:
            count = min(count, len(pool))
        chosen = _choose(parts, count, request.ntasks)
        if chosen is None or any(n not in [p[0].node for p in chosen] for n in request.nodelist):
            return None
        chosen.sort(key=lambda part: pool.index(part[0]))
        numbers = deal(request.ntasks, [tasks for *_, tasks in chosen], evenly=request.overcommit)
        shares = []
        for (share, cpus, gres, _), ntasks in zip(chosen, numbers, strict=True):
            needed = request.cpus_per_task * (1 if request.overcommit else ntasks)
            mine = cpus[:needed] if request.exact else cpus
            memory = request.memory or share.memory
            shares.append(replace(share, cpus=mine, memory=memory, gres=gres, ntasks=ntasks))
        return tuple(shares)

    @staticmethod
    def _candidates(request: StepRequest, pool: Sequence[Share]) -> list[Share]:
        """The nodes that the step may have, those that it must have first."""
        found = [share for share in pool if share.node not in request.exclude]
        if request.relative:
            found = found[request.relative :]
        return sorted(found, key=lambda share: share.node not in request.nodelist)

    def _gres(
        self, request: StepRequest, share: Share, allowed: set[int] | None
    ) -> tuple[Gres, ...] | None:
        """The step's devices on a node; None where too few are free.  ``allowed`` None: shared."""
        if request.gres is None:
            return share.gres
        found: list[Gres] = []
        for wanted in request.gres:
            missing = wanted.count
            for own in share.gres:
                if own.name != wanted.name or wanted.type not in ("", own.type) or not missing:
                    continue
                at = [
                    number
                    for number, index in enumerate(own.indexes)
                    if allowed is None
                    or self._free((share.node, own.name, own.type, index), allowed)
                ][:missing]
                missing -= len(at)
                if at:
                    files = tuple([own.files[n] for n in at]) if own.files else ()
                    indexes = tuple([own.indexes[n] for n in at])
                    found.append(replace(own, count=len(at), indexes=indexes, files=files))
            if missing:
                return None
        return tuple(found)

    def _free(self, unit: Unit, allowed: set[int]) -> bool:
        return self._claims.get(unit, set()) <= allowed

    def _ancestors(self, request: StepRequest) -> set[int]:
        found: set[int] = set()
        step_id = request.parent_step
        while step_id is not None and step_id not in found:
            found.add(step_id)
            step_id = self._parents.get(step_id)
        return found


def _choose(
    parts: list[tuple[Share, tuple[int, ...], tuple[Gres, ...], int]], count: int, ntasks: int
) -> list[tuple[Share, tuple[int, ...], tuple[Gres, ...], int]] | None:
    """The first ``count`` nodes, or more where those do not hold all tasks."""
    for number in range(max(1, count), len(parts) + 1):
        if sum(tasks for *_, tasks in parts[:number]) >= ntasks:
            return parts[:number]
    return None


def _claimed(request: StepRequest, place: Place) -> list[Unit]:
    """What nobody else may have while the step is there."""
    if not place.claimed:
        return []
    units: list[Unit] = []
    for share in place.shares:
        units += [(share.node, "", "", cpu) for cpu in share.cpus]
        if request.gres is not None:
            for each in share.gres:
                units += [(share.node, each.name, each.type, index) for index in each.indexes]
    return units
