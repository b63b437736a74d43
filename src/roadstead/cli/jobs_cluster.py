"""roadstead jobs on a Slurm cluster: what agents have written down, with what Slurm says of the
jobs (engines/slurm/accounting.py), in the shape of jobs.py."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from roadstead.agent.accounting import DAYS, days_between
from roadstead.cli import cluster, report, words
from roadstead.core import hostlist
from roadstead.engines.slurm import accounting, real
from roadstead.errors import EngineError, RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from roadstead.cli.jobs import Asked
    from roadstead.cli.words import View

_RUNS: Final = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING")
_UNKNOWN: Final = "UNKNOWN"  # Slurm does not know the job any more, and there is no end of it
_MOST_NAMED: Final = 100  # jobs that sacct is asked for by name


def found(asked: Asked, environ: Mapping[str, str]) -> list[View]:
    """The jobs that are asked for.  Raises RoadsteadError."""
    queue: dict[int, Any] = {}
    try:
        queue = accounting.queue(environ)
    except EngineError as error:
        if asked.fetch:
            raise
        report.warn("roadstead", f"{error}, so states are not known; {error.hint}")
    if asked.fetch:
        _fetch(asked, queue, environ)
    written = accounting.steps(accounting.entries(environ, since=asked.since, jobs=asked.numbers))
    older = [job for job, about in queue.items() if about["state"] in _RUNS and job not in written]
    if older and not asked.words:
        written |= accounting.steps(accounting.entries(environ, jobs=older))
    past = _past(asked, {*written, *asked.numbers} - queue.keys(), environ)
    jobs = []
    for number in sorted({*written, *queue, *past}):
        about = queue.get(number) or past.get(number) or {}
        has = written.get(number) or {"array": "", "name": "", "steps": {}}
        if has["steps"] or about.get("container"):
            jobs.append(_job(number, about, has))
    return jobs


def _past(asked: Asked, unknown: set[int], environ: Mapping[str, str]) -> dict[int, Any]:
    """What accounting has of jobs that slurmctld does not know any more."""
    if not unknown:
        return {}
    named = sorted(unknown) if len(unknown) <= _MOST_NAMED else []
    return accounting.ended(environ, None if named else asked.since, named)


def _job(number: int, about: View, has: View) -> View:
    state = about.get("state") or _UNKNOWN
    steps = [_step(name, each, state) for name, each in sorted(has["steps"].items(), key=_order)]
    starts = [each["start"] for each in steps if each["start"] is not None]
    start = about.get("start")
    return {
        "job_id": number,
        "id": has["array"] or about.get("id") or str(number),
        "name": about.get("name") or has["name"],
        "state": state,
        "container": about.get("container", ""),
        "start": min(starts, default=None) if start is None else start,
        "end": about.get("end") if state in words.FINISHED else None,
        "nodes": about.get("nodes", ""),
        "steps": steps,
    }


def _order(item: tuple[str, Any]) -> tuple[bool, int]:
    """The batch script's and the allocation's own steps first, as sacct has them."""
    name = item[0]
    return name.isdigit(), int(name) if name.isdigit() else 0


def _step(name: str, step: View, state_of_job: str) -> View:
    tasks = [{"task": number, **task} for number, task in sorted(step["tasks"].items())]
    ended = [task for task in tasks if task["end"] is not None]
    for task in tasks:
        if task["end"] is None:
            task |= {"code": 0, "signal": 0, "reason": "", "message": "", "hint": ""}
    worst: View = max(ended, key=lambda task: task["code"], default={"code": 0, "signal": 0})
    over = len(ended) == len(tasks)
    starts = [task["start"] for task in tasks if task["start"] is not None]
    return {
        "step": name,
        "state": _ended_as(worst) if over else _still(state_of_job),
        "code": 0 if worst["signal"] else worst["code"],
        "signal": worst["signal"],
        "container": step["container"],
        "image": step["image"],
        "staging": step["staging"],
        "start": min(starts, default=None),
        "end": max(task["end"] for task in ended) if over else None,
        "nodes": hostlist.fold(sorted({task["node"] for task in tasks})),
        "ntasks": len(tasks),
        "tasks": tasks,
    }


def _ended_as(worst: View) -> str:
    """A step's state by its exit code alone, as Slurm's accounting derives it."""
    if worst["signal"]:
        return "CANCELLED"
    return "FAILED" if worst["code"] else "COMPLETED"


def _still(state_of_job: str) -> str:
    """The state of a step that has tasks without an end: Slurm has killed them all at once, if
    they do not run, or their nodes have not been asked yet."""
    if state_of_job in _RUNS:
        return "RUNNING"
    ends = state_of_job in words.FINISHED and state_of_job not in ("COMPLETED", "FAILED")
    return state_of_job if ends else _UNKNOWN


# -- from nodes that share nothing with us ---------------------------------------------------------


def _fetch(asked: Asked, queue: Mapping[int, View], environ: Mapping[str, str]) -> None:
    """Bring what nodes have written down of the jobs that are asked for."""
    known = {**_past(asked, set(asked.numbers) - queue.keys(), environ), **queue}
    jobs = {
        number: about
        for number, about in known.items()
        if asked.words and asked.names({"job_id": number, **about}) and about["nodes"]
    }
    own = environ.get("SLURM_JOB_ID", "")
    held = set(hostlist.expand(environ.get("SLURM_JOB_NODELIST", ""))) if own else set()
    others: set[str] = set(hostlist.expand(asked.nodes)) if asked.nodes else set()
    if not jobs and not others:
        raise RequestError(
            f"Slurm does not know (any more) on which nodes {' '.join(asked.words)} ran",
            hint="roadstead jobs --fetch --nodes LIST asks these",
        )
    now = time.time()
    begin = min([about["start"] or now for about in jobs.values()], default=asked.since or now)
    days = days_between(begin, now)[:DAYS]
    for number, about in jobs.items():
        nodes = hostlist.expand(about["nodes"])
        if about["state"] in _RUNS and not asked.nodes and str(number) != own:
            accounting.fetch(nodes, str(number), days, environ)
        else:
            others.update(nodes if not asked.nodes else ())
    if others and others <= held:
        accounting.fetch(sorted(others), own, days, environ)
    elif others:
        _allocate(asked, sorted(others), environ)


def _allocate(asked: Asked, nodes: Sequence[str], environ: Mapping[str, str]) -> None:
    """Become an salloc of the nodes that runs this again."""
    names = hostlist.fold(list(nodes))
    argv = [
        "--quiet", f"--nodelist={names}", f"--nodes={len(nodes)}", "--ntasks-per-node=1",
        "--time=10", "--job-name=roadstead-jobs",
        *cluster.ourselves("main"), "jobs", "--fetch", f"--nodes={names}", *asked.again,
    ]  # fmt: skip
    real.become("salloc", argv, environ, called="roadstead")
