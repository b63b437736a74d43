"""Many jobs in few words: what squeue's usual columns need of each.

A listing of ten thousand jobs is asked for again and again, and nearly all of them wait.  What is
the same for all that wait is said once, and of each there is a row of the rest; any other job goes
through views.job.  Both say the same: tests hold them against each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Any, Final

from roadstead.core import lifecycle as life
from roadstead.core import queue, schedule, views
from roadstead.core.lifecycle import Job
from roadstead.core.state import State
from roadstead.errors import EngineError

Group = dict[str, Any]  # "same": values by key, "fields": keys of the rows, "rows"

# What jobs that wait for no time, and are of no array and no heterogeneous job, have in common.
_SAME: Final[Mapping[str, Any]] = {
    "array_job_id": None, "array_task_id": None, "array_throttle": 0, "het_job_id": None,
    "het_offset": None, "state": "PENDING", "start_time": None, "end_time": None, "suspended": 0.0,
    "node": "", "batch_host": "",
}  # fmt: skip
# Keys of a view that are what the job asked for.
_ASKED: Final = frozenset(
    ("name", "user", "uid", "partition", "time_limit", "nodes", "nice", "account", "qos")
)
_OTHERS: Final = frozenset(("job_id", "reason", "submit_time", "cpus", "priority"))
_KNOWN: Final = _ASKED | _OTHERS | _SAME.keys()


def groups(state: State, jobs: Iterable[Job], names: object, at: float) -> list[Group]:
    """The fields of these names, of all jobs.  Raises EngineError for what no command asks for."""
    if not isinstance(names, list) or not names or not set(names) <= _KNOWN:
        raise EngineError("malformed request: fields")
    waiting = _Waiting(state, names, at)
    others = []
    for job in jobs:
        now = job.state
        if (
            isinstance(now, life.JobPending)
            and now.last is None
            and job.spec.begin is None
            and job.spec.het is None
        ):
            waiting.add(job, now)
        else:
            view = views.job(state, job, at)
            others.append([view[name] for name in names])
    found = waiting.groups()
    if others:
        found.append({"same": {}, "fields": names, "rows": others})
    return found


class _Waiting:
    """Jobs that wait.  What is the same for many of them is found out once."""

    def __init__(self, state: State, names: list[str], at: float) -> None:
        self._state = state
        self._at = at
        self._grown = state.site.weights.age / state.site.weights.max_age * at
        self._head = state.queue.head
        self._open: dict[str, bool] = {}
        self._same = {name: _SAME[name] for name in names if name in _SAME}
        asked = [name for name in names if name in _ASKED]
        asked = [*asked, "user", "uid"][: max(2, len(asked))]  # attrgetter of one gives no tuple
        self._ask = attrgetter(*asked)
        self._others = [name for name in ("reason", "priority", "cpus", "submit_time")
                        if name in names]  # fmt: skip
        self._fields = ["job_id", *self._others, *asked]
        self._rows: list[tuple[Any, ...]] = []
        self._elements: list[tuple[Any, ...]] = []

    def add(self, job: Job, now: life.JobPending) -> None:
        row: list[Any] = [job.id]
        for name in self._others:
            if name == "reason":
                row.append(self._reason(job, now))
            elif name == "priority":
                row.append(0 if now.held else self._priority(job))
            elif name == "cpus":
                row.append(views.cpus_wanted(self._state, job.spec))
            else:
                row.append(job.submitted_at)
        array = job.spec.array
        if array is None:
            self._rows.append((*row, *self._ask(job.spec)))
        else:
            own = (array.job_id, array.task_id, array.throttle)
            self._elements.append((*row, *self._ask(job.spec), *own))

    def groups(self) -> list[Group]:
        found = []
        if self._rows:
            found.append({"same": self._same, "fields": self._fields, "rows": self._rows})
        if self._elements:
            fields = [*self._fields, "array_job_id", "array_task_id", "array_throttle"]
            found.append({"same": self._same, "fields": fields, "rows": self._elements})
        return found

    def _reason(self, job: Job, now: life.JobPending) -> str:
        """That of views.reason, whose answer for most is that others are before them."""
        spec = job.spec
        if now.held:
            return "JobHeldUser"
        if spec.dependency is not None or job.id == self._head or job.id not in self._state.queue:
            return views.reason(self._state, job, self._at)
        is_open = self._open.get(spec.partition)
        if is_open is None:
            is_open = self._open[spec.partition] = any(
                schedule.usable(each, self._state.conditions)
                for each in schedule.partitions_of(spec, self._state.site)
            )
        return "Priority" if is_open else views.reason(self._state, job, self._at)

    def _priority(self, job: Job) -> int:
        standing = self._state.queue.standing_of(job.id)
        if standing is None:
            return queue.priority(job.spec, job.submitted_at, self._state.site, self._at)
        return max(1, round(standing + self._grown))
