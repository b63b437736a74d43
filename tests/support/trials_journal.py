"""Trials by power cut: the journal of a killed engine, cut off at a random byte (script/trials).

Cut off the write-ahead log and every commit that is whole is still there: the state of an earlier
moment.  Cut off the database itself, which no power cut does to a file that was synced, and the
controller may say that it is damaged.  What the journal holds is read beforehand by SQLite alone.

The machine was restarted, as far as the controller can tell: nothing runs any more, and a job that
had begun must not begin again.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.support import leaks
from tests.support.account import Account, Completed
from tests.support.engine import Engine, make_base, make_shims
from tests.support.product import locate
from tests.support.trials import Failure
from tests.support.waiting import eventually

_FILES = ("journal.db", "journal.db-wal")
_OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY")
# A line in a file of the engine that runs the job, whichever that is.
_BASE = "${ROADSTEAD_STEP_DIR%/run/roadstead/*}"
_SCRIPT = f"echo $SLURM_JOB_ID >> {_BASE}/ran"


# What becomes of a job: what had not begun runs, what had begun has failed.
_ENDS = {"PENDING": "COMPLETED", "RUNNING": "FAILED"}


class Row(NamedTuple):
    """A job as the journal has it."""

    number: int
    word: str
    name: str


class Cutter:
    """An engine's journal, and what becomes of the parts of it."""

    def __init__(self, account: Account, shims: Path) -> None:
        self.engine = Engine(account, shims, make_base(account))
        self.source = self.engine.base / "source"
        self.source.mkdir()
        self._record()
        self.sizes = {name: (self.source / name).stat().st_size for name in _FILES}
        self._jobs_at: dict[int, int] = {}  # size of the log → jobs in it

    def _record(self) -> None:
        """Jobs in every state, then kill -9."""
        run = self.engine.run
        for number in range(3):
            run(["srun", "true"]).check()
            run(["sbatch", "-W", "-o/dev/null", "--wrap", f"{_SCRIPT}; exit {number}"])
        cpus = str(len(os.sched_getaffinity(0)))
        run(
            [
                "sbatch",
                "-o/dev/null",
                f"-c{cpus}",
                "--wrap",
                f"{_SCRIPT}; test -d {_BASE}/source && sleep 600",
            ]
        )
        eventually(lambda: (self.engine.base / "ran").read_text().count("\n") == 4)
        for number in range(6):
            hold = ["--hold", "-Jheld"] if number % 3 == 0 else []
            run(["sbatch", "-o/dev/null", *hold, "--wrap", _SCRIPT]).check()
        leaks.kill(self.engine.mark, [self.engine.base])
        (state,) = (self.engine.state / "roadstead").iterdir()
        self.host = state.name
        for name in _FILES:
            shutil.copy(state / name, self.source / name)
        shutil.rmtree(self.engine.runtime / "roadstead")

    def cut(self, seed: int, number: int) -> Iterator[str]:
        """One trial; what does not hold."""
        chance = random.Random(f"journal {seed}.{number}")
        name = chance.choice((*_FILES[1:] * 4, _FILES[0]))
        size = chance.randrange(self.sizes[name] + 1)
        if name == _FILES[1] and chance.random() < 0.7:
            size = size // 8  # the log is made longer than what is in it
        base = self.engine.base / f"cut{number}"
        state = base / "state" / "roadstead" / self.host
        state.mkdir(parents=True, mode=0o700)
        (base / "run").mkdir(mode=0o700)
        for each in _FILES:
            shutil.copy(self.source / each, state / each)
        os.truncate(state / name, size)
        for fault in self._faults(base, state, name, size):
            yield f"{name} cut off at {size} of {self.sizes[name]}: {fault}"
        shutil.rmtree(base)

    def _faults(self, base: Path, state: Path, name: str, size: int) -> Iterator[str]:
        env = {"XDG_STATE_HOME": str(base / "state"), "XDG_RUNTIME_DIR": str(base / "run")}
        rows = _rows(state, base / "copy")
        done = self.engine.run(["squeue", "-h", "-tall", "-o", "%i %T"], env=env)
        if done.returncode:
            yield from _not_a_sentence(done)
            if name == _FILES[1]:
                yield f"refused: {done}"
            return
        if rows is None:
            yield "SQLite cannot read it, and the controller started"
            return
        try:
            yield from self._compare(rows, done, env)
        finally:
            self.engine.run(["roadstead", "engine", "stop", "--now"], env=env)
        if name == _FILES[1]:
            yield from self._in_order(size, len(rows))
        ran = Counter(_lines(base / "ran"))
        yield from (f"job {line} ran {times} times" for line, times in ran.items() if times > 1)
        begun = {str(row.number) for row in rows if row.word != "PENDING"}
        yield from (f"job {line} had begun, and ran again" for line in ran.keys() & begun)
        audit = self.engine.run(["roadstead", "audit"], env=env)
        if audit.returncode:
            yield f"roadstead audit: {audit}"

    def _compare(self, rows: list[Row], shown: Completed, env: dict[str, str]) -> Iterator[str]:
        there = {int(line.split()[0]) for line in shown.stdout.splitlines()}
        if missing := sorted({row.number for row in rows} - there):
            yield f"jobs {missing} are lost"
        self.engine.run(["scancel", "-nheld"], env=env).check()
        eventually(
            lambda: not self.engine.run(["squeue", "-h"], env=env).stdout.strip(),
            timeout=30,
            what="an empty queue",
        )
        done = self.engine.run(["squeue", "-h", "-tall", "-o", "%i %T"], env=env)
        states = dict(line.split() for line in done.stdout.splitlines())
        for row in rows:
            held = row.word == "PENDING" and row.name == "held"
            wanted = "CANCELLED" if held else _ENDS.get(row.word, row.word)
            if states.get(str(row.number)) not in (wanted, *_OVER[: row.word == "COMPLETING"]):
                yield f"job {row.number} was {row.word} and is {states.get(str(row.number))}"

    def _in_order(self, size: int, jobs: int) -> Iterator[str]:
        """More of the log never holds fewer jobs."""
        self._jobs_at[size] = jobs
        below = [count for length, count in self._jobs_at.items() if length < size]
        if below and max(below) > jobs:
            yield f"{jobs} jobs, and {max(below)} in less of it"


