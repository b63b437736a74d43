"""Letters about a job, as its user has asked for (mail.py): when, and in what words.

The subjects are Slurm's (seen: 22.05), because people filter their mail by them.  A job array is
one thing, of which its first beginning and its last end are told, unless ARRAY_TASKS is asked for.
Of a heterogeneous job the first component is told.
"""

from __future__ import annotations

from typing import Final

from roadstead.core import effects as do
from roadstead.core import het, values
from roadstead.core import lifecycle as life
from roadstead.core.arrays import Array
from roadstead.core.effects import Effects
from roadstead.core.lifecycle import Job, Outcome
from roadstead.core.mail import PARTS

_FAILED: Final = (life.FAILED, life.TIMEOUT, life.NODE_FAIL, life.OUT_OF_MEMORY, life.DEADLINE)


def timers(job: Job, ends_at: float) -> list[tuple[str, float]]:
    """Of which parts of its time limit the user wants to hear, and when they are over."""
    mail, limit = job.spec.mail, job.spec.time_limit
    if mail is None or limit is None or het.is_led(job.spec):
        return []
    return [
        (f"mail{part}", ends_at - limit * (100 - part) / 100)
        for word, part in PARTS.items()
        if word in mail.types
    ]


def begun(effects: Effects, job: Job, array: Array | None, at: float) -> None:
    """It has its allocation."""
    if array is not None and not _wants(job, "ARRAY_TASKS"):
        if not array.told_begin:
            array.told_begin = True
            _send(effects, job, "BEGIN", "Began", summary=True)
        return
    queued = values.format_time(max(0, int(at) - int(job.submitted_at)))
    _send(effects, job, "BEGIN", f"Began, Queued time {queued}")


def ended(effects: Effects, job: Job, array: Array | None, *, last: bool) -> None:
    """It is over.  ``last``: so is its array."""
    assert isinstance(job.state, life.JobEnded)
    outcome = job.state.outcome
    if array is not None and not _wants(job, "ARRAY_TASKS"):
        low, high = array.codes or (outcome.code, outcome.code)
        array.codes = min(low, outcome.code), max(high, outcome.code)
        array.failed = array.failed or (outcome.word if outcome.word in _FAILED else "")
        if last:
            word = array.failed or outcome.word
            low, high = array.codes
            codes = f"{low}" if low == high else f"[{low}-{high}]"
            _send_end(effects, job, word, f"{word}, ExitCode {codes}", summary=True)
        return
    _send_end(effects, job, outcome.word, f"{_ran(job)}, {_said(outcome)}", summary=False)


def _send_end(effects: Effects, job: Job, word: str, words: str, *, summary: bool) -> None:
    if word in _FAILED and _wants(job, "FAIL"):
        _send(effects, job, "FAIL", f"Failed, {words}", summary=summary)
    else:
        _send(effects, job, "END", f"Ended, {words}", summary=summary)


def requeued(effects: Effects, job: Job) -> None:
    """It waits once more."""
    _send(effects, job, "REQUEUE", "Requeued")


def never(effects: Effects, job: Job) -> None:
    """Its dependency can never be met."""
    _send(effects, job, "INVALID_DEPEND", "Invalid dependency")


def time_passed(effects: Effects, job: Job, part: int) -> None:
    """So many hundredths of its time limit are over."""
    words = "Reached time limit" if part == 100 else f"Reached {part}% of time limit"
    _send(effects, job, "TIME_LIMIT" if part == 100 else f"TIME_LIMIT_{part}", words)


def _ran(job: Job) -> str:
    assert isinstance(job.state, life.JobEnded)
    granted = job.state.allocation
    seconds = 0 if granted is None else int(job.state.ended_at) - int(granted.started_at)
    return f"Run time {values.format_time(max(0, seconds))}"


def _said(outcome: Outcome) -> str:
    return f"{outcome.word}, ExitCode {outcome.code}"


def _wants(job: Job, word: str) -> bool:
    return job.spec.mail is not None and word in job.spec.mail.types


def _send(effects: Effects, job: Job, word: str, words: str, *, summary: bool = False) -> None:
    mail = job.spec.mail
    if mail is None or word not in mail.types or het.is_led(job.spec):
        return
    task = job.spec.array
    what = f"Job_id={job.id}"
    if task is not None and summary:
        what = f"Array Summary Job_id={task.job_id}_* ({task.job_id})"
    elif task is not None:
        what = f"Array Task Job_id={task.job_id}_{task.task_id} ({job.id})"
    name = "".join(char if char.isprintable() else "?" for char in job.spec.name)
    effects(do.Mail(mail.program, mail.user, f"Slurm {what} Name={name} {words}"))
