"""Files that appear whole or not at all, and directories that go away entirely."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def temporary(path: str, pid: int) -> str:
    """The file that ``pid`` writes before it replaces ``path``."""
    return f"{path}.{pid}.new"


def write_atomically(path: str, text: str, *, sync: bool = False) -> None:
    """Replace ``path`` by a file of mode 0600 that holds ``text``.

    A reader, or a crash at any instant, finds the old file or the new one.  With ``sync`` the new
    one also survives a power cut from the moment this returns.
    """
    new = temporary(path, os.getpid())
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        data = text.encode("utf-8", "surrogateescape")
        while data:
            data = data[os.write(fd, data) :]
        if sync:
            os.fsync(fd)
        os.rename(new, path)
    except BaseException:
        os.unlink(new)
        raise
    finally:
        os.close(fd)
    if sync:
        directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def remove_tree(path: str, *, keep: str = "") -> None:
    """Remove a directory of ours with all that is in it; links are removed, never followed.

    With ``keep`` the directory stays, and in it what has this name.

    A container's root may have made subdirectories that nobody can write to: their mode is mended
    first.  What a runtime has mounted there and left is unmounted: it was killed in between.  A
    path that is not there, or goes away meanwhile, is fine.
    """
    try:
        fd = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        return
    try:
        _empty(fd, keep)
    finally:
        os.close(fd)
    if not keep:
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(path)


def _empty(directory: int, keep: str = "") -> None:
    for entry in os.listdir(directory):
        if entry != keep:
            with contextlib.suppress(FileNotFoundError):
                _remove(directory, entry)


def _remove(directory: int, entry: str) -> None:
    try:
        os.unlink(entry, dir_fd=directory)
    except IsADirectoryError:
        os.chmod(entry, 0o700, dir_fd=directory)
        below = os.open(entry, _DIRECTORY, dir_fd=directory)
        try:
            _empty(below)
        finally:
            os.close(below)
        _unless_mounted(os.rmdir, directory, entry)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        _unless_mounted(os.unlink, directory, entry)


def _unless_mounted(remove: Callable[..., None], directory: int, entry: str) -> None:
    """Remove an entry; if something is mounted on it (EBUSY), take that away first.

    Raises OSError where the mount is not ours to take away.
    """
    try:
        remove(entry, dir_fd=directory)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        from roadstead.host import linux  # ctypes: for this rare case alone

        point = f"/proc/self/fd/{directory}/{entry}"
        linux.unmount(point, linux.MNT_DETACH | linux.UMOUNT_NOFOLLOW)
        remove(entry, dir_fd=directory)
