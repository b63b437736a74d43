"""The course of jobs and steps: how they start, end, and take each other with them.

The moves here are what the reactor's handlers are made of.  How a job ends is in one place:
``decide`` fixes the outcome and tells every step to end; when the last one has gone,
``emptied_if_so`` frees the CPUs, and ``run_queue`` gives them to whoever is next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from roadstead.core import effects as do
from roadstead.core import environment, het, hostlist, letters, request, schedule, stepspec, waiting
from roadstead.core import lifecycle as life
from roadstead.core.arrays import Array
from roadstead.core.effects import Effects
from roadstead.core.lifecycle import Job, Outcome, Place, Step
from roadstead.core.model import (
    BATCH_STEP,
    Allocation,
    ExitRecord,
    JobSpec,
    to_json,
)
from roadstead.core.names import PLUGSTACK
from roadstead.core.seats import Seats
from roadstead.core.state import State, allocation_of
from roadstead.errors import RequestError

RUN_STEP: Final = 0  # srun's own step in the job that it made
READY: Final = -2  # who waits for an allocation (scontrol wait_job) does so under this step number
ALLOCATION: Final = -1  # the owner of an allocation is found under this step number
SIGTERM: Final = 15
SIGKILL: Final = 9
CANCELLED: Final = Outcome(word=life.CANCELLED)


def main_step_id(job: Job) -> int | None:
    """The step whose end is the job's end; an allocation has none."""
    return {"run": RUN_STEP, "batch": BATCH_STEP, "alloc": None}[job.spec.kind]


# -- start -----------------------------------------------------------------------------------------


def run_queue(state: State, effects: Effects, at: float) -> None:
    """Start every job whose turn it is."""
    depth = state.site.depth
    while state.stopping is None and state.queue and state.pool.has_cpu:
        looked_at, there = state.queue.first(depth), len(state.queue)
        wanted = _wanted(state, looked_at)
        made = schedule.plan(wanted, _holdings(state), state.pool, state.site, state.conditions, at)
        gone = 0
        for start in made.starts:
            gone += start.job_id in state.queue
            state.queue.remove(start.job_id)
            job = _allocate(state, effects, state.jobs[start.job_id], start, at)
            together = het.members(job)
            if job.id == together[-1]:  # the last of its components
                _begin(state, effects, [state.jobs[each] for each in together], at)
        came = len(state.queue) > there - gone  # who waited for one of them to start
        if not made.starts or (len(looked_at) < depth and not came):
            return  # else others have come into view


def consider(state: State, effects: Effects, job: Job, at: float) -> None:
    """Start a job that has just been put in the queue, if it is its turn.

    One that is too far behind to be looked at changes nothing for anybody.
    """
    if job.id in state.queue and state.queue.position(job.id) < state.site.depth:
        run_queue(state, effects, at)


def _wanted(state: State, jobs: Sequence[int]) -> list[schedule.Waiting]:
    """What jobs of the queue need.  A heterogeneous one waits on while one of its components is
    held, or has not quite ended after a requeue."""
    found: list[schedule.Waiting] = []
    for job_id in jobs:
        job = state.jobs[job_id]
        if job.spec.het is None:
            found.append((job_id, (job.spec,)))
            continue
        together = [state.jobs[each] for each in het.members(job) if each in state.jobs]
        if len(together) == job.spec.het.size and all(map(life.is_waiting, together)):
            found.append((job_id, [each.spec for each in together]))
    return found


def forecast(state: State, specs: Sequence[JobSpec], at: float) -> schedule.Forecast | None:
    """When the job, or all the components of one, would start if it were submitted now."""
    wanted = _wanted(state, state.queue.first(state.site.depth))
    return schedule.forecast(
        specs, wanted, _holdings(state), state.pool, state.site, state.conditions, at
    )


