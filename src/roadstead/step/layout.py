"""Which task of a step is on which node, and what tells it apart from the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from roadstead.core import binding, distribution, environment, multiprog
from roadstead.core.model import Share, TaskSpec
from roadstead.step import mpi, record

if TYPE_CHECKING:
    from roadstead.core.model import StepSpec


def task_specs(spec: StepSpec) -> list[TaskSpec]:
    """The tasks of a step, with the variables that tell them apart.  Raises RequestError for CPUs
    that they cannot be bound to."""
    shares = spec.shares or (Share(node=spec.node, cpus=spec.cpus, ntasks=spec.ntasks),)
    order = distribution.nodes_of_tasks(shares, spec.launch)
    here: dict[int, list[int]] = {}
    for procid, nodeid in enumerate(order):
        here.setdefault(nodeid, []).append(procid)
    tasks: list[TaskSpec] = []
    for procid, nodeid in enumerate(order):
        share, localid = shares[nodeid], here[nodeid].index(procid)
        env = {
            **spec.env,
            **environment.task(procid, localid, nodeid, share, here[nodeid]),
            **_bound(spec, share),
            **mpi.environment(spec, procid),
            "ROADSTEAD_STEP": f"{spec.job_id}.{spec.step_id}",
            record.MARK: spec.directory,
        }
        programs = spec.launch.programs
        tasks.append(
            TaskSpec(
                procid=procid,
                localid=localid,
                argv=multiprog.argv_of(programs, procid) if programs else spec.argv,
                env=env,
                node=share.node,
                nodeid=nodeid,
                cpus=_cpus(spec, share, localid) if len(shares) > 1 or _binds(spec) else (),
            )
        )
    return tasks


def _binds(spec: StepSpec) -> bool:
    return spec.launch.binding.kind not in ("", "none")


def _cpus(spec: StepSpec, share: Share, localid: int) -> tuple[int, ...]:
    return binding.cpus(spec.launch.binding, share.cpus, localid, share.ntasks)


def _bound(spec: StepSpec, share: Share) -> dict[str, str]:
    masks: list[str] = []
    if spec.launch.binding.kind == "auto":
        masks = [binding.mask(_cpus(spec, share, localid)) for localid in range(share.ntasks)]
    return binding.environment(spec.launch.binding, masks)
