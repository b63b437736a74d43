"""All that the controller knows: unfinished jobs, their live steps, who waits for what.

Indexes are kept so that an event costs what it changes: a job's live steps, a step's owner, the
queue and the free CPUs are looked up, never searched for.  What has ended leaves the state and is
in the journal.  Only ``put_job`` and ``put_step`` store what ``lifecycle`` returned.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from roadstead.core import queue
from roadstead.core.arrays import Array
from roadstead.core.dependency import Waiters
from roadstead.core.events import Client
from roadstead.core.lifecycle import (
    FINAL,
    Job,
    JobCompleting,
    JobRunning,
    JobSuspended,
    Step,
    StepKey,
)
from roadstead.core.model import Allocation
from roadstead.core.pool import Pool
from roadstead.core.queue import Queue
from roadstead.core.seats import Seats
from roadstead.core.site import NodeCondition, Partition, Site


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the controller was started with."""

    runtime: str
    version: str = ""
    kill_wait: float = 30.0
    over_time: float = 0.0
    min_job_age: float = 300.0
    requeue_delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Role:
    """What a client's connection stands for.  The owner of a step or an allocation ends it by
    closing; a watcher only wants to hear the end."""

    kind: Literal["step", "allocation", "watch"]
    job_id: int
    step_id: int | None = None

    @property
    def key(self) -> StepKey:
        return self.job_id, -1 if self.step_id is None else self.step_id


