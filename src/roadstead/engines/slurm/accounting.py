"""What is known of container jobs on a cluster: what agents have written down, and Slurm's word.

Agents write where the submitter reads (records.py), or on their node, from where it is copied
whenever the node is looked at before a step (preflight.py), and by ``fetch``.  A node's file only
grows: behind what was copied comes the rest.  Two who copy at a time write the same bytes to the
same place.

Slurm knows the states and names of jobs: squeue of those that slurmctld remembers, sacct of others
where there is accounting.  What waits has nothing of ours yet but the job's comment.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Final

from roadstead.agent import accounting
from roadstead.core import hostlist
from roadstead.engines import choice
from roadstead.engines.slurm import comment, preflight, real, records
from roadstead.errors import EngineError, LaunchError
from roadstead.host import program, wire

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from roadstead.agent.check import Answer

MOST_NODES: Final = 500  # that are asked at a time: the question is one variable
_BETWEEN: Final = "\x1f"
_LATELY_SECONDS: Final = 86400
_COPY: Final = "~"  # no node's name ends like that
_MOMENT: Final = "%Y-%m-%dT%H:%M:%S"
_WAITS: Final = ("PENDING", "CONFIGURING")

Entry = dict[str, Any]


# -- what nodes have and we do not -----------------------------------------------------------------


def copied(nodes: Sequence[str], days: Iterable[str], environ: Mapping[str, str]) -> dict[str, int]:
    """What to ask nodes: how much we have of each one's records of these days.  Nothing of very
    many nodes, which are asked in parts (``fetch``)."""
    place = records.place(environ)
    if not place or len(nodes) > MOST_NODES:
        return {}
    return {
        f"{day}/{node}": _size(f"{place}/{day}/{node}{_COPY}") for day in days for node in nodes
    }


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def lately() -> list[str]:
    """The days of which nodes are asked in passing: today, and yesterday."""
    now = time.time()
    return accounting.days_between(now - _LATELY_SECONDS, now)


def store(asked: Mapping[str, int], answers: Iterable[Answer], environ: Mapping[str, str]) -> bool:
    """Add what nodes have answered; whether one of them may have more.  Raises OSError."""
    place, more = records.place(environ), False
    for answer in answers:
        for name, text in answer.records.items():
            if not text or name not in asked:
                continue
            accounting.begin_day(place, name.partition("/")[0])
            path = f"{place}/{name}{_COPY}"
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.pwrite(fd, text.encode("latin-1"), asked[name])
            finally:
                os.close(fd)
            more = more or len(text) > accounting.MOST_BYTES // 2
    return more


def fetch(nodes: Sequence[str], job: str, days: Sequence[str], environ: Mapping[str, str]) -> None:
    """Copy all records of these days from nodes that a job has.  Raises RoadsteadError."""
    from roadstead.engines.slurm import zipapp

    archive = zipapp.archive(environ)
    for at in range(0, len(nodes), MOST_NODES):
        some = nodes[at : at + MOST_NODES]
        more = True
        while more:  # of long ones a part at a time
            asked = copied(some, days, environ)
            answers = preflight.examine(
                some, job, archive, (), (), environ, checks=(), copied=asked
            )
            more = store(asked, answers.values(), environ)
            wrong = {node: each.error for node, each in answers.items() if each.error}
            if wrong:
                names = hostlist.fold(list(wrong))
                raise LaunchError(
                    f"the records of {names} cannot be had: {next(iter(wrong.values()))}",
                    hint=f"sinfo --nodes={names} shows whether they are up",
                )


# -- what we have ----------------------------------------------------------------------------------


def entries(
    environ: Mapping[str, str], *, since: float | None = None, jobs: Iterable[int] = ()
) -> Iterator[Entry]:
    """The lines of all nodes, of the days from ``since`` on, or of these jobs (or arrays) alone."""
    place = records.place(environ)
    marks = [mark for job in jobs for mark in (b'"job":%d,' % job, b'"array":"%d_' % job)]
    first = accounting.day(since) if since is not None else ""
    cluster = choice.slurm_setting("ClusterName", environ).lower()
    for day in sorted(_names(place)):
        if day < first:
            continue
        for node in sorted(_names(f"{place}/{day}")):
            with open(f"{place}/{day}/{node}", "rb") as file:
                for line in file:
                    if marks and not any(mark in line for mark in marks):
                        continue
                    entry = _entry(line)
                    if entry is not None and entry["cluster"] in ("", cluster or entry["cluster"]):
                        yield entry


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _entry(line: bytes) -> Entry | None:
    """What a line says; None for one that is not whole."""
    try:
        found = wire.loads(line.decode().rstrip("\n"))
    except ValueError:
        return None
    needed = ("event", "cluster", "job", "step", "task", "restart", "node", "at")
    if not isinstance(found, dict) or any(name not in found for name in needed):
        return None
    return found


def steps(found: Iterable[Entry]) -> dict[int, dict[str, Any]]:
    """What happened, job by job and step by step.  Of a job that was requeued the last time counts.

    Each job is {"array", "name", "steps": {step: {"container", "image", "staging", "restart",
    "tasks": {task: {…}}}}}.
    """
    known: dict[int, dict[str, Any]] = {}
    for entry in sorted(found, key=lambda each: each["at"]):
        job = known.setdefault(entry["job"], {"array": "", "name": "", "steps": {}})
        step = job["steps"].get(entry["step"])
        if step is None or entry["restart"] > step["restart"]:
            step = {
                "restart": entry["restart"], "container": "", "image": "", "staging": {},
                "tasks": {},
            }  # fmt: skip
            job["steps"][entry["step"]] = step
        elif entry["restart"] < step["restart"]:
            continue
        task = step["tasks"].setdefault(
            entry["task"], {"node": entry["node"], "start": None, "end": None}
        )
        if entry["event"] == "begin":
            task["start"] = entry["at"]
            job["array"] = entry.get("array", "") or job["array"]
            job["name"] = entry.get("name", "") or job["name"]
            for name in ("container", "image", "staging"):
                step[name] = entry.get(name) or step[name]
        else:
            task["end"] = entry["at"]
            for name in ("code", "signal", "reason", "message", "hint"):
                task[name] = entry.get(name, "" if name in ("message", "hint") else 0)
    return known


# -- what Slurm says -------------------------------------------------------------------------------


def queue(environ: Mapping[str, str]) -> dict[int, Entry]:
    """The user's jobs that slurmctld knows, by number.  Raises EngineError."""
    fields = _BETWEEN.join(("%A", "%i", "%T", "%S", "%e", "%N", "%j", "%k"))
    argv = [
        real.must_find("squeue", environ), "--me", "--states=all", "--noheader",
        f"--format={fields}",
    ]  # fmt: skip
    status, output, said = program.answer(argv, only=preflight.environment(environ, {}))
    if status:
        raise EngineError(
            f"squeue failed: {' | '.join(said)}", hint="scontrol ping says whether slurmctld is up"
        )
    return _rows(output)


