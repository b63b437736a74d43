"""scontrol: what users do to jobs and nodes that are there already.

Each request names jobs, and is answered with those it was done to and, for the others, why not.
``update`` changes what a job asked for: while it waits, or for a running one its time limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from roadstead.core import (
    arrays,
    course,
    dependency,
    het,
    hostlist,
    needs,
    queue,
    values,
    waiting,
)
from roadstead.core import effects as do
from roadstead.core import events as on
from roadstead.core import lifecycle as life
from roadstead.core.effects import Effects
from roadstead.core.lifecycle import Job, Outcome
from roadstead.core.model import BATCH_STEP
from roadstead.core.site import NodeCondition, NodeWord
from roadstead.core.state import State, allocation_of
from roadstead.errors import EngineError, RequestError, UsageError

_UNKNOWN: Final = "Invalid job id specified"
_NOT_PENDING: Final = "Job is no longer pending execution"
_PENDING: Final = "Job is pending execution"
_OVER: Final = "Job/step already completing or completed"
_DISABLED: Final = "Requested operation is presently disabled"
_BATCH_ONLY: Final = "Only batch jobs are accepted or processed"

Action = Callable[[State, Effects, Job, on.Message, float], str]


def on_control(state: State, effects: Effects, event: on.Message) -> None:
    """Do one thing to each of the jobs that are named."""
    action = ACTIONS.get(str(event.body.get("action")))
    names = event.body.get("jobs")
    if action is None or not isinstance(names, list):
        raise EngineError("malformed request: action")
    if action is _update:
        _check_changes(event.body)
    done: list[int] = []
    errors: list[dict[str, object]] = []
    for job_id in _named(state, names):
        job = state.jobs.get(job_id)
        if action is _requeue and job is not None and het.leader(job.spec, job_id) in done:
            continue  # it went along
        try:
            if job is not None:
                why = action(state, effects, job, event, event.at)
            else:
                why = _revive(state, effects, job_id, event)
        except (RequestError, UsageError) as error:
            why = f"{error}; {error.hint}" if error.hint else f"{error}"
        if why:
            errors.append({"job_id": job_id, "why": why})
        else:
            done.append(job_id)
    effects.reply(event.client, "done", jobs=done, errors=errors)
    course.run_queue(state, effects, event.at)


def _named(state: State, names: list[object]) -> list[int]:
    """The jobs of numbers and of names (``JobName=``); the number of a heterogeneous job is that of
    all its components."""
    found: list[int] = []
    for name in names:
        if type(name) is int:
            job = state.jobs.get(name)
            if job is not None and job.spec.het is not None and not job.spec.het.offset:
                found += [each for each in het.members(job) if each in state.jobs]
            else:
                found += arrays.members(str(name), state.arrays) or [name]
        elif isinstance(name, str) and (component := het.named(name)) is not None:
            found.append(component)
        elif isinstance(name, str):
            elements = arrays.members(name, state.arrays)
            if elements is None:
                elements = [job.id for job in state.jobs.values() if job.spec.name == name]
                if not elements:
                    sentence = f"Invalid job name specified: {name}"
                    raise RequestError(sentence, hint="squeue lists them")
            found += elements
        else:
            raise EngineError("malformed request: jobs")
    return list(dict.fromkeys(found))


# -- jobs ------------------------------------------------------------------------------------------


def _hold(state: State, effects: Effects, job: Job, event: on.Message, at: float) -> str:
    if _returns(job, "queue"):
        _let_return(state, effects, job, "hold")
        return ""
    if not isinstance(job.state, life.JobPending):
        return _NOT_PENDING
    if not job.state.held:
        state.dequeue(job)
        effects(do.Save(state.put_job(life.advance_job(job, life.JobHeld()))))
    return ""


def _release(state: State, effects: Effects, job: Job, event: on.Message, at: float) -> str:
    """It takes its place by when it was submitted, in the queue or beside it."""
    if _returns(job, "hold", "special"):
        _let_return(state, effects, job, "queue")
        return ""
    if not isinstance(job.state, life.JobPending):
        return _NOT_PENDING
    if job.state.held:
        job = state.put_job(life.advance_job(job, life.JobReleased()))
        effects(do.Save(job))
        waiting.admit(state, effects, job, at)
    return ""


def _returns(job: Job, *again: life.Again) -> bool:
    """Whether a job is ending only to wait once more, and so."""
    return isinstance(job.state, life.JobCompleting) and job.state.outcome.again in again


def _let_return(state: State, effects: Effects, job: Job, again: life.Again) -> None:
    """Have a job that is on its way back to the queue wait otherwise."""
    assert isinstance(job.state, life.JobCompleting)
    outcome = replace(job.state.outcome, again=again)
    effects(do.Save(state.put_job(life.advance_job(job, life.JobDecided(outcome=outcome)))))


def _requeue(state: State, effects: Effects, job: Job, event: on.Message, at: float) -> str:
    if isinstance(job.state, life.JobPending):
        return _PENDING
    if not isinstance(job.state, (life.JobRunning, life.JobSuspended)):
        return _OVER
    if job.spec.kind != "batch":
        return _BATCH_ONLY
    if not job.spec.requeue:
        return _DISABLED
    if het.is_led(job.spec):
        return het.NOT_WHOLE
    if not course.is_whole(state, job):
        return _OVER  # a component of it is
    again = _again(event)
    # What was suspended is held: somebody did not want it to run (scontrol(1), requeue).
    if again == "queue" and isinstance(job.state, life.JobSuspended):
        again = "hold"
    outcome = Outcome(word=life.CANCELLED, signal=course.SIGTERM, again=again)
    # submitit and Lightning call scontrol in the job, and take its end by a signal for a failure.
    course.decide(state, effects, job, outcome, at, asker=event.client)
    return ""


def _again(event: on.Message) -> life.Again:
    """How a requeued job waits: requeuehold, and requeuehold State=SpecialExit."""
    special = event.body.get("special") is True
    return "special" if special else "hold" if event.body.get("hold") is True else "queue"


def _revive(state: State, effects: Effects, job_id: int, event: on.Message) -> str:
    """Requeue a job that has ended, while it is remembered; nothing else can be done to one."""
    found = [job for job in event.facts.named.get(job_id, ()) if job.id == job_id]
    if not found:
        return _UNKNOWN
    job = found[0]
    assert isinstance(job.state, life.JobEnded)
    if event.body.get("action") != "requeue" or job.state.allocation is None:
        return _OVER  # one that never started has left no script
    if het.is_led(job.spec):
        return het.NOT_WHOLE
    if job.spec.kind != "batch":
        return _BATCH_ONLY
    if not job.spec.requeue:
        return _DISABLED
    together = [each for each in event.facts.named[job_id] if each.id in het.members(job)]
    if job.spec.het is not None and len(together) < job.spec.het.size:
        return _OVER  # a component of it is not remembered, or still there
    for each in reversed(together):  # the first one last: it waits for all
        revived = life.advance_job(each, life.JobRevived(again=_again(event)))
        course.wait_again(state, effects, revived, event.at)
    return ""


def _suspend(state: State, effects: Effects, job: Job, event: on.Message, at: float) -> str:
    if isinstance(job.state, life.JobPending):
        return _PENDING
    if isinstance(job.state, life.JobSuspended):
        return _DISABLED
    if not isinstance(job.state, life.JobRunning):
        return _OVER
    course.disarm_limit(effects, job)
    effects(do.Save(state.put_job(life.advance_job(job, life.JobStopped(at=at)))))
    for step in state.steps_of(job.id):
        if isinstance(step.state, life.StepRunning):
            effects(do.Suspend(step.key))
    return ""


def _resume(state: State, effects: Effects, job: Job, event: on.Message, at: float) -> str:
    if isinstance(job.state, life.JobPending):
        return _PENDING
    if isinstance(job.state, life.JobRunning):
        return _DISABLED
    if not isinstance(job.state, life.JobSuspended):
        return _OVER
    job = state.put_job(life.advance_job(job, life.JobResumed(at=at)))
    effects(do.Save(job))
    course.arm_limit(state, effects, job)
    for step in state.steps_of(job.id):
        if isinstance(step.state, life.StepRunning):
            effects(do.Resume(step.key))
    return ""


def _notify(state: State, effects: Effects, job: Job, event: on.Message, at: float) -> str:
    """A line for whoever watches the job: on its srun's or salloc's terminal, or in the file that
    its batch script writes errors to."""
    sentence = event.body.get("sentence")
    if not isinstance(sentence, str):
        raise EngineError("malformed request: sentence")
    if isinstance(job.state, life.JobPending):
        return _PENDING
    if job.spec.kind == "batch":
        effects(do.Notify((job.id, BATCH_STEP), sentence))
        return ""
    for key in ((job.id, course.ALLOCATION), (job.id, course.RUN_STEP)):
        effects.reply(state.owners.get(key), "notice", sentence=f"Job {job.id}: {sentence}")
    return ""


def _top(state: State, effects: Effects, job: Job, event: on.Message, at: float) -> str:
    """Put it before all others of its tier: it gets the points of the first, and one more."""
    if not isinstance(job.state, life.JobPending):
        return _NOT_PENDING
    if state.queue.head in (None, job.id):
        return ""
    first = state.jobs[state.queue.first(1)[0]]
    ahead = queue.standing(first.spec, first.submitted_at, state.site)
    own = queue.standing(replace(job.spec, priority=0.0), job.submitted_at, state.site)
    spec = replace(job.spec, priority=math.floor(ahead - own) + 1.0)
    before, job = job, state.put_job(replace(job, spec=spec))
    effects(do.Save(job))
    _wait_anew(state, effects, before, job, at)
    return ""


# -- scontrol update step --------------------------------------------------------------------------


def on_update_step(state: State, effects: Effects, event: on.Message) -> None:
    """scontrol update StepId=… TimeLimit=…: the step ends then, or with its job."""
    job_id, step_id, text = (event.body.get(name) for name in ("job_id", "step_id", "limit"))
    if type(job_id) is not int or type(step_id) is not int or not isinstance(text, str):
        raise EngineError("malformed request: step_id")
    step = state.steps.get((job_id, step_id))
    if step is None or not isinstance(step.state, life.StepRunning):
        raise RequestError(_UNKNOWN, hint="squeue --steps lists the steps that run")
    limit = values.time_limit(text, "TimeLimit")
    step = state.put_step(replace(step, request=replace(step.request, time_limit=limit)))
    effects(do.SaveStep(step))
    granted = allocation_of(state.jobs[job_id])
    ends = [] if granted is None or granted.ends_at is None else [granted.ends_at]
    assert isinstance(step.state, life.StepRunning)
    if limit is not None:
        ends.append(step.state.started_at + limit)
    over = state.settings.over_time
    effects(do.Limit(step.key, min(ends) + over if ends else None))
    effects.reply(event.client, "done")


# -- scontrol update job ---------------------------------------------------------------------------

Change = Callable[[State, Job, str], dict[str, Any]]


def _check_changes(body: Mapping[str, Any]) -> None:
    wanted = body.get("changes")
    if not isinstance(wanted, dict) or not all(isinstance(v, str) for v in wanted.values()):
        raise EngineError("malformed request: changes")
    for name, value in wanted.items():
        if name not in CHANGES:
            raise RequestError(
                f"Update of this parameter is not supported: {name}={value}",
                hint=f"what can be: {', '.join(CHANGES)}",
            )


def _update(state: State, effects: Effects, job: Job, event: on.Message, at: float) -> str:
    """All the changes, or none."""
    changed: dict[str, Any] = {}
    changes = event.body["changes"]
    for name, value in changes.items():
        if not isinstance(job.state, life.JobPending) and name in _WHILE_PENDING:
            return _NOT_PENDING
        changed |= CHANGES[name](state, job, value)
    if isinstance(job.state, (life.JobCompleting, life.JobEnded)):
        return _OVER
    if "dependency" in changed:
        asked = replace(job.spec, dependency=changed["dependency"])
        left = waiting.met(state, asked, job.id, event.facts.named, at, {})
        changed["dependency"] = left
    before, job = job, replace(job, spec=replace(job.spec, **changed))
    if "time_limit" in changed:
        job = _move_limit(state, effects, job)
    job = state.put_job(job)
    effects(do.Save(job))
    if "array" in changed:
        array = state.arrays[changed["array"].job_id]
        array.throttle = changed["array"].throttle
        state.make_room(array)
    if isinstance(job.state, life.JobPending):
        _wait_anew(state, effects, before, job, at)
    return ""


def _wait_anew(state: State, effects: Effects, before: Job, job: Job, at: float) -> None:
    """A pending job that was changed may belong elsewhere."""
    waiting.disarm(effects, before)
    waiting.arm_deadline(effects, job)
    name = job.spec.name
    if dependency.is_single(job.spec.dependency) or before.spec.name != name:
        for each in dict.fromkeys((name, before.spec.name)):
            waiting.let_single(state, effects, each, at)
    job = state.jobs[job.id]
    if job.spec.kill_on_invalid_dep and dependency.is_never(job.spec.dependency):
        course.tell_dependants(state, effects, course.cancel_invalid(state, effects, job, at), at)
    elif not waiting.is_held(job):
        waiting.admit(state, effects, job, at)


def _move_limit(state: State, effects: Effects, job: Job) -> Job:
    """A running job's new end: its steps are told, and the timer is set again."""
    granted = allocation_of(job)
    if granted is None:
        return job
    limit = job.spec.time_limit
    ends_at = None if limit is None else granted.started_at + limit + granted.suspended
    moved = replace(granted, ends_at=ends_at)
    assert isinstance(job.state, (life.JobRunning, life.JobSuspended))
    course.disarm_limit(effects, replace(job, spec=replace(job.spec, time_limit=1)))
    job = replace(job, state=replace(job.state, allocation=moved))
    if isinstance(job.state, life.JobRunning):
        course.arm_limit(state, effects, job)
    for step in state.steps_of(job.id):
        if isinstance(step.state, life.StepRunning):
            over = state.settings.over_time
            effects(do.Limit(step.key, None if ends_at is None else ends_at + over))
    return job


