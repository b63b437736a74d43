"""The states of jobs and steps, the events that change them, and the one place where they change.

Theory of operation.  A job waits (PENDING), has an allocation (RUNNING), and loses it in two
moves: first it is decided how the job ends and its steps are told to (COMPLETING), then, when the
last step has gone, the decision becomes the state.  CPUs are free again after the second move only,
so no job starts on a CPU that a dying one still uses.  A decision can also be to wait once more: a
requeued job is PENDING again after its last step, and so is one that had ended and is asked to run
again; one that is marked with that (SPECIAL_EXIT) waits until it is released.  A suspended job
keeps what it has.  A step waits for CPUs of its job (PENDING), is with a supervisor (RUNNING), may
have been told to end (COMPLETING), and ends as its exit record says.  The names are Slurm's.

``JOB`` and ``STEP`` are the whole truth: ``advance_job`` and ``advance_step`` refuse what is not in
them, and ``diagram`` draws them.  A state carries its facts, so that a running job without an
allocation cannot be written down.  Nothing here looks at a clock; an event says when it happened.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, Literal

from roadstead.core.model import (
    Allocation,
    ExitRecord,
    JobSpec,
    Share,
    StepRequest,
    from_json,
)


class Word(StrEnum):
    """Slurm's words for states (squeue(1), JOB STATE CODES)."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUSPENDED = "SUSPENDED"
    COMPLETING = "COMPLETING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMEOUT = "TIMEOUT"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    NODE_FAIL = "NODE_FAIL"
    DEADLINE = "DEADLINE"
    SPECIAL_EXIT = "SPECIAL_EXIT"


(
    PENDING, RUNNING, SUSPENDED, COMPLETING, COMPLETED, FAILED, CANCELLED, TIMEOUT, OUT_OF_MEMORY,
    NODE_FAIL, DEADLINE, SPECIAL_EXIT,
) = Word  # fmt: skip
# squeue's compact forms.
SHORT: Final = {
    PENDING: "PD", RUNNING: "R", COMPLETING: "CG", COMPLETED: "CD", FAILED: "F", CANCELLED: "CA",
    TIMEOUT: "TO", OUT_OF_MEMORY: "OOM", SUSPENDED: "S", NODE_FAIL: "NF",
    DEADLINE: "DL", SPECIAL_EXIT: "SE",
}  # fmt: skip
FINAL: Final = frozenset(
    {COMPLETED, FAILED, CANCELLED, TIMEOUT, OUT_OF_MEMORY, NODE_FAIL, DEADLINE}
)


# -- states and their facts ------------------------------------------------------------------------


Again = Literal["", "queue", "hold", "special"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a job ended or is ending.  ``reason`` is squeue's word: TimeLimit, NonZeroExitCode …

    ``again``: it is to wait once more, in the queue or held beside it; "special" is held, too.
    """

    word: Word
    code: int = 0
    signal: int = 0
    reason: str = "None"
    again: Again = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPending:
    """Waiting, in the queue or (``held``) beside it; ``last``: how it ended the time before."""

    held: bool = False
    last: Outcome | None = None
    word: Word = PENDING


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRunning:
    allocation: Allocation
    word: Word = RUNNING


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSuspended:
    """Stopped, since ``at``; it keeps its allocation."""

    allocation: Allocation
    at: float
    word: Word = SUSPENDED


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


JobState = JobPending | JobRunning | JobSuspended | JobCompleting | JobEnded


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a step has of its job's nodes.  ``claimed``: no step beside it may run there.
    ``lengths``: how many of the shares are each component's, in a step that spans several."""

    shares: tuple[Share, ...]
    claimed: bool
    lengths: tuple[int, ...] = ()

    @property
    def cpu_count(self) -> int:
        return sum([len(share.cpus) for share in self.shares])

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([share.node for share in self.shares]))

    @property
    def parts(self) -> list[tuple[Share, ...]]:
        """The shares of each component."""
        found, at = [], 0
        for length in self.lengths or (len(self.shares),):
            found.append(self.shares[at : at + length])
            at += length
        return found


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
    """Over.  ``record`` and ``place``, where it was, are None for a step that never ran."""

    word: Word
    ended_at: float
    record: ExitRecord | None
    place: Place | None = None


StepState = StepPending | StepRunning | StepCompleting | StepEnded


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job, as the journal keeps it.  Its state changes, its specification only when its user says
    so (scontrol update).  ``named``: it may have containers with a name, which go when it ends."""

    id: int
    spec: JobSpec
    submitted_at: float
    state: JobState
    restarts: int = 0
    named: bool = False


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
class JobHeld:
    """It is not to start until it is released."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReleased:
    """It is no longer held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStopped:
    """Its processes are stopped."""

    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResumed:
    """They go on; its time limit is as much later as they stood still."""

    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDecided:
    """How it ends is known: its main step has ended, its time is up, somebody cancelled it."""

    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class JobWithdrawn:
    """Cancelled before it started, or too late to start."""

    outcome: Outcome
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEmptied:
    """Its last step has gone."""

    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReturned:
    """Its last step has gone, and it waits again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRevived:
    """It had ended, and is to wait again (scontrol requeue)."""

    again: Again


