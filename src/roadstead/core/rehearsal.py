"""``--dry-run``: the step that a request would become if nothing else ran, without becoming it.

What is told is all that a supervisor would be told.  Nothing is kept of it, no number is used up,
and what others have counts for nothing: it is about the container, not about the queue
(``--test-only`` is about that).
"""

from __future__ import annotations

from dataclasses import replace

from roadstead.core import course, request, schedule, stepspec, submission
from roadstead.core import events as on
from roadstead.core import lifecycle as life
from roadstead.core.effects import Effects
from roadstead.core.lifecycle import Job, Place, Step
from roadstead.core.model import BATCH_STEP, Allocation, StepSpec, to_json
from roadstead.core.pool import Pool
from roadstead.core.seats import Seats
from roadstead.core.state import State, allocation_of
from roadstead.errors import EngineError, RequestError


def on_rehearse(state: State, effects: Effects, event: on.Message) -> None:
    """Tell what would be launched.  Raises RoadsteadError where nothing would."""
    what = event.body.get("for")
    if what == "run" and request.is_for_step(event.body):
        spec = _of_step(state, event)
    elif what == "run":
        spec = _of_job(state, "run", event)
    elif what == "submit":
        spec = _of_job(state, "batch", event)
    else:
        raise EngineError("malformed request: for")
    if spec.container is None:
        raise RequestError(
            "--dry-run is about containers, and none is asked for",
            hint="add --container=BUNDLE, or --container-image=IMAGE",
        )
    effects.reply(event.client, "rehearsal", step=to_json(spec))


def _of_job(state: State, kind: str, event: on.Message) -> StepSpec:
    specs = submission.job_specs(state, "batch" if kind == "batch" else "run", event)
    if len(specs) > 1:
        raise RequestError("--dry-run is for jobs of one component")
    spec = specs[0]
    job = Job(id=state.next_job_id, spec=spec, submitted_at=event.at, state=life.JobPending())
    site = state.site
    made = schedule.plan(
        [(job.id, [spec])], [], Pool(site.nodes, site.licenses), site, state.conditions, event.at
    )
    if not made.starts:
        raise submission.busy(job)
    (start,) = made.starts
    granted = Allocation(
        job_id=job.id, shares=start.shares, started_at=event.at, partition=start.partition
    )
    job = life.advance_job(job, life.JobAllocated(allocation=granted))
    wanted = request.main_step(spec, spec.env)
    step_id = course.main_step_id(job)
    assert step_id is not None
    shares = (replace(start.shares[0], ntasks=1),) if step_id == BATCH_STEP else start.shares
    step = Step(
        job_id=job.id,
        id=step_id,
        request=wanted,
        submitted_at=event.at,
        state=life.StepPending(),
    )
    place = Place(shares=shares, claimed=False)
    return replace(stepspec.step_spec(state, job, step, place, event.at), script=spec.script)


def _of_step(state: State, event: on.Message) -> StepSpec:
    job_id = request.job_of_step(event.body)
    job = state.jobs.get(job_id)
    granted = None if job is None else allocation_of(job)
    if job is None or granted is None:
        raise RequestError(f"Unable to confirm allocation for job {job_id}: it does not run")
    wanted = request.step(event.body, state.site, event.facts.extra, len(granted.shares))
    step_id = state.next_step_ids.get(job_id, 0)
    wanted = replace(wanted, parent_step=None)
    place = Seats(granted.shares).place(step_id, wanted)
    if place is None:
        raise course.step_error(job_id, "Requested node configuration is not available")
    step = Step(
        job_id=job_id,
        id=step_id,
        request=wanted,
        submitted_at=event.at,
        state=life.StepPending(),
    )
    return stepspec.step_spec(state, job, step, place, event.at)
