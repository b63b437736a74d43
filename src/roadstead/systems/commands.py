"""A container system in an OCI runtime's place: config.json, told by a command line.

What step/container.py asks of a runtime (oci/runtime.py, Commands) is answered here for any System,
in run mode: one command whose exit status is the container's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from roadstead.errors import (
    CommandNotFound,
    CommandNotRunnable,
    RoadsteadError,
    RuntimeFailure,
)
from roadstead.host import inside, linux, mounts, process
from roadstead.systems import Container, Mount, System

# What every container has by itself, however its system makes it.
_OF_ALL: Final = (
    *("/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"),
    *("/sys", "/sys/fs/cgroup"),
)
# What marks a process as the step's (step/record.py), also where all else is left out.
_MARKS: Final = ("ROADSTEAD_STEP_DIR",)
# What a system sees of the engine's environment: where the user's things are.
_ALWAYS: Final = ("HOME", "USER", "LOGNAME", "TMPDIR", "LANG", "XDG_")


@dataclass(slots=True)
class Told:
    """A system, told how to run one container."""

    system: System
    path: str
    name: str
    directory: str  # the task's, with config.json in it
    image: str  # the system's own name for what is run, or ""
    env: Mapping[str, str]  # of the engine, with the user's PATH, and the step's mark
    job: Mapping[str, str]  # of the user
    root: bool | None
    overlaid: bool = False
    cpus: tuple[int, ...] = ()
    memory: int = 0
    limits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    mode: Literal["run"] = "run"
    log: str = ""
    pid_file: str = ""
    container: Container | None = None
    environment: dict[str, str] = field(default_factory=dict)
    mounted: list[str] = field(default_factory=list)

    @property
    def program(self) -> str:
        return self.system.name

    @property
    def state(self) -> str:
        """See oci.runtime.Commands."""
        return self.system.state(self.directory)

    @property
    def removes_itself(self) -> bool:
        return self.system.tidies or self.system.remove(self.path, self.name) is None

    def command(self, operation: str, pid: int = 0) -> list[str] | None:
        """See oci.runtime.Commands."""
        if operation == "run":
            return self._start()
        return self.system.remove(self.path, self.name) if operation == "delete" else None

    @property
    def base(self) -> dict[str, str]:
        """The environment of the system's own commands."""
        keeps = (*_ALWAYS, *self.system.keeps)
        kept = {name: value for name, value in self.job.items() if name.startswith(keeps)}
        return {**self.env, **kept}

    def _start(self) -> list[str]:
        container = self.container = self._read()
        self.system.check(self.path, container)
        if not container.image and self.system.nests and not self.system.makes_points:
            _make_points(container, self.system.needs)
        start = self.system.start(self.path, container)
        own = {name: value for name, value in self.env.items() if name in _MARKS}
        self.environment = {**(own if start.clean else self.base), **start.env}
        return start.argv

    def _read(self) -> Container:
        with open(f"{self.directory}/config.json", encoding="utf-8") as file:
            config: dict[str, Any] = json.load(file)
        if config.get("hooks"):
            raise RuntimeFailure(
                f"{self.system.name} runs no OCI hooks ({', '.join(sorted(config['hooks']))})",
                hint="leave out --container-system, or what brings the hooks",
            )
        process_, user = config["process"], config["process"].get("user") or {}
        env = dict(entry.partition("=")[::2] for entry in process_["env"])
        if self.image:
            env.pop("PATH", None)  # its own is in the image
        return Container(
            name=self.name,
            args=tuple(process_["args"]),
            env=env,
            cwd=process_["cwd"],
            directory=self.directory,
            state=self.state,
            caller=self.base,
            rootfs="" if self.image else config["root"]["path"],
            image=self.image,
            readonly=bool(config["root"].get("readonly")),
            mounts=tuple(self._mounts(config)),
            terminal=bool(process_.get("terminal")),
            uid=int(user.get("uid", 0)),
            gid=int(user.get("gid", 0)),
            overlaid=self.overlaid,
            root=self.root,
            cpus=self.cpus,
            memory=self.memory,
            limits=self.limits,
        )

    def _mounts(self, config: dict[str, Any]) -> list[Mount]:
        """Directories and files of the host's; what is to be in memory is a directory of the
        task's, empty, which goes with it."""
        found = []
        for number, each in enumerate(config.get("mounts") or []):
            place, options = os.path.normpath(each["destination"]), each.get("options") or []
            if place in _OF_ALL:
                continue
            if each.get("type") == "tmpfs":
                source = f"{self.directory}/memory-{number}"
                os.makedirs(source, mode=0o700, exist_ok=True)
                os.chmod(source, _mode(options))
            elif each.get("type") == "bind" or "bind" in options or "rbind" in options:
                source = each["source"]
            else:
                raise RuntimeFailure(
                    f"{self.system.name} cannot mount {each.get('type')} at {place}",
                    hint="leave out --container-system",
                )
            found.append(self._mount(source, place, number, readonly="ro" in options))
        return found

    def _mount(self, source: str, place: str, number: int, *, readonly: bool) -> Mount:
        """One mount; read-only in the step's own namespace, where the system has no word for it."""
        if not readonly or self.system.mounts_readonly:
            return Mount(source, place, readonly)
        target = f"{self.directory}/read-only-{number}"
        if os.path.isdir(source):
            os.mkdir(target, 0o700)
        else:
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        linux.mount(source, target, "none", linux.MS_BIND | linux.MS_REC)
        self.mounted.append(target)
        flags = linux.MS_BIND | linux.MS_REMOUNT | linux.MS_RDONLY | _kept_flags(target)
        linux.mount("none", target, "none", flags)
        return Mount(target, place)

    def close(self) -> None:
        """Take away what was mounted for it."""
        for target in self.mounted:
            linux.unmount(target, linux.MNT_DETACH)
        self.mounted = []
        if self.state:
            mounts.detach_below(self.state)

    # -- while it runs, and after ------------------------------------------------------------

    def processes(self, child: process.Child, below: list[int]) -> list[int]:
        """The container's processes among those ``below`` the system's own, the first one first."""
        first = self.system.first(self.path, self.container) if self.container else 0
        if first:
            return [first, *process.descendants(first)]
        if self.system.waits:
            below = self._without_own(child, below)
        if self.system.comms:
            return [each for each in below if process.name(each) not in self.system.comms]
        own = process.namespace("self", "mnt")
        found = [pid for pid in below if process.namespace(pid, "mnt") not in ("", own)]
        if self.system.becomes and process.name(child.pid) == os.path.basename(self.path)[:15]:
            return []
        return found

    @staticmethod
    def _without_own(child: process.Child, below: list[int]) -> list[int]:
        """What neither executes the same as the one that waits, nor lives in a mount namespace that
        this has made for itself and what serves it, as those of file systems."""
        apart, mine = process.namespace(child.pid, "mnt"), process.namespace("self", "mnt")
        executed = process.executed(child.pid)
        return [
            pid
            for pid in below
            if process.executed(pid) != executed
            and (apart == mine or process.namespace(pid, "mnt") != apart)
        ]

    def failure(self, status: int, comm: str) -> RoadsteadError | None:
        """What it was where it was the system that has failed; None where it was the program, or
        nobody can tell."""
        if self.system.becomes:
            own = comm == os.path.basename(self.path)[:15]
        elif status < 0:
            if self.system.reraises:
                return None
            return RuntimeFailure(f"{self.system.name} was killed by signal {-status}")
        else:
            own = status in self.system.own_statuses and not self._has_begun()
        if not own:
            return None
        if self.image and status in (126, 127) and self.container is not None:
            # Nobody else could look for the program in an image of the system's.
            command = self.container.args[0]
            if status == 127:
                return CommandNotFound(f"{command}: not found in the container")
            return CommandNotRunnable(f"{command}: in the container, and not to be executed")
        return RuntimeFailure(
            f"{self.system.name} ended with status {status} before the container had started "
            "(its own message is on stderr)"
        )

    def _has_begun(self) -> bool:
        return self.container is not None and self.system.has_begun(self.path, self.container)


