"""What of ours is left that no step needs any more: found in the records, and in /proc.

``look`` reads what is there, ``compare`` says what of it is left, and ``remove`` takes that away.
Three rules tell what is left from what lives:

* A step's directory and its exit record are left when the controller does not know the step as one
  that has not ended, and no supervisor that claims the directory runs.
* The containers of a job that have a name are left when the controller does not know the job.
* All else of a step (processes, runtime state, mounts, control groups) is made after the step's
  directory and is gone before it.  So it is left when that directory is not there, or is left.

A look takes a while, and steps come and go.  Who looks, then asks which steps live, then looks
again and believes only what was there both times, never takes a living step for a dead one: the
controller knows a step before its directory is made, until after that is gone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from roadstead.host import cgroup, files, mounts, process
from roadstead.step import named, processes, record, sweep

_IDLE: Final = ("roadstead-spawn", "roadstead-spare")
_STATE_FILES: Final = ("status", "state.json")  # crun's, runc's
_RECORDS: Final = ("directory", "exit record")
_OLD_GROUP: Final = 10.0  # seconds; a younger empty control group may be one that is being made


@dataclass(frozen=True, slots=True, order=True)
class Thing:
    """One thing of ours.  ``step`` is the directory of the step that it belongs to, or ""."""

    kind: str
    what: str
    step: str = ""
    detail: str = ""

    @property
    def pid(self) -> int:
        """The number of a process; its start time is the detail."""
        return int(self.what)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look has found."""

    things: frozenset[Thing]
    supervised: frozenset[str]  # directories of steps whose supervisors run
    directories: frozenset[str]  # of steps


def look(state: str, runtime: str, environ: dict[str, str]) -> Seen:
    """Everything of this engine's that is there, and would be left if nothing ran.

    Raises OSError for directories that cannot be read.
    """
    steps = f"{runtime}/steps"
    entries = _names(steps)
    directories = {f"{steps}/{name}" for name in entries if os.path.isdir(f"{steps}/{name}")}
    claims = {directory: record.read_claim(directory) for directory in directories}
    supervised = {each for each, claim in claims.items() if claim and record.is_running(claim)}
    things = {Thing("directory", each, each) for each in directories}
    things |= {
        Thing("exit record", f"{steps}/{name}", f"{steps}/{name}".removesuffix(".exit"))
        for name in entries
        if name.endswith(".exit")
    }
    things |= _temporaries(state, runtime, steps, *directories)
    things |= _marked(steps)
    things |= _idle(f"{state}/controller.lock")
    things |= {Thing("mount", point, _step_of(point, steps)) for point in mounts.below(runtime)}
    things |= _containers(steps, runtime, environ, entries)
    things |= _groups(steps, entries)
    things |= {
        Thing("named container", directory, directory)
        for directory in (named.directory(state, job) for job in named.jobs(state))
    }
    return Seen(frozenset(things), frozenset(supervised), frozenset(directories))


def compare(before: Seen, live: Iterable[str], after: Seen, *, controller: int = 0) -> list[Thing]:
    """What is left of what both looks have found.

    ``live`` are the directories of the steps that have not ended, asked for between the two looks;
    ``controller`` is the pid of the controller that said so, 0 where none runs.
    """
    needed = {*live, *before.supervised, *after.supervised}
    there = before.directories | after.directories

    def is_left(thing: Thing) -> bool:
        if thing.kind in (*_RECORDS, "named container"):
            return thing.step not in needed
        if thing.kind == "temporary file":
            return True
        if thing.kind == "engine process":
            return not controller or thing.step != str(controller)
        return thing.step not in needed and (thing.kind == "mount" or thing.step not in there)

    both = before.things & after.things
    left = {thing for thing in both if is_left(thing)}
    gone = {thing.step for thing in left if thing.kind == "directory"}
    return sorted(left | {thing for thing in both if thing.step and thing.step in gone})


def remove(left: Iterable[Thing]) -> list[tuple[Thing, str]]:
    """Remove what is left, processes first; what could not be removed, and why."""
    order = ("engine process", "process", "mount", "container", "directory")
    rank = {kind: number for number, kind in enumerate(order)}
    failed = []
    for thing in sorted(left, key=lambda each: (rank.get(each.kind, len(order)), each)):
        try:
            _remove(thing)
        except OSError as error:
            failed.append((thing, error.strerror or str(error)))
    return failed


def clean(
    state: str, runtime: str, *, here: set[str], live: Iterable[str], controller: int
) -> list[str]:
    """Remove what is left, for a controller that has just started, in a child of it; a line for
    each thing.

    ``here`` are the names of what was in the directory of steps, and ``live`` the directories of
    the steps that had not ended, at one and the same time: what has come since then is not judged.
    """
    environ = dict(os.environ)
    before, after = look(state, runtime, environ), look(state, runtime, environ)
    judged = (*_RECORDS, "named container")
    records = {thing for thing in before.things | after.things if thing.kind in judged}
    new = {thing.step for thing in records if os.path.basename(thing.what) not in here}
    left = compare(before, {*live, *new}, after, controller=controller)
    if os.getppid() != controller:
        return []  # it was killed: there may be another, whose spawner is none of these
    failed = dict(remove(left))
    said = {thing: f"not removed: {why}" for thing, why in failed.items()}
    return [f"{thing.kind} {thing.what}: {said.get(thing, 'removed')}" for thing in left]


