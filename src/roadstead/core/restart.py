"""Taking over from the controller before us, with what its journal holds.

Its clients are gone: what only waited with one is withdrawn; what runs is looked for.
"""

from __future__ import annotations

from roadstead.core import course, het, submission, waiting
from roadstead.core import effects as do
from roadstead.core import events as on
from roadstead.core import lifecycle as life
from roadstead.core.course import ALLOCATION
from roadstead.core.effects import Effects
from roadstead.core.lifecycle import Job
from roadstead.core.state import State, allocation_of


def on_restored(state: State, effects: Effects, event: on.Restored) -> None:
    """Put everything in its place, then withdraw and start whom it concerns."""
    state.next_job_id = event.next_job_id
    state.next_step_ids = dict(event.next_step_ids)
    state.conditions = dict(event.conditions)
    for name, found in event.partitions.items():
        state.put_partition(name, found)
    for job in event.jobs:
        state.put_job(job)
    for job in event.jobs:
        if allocation_of(job) is not None:
            _restore_running(state, effects, job)
    for job in event.jobs:
        if job.spec.array is not None and not isinstance(job.state, life.JobPending):
            state.admits(job)  # it is out already
    waiting_ = [job for job in event.jobs if _waits(state, effects, job, event.at)]
    state.queue.fill([state.place_of(job) for job in waiting_ if state.admits(job)])
    for job in event.jobs:
        # Not one that has been withdrawn with the first of its components.
        waits = isinstance(job.state, life.JobPending) and job.id in state.jobs
        if waits and job.spec.kind != "batch":
            course.withdraw_quietly(state, effects, job, submission.revoked(job), event.at)
    for step in event.steps:
        state.put_step(step)
        if isinstance(step.state, (life.StepRunning, life.StepCompleting)):
            state.seats[step.job_id].seat(step.id, step.request, step.state.place)
            effects(do.Adopt(step.key))
        else:
            course.stop_step(state, effects, step, "cancelled", event.at)
    for job in event.jobs:
        if isinstance(job.state, life.JobCompleting):
            course.emptied_if_so(state, effects, job, event.at)
    for kept, ended_at in event.kept.items():
        due = ended_at + state.settings.min_job_age
        effects(do.SetTimer(("payload", kept, ALLOCATION), due))
    course.run_queue(state, effects, event.at)


def _restore_running(state: State, effects: Effects, job: Job) -> None:
    granted = allocation_of(job)
    assert granted is not None
    if job.id not in state.seats:
        together = [state.jobs[each] for each in het.members(job) if each in state.jobs]
        course.seat(state, [each for each in together if allocation_of(each) is not None])
    state.pool.take_again(job.spec, granted)
    if isinstance(job.state, (life.JobRunning, life.JobSuspended)):
        if isinstance(job.state, life.JobRunning):
            course.arm_limit(state, effects, job)
        if job.spec.client_pid:
            effects(do.WatchOwner(job.id, job.spec.client_pid, job.spec.client_start))


def _waits(state: State, effects: Effects, job: Job, at: float) -> bool:
    """Whether it is one for the queue; all that wait for a time get their timers."""
    if not isinstance(job.state, life.JobPending):
        return False
    waiting.arm_deadline(effects, job)
    return waiting.may_enter(state, effects, job, at) and not job.state.held
