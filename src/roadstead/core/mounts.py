"""What ``--container-mounts`` says: SRC:DST[:FLAG+FLAG…], several between commas, as Pyxis has it.

    /data:/data              a directory or file of the host, with all that is mounted below it
    /data                    the same
    ./in:/in:ro+nosuid       relative to where the command was typed, with flags
    tmpfs:/scratch:size=1G   memory of the container's own
    umount:/dev/shm          leaves out what the container would have mounted there
    ./data.sqsh:/data:sqsh   what is in a squashfs file (the Container Engine has that)

Flags are those of mount(8) that config.json knows; Enroot's ``x-create=…`` is accepted, as a
mount point is always made if it is not there, and ``nofail`` leaves out a mount whose source is
not there.  Pure.
"""

from __future__ import annotations

from typing import Final

from roadstead.core.model import Mount
from roadstead.errors import UsageError

_KIND_FLAGS: Final = ("bind", "rbind")
_FLAGS: Final = (
    *("ro", "rw", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "sync", "async"),
    *("atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime"),
    *("private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"),
)
_OF_MEMORY: Final = ("size=", "mode=", "nr_inodes=", "nr_blocks=", "uid=", "gid=")
_CREATE: Final = ("x-create=auto", "x-create=dir", "x-create=file", "x-detach")
_SQUASHFS: Final = "sqsh"
_OF_THE_KERNEL: Final = ("/proc",)  # nothing can be mounted there that runtimes allow


def parse(text: str, cwd: str, option: str = "--container-mounts") -> tuple[Mount, ...]:
    """The mounts of a list; sources are relative to ``cwd``.  Raises UsageError."""
    return tuple([parse_one(entry, cwd, option) for entry in text.split(",")])


def parse_one(entry: str, cwd: str, option: str = "--container-mounts") -> Mount:
    """One mount.  Raises UsageError."""
    source, colon, rest = entry.partition(":")
    destination, _, flags = rest.partition(":")
    where = f"{option}: {entry!r}"
    if not source or (colon and not destination):
        raise UsageError(f"{where} is not a mount", hint="write SRC:DST or SRC:DST:FLAG+FLAG")
    given = [flag for flag in flags.split("+") if flag]
    optional = "nofail" in given
    given = [flag for flag in given if flag != "nofail"]
    if source in ("tmpfs", "umount"):
        if not colon:
            raise UsageError(f"{where} says not where", hint=f"write {source}:/DIRECTORY")
        inside = _inside(destination, where)
        if source == "umount":
            _check(given, (), where)
            return Mount(kind="umount", source="", destination=inside)
        options = _check(given, _OF_MEMORY, where)
        return Mount(kind="tmpfs", source="tmpfs", destination=inside, options=options)
    if not source.startswith(("/", ".")):
        raise UsageError(
            f"{where}: the source is neither a path nor tmpfs nor umount",
            hint=f"write ./{source} for one in this directory",
        )
    path = absolute(source, cwd)
    if _SQUASHFS in given:
        return _of_squashfs(path, destination, [f for f in given if f != _SQUASHFS], where)
    inside = _inside(destination, where) if colon else _inside(path, where)
    options = _check(given, (), where)
    if not set(_KIND_FLAGS) & set(options):
        options = ("rbind", *options)
    return Mount(
        kind="bind", source=path, destination=inside, options=options, optional=optional
    )  # fmt: skip


def _of_squashfs(path: str, destination: str, given: list[str], where: str) -> Mount:
    inside, options = _inside(destination, where), _check(given, (), where)
    if "rw" in options:
        raise UsageError(f"{where}: a squashfs cannot be written to", hint="leave out rw")
    kept = [flag for flag in options if flag not in (*_KIND_FLAGS, "ro")]
    return Mount(
        kind="squashfs", source=path, destination=inside, options=("rbind", "ro", *kept)
    )  # fmt: skip


def absolute(path: str, cwd: str) -> str:
    """A path of the host, from "/" on; ``..`` stays, as what is before it may be a link."""
    if not path.startswith("/"):
        path = f"{cwd}/{path}"
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))


def _inside(path: str, where: str) -> str:
    """A mount point, from the container's "/" on.  Raises UsageError for one that cannot be."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    inside = "/" + "/".join(parts)
    if ".." in parts:
        raise UsageError(f"{where}: .. in the path inside the container", hint="write it without")
    if not parts:
        raise UsageError(
            f"{where}: nothing can be mounted over the container's whole root",
            hint="--container=DIRECTORY runs in a directory as it is",
        )
    if inside.startswith("/proc/") or inside in _OF_THE_KERNEL:
        raise UsageError(f"{where}: nothing can be mounted in the container's /proc")
    return inside


def _check(given: list[str], valued: tuple[str, ...], where: str) -> tuple[str, ...]:
    known = (*_FLAGS, *(() if valued else _KIND_FLAGS), *_CREATE)
    for flag in given:
        if flag not in known and not (valued and flag.startswith(valued)):
            raise UsageError(
                f"{where}: unknown mount flag {flag!r}",
                hint="flags are those of mount(8), joined by +: ro+nosuid",
            )
    return tuple([flag for flag in given if flag not in _CREATE])
