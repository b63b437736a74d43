"""Programs of ours that a step runs outside of a container: a pod's runner, a daemon's keeper.

On the local engine the step's directory is there, and whoever supervises the step sweeps what such
a program leaves (step/record.py, INNER).  On a node of a Slurm cluster there is neither: here the
directory is made, and a guard beside the program sweeps it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from importlib import import_module
from typing import Final

from roadstead.agent.guard import Guard
from roadstead.agent.place import Place, node_name
from roadstead.core import names
from roadstead.errors import RoadsteadError
from roadstead.host import fork, process, removal, signals, watching
from roadstead.step import record

_ENDING: Final = [*signals.FORWARDED, signals.SIGINT]
PROGRAMS: Final = {"pod": "roadstead.pods.__main__", "daemon": "roadstead.daemons.keeper"}


def main(argv: list[str]) -> int:
    """``PROGRAM ARGUMENT…``; its exit code."""
    name, *rest = argv
    program: Callable[[list[str]], int] = import_module(PROGRAMS[name]).main
    if os.environ.get("SLURM_CLUSTER_NAME") == names.CLUSTER and record.MARK in os.environ:
        return program(rest)
    try:
        return _in_directory(lambda: program(rest))
    except RoadsteadError as error:
        os.write(2, f"roadstead: error: {error}\n".encode())
        return error.exit_code


def _in_directory(program: Callable[[], int]) -> int:
    environ = os.environ
    place = Place(environ, node_name(environ))
    job, step = environ.get("SLURM_JOB_ID", "0"), environ.get("SLURM_STEP_ID", "batch")
    directory = f"{place.path}/steps/{job}.{step}.{environ.get('SLURM_PROCID', '0')}"
    # Slurm signals all that is in a step: what is here now would be left by an agent that ended.
    signals.hold(_ENDING)
    try:
        place.sweep()
        os.makedirs(directory, mode=0o700)
        hold = record.hold(directory)
        record.write_claim(directory, record.claim_of_ours(directory, containers=[]))
        guard = Guard(directory, watching.MESSAGES)
    except BaseException:
        with contextlib.suppress(OSError):
            removal.remove_tree(directory)
        place.close()
        raise
    environ[record.MARK] = directory
    try:
        return _run(program)
    finally:
        guard.close()
        os.close(hold)
        with contextlib.suppress(OSError):  # the next one here sweeps it
            removal.remove_tree(directory)
        place.close()


def _run(program: Callable[[], int]) -> int:
    """Run it in a child, which ends all that is below it at its end: the guard is not.  Who signals
    the step signals the child; we stay until it has ended."""

    def body() -> None:
        signals.let_go(_ENDING)
        os._exit(program())

    child = fork.run_in_child(body)
    for signo in signals.waiting(_ENDING):  # it came before there was a child to get it as well
        process.send(child, signo)
    signals.ignore(_ENDING)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
