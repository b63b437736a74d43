"""What a supervisor is told of its step: the StepSpec, made of the job, the request and the place.

A step that spans components of a heterogeneous job is told as a whole, with a part for each.
"""

from __future__ import annotations

from dataclasses import replace

from roadstead.core import distribution, environment, het
from roadstead.core.lifecycle import Job, Place, Step, StepKey
from roadstead.core.model import (
    BATCH_STEP,
    INTERACTIVE_STEP,
    ContainerRequest,
    Share,
    StepRequest,
    StepSpec,
)
from roadstead.core.state import State, allocation_of


def step_spec(state: State, job: Job, step: Step, place: Place, at: float) -> StepSpec:
    """All that the supervisor needs to know, save what a batch job keeps in the journal."""
    parts = list(zip(step.request.parts or (step.request,), place.parts, strict=True))
    specs = [_part_spec(state, job, step, place, part, own, at) for part, own in parts]
    if len(specs) == 1:
        return specs[0]
    shares = tuple([share for each in specs for share in each.shares])
    return replace(
        specs[0],
        name=step.request.name,
        env=step.request.env,
        ntasks=step.request.ntasks,
        cpus=tuple(sorted({cpu for share in shares for cpu in share.cpus})),
        memory=sum([share.memory for share in shares]),
        shares=shares,
        deadline=min((each.deadline for each in specs if each.deadline is not None), default=None),
        parts=tuple(specs),
    )


def _part_spec(
    state: State,
    job: Job,
    step: Step,
    place: Place,
    wanted: StepRequest,
    own: tuple[Share, ...],
    at: float,
) -> StepSpec:
    """A step, or one of the parts of a step that spans several components."""
    spec = job.spec
    jobs = [state.jobs[each] for each in het.members(job) if each in state.jobs]
    owner = job if spec.het is None else state.jobs[spec.het.job_id + wanted.group]
    granted = allocation_of(owner)
    assert granted is not None
    placed = distribution.arranged(own, wanted.launch)
    if step.id == BATCH_STEP:
        ours = environment.batch(job, granted)
    elif step.id == INTERACTIVE_STEP:
        ours = environment.node(job, granted)
    else:
        ours = _step_variables(state, owner, step, place, wanted, placed)
    if spec.het is not None:
        ours |= het.variables(het.with_allocations(jobs))
        ours["SLURM_JOB_ID"] = ours["SLURM_JOBID"] = str(spec.het.job_id)
    shares = tuple([_of_machine(state, share) for share in placed])
    over = state.settings.over_time
    ends_at = None if granted.ends_at is None else granted.ends_at + over
    limits = [ends_at, None if wanted.time_limit is None else at + wanted.time_limit]
    return StepSpec(
        job_id=job.id,
        step_id=step.id,
        kind=spec.kind,
        name=wanted.name,
        user=spec.user,
        uid=spec.uid,
        gid=spec.gid,
        node=shares[0].node,
        cwd=wanted.cwd,
        argv=wanted.argv,
        env={**(step.request.env if step.request.parts else wanted.env), **ours},
        umask=wanted.umask,
        ntasks=wanted.ntasks,
        cpus_per_task=wanted.cpus_per_task,
        cpus=tuple(sorted({cpu for share in shares for cpu in share.cpus})),
        memory=sum([share.memory for share in shares]),
        shares=shares,
        deadline=min((limit for limit in limits if limit is not None), default=None),
        kill_wait=state.settings.kill_wait,
        container=_with_hooks(state, wanted.container),
        oci_conf=wanted.oci_conf,
        stdio=wanted.stdio,
        terminal=wanted.terminal,
        kill_on_bad_exit=wanted.kill_on_bad_exit,
        wait=wanted.wait,
        launch=wanted.launch,
        limits=wanted.limits,
        directory=directory(state, step.key),
    )


def _with_hooks(state: State, wanted: ContainerRequest | None) -> ContainerRequest | None:
    """The site's hooks, which files of the same name in the request's directories replace."""
    if wanted is None or not state.site.hooks_dirs:
        return wanted
    return replace(wanted, hooks_dirs=(*state.site.hooks_dirs, *wanted.hooks_dirs))


def _step_variables(
    state: State,
    job: Job,
    step: Step,
    place: Place,
    wanted: StepRequest,
    placed: tuple[Share, ...],
) -> dict[str, str]:
    """The variables of an srun step; the tasks of one that has parts see all of it."""
    granted = allocation_of(job)
    assert granted is not None
    if not step.request.parts:
        return environment.step(job, step.id, granted, wanted, placed)
    jobs = [state.jobs[each] for each in dict.fromkeys(state.jobs_of(step))]
    every = het.joined([share for _, own in het.with_allocations(jobs) for share in own.shares])
    whole = replace(wanted, ntasks=step.request.ntasks)
    granted = replace(granted, shares=every)
    return environment.step(job, step.id, granted, whole, het.joined(place.shares))


def _of_machine(state: State, share: Share) -> Share:
    """The share with the kernel's numbers of its CPUs."""
    node = state.site.node(share.node)
    return share if node is None else replace(share, cpus=node.kernel_numbers(share.cpus))


def directory(state: State, key: StepKey) -> str:
    """Where a step has its files."""
    job = state.jobs.get(key[0])
    return directory_of(state.settings.runtime, key, 0 if job is None else job.restarts)


def directory_of(runtime: str, key: StepKey, restarts: int) -> str:
    """Where a step has its files.  A requeued job's batch step has the same number again, and is
    not to be taken for what it was before: so the directory tells the runs apart."""
    again = f".{restarts}" if restarts else ""
    return f"{runtime}/steps/{key[0]}.{key[1]}{again}"
