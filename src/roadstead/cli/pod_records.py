"""roadstead pod ls, status, logs and delete: what runners have written down of their pods
(pods/records.py), as kubectl's get, describe, logs and delete show it.

A pod's name is no number: several may have had it.  NAME is the last one of that name, JOB/NAME one
of a job.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from roadstead.cli import report, subcommand, table
from roadstead.core.printable import printable
from roadstead.engines import choice, local
from roadstead.engines.slurm import real
from roadstead.errors import EngineError, RequestError, UsageError
from roadstead.host import process, program
from roadstead.pods import records
from roadstead.pods.records import Record

_NEVER: Final = 1e6  # seconds


def listed(words: Sequence[str]) -> int:
    """``pod ls [--json]``; the exit code."""
    given, operands = subcommand.options(
        words, {"--json": False}, "pod", "roadstead pod ls [--json]"
    )
    if operands:
        raise UsageError(f"pod ls takes no {operands[0]}", hint="roadstead pod status NAME")
    found = [each for _, each in records.every(os.environ)]
    jobs = _Jobs()
    if "--json" in given:
        shown = [{**each, "status": _status(each, jobs)} for each in found]
        report.write_out(json.dumps({"version": records.VERSION, "pods": shown}, indent=2) + "\n")
        return 0
    if not found:
        report.write_line("roadstead: there are no pods; those that wait to be started squeue has")
        return 0
    rows = [("NAME", "READY", "STATUS", "RESTARTS", "AGE", "JOB", "NODE")]
    for each in found:
        ready, beside = records.readiness(each)
        restarts = sum(one["restarts"] for one in each["containers"])
        age = _age(time.time() - each["began"])
        row = (each["pod"], f"{ready}/{beside}", _status(each, jobs), str(restarts), age)
        rows.append((*row, _job(each), each["node"]))
    report.write_out(table.aligned(rows, gap="   "))
    return 0


def shown(words: Sequence[str]) -> int:
    """``pod status [--json] NAME``; the exit code."""
    given, operands = subcommand.options(
        words, {"--json": False}, "pod", "roadstead pod status [--json] NAME"
    )
    _, found = _find(operands, "status [--json] NAME")
    jobs = _Jobs()
    if "--json" in given:
        report.write_out(json.dumps({**found, "status": _status(found, jobs)}, indent=2) + "\n")
        return 0
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(found["began"]))
    code = "" if found["code"] is None else f", exit code {found['code']}"
    lines = [
        ("Name:", found["pod"]),
        ("Job:", f"{_job(found)} on {found['node']}"),
        ("Start:", moment),
        ("Status:", f"{_status(found, jobs)}{code}"),
        ("Output:", ", ".join(each["path"] for each in found["outputs"]) or "(not in a file)"),
    ]
    report.write_out("".join(f"{printable(f'{name:<10}{text}')}\n" for name, text in lines))
    rows = [("CONTAINER", "KIND", "STATE", "READY", "RESTARTS", "EXIT", "IMAGE")]
    for each in found["containers"]:
        code = "-" if each["code"] is None else str(each["code"])
        ready = "true" if each["ready"] else "false"
        row = (each["name"], each["role"], each["state"], ready, str(each["restarts"]), code)
        rows.append((*row, each["image"]))
    report.write_out(table.aligned(rows, gap="   "))
    return 0


def logs(words: Sequence[str]) -> int:
    """``pod logs [-c CONTAINER] [--all-containers] NAME``; the exit code."""
    usage = "logs [-c CONTAINER | --all-containers] NAME"
    known = {"-c": True, "--container": True, "--all-containers": False}
    if any(word in ("-f", "--follow") for word in words):
        raise UsageError("pod logs does not follow", hint="tail -f the file; pod status names it")
    given, operands = subcommand.options(words, known, "pod", f"roadstead pod {usage}")
    _, found = _find(operands, usage)
    if not found["outputs"]:
        raise RequestError(
            f"what pod {found['pod']} printed is in no file: it went to whoever ran it",
            hint="sbatch keeps the output, or roadstead pod run POD.yaml > FILE",
        )
    names = [each["name"] for each in found["containers"]]
    wanted = given.get("-c") or given.get("--container") or ""
    if wanted and wanted not in names:
        raise RequestError(
            f"pod {found['pod']} has no container {wanted}", hint=f"one of {', '.join(names)}"
        )
    mains = [each["name"] for each in found["containers"] if each["role"] == "main"]
    if not wanted and "--all-containers" not in given:
        wanted = (mains or names)[0]
        if len(names) > 1:
            others = ", ".join(names)
            report.write_line(f"roadstead: the log of {wanted}, of {others} (-c chooses)")
    chosen = [wanted] if wanted else names
    prefixes = [each["prefix"] for each in found["containers"] if each["name"] in chosen]
    for each in found["outputs"]:
        _write_log(each, [prefix.encode() for prefix in prefixes], strip=bool(wanted))
    return 0


def _write_log(output: dict[str, Any], prefixes: list[bytes], *, strip: bool) -> None:
    """Write the lines of a file that begin so; all of them where containers have no labels."""
    try:
        fd = os.open(output["path"], os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise RequestError(f"{output['path']}: {error.strerror}") from None
    with open(fd, "rb") as file:
        file.seek(output["begin"])
        end = output["end"]
        for line in file:
            if end is not None and file.tell() > end:
                break
            prefix = next((each for each in prefixes if line.startswith(each)), None)
            if prefix is not None:
                sys.stdout.buffer.write(line[len(prefix) :] if strip else line)
    sys.stdout.buffer.flush()


def deleted(words: Sequence[str]) -> int:
    """``pod delete NAME…``: end it as its manifest says, wait until it has, and forget it."""
    _, operands = subcommand.options(words, {}, "pod", "roadstead pod delete NAME…")
    if not operands:
        raise UsageError("no pod is named", hint="roadstead pod delete NAME…")
    jobs = _Jobs()
    for name in operands:
        path, found = _find([name], "delete NAME…")
        if records.is_alive(found, jobs):
            _end(found, jobs)
        with contextlib.suppress(FileNotFoundError):  # another delete was faster
            os.unlink(path)
        report.write_out(f"pod {found['pod']} deleted\n")
    return 0


def _end(found: Record, jobs: _Jobs) -> None:
    """Have a pod end: by the engine where it is all that its step runs, else by a signal."""
    try:
        runner = process.adopt(found["pid"]) if records.is_here(found) else None
    except ProcessLookupError:
        return
    if runner is not None and not records.is_alive(found, jobs):  # the number may be another's
        return
    beside = [
        each
        for _, each in records.every(os.environ)
        if (each["cluster"], _job(each)) == (found["cluster"], _job(found))
        and records.is_alive(each, jobs)
    ]
    if len(beside) == 1:
        _cancel(found)
    elif runner is not None:
        runner.signal(process.TERM)
    else:
        raise RequestError(
            f"pod {found['pod']} is one of {len(beside)} that step {_job(found)} runs on node "
            f"{found['node']}",
            hint=f"scancel {_step(found)} ends all of them",
        )
    if runner is not None:
        process.wait_for_ends([runner], _NEVER)


def _cancel(found: Record) -> None:
    if choice.is_slurm(os.environ):
        argv = [real.must_find("scancel", os.environ), _step(found)]
        status, _, said = program.answer(argv, only=dict(os.environ))
        if status:
            raise EngineError(said[-1] if said else f"scancel {_step(found)} has failed")
        return
    from roadstead.cli import scancel

    code = scancel.main([_step(found)])
    if code:
        raise EngineError(f"scancel {_step(found)} has failed")


class _Jobs:
    """The numbers of the jobs that run, asked for once, and only where that matters."""

    def __init__(self) -> None:
        self._found: frozenset[int] | None = None

    def __call__(self) -> frozenset[int]:
        if self._found is None:
            self._found = frozenset(self._ask())
        return self._found

    def _ask(self) -> list[int]:
        if not choice.is_slurm(os.environ):
            asked = {"op": "query", "what": "jobs", "job_id": None, "all": False}
            return [each["job_id"] for each in local.ask(asked)["jobs"]]
        argv = [real.must_find("squeue", os.environ), "-h", "--me", "-o", "%A"]
        status, output, said = program.answer(argv, only=dict(os.environ))
        if status:
            raise EngineError(said[-1] if said else "squeue has failed")
        return [int(word) for word in output.split()]


def _status(found: Record, jobs: Callable[[], frozenset[int]]) -> str:
    return records.status(found, alive=records.is_alive(found, jobs))


def _job(found: Record) -> str:
    return f"{found['job']}.{found['step']}"


def _step(found: Record) -> str:
    """What scancel calls it: a batch step is its job."""
    return _job(found) if str(found["step"]).isdigit() else str(found["job"])


def _find(operands: Sequence[str], usage: str) -> tuple[str, Record]:
    """The last pod of a name, and its file.  Raises UsageError, RequestError."""
    if len(operands) != 1:
        raise UsageError("one pod is to be named", hint=f"roadstead pod {usage}")
    job, slash, name = operands[0].rpartition("/")
    found = [
        (path, each)
        for path, each in records.every(os.environ)
        if each["pod"] == name and (not slash or job in (str(each["job"]), _job(each)))
    ]
    if not found:
        raise RequestError(
            f"no pod {printable(operands[0])} is known", hint="roadstead pod ls lists them"
        )
    return found[-1]


def _age(seconds: float) -> str:
    """As kubectl has it: in the largest unit of which there are two."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"