def expected(state: State, at: float) -> list[schedule.Reservation]:
    """When the first of those that wait would start, as far as time limits tell."""
    wanted = _wanted(state, state.queue.first(state.site.depth))
    return schedule.expected(wanted, _holdings(state), state.pool, state.site, state.conditions, at)


def _holdings(state: State) -> list[schedule.Holding]:
    return [
        schedule.Holding(job.spec, granted)
        for job in map(state.jobs.__getitem__, state.seats)
        if (granted := allocation_of(job)) is not None
    ]


def _allocate(state: State, effects: Effects, job: Job, start: schedule.Start, at: float) -> Job:
    """Give a job what has been taken for it."""
    if start.time_limit != job.spec.time_limit:
        job = replace(job, spec=replace(job.spec, time_limit=start.time_limit))
    spec = job.spec
    granted = Allocation(
        job_id=job.id,
        shares=start.shares,
        started_at=at,
        ends_at=None if spec.time_limit is None else at + spec.time_limit,
        partition=start.partition,
    )
    waiting.disarm(effects, job)
    job = state.put_job(life.advance_job(job, life.JobAllocated(allocation=granted)))
    effects(do.Save(job))
    for client in state.dismiss_watchers((job.id, READY)):
        effects.reply(client, "ready")
    waiting.started(state, effects, job, at)
    letters.begun(effects, job, _array_of(state, job), at)
    if spec.immediate is not None:
        effects(do.CancelTimer(("patience", job.id, ALLOCATION)))
    arm_limit(state, effects, job)
    return job


def _array_of(state: State, job: Job) -> Array | None:
    return None if job.spec.array is None else state.arrays.get(job.spec.array.job_id)


def seat(state: State, jobs: Sequence[Job]) -> None:
    """Make the seats of a job that has its allocation; its components share them."""
    groups = {
        0 if job.spec.het is None else job.spec.het.offset: granted.shares
        for job in jobs
        if (granted := allocation_of(job)) is not None
    }
    seats = Seats((), groups)
    for job in jobs:
        state.seats[job.id] = seats


def _begin(state: State, effects: Effects, jobs: Sequence[Job], at: float) -> None:
    """Begin what a job is for, once all of its components have what they need."""
    seat(state, jobs)
    job = jobs[0]
    spec, step_id = job.spec, main_step_id(job)
    if step_id is None:
        _grant(state, effects, jobs)
        return
    env = state.environments.pop(job.id, {})
    wanted = request.main_step(spec, env)
    granted = het.with_allocations(jobs)
    shares = granted[0][1].shares
    lengths: tuple[int, ...] = ()
    if len(jobs) > 1 and step_id == RUN_STEP:
        parts = [replace(request.main_step(each.spec, {}), group=n) for n, each in enumerate(jobs)]
        wanted = het.whole(parts, env)
        shares = tuple([share for _, own in granted for share in own.shares])
        lengths = tuple([len(own.shares) for _, own in granted])
    step = Step(
        job_id=job.id, id=step_id, request=wanted, submitted_at=at, state=life.StepPending()
    )
    if step_id == RUN_STEP:
        state.next_step_ids[job.id] = RUN_STEP + 1
    if step_id == BATCH_STEP:
        shares = (replace(shares[0], ntasks=1),)
    place = Place(shares=shares, claimed=not wanted.overlap, lengths=lengths)
    state.seats[job.id].seat(step_id, wanted, place)
    launch(state, effects, step, place, at)


def _grant(state: State, effects: Effects, jobs: Sequence[Job]) -> None:
    granted = het.with_allocations(jobs)
    alone = len(jobs) == 1
    env = environment.allocation(*granted[0]) if alone else het.of_allocation(granted)
    nodes = dict.fromkeys([name for _, own in granted for name in own.nodes])
    effects.reply(
        state.owners.get((jobs[0].id, ALLOCATION)),
        "granted",
        job_id=jobs[0].id,
        env=env,
        node=hostlist.fold(list(nodes)),
    )


