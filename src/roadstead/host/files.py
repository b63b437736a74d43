"""Files that appear whole or not at all, and directories that go away entirely."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from typing import Final

from roadstead.errors import ConfigError

_MAX_TRUSTED: Final = 4 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def temporary(path: str, pid: int) -> str:
    """The file that ``pid`` writes before it replaces ``path``."""
    return f"{path}.{pid}.new"


def write_atomically(path: str, text: str, *, sync: bool = False, mode: int = 0o600) -> None:
    """Replace ``path`` by a file of this mode that holds ``text``.

    A reader, or a crash at any instant, finds the old file or the new one.  With ``sync`` the new
    one also survives a power cut from the moment this returns.
    """
    new = temporary(path, os.getpid())
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        data = text.encode("utf-8", "surrogateescape")
        while data:
            data = data[os.write(fd, data) :]
        if mode != 0o600:
            os.fchmod(fd, mode)
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
    first.  It may also have made them as deep as the disk is large: each directory is moved up to
    ``path`` before it is looked into, so two descriptors and no recursion are enough.  What a
    runtime has mounted there and left is unmounted: it was killed in between.  A path that is not
    there, or goes away meanwhile, is fine.
    """
    try:
        top = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        return
    try:
        _empty(top, keep)
    finally:
        os.close(top)
    if not keep:
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(path)


def _empty(top: int, keep: str) -> None:
    """Remove what is in the directory ``top``, save ``keep``."""
    token, moved = os.urandom(8).hex(), 0  # a name that nothing in there has
    entries = [entry for entry in os.listdir(top) if entry != keep]
    pending = [entry for entry in entries if not _unlinked(top, entry)]
    while pending:
        name = pending.pop()
        with contextlib.suppress(FileNotFoundError):
            below = _opened(top, name)
            try:
                for entry in os.listdir(below):
                    if not _unlinked(below, entry):
                        moved += 1
                        if _moved_up(below, entry, top, f"{token}.{moved}"):
                            pending.append(f"{token}.{moved}")
            finally:
                os.close(below)
            _unless_mounted(os.rmdir, top, name)


def _moved_up(directory: int, entry: str, top: int, name: str) -> bool:
    """Move a subdirectory to ``top``; False where it has gone meanwhile."""

    def rename(entry: str, *, dir_fd: int) -> None:
        os.rename(entry, name, src_dir_fd=dir_fd, dst_dir_fd=top)

    try:
        os.close(_opened(directory, entry))  # to be moved it must be writable
        _unless_mounted(rename, directory, entry)
    except FileNotFoundError:
        return False
    return True


def _unlinked(directory: int, entry: str) -> bool:
    """Remove an entry, or find it gone; False where it is a directory."""
    try:
        _unless_mounted(os.unlink, directory, entry)
    except IsADirectoryError:
        return False
    except FileNotFoundError:
        return True
    return True


def _unless_mounted(act: Callable[..., None], directory: int, entry: str) -> None:
    """Do something to an entry; if something is mounted on it (EBUSY), take that away first.

    Raises OSError where the mount is not ours to take away.
    """
    try:
        act(entry, dir_fd=directory)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        from roadstead.host import linux  # ctypes: for this rare case alone

        point = f"/proc/self/fd/{directory}/{entry}"
        linux.unmount(point, linux.MNT_DETACH | linux.UMOUNT_NOFOLLOW)
        act(entry, dir_fd=directory)


def _opened(directory: int, entry: str) -> int:
    """A subdirectory, made ours to read and to change.  It cannot be exchanged for a link in
    between: chmod(2) follows links, so it gets the descriptor's own (proc(5), fd)."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    found = os.open(entry, flags, dir_fd=directory)
    try:
        os.chmod(f"/proc/self/fd/{found}", 0o700)
        return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.close(found)


def copy(source: str, target: str, *, replaces: bool = True, times: bool = True) -> None:
    """Copy a regular file with its mode, and with its times if asked; the target is whole or not
    there.  Raises OSError, FileExistsError where it is and may not be replaced."""
    beside = temporary(target, os.getpid())
    with open(source, "rb") as there:
        about = os.fstat(there.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", source)
        if os.path.isdir(target):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), target)
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o700)
        try:
            with open(fd, "wb") as here:
                while os.sendfile(here.fileno(), there.fileno(), None, 1 << 24):
                    continue
                os.fchmod(here.fileno(), about.st_mode & 0o777)
            if times:
                os.utime(beside, ns=(about.st_atime_ns, about.st_mtime_ns))
            if replaces:
                os.rename(beside, target)
            else:
                os.link(beside, target)
                os.unlink(beside)
        except BaseException:
            os.unlink(beside)
            raise


def read_trusted(path: str) -> str:
    """The text of a file that makes programs run: root's or our own, and closed to others' writing.

    Raises ConfigError.  Not in a user namespace, where owners look otherwise.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            found = os.fstat(fd)
            data = file.read(_MAX_TRUSTED + 1) if stat.S_ISREG(found.st_mode) else b""
    except OSError as error:
        raise ConfigError(error.strerror or str(error), path=path) from None
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError("not a regular file", path=path)
    if found.st_uid not in (0, os.getuid()):
        raise ConfigError(
            f"it belongs to uid {found.st_uid}, neither root nor you: not used", path=path
        )
    if found.st_mode & 0o002 or (found.st_mode & 0o020 and found.st_gid not in (0, os.getgid())):
        raise ConfigError("others can write to it: not used", path=path, hint=f"chmod go-w {path}")
    if len(data) > _MAX_TRUSTED:
        raise ConfigError(f"larger than {_MAX_TRUSTED >> 20} MiB", path=path)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"not UTF-8 (byte {error.start})", path=path) from None
