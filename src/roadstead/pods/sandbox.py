"""What the containers of a pod share: namespaces, volumes, and a few files in /etc.

The runner itself is in the pod's network, IPC and UTS namespaces: what it starts is born there, and
a probe that it makes asks from within.  All of it goes with the last process of the pod, however it
goes; what does not, directories on disk, is in the claim (step/record.py) before it is made.
"""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Callable, Mapping
from typing import Any, Final

from roadstead.core.model import Mount
from roadstead.errors import LaunchError
from roadstead.host import linux, namespaces, network, paths, process
from roadstead.pods.model import Container, Pod, Volume, VolumeMount

_SHM: Final = "mode=1777,size=65536k"  # what a container of its own has (images/translate.py)
_KINDS: Final[dict[str, tuple[Callable[[int], bool], str]]] = {
    "Directory": (stat.S_ISDIR, "directory"),
    "File": (stat.S_ISREG, "file"),
    "Socket": (stat.S_ISSOCK, "socket"),
}
_OF_PROC: Final = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
_OPEN_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def disk_place() -> str:
    """Where directories of pods on disk are made: as containers with a name (step/named.py), on
    this machine and not in memory."""
    temporary = os.environ.get("TMPDIR", "")
    if not temporary.startswith("/"):
        temporary = "/var/tmp"
    return f"{temporary}/roadstead-{os.getuid()}/pods"


def namespaces_of(pod: Pod) -> tuple[str, ...]:
    """The namespaces that a container of the pod has not for itself, by config.json's names."""
    shared = ["network", "ipc", "uts"]
    if pod.host_pid or pod.share_pid:
        shared.append("pid")
    return tuple(shared)