def _lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def _rows(state: Path, copy: Path) -> list[Row] | None:
    """The jobs in a journal, as SQLite finds them in a copy; None where it cannot read it."""
    copy.mkdir()
    for name in _FILES:
        shutil.copy(state / name, copy / name)
    if not os.path.getsize(copy / _FILES[0]):
        return None  # SQLite would take it for a new one, and throw the log away
    database = sqlite3.connect(copy / _FILES[0])
    try:
        found = database.execute("SELECT id, word, name FROM job ORDER BY id").fetchall()
        database.execute("SELECT count(*) FROM step, payload").fetchall()
    except sqlite3.DatabaseError:
        return None
    finally:
        database.close()
    return [Row(*row) for row in found]


def _not_a_sentence(done: Completed) -> Iterator[str]:
    if "Traceback" in done.stderr or "is damaged" not in done.stderr:
        yield f"not a sentence: {done}"
    elif len(done.stderr.splitlines()) != 1:
        yield f"more than a sentence: {done}"


def run(seed: int, numbers: range, keep: bool) -> None:
    """Run the trials of these numbers.  Raises Failure at the first that does not hold."""
    if not numbers:
        return
    account = Account.current()
    product = locate(account)
    shims = make_shims(product, account)
    cutter = Cutter(account, shims)
    try:
        for number in numbers:
            try:
                faults = list(cutter.cut(seed, number))
            except AssertionError as error:
                faults = [str(error)]
            if faults:
                cutter.engine.leaks_are_expected = True
                where = f"\nkept: {cutter.engine.base}" if keep else ""
                repeat = f"--seed {seed} --kind truncate --first {number} --count 1"
                raise Failure("\n".join([f"seed {seed}, cut {number}:", *faults]) + where, repeat)
    finally:
        if not (keep and cutter.engine.leaks_are_expected):
            cutter.engine.close()
        leaks.remove(shims)
        product.remove()
