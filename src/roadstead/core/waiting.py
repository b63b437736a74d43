"""Who waits beside the queue: for other jobs, or for a time; and what lets them in.

A job that is pending and not held is in the queue unless its dependency is unmet or its --begin is
to come; elements of an array that has enough of them out wait beside it too (state.py).  So a turn
of the scheduler looks at nobody who could not start, however many there are: a job gets in by the
event that it waits for.  Times are timers; the end of a job is told to those that wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from roadstead.core import dependency
from roadstead.core import effects as do
from roadstead.core import lifecycle as life
from roadstead.core.dependency import Target
from roadstead.core.effects import Effects
from roadstead.core.lifecycle import Job
from roadstead.core.model import Dependency, JobSpec, Need
from roadstead.core.state import State

_JOB: Final = -1  # a timer of the whole job

Ended = Mapping[int, Sequence[Job]]
Seen = dict[Need, Need | None]  # what the jobs of one request have found out


def met(
    state: State, spec: JobSpec, job_id: int, ended: Ended, at: float, seen: Seen
) -> Dependency | None:
    """What is missing of a new dependency; ``ended`` are the jobs that it names and that are over.

    Raises RequestError for a job that would wait for itself.
    """
    asked = spec.dependency
    if asked is None:
        return None
    needs: list[Need | None] = []
    for need in asked.needs:
        if need.kind == "singleton":
            needs.append(need)  # let_single knows, once the job is there
            continue
        if need in seen:
            needs.append(seen[need])
            continue
        found = _named(state, need, ended)
        live = [] if found is None else found[1]
        if any(_waits_for(state, each.id, job_id) for each in live):
            raise dependency.problem("it would wait for itself")
        seen[need] = None if found is None else dependency.first_look(*found, at)
        needs.append(seen[need])
    return dependency.settle(asked, needs)


def _waits_for(state: State, job_id: int, other: int) -> bool:
    """Whether the first waits for the second, directly or by others, or is it."""
    seen, look = set(), [job_id]
    while look:
        each = look.pop()
        job = state.jobs.get(each)
        if each == other:
            return True
        if job is None or each in seen:
            continue
        seen.add(each)
        look += [found for target in dependency.targets(job.spec.dependency)
                 for found in _live(state, target)]  # fmt: skip
    return False


def _live(state: State, target: Target) -> list[int]:
    number, task_id = target
    array = state.arrays.get(number)
    if array is None:
        return [number] if number in state.jobs else []
    if task_id == dependency.WHOLE:
        return list(array.live.values())
    return [array.live[task_id]] if task_id in array.live else []


def _named(state: State, need: Need, ended: Ended) -> tuple[Need, list[Job], list[Job]] | None:
    """The need, and the jobs it names, unfinished and over; None where nobody knows them."""
    over = list(ended.get(need.job_id, ()))
    is_array = need.job_id in state.arrays or any(job.spec.array is not None for job in over)
    if not is_array:
        need = replace(need, task_id=None)
    elif need.task_id is not None:
        over = [job for job in over if job.spec.array and job.spec.array.task_id == need.task_id]
    live = [state.jobs[each] for each in _live(state, dependency.target(need))]
    live_ids = {job.id for job in live}
    over = [job for job in over if job.id not in live_ids]
    return (need, live, over) if live or over else None


# -- in and out ------------------------------------------------------------------------------------


def admit(state: State, effects: Effects, job: Job, at: float) -> None:
    """Put a job that is not held where it waits: in the queue, or beside it until then."""
    times = _times(job)
    if job.spec.dependency is not None or (job.spec.begin or 0.0) > at:
        state.dequeue(job)
        if times:
            effects(do.SetTimer(("begin", job.id, _JOB), min(times)))
        return
    state.enqueue(job)


def may_enter(state: State, effects: Effects, job: Job, at: float) -> bool:
    """Whether a job of the journal's is one for the queue; one that waits for a time gets its
    timer."""
    times = _times(job)
    if times:
        effects(do.SetTimer(("begin", job.id, _JOB), min(times)))
    return job.spec.dependency is None and (job.spec.begin or 0.0) <= at


def _times(job: Job) -> list[float]:
    """The times that change something for it."""
    found = [] if job.spec.dependency is None else job.spec.dependency.needs
    times = [need.until for need in found if need.until is not None]
    return times if job.spec.dependency is not None or not job.spec.begin else [job.spec.begin]


def disarm(effects: Effects, job: Job) -> None:
    """It waits no longer for any time: it has started, or never will."""
    if _times(job):
        effects(do.CancelTimer(("begin", job.id, _JOB)))
    if job.spec.deadline is not None:
        effects(do.CancelTimer(("deadline", job.id, _JOB)))


def arm_deadline(effects: Effects, job: Job) -> None:
    """--deadline: the last moment at which it can start."""
    spec = job.spec
    if spec.deadline is not None:
        length = spec.least_time or spec.time_limit or 0
        effects(do.SetTimer(("deadline", job.id, _JOB), spec.deadline - length))


# -- what others do --------------------------------------------------------------------------------


def time_has_come(state: State, effects: Effects, job: Job, at: float) -> None:
    """A timer of a pending job's has run out."""
    if job.spec.dependency is not None:
        _look_again(state, effects, job, lambda need: dependency.after_time(need, at), at)
    elif not is_held(job):
        admit(state, effects, job, at)


