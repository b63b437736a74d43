"""What is mounted below a directory, and taking it away (proc(5), mountinfo)."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Final

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


def detach(path: str) -> bool:
    """Unmount what is mounted at ``path``, and all in it, even while it is in use; whether that was
    there, and ours to take away."""
    try:
        linux.unmount(path, linux.MNT_DETACH | linux.UMOUNT_NOFOLLOW)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EPERM):  # no mount point; no namespace of ours
            return False
        raise
    return True


# File systems that other hosts have too, as a rule (filesystems(5), and what sites mount).
_OF_NETWORKS: Final = (
    *("nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "fuse.glusterfs"),
    *("orangefs", "pvfs2", "wekafs", "panfs", "afs", "cifs", "smb3", "fuse.sshfs", "9p"),
)


def is_of_a_network(path: str) -> bool:
    """Whether ``path`` is on a file system that other hosts are likely to have."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            words = line.split(" ")
            if words[2] == wanted:
                return words[words.index("-") + 1] in _OF_NETWORKS
    return False


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
