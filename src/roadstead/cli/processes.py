"""scontrol listpids and pidinfo: which processes are whose."""

from __future__ import annotations

import os

from roadstead.cli import report, words
from roadstead.cli.words import step_number
from roadstead.engines import steps
from roadstead.errors import RoadsteadError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from roadstead.cli.scontrol_show import Session
    from roadstead.cli.words import View

_HEADING = "PID      JOBID    STEPID   LOCALID GLOBALID\n"


def listpids(session: Session, operands: list[str]) -> int:
    """``listpids [JOB[.STEP]]``: the processes of the tasks, first those that are tasks."""
    if len(operands) > 1:
        raise UsageError("too many arguments for keyword:listpids")
    wanted = operands[0] if operands else ""
    job, dot, step = wanted.partition(".")
    number = step_number(step) if dot else None
    if wanted and (not job.isdecimal() or (dot and number is None)):
        raise UsageError(f"Invalid job id specified: {wanted}", hint="scontrol listpids JOB.STEP")
    report.write_out(_HEADING)
    found = [
        view
        for view in _running(session)
        if (not wanted or view["job_id"] == int(job)) and (not dot or view["step_id"] == number)
    ]
    for view in found:
        report.write_out("".join(_lines(view)))
    if wanted and not found:
        what = f"step {wanted} does not exist" if dot else f"There are no steps for job {job}"
        report.write_line(f"{what} on node {os.uname().nodename}.")
        return 1
    return 0


def _running(session: Session) -> list[View]:
    steps: list[View] = session.query("steps")
    return [view for view in steps if view["start_time"] is not None]


def usage(view: View) -> list[dict[str, Any]]:
    """The tasks of a running step, as its supervisor knows them; one that is ending has none."""
    try:
        answer = steps.ask(view["job_id"], view["step_id"], {"op": "usage"})
    except RoadsteadError:
        return []
    tasks: list[dict[str, Any]] = answer["tasks"]
    return tasks


def _lines(view: View) -> list[str]:
    step = words.step_id(view).partition(".")[2]
    lines = []
    for task in usage(view):
        for place, pid in enumerate(task["pids"]):
            local, whole = ("-", "-") if place else (task["localid"], task["procid"])
            lines.append(f"{pid:<8} {view['job_id']:<8} {step:<8} {local:<7} {whole:<8}\n")
    return lines


def pidinfo(session: Session, operands: list[str]) -> int:
    """``pidinfo PID``: whose process it is, and how long that job may still take."""
    if len(operands) != 1:
        raise UsageError(
            f"too {'many' if operands else 'few'} arguments for keyword:pidinfo",
            hint="scontrol pidinfo PID",
        )
    text = operands[0]
    job_id = _job_of(int(text), _running(session)) if text.isdecimal() and len(text) < 9 else None
    jobs = [] if job_id is None else session.query("jobs", job_id)
    if not jobs:
        report.write_line("Failed to locate job for requested pid")
        return 1
    ends = session.clock.moment(jobs[0]["end_time"], "Unknown")
    left = -1 if jobs[0]["end_time"] is None else int(jobs[0]["end_time"] - session.clock.now)
    report.write_out(f"Slurm job id {job_id} ends at {ends}\nslurm_get_rem_time is {left}\n")
    return 0


def _job_of(pid: int, running: list[View]) -> int | None:
    """The job whose supervisor is above a process."""
    from roadstead.host import process

    supervisors = {view_pid: view["job_id"] for view in running for view_pid in view["pids"]}
    while pid > 1 and pid not in supervisors:
        pid = process.parent(pid)
    found: int | None = supervisors.get(pid)
    return found