def _time_limit(state: State, job: Job, value: str) -> dict[str, Any]:
    """TimeLimit=…, or +… and -… for a change by so much."""
    sign = value[:1] if value[:1] in "+-" and value[1:2].isdigit() else ""
    limit = values.time_limit(value[len(sign) :], "TimeLimit")
    if sign:
        if job.spec.time_limit is None or limit is None:
            raise RequestError("Invalid TimeLimit specification", hint="the job has no limit")
        limit = max(60, job.spec.time_limit + (limit if sign == "+" else -limit))
    partition = state.site.partition(job.spec.partition.partition(",")[0])
    most = None if partition is None else partition.max_time
    if most is not None and (limit is None or limit > most):
        raise RequestError("Requested time limit is invalid (missing or exceeds some limit)")
    return {"time_limit": limit}


def _nice(state: State, job: Job, value: str) -> dict[str, Any]:
    return {"nice": needs.nice(value), "priority": None}


def _dependency(state: State, job: Job, value: str) -> dict[str, Any]:
    task = job.spec.array
    return {"dependency": dependency.parse(value, None if task is None else task.task_id)}


def _moment(name: str) -> Change:
    """StartTime=, Deadline=: a time that scontrol has read already."""

    def change(state: State, job: Job, value: str) -> dict[str, Any]:
        return {name: needs.moment({name: value}, name)}

    return change


