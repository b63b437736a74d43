"""What is mounted below a directory, and taking it away (proc(5), mountinfo)."""

from __future__ import annotations

import os
from collections.abc import Iterator

from roadstead.host import linux


def below(path: str, pid: int | str = "self") -> list[str]:
    """The mount points at or below ``path`` in the mount namespace of ``pid``, the deepest first.

    Empty where the process is gone.
    """
    found = [point for point in _points(pid) if point == path or point.startswith(f"{path}/")]
    return sorted(found, key=len, reverse=True)


def detach_below(path: str) -> list[str]:
    """Unmount everything at or below ``path``, even while it is in use; what was unmounted.

    Raises OSError for a mount that is not ours to take away.
    """
    points = below(path)
    for point in points:
        linux.unmount(point, linux.MNT_DETACH | linux.UMOUNT_NOFOLLOW)
    return points


def _points(pid: int | str) -> Iterator[str]:
    try:
        with open(f"/proc/{pid}/mountinfo", "rb") as file:
            lines = file.read().splitlines()
    except OSError:  # EINVAL: the process has left its namespace, that is, it has ended
        return
    for line in lines:
        yield os.fsdecode(_unescaped(line.split()[4]))


def _unescaped(field: bytes) -> bytes:
    """Space, tab, newline and backslash are octal there."""
    first, *rest = field.split(b"\\")
    return first + b"".join(bytes([int(each[:3], 8)]) + each[3:] for each in rest)


def in_memory(path: str) -> None:
    """Mount an empty file system in memory at ``path``, for this mount namespace and its like.

    What is in it counts as memory of whoever writes it.  Raises OSError.
    """
    linux.mount("tmpfs", path, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=700")
