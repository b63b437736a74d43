"""Many jobs in few words: what squeue's usual columns need of each.

A listing of ten thousand jobs is asked for again and again, and nearly all of them wait.  Those
that wait for the same reason are a group.  What all of a group have in common is said once, and
of the rest there is a column a key: a list of as many values as the group has jobs.  Any other job
goes through views.job.  Both say the same: tests hold them against each other.
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

Group = dict[str, Any]  # "same": values by key, "columns": lists of values by key

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
            others.append(views.job(state, job, at))
    found = waiting.groups()
    if others:
        asked = dict.fromkeys(["job_id", *names])
        found.append(_group({}, {name: [view[name] for view in others] for name in asked}))
    return found


def _group(same: Mapping[str, Any], columns: dict[str, list[Any]]) -> Group:
    """A group, of whose columns those are one value that have no other.  Jobs' numbers stay one."""
    alike = {
        name: column[0]
        for name, column in columns.items()
        if name != "job_id" and column.count(column[0]) == len(column)
    }
    varied = {name: column for name, column in columns.items() if name not in alike}
    return {"same": {**same, **alike}, "columns": varied}


class _Waiting:
    """Jobs that wait.  What is the same for many of them is found out once."""

    def __init__(self, state: State, names: list[str], at: float) -> None:
        self._state = state
        self._at = at
        self._grown = state.site.weights.age / state.site.weights.max_age * at
        self._head = state.queue.head
        self._open: dict[str, bool] = {}
        self._names = names
        self._by_reason = "reason" in names
        self._alike: dict[tuple[str, bool], list[Job]] = {}

    def add(self, job: Job, now: life.JobPending) -> None:
        reason = self._reason(job, now) if self._by_reason else ""
        alike = reason, job.spec.array is None
        found = self._alike.get(alike)
        if found is None:
            self._alike[alike] = [job]
        else:
            found.append(job)

    def groups(self) -> list[Group]:
        return [self._of(jobs, reason, alone) for (reason, alone), jobs in self._alike.items()]

    def _of(self, jobs: list[Job], reason: str, alone: bool) -> Group:
        """The group of those that wait for this reason, ``alone`` or as elements of arrays."""
        same = {name: _SAME[name] for name in self._names if name in _SAME}
        if self._by_reason:
            same["reason"] = reason
        specs = [job.spec for job in jobs]
        columns: dict[str, list[Any]] = {"job_id": [job.id for job in jobs]}
        for name in self._names:
            if name in _ASKED:
                columns[name] = list(map(attrgetter(name), specs))
            elif name == "submit_time":
                columns[name] = [job.submitted_at for job in jobs]
            elif name == "cpus":
                columns[name] = [views.cpus_wanted(self._state, spec) for spec in specs]
            elif name == "priority":
                columns[name] = [self._priority(job) for job in jobs]
        if not alone:
            arrays = [spec.array for spec in specs if spec.array is not None]
            columns["array_job_id"] = [array.job_id for array in arrays]
            columns["array_task_id"] = [array.task_id for array in arrays]
            columns["array_throttle"] = [array.throttle for array in arrays]
        return _group(same, columns)

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
        if isinstance(job.state, life.JobPending) and job.state.held:
            return 0
        standing = self._state.queue.standing_of(job.id)
        if standing is None:
            return queue.priority(job.spec, job.submitted_at, self._state.site, self._at)
        return max(1, round(standing + self._grown))