class State:
    """The controller's knowledge between two events."""

    def __init__(self, site: Site, settings: Settings) -> None:
        self.site = site
        self.settings = settings
        self.jobs: dict[int, Job] = {}
        self.steps: dict[StepKey, Step] = {}
        self.seats: dict[int, Seats] = {}  # of the jobs that have an allocation
        self.queue = Queue()
        self.pool = Pool(site.nodes, site.licenses)
        self.conditions: dict[str, NodeCondition] = {}
        self.arrays: dict[int, Array] = {}
        self.waiters = Waiters()
        self.roles: dict[Client, Role] = {}
        self.owners: dict[StepKey, Client] = {}  # of a step; of an allocation under (job, -1)
        self.watchers: dict[StepKey, list[Client]] = {}
        self.keys: dict[str, int] = {}
        self.environments: dict[int, dict[str, str]] = {}  # of jobs that wait with their client
        self.next_job_id = 1
        self.next_step_ids: dict[int, int] = {}
        self.stopping: list[Client] | None = None
        self._live: dict[int, dict[StepKey, None]] = {}

    # -- jobs and steps -------------------------------------------------------------------------

    def put_job(self, job: Job) -> Job:
        """Store what a job has become; one that has ended is forgotten."""
        self.waiters.note(self.jobs.get(job.id), job)
        if job.state.word in FINAL:
            self.jobs.pop(job.id, None)
            self.seats.pop(job.id, None)
            self.next_step_ids.pop(job.id, None)
            self.environments.pop(job.id, None)
            self.keys.pop(job.spec.key, None)
            self._leave_array(job)
            return job
        if job.id not in self.jobs and self.jobs and job.id < next(reversed(self.jobs)):
            self.jobs[job.id] = job  # it had ended: jobs stay in the order of their numbers
            self.jobs = dict(sorted(self.jobs.items()))
        self.jobs[job.id] = job
        if job.spec.array is not None:
            array = self.arrays.setdefault(job.spec.array.job_id, Array(job.spec.array.throttle))
            array.live[job.spec.array.task_id] = job.id
        if job.spec.key:
            self.keys[job.spec.key] = job.id
        return job

    def put_step(self, step: Step) -> Step:
        """Store what a step has become; one that has ended is forgotten."""
        jobs = self.jobs_of(step)
        if step.state.word not in FINAL:
            self.steps[step.key] = step
            for job_id in jobs:
                self._live.setdefault(job_id, {})[step.key] = None
            return step
        self.steps.pop(step.key, None)
        for job_id in jobs:
            live = self._live.get(job_id, {})
            live.pop(step.key, None)
            if not live:
                self._live.pop(job_id, None)
        if step.job_id in self.seats:
            self.seats[step.job_id].leave(step.id)
        return step

    def jobs_of(self, step: Step) -> list[int]:
        """The jobs that a step is in: several if it spans components of a heterogeneous one."""
        job = self.jobs.get(step.job_id)
        if not step.request.parts or job is None or job.spec.het is None:
            return [step.job_id]
        return [job.spec.het.job_id + part.group for part in step.request.parts]

    def step_among(self, jobs: Iterable[int], step_id: int) -> Step | None:
        """The live step of that number: a heterogeneous job's are numbered through."""
        found = [self.steps[job_id, step_id] for job_id in jobs if (job_id, step_id) in self.steps]
        return found[0] if found else None

    def steps_of(self, job_id: int) -> list[Step]:
        """The live steps of a job, waiting ones included."""
        return [self.steps[key] for key in self._live.get(job_id, ())]

    def new_job_id(self) -> int:
        self.next_job_id += 1
        return self.next_job_id - 1

    def new_step_id(self, job_id: int) -> int:
        number = self.next_step_ids.get(job_id, 0)
        self.next_step_ids[job_id] = number + 1
        return number

    # -- partitions -----------------------------------------------------------------------------

    def put_partition(self, name: str, found: Partition | None) -> None:
        """Store what a partition has become; None: it is no more.  There is one default."""
        others = [each for each in self.site.partitions if each.name != name]
        if found is not None and found.default:
            others = [replace(each, default=False) for each in others]
        place = [each.name for each in self.site.partitions]
        if found is not None:
            others.insert(place.index(name) if name in place else len(others), found)
        self.site = replace(self.site, partitions=tuple(others))

    # -- the queue ------------------------------------------------------------------------------

    def enqueue(self, job: Job) -> None:
        """Put a job that may start in its place; ``put_job`` does not.  An element of an array that
        has enough of them out waits beside the queue."""
        self.queue.remove(job.id)
        if self.admits(job):
            self.queue.add(self.place_of(job))

    def admits(self, job: Job) -> bool:
        """Whether a job may be in the queue; an element that may not is noted for later, and for a
        component of a heterogeneous job the first one waits."""
        if job.spec.het is not None and job.spec.het.offset:
            return False
        if job.spec.array is None:
            return True
        array = self.arrays[job.spec.array.job_id]
        if job.id not in array.out and not array.has_room:
            if job.id not in array.parked:
                array.parked.append(job.id)
            return False
        array.out.add(job.id)
        return True

    def dequeue(self, job: Job) -> None:
        """Take a job out that is held or will never start; the next of its array comes in."""
        self.queue.remove(job.id)
        array = None if job.spec.array is None else self.arrays.get(job.spec.array.job_id)
        if array is not None:
            array.out.discard(job.id)
            if job.id in array.parked:
                array.parked.remove(job.id)
            self.make_room(array)

    def make_room(self, array: Array) -> None:
        """Let those of an array in that may be out now."""
        while array.parked and array.has_room:
            self.enqueue(self.jobs[array.parked.pop(0)])

    def _leave_array(self, job: Job) -> None:
        task = job.spec.array
        if task is None or task.job_id not in self.arrays:
            return
        array = self.arrays[task.job_id]
        array.live.pop(task.task_id, None)
        array.out.discard(job.id)
        if job.id in array.parked:
            array.parked.remove(job.id)
        self.make_room(array)
        if not array.live:
            del self.arrays[task.job_id]

    def place_of(self, job: Job) -> queue.Key:
        return queue.key(job.id, job.spec, job.submitted_at, self.site)

    def condition(self, node: str) -> NodeCondition:
        return self.conditions.get(node, NodeCondition())

    # -- clients --------------------------------------------------------------------------------

    def own(self, client: Client, role: Role) -> None:
        """The client's connection is what keeps this step or allocation."""
        self.roles[client] = role
        self.owners[role.key] = client

    def watch(self, client: Client, role: Role) -> None:
        self.roles[client] = role
        self.watchers.setdefault(role.key, []).append(client)

    def dismiss(self, role_key: StepKey) -> Client | None:
        """The owner, who is one no longer."""
        client = self.owners.pop(role_key, None)
        if client is not None:
            self.roles.pop(client, None)
        return client

    def dismiss_watchers(self, role_key: StepKey) -> list[Client]:
        clients = self.watchers.pop(role_key, [])
        for client in clients:
            self.roles.pop(client, None)
        return clients

    def forget(self, client: Client) -> Role | None:
        """The client is gone; what it stood for."""
        role = self.roles.pop(client, None)
        if role is None:
            return None
        if role.kind == "watch":
            left = [each for each in self.watchers[role.key] if each != client]
            if left:
                self.watchers[role.key] = left
            else:
                del self.watchers[role.key]
        else:
            del self.owners[role.key]
        return role


def allocation_of(job: Job) -> Allocation | None:
    """What the job has of the nodes now."""
    state = job.state
    running = isinstance(state, (JobRunning, JobSuspended, JobCompleting))
    return state.allocation if running else None  # type: ignore[union-attr]
