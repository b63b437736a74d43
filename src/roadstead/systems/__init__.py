"""Container systems: whatever people have that runs containers, as the runtime of a step.

A step's container is decided once, as config.json: root, arguments, environment, directory, mounts.
An OCI runtime reads that file.  A container system is told the same by its command line, and
everything around it (the record of what could be left, signals, limits, the end) is the step's own
and the same for all.  So a system is one file with one class:

    class Example(System):
        name, programs, package = "example", ("example",), "example"

        def start(self, program, container):
            return Start([program, "run", container.rootfs, *container.args], container.env)

and a row in ``TABLE``, or, in a package of somebody else's, an entry point of the group
``roadstead.systems`` (docs/systems.md has one in full).  The members that may be given beside
``start`` are those of ``System``, each with what it means when it is left out.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from roadstead.errors import RuntimeFailure
from roadstead.host import files, process

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP: Final = "roadstead.systems"
# Directories with packages that bring systems, beside those that this Python knows.
PATH: Final = "ROADSTEAD_SYSTEMS"

# name → the module of roadstead.systems and its class.
TABLE: Final[dict[str, tuple[str, str]]] = {
    "apptainer": ("apptainer", "Apptainer"),
    "bubblewrap": ("bubblewrap", "Bubblewrap"),
    "charliecloud": ("charliecloud", "Charliecloud"),
    "docker": ("docker", "Docker"),
    "enroot": ("enroot", "Enroot"),
    "podman": ("podman", "Podman"),
    "sarus": ("sarus", "Sarus"),
    "shifter": ("shifter", "Shifter"),
    "singularity": ("apptainer", "Singularity"),
    "udocker": ("udocker", "Udocker"),
}


@dataclass(frozen=True, slots=True)
class Mount:
    """A directory or file of the host's, and where it is to be seen inside."""

    source: str
    destination: str
    readonly: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One task's container, as config.json has it.

    ``rootfs`` is its root as a directory, or ``image`` the name under which the system itself has
    it; what is written to an ``overlaid`` root is to go elsewhere, and away.  ``name`` is unique on
    this host.  ``directory`` is the task's own: what the system wants to read may be written there,
    and goes with it; ``state`` is what ``System.state`` has named.  ``caller`` are the variables of
    the system's own commands.  ``uid`` and ``gid`` are who the process is to be inside; ``root``
    whether the user has asked to be root there (None: has not said).  ``cpus`` and ``memory`` (MiB,
    0: no limit) are for systems that start containers elsewhere than below us.  ``limits`` are soft
    and hard limits by name (nofile, nproc).
    """

    name: str
    args: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    directory: str
    state: str = ""
    caller: Mapping[str, str] = field(default_factory=dict)
    rootfs: str = ""
    image: str = ""
    readonly: bool = False
    mounts: tuple[Mount, ...] = ()
    overlaid: bool = False
    terminal: bool = False
    uid: int = 0
    gid: int = 0
    root: bool | None = None
    cpus: tuple[int, ...] = ()
    memory: int = 0
    limits: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def write(self, name: str, text: str) -> str:
        """Have a file in the task's directory; its path.  Nobody else can read it."""
        path = f"{self.directory}/{name}"
        files.write_atomically(path, text)
        return path

    def variables(self) -> tuple[str, dict[str, str]]:
        """The environment as lines of a file that takes one variable a line, and the variables that
        no line can hold.  What is in argv is there for every user to read."""
        lines = [f"{name}={value}\n" for name, value in self.env.items() if "\n" not in value]
        others = {name: value for name, value in self.env.items() if "\n" in value}
        return "".join(lines), others


@dataclass(frozen=True, slots=True)
class Start:
    """What is to be executed, and the variables that it gets beside those of ``System.keeps``, or
    ``clean`` of all others."""

    argv: list[str]
    env: Mapping[str, str] = field(default_factory=dict)
    clean: bool = False


