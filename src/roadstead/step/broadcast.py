"""--bcast: a copy of a step's program on its nodes, which is what its tasks then execute.

All nodes are this machine, so a path that the user gives is one copy; a name that is made up has
its node in it, as Slurm's have.  The copy stays, as in Slurm.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from roadstead.errors import LaunchError
from roadstead.host import files

if TYPE_CHECKING:
    from collections.abc import Callable

    from roadstead.core.model import StepSpec, TaskSpec


def of_program(
    spec: StepSpec, tasks: list[TaskSpec], look_up: Callable[[str, str], str]
) -> list[TaskSpec]:
    """The tasks, executing copies of their program.  Raises LaunchError."""
    if spec.launch.bcast is None:
        return tasks
    made: dict[tuple[str, str], str] = {}
    found = []
    for task in tasks:
        program = look_up(task.argv[0], task.env.get("PATH", os.defpath))
        target = destination(spec, task.node or spec.node)
        if (program, target) not in made:
            made[program, target] = target
            try:
                files.copy(program, target)
            except OSError as error:
                raise LaunchError(
                    f"Failed to broadcast '{program}'. Step launch aborted",
                    hint=f"{target}: {error.strerror}",
                ) from None
        found.append(replace(task, argv=(target, *task.argv[1:])))
    return found


def destination(spec: StepSpec, node: str) -> str:
    """Where a node's copy goes."""
    wanted = spec.launch.bcast or f"{spec.cwd}/"
    if wanted.endswith("/"):
        return f"{wanted}slurm_bcast_{spec.job_id}.{spec.step_id}_{node}"
    return wanted
