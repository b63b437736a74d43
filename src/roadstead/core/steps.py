"""How steps come to be in an allocation: ``srun`` in a batch script, under salloc or with --jobid.

A step is refused when its job could never hold it; one that finds its CPUs taken waits for them
(seats.py).  In a heterogeneous job a step is in one component, the first by default, or spans
several of them (het.py): then it is one step all the same, with one supervisor, whose tasks are
numbered through.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from roadstead.core import course, het, request
from roadstead.core import effects as do
from roadstead.core import events as on
from roadstead.core import lifecycle as life
from roadstead.core.effects import Effects
from roadstead.core.lifecycle import Job, Step
from roadstead.core.model import BATCH_STEP, INTERACTIVE_STEP, StepRequest
from roadstead.core.state import Role, State, allocation_of
from roadstead.errors import RequestError

BUSY: Final = "Requested nodes are busy"
AT_ONCE: Final = 1.0  # --immediate=1 and less: in this very turn (srun(1))


def on_run_in_job(state: State, effects: Effects, event: on.Message) -> None:
    """srun in an allocation: a step now, or when its CPUs are free."""
    job, wanted = _wanted(state, event)
    seats = state.seats[job.id]
    wanted = _with_parent(state, job, wanted)
    must_wait = seats.has_line(wanted) and not wanted.overlap and not wanted.interactive
    step_id = INTERACTIVE_STEP
    if not wanted.interactive or (job.id, INTERACTIVE_STEP) in state.steps:
        step_id = state.new_step_id(het.leader(job.spec, job.id))
    place = None if must_wait else seats.place(step_id, wanted)
    if place is None and wanted.immediate is not None and wanted.immediate <= AT_ONCE:
        raise course.step_error(job.id, BUSY)
    step = Step(
        job_id=job.id,
        id=step_id,
        request=wanted,
        submitted_at=event.at,
        state=life.StepPending(),
    )
    state.own(event.client, Role("step", job.id, step_id))
    if place is not None:
        course.launch(state, effects, step, place, event.at)
        return
    seats.wait(step_id, wanted)
    state.put_step(step)
    effects(do.SaveStep(step))
    if wanted.immediate is not None:
        effects(do.SetTimer(("patience", job.id, step_id), event.at + wanted.immediate))
    sentence = f"Job {job.id} step creation temporarily disabled, retrying ({BUSY})"
    effects.reply(event.client, "notice", sentence=sentence)


def _wanted(state: State, event: on.Message) -> tuple[Job, StepRequest]:
    """The step, and the job that it is in: of a step that spans several components the first of
    those.  Raises RequestError where it may not be."""
    job_id = request.job_of_step(event.body)
    named = state.jobs.get(job_id)
    size = 1 if named is None or named.spec.het is None else named.spec.het.size
    asked = het.components(event.body)
    split = size == 1 and len(asked) > 1
    found = het.groups([request.het_group(each) for each in asked], size, split=split)
    first = job_id if named is None else het.leader(named.spec, job_id)
    if named is not None and het.is_led(named.spec) and request.het_group(event.body) is None:
        first, found = job_id, [(0, part) for _, part in found]  # --jobid=7+1
    parts = []
    for group, part in found:
        wanted = _part(state, asked[part], first + group, event)
        parts.append(replace(wanted, exact=True) if split else wanted)
    job = state.jobs[first + found[0][0]]
    if len(parts) == 1:
        _check_fits(state, job, parts[0])
        return job, parts[0]
    for wanted in parts:
        if wanted.launch.programs:
            raise RequestError("--multi-prog option not supported with multiple het groups")
        _check_fits(state, job, wanted)
    together = het.whole(parts, parts[0].env)
    _check_fits(state, job, together)
    return job, together


def _part(state: State, body: Mapping[str, Any], job_id: int, event: on.Message) -> StepRequest:
    """What a step, or a part of one, asks for of a job."""
    job = state.jobs.get(job_id)
    granted = None if job is None else allocation_of(job)
    allocated = 1 if granted is None else len(granted.shares)
    wanted = request.step(body, state.site, event.facts.extra, allocated)
    job = _job_for_step(state, job_id, wanted)
    return wanted if job.spec.het is None else replace(wanted, group=job.spec.het.offset)


def _with_parent(state: State, job: Job, wanted: StepRequest) -> StepRequest:
    """Whose CPUs it may use: the step's that srun was typed in, if that is one of this job's."""
    parent_id = -1 if wanted.parent_step is None else wanted.parent_step
    parent = state.step_among(het.members(job), parent_id)
    if parent is None or allocation_of(job) is None or parent.id in (BATCH_STEP, INTERACTIVE_STEP):
        parts = tuple([replace(part, parent_step=None) for part in wanted.parts])
        return replace(wanted, parent_step=None, parts=parts)
    return wanted


def _job_for_step(state: State, job_id: int, wanted: StepRequest) -> Job:
    """The job that a step may start in; raises RequestError where it may not."""
    job = state.jobs.get(job_id)
    if job is None:
        raise RequestError(
            f"Unable to confirm allocation for job {job_id}: Invalid job id specified",
            hint=f"Check SLURM_JOB_ID environment variable. Expired or invalid job {job_id}",
        )
    if isinstance(job.state, life.JobPending):
        raise course.step_error(job_id, "Job is pending execution")
    if isinstance(job.state, life.JobSuspended):
        raise course.step_error(job_id, "Job is suspended")
    if not isinstance(job.state, life.JobRunning):
        raise course.step_error(job_id, "Job/step already completing or completed")
    shares = job.state.allocation.shares
    if wanted.nodes > len(shares):
        raise RequestError(f"Only allocated {len(shares)} nodes asked for {wanted.nodes}")
    _check_nodes(job_id, [share.node for share in shares], wanted)
    for each in wanted.gres or ():
        if not any(own.name == each.name for share in shares for own in share.gres):
            raise course.step_error(job_id, "Invalid generic resource (gres) specification")
    memory = min((share.memory for share in shares), default=0)
    if memory and wanted.memory > memory:
        raise course.step_error(job_id, "Memory required by task is not available")
    return job


def _check_nodes(job_id: int, names: Sequence[str], wanted: StepRequest) -> None:
    for name in (*wanted.nodelist, *wanted.exclude, *wanted.launch.hosts):
        if name not in names:
            raise course.step_error(job_id, f"Requested node {name} is not in this allocation")
    if wanted.relative >= len(names):
        raise course.step_error(job_id, f"--relative={wanted.relative}: it has {len(names)} nodes")


def _check_fits(state: State, job: Job, wanted: StepRequest) -> None:
    if not state.seats[job.id].can_ever_place(wanted):
        raise course.step_error(job.id, "More processors requested than permitted")


def check_no_group(body: Mapping[str, Any]) -> None:
    """--het-group is for steps; raise RequestError for one of a job that is to be made."""
    for each in het.components(body):
        text = request.het_group(each)
        if text is not None:
            het.groups([text], het.MOST, split=False)
            raise RequestError(
                f"--het-group={text}: there is no allocation whose components that could be",
                hint="use it in a heterogeneous job: sbatch A : B",
            )