def started(state: State, effects: Effects, job: Job, at: float) -> None:
    """Tell those who wait for a job to start."""
    for target in dependency.names(job):
        for waiter in _waiters(state, target):
            waits = _any_waits(state, _live(state, target))

            def after(need: Need, waits: bool = waits) -> Need | None:
                return dependency.after_start(need, waits, at)

            _look_again(state, effects, waiter, _for(target, after), at)


def ended(state: State, effects: Effects, job: Job, at: float) -> list[Job]:
    """Tell those who wait for a job that it is over; who of them is to be cancelled for it."""
    touched: set[int] = set()
    for target in dependency.names(job):
        for waiter in _waiters(state, target):
            live = _live(state, target)
            waits = _any_waits(state, live)

            def after(need: Need, left: bool = bool(live), waits: bool = waits) -> Need | None:
                return dependency.after_end(need, job, left, waits, at)

            touched.add(_look_again(state, effects, waiter, _for(target, after), at).id)
    let_single(state, effects, job.spec.name, at)
    return [
        each
        for each in map(state.jobs.__getitem__, sorted(touched))
        if each.spec.kill_on_invalid_dep and dependency.is_never(each.spec.dependency)
    ]


def let_single(state: State, effects: Effects, name: str, at: float) -> None:
    """Whoever waits to be the only one of a name, and is now."""
    first = state.waiters.next_single(name)
    if first is not None and dependency.is_single(state.jobs[first].spec.dependency):
        _look_again(
            state, effects, state.jobs[first],
            lambda need: None if need.kind == "singleton" else need, at,
        )  # fmt: skip


def _any_waits(state: State, jobs: Sequence[int]) -> bool:
    return any(isinstance(state.jobs[each].state, life.JobPending) for each in jobs)


def is_held(job: Job) -> bool:
    return isinstance(job.state, life.JobPending) and job.state.held


def _waiters(state: State, target: Target) -> list[Job]:
    return [state.jobs[each] for each in state.waiters.by_target.get(target, ())]


Change = Callable[[Need], Need | None]


def _for(target: Target, change: Change) -> Change:
    """The change, for needs of this target alone."""

    def changed(need: Need) -> Need | None:
        alone = need.kind != "singleton" and dependency.target(need) == target
        return change(need) if alone else need

    return changed


def _look_again(state: State, effects: Effects, job: Job, change: Change, at: float) -> Job:
    old = job.spec.dependency
    assert old is not None
    new = dependency.settle(old, [change(need) for need in old.needs])
    if new == old:
        return job
    disarm_times = bool(_times(job))
    job = state.put_job(replace(job, spec=replace(job.spec, dependency=new)))
    effects(do.Save(job))
    if disarm_times and not _times(job):
        effects(do.CancelTimer(("begin", job.id, _JOB)))
    if not is_held(job):
        admit(state, effects, job, at)
    return job
