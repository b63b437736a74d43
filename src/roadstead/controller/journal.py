"""The journal: what must survive the controller, in SQLite.

One row a job and one a step, each with its specification, which is written once, and its state,
which is written at every change.  Ended jobs stay, for accounting, up to a number (``purge``).  A
turn of the controller's loop is one transaction; nobody is told of anything before it is committed,
and ``synchronous=FULL`` in WAL mode means that a committed turn survives a power cut (0.3 ms;
NORMAL would be 0.01 ms and may lose the last turns, that is, accepted jobs).

The controller is the journal's only user (its lock sees to that), so the database is opened in
exclusive mode: no shared memory is needed, which home directories on NFS may not offer.

Environments and scripts of batch jobs are apart from the jobs, so that a hundred thousand waiting
jobs are not a hundred thousand environments in memory; they go a while after the job has ended
(MinJobAge), as it may be requeued until then.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from roadstead.core import lifecycle as life
from roadstead.core.effects import (
    DropPayload,
    Effect,
    Save,
    SaveNode,
    SavePartition,
    SavePayload,
    SaveStep,
)
from roadstead.core.history import Record, Wanted
from roadstead.core.lifecycle import Job, Step
from roadstead.core.model import JobSpec, StepRequest, compact_json, from_json
from roadstead.core.site import NodeCondition, Partition
from roadstead.errors import EngineError
from roadstead.host.wire import dumps, loads

VERSION: Final = 3
_LOWEST_SPECIAL_STEP: Final = 0xFFFFFFF0  # slurm.h: steps from here on have no number of their own
_LOG_PAGES: Final = 256
_PAGE: Final = 4096  # bytes, SQLite's default
_HEADING: Final = re.compile(r"^-- (.+) --$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a controller that starts has to know."""

    jobs: tuple[Job, ...]
    steps: tuple[Step, ...]
    next_job_id: int
    next_step_ids: dict[int, int]
    conditions: dict[str, NodeCondition]
    partitions: dict[str, Partition | None]
    kept: dict[int, float]  # payloads of jobs that have ended, and when that was


