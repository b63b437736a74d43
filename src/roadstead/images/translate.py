"""An image's configuration as a runtime's config.json (OCI image-spec, conversion.md), for a
container that an ordinary user runs.

What the image does not say is what ``runc spec --rootless`` writes, save a terminal, a host name
and a limit of 1024 open files: a job has its own.  Pure, but for the user's name, which is looked
up in the image's own passwd and group (``Accounts``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from roadstead.errors import ImageError
from roadstead.images.described import read_text
from roadstead.images.model import ImageConfig
from roadstead.oci.lookup import DEFAULT_PATH

_CAPABILITIES: Final = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")
_MASKED: Final = (
    "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
)  # fmt: skip
_READ_ONLY: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_ANNOTATION: Final = "org.opencontainers.image."
_LARGEST_ID: Final = 0xFFFFFFFE


@dataclass(frozen=True, slots=True)
class User:
    """Who a process is inside: numbers, and the groups beside the first."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Accounts:
    """The image's passwd (name → uid, gid) and group (name → gid, members)."""

    users: dict[str, tuple[int, int]] = field(default_factory=dict)
    groups: dict[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)

    @classmethod
    def of(cls, rootfs: str) -> Accounts:
        """Those of a root file system; lines that are none are passed over, as libc does."""
        users: dict[str, tuple[int, int]] = {}
        groups: dict[str, tuple[int, tuple[str, ...]]] = {}
        for line in (read_text(rootfs, "/etc/passwd") or "").splitlines():
            row = line.split(":")
            if len(row) > 3 and _is_id(row[2]) and _is_id(row[3]):
                users.setdefault(row[0], (int(row[2]), int(row[3])))
        for line in (read_text(rootfs, "/etc/group") or "").splitlines():
            row = line.split(":")
            if len(row) > 3 and _is_id(row[2]):
                members = tuple(name for name in row[3].split(",") if name)
                groups.setdefault(row[0], (int(row[2]), members))
        return cls(users, groups)

    def find(self, text: str) -> User:
        """The user that an image's ``User`` names: ``name | uid [:group | :gid]``.

        As conversion.md has it: without a group it is the user's own of passwd, with those that
        group lists the user in; a number that is not in passwd has group 0.  Raises ImageError.
        """
        name, colon, group = text.partition(":")
        if not name and not colon:
            return User()
        uid, gid, known = self._user(name or "0", text)
        if colon and group:
            return User(uid, self._group(group, text))
        others = sorted(g for g, members in self.groups.values() if known in members and g != gid)
        return User(uid, gid, tuple(others) if known else ())

    def _user(self, name: str, text: str) -> tuple[int, int, str]:
        if name in self.users:
            return (*self.users[name], name)
        if _is_id(name):
            named = next((n for n, (uid, _) in self.users.items() if uid == int(name)), "")
            return int(name), self.users[named][1] if named else 0, named
        raise ImageError(
            f"the image is to run as user {text!r}, and its /etc/passwd has no {name!r}",
            hint="the image is broken: name the user by number when it is built",
        )

    def _group(self, group: str, text: str) -> int:
        if group in self.groups:
            return self.groups[group][0]
        if _is_id(group):
            return int(group)
        raise ImageError(
            f"the image is to run as user {text!r}, and its /etc/group has no {group!r}",
            hint="the image is broken: name the group by number when it is built",
        )


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text[:11]) <= _LARGEST_ID and len(text) < 11


def config(
    image: ImageConfig,
    *,
    root: str,
    user: User,
    uid: int,
    gid: int,
    readonly: bool = True,
) -> dict[str, Any]:
    """The config.json for a container of ``image``.

    ``root`` is root.path; ``user`` what ``Accounts.find`` made of the image's; ``uid`` and ``gid``
    are the host's ids of who will run it: the one id that is mapped.
    """
    process: dict[str, Any] = {
        "terminal": False,
        "user": {"uid": user.uid, "gid": user.gid},
        "args": [*image.entrypoint, *image.cmd] or ["/bin/sh"],
        "env": environment(image),
        "cwd": image.workdir if image.workdir.startswith("/") else "/",
        "capabilities": {
            kind: list(_CAPABILITIES) for kind in ("bounding", "effective", "permitted")
        },
        "noNewPrivileges": True,
    }
    if user.groups:
        process["user"]["additionalGids"] = list(user.groups)
    return {
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": root, "readonly": readonly},
        "mounts": [*mounts(), *volumes(image)],
        "annotations": labels(image),
        "linux": {
            "uidMappings": [{"containerID": user.uid, "hostID": uid, "size": 1}],
            "gidMappings": [{"containerID": user.gid, "hostID": gid, "size": 1}],
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "user")],
            "maskedPaths": list(_MASKED),
            "readonlyPaths": list(_READ_ONLY),
        },
    }


def without_user_namespace(config: dict[str, Any]) -> None:
    """Change a config.json to one for root, whose containers see ids as they are."""
    linux = config["linux"]
    del linux["uidMappings"], linux["gidMappings"]
    linux["namespaces"] = [each for each in linux["namespaces"] if each["type"] != "user"]


def environment(image: ImageConfig) -> list[str]:
    """The image's variables; each once, the last of a name, and always a PATH."""
    pairs = dict(entry.partition("=")[::2] for entry in image.env)
    return [f"{name}={value}" for name, value in {"PATH": DEFAULT_PATH, **pairs}.items()]


def labels(image: ImageConfig) -> dict[str, str]:
    """What the image says of itself, by conversion.md; its labels have the last word."""
    found = {
        "os": image.os,
        "architecture": image.architecture,
        "variant": image.variant,
        "stopSignal": image.stop_signal,
    }
    named = {f"{_ANNOTATION}{name}": value for name, value in found.items() if value}
    return {**named, **image.labels}


def mounts() -> list[dict[str, Any]]:
    """What an ordinary user's container finds mounted: as ``runc spec --rootless`` has it."""
    return [
        _mount("/proc", "proc", "proc"),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid strictatime mode=755 size=65536k"),
        _mount("/dev/pts", "devpts", "devpts", "nosuid noexec newinstance ptmxmode=0666 mode=0620"),
        _mount("/dev/shm", "tmpfs", "shm", "nosuid noexec nodev mode=1777 size=65536k"),
        _mount("/dev/mqueue", "mqueue", "mqueue", "nosuid noexec nodev"),
        _mount("/sys", "none", "/sys", "rbind nosuid noexec nodev ro"),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid noexec nodev relatime ro"),
    ]


def volumes(image: ImageConfig) -> list[dict[str, Any]]:
    """A place in memory for each volume, so that the program's data does not go into the image's
    root file system; it starts with what the image has there (``tmpcopyup``)."""
    names = [name for name in image.volumes if name.startswith("/") and name.strip("/")]
    return [_mount(name, "tmpfs", "tmpfs", "nosuid nodev tmpcopyup") for name in names]


def _mount(destination: str, kind: str, source: str, options: str = "") -> dict[str, Any]:
    made: dict[str, Any] = {"destination": destination, "type": kind, "source": source}
    if options:
        made["options"] = options.split()
    return made
