"""Files that appear whole or not at all, and directories that go away entirely."""

from __future__ import annotations

import os


def write_atomically(path: str, text: str, *, sync: bool = False) -> None:
    """Replace ``path`` by a file of mode 0600 that holds ``text``.

    A reader, or a crash at any instant, finds the old file or the new one.  With ``sync`` the new
    one also survives a power cut from the moment this returns.
    """
    temporary = f"{path}.{os.getpid()}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        data = text.encode("utf-8", "surrogateescape")
        while data:
            data = data[os.write(fd, data) :]
        if sync:
            os.fsync(fd)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    finally:
        os.close(fd)
    if sync:
        directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def remove_tree(path: str) -> None:
    """Remove a directory of ours with all that is in it; links are removed, never followed.

    A container's root may have made subdirectories that nobody can write to: their mode is mended
    first.  It may also have made them as deep as the disk is large: each directory is moved up to
    ``path`` before it is looked into, so two descriptors and no recursion are enough.  A path that
    is not there is fine.
    """
    try:
        top = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        return
    try:
        _empty(top)
    finally:
        os.close(top)
    os.rmdir(path)


_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def _empty(top: int) -> None:
    """Remove what is in the directory ``top``."""
    token, moved = os.urandom(8).hex(), 0  # a name that nothing in there has
    pending = [entry for entry in os.listdir(top) if not _unlinked(top, entry)]
    while pending:
        name = pending.pop()
        below = _opened(top, name)
        try:
            for entry in os.listdir(below):
                if not _unlinked(below, entry):
                    moved += 1
                    os.close(_opened(below, entry))  # to be moved it must be writable
                    os.rename(entry, f"{token}.{moved}", src_dir_fd=below, dst_dir_fd=top)
                    pending.append(f"{token}.{moved}")
        finally:
            os.close(below)
        os.rmdir(name, dir_fd=top)


def _unlinked(directory: int, entry: str) -> bool:
    """Remove an entry; False where it is a directory."""
    try:
        os.unlink(entry, dir_fd=directory)
    except IsADirectoryError:
        return False
    return True


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
