"""The journal: what was committed is what a later controller finds."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from roadstead.controller.journal import VERSION, Contents, Journal
from roadstead.core import effects as do
from roadstead.core import lifecycle as life
from roadstead.core.history import Wanted
from roadstead.core.model import (
    BATCH_STEP,
    Allocation,
    ExitRecord,
    JobSpec,
    Share,
    StepRequest,
    TaskExit,
)
from roadstead.core.site import Partition
from roadstead.errors import EngineError

SPEC = JobSpec(kind="batch", name="é\udce9", user="u", uid=1, gid=1, cwd="/", argv=("\udce9",))
GRANTED = Allocation(
    job_id=1, shares=(Share(node="n", cpus=(0, 1), memory=5, ntasks=1),), started_at=1.0
)
PENDING = life.Job(id=1, spec=replace(SPEC, key="k1"), submitted_at=0.5, state=life.JobPending())
RUNNING = replace(PENDING, state=life.JobRunning(allocation=GRANTED))
DONE = life.Outcome(word=life.COMPLETED)
ENDED = replace(PENDING, state=life.JobEnded(allocation=GRANTED, outcome=DONE, ended_at=9.0))
PLACE = life.Place(shares=(Share(node="n", cpus=(0, 1)),), claimed=False)
STEP = life.Step(
    job_id=1,
    id=BATCH_STEP,
    request=StepRequest(name="batch", argv=("\udce9",), cwd="/", env={"TOKEN": "s3cret"}),
    submitted_at=0.5,
    state=life.StepRunning(place=PLACE, started_at=1.0),
)
KEPT = replace(STEP, request=replace(STEP.request, env={}))
RECORD = ExitRecord(
    job_id=1, step_id=3, tasks=(TaskExit(procid=0, code=3),), started_at=1.0, ended_at=2.0
)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return os.fspath(tmp_path / "journal.db")


@pytest.fixture
def journal(path: str) -> Iterator[Journal]:
    opened = Journal(path)
    yield opened
    opened.close()


def reopened(path: str) -> Contents:
    journal = Journal(path)
    contents = journal.load()
    journal.close()
    return contents


def test_a_new_journal_is_empty(journal: Journal) -> None:
    assert journal.load() == Contents(
        jobs=(), steps=(), next_job_id=1, next_step_ids={}, conditions={}, partitions={}, kept={}
    )


def test_what_was_committed_is_found(journal: Journal, path: str) -> None:
    numbered = replace(KEPT, id=3, submitted_at=0.6, state=life.StepPending())
    journal.commit([do.Save(PENDING), do.Save(RUNNING), do.SaveStep(STEP)])
    journal.commit([do.SaveStep(numbered)])
    journal.close()
    found = reopened(path)
    assert found.jobs == (RUNNING,)
    assert found.steps == (KEPT, numbered)
    assert (found.next_job_id, found.next_step_ids) == (2, {1: 4})


def test_a_state_is_written_over_the_one_before(journal: Journal) -> None:
    for job in (PENDING, RUNNING):
        journal.commit([do.Save(job)])
    assert journal.job(1) == RUNNING
    kept = replace(RUNNING, spec=replace(RUNNING.spec, client_pid=7))
    journal.commit([do.Save(kept)])
    assert journal.job(1) == kept


def test_ended_jobs_are_found_by_number_time_and_key(journal: Journal) -> None:
    journal.commit([do.Save(ENDED)])
    assert journal.load().jobs == ()
    assert journal.load().next_job_id == 2, "numbers are not used again"
    assert journal.job(1) == journal.job_of_key("k1") == ENDED
    assert journal.jobs_ended_since(9.0) == (ENDED,)
    assert journal.jobs_ended_since(9.5) == ()
    assert journal.job(2) is None


def test_ended_steps_keep_their_record(journal: Journal) -> None:
    ended = life.StepEnded(word=life.FAILED, ended_at=2.0, record=RECORD)
    step = replace(KEPT, id=3, state=ended)
    journal.commit([do.Save(RUNNING), do.SaveStep(step)])
    assert journal.step(1, 3) == step
    assert journal.load().steps == ()
    assert journal.load().next_step_ids == {1: 4}


def test_a_payload_stays_until_it_is_dropped(journal: Journal) -> None:
    payload = do.SavePayload(1, {"A": "\udce9"}, "#!/bin/sh\n")
    journal.commit([payload, do.Save(PENDING)])
    assert journal.payload(1) == ({"A": "\udce9"}, "#!/bin/sh\n")
    assert journal.load().kept == {}
    journal.commit([do.Save(ENDED)])
    assert list(journal.load().kept) == [1]
    journal.commit([do.DropPayload(1)])
    assert journal.payload(1) == ({}, "")


def test_secrets_of_a_step_are_not_written(journal: Journal, path: str) -> None:
    journal.commit([do.Save(RUNNING), do.SaveStep(STEP)])
    journal.close()
    assert b"s3cret" not in Path(path).read_bytes()


def test_a_journal_of_a_newer_version_is_left_alone(path: str) -> None:
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version = {VERSION + 1}")
    database.close()
    with pytest.raises(EngineError, match=f"is of version {VERSION + 1}"):
        Journal(path)


def test_a_damaged_journal_is_named_with_what_to_do(path: str) -> None:
    Path(path).write_bytes(b"not a database, " * 100)
    with pytest.raises(EngineError, match="is damaged") as caught:
        Journal(path)
    away = path.removesuffix("journal.db") + "damaged"
    assert caught.value.hint.endswith(f"mkdir {away} && mv {path}* {away}")


def test_a_directory_that_is_not_there_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="unable to open") as caught:
        Journal(os.fspath(tmp_path / "none" / "journal.db"))
    assert "mv" not in caught.value.hint


def test_what_scontrol_made_of_partitions(journal: Journal, path: str) -> None:
    new = Partition(name="new", nodes=("n",), max_time=60)
    journal.commit([do.SavePartition("new", new), do.SavePartition("old", None)])
    assert reopened_after(journal, path).partitions == {"new": new, "old": None}
    again = Journal(path)
    again.forget_partitions()
    again.close()
    assert reopened(path).partitions == {}


def reopened_after(journal: Journal, path: str) -> Contents:
    journal.close()
    return reopened(path)


def test_the_history_has_an_end(journal: Journal) -> None:
    def job(number: int, ended_at: float | None) -> life.Job:
        over = life.JobEnded(allocation=GRANTED, outcome=DONE, ended_at=ended_at or 0.0)
        state = over if ended_at is not None else life.JobPending()
        return replace(PENDING, id=number, spec=replace(SPEC, key=f"k{number}"), state=state)

    jobs = [job(number, 100.0 - number) for number in range(1, 11)]
    jobs += [job(11, None), job(12, 1.0)]  # one that waits, and the highest number, which is old
    ended = life.StepEnded(word=life.FAILED, place=PLACE, record=RECORD, ended_at=9.0)
    journal.commit([do.Save(each) for each in jobs])
    journal.commit([do.SaveStep(replace(STEP, job_id=each, state=ended)) for each in range(1, 13)])

    def left() -> list[int]:
        return [each.id for each, steps in journal.records(Wanted(), 100) if steps]

    assert journal.purge(kept=6, most=2)
    assert left() == [1, 2, 3, 4, 5, 6, 9, 10, 11, 12]
    assert not journal.purge(kept=6, most=3)
    assert left() == [1, 2, 3, 4, 5, 6, 11, 12]
    assert not journal.purge(kept=6, most=3)
    assert journal.load().next_job_id == 13


def test_the_history_of_names(journal: Journal) -> None:
    for number, name in enumerate(("a", "é\udce9", "a"), 1):
        spec = replace(SPEC, key=f"k{number}", name=name)
        journal.commit([do.Save(replace(ENDED, id=number, spec=spec))])

    def found(*names: str, **more: object) -> list[int]:
        wanted = Wanted(names=names, **more)  # type: ignore[arg-type]
        return [job.id for job, _ in journal.records(wanted, 10)]

    assert found("a") == found("a", since=0.0) == [1, 3]
    assert found("é\udce9", "b") == [2]
    assert found("a", jobs=(1, 2)) == [1]
    assert found("b") == found() == []