def _remove(thing: Thing) -> None:
    match thing.kind:
        case "process" | "engine process":
            still = record.start_time(thing.pid) == thing.detail
            if still and not process.kill_all([thing.pid], 5.0):
                raise OSError(0, "it does not end")
        case "mount":
            mounts.detach_below(thing.what)
        case "directory":
            sweep.sweep(thing.what)  # with all that its claim names
        case "named container":
            named.remove_all(thing.what)
        case "container":
            files.remove_tree(thing.what)
        case "control group":
            cgroup.remove_empty(thing.what)
        case _:
            os.unlink(thing.what)


# -- what is there ---------------------------------------------------------------------------------


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


def _step_of(path: str, steps: str) -> str:
    """The directory of the step below which ``path`` lies; "" where it lies elsewhere."""
    if not path.startswith(f"{steps}/"):
        return ""
    return f"{steps}/{path[len(steps) + 1 :].partition('/')[0]}"


def _run_of(key: str, steps: str, entries: list[str]) -> str:
    """The directory of the step JOB.STEP, by which its containers and groups are named; of a
    requeued job's batch step, that of its latest run that is there (stepspec.directory_of)."""
    runs = [name for name in entries if name == key or _is_again(name, key)]
    return f"{steps}/{max(runs, key=lambda name: (len(name), name), default=key)}"


def _is_again(name: str, key: str) -> bool:
    return name.startswith(f"{key}.") and name[len(key) + 1 :].isdecimal()


def _temporaries(*places: str) -> set[Thing]:
    """Files that were to replace others when their writer was killed (files.write_atomically)."""
    found = set()
    for place in places:
        for name in _names(place):
            *_, pid, new = ("", "", *name.split("."))
            if new == "new" and pid.isdigit() and not _is_ours(int(pid)):
                found.add(Thing("temporary file", f"{place}/{name}"))
    return found


def _is_ours(pid: int) -> bool:
    return process.name(pid).startswith("roadstead-")


def _marked(steps: str) -> set[Thing]:
    found = set()
    for pid, mark in processes.marked().items():
        started = record.start_time(pid)
        if started and _step_of(mark, steps):
            found.add(Thing("process", str(pid), mark, started))
    return found


def _idle(lock: str) -> set[Thing]:
    """Spawners and waiting supervisors: those who hold the controller's lock, as it does.

    The ``step`` of such a one is the pid of the controller that it belongs to: its parent's, or its
    parent's parent's.
    """
    found = set()
    for name in _names("/proc"):
        if not name.isdigit() or process.name(int(name)) not in _IDLE:
            continue
        if lock not in process.open_files(int(name)):
            continue
        pid = int(name)
        above = process.parent(pid)
        if process.name(above) == _IDLE[0]:
            above = process.parent(above)
        found.add(Thing("engine process", name, str(above), record.start_time(pid)))
    return found


def _containers(
    steps: str, runtime: str, environ: dict[str, str], entries: list[str]
) -> set[Thing]:
    """State that a runtime keeps of our containers: in our directory, or, as an oci.conf after
    Slurm's samples has it, in the runtime's own (crun(1), runc(8): --root)."""
    own = f"{runtime}/containers"
    found = {
        Thing(
            "container",
            f"{own}/{name}",
            _run_of(".".join(name.rsplit(".", 3)[1:3]), steps, entries),
        )
        for name in _names(own)
    }
    user = environ.get("XDG_RUNTIME_DIR", "") or f"/run/user/{os.getuid()}"
    for root in {f"{base}/{name}" for base in (user, "/run") for name in ("crun", "runc")}:
        for name in _names(root):
            if step := _bundle_of(f"{root}/{name}", steps):
                found.add(Thing("container", f"{root}/{name}", step))
    return found


def _bundle_of(directory: str, steps: str) -> str:
    """The step in whose directory a container's bundle lies, as the runtime noted it."""
    for name in _STATE_FILES:
        try:
            with open(f"{directory}/{name}", encoding="utf-8", errors="replace") as file:
                _, ours, rest = file.read().partition(f"{steps}/")
        except OSError:
            continue
        if ours:
            return f"{steps}/{rest.partition('/')[0]}"
    return ""


def _groups(steps: str, entries: list[str]) -> set[Thing]:
    """Empty control groups with our names, which only root's runtimes make (taskdir.py)."""
    if os.getuid() != 0:
        return set()
    node = os.uname().nodename.partition(".")[0]
    found = set()
    for group in cgroup.empty(("roadstead-", f"{node}."), _OLD_GROUP):
        name = os.path.basename(group).removeprefix("roadstead-")
        job, step, task = ("", "", "", *name.split("."))[-3:]
        if job.isdecimal() and step.isdecimal() and task.isdecimal():
            found.add(Thing("control group", group, _run_of(f"{job}.{step}", steps, entries)))
    return found