def _kept_flags(path: str) -> int:
    """What a mount that a user has copied may not lose (mount_namespaces(7), locked flags)."""
    found = os.statvfs(path).f_flag
    kept = (
        (os.ST_NOSUID, linux.MS_NOSUID),
        (os.ST_NODEV, linux.MS_NODEV),
        (os.ST_NOEXEC, linux.MS_NOEXEC),
    )
    return sum(flag for known, flag in kept if found & known)


def _mode(options: list[str]) -> int:
    said = next((each[5:] for each in options if each.startswith("mode=")), "1777")
    return int(said, 8) & 0o1777


def _make_points(container: Container, needs: tuple[str, ...]) -> None:
    """Make what is mounted at where the root lacks it, as OCI runtimes do."""
    wanted = [(place, True) for place in needs]
    wanted += [(each.destination, os.path.isdir(each.source)) for each in container.mounts]
    for place, is_directory in wanted:
        root, inner = _shown(container, place)
        try:
            if root:
                inside.make(root, inner, is_directory=is_directory)
        except OSError as error:
            raise RuntimeFailure(
                f"{place} is not in the container, and cannot be made there: {error.strerror}",
                hint="--container-writable=private gives it a layer of its own",
            ) from None


def _shown(container: Container, place: str) -> tuple[str, str]:
    """The directory that a path inside is to be made in, and its path there: the root, or what is
    mounted above it if that is memory of the task's ("" if it is the user's)."""
    above = [each for each in container.mounts if place.startswith(f"{each.destination}/")]
    if not above:
        return container.rootfs, place
    last = max(above, key=lambda each: len(each.destination))
    own = last.source.startswith(f"{container.directory}/")
    return (last.source if own else ""), place[len(last.destination) :]
