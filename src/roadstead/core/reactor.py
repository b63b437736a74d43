"""What happens next: ``react(state, effects, event)`` decides, and does nothing itself.

One function for each event, and for each request of a client, named after it.  It changes the state
and records effects; the controller commits and carries them out.  No clock, no socket, no disk: a
test is a state, an event and the list of effects, with nothing left over.  The moves that several
of them share are in course.py.

A request that cannot be met raises a RoadsteadError, which is its answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from roadstead.core import (
    answers,
    cancel,
    control,
    course,
    het,
    history,
    hostlist,
    letters,
    messages,
    partitions,
    rehearsal,
    request,
    restart,
    steps,
    stepspec,
    submission,
    waiting,
)
from roadstead.core import effects as do
from roadstead.core import events as on
from roadstead.core import lifecycle as life
from roadstead.core.course import ALLOCATION, RUN_STEP
from roadstead.core.effects import Effects
from roadstead.core.lifecycle import Job, Outcome, Step
from roadstead.core.model import BATCH_STEP, ExitRecord, TaskExit
from roadstead.core.state import Role, State
from roadstead.errors import EngineError, RequestError, RoadsteadError

_ROADSTEAD_FAILED: Final = 125
_HIGHEST_SIGNAL: Final = 64
_LARGEST_TERMINAL: Final = 0xFFFF  # tty_ioctl(4), struct winsize


def react(state: State, effects: Effects, event: on.Event) -> None:
    """Let ``state`` become what it is after ``event``; record what is to be done."""
    match event:
        case on.Message():
            on_message(state, effects, event)
        case on.ClientGone():
            on_client_gone(state, effects, event)
        case on.OwnerGone():
            on_owner_gone(state, effects, event)
        case on.Started():
            on_started(state, effects, event)
        case on.Noticed():
            effects.reply(state.owners.get(event.step), "notice", sentence=event.sentence)
        case on.Exited():
            on_exited(state, effects, event)
        case on.Vanished():
            on_vanished(state, effects, event)
        case on.Cleared():
            course.cleared(state, effects, event.job_id, event.at)
        case on.Due():
            on_due(state, effects, event)
        case on.Restored():
            restart.on_restored(state, effects, event)


# -- requests of clients ---------------------------------------------------------------------------


def on_message(state: State, effects: Effects, event: on.Message) -> None:
    """Find the request's function; an error of the user's is its answer."""
    name = event.body.get("op")
    handler = REQUESTS.get(name) if isinstance(name, str) else None
    try:
        if handler is None:
            raise EngineError(f"unknown request: {name}")
        handler(state, effects, event)
    except RoadsteadError as error:
        effects.error(event.client, error)


def on_run(state: State, effects: Effects, event: on.Message) -> None:
    """srun: a step, in the allocation that it names or in a job of its own."""
    known = submission.known(state, event)
    if known is not None:
        _attach(state, effects, known, RUN_STEP, event)
    elif request.is_for_step(event.body):
        steps.on_run_in_job(state, effects, event)
    else:
        steps.check_no_group(event.body)
        submission.with_client(state, effects, "run", RUN_STEP, event)


def on_allocate(state: State, effects: Effects, event: on.Message) -> None:
    """salloc: an allocation that lasts as long as the connection."""
    if submission.known(state, event) is not None:
        raise RequestError("Job submit/allocate failed: this request was made before")
    submission.with_client(state, effects, "alloc", None, event)


def on_wait(state: State, effects: Effects, event: on.Message) -> None:
    """Tell this client how a step or a job ends.

    Whoever waits for a step that has lost its owner (a controller ago) is its owner from now on.
    """
    job_id, step_id = _number(event.body, "job_id"), event.body.get("step_id")
    if step_id is None and job_id in state.jobs:
        state.watch(event.client, Role("watch", job_id))
    elif type(step_id) is int and (job_id, step_id) in state.steps:
        role = Role("step", job_id, step_id)
        if role.key in state.owners:
            state.watch(event.client, replace(role, kind="watch"))
        else:
            state.own(event.client, role)
            _tell_started(state, effects, state.steps[role.key])
    else:
        effects.reply(event.client, "exit", **_ended_answer(state, event))


def on_ready(state: State, effects: Effects, event: on.Message) -> None:
    """scontrol wait_job: say when the job has its nodes, or how it ended without."""
    job_id = _number(event.body, "job_id")
    job = state.jobs.get(job_id)
    if job is None:
        effects.reply(event.client, "exit", **_ended_answer(state, event))
    elif isinstance(job.state, life.JobPending):
        state.watch(event.client, Role("watch", job_id, course.READY))
    else:
        effects.reply(event.client, "ready")


def _ended_answer(state: State, event: on.Message) -> dict[str, object]:
    """How it ended, from what the journal had."""
    step = event.facts.ended_step
    if step is not None and isinstance(step.state, life.StepEnded) and step.state.record:
        return course.step_answer(state, step, step.state.record)
    for job in event.facts.ended_jobs:
        return course.job_answer(state, job)
    raise RequestError("Invalid job id specified")


def on_query(state: State, effects: Effects, event: on.Message) -> None:
    """squeue, sinfo, scontrol show, sacct."""
    if event.body.get("what") == "history":
        tasks = event.body.get("tasks") is True
        found = history.page(state, event.facts.records, event.at, tasks=tasks)
        effects.reply(event.client, "answer", now=event.at, **found)
        return
    told = answers.answer(state, event.body, event.facts, event.at)
    effects.reply(event.client, "answer", **told)


def on_cancel(state: State, effects: Effects, event: on.Message) -> None:
    """scancel."""
    cancelled, errors = cancel.cancel(state, effects, event.body, event.at)
    effects.reply(event.client, "done", cancelled=cancelled, errors=errors)


def on_stop(state: State, effects: Effects, event: on.Message) -> None:
    """End the controller: when nothing runs, or now, and leave what runs to the next one."""
    if event.body.get("now") is True:
        effects.reply(event.client, "done")
        effects(do.Quit())
        return
    state.stopping = [*(state.stopping or []), event.client]
    course.quit_if_idle(state, effects)


# -- within a conversation -------------------------------------------------------------------------


def on_signal(state: State, effects: Effects, event: on.Message) -> None:
    """srun got a signal that its tasks are to get."""
    step = _own_step(state, event)
    if step is not None and not isinstance(step.state, life.StepPending):
        effects(do.Signal(step.key, _number(event.body, "signal", most=_HIGHEST_SIGNAL)))


def on_terminate(state: State, effects: Effects, event: on.Message) -> None:
    """srun was interrupted twice."""
    step = _own_step(state, event)
    if step is not None:
        course.stop_step(state, effects, step, "cancelled", event.at)


def on_resize(state: State, effects: Effects, event: on.Message) -> None:
    """The user's terminal has another size."""
    step = _own_step(state, event)
    if step is not None and not isinstance(step.state, life.StepPending):
        rows = _number(event.body, "rows", most=_LARGEST_TERMINAL)
        columns = _number(event.body, "columns", most=_LARGEST_TERMINAL)
        effects(do.Resize(step.key, rows, columns))


