"""The limits of a step: its memory, its processes, its CPUs; what holds them, and what they hit.

Where the user has a delegated tree of control groups the kernel holds them, in a group of the
step's own with one below for each task, so that it is known whose process the kernel has killed.
Where she has none, memory is *watched*: this is the one place that looks at intervals, because
there is no event for "the processes below me have more than N bytes"; only for a step that has a
memory limit, every 0.2 s when near it and every second when far away.  Resource limits of processes
(setrlimit(2)) are no substitute: RLIMIT_AS counts addresses, which many programs reserve and do
not use, and RLIMIT_NPROC counts all of the user's processes, not the step's.

A limit that was hit is told from a failure by what the kernel counted: a task is out of memory if a
process of it was killed for want of memory, however it ended itself, and if none was, it is not.
As in Slurm that counts even if the task went on without the process, and succeeded.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from roadstead.core.model import BATCH_STEP, INTERACTIVE_STEP
from roadstead.errors import LaunchError
from roadstead.host import cgroup, process
from roadstead.step import processes

if TYPE_CHECKING:
    from roadstead.core.model import StepSpec, TaskExit
    from roadstead.host.loop import Loop, Timer

# cgroup.conf(5), MinRAMSpace: with less the runtime, or what starts a task, is itself killed.
_LEAST_MIB: Final = 30
_NEAR: Final = 0.2
_FAR: Final = 1.0
_MIB: Final = 1 << 20
_PIDS: Final = "ROADSTEAD_STEP_PIDS"


def group_name(spec: StepSpec) -> str:
    """The name of a step's group."""
    return f"roadstead-{spec.job_id}.{spec.step_id}"