def _throttle(state: State, job: Job, value: str) -> dict[str, Any]:
    """ArrayTaskThrottle=: how many elements may be out at a time; 0 is any number."""
    if job.spec.array is None:
        return {}  # Slurm says nothing either (seen: 22.05)
    number = values.count(value, "ArrayTaskThrottle", least=0)
    return {"array": replace(job.spec.array, throttle=number)}


def _least_time(state: State, job: Job, value: str) -> dict[str, Any]:
    least = values.time_limit(value, "TimeMin")
    limit = job.spec.time_limit
    if least is not None and limit is not None and least > limit:
        raise RequestError("Invalid time-min specification (exceeds job's time or other limits)")
    return {"least_time": least}


def _priority(state: State, job: Job, value: str) -> dict[str, Any]:
    """The job's points, as they were at its submission; its age counts on top."""
    return {"priority": float(values.count(value, "Priority", least=1))}


def _partition(state: State, job: Job, value: str) -> dict[str, Any]:
    limit = {} if job.spec.time_limit is None else {"time": f"0:{job.spec.time_limit}"}
    found = needs.of_job(job.spec.kind, {"partition": value, **limit}, state.site)
    moved = replace(job.spec, partition=found["partition"])
    needs.check(job.spec.kind, moved, state.site)
    return {"partition": moved.partition}


