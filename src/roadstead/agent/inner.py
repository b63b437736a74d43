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
from typing import Any, Final

from roadstead.agent.guard import Guard
from roadstead.agent.place import Place
from roadstead.core import names
from roadstead.errors import RoadsteadError
from roadstead.host import removal
from roadstead.step import record

PROGRAMS: Final = {"pod": "roadstead.pods.runner", "daemon": "roadstead.daemons.keeper"}


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
    node = environ.get("SLURMD_NODENAME") or os.uname().nodename.partition(".")[0]
    place = Place(environ, node)
    job, step = environ.get("SLURM_JOB_ID", "0"), environ.get("SLURM_STEP_ID", "batch")
    directory = f"{place.path}/steps/{job}.{step}.{environ.get('SLURM_PROCID', '0')}"
    try:
        place.sweep()
        os.makedirs(directory, mode=0o700)
        hold = record.hold(directory)
        record.write_claim(directory, _claim(directory))
        guard = Guard(directory, [])
    except BaseException:
        place.close()
        raise
    environ[record.MARK] = directory
    try:
        return program()
    finally:
        guard.close()
        os.close(hold)
        with contextlib.suppress(OSError):  # the next one here sweeps it
            removal.remove_tree(directory)
        place.close()


def _claim(directory: str) -> dict[str, Any]:
    pid = os.getpid()
    return {
        "pid": pid,
        "start_time": record.start_time(pid),
        "mark": directory,
        "containers": [],
    }