def on_release(state: State, effects: Effects, event: on.Message) -> None:
    """salloc's command has ended, with ``code``; the answer comes when the job is over."""
    role = state.roles.get(event.client)
    job = None if role is None or role.kind != "allocation" else state.jobs.get(role.job_id)
    if job is None:
        effects.reply(event.client, "done")
        effects(do.Close(event.client))
    elif isinstance(job.state, life.JobPending):
        course.withdraw(state, effects, job, submission.revoked(job), event.at)
    elif isinstance(job.state, (life.JobRunning, life.JobSuspended)):
        code = event.body.get("code", 0)
        course.decide(state, effects, job, _released(code if type(code) is int else 0), event.at)


def on_keep(state: State, effects: Effects, event: on.Message) -> None:
    """salloc --no-shell: the allocation outlives its client."""
    role = state.roles.get(event.client)
    if role is None or role.kind != "allocation":
        raise RequestError("no allocation to keep")
    state.dismiss(role.key)
    job = state.jobs[role.job_id]
    job = state.put_job(replace(job, spec=replace(job.spec, client_pid=0)))
    effects(do.Save(job))
    effects.reply(event.client, "done", job_id=job.id)


Handler = Callable[[State, Effects, on.Message], None]

REQUESTS: Final[dict[str, Handler]] = {
    "run": on_run,
    "submit": submission.on_submit,
    "allocate": on_allocate,
    "rehearse": rehearsal.on_rehearse,
    "wait": on_wait,
    "ready": on_ready,
    "query": on_query,
    "cancel": on_cancel,
    **control.REQUESTS,
    **partitions.REQUESTS,
    "stop": on_stop,
    "signal": on_signal,
    "terminate": on_terminate,
    "resize": on_resize,
    "release": on_release,
    "keep": on_keep,
}


