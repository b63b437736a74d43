"""roadstead jobs: of container jobs what Slurm's own commands do not tell.

Which image that was, by its digest; how it came to the nodes; when the container was started; and
how each task ended, node by node.  On the local engine that is in the journal; on a cluster agents
have written it down (engines/slurm/accounting.py), and Slurm knows the rest.  Both are made one
shape here, which is what --json prints, and of which the tables show a part.
"""

from __future__ import annotations

import json
import os
import time

from roadstead.cli import moments, report, subcommand, table, words
from roadstead.cli.words import Clock
from roadstead.core import hostlist, values
from roadstead.engines import choice, local
from roadstead.errors import RequestError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final

    from roadstead.cli.words import Ask, View

USAGE: Final = (
    "roadstead jobs [--tasks] [--json] [--since TIME] [--fetch [--nodes LIST]] [JOB[.STEP]…]"
)
HELP: Final = f"""Usage: {USAGE}

Shows your jobs and steps in containers: state, exit code and signal, start, and of the container
its image's digest, its reference, and how it came to the nodes.  Without JOB those of the last day,
and those that run or wait.

  --tasks        a row for each task: its node, its exit, and whose failure it was
  --json         one object, for programs; roadstead(1) describes it
  --since TIME   those that ended since: 2026-11-26, 14:00, now-3days (as sacct -S)
  --fetch        on a cluster whose nodes share no directory with this host, bring what they have
                 written down: a step in a job that runs, else a job of one task a node
  --nodes LIST   with --fetch: from these nodes, where Slurm has forgotten the job
  -h, --help     this text
"""
_DAY_SECONDS: Final = 86400.0
_KINDS: Final = {
    "--tasks": False,
    "--json": False,
    "--since": True,
    "--fetch": False,
    "--nodes": True,
}


class Asked:
    """A command line: the words, and what of them is asked for."""

    __slots__ = ("again", "fetch", "json", "nodes", "since", "tasks", "words")

    def __init__(self, given: Mapping[str, str], operands: Sequence[str], now: float) -> None:
        self.json, self.tasks = "--json" in given, "--tasks" in given
        self.fetch, self.nodes = "--fetch" in given, given.get("--nodes", "")
        if self.nodes and not self.fetch:
            raise UsageError("--nodes goes with --fetch", hint=USAGE)
        if self.fetch and not (self.nodes or operands):
            raise UsageError("--fetch needs a job, or --nodes", hint=USAGE)
        # The same question, but for where to fetch from.
        self.again = [
            *[f"{name}={given[name]}" if _KINDS[name] else name
              for name in ("--tasks", "--json", "--since") if name in given],
            *operands,
        ]  # fmt: skip
        self.words = list(dict.fromkeys(operands))
        for word in self.words:
            _number(word)
        self.since: float | None = None if self.words else now - _DAY_SECONDS
        if "--since" in given:
            try:
                self.since = moments.parse(given["--since"], now, past=True)
            except moments.NotAMoment as error:
                raise UsageError(
                    str(error), hint="--since=now-2days, or 2026-11-26T14:00"
                ) from None

    @property
    def numbers(self) -> list[int]:
        """Of the jobs that are named, or of the arrays that they are of."""
        return sorted({_number(word) for word in self.words})

    def names(self, job: View, step: str = "") -> bool:
        """Whether a job, or a step of it, is asked for."""
        if not self.words:
            return True
        ids = {job["id"], str(job["job_id"]), job["id"].partition("_")[0]}
        named = [word.partition(".")[::2] for word in self.words]
        return any(name in ids and (not only or not step or only == step) for name, only in named)


def _number(word: str) -> int:
    job = word.partition(".")[0]
    number = job.partition("_")[0].partition("+")[0]
    if not values.is_number(number):
        raise RequestError(f"Invalid job id: {word}", hint="roadstead jobs lists them")
    return int(number)


def main(
    operands: list[str],
    ask: Ask = local.ask,
    *,
    environ: Mapping[str, str] = os.environ,
    now: float | None = None,
) -> int:
    """``roadstead jobs …``; the exit code.  Raises RoadsteadError."""
    if "-h" in operands or "--help" in operands:
        report.write_out(HELP)
        return 0
    moment = time.time() if now is None else now
    given, named = subcommand.options(operands, _KINDS, "jobs", USAGE)
    named = [each for word in named for each in word.split(",") if each]
    asked = Asked(given, named, moment)
    engine, _ = choice.engine(environ)
    if engine == choice.SLURM:
        from roadstead.cli import jobs_cluster

        found = jobs_cluster.found(asked, environ)
    elif asked.fetch:
        raise RequestError(
            "--fetch is about a Slurm cluster's nodes, and commands go to the local engine here",
            hint="roadstead engine says why",
        )
    else:
        found = _of_local(asked, ask)
    found = sorted(_chosen(asked, found), key=_order)
    if asked.words and not found:
        raise RequestError(
            f"no container job {' '.join(asked.words)} is known",
            hint="roadstead jobs lists those of the last day, --since=now-30days more",
        )
    if asked.json:
        told = {"version": 1, "engine": engine, "jobs": found}
        report.write_out(json.dumps(told, indent=2) + "\n")
        return 0
    clock = Clock(moment, environ.get("SLURM_TIME_FORMAT", ""))
    rows = _rows_of_tasks(found, clock) if asked.tasks else _rows(found, clock)
    report.write_out(table.aligned(rows))
    return 0


