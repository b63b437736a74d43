"""Making a mount point inside a root file system that somebody else may be writing to.

Every step is taken from the directory that the one before has led to, and symbolic links are
followed as a process in that root would: none of them leads out, whatever is changed meanwhile.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

_MOST_LINKS: Final = 40
_FOLDER: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def make(rootfs: str, path: str, *, is_directory: bool) -> None:
    """Have a directory, or an empty file, at ``path`` below ``rootfs``, with what leads to it.

    What is there already is left alone.  Raises OSError.
    """
    way = [os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)]
    todo = [part for part in path.split("/") if part not in ("", ".")]
    links = 0
    try:
        while todo:
            part = todo.pop(0)
            if part == "..":
                if len(way) > 1:
                    os.close(way.pop())
                continue
            target = _link(part, way[-1])
            if target is not None:
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                if target.startswith("/"):
                    while len(way) > 1:
                        os.close(way.pop())
                todo = [each for each in target.split("/") if each not in ("", ".")] + todo
            elif todo or is_directory:
                way.append(_entered(part, way[-1]))
            else:
                _touch(part, way[-1])
    finally:
        for fd in way:
            os.close(fd)


def _link(name: str, folder: int) -> str | None:
    """Where a symbolic link leads; None for anything else, and for what is not there."""
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise


def _entered(name: str, folder: int) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=folder)
    except FileNotFoundError:
        os.mkdir(name, 0o755, dir_fd=folder)
        return os.open(name, _FOLDER, dir_fd=folder)


def _touch(name: str, folder: int) -> None:
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(name, flags, 0o644, dir_fd=folder))
        return
    if stat.S_ISDIR(found.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), name)
