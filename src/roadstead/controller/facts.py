"""What is looked up for a message before the reactor sees it: the journal, /proc, oci.conf.

Only what the request needs: a submission costs one look for its key, a query what it shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeGuard

from roadstead.controller import machine
from roadstead.controller.journal import Journal
from roadstead.core import dependency, history, values
from roadstead.core.events import Facts
from roadstead.core.lifecycle import Job, JobEnded
from roadstead.core.request import Extra
from roadstead.core.state import State
from roadstead.errors import RoadsteadError
from roadstead.oci import search
from roadstead.step import record

_LARGEST_ROW: Final = (1 << 63) - 1


def gather(state: State, journal: Journal, body: Mapping[str, Any], pid: int, now: float) -> Facts:
    """The facts for a message.  Raises RoadsteadError for an oci.conf that cannot be used."""
    match body.get("op"):
        case "run" | "submit" | "allocate" | "rehearse":
            return Facts(
                extra=_extra(body, pid),
                known=_known(state, journal, body),
                named=_named(state, journal, _dependency(body.get("options")), 0.0),
            )
        case "control":
            return _for_control(state, journal, body, now)
        case "wait" | "ready":
            return _for_wait(state, journal, body)
        case "query":
            return _for_query(state, journal, body, now)
        case _:
            return Facts()


def _extra(body: Mapping[str, Any], pid: int) -> Extra:
    env = body.get("env")
    oci_conf = ""
    if any(map(_is_contained, _components(body))) and _is_environment(env):
        oci_conf = search.find(env) or ""
    group = machine.group_name(body.get("gid"))
    limits = machine.other_limits(pid)
    if body.get("op") == "submit":  # a batch job does not end with its sbatch
        return Extra(group=group, oci_conf=oci_conf, limits=limits)
    start = record.start_time(pid)
    return Extra(group=group, oci_conf=oci_conf, client_pid=pid, client_start=start, limits=limits)


def _components(body: Mapping[str, Any]) -> list[object]:
    """The options of a job, or of each of its components."""
    others = body.get("components")
    listed = others if isinstance(others, list) else []
    return [each.get("options") for each in (body, *listed) if isinstance(each, Mapping)]


def _is_contained(options: object) -> bool:
    return isinstance(options, dict) and bool(
        options.get("container") or options.get("container-name")
    )


def _known(state: State, journal: Journal, body: Mapping[str, Any]) -> Job | None:
    key = body.get("key")
    if not isinstance(key, str) or not key.isascii() or not key or key in state.keys:
        return None
    return journal.job_of_key(key)


def _for_control(state: State, journal: Journal, body: Mapping[str, Any], now: float) -> Facts:
    """Jobs that are over, but not for long, can be requeued; others can be waited for."""
    names = body.get("jobs")
    jobs = names if isinstance(names, list) else []
    numbers = [number for name in jobs if (number := _job_number(name)) is not None]
    named = _named(state, journal, numbers, now - state.settings.min_job_age)
    return Facts(named={**_named(state, journal, _dependency(body.get("changes")), 0.0), **named})


def _job_number(name: object) -> int | None:
    if isinstance(name, str):
        number = name.partition("_")[0]
        return _row_number(int(number)) if values.is_number(number) else None
    return _row_number(name)


def _dependency(options: object) -> list[int]:
    """The jobs that a dependency names."""
    text = options.get("dependency") if isinstance(options, dict) else None
    if not isinstance(text, str) or not text:
        return []
    try:
        found = dependency.parse(text)
    except RoadsteadError:
        return []  # the reactor says so
    return [] if found is None else [each.job_id for each in found.needs if each.job_id]


def _named(
    state: State, journal: Journal, numbers: list[int], since: float
) -> dict[int, tuple[Job, ...]]:
    """Jobs of these numbers, elements of arrays too, that have ended since then."""
    found = {}
    for number in dict.fromkeys(numbers):
        jobs = [job for job in _ended(state, journal, number) if _ended_at(job) >= since]
        if jobs:
            found[number] = tuple(jobs)
    return found


def _ended_at(job: Job) -> float:
    return job.state.ended_at if isinstance(job.state, JobEnded) else 0.0


def _for_wait(state: State, journal: Journal, body: Mapping[str, Any]) -> Facts:
    job_id, step_id = _row_number(body.get("job_id")), _row_number(body.get("step_id"))
    if job_id is None:
        return Facts()
    ended = _ended(state, journal, job_id)
    if step_id is None or (job_id, step_id) in state.steps:
        return Facts(ended_jobs=ended)
    return Facts(ended_jobs=ended, ended_step=journal.step(job_id, step_id))


def _for_query(state: State, journal: Journal, body: Mapping[str, Any], now: float) -> Facts:
    what, job_id = body.get("what"), _row_number(body.get("job_id"))
    if what == "nodes":
        return Facts(load=machine.load(), memory_free=machine.memory_free())
    if what == "history":
        return Facts(records=journal.records(history.wanted(body), history.PAGE))
    if what != "jobs":
        return Facts()
    if job_id is not None:
        script = journal.payload(job_id)[1] if body.get("details") else None
        return Facts(ended_jobs=_ended(state, journal, job_id), script=script)
    return Facts(
        ended_jobs=journal.jobs_ended_since(now - state.settings.min_job_age)
        if body.get("all")
        else ()
    )


def _is_environment(env: object) -> TypeGuard[dict[str, str]]:
    """Whether the reactor will take it; what it will not take must not be looked into either."""
    return isinstance(env, dict) and all(
        isinstance(value, str) and "\0" not in value for value in env.values()
    )


def _row_number(value: object) -> int | None:
    """A number that SQLite can look for."""
    return value if type(value) is int and 0 <= value <= _LARGEST_ROW else None


def _ended(state: State, journal: Journal, job_id: int) -> tuple[Job, ...]:
    elements = journal.ended_of_array(job_id)
    if elements:
        return elements
    job = None if job_id in state.jobs else journal.job(job_id)
    return () if job is None else (job,)
