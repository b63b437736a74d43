"""Layers copied one over the other, as an overlay would show them.

For hosts where no overlay can be mounted.  A device 0:0 takes away what is below it, a directory
marked opaque what is in it below (Documentation/filesystems/overlayfs, "whiteouts and opaque
directories").  No link is followed, on either side: what is in a layer says where nothing is
written but its own copy.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Sequence
from typing import Final

from roadstead.host import files

_OPAQUE: Final = ("user.overlay.opaque", "trusted.overlay.opaque")
_OURS: Final = ("user.overlay.", "trusted.overlay.")
_CHUNK: Final = 1 << 30
_NOT_TO_BE_HAD: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.EACCES, errno.EINVAL)


def copy(lowers: Sequence[str], target: str) -> None:
    """Copy directories, the lowest first, into the empty directory ``target``.  Raises OSError."""
    for lower in lowers:
        _merge(lower, target)


def _merge(lower: str, target: str) -> None:
    links: dict[tuple[int, int], str] = {}
    finished: list[tuple[str, str, os.stat_result]] = []
    pending = [""]
    while pending:
        inner = pending.pop()
        with os.scandir(f"{lower}{inner}") as entries:
            for entry in entries:
                name = f"{inner}/{entry.name}"
                found = entry.stat(follow_symlinks=False)
                source, made = lower + name, target + name
                if stat.S_ISDIR(found.st_mode):
                    _directory(source, made)
                    pending.append(name)
                    finished.append((source, made, found))
                    continue
                _remove(made)
                if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
                    continue
                key = (found.st_dev, found.st_ino)
                if found.st_nlink > 1 and key in links:
                    os.link(links[key], made, follow_symlinks=False)
                    continue
                _file(source, made, found)
                links[key] = made
    for source, made, found in reversed(finished):  # a directory closed to us is closed at last
        _attributes(source, made, found)


def _directory(source: str, made: str) -> None:
    if any(_has(source, name) for name in _OPAQUE):
        _remove(made)
    try:
        os.mkdir(made, 0o700)
    except FileExistsError:
        if not stat.S_ISDIR(os.lstat(made).st_mode):
            os.unlink(made)
            os.mkdir(made, 0o700)
        else:
            os.chmod(made, 0o700)


def _has(path: str, attribute: str) -> bool:
    try:
        return os.getxattr(path, attribute, follow_symlinks=False) == b"y"
    except OSError:
        return False


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.EPERM):
            raise
        files.remove_tree(path)


def _file(source: str, made: str, found: os.stat_result) -> None:
    if stat.S_ISLNK(found.st_mode):
        os.symlink(os.readlink(source), made)
    elif stat.S_ISREG(found.st_mode):
        _contents(source, made)
    elif stat.S_ISFIFO(found.st_mode):
        os.mkfifo(made)
    else:
        return  # devices are the runtime's, and a socket without its program is nothing
    _attributes(source, made, found)


def _contents(source: str, made: str) -> None:
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    read = os.open(source, os.O_RDONLY | os.O_NONBLOCK | flags)
    try:
        write = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | flags, 0o600)
        try:
            while _some(read, write):
                pass
        finally:
            os.close(write)
    finally:
        os.close(read)


def _some(read: int, write: int) -> int:
    """Copy a piece, by sharing its blocks where the file system can."""
    try:
        return os.copy_file_range(read, write, _CHUNK)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
    return os.sendfile(write, read, None, _CHUNK)


def _attributes(source: str, made: str, found: os.stat_result) -> None:
    """Owner, attributes, mode, times: what of it may be kept here."""
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):  # an id that is not mapped here
            os.chown(made, found.st_uid, found.st_gid, follow_symlinks=False)
    for name in os.listxattr(source, follow_symlinks=False):
        if not name.startswith(_OURS):
            try:
                value = os.getxattr(source, name, follow_symlinks=False)
                os.setxattr(made, name, value, follow_symlinks=False)
            except OSError as error:
                if error.errno not in _NOT_TO_BE_HAD:
                    raise
    if not stat.S_ISLNK(found.st_mode):
        os.chmod(made, stat.S_IMODE(found.st_mode))
    os.utime(made, ns=(found.st_atime_ns, found.st_mtime_ns), follow_symlinks=False)
