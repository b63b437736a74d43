"""Control groups: which there are, where this process may make its own, and what a group can do.

Version 1 has a tree for each controller, version 2 one tree for all, and a host may have both
(cgroups(7)).  A user may make groups below a directory that is hers, which an administrator or
systemd has *delegated* to her.  In version 1 that is all.  In version 2 a controller works in a
group only if the group above passes it on (``cgroup.subtree_control``), and a group that passes
controllers on holds no processes itself.  So groups are made below the nearest group at or above
our own that is the user's and passes on what is needed; where there is none, but our own group
holds nobody but us, we step aside into a leaf of it.  Processes that are not ours are never moved.

In version 1 a thread enters a group in 0.02 ms (``tasks``): it goes in, starts its child, and comes
out again.  By ``cgroup.procs``, all that version 2 has, that takes 8 ms, an RCU grace period; there
the child is born in the group (host.clone), and only where the kernel cannot do that, we go in.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from roadstead.host import clone, process

_ROOT = "/sys/fs/cgroup"
_LEAF: Final = "roadstead-engine"
_PATIENCE: Final = 5.0  # seconds that a killed process may take to end
_SWITCH_PAUSES: Final = (0.0005, 0.001, 0.002, 0.005, 0.02, 0.1, 0.5)  # seconds
CONTROLLERS: Final = ("cpuset", "memory", "pids")


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted tree: its version, its top directory, and the directory of our own group."""

    version: int
    top: str
    own: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where groups for one controller can be made.

    ``directory`` "" is nowhere; ``why`` says it then, and ``lacking`` is true where there is a
    delegated tree that lacks the controller.  ``version`` 0: it is in no tree that is mounted.
    """

    version: int
    directory: str
    own: str
    why: str = ""
    lacking: bool = False


# -- what there is --------------------------------------------------------------------------------


def hierarchies(mounts: str, membership: str) -> dict[str, Hierarchy]:
    """The trees by controller ("" is version 2's), from the texts of /proc/self/mountinfo and
    /proc/self/cgroup (proc(5), cgroups(7))."""
    ours: dict[str, str] = {}
    for line in membership.splitlines():
        _, names, path = line.split(":", 2)
        ours |= dict.fromkeys(names.split(","), path)
    found: dict[str, Hierarchy] = {}
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, *options = after.split()
        if kind not in ("cgroup", "cgroup2") or not options:
            continue
        root, top = before.split()[3:5]
        for name in options[-1].split(",") if kind == "cgroup" else [""]:
            below = _below(ours.get(name), root)
            if below is not None:
                found[name] = Hierarchy(1 if name else 2, top, f"{top}{below}".rstrip("/"))
    return found


def _below(path: str | None, root: str) -> str | None:
    """A group's path as seen from a mount that shows the tree from ``root`` on."""
    if path is None or path.startswith("/.."):  # outside of our cgroup namespace
        return None
    if root == "/":
        return path
    return path.removeprefix(root) if f"{path}/".startswith(f"{root}/") else None


def mounted() -> dict[str, Hierarchy]:
    """The trees that this process sees."""
    return hierarchies(_read("/proc/self/mountinfo"), _read("/proc/self/cgroup"))


def layout(found: dict[str, Hierarchy]) -> str:
    """How a host mounts its trees: "v1", "v2", "hybrid" (v1, with a v2 tree beside it), "none"."""
    first = any(name in found for name in CONTROLLERS)
    return ("hybrid" if "" in found else "v1") if first else ("v2" if "" in found else "none")


def places(*, at_top: bool = False) -> dict[str, Place]:
    """For each of CONTROLLERS where its groups can be made by us.

    ``at_top``: at the top of the tree, where a runtime that root has called makes its own.
    """
    found = mounted()
    return {name: place(name, found, at_top=at_top) for name in CONTROLLERS}


def place(name: str, found: dict[str, Hierarchy], *, at_top: bool = False) -> Place:
    """Where groups for the controller ``name`` can be made; changes nothing."""
    tree = found.get(name)
    if tree is not None:
        directory = tree.top if at_top else tree.own
        if _is_ours(directory, "tasks"):
            return Place(1, directory, tree.own)
        return Place(1, "", tree.own, f"{directory} is not delegated to this user")
    unified = found.get("")
    if unified is None or name not in _words(f"{unified.top}/cgroup.controllers"):
        return Place(0, "", "", f"no cgroup tree with the {name} controller is mounted here")
    return _unified_place(name, unified, at_top=at_top)


def _unified_place(name: str, tree: Hierarchy, *, at_top: bool) -> Place:
    directory = tree.top if at_top else tree.own
    if not _is_ours(directory, "cgroup.procs"):
        return Place(2, "", tree.own, f"{directory} is not delegated to this user")
    while _is_ours(directory, "cgroup.procs"):
        if name in _words(f"{directory}/cgroup.subtree_control"):
            return Place(2, directory, tree.own)
        if directory == tree.top:
            break
        directory = os.path.dirname(directory)
    if name not in _words(f"{tree.own}/cgroup.controllers"):
        why = f"{tree.own} is delegated without the {name} controller"
        return Place(2, "", tree.own, why, lacking=True)
    return Place(2, "", tree.own, f"{tree.own} holds processes, and so cannot pass {name} on")


def _is_ours(directory: str, joined_by: str) -> bool:
    return os.access(directory, os.W_OK) and os.access(f"{directory}/{joined_by}", os.W_OK)


def step_aside(own: str, names: Iterable[str], ours: Iterable[int]) -> bool:
    """Version 2: make our own group pass controllers on, which it can once it holds no process.

    Moves ``ours``, the processes of this engine, into a leaf of it.  Does nothing, and returns
    False, where the group is not the user's or somebody else is in it.
    """
    inside = {int(pid) for pid in _words(f"{own}/cgroup.procs")}
    if not _is_ours(own, "cgroup.procs") or not inside <= set(ours):
        return False
    try:
        os.makedirs(f"{own}/{_LEAF}", exist_ok=True)
        for pid in inside:
            _write(f"{own}/{_LEAF}/cgroup.procs", str(pid))
        _write(f"{own}/cgroup.subtree_control", " ".join(f"+{name}" for name in names))
    except OSError:
        return False
    return True


# -- a group --------------------------------------------------------------------------------------


class Group:
    """A group, in one directory for each controller; version 2 has all of them in the same one.

    ``homes`` are our own groups in the same trees.  Methods raise OSError.
    """

    def __init__(self, directories: dict[str, str], homes: dict[str, str], version: int) -> None:
        self.directories = directories
        self._homes = homes
        self.version = version

    @classmethod
    def below(cls, found: dict[str, Place], name: str) -> Group:
        """The group ``name`` in these places, which are all of one version; not made yet."""
        directories = {each: f"{place.directory}/{name}" for each, place in found.items()}
        homes = {each: place.own for each, place in found.items()}
        return cls(directories, homes, max(place.version for place in found.values()))

    def make(self) -> None:
        """Make it anew: an empty one of that name, of a journal that was moved away, goes."""
        for directory in dict.fromkeys(self.directories.values()):
            try:
                os.mkdir(directory)
            except FileExistsError:
                remove(directory)
                os.mkdir(directory)

    def child(self, name: str) -> Group:
        """A group below this one, made; in version 1 for the memory controller alone."""
        if self.version == 2:
            below = f"{next(iter(self.directories.values()))}/{name}"
            directories = dict.fromkeys(self.directories, below)
        else:
            below = f"{self.directories['memory']}/{name}"
            directories = {**self.directories, "memory": below}
        os.mkdir(below)
        return Group(directories, self._homes, self.version)

    def share(self) -> None:
        """Pass the controllers on to the groups below, so that each of them counts for itself."""
        if self.version == 2:
            directory = next(iter(self.directories.values()))
            words = " ".join(f"+{name}" for name in self.directories)
            _write(f"{directory}/cgroup.subtree_control", words)
            return
        directory = self.directories["memory"]
        if _read(f"{directory}/memory.use_hierarchy").strip() == "0":  # before Linux 5.11
            _write(f"{directory}/memory.use_hierarchy", "1")

    def limit_memory(self, size: int) -> None:
        """No more than ``size`` bytes, of which none is swapped out."""
        directory = self.directories["memory"]
        names = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
        if self.version == 2:
            names = ("memory.max", "memory.swap.max")
        _write(f"{directory}/{names[0]}", str(size))
        if os.path.exists(f"{directory}/{names[1]}"):  # not there where swap is not accounted for
            _write(f"{directory}/{names[1]}", "0" if self.version == 2 else str(size))

    def limit_pids(self, count: int) -> None:
        """No more than ``count`` processes and threads; fork(2) fails with EAGAIN then."""
        _write(f"{self.directories['pids']}/pids.max", str(count))

    def confine(self, cpus: Iterable[int]) -> None:
        """These CPUs, and no way to leave them."""
        directory = self.directories["cpuset"]
        if self.version == 1:  # a new group has none of either
            above = os.path.dirname(directory)
            _write(f"{directory}/cpuset.mems", _read(f"{above}/cpuset.mems").strip())
        _write(f"{directory}/cpuset.cpus", ",".join(map(str, cpus)))

    def door(self) -> int | None:
        """Version 2: the group as a descriptor to be born into; None where one has to enter."""
        if self.version == 1 or not clone.supported():
            return None
        directory = next(iter(self.directories.values()))
        return os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def enter(self) -> None:
        """Move this thread in: what it starts now is born here."""
        self._join(self.directories)

    def leave(self) -> None:
        """Move this thread back to our own groups."""
        self._join(self._homes)

    def _join(self, directories: dict[str, str]) -> None:
        name = "tasks" if self.version == 1 else "cgroup.procs"
        for directory in dict.fromkeys(directories.values()):
            _write(f"{directory}/{name}", "0")

    def watch_memory(self) -> int:
        """Version 1: an eventfd that counts how often the limit was hit with nothing to give back,
        here or below; it counts what happened in groups that are gone, too."""
        counter = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        directory = self.directories["memory"]
        try:
            control = os.open(f"{directory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
            try:
                _write(f"{directory}/cgroup.event_control", f"{counter} {control}")
            finally:
                os.close(control)
        except OSError:
            os.close(counter)
            raise
        return counter

    def memory_kills(self) -> int:
        """How many processes the kernel has killed here, for want of memory.

        Version 2 counts those of the groups below too, even of groups that are gone.
        """
        directory = self.directories["memory"]
        if self.version == 2:
            return _count(f"{directory}/memory.events", "oom_kill")
        return sum(_count(f"{each}/memory.oom_control", "oom_kill") for each in _tree(directory))

    def refused_forks(self) -> int:
        """How often fork(2) has failed because of ``limit_pids``."""
        return _count(f"{self.directories['pids']}/pids.events", "max")

    def remove(self) -> bool:
        """Remove it and what is below; False where something still runs in it."""
        removed = [remove(each) for each in dict.fromkeys(self.directories.values())]
        return all(removed)


def drain(counter: int) -> int:
    """What an eventfd has counted since the last time."""
    try:
        return os.eventfd_read(counter)
    except BlockingIOError:
        return 0


def kill(directory: str) -> list[int]:
    """SIGKILL to all processes of a group and of those below, until they are gone; their pids.

    ``cgroup.kill`` (Linux 5.14) misses none, and reaches those of the user's subordinate ids;
    without it, what is forked meanwhile is found in the next round.
    """
    found: list[int] = []
    while True:
        inside = [int(pid) for each in _tree(directory) for pid in _words(f"{each}/cgroup.procs")]
        # 0 is a process that our pid namespace has no number for.
        new = [pid for pid in inside if pid and pid not in found]
        if not new:
            return found
        found += new
        watched = _adopt(new)
        with contextlib.suppress(OSError):  # not there: each of them is sent the signal anyway
            _write(f"{directory}/cgroup.kill", "1")
        for pid in new:
            process.send(pid, process.KILL)
        process.wait_for_ends(watched, _PATIENCE)


def _adopt(pids: list[int]) -> list[process.Child]:
    found = []
    for pid in pids:
        try:
            found.append(process.adopt(pid))
        except ProcessLookupError:
            continue
    return found


def remove(directory: str) -> bool:
    """Remove a group and those below it; False where something runs in one, or it is not ours."""
    return all(_remove_one(each) for each in reversed(_tree(directory)))


def _remove_one(directory: str) -> bool:
    """Remove a group; False where something runs in it, or it is not ours.

    A process that has ended, and has been seen to, may still be on its way off the CPU; until then
    the kernel calls its group busy, and has no event for the moment at which it is not.
    """
    for pause in _SWITCH_PAUSES:
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno != errno.EBUSY or _words(f"{directory}/cgroup.procs"):
                return False
            if len(_tree(directory)) > 1:
                return False
            time.sleep(pause)
        else:
            return True
    return False


def remove_empty(name: str) -> None:
    """Remove the group ``name`` from every hierarchy in which it is empty, and no other.

    What runtimes called by root make, and do not always remove: a directory a container in every
    hierarchy; crun leaves them when it fails half-way, or is killed.
    """
    try:
        tops = [_ROOT, *(f"{_ROOT}/{entry}" for entry in os.listdir(_ROOT))]
    except OSError:
        return  # no cgroups here
    for top in tops:
        if os.path.isdir(f"{top}/{name}"):
            _remove_one(f"{top}/{name}")  # if something runs in it, it is not ours to remove


def _tree(directory: str) -> list[str]:
    """A group and those below it, those above first."""
    return [top for top, _, _ in os.walk(directory)]


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _words(*paths: str) -> list[str]:
    return [word for path in paths for word in _read(path).split()]


def _count(path: str, name: str) -> int:
    """The number behind ``name`` in a file of names and numbers; 0 where there is none."""
    for line in _read(path).splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


def _write(path: str, text: str) -> None:
    # One write(2) and no O_TRUNC: the kernel takes a whole order at a time.
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def leave(pattern: re.Pattern[str]) -> None:
    """Move this process above the first of its groups whose name matches, in every hierarchy.

    Raises OSError.
    """
    for tree in mounted().values():
        names = tree.own.removeprefix(tree.top).strip("/").split("/")
        at = next((n for n, name in enumerate(names) if pattern.fullmatch(name)), None)
        if at is None:
            continue
        above = "/".join([tree.top, *names[:at]])
        try:
            _write(f"{above}/cgroup.procs", "0")
        except OSError:  # version 2: one that passes controllers on holds no processes
            os.makedirs(f"{above}/{_LEAF}", exist_ok=True)
            _write(f"{above}/{_LEAF}/cgroup.procs", "0")


def own_paths() -> set[str]:
    """Where this process is in the hierarchies, without the first "/": below that a runtime may put
    its containers (cgroups(7), /proc/PID/cgroup)."""
    try:
        with open("/proc/self/cgroup", encoding="utf-8", errors="replace") as file:
            paths = {line.rstrip("\n").split(":", 2)[2].strip("/") for line in file}
    except OSError:
        return set()
    return paths - {""}


def empty(prefixes: tuple[str, ...], age: float) -> set[str]:
    """The groups whose names begin so, that have no process in any hierarchy, and have been there
    for ``age`` seconds; as ``remove_empty`` takes them."""
    found: set[str] = set()
    used: set[str] = set()
    try:
        hierarchies = [_ROOT, *(f"{_ROOT}/{entry}" for entry in os.listdir(_ROOT))]
    except OSError:
        return found
    for hierarchy in hierarchies:
        for parent in ("", *(f"{path}/" for path in own_paths())):
            for name in _names(f"{hierarchy}/{parent}"):
                if name.startswith(prefixes):
                    group = f"{parent}{name}"
                    (found if _unused(f"{hierarchy}/{group}", age) else used).add(group)
    return found - used


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _unused(group: str, age: float) -> bool:
    try:
        young = time.time() - os.stat(group).st_mtime < age
        with open(f"{group}/cgroup.procs", encoding="utf-8") as file:
            return not young and not file.read()
    except OSError:
        return False
