"""Which task of a step is on which node, and what tells it apart from the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from roadstead.core import binding, distribution, environment, gpus, multiprog
from roadstead.core.model import Share, TaskSpec
from roadstead.step import mpi, record

if TYPE_CHECKING:
    from roadstead.core.model import StepSpec


def task_specs(spec: StepSpec) -> list[TaskSpec]:
    """The tasks of a step, with the variables that tell them apart.  Raises RequestError for CPUs
    that they cannot be bound to.

    Those of a step of several parts are numbered through, also on a node that two parts share.
    """
    tasks: list[TaskSpec] = []
    nodes: dict[str, list[int]] = {}  # the numbers of each node's tasks
    places: list[tuple[int, StepSpec, Share, int]] = []
    for number, part in enumerate(spec.parts or (spec,)):
        shares = part.shares or (Share(node=part.node, cpus=part.cpus, ntasks=part.ntasks),)
        for share in shares:
            nodes.setdefault(share.node, [])
        seen = [0 for _ in shares]
        for at in distribution.nodes_of_tasks(shares, part.launch):
            nodes[shares[at].node].append(len(places))
            places.append((number, part, shares[at], seen[at]))
            seen[at] += 1
    numbers = {name: number for number, name in enumerate(nodes)}
    apart = len(nodes) > 1 or bool(spec.parts)
    for procid, (number, part, share, bound_as) in enumerate(places):
        here = nodes[share.node]
        localid, nodeid = here.index(procid), numbers[share.node]
        own = gpus.of_task(part.launch.gpus, len(environment.gpu_numbers(share)), bound_as)
        env = {
            **part.env,
            **environment.task(procid, localid, nodeid, share, here),
            **({} if own is None else environment.seen(share, own)),
            **_bound(part, share),
            **mpi.environment(spec, procid),
            "ROADSTEAD_STEP": f"{spec.job_id}.{spec.step_id}",
            record.MARK: spec.directory,
        }
        programs = part.launch.programs
        tasks.append(
            TaskSpec(
                procid=procid,
                localid=localid,
                argv=multiprog.argv_of(programs, procid) if programs else part.argv,
                env=env,
                node=share.node,
                nodeid=nodeid,
                cpus=_cpus(part, share, bound_as) if apart or _binds(part) else (),
                part=number,
                gpus=own,
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