class Limits:
    """The limits of one step.

    ``over`` is called with a sentence when a watched step has too much memory.
    """

    def __init__(
        self,
        spec: StepSpec,
        loop: Loop,
        notice: Callable[[str], None],
        over: Callable[[str], None],
    ) -> None:
        self._spec = spec
        self._loop = loop
        self._notice = notice
        self._over = over
        self._bytes = max(spec.memory, _LEAST_MIB) * _MIB if spec.memory else 0
        self._pids = 0
        self._group: cgroup.Group | None = None
        self._tasks: dict[int, cgroup.Group] = {}
        self._counter = -1
        self._hits = 0
        self._timer: Timer | None = None
        self._sentence = ""

    # -- before the tasks -------------------------------------------------------------------------

    @property
    def groups(self) -> list[str]:
        """The directories of the step's group, for the claim."""
        return list(dict.fromkeys(self._group.directories.values())) if self._group else []

    def decide(self) -> None:
        """Find out what will hold the limits; makes nothing.  Before a namespace is entered, and
        cheap where no limit was asked for.  Raises LaunchError for a limit that is none."""
        spec = self._spec
        self._pids = _number_of_pids(spec)
        wanted = ["memory"] * bool(self._bytes) + ["pids"] * bool(self._pids)
        # Affinity holds what does not try to get away, and costs nothing; root, whose trees are
        # all there is, pays for more only with another limit.
        if spec.cpus and (wanted or spec.uid != 0):
            wanted.append("cpuset")
        found = _find(wanted, at_top=spec.uid == 0 and spec.container is not None)
        if found:
            self._group = cgroup.Group.below(found, group_name(spec))
        if self._pids and "pids" not in found:
            self._notice(f"warning: {_PIDS}={self._pids} is not enforced: {_why_not('pids')}")

    def apply(self) -> None:
        """Make the group and set the limits.  Without one, start to watch."""
        if self._group is not None:
            try:
                self._make(self._group)
            except OSError as error:
                self._notice(
                    f"warning: no control group for the step: {error.filename}: {error.strerror}"
                )
                self._group.remove()
                self._group = None
        if self._bytes and not self._in_group("memory"):
            self._timer = self._loop.call_later(_NEAR, self._look)

    def _make(self, group: cgroup.Group) -> None:
        group.make()
        if "cpuset" in group.directories:
            group.confine(sorted(set(self._spec.cpus)))
        if "pids" in group.directories:
            group.limit_pids(self._pids)
        if "memory" in group.directories:
            group.share()
            group.limit_memory(self._bytes)
            if group.version == 1:
                self._counter = group.watch_memory()

    def inside(self, procid: int) -> AbstractContextManager[int | None]:
        """While this lasts, what is started with the ``group`` that it gives is born under the
        limits, as task ``procid``'s."""
        return Inside(lambda: self.group_of(procid))

    def group_of(self, procid: int) -> cgroup.Group | None:
        """The group for a task's processes, made when it is first asked for."""
        if self._group is None or not self._in_group("memory"):
            return self._group
        if procid not in self._tasks:
            self._tasks[procid] = self._group.child(f"task-{procid}")
        return self._tasks[procid]

    def _in_group(self, controller: str) -> bool:
        return self._group is not None and controller in self._group.directories

    # -- watching ---------------------------------------------------------------------------------

    def _look(self) -> None:
        pids = processes.below(os.getpid(), self._spec.directory)
        used = sum(map(process.resident, pids))
        if used > self._bytes:  # what processes share was counted for each of them
            used = sum(map(process.proportional, pids))
        if used > self._bytes:
            name = _step_name(self._spec)
            self._sentence = f"{name} exceeded memory limit ({used} > {self._bytes}), being killed"
            self._over(self._sentence)
            return
        self._timer = self._loop.call_later(_NEAR if 2 * used > self._bytes else _FAR, self._look)

    # -- the end ----------------------------------------------------------------------------------

    def ended(self, ended: TaskExit) -> TaskExit:
        """The same end, or one for want of memory, if that is what it was."""
        if ended.reason == "launch" or not self._in_group("memory"):
            return ended
        if self._counter >= 0:
            self._hits += cgroup.drain(self._counter)
        own = self._tasks.get(ended.procid)
        if own is not None and own.memory_kills():
            return self._out_of_memory(ended)
        # A runtime may have removed its group, and with it the count; not what was hit.
        if ended.code == 137 and self._hits and not self._kills():
            return self._out_of_memory(ended)
        return ended

    def _out_of_memory(self, ended: TaskExit) -> TaskExit:
        count = max(1, self._kills())
        message = (
            f"Detected {count} oom-kill event(s) in {_step_name(self._spec)}. Some of your "
            "processes may have been killed by the cgroup out-of-memory handler."
        )
        if ended.reason == "runtime":  # the runtime was killed, or could not go on without what was
            ended = replace(ended, code=137, signal=process.KILL)
        return replace(ended, reason="memory", message=message, hint="")

    def _kills(self) -> int:
        return self._group.memory_kills() if self._group is not None else 0

    def close(self, exits: list[TaskExit]) -> list[TaskExit]:
        """No process of the step is left: remove the group; the exits, with what it knew."""
        if self._timer is not None:
            self._timer.cancel()
        if self._sentence:
            return [
                replace(each, message=self._sentence) if each.reason == "memory" else each
                for each in exits
            ]
        if self._group is None:
            return exits
        if self._in_group("memory"):
            exits = self._with_late_kills(exits)
        if self._in_group("pids") and (refused := self._group.refused_forks()):
            self._notice(
                f"error: {_step_name(self._spec)} was refused {refused} processes: its limit is "
                f"{self._pids} ({_PIDS})"
            )
        if self._counter >= 0:
            os.close(self._counter)
        if not self._group.remove():
            self._notice(f"error: cannot remove the step's control group {' '.join(self.groups)}")
        return exits

    def _with_late_kills(self, exits: list[TaskExit]) -> list[TaskExit]:
        """A process of the step was killed and no task of it is known to be its own: the worst."""
        if self._counter >= 0:
            self._hits += cgroup.drain(self._counter)
        known = any(each.reason == "memory" for each in exits)
        if not known and (self._hits or self._kills()):
            worst = max(exits, key=lambda each: each.code)
            if worst.reason == "program":
                return [self._out_of_memory(each) if each is worst else each for each in exits]
        return exits


class Inside:
    """The way into a group: a descriptor, or this thread goes in, and out again.  ``find`` gives
    the group, which it may make.

    Raises LaunchError.
    """

    def __init__(self, find: Callable[[], cgroup.Group | None]) -> None:
        self._find = find
        self._group: cgroup.Group | None = None
        self._door: int | None = None

    def __enter__(self) -> int | None:
        try:
            self._group = self._find()
            self._door = self._group.door() if self._group is not None else None
        except OSError as error:
            raise _no_group(error) from None
        if self._group is not None and self._door is None:
            _move(self._group.enter)
        return self._door

    def __exit__(self, *_: object) -> None:
        if self._door is not None:
            os.close(self._door)
        elif self._group is not None:
            _move(self._group.leave)


def _move(there: Callable[[], None]) -> None:
    """Change the group, and keep our CPUs: before Linux 6.2 a new cpuset sets them anew."""
    cpus = os.sched_getaffinity(0)
    try:
        there()
        os.sched_setaffinity(0, cpus)
    except OSError as error:
        raise _no_group(error) from None


