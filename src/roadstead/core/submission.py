"""How jobs come to be: sbatch, srun and salloc ask for one, or only when one would start.

A job is made with what it waits for (waiting.py), and is accepted once it is on disk.  A request
that was heard before, as its client did not hear the answer, makes no second job: each carries a
key.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from roadstead.core import arrays, course, dependency, het, needs, request, steps, views, waiting
from roadstead.core import effects as do
from roadstead.core import events as on
from roadstead.core import lifecycle as life
from roadstead.core.course import ALLOCATION
from roadstead.core.effects import Effects
from roadstead.core.lifecycle import Job
from roadstead.core.model import ArrayTask, HetComponent, JobKind, JobSpec
from roadstead.core.state import Role, State
from roadstead.errors import EngineError, RequestError


def on_submit(state: State, effects: Effects, event: on.Message) -> None:
    """sbatch: the job is accepted once it is on disk, environment, script and all."""
    before = known(state, event)
    if before is not None:
        effects.reply(event.client, "submitted", job_id=before.id)
        return
    components = job_specs(state, "batch", event)
    if request.is_test(event.body):
        foretell(state, effects, components, event)
        return
    numbers = request.array(event.body)
    spec = components[0]
    bare = replace(spec, env={}, script="")
    first = state.next_job_id
    specs = [bare, *components[1:]]
    if numbers is not None:
        if len(specs) > 1:
            raise RequestError(
                "Batch job submission failed: Invalid job array specification",
                hint="a heterogeneous job cannot be an array: leave out --array",
            )
        elements = [_element(event, bare, task) for task in arrays.tasks(first, numbers)]
        specs = [elements[0], *[replace(each, key="") for each in elements[1:]]]
    effects(do.SavePayload(first, spec.env, spec.script))
    made = new_jobs(state, effects, specs, event)
    last = {} if numbers is None else {"last": state.next_job_id - 1}
    effects.reply(event.client, "submitted", job_id=first, **last)
    for job in made:
        if job.id in state.queue:  # what goes for the first goes for those behind it
            course.consider(state, effects, job, event.at)
            return


def _element(event: on.Message, spec: JobSpec, task: ArrayTask) -> JobSpec:
    asked = spec.dependency
    if asked is not None and any(need.kind == "aftercorr" for need in asked.needs):
        return replace(
            spec, array=task, dependency=request.dependency(event.body, spec.kind, task.task_id)
        )
    return replace(spec, array=task)


def with_client(
    state: State, effects: Effects, kind: JobKind, step_id: int | None, event: on.Message
) -> None:
    """A job that lasts as long as the connection: srun's, or salloc's."""
    specs = job_specs(state, kind, event)
    spec = specs[0]
    if request.is_test(event.body):
        foretell(state, effects, specs, event)
        return
    role = Role("step" if kind == "run" else "allocation", state.next_job_id, step_id)
    bare = [replace(spec, env={}), *specs[1:]]
    job = new_jobs(state, effects, bare, event, role)[0]
    if job.id in state.jobs:
        state.environments[job.id] = spec.env
        course.consider(state, effects, job, event.at)
    if job.id not in state.jobs or not isinstance(state.jobs[job.id].state, life.JobPending):
        return
    if spec.immediate is not None and spec.immediate <= steps.AT_ONCE:
        course.withdraw(state, effects, job, busy(job), event.at)
        return
    if spec.immediate is not None:
        effects(do.SetTimer(("patience", job.id, ALLOCATION), event.at + spec.immediate))
    if spec.hold:
        effects.reply(
            event.client, "notice", sentence="Job is in held state, pending scheduler release"
        )
    reason = views.reason(state, job, event.at)
    effects.reply(event.client, "pending", job_id=job.id, reason=reason)


def new_jobs(
    state: State,
    effects: Effects,
    specs: Iterable[JobSpec],
    event: on.Message,
    role: Role | None = None,
) -> list[Job]:
    """Make the jobs of one request, all or none of them; each waits where it belongs.  ``role`` is
    what the client is to them."""
    looked_at: waiting.Seen = {}
    wanted = list(specs)
    first = state.next_job_id
    missing = [
        waiting.met(state, spec, first + at, event.facts.named, event.at, looked_at)
        for at, spec in enumerate(wanted)
    ]
    if role is not None:
        state.own(event.client, role)
    made = []
    for spec, left in zip(wanted, missing, strict=True):
        if left is not spec.dependency:
            spec = replace(spec, dependency=left)
        job = Job(
            id=state.new_job_id(),
            spec=spec,
            submitted_at=event.at,
            state=life.JobPending(held=spec.hold),
        )
        state.put_job(job)
        effects(do.Save(job))
        waiting.arm_deadline(effects, job)
        made.append(job)
    for job in made:
        if job.spec.kill_on_invalid_dep and dependency.is_never(job.spec.dependency):
            course.cancel_invalid(state, effects, job, event.at)
        elif not job.spec.hold:
            waiting.admit(state, effects, job, event.at)
    for name in {job.spec.name for job in made if dependency.is_single(job.spec.dependency)}:
        waiting.let_single(state, effects, name, event.at)
    return [state.jobs.get(job.id, job) for job in made]


def foretell(state: State, effects: Effects, specs: Sequence[JobSpec], event: on.Message) -> None:
    """--test-only: when, where and on how many CPUs the job would start."""
    spec = specs[0]
    found = course.forecast(state, specs, event.at)
    if found is None:
        raise RequestError(f"{needs.REFUSED[spec.kind]}: Requested nodes are busy")
    effects.reply(
        event.client,
        "forecast",
        job_id=state.next_job_id,
        start=max(found.start, spec.begin or 0.0),
        cpus=sum([slot.cpus for slot in found.slots]),
        nodes=list(dict.fromkeys([slot.node.name for slot in found.slots])),
        partition=found.partition,
    )


def known(state: State, event: on.Message) -> Job | None:
    """The job that this very request has made before: its client did not hear the answer."""
    key = event.body.get("key")
    if not key or not isinstance(key, str):
        return None
    job_id = state.keys.get(key)
    return event.facts.known if job_id is None else state.jobs[job_id]


def job_specs(state: State, kind: JobKind, event: on.Message) -> list[JobSpec]:
    """What a message asks for: a job, or the components of one, of which only the first has the
    script, the environment and what it waits for.  Raises RoadsteadError where it cannot be had."""
    asked = het.components(event.body)
    specs = [job_spec(state, kind, replace(event, body=each)) for each in asked]
    if len(specs) == 1:
        return specs
    needs.check_together(kind, specs, state.site)
    parts = [
        HetComponent(job_id=state.next_job_id, offset=offset, size=len(specs))
        for offset in range(len(specs))
    ]
    return [
        replace(specs[0], het=parts[0]),
        *[
            replace(spec, het=part, env={}, script="", key="", dependency=None)
            for spec, part in zip(specs[1:], parts[1:], strict=True)
        ],
    ]


def job_spec(state: State, kind: JobKind, event: on.Message) -> JobSpec:
    """What the message of a job or a component asks for."""
    if state.stopping is not None:
        raise EngineError(
            "the controller is stopping and takes no new jobs",
            hint="wait until its jobs have ended, or: roadstead engine stop --now",
        )
    return request.job(kind, event.body, state.site, event.facts.extra)


def busy(job: Job) -> RequestError:
    return RequestError(f"{needs.REFUSED[job.spec.kind]}: {steps.BUSY}")


def revoked(job: Job) -> RequestError:
    return RequestError(f"Job allocation {job.id} has been revoked")