def arm_limit(state: State, effects: Effects, job: Job) -> None:
    """Time limits of srun's jobs are their supervisor's business; all others need a timer.  So does
    the signal before the limit."""
    granted = allocation_of(job)
    if granted is None or granted.ends_at is None:
        return
    if job.spec.kind != "run":
        effects(
            do.SetTimer(("limit", job.id, ALLOCATION), granted.ends_at + state.settings.over_time)
        )
    if job.spec.warning is not None:
        effects(
            do.SetTimer(("warning", job.id, ALLOCATION), granted.ends_at - job.spec.warning.seconds)
        )
    for name, when in letters.timers(job, granted.ends_at):
        effects(do.SetTimer((name, job.id, ALLOCATION), when))


def disarm_limit(effects: Effects, job: Job) -> None:
    """The job has no time limit for now."""
    if job.spec.time_limit is not None:
        if job.spec.kind != "run":
            effects(do.CancelTimer(("limit", job.id, ALLOCATION)))
        if job.spec.warning is not None:
            effects(do.CancelTimer(("warning", job.id, ALLOCATION)))
        for name, _ in letters.timers(job, 0.0):
            effects(do.CancelTimer((name, job.id, ALLOCATION)))


def launch(state: State, effects: Effects, step: Step, place: Place, at: float) -> None:
    """Give a step that has its CPUs to a supervisor."""
    job = state.jobs[step.job_id]
    spec = stepspec.step_spec(state, job, step, place, at)
    wanted = step.request.container
    plugged = job.spec.plugged or PLUGSTACK in spec.env
    if (plugged or (wanted is not None and wanted.name)) and not job.named:
        effects(do.Save(state.put_job(replace(job, named=True))))
    # Its environment is the supervisor's now; here it would only take room.
    step = replace(step, request=replace(step.request, env={}))
    step = state.put_step(life.advance_step(step, life.StepPlaced(place=place, at=at)))
    effects(do.SaveStep(step))
    payload = payload_of(job) if step.id == BATCH_STEP else None
    effects(do.Launch(spec, state.owners.get(step.key), payload))


def payload_of(job: Job) -> int:
    """Under which job the environment and the script are kept: an array's, once for all of it."""
    return job.id if job.spec.array is None else job.spec.array.job_id


def seat_waiting(state: State, effects: Effects, job_id: int, at: float) -> None:
    """Launch the steps of a job that find their CPUs now."""
    seats = state.seats.get(job_id)
    while seats is not None and (found := seats.next()) is not None:
        step_id, place = found
        step = state.step_among(het.members(state.jobs[job_id]), step_id)
        assert step is not None
        job_id = step.job_id
        effects.reply(
            state.owners.get(step.key), "notice", sentence=f"Step created for job {job_id}"
        )
        if step.request.immediate is not None:
            effects(do.CancelTimer(("patience", job_id, step_id)))
        launch(state, effects, step, place, at)


# -- end -------------------------------------------------------------------------------------------


def finish_step(state: State, effects: Effects, step: Step, record: ExitRecord, at: float) -> None:
    """A supervisor is done: tell who waits, and draw the consequences for the job."""
    stopped = isinstance(step.state, life.StepCompleting)
    step = state.put_step(life.advance_step(step, life.StepExited(record=record)))
    effects(do.SaveStep(step))
    effects(do.Forget(stepspec.directory(state, step.key)))
    answer = step_answer(state, step, record)
    for client in (state.dismiss(step.key), *state.dismiss_watchers(step.key)):
        effects.reply(client, "exit", **answer)
    job, concerned = state.jobs[step.job_id], dict.fromkeys(state.jobs_of(step))
    if step.id == main_step_id(job) and isinstance(job.state, (life.JobRunning, life.JobSuspended)):
        outcome = _or_again(state, job, life.outcome_of(record, stopped=stopped))
        decide(state, effects, job, outcome, at)
    for each in concerned:
        left = state.jobs.get(each)
        if left is not None and isinstance(left.state, life.JobCompleting):
            emptied_if_so(state, effects, left, at)
        elif left is not None:
            seat_waiting(state, effects, each, at)