class Sandbox:
    """The pod's surroundings.  ``fields`` has what only the node knows (sources.LATER)."""

    def __init__(self, pod: Pod, directory: str, disk: str, fields: Mapping[str, str]) -> None:
        self.pod = pod
        self.directory = directory
        self._disk = disk
        self._fields = fields
        self._bound = 0
        self.address = "127.0.0.1"
        self.resolver = ""  # who knows names of the outside, if there is a way there
        self.first = 0  # the first process of the pod's own PID namespace, if it has one

    def enter(self) -> None:
        """Leave the node's namespaces for the pod's.  Call in a user namespace of one's own.
        Raises LaunchError."""
        pod = self.pod
        flags = 0 if pod.network == "host" else linux.CLONE_NEWNET | linux.CLONE_NEWUTS
        flags |= 0 if pod.host_ipc else linux.CLONE_NEWIPC
        try:
            linux.unshare(flags)
            if pod.network != "host":
                linux.set_host_name(pod.hostname)
                network.raise_loopback()
        except OSError as error:
            raise LaunchError(
                f"no namespaces for the pod: {error.strerror}",
                hint="hostNetwork: true and hostIPC: true do without",
            ) from None

    def make(self) -> None:
        """Make what containers are shown.  Raises LaunchError."""
        for name in ("volumes", "etc", "bound"):
            os.mkdir(f"{self.directory}/{name}", 0o700)
        # In memory: Secrets are not written to a disk.
        linux.mount("tmpfs", f"{self.directory}/volumes", "tmpfs", linux.MS_NODEV, "mode=0700")
        self._write_etc()
        if not self.pod.host_ipc:
            os.mkdir(f"{self.directory}/volumes/.shm")
            flags = linux.MS_NOSUID | linux.MS_NODEV
            linux.mount("shm", f"{self.directory}/volumes/.shm", "tmpfs", flags, _SHM)
        if any(volume.kind == "directory" for volume in self.pod.volumes):
            paths.make_private(os.path.dirname(os.path.dirname(self._disk)))
            paths.make_private(os.path.dirname(self._disk))
            os.mkdir(self._disk, 0o700)
        for volume in self.pod.volumes:
            self._make_volume(volume)

    def share_processes(self) -> None:
        """Make the PID namespace that all containers are in, and its /proc: nobody but a process of
        it could mount that.  Raises LaunchError."""
        place = f"{self.directory}/proc"
        os.mkdir(place)
        try:
            self.first = namespaces.first_process(
                lambda: linux.mount("proc", place, "proc", _OF_PROC)
            )
        except OSError as error:
            raise LaunchError(f"no processes in common: {error.strerror}") from None

    def left_of(self, mounts: str) -> list[int]:
        """The processes that a container has left in the PID namespace that it shared: those in its
        mount namespace."""
        below = process.descendants(self.first) if self.first else []
        return [pid for pid in below if process.namespace(pid, "mnt") == mounts]

    def _write_etc(self) -> None:
        lines = [
            "127.0.0.1\tlocalhost",
            "::1\tlocalhost ip6-localhost ip6-loopback",
            f"{self.address}\t{self.pod.hostname}",
            *self.pod.hosts,
        ]
        self._write(f"{self.directory}/etc/hosts", "".join(f"{each}\n" for each in lines).encode())
        self._write(f"{self.directory}/etc/hostname", f"{self.pod.hostname}\n".encode())
        if self.resolver:
            said = f"nameserver {self.resolver}\n".encode()
            self._write(f"{self.directory}/etc/resolv.conf", said)

    def _write(self, path: str, data: bytes, mode: int = 0o644) -> None:
        with open(path, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)

    # -- volumes ----------------------------------------------------------------------------------

    def _place(self, volume: Volume) -> str:
        if volume.kind == "host":
            return volume.path
        top = self._disk if volume.kind == "directory" else f"{self.directory}/volumes"
        return f"{top}/{volume.name}"

    def _make_volume(self, volume: Volume) -> None:
        place = self._place(volume)
        if volume.kind == "host":
            _check_host_path(volume)
            return
        os.mkdir(place, 0o755)
        os.chmod(place, 0o755 if volume.kind == "files" else 0o777)
        if volume.kind == "memory":
            options = f"mode=0777,size={volume.size}" if volume.size else "mode=0777"
            linux.mount("tmpfs", place, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, options)
        for file in volume.files:
            data = base64.b64decode(file.data)
            if file.field:
                data = self._fields[file.field].encode()
            target = f"{place}/{file.path}"
            os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
            self._write(target, data, file.mode)

    def mounts(self, container: Container) -> tuple[Mount, ...]:
        """What a container is shown of it all.  Raises LaunchError."""
        volumes = {volume.name: volume for volume in self.pod.volumes}
        found = [self._bind(volumes[each.volume], each) for each in container.mounts]
        own = {each.destination for each in found}
        if self.pod.network == "host":
            etc = {"/etc/resolv.conf": os.path.realpath("/etc/resolv.conf")}
        else:
            names = ("hosts", "hostname", "resolv.conf")
            etc = {f"/etc/{name}": f"{self.directory}/etc/{name}" for name in names}
        found += [
            _mount(source, destination, True)
            for destination, source in etc.items()
            if destination not in own and os.path.isfile(source)
        ]
        if "/dev/shm" not in own:
            shm = "/dev/shm" if self.pod.host_ipc else f"{self.directory}/volumes/.shm"
            found.append(_mount(shm, "/dev/shm", False))
        return tuple(found)

    def _bind(self, volume: Volume, mount: VolumeMount) -> Mount:
        source = self._place(volume)
        if mount.sub_path:
            source = self._below(source, mount.sub_path, volume)
        readonly = mount.readonly or volume.kind == "files"
        return _mount(source, mount.path, readonly, recursive=volume.kind == "host")

    def _below(self, place: str, path: str, volume: Volume) -> str:
        """What is at a subPath, at a path that no container can exchange: it is opened step by
        step, through no link, and mounted.  What is not there is made, a directory."""
        fd = os.open(place, _OPEN_DIRECTORY)
        try:
            parts = [part for part in path.split("/") if part not in ("", ".")]
            for number, part in enumerate(parts):
                fd, above = _step(fd, part, last=number + 1 == len(parts)), fd
                os.close(above)
            target = f"{self.directory}/bound/{self._bound}"
            self._bound += 1
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                os.mkdir(target)
            else:
                self._write(target, b"")
            linux.mount(f"/proc/self/fd/{fd}", target, "none", linux.MS_BIND | linux.MS_REC)
        except OSError as error:
            raise LaunchError(
                f"volume {volume.name}: subPath {path}: {error.strerror}",
                hint="no part of a subPath may be a link",
            ) from None
        finally:
            os.close(fd)
        return target

    def unmount(self) -> None:
        """Take away what is mounted for the containers.  None of them runs."""
        for number in range(self._bound):
            linux.unmount(f"{self.directory}/bound/{number}", linux.MNT_DETACH)
        for name in ("volumes", "proc"):
            if os.path.ismount(f"{self.directory}/{name}"):
                linux.unmount(f"{self.directory}/{name}", linux.MNT_DETACH)

    # -- config.json -------------------------------------------------------------------------------

    def adapt(self, container: Container, config: dict[str, Any]) -> None:
        """Change a container's config.json into that of a member of the pod."""
        shared = namespaces_of(self.pod)
        section = config["linux"]
        section["namespaces"] = [
            each for each in section.get("namespaces") or [] if each["type"] not in shared
        ]
        config.pop("hostname", None)
        mounts = config["mounts"]
        # /dev/shm is the pod's; message queues of its IPC namespace only that namespace's owner
        # could mount, which no container is.
        own = [
            each
            for each in mounts
            if each.get("type") != "mqueue"
            and not (each["destination"] == "/dev/shm" and each.get("type") == "tmpfs")
        ]
        mounts[:] = own
        if self.first:
            path = f"/proc/{self.first}/ns/pid"
            section["namespaces"].append({"type": "pid", "path": path})
        if "pid" in shared:
            source = f"{self.directory}/proc" if self.first else "/proc"
            for each in mounts:
                if each.get("type") == "proc":
                    each.update(type="none", source=source, options=["rbind"])
        _drop_capabilities(config["process"], container.dropped)