def _requeue_flag(state: State, job: Job, value: str) -> dict[str, Any]:
    if value not in ("0", "1"):
        raise RequestError(f"Invalid Requeue specification: {value}", hint="0 or 1")
    return {"requeue": value == "1"}


CHANGES: Final[dict[str, Change]] = {
    "timelimit": _time_limit,
    "nice": _nice,
    "priority": _priority,
    "partition": _partition,
    "requeue": _requeue_flag,
    "name": lambda state, job, value: {"name": value},
    "comment": lambda state, job, value: {"comment": value},
    "dependency": _dependency,
    "starttime": _moment("begin"),
    "deadline": _moment("deadline"),
    "arraytaskthrottle": _throttle,
    "timemin": _least_time,
}
_WHILE_PENDING: Final = (
    "nice", "priority", "partition", "dependency", "starttime", "deadline", "timemin",
)  # fmt: skip

ACTIONS: Final[dict[str, Action]] = {
    "hold": _hold,
    "release": _release,
    "requeue": _requeue,
    "suspend": _suspend,
    "resume": _resume,
    "update": _update,
    "notify": _notify,
    "top": _top,
}


# -- scontrol update node --------------------------------------------------------------------------

# What scontrol takes for State= → what the node is then.
NODE_WORDS: Final[dict[str, NodeWord]] = {
    "DOWN": "DOWN", "DRAIN": "DRAIN", "RESUME": "UP", "IDLE": "UP", "UNDRAIN": "UP",
}  # fmt: skip


