"""The transition table, and that nothing else changes a state."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import pytest

from roadstead.core import lifecycle as life
from roadstead.core.lifecycle import JOB, STEP, ImpossibleTransition, Outcome, Place, Word
from roadstead.core.model import (
    Allocation,
    ExitRecord,
    JobSpec,
    Reason,
    Share,
    StepRequest,
    TaskExit,
    to_json,
)

SPEC = JobSpec(kind="run", name="x", user="u", uid=1, gid=1, cwd="/")
GRANTED = Allocation(
    job_id=1, shares=(Share(node="n", cpus=(0,), memory=0, ntasks=1),), started_at=1.0
)
PLACE = Place(shares=(Share(node="n", cpus=(0,)),), claimed=True)
AGAIN = Outcome(word=Word.CANCELLED, again="queue")
BAD = Outcome(word=Word.FAILED, code=3, reason="NonZeroExitCode")


def record(code: int = 0, signal: int = 0, reason: Reason = "program") -> ExitRecord:
    task = TaskExit(procid=0, code=code, signal=signal, reason=reason)
    return ExitRecord(job_id=1, step_id=0, tasks=(task,), started_at=1.0, ended_at=2.0)


JOB_STATES: dict[Word, life.JobState] = {
    Word.PENDING: life.JobPending(),
    Word.RUNNING: life.JobRunning(allocation=GRANTED),
    Word.SUSPENDED: life.JobSuspended(allocation=GRANTED, at=5.0),
    Word.COMPLETING: life.JobCompleting(allocation=GRANTED, outcome=AGAIN),
    Word.FAILED: life.JobEnded(allocation=GRANTED, outcome=BAD, ended_at=2.0),
}
JOB_EVENTS: list[life.JobEvent] = [
    life.JobReleased(),
    life.JobHeld(),
    life.JobStopped(at=3.0),
    life.JobResumed(at=8.0),
    life.JobReturned(),
    life.JobAllocated(allocation=GRANTED),
    life.JobWithdrawn(outcome=Outcome(word=Word.CANCELLED), at=2.0),
    life.JobDecided(outcome=BAD),
    life.JobEmptied(at=2.0),
]
STEP_STATES: dict[Word, life.StepState] = {
    Word.PENDING: life.StepPending(),
    Word.RUNNING: life.StepRunning(place=PLACE, started_at=1.0),
    Word.COMPLETING: life.StepCompleting(place=PLACE, started_at=1.0),
    Word.COMPLETED: life.StepEnded(word=Word.COMPLETED, ended_at=2.0, record=record()),
}
STEP_EVENTS: list[life.StepEvent] = [
    life.StepPlaced(place=PLACE, at=1.0),
    life.StepReported(pid=7, at=1.5),
    life.StepStopped(),
    life.StepExited(record=record()),
    life.StepWithdrawn(at=2.0),
]


def job(state: life.JobState) -> life.Job:
    return life.Job(id=1, spec=SPEC, submitted_at=0.0, state=state)


def step(state: life.StepState) -> life.Step:
    request = StepRequest(name="x", argv=("x",), cwd="/")
    return life.Step(job_id=1, id=0, request=request, submitted_at=0.0, state=state)


def after(advance: Callable[[], life.Job | life.Step]) -> Word | None:
    """The state that a transition leads to; None where there is no such transition."""
    try:
        return advance().state.word
    except ImpossibleTransition:
        return None


def test_a_job_moves_as_the_table_says_and_not_otherwise() -> None:
    for (word, state), event in itertools.product(JOB_STATES.items(), JOB_EVENTS):
        allowed = JOB[word].get(type(event), {None})
        assert after(lambda: life.advance_job(job(state), event)) in allowed, (word, event)  # noqa: B023


def test_a_step_moves_as_the_table_says_and_not_otherwise() -> None:
    for (word, state), event in itertools.product(STEP_STATES.items(), STEP_EVENTS):
        allowed = STEP[word].get(type(event), {None})
        assert after(lambda: life.advance_step(step(state), event)) in allowed, (word, event)  # noqa: B023


OF_JOBS = {Word.SUSPENDED, Word.NODE_FAIL, Word.DEADLINE, Word.SPECIAL_EXIT}


@pytest.mark.parametrize("table", [JOB, STEP])
def test_the_table_is_whole(table: life.Table) -> None:
    # What a job can be and a step cannot: a step is stopped or gone with its job.
    words = set(Word) if table is JOB else set(Word) - OF_JOBS
    assert set(table) == words
    ends = {word for word, moves in table.items() if set(moves) <= {life.JobRevived}}
    assert ends == life.FINAL & words
    reached = {word for moves in table.values() for words in moves.values() for word in words}
    assert reached | {Word.PENDING} == words


def test_facts_are_carried_along() -> None:
    running = life.advance_job(job(life.JobPending()), life.JobAllocated(allocation=GRANTED))
    completing = life.advance_job(running, life.JobDecided(outcome=BAD))
    ended = life.advance_job(completing, life.JobEmptied(at=2.0))
    assert ended.state == life.JobEnded(allocation=GRANTED, outcome=BAD, ended_at=2.0)


@pytest.mark.parametrize(
    ("ended", "stopped", "outcome"),
    [
        (record(), False, Outcome(word=Word.COMPLETED)),
        (record(3), False, BAD),
        (record(137, 9), False, Outcome(word=Word.FAILED, signal=9, reason="NonZeroExitCode")),
        (record(127, 0, "launch"), False, dataclasses.replace(BAD, code=127, reason="JobLaunch")),
        (record(125, 0, "roadstead"), False, dataclasses.replace(BAD, code=125, reason="System")),
        (record(143, 15, "timeout"), True, Outcome(word=Word.TIMEOUT, signal=15, reason="Time")),
        (record(143, 15, "cancelled"), True, Outcome(word=Word.CANCELLED, signal=15)),
        # Tasks that their supervisor ended because another one had failed.
        (record(143, 15, "cancelled"), False, Outcome(word=Word.FAILED, signal=15, reason="Job")),
    ],
)
def test_outcomes(ended: ExitRecord, stopped: bool, outcome: Outcome) -> None:
    found = life.outcome_of(ended, stopped=stopped)
    assert found.reason.startswith(outcome.reason)
    assert dataclasses.replace(found, reason=outcome.reason) == outcome


def test_a_pause_does_not_count_against_the_time_limit() -> None:
    granted = dataclasses.replace(GRANTED, ends_at=61.0)
    running = job(life.JobRunning(allocation=granted))
    stopped = life.advance_job(running, life.JobStopped(at=5.0))
    resumed = life.advance_job(stopped, life.JobResumed(at=8.0)).state
    assert isinstance(resumed, life.JobRunning)
    assert (resumed.allocation.ends_at, resumed.allocation.suspended) == (64.0, 3.0)


def test_a_requeued_job_waits_again_and_one_that_is_not_does_not() -> None:
    again = life.advance_job(job(JOB_STATES[Word.COMPLETING]), life.JobReturned())
    assert isinstance(again.state, life.JobPending)
    assert not again.state.held
    over = job(life.JobCompleting(allocation=GRANTED, outcome=BAD))
    for event in (life.JobReturned(), life.JobDecided(outcome=BAD)):
        with pytest.raises(ImpossibleTransition):
            life.advance_job(over, event)


def test_states_are_json() -> None:
    for job_state in JOB_STATES.values():
        assert life.job_state(to_json(job_state)) == job_state
    for step_state in STEP_STATES.values():
        assert life.step_state(to_json(step_state)) == step_state


def test_the_diagram_shows_every_move() -> None:
    lines = life.diagram(STEP).splitlines()
    assert lines[:2] == ["stateDiagram-v2", "    [*] --> PENDING"]
    assert "    RUNNING --> COMPLETING: stopped" in lines
    assert "    TIMEOUT --> [*]" in lines
    moves = sum(len(words) for each in STEP.values() for words in each.values())
    assert len(lines) == 2 + moves + len(life.FINAL & set(STEP))
