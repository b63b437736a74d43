"""Podman: ``podman run`` in the foreground (podman-run(1)).

The container's processes stay in the step's own control group (``--cgroups=disabled``), so that the
job's limits are theirs, and all that Podman keeps is in a place of the task's.  conmon, which it
leaves beside each container, is orphaned and so becomes the step's (a supervisor is a subreaper).
``--pidfile`` tells the container's first process, and that there was one: 125 to 127 are Podman's
own statuses only while there is none.

A directory that is an image's only layer is used through an overlay of Podman's own
(``--rootfs DIR:O``).
"""

from __future__ import annotations

import os
import zlib
from typing import Final

from roadstead.errors import RuntimeFailure
from roadstead.host import process
from roadstead.host import program as programs
from roadstead.systems import Container, Start, System, crun

_OWN: Final = frozenset({125, 126, 127})
_LONGEST: Final = 48  # with what is below it


class Podman(System):
    """Podman 4.3 and later."""

    name = "podman"
    programs = ("podman",)
    package = "podman"
    own = ("containers-storage",)
    keeps = ("CONTAINERS_", "CONTAINER_", "STORAGE_", "REGISTRY_", "DBUS_SESSION_BUS_ADDRESS")
    nests = False
    overlays = True
    makes_points = True
    own_statuses = _OWN
    forgets = True

    def start(self, program: str, container: Container) -> Start:
        """See System."""
        lines, others = container.variables()
        argv = [program, "--log-level=error", "--cgroup-manager=cgroupfs", *crun.options(container)]
        argv += _own_places(program, container)
        argv += ["run", f"--name={container.name}", "--rm"]
        argv += ["--interactive", *(["--tty"] if container.terminal else []), "--sig-proxy=false"]
        argv += ["--cgroups=disabled", "--network=host", "--log-driver=none", "--no-hosts"]
        argv += ["--pull=never", "--security-opt=label=disable", "--http-proxy=false"]
        argv += [f"--pidfile={container.directory}/pid", "--entrypoint="]
        for name, (soft, hard) in _limits(container).items():
            argv.append(f"--ulimit={name}={soft}:{hard}")
        argv += _user(container)
        argv += ["--read-only", "--read-only-tmpfs=false"] if container.readonly else []
        for mount in container.mounts:
            options = "ro" if mount.readonly else "rw"
            argv.append(f"--volume={mount.source}:{mount.destination}:{options},rbind")
        argv.append(f"--env-file={container.write('environment.podman', lines)}")
        argv += [f"--env={name}" for name in others]
        if container.cwd != "/" or container.rootfs:
            argv.append(f"--workdir={container.cwd}")
        root = f"{container.rootfs}:O" if container.overlaid else container.rootfs
        argv += ["--rootfs", root] if container.rootfs else [container.image]
        own = {"XDG_RUNTIME_DIR": container.state, **_settings(container)}
        return Start([*argv, *container.args], {**own, **others})

    def state(self, directory: str) -> str:
        """A place with a short name: Podman takes none that is longer than 50 characters."""
        name = f"p{zlib.crc32(os.fsencode(directory)):08x}"
        engine = os.path.normpath(f"{directory}/../../..")
        return next(
            path
            for path in (f"{engine}/{name}", f"/tmp/rs-{os.getuid()}-{name}")
            if len(path) < _LONGEST or path.startswith("/tmp/rs-")
        )

    def first(self, program: str, container: Container) -> int:
        """See System."""
        try:
            with open(f"{container.directory}/pid", encoding="ascii") as file:
                return int(file.read() or 0)
        except (OSError, ValueError):
            return 0

    def has_begun(self, program: str, container: Container) -> bool:
        """See System."""
        return self.first(program, container) > 0


def _limits(container: Container) -> dict[str, tuple[int, int]]:
    """Podman lowers its own limit of processes to as many as there can be, and who is not root
    cannot have more again."""
    found = dict(container.limits)
    if "nproc" in found:
        with open("/proc/sys/kernel/pid_max", encoding="ascii") as file:
            most = int(file.read())
        soft, hard = (process.lower(each, most) for each in found["nproc"])
        found["nproc"] = (soft, hard)
    return found


def _own_places(program: str, container: Container) -> list[str]:
    """Options by which all that Podman keeps is in a place of the task's own, and goes with it.

    Where its processes were killed Podman holds that containers run in a user's storage, and then
    refuses everything until `podman system migrate`; and the process that keeps a user's namespace
    (pause.pid, in XDG_RUNTIME_DIR) would be ended with the step.  Images are read where they are.
    """
    top = container.state
    os.mkdir(top, 0o700)
    options = [f"--root={top}/s", f"--runroot={top}/r", f"--tmpdir={top}/t"]
    options.append(f"--runtime-flag=root={top}/c")
    if container.image:
        ask = [program, "info", "--format", "{{.Store.GraphDriverName}} {{.Store.GraphRoot}}"]
        status, said, why = programs.answer(ask, container.caller)
        driver, _, storage = said.decode().strip().partition(" ")
        if status or not storage:
            raise RuntimeFailure(f"podman info ended with {status}: {' | '.join(why[-1:])}")
        options.append(f"--storage-driver={driver}")
        options.append(f"--storage-opt={driver}.imagestore={storage}")
    return options


def _settings(container: Container) -> dict[str, str]:
    """Locks in files of the task's, where nobody has settings that would be lost with that."""
    home = os.environ.get("XDG_CONFIG_HOME") or f"{os.environ.get('HOME', '')}/.config"
    places = (home, "/etc")
    if any(os.path.exists(f"{each}/containers/containers.conf") for each in places):
        return {}
    path = container.write("containers.conf", '[engine]\nlock_type = "file"\n')
    return {"CONTAINERS_CONF": path}


def _user(container: Container) -> list[str]:
    """Who the process is; for a user of the host without rights always that user by another id."""
    if os.getuid() == 0:
        return [f"--user={container.uid}:{container.gid}"]
    if container.root is False:
        return ["--userns=keep-id"]
    if container.uid == 0:
        return ["--user=0:0"] if container.root or container.rootfs else []
    ids = f"uid={container.uid},gid={container.gid}"
    return [f"--userns=keep-id:{ids}", f"--user={container.uid}:{container.gid}"]
