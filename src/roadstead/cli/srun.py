"""srun: run a job step, here or in the allocation we are in, and exit as it does."""

from __future__ import annotations

import os
import sys

from roadstead.cli import attend, options, report
from roadstead.engines import choice
from roadstead.errors import RequestError, RoadsteadError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from roadstead.cli.plugged import Plugged

COMMAND = "srun"


def main(argv: list[str] | None = None) -> int:
    """Run srun with ``argv`` (without the program's name); its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    attend.open_standard_streams()
    try:
        if choice.is_slurm(os.environ):
            from roadstead.cli import cluster

            return cluster.main(COMMAND, argv)
        plugged = attend.plugins(COMMAND, argv)
        others: list[tuple[dict[str, str], list[str]]] = []
        if ":" in argv or "SLURM_HET_SIZE" in os.environ:
            from roadstead.cli import components

            (asked, operands), *others = components.commands(COMMAND, argv, os.environ)
        else:
            asked, operands = options.gather(COMMAND, argv, os.environ)
        if report.informational(COMMAND, asked):
            return 0
        if attend.wants_daemons(asked):
            from roadstead.cli import daemons

            return daemons.around_srun(argv, asked, lambda: _run(asked, operands, others, plugged))
        return _run(asked, operands, others, plugged)
    except RoadsteadError as error:
        return report.fail(COMMAND, error)
    except KeyboardInterrupt:
        return report.INTERRUPTED


def _run(
    asked: dict[str, str],
    operands: list[str],
    others: list[tuple[dict[str, str], list[str]]],
    plugged: Plugged | None,
) -> int:
    if asked.get("mpi") == "list":
        report.write_line("MPI plugin types are...")
        from roadstead.host import pmix

        for name in ("none", "pmi2", *(["pmix"] if pmix.is_there() else [])):
            report.write_line(f"\t{name}")
        return 0
    if asked.get("cpu-bind", "").lower() == "help":
        from roadstead.core import binding

        report.write_out(f"{binding.HELP}\n")
        return 1
    if not operands:
        raise RoadsteadError("No command given to execute", hint="srun [options] command …")
    if plugged is not None:
        plugged.settle([(asked, operands), *others])
    report.explain(COMMAND, asked)
    if "dry-run" in asked:
        from roadstead.cli import rehearse

        return rehearse.main(COMMAND, "run", [(asked, operands), *others])
    message = attend.base_message(COMMAND, "run", asked, operands)
    attend.add_components(COMMAND, message, others)
    if "multi-prog" in asked or "distribution" in asked:
        _add_files(message, asked, operands)
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
    if plugged is not None and plugged.waits_for_numbers:
        attendance.plugged = plugged
    env = message["env"]
    if _runs(asked, "prolog"):
        code = _run_script(asked["prolog"], operands, env)
        if code:
            raise RoadsteadError(f"srun prolog failed rc = {code}. Aborting step.")
    try:
        code = attendance.run()
        if _runs(asked, "epilog"):
            status = _run_script(asked["epilog"], operands, {**env, **attendance.variables})
            if status:
                report.warn(COMMAND, f"srun epilog failed status={status}")
        if plugged is not None:
            plugged.end()
        return code
    except RequestError as error:
        if "test-only" in asked:
            return report.test_failed(error)
        raise


def _runs(asked: dict[str, str], name: str) -> bool:
    return asked.get(name, "none").lower() != "none"


def _run_script(program: str, operands: list[str], env: dict[str, str]) -> int:
    """Run --prolog or --epilog here, with the command as its arguments; its exit code."""
    from roadstead.host import child

    try:
        pid, pidfd = child.start_foreground([program, *operands], env)
    except OSError as error:
        raise RoadsteadError(f"cannot execute {program}: {error.strerror}") from None
    os.close(pidfd)
    return child.reap(pid)


def _add_files(message: dict[str, Any], asked: dict[str, str], operands: list[str]) -> None:
    """Files that srun reads and the controller understands: of --multi-prog, and of the hosts."""
    if "multi-prog" in asked:
        try:
            with open(operands[0], encoding="utf-8", errors="surrogateescape") as file:
                message["programs"] = file.read()
        except OSError as error:
            raise RoadsteadError(
                f"Could not open multi_prog config file {operands[0]}: {error.strerror}"
            ) from None
    path = os.environ.get("SLURM_HOSTFILE", "")
    if path and asked.get("distribution", "").lower().startswith("arbitrary"):
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                message["hosts"] = file.read()
        except OSError as error:
            raise RoadsteadError(
                f"Failure getting NodeNames from hostfile: {path}: {error.strerror}"
            ) from None