# -- connections and processes ---------------------------------------------------------------------


def on_client_gone(state: State, effects: Effects, event: on.ClientGone) -> None:
    """A command was killed, or has heard all that it wanted: what it owned ends with it."""
    role = state.forget(event.client)
    if role is None or role.kind == "watch":
        return
    job = state.jobs.get(role.job_id)
    step = state.steps.get(role.key)
    if step is not None:
        course.stop_step(state, effects, step, "cancelled", event.at)
    elif job is not None and isinstance(job.state, life.JobPending):
        course.withdraw(state, effects, job, submission.revoked(job), event.at)
    elif job is not None and role.kind == "allocation":
        _end_allocation(state, effects, job, event.at)


def on_owner_gone(state: State, effects: Effects, event: on.OwnerGone) -> None:
    """The same, for a command that was a client of an earlier controller."""
    job = state.jobs.get(event.job_id)
    if job is None or not job.spec.client_pid:
        return
    step = state.steps.get((job.id, RUN_STEP))
    if job.spec.kind == "alloc" and (job.id, ALLOCATION) not in state.owners:
        _end_allocation(state, effects, job, event.at)
    elif job.spec.kind == "run" and step is not None and step.key not in state.owners:
        course.stop_step(state, effects, step, "cancelled", event.at)


def _end_allocation(state: State, effects: Effects, job: Job, at: float) -> None:
    if isinstance(job.state, (life.JobRunning, life.JobSuspended)):
        course.decide(state, effects, job, Outcome(word=life.CANCELLED), at)


def on_started(state: State, effects: Effects, event: on.Started) -> None:
    """Not journaled: after a restart the supervisor itself says that it is there."""
    step = state.steps.get(event.step)
    if step is None or isinstance(step.state, life.StepPending):
        return
    step = state.put_step(life.advance_step(step, life.StepReported(pid=event.pid, at=event.at)))
    _tell_started(state, effects, step)
    if event.adopted:
        _repeat(state, effects, step)
    elif isinstance(state.jobs[step.job_id].state, life.JobSuspended):
        effects(do.Suspend(step.key))  # it was on its way when its job was stopped


def _repeat(state: State, effects: Effects, step: Step) -> None:
    """Tell an adopted step what a controller that was killed may not have lived to say."""
    job = state.jobs[step.job_id]
    if isinstance(step.state, life.StepCompleting):
        effects(do.Terminate(step.key, course.stop_reason(job), course.SIGTERM))
    elif isinstance(job.state, life.JobSuspended):
        effects(do.Suspend(step.key))
    elif isinstance(job.state, life.JobRunning):
        effects(do.Resume(step.key))


def _tell_started(state: State, effects: Effects, step: Step) -> None:
    effects.reply(
        state.owners.get(step.key),
        "started",
        job_id=step.job_id,
        step_id=step.id,
        node=_nodes_of(step),
    )


def _nodes_of(step: Step) -> str:
    state = step.state
    running = isinstance(state, (life.StepRunning, life.StepCompleting))
    return hostlist.fold(list(state.place.nodes)) if running else ""  # type: ignore[union-attr]


def on_exited(state: State, effects: Effects, event: on.Exited) -> None:
    """A supervisor is done.  Its file and its message say the same; the second is ignored."""
    step = state.steps.get(event.step)
    if step is not None and not isinstance(step.state, life.StepPending):
        course.finish_step(state, effects, step, event.record, event.at)