def _order(job: View) -> tuple[int, int]:
    """By number, an array's elements by theirs."""
    first, _, task = job["id"].partition("_")
    return _number(first), int(task) if task.isdigit() else 0


def _chosen(asked: Asked, found: Sequence[View]) -> list[View]:
    """The jobs that are asked for, with those of their steps that are."""
    chosen = []
    for job in found:
        steps = [each for each in job["steps"] if asked.names(job, each["step"])]
        if asked.names(job) and (steps or not job["steps"]):
            chosen.append({**job, "steps": steps})
    return chosen


# -- the local engine ------------------------------------------------------------------------------


def _of_local(asked: Asked, ask: Ask) -> list[View]:
    query = {"op": "query", "what": "history", "tasks": True, "since": asked.since, "until": None}
    if asked.words:
        query["jobs"] = asked.numbers
    return [_local_job(job) for job in ask(query)["jobs"] if _is_contained(job)]


def _is_contained(job: View) -> bool:
    return bool(job["container"]) or any(step["container"] for step in job["steps"])


def _local_job(job: View) -> View:
    return {
        "job_id": job["job_id"],
        "id": words.job_id(job),
        "name": job["name"],
        "state": job["state"],
        "container": job["container"],
        "start": words.start_time(job),
        "end": job["end_time"] if job["state"] in words.FINISHED else None,
        "nodes": job["node"],
        "steps": [
            _local_step(step)
            for step in job["steps"]
            if step["container"] and step["start_time"] is not None
        ],
    }


def _local_step(step: View) -> View:
    start, end = step["start_time"], step["end_time"]
    nodes = hostlist.expand(step["node"]) if step["node"] else []
    tasks = [
        {
            "task": task["procid"], "node": task["node"] or (nodes[0] if nodes else ""),
            "start": start, "end": end, "code": task["code"], "signal": task["signal"],
            "reason": task["reason"], "message": task["message"], "hint": task["hint"],
        }
        for task in step["tasks"]
    ]  # fmt: skip
    return {
        "step": words.step_id({"job_id": "", **step}).partition(".")[2],
        "state": step["state"],
        "code": step["exit_code"],
        "signal": step["exit_signal"],
        "container": step["container"],
        "image": step["image"],
        "staging": {},
        "start": start,
        "end": end,
        "nodes": step["node"],
        "ntasks": step["ntasks"],
        "tasks": tasks,
    }


# -- for people ------------------------------------------------------------------------------------


def _rows(found: Sequence[View], clock: Clock) -> list[list[str]]:
    rows = [
        ["JOB", "STATE", "EXIT", "START", "ELAPSED", "NODES", "TASKS", "STAGED", "IMAGE",
         "CONTAINER"],
    ]  # fmt: skip
    for job in found:
        rows += [_row(f"{job['id']}.{step['step']}", step, clock) for step in job["steps"]]
        if not job["steps"]:
            none = {"ntasks": "-", "staging": None, "image": "", "code": None}
            rows.append(_row(job["id"], {**none, **job}, clock))
    return rows


def _row(name: str, view: View, clock: Clock) -> list[str]:
    return [
        name, view["state"], _exit(view), *_times(view, clock), view["nodes"] or "-",
        str(view["ntasks"]), "-" if view["staging"] is None else staged(view["staging"]),
        _short(view["image"]), view["container"] or "-",
    ]  # fmt: skip


def _rows_of_tasks(found: Sequence[View], clock: Clock) -> list[list[str]]:
    rows = [["JOB", "TASK", "NODE", "EXIT", "START", "ELAPSED", "REASON", "MESSAGE"]]
    for job in found:
        for step in job["steps"]:
            for task in step["tasks"]:
                said = "; ".join(each for each in (task["message"], task["hint"]) if each)
                rows.append(
                    [
                        f"{job['id']}.{step['step']}", str(task["task"]), task["node"] or "-",
                        _exit(task), *_times(task, clock), task["reason"] or "-", said,
                    ]
                )  # fmt: skip
    return rows


def _exit(view: View) -> str:
    if view["end"] is None or view["code"] is None:
        return "-"
    return words.exit_code({"exit_code": view["code"], "exit_signal": view["signal"]})


def _times(view: View, clock: Clock) -> tuple[str, str]:
    start, end = view["start"], view["end"]
    if start is None:
        return "-", "-"
    over = clock.now if end is None else end
    return clock.moment(start, "-"), values.format_time(max(0, int(over - start)))


def staged(staging: View) -> str:
    """How a container came to its nodes: ``210 MiB 1.4s`` was sent, ``before`` it was."""
    if not staging:
        return "in place"
    if not staging["nodes"]:
        return "before"
    return f"{staging['bytes'] >> 20} MiB {staging['seconds']:.1f}s"


def _short(digest: str) -> str:
    return digest.partition(":")[2][:12] or "-"
