"""sbcast: copy a file to the nodes of a job.  All nodes are this machine, so there is one copy.

Where it must not go, Slurm's words and exit codes say so: they are errno's numbers there.
"""

from __future__ import annotations

import os
import sys

from roadstead.cli import options, report
from roadstead.core import hostlist
from roadstead.engines import choice, local
from roadstead.errors import RoadsteadError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from roadstead.cli.words import Ask, View

COMMAND: Final = "sbcast"
_NOT_THERE: Final = 255


class NotThere(RoadsteadError):
    """There is no such job, or no such file."""


def main(argv: list[str] | None = None, ask: Ask = local.ask) -> int:
    """Run sbcast with ``argv`` (without the program's name); its exit code."""
    given = sys.argv[1:] if argv is None else argv
    return report.run(COMMAND, lambda: _answered(given, ask))


def _answered(argv: list[str], ask: Ask) -> int:
    try:
        return _run(argv, ask)
    except NotThere as error:
        report.warn(COMMAND, str(error))
        return _NOT_THERE


def _run(argv: list[str], ask: Ask) -> int:
    choice.hand_over(COMMAND, argv, os.environ)
    asked, operands = options.gather(COMMAND, argv, os.environ)
    if report.informational(COMMAND, asked):
        return 0
    report.explain(COMMAND, asked)
    if len(operands) != 2:
        report.write_line(f"Need two file names, have {len(operands)} names")
        report.write_line('Try "sbcast --help" for more information')
        return 1
    source, target = operands
    if target.endswith("/"):
        raise RoadsteadError("Target filename cannot be a directory.")
    job = _job(asked.get("jobid") or os.environ.get("SLURM_JOB_ID", ""), ask)
    if "verbose" in asked:
        report.write_line(f"{COMMAND}: {source} -> {target} on {job['node']}")
    return _copy(source, target, job, force="force" in asked, preserve="preserve" in asked)


def _job(text: str, ask: Ask) -> View:
    """The running job of ``7``, ``7+1`` or ``7.0``."""
    if not text:
        raise RoadsteadError(
            "Need a job id to run this command.  Run from within a Slurm job or use the --jobid "
            "option."
        )
    first, plus, offset = text.partition(".")[0].partition("+")
    if not first.isdecimal() or (plus and not offset.isdecimal()) or len(first + offset) > 18:
        raise RoadsteadError(f"Invalid job id {text}")
    number = int(first) + int(offset or "0")
    answer = ask({"op": "query", "what": "jobs", "job_id": number, "all": False})
    found: list[View] = [view for view in answer["jobs"] if view["job_id"] == number]
    if not found:
        raise NotThere(f"Slurm job {number} lookup error: Invalid job id specified")
    state = found[0]["state"]
    if state not in ("RUNNING", "SUSPENDED"):
        waits = state == "PENDING"
        why = "Job is pending execution" if waits else "Job/step already completing or completed"
        raise NotThere(f"Slurm job {number} lookup error: {why}")
    return found[0]


def _copy(source: str, target: str, job: View, *, force: bool, preserve: bool) -> int:
    from roadstead.host import files

    try:
        with open(source, "rb"):
            pass
    except OSError as error:
        raise NotThere(f"Can't open `{source}`: {error.strerror}") from None
    try:
        files.copy(source, target, replaces=force, times=preserve)
    except OSError as error:
        for node in hostlist.expand(job["node"]):
            report.warn(COMMAND, f"REQUEST_FILE_BCAST({node}): {error.strerror}")
        return error.errno or 1
    return 0