def on_vanished(state: State, effects: Effects, event: on.Vanished) -> None:
    """A supervisor was killed.  One that had not begun may begin again, if it needs no client."""
    step = state.steps.get(event.step)
    if step is None or isinstance(step.state, life.StepPending):
        return
    if not event.begun and step.id == BATCH_STEP and isinstance(step.state, life.StepRunning):
        job = state.jobs[step.job_id]
        spec = stepspec.step_spec(state, job, step, step.state.place, event.at)
        effects(do.Launch(spec, None, course.payload_of(job)))
        return
    assert isinstance(step.state, (life.StepRunning, life.StepCompleting))
    record = ExitRecord(
        job_id=step.job_id,
        step_id=step.id,
        tasks=(
            TaskExit(
                procid=0,
                code=_ROADSTEAD_FAILED,
                reason="roadstead",
                message=f"StepId={step.job_id}.{step.id}: its supervisor was killed",
                hint="what it left behind has been removed; submit the job again",
            ),
        ),
        started_at=step.state.started_at,
        ended_at=event.at,
    )
    course.finish_step(state, effects, step, record, event.at)


def on_due(state: State, effects: Effects, event: on.Due) -> None:
    """Time is up: a job's limit, or the patience of --immediate."""
    kind, job_id, step_id = event.timer
    if kind == "payload":
        if job_id not in state.jobs and job_id not in state.arrays:
            effects(do.DropPayload(job_id))
        return
    job = state.jobs.get(job_id)
    if job is None:
        return
    if kind in ("begin", "deadline"):
        _time_to_start(state, effects, job, kind, event.at)
    elif kind == "limit" and isinstance(job.state, life.JobRunning):
        signal = course.SIGTERM if job.spec.kind == "batch" else 0
        outcome = Outcome(word=life.TIMEOUT, signal=signal, reason="TimeLimit")
        course.decide(state, effects, job, outcome, event.at)
    elif kind.startswith("mail") and isinstance(job.state, life.JobRunning):
        letters.time_passed(effects, job, int(kind.removeprefix("mail")))
    elif kind == "warning" and isinstance(job.state, life.JobRunning):
        _warn(state, effects, job)
    elif kind == "patience" and isinstance(job.state, life.JobPending):
        course.withdraw(state, effects, job, submission.busy(job), event.at)
    elif kind == "patience":
        step = state.steps.get((job_id, step_id))
        if step is not None and isinstance(step.state, life.StepPending):
            effects.error(state.dismiss(step.key), course.step_error(job_id, steps.BUSY))
            course.stop_step(state, effects, step, "cancelled", event.at)


def _time_to_start(state: State, effects: Effects, job: Job, kind: str, at: float) -> None:
    """A waiting job may begin now, or can no longer end in time."""
    if not isinstance(job.state, life.JobPending):
        return
    if kind == "begin":
        waiting.time_has_come(state, effects, job, at)
        course.run_queue(state, effects, at)
        return
    outcome = Outcome(word=life.DEADLINE, code=1, reason="DeadLine")
    job = state.jobs[het.leader(job.spec, job.id)]  # none of its components starts alone
    course.withdraw(state, effects, job, submission.revoked(job), at, outcome)


def _warn(state: State, effects: Effects, job: Job) -> None:
    """--signal: to the steps, or with B: to the batch script alone (sbatch(1))."""
    wanted = job.spec.warning
    assert wanted is not None
    for step in state.steps_of(job.id):
        if isinstance(step.state, life.StepRunning) and (step.id == BATCH_STEP) == wanted.batch:
            effects(do.Signal(step.key, wanted.signal, wanted.batch))


# -- small change ----------------------------------------------------------------------------------


def _attach(state: State, effects: Effects, job: Job, step_id: int, event: on.Message) -> None:
    """srun asks for a job that it has already: it becomes its client again."""
    step = state.steps.get((job.id, step_id))
    if isinstance(job.state, life.JobEnded):
        effects.reply(event.client, "exit", **course.job_answer(state, job))
    elif step is None or step.key in state.owners:
        raise RequestError("Unable to allocate resources: this request was made before")
    else:
        state.own(event.client, Role("step", job.id, step_id))
        _tell_started(state, effects, step)


def _own_step(state: State, event: on.Message) -> Step | None:
    role = state.roles.get(event.client)
    return None if role is None or role.kind != "step" else state.steps.get(role.key)


def _released(code: int) -> Outcome:
    if code == 0:
        return Outcome(word=life.COMPLETED)
    return Outcome(word=life.FAILED, code=code, reason="NonZeroExitCode")


def _number(body: Any, name: str, *, most: int = messages.LARGEST) -> int:
    value = body.get(name)
    if type(value) is not int or not 0 <= value <= most:
        raise EngineError(f"malformed request: {name}")
    return value