class Journal:
    """An open journal.  Raises EngineError when it cannot be used, now or later."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._sql = _statements()
        self._specs: dict[int, JobSpec] = {}  # as last written, of unfinished jobs
        if _is_emptied(path):
            raise self._failure(sqlite3.DatabaseError("it is empty, and its log is not"))
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            # Of a payload, which may hold secrets, no trace stays in pages that are free.
            self._db.execute("PRAGMA secure_delete = ON")
            self._migrate()
            self._make_room()
        except sqlite3.Error as error:
            raise self._failure(error) from None

    def close(self) -> None:
        self._db.close()

    # -- writing --------------------------------------------------------------------------------

    def commit(self, effects: Iterable[Effect]) -> None:
        """Write what is to be saved, in one transaction: the last state of each thing."""
        jobs: dict[int, Job] = {}
        steps: dict[tuple[int, int], Step] = {}
        payloads: list[SavePayload] = []
        dropped: list[int] = []
        nodes: list[SaveNode] = []
        partitions: list[SavePartition] = []
        for effect in effects:
            if isinstance(effect, Save):
                jobs[effect.job.id] = effect.job
            elif isinstance(effect, SaveStep):
                steps[effect.step.key] = effect.step
            elif isinstance(effect, SavePayload):
                payloads.append(effect)
            elif isinstance(effect, DropPayload):
                dropped.append(effect.job_id)
            elif isinstance(effect, SaveNode):
                nodes.append(effect)
            elif isinstance(effect, SavePartition):
                partitions.append(effect)
        if not any((jobs, steps, nodes, partitions, dropped)):
            return
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for job in jobs.values():
                self._save_job(job)
            for step in steps.values():
                self._save_step(step)
            for payload in payloads:
                row = (payload.job_id, dumps(payload.env), dumps(payload.script))
                self._db.execute(self._sql["save payload"], row)
            for node in nodes:
                condition = dumps(compact_json(node.condition))
                self._db.execute(self._sql["save node"], (node.node, condition))
            for each in partitions:
                found = None if each.partition is None else compact_json(each.partition)
                self._db.execute(self._sql["save partition"], (each.name, dumps(found)))
            for job_id in dropped:
                self._db.execute(self._sql["drop payload"], (job_id,))
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._failure(error) from None

    def forget_partitions(self) -> None:
        """What scontrol made of partitions is over: roadstead.conf is read again."""
        try:
            self._db.execute(self._sql["forget partitions"])
        except sqlite3.Error as error:
            raise self._failure(error) from None

    def purge(self, kept: int, most: int) -> bool:
        """Forget the jobs that ended first, at most so many of them, so that ``kept`` that have
        ended stay; whether there may be more.  The highest number stays in any case: it tells the
        next one."""
        try:
            found = [row[0] for row in self._rows("ended jobs but the last", most, kept)]
            if found:
                self._db.execute("BEGIN IMMEDIATE")
                for statement in ("forget steps", "forget jobs"):
                    self._db.execute(self._sql[statement], (dumps(found),))
                self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._failure(error) from None
        return len(found) == most

    def _save_job(self, job: Job) -> None:
        word, ended_at = job.state.word.value, _ended_at(job.state)
        state = _state_text(job.state)
        if self._specs.get(job.id) is job.spec:
            row = (word, ended_at, state, job.restarts, job.id)
            self._db.execute(self._sql["save job state"], row)
        else:
            spec = dumps(compact_json(job.spec))
            # The components of a heterogeneous job are found by its number too.
            group = job.spec.array or job.spec.het
            array = None if group is None else group.job_id
            about = (
                job.id,
                job.spec.key or None,
                array,
                word,
                _ascii(job.spec.name),
                job.submitted_at,
            )
            self._db.execute(self._sql["save job"], (*about, ended_at, spec, state, job.restarts))
        if ended_at is None:
            self._specs[job.id] = job.spec
        else:
            self._specs.pop(job.id, None)

    def _save_step(self, step: Step) -> None:
        wanted = compact_json(step.request)
        wanted.pop("env", None)  # its parts have none (core/het.py)
        row = (step.job_id, step.id, step.state.word.value, step.submitted_at)
        texts = (_ended_at(step.state), dumps(wanted), _state_text(step.state))
        self._db.execute(self._sql["save step"], (*row, *texts))

    # -- reading --------------------------------------------------------------------------------

    def load(self) -> Contents:
        """Everything that has not ended."""
        jobs = tuple(_job(row) for row in self._rows("unfinished jobs"))
        self._specs = {job.id: job.spec for job in jobs}
        highest = self._rows("highest steps", _LOWEST_SPECIAL_STEP)
        return Contents(
            jobs=jobs,
            steps=tuple(_step(row) for row in self._rows("unfinished steps")),
            next_job_id=self._rows("highest job")[0][0] + 1,
            next_step_ids={job_id: step_id + 1 for job_id, step_id in highest},
            conditions={
                name: from_json(NodeCondition, loads(text)) for name, text in self._rows("nodes")
            },
            partitions={
                name: None if (found := loads(text)) is None else from_json(Partition, found)
                for name, text in self._rows("partitions")
            },
            kept=dict(self._rows("kept payloads")),
        )

    def payload(self, job_id: int) -> tuple[dict[str, str], str]:
        """The environment and the script that a batch job was submitted with."""
        for env, script in self._rows("payload", job_id):
            return loads(env), loads(script)
        return {}, ""

    def job(self, job_id: int) -> Job | None:
        return next((_job(row) for row in self._rows("job", job_id)), None)

    def ended_of_array(self, job_id: int) -> tuple[Job, ...]:
        """The elements of an array that have ended."""
        return tuple(_job(row) for row in self._rows("jobs of array", job_id))

    def job_of_key(self, key: str) -> Job | None:
        """The job that the request with this key has made."""
        return next((_job(row) for row in self._rows("job of key", key)), None)

    def jobs_ended_since(self, at: float) -> tuple[Job, ...]:
        return tuple(_job(row) for row in self._rows("jobs ended since", at))

    def step(self, job_id: int, step_id: int) -> Step | None:
        return next((_step(row) for row in self._rows("step", job_id, step_id)), None)

    def records(self, wanted: Wanted, most: int) -> tuple[Record, ...]:
        """A page of the history: at most so many jobs, by number, each with its steps."""
        names = None if wanted.names is None else dumps([_ascii(each) for each in wanted.names])
        bounds = (wanted.after, wanted.since, wanted.until, names)
        if wanted.jobs is not None:
            rows = self._rows("history of jobs", dumps(list(wanted.jobs)), *bounds, most)
        elif wanted.since is None:
            rows = self._rows("all history", wanted.after, wanted.until, names, most)
        else:
            rows = self._rows("history", *bounds, most)
        jobs = [_job(row) for row in rows]
        steps: dict[int, list[Step]] = {job.id: [] for job in jobs}
        for row in self._rows("steps of jobs", dumps(list(steps))):
            steps[row[0]].append(_step(row))
        return tuple((job, tuple(steps[job.id])) for job in jobs)

    def _rows(self, name: str, *values: object) -> list[Any]:
        try:
            return self._db.execute(self._sql[name], values).fetchall()
        except sqlite3.Error as error:
            raise self._failure(error) from None

    # -- versions and failures ------------------------------------------------------------------

    def _migrate(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise EngineError(
                f"{self._path} is of version {version}, this roadstead knows {VERSION}",
                hint="use the newer roadstead that wrote it",
            )
        for number in range(version + 1, VERSION + 1):
            self._db.executescript(
                f"BEGIN; {self._sql[f'migration {number}']}; PRAGMA user_version = {number}; COMMIT"
            )

    def _make_room(self) -> None:
        """Let the write-ahead log have its full size now.

        A commit into a log that grows makes the file system commit its own journal too, with
        whatever else is waiting there; one that overwrites does not (0.4 ms against 0.7 and more).
        The log starts again from its beginning at each checkpoint, every _LOG_PAGES pages.  On a
        full disk it keeps the size it has: what runs can still be found, listed and ended.
        """
        self._db.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
        with contextlib.suppress(sqlite3.OperationalError):
            self._db.execute("DROP TABLE IF EXISTS room")  # of one that found the disk full here
            self._db.execute("CREATE TABLE room (bytes BLOB) STRICT")
            self._db.execute("INSERT INTO room VALUES (zeroblob(?))", (_LOG_PAGES * _PAGE,))
            self._db.execute("DROP TABLE room")
            self._db.execute("PRAGMA wal_checkpoint(RESTART)")

    def _failure(self, error: sqlite3.Error) -> EngineError:
        if isinstance(error, sqlite3.OperationalError):
            return EngineError(f"{self._path}: {error}", hint="is the disk full or read-only?")
        path, away = self._path, f"{os.path.dirname(self._path)}/damaged"
        return EngineError(
            f"{path} is damaged: {error}",
            hint=f"move it away (its jobs are forgotten then): mkdir {away} && mv {path}* {away}",
        )


def _is_emptied(path: str) -> bool:
    """Whether there is nothing in the file, and something in its log: SQLite would take that for a
    new database, and delete the log."""
    try:
        return not os.path.getsize(path) and bool(os.path.getsize(f"{path}-wal"))
    except FileNotFoundError:
        return False


def _statements() -> dict[str, str]:
    """The blocks of journal.sql by name."""
    with open(f"{os.path.dirname(__file__)}/journal.sql", encoding="utf-8") as file:
        _, *blocks = _HEADING.split(file.read())
    return dict(zip(blocks[::2], blocks[1::2], strict=True))


def _ended_at(state: life.JobState | life.StepState) -> float | None:
    return state.ended_at if isinstance(state, (life.JobEnded, life.StepEnded)) else None


def _state_text(state: life.JobState | life.StepState) -> str:
    """The state's JSON; its word is what tells the states apart, so it is always there."""
    return str(dumps({**compact_json(state), "word": state.word.value}))


def _job(row: tuple[int, float, str, str, int]) -> Job:
    job_id, submitted_at, spec, state, restarts = row
    return Job(
        id=job_id,
        spec=from_json(JobSpec, loads(spec)),
        submitted_at=submitted_at,
        state=life.job_state(loads(state)),
        restarts=restarts,
    )


def _step(row: tuple[int, int, float, str, str]) -> Step:
    job_id, step_id, submitted_at, wanted, state = row
    return Step(
        job_id=job_id,
        id=step_id,
        request=from_json(StepRequest, loads(wanted)),
        submitted_at=submitted_at,
        state=life.step_state(loads(state)),
    )


def _ascii(text: str) -> str:
    """Text that SQLite takes: arguments may hold bytes that are not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()