def on_update_node(state: State, effects: Effects, event: on.Message) -> None:
    """Drain nodes, take them down, or have them back."""
    text, asked = event.body.get("nodes"), event.body.get("state")
    reason = event.body.get("reason", "")
    if not isinstance(text, str) or not isinstance(reason, str) or not isinstance(asked, str):
        raise EngineError("malformed request: nodes")
    names = [node.name for node in state.site.nodes] if text.upper() == "ALL" else []
    names = names or list(dict.fromkeys(hostlist.expand(text)))
    for name in names or [text]:
        if state.site.node(name) is None:
            raise RequestError(f"Invalid node name specified: {name}", hint="sinfo -N lists them")
    word = NODE_WORDS.get(asked.upper())
    if word is None:
        raise RequestError(
            f"Invalid node state specified: {asked}", hint=f"one of: {', '.join(NODE_WORDS)}"
        )
    if word != "UP" and not reason:
        raise RequestError(
            "You must specify a reason when DOWNING or DRAINING a node. Request denied",
            hint="Reason=TEXT",
        )
    user = state.site.login.get("USER", str(state.site.uid))
    for name in names:
        condition = NodeCondition(word=word, reason=reason, user=user, since=event.at)
        state.conditions[name] = condition if word != "UP" else NodeCondition()
        effects(do.SaveNode(name, state.conditions[name]))
        if word == "DOWN":
            _fail_jobs(state, effects, name, event.at)
    effects.reply(event.client, "done")
    course.run_queue(state, effects, event.at)


def _fail_jobs(state: State, effects: Effects, node: str, at: float) -> None:
    """End what runs on a node that is down; a batch job that may goes back to the queue.  With a
    component of a heterogeneous job the whole ends."""
    for job_id in list(state.seats):
        job = state.jobs.get(job_id)
        granted = None if job is None else allocation_of(job)
        if job is None or granted is None or node not in granted.nodes:
            continue
        job = state.jobs.get(het.leader(job.spec, job.id), job)
        if isinstance(job.state, (life.JobRunning, life.JobSuspended)):
            again = job.spec.kind == "batch" and job.spec.requeue
            outcome = Outcome(
                word=life.NODE_FAIL, reason="NodeDown", again="queue" if again else ""
            )
            course.decide(state, effects, job, outcome, at, signal=course.SIGKILL)


REQUESTS: Final = {
    "control": on_control,
    "update_node": on_update_node,
    "update_step": on_update_step,
}
