"""The states of jobs and steps, the events that change them, and the one place where they change.

Theory of operation.  A job waits (PENDING), has an allocation (RUNNING), and loses it in two
moves: first it is decided how the job ends and its steps are told to (COMPLETING), then, when the
last step has gone, the decision becomes the state.  CPUs are free again after the second move only,
so no job starts on a CPU that a dying one still uses.  A step waits for CPUs of its job (PENDING),
is with a supervisor (RUNNING), may have been told to end (COMPLETING), and ends as its exit record
says.  The names are Slurm's.

``JOB`` and ``STEP`` are the whole truth: ``advance_job`` and ``advance_step`` refuse what is not in
them, and ``diagram`` draws them.  A state carries its facts, so that a running job without an
allocation cannot be written down.  Nothing here looks at a clock; an event says when it happened.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from roadstead.core.model import Allocation, ExitRecord, JobSpec, StepRequest, from_json


class Word(StrEnum):
    """Slurm's words for states (squeue(1), JOB STATE CODES)."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETING = "COMPLETING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMEOUT = "TIMEOUT"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"


PENDING, RUNNING, COMPLETING, COMPLETED, FAILED, CANCELLED, TIMEOUT, OUT_OF_MEMORY = Word
# squeue's compact forms.
SHORT: Final = {
    PENDING: "PD", RUNNING: "R", COMPLETING: "CG", COMPLETED: "CD", FAILED: "F", CANCELLED: "CA",
    TIMEOUT: "TO", OUT_OF_MEMORY: "OOM",
}  # fmt: skip
FINAL: Final = frozenset({COMPLETED, FAILED, CANCELLED, TIMEOUT, OUT_OF_MEMORY})


# -- states and their facts ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a job ended or is ending.  ``reason`` is squeue's word: TimeLimit, NonZeroExitCode …"""

    word: Word
    code: int = 0
    signal: int = 0
    reason: str = "None"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPending:
    """Waiting, in the queue or (``held``) beside it."""

    held: bool = False
    word: Word = PENDING


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRunning:
    allocation: Allocation
    word: Word = RUNNING


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCompleting:
    """The outcome is decided; steps have been told and not all have gone."""

    allocation: Allocation
    outcome: Outcome
    word: Word = COMPLETING


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnded:
    """Over.  ``allocation`` is None for a job that never started."""

    allocation: Allocation | None
    outcome: Outcome
    ended_at: float

    @property
    def word(self) -> Word:
        return self.outcome.word


JobState = JobPending | JobRunning | JobCompleting | JobEnded


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """CPUs a step runs on.  ``claimed``: no step beside it may run there meanwhile."""

    cpus: tuple[int, ...]
    claimed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPending:
    """Waiting for CPUs of its job."""

    word: Word = PENDING


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRunning:
    """With a supervisor; ``pid`` is 0 until that has reported."""

    place: Place
    started_at: float
    pid: int = 0
    word: Word = RUNNING


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCompleting:
    """Told to end."""

    place: Place
    started_at: float
    pid: int = 0
    word: Word = COMPLETING


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEnded:
    """Over.  ``record`` is None for a step that never ran."""

    word: Word
    ended_at: float
    record: ExitRecord | None


StepState = StepPending | StepRunning | StepCompleting | StepEnded


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job, as the journal keeps it.  The specification never changes, the state does."""

    id: int
    spec: JobSpec
    submitted_at: float
    state: JobState


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step of a job, likewise."""

    job_id: int
    id: int
    request: StepRequest
    submitted_at: float
    state: StepState

    @property
    def key(self) -> StepKey:
        return self.job_id, self.id


StepKey = tuple[int, int]


# -- events ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class JobAllocated:
    """The scheduler gave it what it asked for."""

    allocation: Allocation


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReleased:
    """It is no longer held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDecided:
    """How it ends is known: its main step has ended, its time is up, somebody cancelled it."""

    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class JobWithdrawn:
    """Cancelled before it started."""

    outcome: Outcome
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEmptied:
    """Its last step has gone."""

    at: float


JobEvent = JobAllocated | JobReleased | JobDecided | JobWithdrawn | JobEmptied


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlaced:
    """It has CPUs and goes to a supervisor."""

    place: Place
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReported:
    """Its supervisor says that its tasks have started."""

    pid: int
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStopped:
    """Its supervisor was told to end it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepExited:
    """Its supervisor is done."""

    record: ExitRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class StepWithdrawn:
    """Cancelled before it had CPUs."""

    at: float


StepEvent = StepPlaced | StepReported | StepStopped | StepExited | StepWithdrawn


# -- the table -------------------------------------------------------------------------------------

Table = dict[Word, dict[type, tuple[Word, ...]]]

_OUTCOMES: Final = (COMPLETED, FAILED, CANCELLED, TIMEOUT, OUT_OF_MEMORY)

JOB: Final[Table] = {
    PENDING: {JobReleased: (PENDING,), JobAllocated: (RUNNING,), JobWithdrawn: (CANCELLED,)},
    RUNNING: {JobDecided: (COMPLETING,)},
    COMPLETING: {JobEmptied: _OUTCOMES},
    COMPLETED: {}, FAILED: {}, CANCELLED: {}, TIMEOUT: {}, OUT_OF_MEMORY: {},
}  # fmt: skip