def _or_again(state: State, job: Job, outcome: Outcome) -> Outcome:
    """RequeueExit and RequeueExitHold: exit codes after which a batch job runs again."""
    may = job.spec.kind == "batch" and job.spec.requeue and outcome.word == life.FAILED
    if may and outcome.code in state.site.requeue_exit:
        return replace(outcome, again="queue")
    if may and outcome.code in state.site.requeue_exit_hold:
        return replace(outcome, again="special")
    return outcome


def step_answer(state: State, step: Step, record: ExitRecord) -> dict[str, object]:
    """The fields of the "exit" event of a step."""
    return {
        "job_id": step.job_id,
        "step_id": step.id,
        "state": step.state.word.value,
        "code": record.worst.code,
        "node": record.worst.node or state.site.nodes[0].name,
        "record": to_json(record),
    }


def job_answer(state: State, job: Job) -> dict[str, object]:
    """The fields of the "exit" event of a job, for ``sbatch --wait``."""
    assert isinstance(job.state, life.JobEnded)
    outcome = job.state.outcome
    return {
        "job_id": job.id,
        "step_id": None,
        "state": outcome.word.value,
        # sbatch(1), --wait: 1 where a signal ended the job.
        "code": outcome.code or int(outcome.word != life.COMPLETED),
        "signal": outcome.signal,
        "node": "" if job.state.allocation is None else job.state.allocation.node,
    }


def decide(
    state: State,
    effects: Effects,
    job: Job,
    outcome: Outcome,
    at: float,
    *,
    signal: int = SIGTERM,
    asker: int | None = None,
) -> None:
    """The running job ends as ``outcome`` says: its steps are told, and it completes.  The first
    component of a heterogeneous job takes the others with it."""
    led = _led(state, job)
    if outcome.again and not is_whole(state, job):
        outcome = replace(outcome, again="")
    for each in led:
        if isinstance(each.state, (life.JobRunning, life.JobSuspended)):
            decide(state, effects, each, outcome, at, signal=signal, asker=asker)
    job = state.put_job(life.advance_job(job, life.JobDecided(outcome=outcome)))
    effects(do.Save(job))
    disarm_limit(effects, job)
    if outcome.word == life.TIMEOUT:
        letters.time_passed(effects, job, 100)
    if outcome.word in (life.CANCELLED, life.TIMEOUT, life.NODE_FAIL):
        effects.reply(
            state.owners.get((job.id, ALLOCATION)),
            "revoked",
            job_id=job.id,
            state=outcome.word.value,
        )
    for step in state.steps_of(job.id):
        stop_step(state, effects, step, stop_reason(job), at, signal=signal, asker=asker)
    emptied_if_so(state, effects, job, at)


def is_whole(state: State, job: Job) -> bool:
    """Whether none of its components has ended: else it cannot run again."""
    return all(each in state.jobs for each in het.members(job))


def _led(state: State, job: Job) -> list[Job]:
    """The unfinished components that a job leads."""
    if het.is_led(job.spec):
        return []
    return [state.jobs[each] for each in het.members(job)[1:] if each in state.jobs]


def stop_reason(job: Job) -> str:
    """What the tasks of a job are told: its time is up, or it is cancelled."""
    state = job.state
    timed_out = isinstance(state, life.JobCompleting) and state.outcome.word == life.TIMEOUT
    return "timeout" if timed_out else "cancelled"


def stop_step(
    state: State,
    effects: Effects,
    step: Step,
    reason: str,
    at: float,
    *,
    signal: int = SIGTERM,
    asker: int | None = None,
) -> None:
    """Tell a step to end; a waiting one ends here.  SIGKILL may follow a softer signal."""
    if isinstance(step.state, life.StepPending):
        _withdraw_step(state, effects, step, signal, at)
        return
    if isinstance(step.state, life.StepCompleting):
        if signal == SIGKILL:
            effects(do.Terminate(step.key, reason, signal))
        return
    step = state.put_step(life.advance_step(step, life.StepStopped()))
    effects(do.SaveStep(step))
    effects(do.Terminate(step.key, reason, signal, asker))


