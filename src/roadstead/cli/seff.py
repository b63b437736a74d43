"""roadstead seff: how well a job used what it had, in the lines of the script of that name.

CPU efficiency is the CPU time of all steps over the CPUs' time that the job held; memory efficiency
the largest resident set of a step over what the job asked for.  While a job runs, steps that have
not ended count nothing, and it is said so.
"""

from __future__ import annotations

import os
import time

from roadstead.cli import report, sacct_fields, words
from roadstead.cli.words import Clock
from roadstead.core import names, values
from roadstead.engines import local
from roadstead.errors import RequestError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from roadstead.cli.words import Ask, View


def main(
    operands: list[str],
    ask: Ask = local.ask,
    *,
    environ: Mapping[str, str] = os.environ,
    now: float | None = None,
) -> int:
    """``roadstead seff JOB``; the exit code."""
    if len(operands) != 1:
        raise UsageError("seff takes the number of a job", hint="roadstead seff JOB")
    job_id, underscore, task = operands[0].partition("_")
    if not values.is_number(job_id) or (underscore and not values.is_number(task)):
        raise RequestError(f"Invalid job id: {operands[0]}", hint="sacct -X lists them")
    query = {"op": "query", "what": "history", "jobs": [int(job_id)], "since": None, "until": None}
    jobs: list[View] = ask(query)["jobs"]
    if underscore:
        jobs = [job for job in jobs if words.job_id(job) == operands[0]]
    if not jobs:
        raise RequestError(f"Job not found: {operands[0]}", hint="sacct -X lists them")
    clock = Clock(time.time() if now is None else now, environ.get("SLURM_TIME_FORMAT", ""))
    report.write_out("\n".join("\n".join(_summary(job, clock)) + "\n" for job in jobs))
    return 0


def _summary(job: View, clock: Clock) -> list[str]:
    """The lines about a job."""
    scene = sacct_fields.Scene(clock)
    row = {"job": job, "step": None}
    name = words.job_id(job)
    lines = [f"Job ID: {job['job_id']}"]
    if job["array_job_id"] is not None:
        lines.append(f"Array Job ID: {name}")
    code = words.exit_code(job).partition(":")[0]
    per_node = job["cpus"] // max(1, job["nodes"])
    cores = [f"Nodes: {job['nodes']}", f"Cores per node: {per_node}"]
    wall = sacct_fields.elapsed(job, scene)
    held = wall * int(job["cpus"])
    used = sacct_fields.used(row, "user_seconds", "system_seconds")
    lines += [
        f"Cluster: {names.CLUSTER}",
        f"User/Group: {job['user']}/{job['group']}",
        f"State: {sacct_fields.word_of(job)} (exit code {code})",
        *(cores if job["nodes"] > 1 else [f"Cores: {job['cpus']}"]),
        f"CPU Utilized: {values.format_time(int(used))}",
        f"CPU Efficiency: {_percent(used, held)} of {values.format_time(held)} core-walltime",
        f"Job Wall-clock time: {values.format_time(wall)}",
        *_memory(job),
    ]
    if job["state"] not in words.FINISHED:
        lines.append("WARNING: Efficiency statistics may be misleading for RUNNING jobs.")
    return lines


def _memory(job: View) -> list[str]:
    peak = max((step["max_rss_kib"] for step in job["steps"]), default=0)
    lines = [f"Memory Utilized: {_amount(peak)}"]
    asked = sacct_fields.required_memory(job) * 1024
    if not asked:
        return [*lines, "Memory Efficiency: no memory was asked for"]
    return [*lines, f"Memory Efficiency: {_percent(peak, asked)} of {_amount(asked)}"]


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole if whole else 0:.2f}%"


def _amount(kib: float) -> str:
    for unit in ("KB", "MB", "GB"):
        if kib < 1024:
            return f"{kib:.2f} {unit}"
        kib /= 1024
    return f"{kib:.2f} TB"