STEP: Final[Table] = {
    PENDING: {StepPlaced: (RUNNING,), StepWithdrawn: (CANCELLED,)},
    RUNNING: {StepReported: (RUNNING,), StepStopped: (COMPLETING,), StepExited: _OUTCOMES},
    COMPLETING: {StepReported: (COMPLETING,), StepExited: _OUTCOMES},
    COMPLETED: {}, FAILED: {}, CANCELLED: {}, TIMEOUT: {}, OUT_OF_MEMORY: {},
}  # fmt: skip


class ImpossibleTransition(AssertionError):
    """The table has no such move: a mistake of ours, never of the user's."""


def advance_job(job: Job, event: JobEvent) -> Job:
    """The job after ``event``.  Raises ImpossibleTransition for a move that the table lacks."""
    after = _job_after(job.state, event)
    _check(JOB, f"job {job.id}", job.state.word, event, after.word if after else None)
    assert after is not None
    return replace(job, state=after)


def advance_step(step: Step, event: StepEvent) -> Step:
    """The step after ``event``.  Raises ImpossibleTransition for a move that the table lacks."""
    after = _step_after(step.state, event)
    _check(STEP, f"step {step.key}", step.state.word, event, after.word if after else None)
    assert after is not None
    return replace(step, state=after)


def _check(table: Table, what: str, before: Word, event: object, after: Word | None) -> None:
    if after is None or after not in table[before].get(type(event), ()):
        raise ImpossibleTransition(f"{what}: {before} cannot take {type(event).__name__}")


def _job_after(state: JobState, event: JobEvent) -> JobState | None:
    """The facts of the next state; None where they cannot be had from this one."""
    match state, event:
        case JobPending(), JobReleased():
            return JobPending(held=False)
        case JobPending(), JobAllocated():
            return JobRunning(allocation=event.allocation)
        case JobPending(), JobWithdrawn():
            return JobEnded(allocation=None, outcome=event.outcome, ended_at=event.at)
        case JobRunning(), JobDecided():
            return JobCompleting(allocation=state.allocation, outcome=event.outcome)
        case JobCompleting(), JobEmptied():
            return JobEnded(allocation=state.allocation, outcome=state.outcome, ended_at=event.at)
        case _:
            return None


def _step_after(state: StepState, event: StepEvent) -> StepState | None:
    match state, event:
        case StepPending(), StepPlaced():
            return StepRunning(place=event.place, started_at=event.at)
        case StepPending(), StepWithdrawn():
            return StepEnded(word=CANCELLED, ended_at=event.at, record=None)
        case ((StepRunning() | StepCompleting()), StepReported()):
            return replace(state, pid=event.pid, started_at=event.at)
        case StepRunning(), StepStopped():
            return StepCompleting(place=state.place, started_at=state.started_at, pid=state.pid)
        case ((StepRunning() | StepCompleting()), StepExited()):
            record = event.record
            outcome = outcome_of(record, stopped=isinstance(state, StepCompleting))
            return StepEnded(word=outcome.word, ended_at=record.ended_at, record=record)
        case _:
            return None


# squeue's words (squeue(1), JOB REASON CODES) for what is behind a code other than 0.
_FAILURES: Final = {"program": "NonZeroExitCode", "roadstead": "SystemFailure"}


def outcome_of(record: ExitRecord, *, stopped: bool) -> Outcome:
    """What an exit record means for a step, and for the job whose main step it was.

    A step is CANCELLED when it was told to end; tasks that the supervisor itself ended because
    another one failed (--kill-on-bad-exit, --wait) make it FAILED.
    """
    worst = record.worst
    code, signal = (0, worst.signal) if worst.signal else (worst.code, 0)
    if any(task.reason == "timeout" for task in record.tasks):
        return Outcome(word=TIMEOUT, code=code, signal=signal, reason="TimeLimit")
    if any(task.reason == "memory" for task in record.tasks):
        return Outcome(word=OUT_OF_MEMORY, code=code, signal=signal, reason="OutOfMemory")
    if stopped and any(task.reason == "cancelled" for task in record.tasks):
        return Outcome(word=CANCELLED, code=code, signal=signal)
    if worst.code == 0:
        return Outcome(word=COMPLETED)
    reason = _FAILURES.get(worst.reason, "JobLaunchFailure")
    return Outcome(word=FAILED, code=code, signal=signal, reason=reason)


def job_state(data: dict[str, Any]) -> JobState:
    """The job state that ``to_json`` made ``data`` from."""
    kinds: dict[str, type[JobState]] = {
        PENDING: JobPending,
        RUNNING: JobRunning,
        COMPLETING: JobCompleting,
    }
    return from_json(kinds.get(data.get("word", ""), JobEnded), data)


def step_state(data: dict[str, Any]) -> StepState:
    """The step state that ``to_json`` made ``data`` from."""
    kinds: dict[str, type[StepState]] = {
        PENDING: StepPending,
        RUNNING: StepRunning,
        COMPLETING: StepCompleting,
    }
    return from_json(kinds.get(data.get("word", ""), StepEnded), data)


def diagram(table: Table) -> str:
    """A Mermaid state diagram of ``JOB`` or ``STEP``, for ARCHITECTURE.md."""
    lines = ["stateDiagram-v2", "    [*] --> PENDING"]
    for before, moves in table.items():
        for event, words in moves.items():
            name = event.__name__.removeprefix("Job").removeprefix("Step").lower()
            lines += [f"    {before} --> {after}: {name}" for after in words]
        if not moves:
            lines.append(f"    {before} --> [*]")
    return "\n".join(lines) + "\n"