def _withdraw_step(state: State, effects: Effects, step: Step, signal: int, at: float) -> None:
    step = state.put_step(life.advance_step(step, life.StepWithdrawn(at=at)))
    effects(do.SaveStep(step))
    client = state.dismiss(step.key)
    effects.reply(client, "notice", sentence=f"Cancelled pending job step with signal {signal}")
    if client is not None:
        effects.error(client, step_error(step.job_id, "Job/step already completing or completed"))


def withdraw(
    state: State,
    effects: Effects,
    job: Job,
    error: RequestError,
    at: float,
    outcome: Outcome = CANCELLED,
) -> None:
    """A job that has not started never will; ``error`` is what its client hears."""
    withdraw_quietly(state, effects, job, error, at, outcome)
    run_queue(state, effects, at)


def withdraw_quietly(
    state: State,
    effects: Effects,
    job: Job,
    error: RequestError,
    at: float,
    outcome: Outcome = CANCELLED,
) -> None:
    """The same, without starting those behind it.  Of a job that was held that stays the reason."""
    if isinstance(job.state, life.JobPending) and job.state.held and outcome is CANCELLED:
        outcome = replace(outcome, reason="JobHeldUser")
    _withdraw_alone(state, effects, job, error, at, outcome)
    tell_dependants(state, effects, job, at)


def tell_dependants(state: State, effects: Effects, job: Job, at: float) -> None:
    """Who waits for a job hears that it is over; --kill-on-invalid-dep may end them, and so on."""
    over = [job]
    while over:
        doomed = waiting.ended(state, effects, over.pop(), at)
        over += [cancel_invalid(state, effects, each, at) for each in doomed]


def cancel_invalid(state: State, effects: Effects, job: Job, at: float) -> Job:
    """End a job whose dependency can never be met."""
    error = RequestError(f"Job allocation {job.id} has been revoked")
    outcome = Outcome(word=life.CANCELLED, reason="DependencyNeverSatisfied")
    letters.never(effects, job)
    return _withdraw_alone(state, effects, job, error, at, outcome)


def _withdraw_alone(
    state: State,
    effects: Effects,
    job: Job,
    error: RequestError,
    at: float,
    outcome: Outcome = CANCELLED,
) -> Job:
    for each in _led(state, job):
        if isinstance(each.state, life.JobPending):
            each = _withdraw_alone(state, effects, each, error, at, outcome)
            tell_dependants(state, effects, each, at)
    state.dequeue(job)
    waiting.disarm(effects, job)
    job = state.put_job(life.advance_job(job, life.JobWithdrawn(outcome=outcome, at=at)))
    effects(do.Save(job))
    if job.spec.kind == "batch" and payload_of(job) not in state.arrays:
        effects(do.DropPayload(payload_of(job)))
    if job.spec.immediate is not None:
        effects(do.CancelTimer(("patience", job.id, ALLOCATION)))
    for key in ((job.id, ALLOCATION), (job.id, RUN_STEP)):
        client = state.dismiss(key)
        if client is not None:
            effects.error(client, error)
    _tell_watchers(state, effects, job)
    return job


def keep_payload(state: State, effects: Effects, job: Job, at: float) -> None:
    """What a batch job was submitted with is kept a while after its end: it may be requeued."""
    kept = payload_of(job)
    if job.spec.kind != "batch" or kept in state.arrays:
        return
    if job.spec.requeue and state.settings.min_job_age:
        effects(do.SetTimer(("payload", kept, ALLOCATION), at + state.settings.min_job_age))
    else:
        effects(do.DropPayload(kept))