def _no_group(error: OSError) -> LaunchError:
    where = f" {error.filename}:" if error.filename else ""
    return LaunchError(f"no task can be put into the step's control group:{where} {error.strerror}")


def _number_of_pids(spec: StepSpec) -> int:
    text = spec.env.get(_PIDS, "")
    if text and (not text.isdecimal() or int(text) < 1):
        raise LaunchError(f"{_PIDS}={text}: not a number of processes")
    return int(text or 0)


def _step_name(spec: StepSpec) -> str:
    names = {BATCH_STEP: "batch", INTERACTIVE_STEP: "interactive"}
    return f"StepId={spec.job_id}.{names.get(spec.step_id, spec.step_id)}"


# -- what there is --------------------------------------------------------------------------------

_known: dict[bool, dict[str, cgroup.Place]] = {}


def rehearse() -> None:
    """Find out where groups can be made, before somebody waits for it (0.3 ms)."""
    _known[False] = cgroup.places()
    if os.geteuid() == 0:
        _known[True] = cgroup.places(at_top=True)


def _find(wanted: list[str], *, at_top: bool) -> dict[str, cgroup.Place]:
    """Where each wanted controller's group can be, as far as one group can have them all."""
    if not wanted:
        return {}
    found = _known.get(at_top) or cgroup.places(at_top=at_top)
    first = found[wanted[0]]
    if wanted[0] != "cpuset" and first.version == 2 and not first.directory:
        # Our own group may pass controllers on once we have left it.
        names = [name for name in wanted if found[name].version == 2]
        if cgroup.step_aside(first.own, names, _our_processes()):
            found = cgroup.places(at_top=at_top)
    usable = {name: found[name] for name in wanted if found[name].directory}
    if not usable:
        return {}
    lead = next(iter(usable.values()))
    return {
        name: place
        for name, place in usable.items()
        if place.version == lead.version
        and (place.version == 1 or place.directory == lead.directory)
    }


def _our_processes() -> set[int]:
    """The engine's processes, as a supervisor sees them: itself, the spawner with all that it has
    forked, and the controller."""
    spawner = os.getppid()
    if spawner == 1:
        return {os.getpid()}
    return {os.getpid(), spawner, process.parent(spawner), *process.children(spawner)}


def _why_not(controller: str) -> str:
    return cgroup.places()[controller].why or "the memory limit's group is in another tree"


@dataclass(frozen=True, slots=True)
class Enforcement:
    """What holds one kind of limit here, why it is that, and what to do for a better one."""

    kind: str
    mechanism: str
    why: str
    better: str = ""


def in_force() -> tuple[Enforcement, ...]:
    """For cpus, memory, pids and devices: what would hold a step's limits, if started from here."""
    found = cgroup.places()
    cpus = _enforcement(
        "cpus", found["cpuset"], "affinity", "a program may change its own affinity"
    )
    if os.geteuid() == 0:
        why = "root's steps have a cpuset only beside another limit"
        cpus = Enforcement("cpus", "affinity", why)
    return (
        cpus,
        _enforcement("memory", found["memory"], "watched", "looked at every 0.2 to 1 s"),
        _enforcement("pids", found["pids"], "none", "RLIMIT_NPROC counts all of the user's"),
        Enforcement(
            "devices",
            "none",
            "the kernel lets only root filter devices; a container sees those of its own /dev",
        ),
    )


def _enforcement(kind: str, place: cgroup.Place, other: str, but: str) -> Enforcement:
    if place.directory:
        return Enforcement(
            kind, f"cgroup v{place.version}", f"groups are made in {place.directory}"
        )
    return Enforcement(kind, other, f"{place.why}; {but}", _better(place))


def _better(place: cgroup.Place) -> str:
    """What to type for a delegated tree."""
    if place.lacking:
        return (
            "sudo systemctl edit user@.service, with the lines [Service] and "
            "Delegate=cpu cpuset io memory pids; then log in again"
        )
    if place.version == 2:
        return (
            "roadstead engine stop; "
            "systemd-run --user --scope -p Delegate=yes roadstead engine start"
        )
    if place.version == 1:
        return (
            "ask an administrator for a group of your own in this tree, or for cgroup v2 "
            "(systemd.unified_cgroup_hierarchy=1 on the kernel's command line)"
        )
    return "ask an administrator to mount the cgroup tree"
