"""resources.limits of a single container, within what the job has.

Where root runs the pod the runtime holds them: they are in config.json (linux.resources), and its
groups are below the step's.  A user's container is born in a control group of the runner's making,
where there is a place for one (host/cgroup.py); that holds memory.  Elsewhere the job's own limit
counts, for all of them together, and the user is told.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from roadstead.host import cgroup
from roadstead.pods.model import Container, Pod
from roadstead.step import limits

_LEAST: Final = 30 << 20  # with less the runtime, which is in the group first, is itself killed
_PERIOD: Final = 100_000  # microseconds (cpu.max, cpu.cfs_period_us)


class Limits:
    """The limits of a pod's containers.  To be made before namespaces are entered; ``name`` is
    that of the group of a container, up to its own name."""

    def __init__(self, pod: Pod, name: str) -> None:
        self._wanted = {
            each.name: max(each.resources.memory_limit, _LEAST)
            for each in pod.containers
            if each.resources.memory_limit
        }
        self._alone = len(pod.containers) == 1
        self._name = name
        self._made: dict[str, cgroup.Group] = {}
        self._kills: dict[str, int] = {}
        self._place: cgroup.Place | None = None
        if self._wanted and os.geteuid() != 0:
            self._place = cgroup.place("memory", cgroup.mounted())

    @property
    def complaint(self) -> str:
        """What is to be said of limits that are not held, "" if all are, or if the job's own is a
        lone container's."""
        if self._place is None or self._place.directory or self._alone:
            return ""
        names = ", ".join(self._wanted)
        return (
            f"warning: limits.memory of {names} holds for the job as a whole, not for each "
            f"container: {self._place.why}"
        )

    @property
    def groups(self) -> list[str]:
        """The directories of the groups, for the claim."""
        if self._place is None or not self._place.directory:
            return []
        return [f"{self._place.directory}/{self._name}.{name}" for name in self._wanted]

    def inside(self, name: str) -> AbstractContextManager[int | None]:
        """While this lasts, what is started is born under the limits of a container."""
        if name not in self._wanted or self._place is None or not self._place.directory:
            return nullcontext()
        return limits.Inside(lambda: self._group(name))

    def _group(self, name: str) -> cgroup.Group:
        if name not in self._made:
            assert self._place is not None
            group = cgroup.Group.below({"memory": self._place}, f"{self._name}.{name}")
            group.make()
            group.limit_memory(self._wanted[name])
            self._made[name] = group
            self._kills[name] = 0
        return self._made[name]

    def killed(self, name: str) -> bool:
        """Whether a process of the container was killed for want of memory since the last time
        that this was asked."""
        if name not in self._made:
            return False
        before, self._kills[name] = self._kills[name], self._made[name].memory_kills()
        return self._kills[name] > before

    def close(self) -> None:
        """The containers have ended."""
        for group in self._made.values():
            group.remove()
        self._made.clear()


def adapt(container: Container, config: dict[str, Any]) -> None:
    """Have the runtime hold a container's limits, where it may."""
    found = container.resources
    resources = config["linux"].setdefault("resources", {})
    if found.memory_limit:
        size = max(found.memory_limit, _LEAST)
        resources["memory"] = {**resources.get("memory", {}), "limit": size}
    if found.cpu_limit:
        quota = max(1000, round(found.cpu_limit * _PERIOD))
        resources["cpu"] = {**resources.get("cpu", {}), "quota": quota, "period": _PERIOD}