def emptied_if_so(state: State, effects: Effects, job: Job, at: float) -> None:
    """If the completing job has no step left, it has ended, and others may start."""
    if state.steps_of(job.id):
        return
    if job.named:
        effects(do.ClearNamed(job.id))
        return
    granted = allocation_of(job)
    assert granted is not None
    assert isinstance(job.state, life.JobCompleting)
    state.pool.give_back(job.spec, granted)
    if job.state.outcome.again:
        _return(state, effects, job, at)
        return
    array = _array_of(state, job)
    job = state.put_job(life.advance_job(job, life.JobEmptied(at=at)))
    effects(do.Save(job))
    letters.ended(effects, job, array, last=_array_of(state, job) is None)
    _end_together(state, effects, job, at)
    keep_payload(state, effects, job, at)
    _tell_watchers(state, effects, job)
    tell_dependants(state, effects, job, at)
    owner = state.dismiss((job.id, ALLOCATION))
    if owner is not None:
        effects.reply(owner, "done", job_id=job.id)
        effects(do.Close(owner))
    run_queue(state, effects, at)
    quit_if_idle(state, effects)


def cleared(state: State, effects: Effects, job_id: int, at: float) -> None:
    """Nothing is left of the job's containers with a name."""
    job = state.jobs.get(job_id)
    if job is None or not job.named or state.steps_of(job_id):
        return
    job = state.put_job(replace(job, named=False))
    effects(do.Save(job))
    if isinstance(job.state, life.JobCompleting):
        emptied_if_so(state, effects, job, at)


def _end_together(state: State, effects: Effects, job: Job, at: float) -> None:
    """What the end of a job means for others of a heterogeneous one that wait to run again: they
    never will."""
    error = RequestError(f"Job allocation {job.id} has been revoked")
    for each in _led(state, job):
        if isinstance(each.state, life.JobPending):
            tell_dependants(state, effects, _withdraw_alone(state, effects, each, error, at), at)
    first = state.jobs.get(het.leader(job.spec, job.id)) if het.is_led(job.spec) else None
    if first is None:
        return
    if isinstance(first.state, life.JobPending):
        withdraw_quietly(state, effects, first, error, at)
    elif isinstance(first.state, life.JobCompleting) and first.state.outcome.again:
        outcome = replace(first.state.outcome, again="")
        decided = life.advance_job(first, life.JobDecided(outcome=outcome))
        effects(do.Save(state.put_job(decided)))


def _return(state: State, effects: Effects, job: Job, at: float) -> None:
    """A requeued job waits again, for a moment at least (slurm.conf(5): cred_expire)."""
    state.seats.pop(job.id, None)
    letters.requeued(effects, job)
    wait_again(state, effects, life.advance_job(job, life.JobReturned()), at)
    run_queue(state, effects, at)
    quit_if_idle(state, effects)


def wait_again(state: State, effects: Effects, job: Job, at: float) -> Job:
    """Put a job that has run where those wait that have not."""
    delay = state.settings.requeue_delay
    begin = at + delay if delay else job.spec.begin
    spec = job.spec if begin == job.spec.begin else replace(job.spec, begin=begin)
    job = state.put_job(replace(job, spec=spec, restarts=job.restarts + 1))
    effects(do.Save(job))
    waiting.arm_deadline(effects, job)
    if not waiting.is_held(job):
        waiting.admit(state, effects, job, at)
    return job


def _tell_watchers(state: State, effects: Effects, job: Job) -> None:
    for key in ((job.id, ALLOCATION), (job.id, READY)):
        for client in state.dismiss_watchers(key):
            effects.reply(client, "exit", **job_answer(state, job))


def quit_if_idle(state: State, effects: Effects) -> None:
    """Do what a ``stop`` asked for, once nothing runs."""
    if state.stopping is None or state.seats:
        return
    for client in state.stopping:
        effects.reply(client, "done")
    effects(do.Quit())


def step_error(job_id: int, why: str) -> RequestError:
    return RequestError(f"Unable to create step for job {job_id}: {why}")
