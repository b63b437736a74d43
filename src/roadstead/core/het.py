"""Heterogeneous jobs: ``sbatch A : B`` asks for several jobs that are one.

Each component is a job, with its own number, nodes and state; their numbers follow each other, so
who belongs together is arithmetic.  The first one leads: it waits in the queue for all of them, the
script or the command runs on its nodes, what others wait for is its end, and what ends it ends all
(sbatch(1), salloc(1), srun(1)).  They start in the same turn of the scheduler or not at all.

People call the second component of job 7 ``7+1``, or by its own number; 7 is all of them.

One thing is not as in Slurm, which never puts two components on one node: here they may share one,
because a laptop has no other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from roadstead.core import environment, hostlist, values
from roadstead.core.lifecycle import Job
from roadstead.core.model import Allocation, HetComponent, JobSpec, Share, StepRequest
from roadstead.core.state import allocation_of
from roadstead.errors import EngineError, RequestError, UsageError

MOST: Final = 128  # slurm.h: MAX_HET_JOB_COMPS
NOT_WHOLE: Final = "Operation not permitted on individual component of heterogeneous job"


def leader(spec: JobSpec, job_id: int) -> int:
    """The number of the job that a job belongs to; its own where it stands alone."""
    return job_id if spec.het is None else spec.het.job_id


def members(job: Job) -> range:
    """The numbers of the components of a job, the first one's first; its own where it is alone."""
    return range(job.id, job.id + 1) if job.spec.het is None else numbers(job.spec.het)


def numbers(component: HetComponent) -> range:
    return range(component.job_id, component.job_id + component.size)


def is_led(spec: JobSpec) -> bool:
    """Whether another component leads, and this one waits and ends with it."""
    return spec.het is not None and spec.het.offset > 0


def named(text: str) -> int | None:
    """The job that ``7+1`` means; None where it is no such name."""
    first, plus, offset = text.partition("+")
    if not plus or not values.is_number(first) or not values.is_number(offset):
        return None
    return int(first) + int(offset)


# -- requests --------------------------------------------------------------------------------------


def components(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The messages of the components of a request, each complete; one for a plain request."""
    others = body.get("components")
    if others is None:
        return [body]
    if (
        not isinstance(others, list)
        or not all(isinstance(each, dict) for each in others)
        or len(others) >= MOST
    ):
        raise EngineError("malformed request: components")
    own = {name: value for name, value in body.items() if name not in _OF_COMPONENTS}
    return [body, *[{**own, **each} for each in others]]


# What each component says for itself: the one before it lends it nothing.
_OF_COMPONENTS: Final = ("components", "options", "argv", "image", "edf")


def groups(asked: Sequence[str | None], size: int, *, split: bool) -> list[tuple[int, int]]:
    """--het-group of each part of a step, as (component of the job, part of the step), in the order
    of the components.  Without it the parts are for one component after the other.

    ``size``: how many components the job has; ``split``: one that has none, whose allocation the
    parts divide.  Raises UsageError and RequestError in srun's words.
    """
    found: list[tuple[int, int]] = []
    for part, text in enumerate(asked):
        for group in [0 if split else part] if text is None else _listed(text):
            if group >= size:
                raise RequestError(
                    "Requested het-group offset exceeds highest hetjob index "
                    f"({group} > {size - 1})",
                    hint=f"the job has {size} component{'s' if size > 1 else ''}",
                )
            found.append((group, part))
    if not split and len({group for group, _ in found}) < len(found):
        raise RequestError(
            "Duplicate het groups in single srun not supported", hint="name each component once"
        )
    return sorted(found)


def _listed(text: str) -> list[int]:
    try:
        words = [word[1:] for word in hostlist.expand(f"x[{text}]")]
    except (UsageError, RequestError):
        words = [""]
    if not all(map(values.is_number, words)):
        raise RequestError(f"Invalid --het-group value: {text}", hint="numbers, as in 0,1 or 0-2")
    return [int(word) for word in words]


def whole(parts: Sequence[StepRequest], env: dict[str, str]) -> StepRequest:
    """A step of several parts: what they have in common is as the first one has it."""
    tasks = sum([part.ntasks for part in parts])
    bare = tuple([replace(part, env={}) for part in parts])
    return replace(parts[0], env=env, ntasks=tasks, parts=bare)


# -- variables -------------------------------------------------------------------------------------

# What a job's processes are told of each component (seen: 22.05).
_TOLD: Final = (
    "SLURM_CPUS_PER_TASK", "SLURM_JOBID", "SLURM_JOB_CPUS_PER_NODE", "SLURM_JOB_ID",
    "SLURM_JOB_NAME", "SLURM_JOB_NODELIST", "SLURM_JOB_NUM_NODES", "SLURM_JOB_PARTITION",
    "SLURM_MEM_PER_CPU", "SLURM_MEM_PER_NODE", "SLURM_NNODES", "SLURM_NODELIST",
    "SLURM_NODE_ALIASES", "SLURM_NPROCS", "SLURM_NTASKS", "SLURM_NTASKS_PER_NODE",
    "SLURM_TASKS_PER_NODE",
)  # fmt: skip
# What salloc's command is told once, of all of them.
_ONCE: Final = ("SLURM_CLUSTER_NAME", "SLURM_JOB_ID", "SLURM_SUBMIT_DIR", "SLURM_SUBMIT_HOST")

Granted = Sequence[tuple[Job, Allocation]]


def with_allocations(jobs: Sequence[Job]) -> list[tuple[Job, Allocation]]:
    """The jobs that have an allocation, with it."""
    return [(job, own) for job in jobs if (own := allocation_of(job)) is not None]


def variables(granted: Granted) -> dict[str, str]:
    """The variables that tell of the components, by their names of today and of before 20.02."""
    env = {"SLURM_HET_SIZE": str(len(granted)), "SLURM_PACK_SIZE": str(len(granted))}
    for at, (job, allocation) in enumerate(granted):
        own = environment.allocation(job, allocation)
        own["SLURM_NTASKS"] = own["SLURM_NPROCS"] = str(job.spec.ntasks)
        for name in _TOLD:
            if name in own:
                env[f"{name}_HET_GROUP_{at}"] = env[f"{name}_PACK_GROUP_{at}"] = own[name]
    return env


def of_allocation(granted: Granted) -> dict[str, str]:
    """The variables of salloc's local command: there is no plain SLURM_NODELIST, as there is not
    one list of nodes."""
    first = environment.allocation(*granted[0])
    tasks = str(sum([job.spec.ntasks for job, _ in granted]))
    once = {name: first[name] for name in _ONCE}
    return {**once, "SLURM_NTASKS": tasks, "SLURM_NPROCS": tasks, **variables(granted)}


def joined(shares: Sequence[Share]) -> tuple[Share, ...]:
    """The shares of several components as if they were one job's: of each node there is one."""
    found: dict[str, Share] = {}
    for share in shares:
        before = found.get(share.node)
        if before is not None:
            share = replace(
                before,
                cpus=(*before.cpus, *share.cpus),
                memory=before.memory + share.memory,
                gres=(*before.gres, *share.gres),
                ntasks=before.ntasks + share.ntasks,
            )
        found[share.node] = share
    return tuple(found.values())
