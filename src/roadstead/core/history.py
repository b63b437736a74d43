"""What sacct is told: jobs with their steps, as the journal has them, ended or not.

A record is the job as squeue and scontrol see it, with what accounting adds: the steps that there
have been, what they used, and how each ended.  A step's state follows from its exit code alone, as
Slurm's accounting derives it: one that a signal ended is CANCELLED, whoever sent the signal.

Pure.  The journal finds the records (controller/journal.py), a page at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from roadstead.core import hostlist, views
from roadstead.core import lifecycle as life
from roadstead.core.lifecycle import Job, Step
from roadstead.core.model import to_json
from roadstead.core.state import State
from roadstead.errors import EngineError

PAGE: Final = 200  # what takes some 30 ms to read and to tell: others wait meanwhile
_SIG_OOM: Final = 125


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which jobs: those with these numbers, or of these arrays (None: all), and of these names
    (None: any), that were there between two moments (None: ever), behind job ``after``."""

    jobs: tuple[int, ...] | None = None
    since: float | None = None
    until: float | None = None
    after: int = -1
    names: tuple[str, ...] | None = None


Record = tuple[Job, tuple[Step, ...]]


def wanted(query: Mapping[str, Any]) -> Wanted:
    """What a request asks for.  Raises EngineError for one that no command of ours makes."""
    jobs, after = query.get("jobs"), query.get("after")
    if jobs is not None and not (isinstance(jobs, list) and all(type(n) is int for n in jobs)):
        raise EngineError("malformed request: jobs")
    names = query.get("names")
    if names is not None and not (
        isinstance(names, list) and all(isinstance(each, str) for each in names)
    ):
        raise EngineError("malformed request: names")
    if type(after) not in (int, type(None)):
        raise EngineError("malformed request: after")
    return Wanted(
        jobs=None if jobs is None else tuple(jobs),
        since=_moment(query, "since"),
        until=_moment(query, "until"),
        after=-1 if after is None else after,
        names=None if names is None else tuple(names),
    )


def _moment(query: Mapping[str, Any], name: str) -> float | None:
    value = query.get(name)
    if value is not None and type(value) not in (int, float):
        raise EngineError(f"malformed request: {name}")
    return None if value is None else float(value)


def page(
    state: State, records: Sequence[Record], at: float, *, tasks: bool = False
) -> dict[str, Any]:
    """The fields of the answer: so many records, and where the next page begins.  With ``tasks``
    each step says how each of its tasks ended."""
    found: dict[str, Any] = {
        "jobs": [record(state, job, steps, at, tasks=tasks) for job, steps in records]
    }
    if len(records) == PAGE:
        found["more"] = records[-1][0].id
    return found


def record(
    state: State, job: Job, steps: tuple[Step, ...], at: float, *, tasks: bool = False
) -> dict[str, Any]:
    """A job with its steps.  What the state knows is newer than what the journal has."""
    job = state.jobs.get(job.id, job)
    now = [state.steps.get(each.key, each) for each in steps]
    seen = [{**_step(each), **(_tasks(each) if tasks else {})} for each in now]
    return {**views.job(state, job, at), "steps": sorted(seen, key=_order)}


def _order(step: Mapping[str, Any]) -> tuple[bool, int]:
    """The batch script's or the allocation's own step first, as sacct lists them."""
    return step["step_id"] < 0xFFFFFFF0, step["step_id"]


def _step(step: Step) -> dict[str, Any]:
    wanted, now = step.request, step.state
    record = now.record if isinstance(now, life.StepEnded) else None
    place = None if isinstance(now, life.StepPending) else now.place
    shares = () if place is None else place.shares
    running = isinstance(now, (life.StepRunning, life.StepCompleting))
    started = now.started_at if running else None  # type: ignore[union-attr]
    code, signal = _exit(step)
    return {
        "step_id": step.id,
        "name": wanted.name,
        "state": _word(step, code, signal),
        "submit_time": step.submitted_at,
        "start_time": started if record is None else record.started_at,
        "end_time": now.ended_at if isinstance(now, life.StepEnded) else None,
        "exit_code": code,
        "exit_signal": signal,
        "nodes": len(shares),
        "node": hostlist.fold([share.node for share in shares]),
        "cpus": sum([len(share.cpus) for share in shares]),
        "memory": sum([share.memory for share in shares]),
        "ntasks": wanted.ntasks,
        "pid": now.pid if running else 0,  # type: ignore[union-attr]
        "container": "" if wanted.container is None else wanted.container.bundle,
        "argv": list(wanted.argv),
        "user_seconds": 0.0 if record is None else record.user_seconds,
        "system_seconds": 0.0 if record is None else record.system_seconds,
        "max_rss_kib": 0 if record is None else record.max_rss_kib,
        "measured": record is not None,
    }


def _tasks(step: Step) -> dict[str, Any]:
    """What `roadstead jobs` shows beside."""
    container, now = step.request.container, step.state
    record = now.record if isinstance(now, life.StepEnded) else None
    return {
        "image": "" if container is None else container.image,
        "tasks": [] if record is None else [to_json(task) for task in record.tasks],
    }


def _exit(step: Step) -> tuple[int, int]:
    now = step.state
    if not isinstance(now, life.StepEnded) or now.record is None:
        return 0, 0
    if any(task.reason == "memory" for task in now.record.tasks):
        return 0, _SIG_OOM
    worst = now.record.worst
    return (0, worst.signal) if worst.signal else (worst.code, 0)


def _word(step: Step, code: int, signal: int) -> str:
    now = step.state
    if not isinstance(now, life.StepEnded):
        return "RUNNING" if now.word == life.COMPLETING else str(now.word.value)
    if now.record is None:
        return "CANCELLED"
    if signal == _SIG_OOM:
        return "OUT_OF_MEMORY"
    if signal:
        return "CANCELLED"
    return "FAILED" if code else "COMPLETED"
