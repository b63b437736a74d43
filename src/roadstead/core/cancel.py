"""scancel: which jobs and steps are meant, and what a signal does to each.

Without a signal, or with SIGKILL, a job ends.  Any other signal goes to the job's steps, not to its
batch script: ``--batch`` means the script's own process, ``--full`` means everything (scancel(1)).
Naming a job that is over is no error unless a signal was to be sent to it; scancel itself only
mentions it with -v, so such an entry is ``quiet``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from roadstead.core import arrays, course, het, needs, values
from roadstead.core import effects as do
from roadstead.core import lifecycle as life
from roadstead.core.effects import Effects
from roadstead.core.lifecycle import Job, Outcome, Step
from roadstead.core.model import BATCH_STEP, EXTERN_STEP, INTERACTIVE_STEP
from roadstead.core.state import State
from roadstead.errors import EngineError, RequestError

Failure = dict[str, Any]

_STEP_NAMES: Final = {"batch": BATCH_STEP, "interactive": INTERACTIVE_STEP, "extern": EXTERN_STEP}
_UNKNOWN: Final = "Invalid job id specified"
_HIGHEST_SIGNAL: Final = 64


def cancel(
    state: State, effects: Effects, body: Mapping[str, Any], at: float
) -> tuple[list[str], list[Failure]]:
    """Carry out a ``cancel`` request: what was cancelled or signalled, and what was not and why."""
    signal = body.get("signal")
    if signal is not None and (type(signal) is not int or not 0 < signal <= _HIGHEST_SIGNAL):
        raise RequestError(f"Unknown job signal: {signal}")
    done: list[str] = []
    failures: list[Failure] = []
    # All are read before any is cancelled: a slip of the pen cancels nothing.
    meant = list(_meant(state, body))
    along = _along(state, {job_id for _, job_id, step_id in meant if step_id is None})
    for name, job_id, step_id in meant:
        job = state.jobs.get(job_id)
        if (job is not None and not _matches(job, body)) or (step_id is None and job_id in along):
            continue
        if step_id is None:
            why = _cancel_job(state, effects, job, signal, body, at)
        else:
            found = state.step_among([job_id] if job is None else het.members(job), step_id)
            why = _cancel_step(state, effects, found, signal, at)
        if not why:
            done.append(name)
            continue
        what = "job id" if step_id is None else "job step id"
        quiet = step_id is None and signal is None and not body.get("batch")
        sentence = f"Kill job error on {what} {name}: {why}"
        failures.append({"job": name, "sentence": sentence, "quiet": quiet})
    return done, failures


def _along(state: State, named: set[int]) -> set[int]:
    """Those that are components of a job that is named as well, and done with that."""
    jobs = [state.jobs[each] for each in named if each in state.jobs]
    return {
        job.id for job in jobs if het.is_led(job.spec) and het.leader(job.spec, job.id) in named
    }


def _meant(state: State, body: Mapping[str, Any]) -> Iterator[tuple[str, int, int | None]]:
    """What the request names: jobs, steps, elements of arrays; with filters alone, every job."""
    names = body.get("jobs") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise EngineError("malformed request: jobs")
    for name in names:
        for job_id, step_id in _parse(name, state):
            yield name, job_id, step_id
    if names:
        return
    if not any(body.get(word) for word in ("user", "name", "state", "partition")):
        raise RequestError("No job identification provided")
    yield from ((str(job_id), job_id, None) for job_id in state.jobs)


def _parse(name: str, state: State) -> list[tuple[int, int | None]]:
    """The jobs of ``7``, ``7.0``, ``7_3``, ``7_[1-3]``, ``7+1``, with the step; nobody is job 0."""
    job, dot, step = name.partition(".")
    step_id = _STEP_NAMES.get(step, int(step) if values.is_number(step) else None)
    component = het.named(job)
    if component is not None:
        jobs: list[int] | None = [component]
    elif dot and values.is_number(job):
        jobs = [int(job)]
    else:
        jobs = arrays.members(job, state.arrays)
    if jobs is None or (dot and step_id is None):
        raise RequestError(f"Invalid job id {name}")
    return [(job_id, step_id) for job_id in jobs or [0]]


def _matches(job: Job, body: Mapping[str, Any]) -> bool:
    word = body.get("state")
    return (
        body.get("user") in (None, "", job.spec.user)
        and body.get("name") in (None, "", job.spec.name)
        and body.get("partition") in (None, "", job.spec.partition)
        and (not word or str(word).upper() in (job.state.word, life.SHORT[job.state.word]))
    )


def _cancel_job(
    state: State,
    effects: Effects,
    job: Job | None,
    signal: int | None,
    body: Mapping[str, Any],
    at: float,
) -> str:
    """Cancel or signal a job; why not, or ""."""
    if job is None:
        return _UNKNOWN
    only_batch = body.get("batch") is True
    ends_it = signal in (None, course.SIGKILL) and not only_batch
    if isinstance(job.state, life.JobPending):
        if not ends_it:
            return "Job is pending execution"
        if het.is_led(job.spec):
            return het.NOT_WHOLE
        _withdraw(state, effects, job, at)
        return ""
    if ends_it:
        _end(state, effects, job, signal or course.SIGTERM, at)
        return ""
    for step in _steps(state, job):
        meant = step.id == BATCH_STEP if only_batch else step.id != BATCH_STEP
        if (meant or body.get("full")) and not isinstance(step.state, life.StepPending):
            effects(do.Signal(step.key, signal or course.SIGTERM, only_batch))
    return ""


def _steps(state: State, job: Job) -> list[Step]:
    """The steps of a job; of a heterogeneous one those of all its components."""
    jobs = [job.id] if het.is_led(job.spec) else het.members(job)
    return list({step.key: step for each in jobs for step in state.steps_of(each)}.values())


def _withdraw(state: State, effects: Effects, job: Job, at: float) -> None:
    for key in ((job.id, course.RUN_STEP), (job.id, course.ALLOCATION)):
        effects.reply(state.owners.get(key), "notice", sentence="Job has been cancelled")
    why = f"{needs.REFUSED[job.spec.kind]}: Job/step already completing or completed"
    course.withdraw(state, effects, job, RequestError(why), at)


def _end(state: State, effects: Effects, job: Job, signal: int, at: float) -> None:
    outcome = Outcome(word=life.CANCELLED, signal=signal)
    if isinstance(job.state, (life.JobRunning, life.JobSuspended)):
        course.decide(state, effects, job, outcome, at, signal=signal)
        return
    if isinstance(job.state, life.JobCompleting) and job.state.outcome.again:
        # On its way back to the queue: it is not to run again.
        job = state.put_job(life.advance_job(job, life.JobDecided(outcome=outcome)))
        effects(do.Save(job))
    if signal == course.SIGKILL:
        for step in state.steps_of(job.id):
            course.stop_step(state, effects, step, "cancelled", at, signal=signal)


def _cancel_step(
    state: State, effects: Effects, step: Step | None, signal: int | None, at: float
) -> str:
    """Cancel or signal a step; why not, or ""."""
    if step is None:
        return _UNKNOWN
    if signal in (None, course.SIGKILL):
        course.stop_step(state, effects, step, "cancelled", at, signal=signal or course.SIGTERM)
    elif isinstance(step.state, life.StepPending):
        return "Job/step is pending execution"
    else:
        effects(do.Signal(step.key, signal))
    return ""
