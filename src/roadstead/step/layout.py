"""Which task of a step is on which node, and what tells it apart from the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from roadstead.core import environment
from roadstead.core.model import Share, TaskSpec
from roadstead.step import record

if TYPE_CHECKING:
    from roadstead.core.model import StepSpec


def task_specs(spec: StepSpec) -> list[TaskSpec]:
    """The tasks of a step, with the variables that tell them apart, node by node."""
    tasks: list[TaskSpec] = []
    shares = spec.shares or (Share(node=spec.node, cpus=spec.cpus, ntasks=spec.ntasks),)
    for nodeid, share in enumerate(shares):
        first = len(tasks)
        here = range(first, first + share.ntasks)
        for localid, procid in enumerate(here):
            env = {
                **spec.env,
                **environment.task(procid, localid, nodeid, share, here),
                "ROADSTEAD_STEP": f"{spec.job_id}.{spec.step_id}",
                record.MARK: spec.directory,
            }
            tasks.append(
                TaskSpec(
                    procid=procid,
                    localid=localid,
                    argv=spec.argv,
                    env=env,
                    node=share.node,
                    nodeid=nodeid,
                    cpus=share.cpus if len(shares) > 1 else (),
                )
            )
    return tasks