JobEvent = (
    JobAllocated | JobHeld | JobReleased | JobStopped | JobResumed | JobDecided | JobWithdrawn
    | JobEmptied | JobReturned | JobRevived
)  # fmt: skip


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
_JOB_OUTCOMES: Final = (*_OUTCOMES, NODE_FAIL)

JOB: Final[Table] = {
    PENDING: {
        JobHeld: (PENDING,),
        JobReleased: (PENDING,),
        JobAllocated: (RUNNING,),
        JobWithdrawn: (CANCELLED, DEADLINE),
    },
    SPECIAL_EXIT: {
        JobHeld: (SPECIAL_EXIT,),
        JobReleased: (PENDING,),
        JobWithdrawn: (CANCELLED, DEADLINE),
    },
    RUNNING: {JobStopped: (SUSPENDED,), JobDecided: (COMPLETING,)},
    SUSPENDED: {JobResumed: (RUNNING,), JobDecided: (COMPLETING,)},
    COMPLETING: {
        JobDecided: (COMPLETING,),
        JobReturned: (PENDING, SPECIAL_EXIT),
        JobEmptied: _JOB_OUTCOMES,
    },
    **{word: {JobRevived: (PENDING, SPECIAL_EXIT)} for word in (*_JOB_OUTCOMES, DEADLINE)},
}

STEP: Final[Table] = {
    PENDING: {StepPlaced: (RUNNING,), StepWithdrawn: (CANCELLED,)},
    RUNNING: {StepReported: (RUNNING,), StepStopped: (COMPLETING,), StepExited: _OUTCOMES},
    COMPLETING: {StepReported: (COMPLETING,), StepExited: _OUTCOMES},
    **{word: {} for word in _OUTCOMES},
}


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


def is_waiting(job: Job) -> bool:
    """Whether it is pending and nobody holds it."""
    return isinstance(job.state, JobPending) and not job.state.held


def _job_after(state: JobState, event: JobEvent) -> JobState | None:
    """The facts of the next state; None where they cannot be had from this one."""
    match state, event:
        case JobPending(), JobHeld():
            return replace(state, held=True)
        case JobPending(), JobReleased():
            return replace(state, held=False, word=PENDING)
        case JobPending(), JobAllocated():
            return JobRunning(allocation=event.allocation)
        case JobRunning(), JobStopped():
            return JobSuspended(allocation=state.allocation, at=event.at)
        case JobSuspended(), JobResumed():
            return JobRunning(allocation=paused(state, event.at))
        case JobSuspended(), JobDecided():
            return JobCompleting(allocation=state.allocation, outcome=event.outcome)
        case JobCompleting(), JobDecided() if state.outcome.again:
            return JobCompleting(allocation=state.allocation, outcome=event.outcome)
        case JobCompleting(), JobReturned() if state.outcome.again:
            return _again(state.outcome)
        case JobEnded(), JobRevived() if event.again:
            return _again(replace(state.outcome, again=event.again))
        case JobPending(), JobWithdrawn():
            return JobEnded(allocation=None, outcome=event.outcome, ended_at=event.at)
        case JobRunning(), JobDecided():
            return JobCompleting(allocation=state.allocation, outcome=event.outcome)
        case JobCompleting(), JobEmptied():
            return JobEnded(allocation=state.allocation, outcome=state.outcome, ended_at=event.at)
        case _:
            return None


def _again(outcome: Outcome) -> JobPending:
    """What a job is that waits once more."""
    word = SPECIAL_EXIT if outcome.again == "special" else PENDING
    return JobPending(held=outcome.again != "queue", last=replace(outcome, again=""), word=word)


def paused(state: JobSuspended, now: float) -> Allocation:
    """What a suspended job has if it is resumed now: its time limit moves by the pause."""
    granted, pause = state.allocation, max(0.0, now - state.at)
    ends_at = None if granted.ends_at is None else granted.ends_at + pause
    return replace(granted, ends_at=ends_at, suspended=granted.suspended + pause)


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
            return StepEnded(
                word=outcome.word, ended_at=record.ended_at, record=record, place=state.place
            )
        case _:
            return None


_SIG_OOM: Final = 125

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
        # What Slurm's own OUT_OF_MEMORY shows: ExitCode=0:125.
        return Outcome(word=OUT_OF_MEMORY, signal=_SIG_OOM, reason="OutOfMemory")
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
        SPECIAL_EXIT: JobPending,
        RUNNING: JobRunning,
        SUSPENDED: JobSuspended,
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
        if before in FINAL:
            lines.append(f"    {before} --> [*]")
    return "\n".join(lines) + "\n"
