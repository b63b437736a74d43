"""srun: run a job step, here or in the allocation we are in, and exit as it does."""

from __future__ import annotations

import os
import sys

from roadstead.cli import attend, options, report
from roadstead.errors import RoadsteadError

COMMAND = "srun"


def main(argv: list[str] | None = None) -> int:
    """Run srun with ``argv`` (without the program's name); its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    attend.open_standard_streams()
    try:
        asked, operands = options.gather(COMMAND, argv, os.environ)
        if report.informational(COMMAND, asked):
            return 0
        return _run(asked, operands)
    except RoadsteadError as error:
        return report.fail(COMMAND, error)
    except KeyboardInterrupt:
        return report.INTERRUPTED


def _run(asked: dict[str, str], operands: list[str]) -> int:
    if asked.get("mpi") == "list":
        report.write_line("MPI plugin types are...")
        report.write_line("\tnone")
        return 0
    if not operands:
        raise RoadsteadError("No command given to execute", hint="srun [options] command …")
    report.explain(COMMAND, asked)
    message = attend.base_message("run", asked, operands)
    if asked.pop("pty", None) is not None:
        message["terminal"] = attend.terminal_size()
    message["interactive"] = "interactive" in asked
    attendance = attend.Attendance(
        COMMAND,
        message,
        verbose=int(asked.get("verbose", "0")),
        quiet="quiet" in asked,
    )
    attendance.pass_on_interrupt = "disable-status" in asked
    attendance.quit_on_interrupt = "quit-on-interrupt" in asked
    return attendance.run()