class System:
    """One container system.  ``program`` is always the path of the first of ``programs`` found.

    ``package``    what to install, for who has not got it
    ``own``        transports (images/reference.py) of images that it runs by its own names
    ``keeps``      prefixes of variables of the user's that it is to see, beside HOME and the like
    ``nests``      whether it can be called in a namespace of the step's; else an image's root is
                   made for it as a plain directory
    ``overlays``   whether it can lay a writable layer over a root (``Container.overlaid``)
    ``takes_root`` whether it runs a root file system that is a directory
    ``makes_points`` whether it makes mount points that the root lacks
    ``needs``      directories that a root must have for it, and that are made there
    ``mounts_readonly`` whether it can mount something read-only
    ``passes_descriptors`` whether the program gets what is open beyond 2
    ``tidies``     whether nothing is left to be removed of a container that has ended by itself
    ``own_statuses`` exit statuses by which it may tell of its own failure
    ``signal_status`` the status by which it tells of a signal, whichever; 0: it tells which
    ``reraises``   whether it ends by the signal that has ended the program
    ``forgets``    whether it says 0 where its own processes were ended by a signal
    ``litter``     what a process of its own leaves when it is killed: a pattern with {pid} in it
    ``becomes``    whether its process becomes the program, by exec: then its name tells who ended
    ``waits``      whether its first process waits for the program, and may pass signals on: then it
                   is sent none of the step's, nor what executes the same, and no signal comes twice
    ``comms``      the names of its other processes, where the program shares their mount namespace
    """

    name: str = ""
    programs: tuple[str, ...] = ()
    package: str = ""
    own: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()
    nests: bool = True
    overlays: bool = False
    takes_root: bool = True
    makes_points: bool = False
    needs: tuple[str, ...] = ("/proc", "/dev", "/sys")
    mounts_readonly: bool = True
    passes_descriptors: bool = False
    tidies: bool = False
    own_statuses: frozenset[int] = frozenset()
    signal_status: int = 0
    reraises: bool = False
    forgets: bool = False
    litter: str = ""
    becomes: bool = False
    waits: bool = False
    comms: tuple[str, ...] = ()

    def check(self, program: str, container: Container) -> None:
        """Raise RuntimeFailure or LaunchError for what it cannot do, before anything is started."""

    def start(self, program: str, container: Container) -> Start:
        """How to run the container to its end, in the foreground."""
        raise NotImplementedError

    def remove(self, program: str, name: str) -> list[str] | None:
        """The command that ends the container of this name, if it runs, and removes what is kept of
        it; None where nothing is.  It may be called by whoever finds the step's supervisor gone."""
        return None

    def state(self, directory: str) -> str:
        """Where it keeps what it knows of the container of this task, if not in ``directory``, the
        task's own: a directory that is removed at the end, whatever the end; "": nowhere."""
        return ""

    def first(self, program: str, container: Container) -> int:
        """The container's first process, where that is no descendant of ours; 0: it is one, or
        there is none yet."""
        return 0

    def has_begun(self, program: str, container: Container) -> bool:
        """Whether the program was started; asked after an end with one of ``own_statuses``."""
        return True


def find(name: str, env: Mapping[str, str]) -> System:
    """The system of this name.  Raises RuntimeFailure: which there are."""
    if name in TABLE:
        module, kind = TABLE[name]
        found = getattr(importlib.import_module(f"roadstead.systems.{module}"), kind)()
        assert isinstance(found, System)
        return found
    for entry in _of_others(env):
        if entry.name == name:
            made = _loaded(entry, env)
            if not isinstance(made, System):
                raise RuntimeFailure(f"--container-system={name}: {entry.value} is no System")
            return made
    raise RuntimeFailure(
        f"--container-system={name}: no such container system",
        hint=f"known are {', '.join(names(env))}",
    )


def names(env: Mapping[str, str]) -> list[str]:
    """All systems' names."""
    return sorted({*TABLE, *(entry.name for entry in _of_others(env))})


def _of_others(env: Mapping[str, str]) -> list[EntryPoint]:
    """What packages bring.  Looking takes as long as starting a container: only for a name that is
    not ours."""
    from importlib.metadata import distributions

    found = [each for one in distributions(path=_places(env)) for each in one.entry_points]
    return [each for each in found if each.group == GROUP]


def _places(env: Mapping[str, str]) -> list[str]:
    more = [path for path in env.get(PATH, "").split(":") if path.startswith("/")]
    return [*more, *sys.path]


def _loaded(entry: EntryPoint, env: Mapping[str, str]) -> object:
    """What an entry point names.  This process may serve another step, whose variables are others:
    the places that are this one's are on its path for no longer than it takes."""
    before = sys.path
    sys.path = _places(env)
    try:
        return entry.load()()
    finally:
        sys.path = before


def locate(system: System, env: Mapping[str, str]) -> str:
    """The path of the system's program.  Raises RuntimeFailure: what to install."""
    path = ":".join(filter(None, (env.get("PATH"), "/usr/local/bin:/usr/bin:/usr/sbin")))
    for name in system.programs:
        found = process.which(name, path)
        if found:
            return os.path.abspath(found)
    raise RuntimeFailure(
        f"--container-system={system.name}: {' or '.join(system.programs)} not found on PATH",
        hint=f"install {system.package or system.name}, or choose another container system",
    )