def ended(environ: Mapping[str, str], since: float | None, jobs: Sequence[int]) -> dict[int, Entry]:
    """What accounting has of jobs; nothing where there is no accounting."""
    sacct = real.find("sacct", environ)
    if not sacct:
        return {}
    which = [f"--jobs={','.join(map(str, jobs))}"] if jobs else []
    if since is not None:
        which.append(f"--starttime={time.strftime(_MOMENT, time.localtime(since))}")
    argv = [
        sacct, "--allocations", "--noheader", "--parsable2", f"--delimiter={_BETWEEN}", *which,
        "--format=jobidraw,jobid,state,start,end,nodelist,jobname,comment",
    ]  # fmt: skip
    status, output, _ = program.answer(argv, only=preflight.environment(environ, {}))
    return _rows(output) if status == 0 else {}


def _rows(output: bytes) -> dict[int, Entry]:
    found = {}
    for line in output.decode("utf-8", "surrogateescape").splitlines():
        fields = line.split(_BETWEEN)
        if len(fields) != 8 or not fields[0].isdigit():
            continue
        number, name, state, start, end, nodes, title, said = fields
        state = state.split()[0] if state else ""
        found[int(number)] = {
            "id": name,
            "state": state,
            "start": None if state in _WAITS else _moment(start),
            "end": _moment(end),
            "nodes": "" if nodes.startswith("None") else nodes,
            "name": title,
            "container": comment.reference("" if said == "(null)" else said),
        }
    return found


def _moment(text: str) -> float | None:
    try:
        return time.mktime(time.strptime(text, _MOMENT))
    except ValueError:  # N/A, Unknown
        return None