def _mount(source: str, destination: str, readonly: bool, *, recursive: bool = False) -> Mount:
    options = ("rbind" if recursive else "bind", "ro" if readonly else "rw", "nosuid", "nodev")
    return Mount(kind="bind", source=source, destination=destination, options=options)


def _step(fd: int, part: str, *, last: bool) -> int:
    try:
        return os.open(part, _OPEN_DIRECTORY, dir_fd=fd)
    except FileNotFoundError:
        os.mkdir(part, 0o755, dir_fd=fd)
        return os.open(part, _OPEN_DIRECTORY, dir_fd=fd)
    except NotADirectoryError:
        if not last:
            raise
        opened = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        if stat.S_ISLNK(os.fstat(opened).st_mode):
            os.close(opened)
            raise
        return opened


def _check_host_path(volume: Volume) -> None:
    """A hostPath as its type says (HostPathType); made, where that says so.  Raises LaunchError."""
    kind, create = volume.type.removesuffix("OrCreate"), volume.type.endswith("OrCreate")
    try:
        if create and not os.path.lexists(volume.path):
            if kind == "Directory":
                os.makedirs(volume.path, mode=0o755)
            else:
                os.close(os.open(volume.path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
        mode = os.stat(volume.path).st_mode
    except OSError as error:
        raise LaunchError(f"volume {volume.name}: {volume.path}: {error.strerror}") from None
    if kind:
        is_one, word = _KINDS[kind]
        if not is_one(mode):
            raise LaunchError(f"volume {volume.name}: {volume.path} is not a {word}")


def _drop_capabilities(process: dict[str, Any], dropped: tuple[str, ...]) -> None:
    names = {name.upper().removeprefix("CAP_") for name in dropped}
    sets = process.get("capabilities") or {}
    for kind, held in sets.items():
        kept = [name for name in held if name.removeprefix("CAP_") not in names]
        sets[kind] = [] if "ALL" in names else kept
