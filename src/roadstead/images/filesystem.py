"""A file system that lies in a file: what squashfs and ext have in common for us, and how either is
written out to a directory.

Both are read by Python, never mounted: mounting takes root, FUSE takes a device that compute nodes
keep closed, and an image that somebody made is the classic way to make a kernel or a C program do
what it should not (docs/decisions/0021).  A reader only says what is there; everything that is
written goes through ``extract``, which trusts none of it:

* a name is one path component, and each entry of a directory is made anew (O_EXCL), below a
  directory that is open already: there is no way out and no link to follow;
* a directory is entered once, so that a tree that contains itself ends;
* names, depth and bytes have limits, and files may not hold more than was announced for them;
* nothing is given away: as with layers (images/unpack.py), owners and set-id bits are kept by root
  alone, and devices by nobody.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from roadstead.errors import ImageError

Kind = Literal["directory", "file", "link", "fifo", "device"]

MAX_ENTRIES: Final = 8_000_000
MAX_DEPTH: Final = 200
# A file smaller than this is written where it is found; above, another thread does it.
_SMALL: Final = 32 << 10
_THREADS: Final = 4
_QUEUED: Final = 64
AGAIN: Final = "copy it again, and compare its checksum"
_SPARE: Final = 64 << 20  # bytes that an import leaves free on the disk
# What could not be kept, in the words that layers have for it.
_OWNERS, _SET_ID, _DEVICES = "owners", "set-id bits", "devices"
_OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Corrupt(Exception):
    """The file system contradicts itself: what about it."""


@dataclass(frozen=True, slots=True)
class Node:
    """An inode.  ``size`` is a file's or link's length in bytes, of which ``stored`` are no holes;
    ``owner`` is uid and gid; ``place`` is what its reader needs to find the rest."""

    kind: Kind
    number: int
    links: int
    mode: int
    owner: tuple[int, int]
    mtime: int
    size: int
    stored: int
    place: Any = field(repr=False, compare=False)


class FileSystem(Protocol):
    """A reader.  Each method raises Corrupt for what cannot be, and OSError as os.pread does."""

    def root(self) -> Node: ...

    def entries(self, directory: Node) -> Iterable[tuple[bytes, Node]]:
        """What a directory holds, without ``.`` and ``..``."""

    def target(self, link: Node) -> bytes:
        """Where a symbolic link points."""

    def chunks(self, file: Node) -> Iterator[bytes | int]:
        """A file's contents in order; a number is a hole of so many bytes."""


@dataclass(slots=True)
class Survey:
    """What there is to be written: entries of directories, and the bytes of files.  ``altered``:
    what of it could not be kept, once it has been."""

    entries: int = 0
    stored: int = 0
    altered: set[str] = field(default_factory=set)


def survey(image: FileSystem) -> Survey:
    """Walk the whole tree without reading files: is it one, and how large.  Raises Corrupt."""
    found = Survey()
    numbers: set[int] = set()
    for node in _walk(image, image.root(), set(), 0):
        found.entries += 1
        if found.entries > MAX_ENTRIES:
            raise Corrupt(f"more than {MAX_ENTRIES:,} entries")
        if node.kind == "file" and (node.links == 1 or node.number not in numbers):
            if node.links > 1:
                numbers.add(node.number)
            found.stored += node.stored
    return found


def _walk(image: FileSystem, directory: Node, seen: set[int], depth: int) -> Iterator[Node]:
    for _, node in _entries(image, directory, seen, depth):
        yield node
        if node.kind == "directory":
            yield from _walk(image, node, seen, depth + 1)


def _entries(
    image: FileSystem, directory: Node, seen: set[int], depth: int
) -> Iterator[tuple[bytes, Node]]:
    """A directory's entries, unless it has been listed before."""
    if directory.number in seen:
        raise Corrupt(f"directory {directory.number} is in two places")
    if depth > MAX_DEPTH:
        raise Corrupt(f"more than {MAX_DEPTH} directories deep")
    seen.add(directory.number)
    for name, node in image.entries(directory):
        if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
            raise Corrupt(f"an entry is called {name!r}")
        yield name, node


def extract(
    image: FileSystem,
    directory: str,
    *,
    what: str,
    progress: Callable[[int, int], None] | None = None,
) -> Survey:
    """Write all of ``image`` below ``directory``, which must be empty; what there was.

    ``what`` is the image's name in errors; ``progress`` is called with the bytes written and those
    there are.  Raises ImageError for a broken image, and where the disk has too little room: what
    has been written by then stays for the caller to remove.
    """
    umask, found = os.umask(0), Survey()
    try:
        found = survey(image)
        _check_room(directory, found, what)
        _Extraction(image, directory, found, progress).run()
    except Corrupt as error:
        raise ImageError(f"{what} is broken: {error}", hint=AGAIN) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_room(directory, found, what) from None
        raise ImageError(f"{what}: cannot be unpacked: {error.strerror}") from None
    finally:
        os.umask(umask)
    return found


def _check_room(directory: str, found: Survey, what: str) -> None:
    disk = os.statvfs(directory)
    # Each file takes half a block more than its bytes on average, and an inode.
    needed = found.stored + found.entries * 2048 + _SPARE
    too_many = disk.f_files and found.entries > disk.f_favail
    if (disk.f_blocks and needed > disk.f_bavail * disk.f_frsize) or too_many:
        raise _no_room(directory, found, what)


def _no_room(directory: str, found: Survey, what: str) -> ImageError:
    disk = os.statvfs(directory)
    return ImageError(
        f"{what}: no space left where the image store is ({directory.partition('/work/')[0]}): "
        f"it holds {found.entries:,} files of {found.stored >> 20:,} MiB, and "
        f"{disk.f_bavail * disk.f_frsize >> 20:,} MiB are free",
        hint="make room, or set ROADSTEAD_IMAGES to a place with more",
    )


class _Extraction:
    def __init__(
        self,
        image: FileSystem,
        directory: str,
        found: Survey,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._image = image
        self._top = directory
        self._found = found
        self._progress = progress
        self._me = os.geteuid(), os.getegid()
        self._keep_owners = self._me[0] == 0
        self._written = 0
        self._seen: set[int] = set()
        self._linked: dict[int, bytes] = {}  # inode number → the path of the first of its names
        self._pending: deque[Future[None]] = deque()
        self._stopped = False

    def run(self) -> None:
        root = self._image.root()
        if root.kind != "directory":
            raise Corrupt("its root is not a directory")
        with ThreadPoolExecutor(_THREADS) as self._pool:
            top = os.open(self._top, _OPEN_DIRECTORY)
            try:
                self._directory(top, root, os.fsencode(self._top), 0)
                while self._pending:
                    self._pending.popleft().result()
                self._finish(top, root)
            finally:
                self._stopped = True  # what still runs has come to its end, or need not
                os.close(top)

    def _directory(self, fd: int, node: Node, path: bytes, depth: int) -> None:
        for name, entry in _entries(self._image, node, self._seen, depth):
            try:
                self._entry(fd, name, entry, path, depth)
            except FileExistsError:
                raise Corrupt(f"two entries are called {name!r}") from None

    def _entry(self, fd: int, name: bytes, node: Node, path: bytes, depth: int) -> None:
        if node.links > 1 and node.kind not in ("directory", "device"):
            first = self._linked.setdefault(node.number, path + b"/" + name)
            if first != path + b"/" + name:
                os.link(first, name, dst_dir_fd=fd, follow_symlinks=False)
                return
        match node.kind:
            case "directory":
                os.mkdir(name, 0o700, dir_fd=fd)
                below = os.open(name, _OPEN_DIRECTORY, dir_fd=fd)
                try:
                    self._directory(below, node, path + b"/" + name, depth + 1)
                    # What is still to be written into its files does not change it any more.
                    self._finish(below, node)
                finally:
                    os.close(below)
            case "file":
                self._file(fd, name, node)
            case "link":
                target = self._image.target(node)
                if not target or b"\0" in target:
                    raise Corrupt(f"the link {name!r} points nowhere")
                os.symlink(target, name, dir_fd=fd)
                self._finish_unopened(fd, name, node)
            case "fifo":
                os.mkfifo(name, self._mode(node), dir_fd=fd)
                self._finish_unopened(fd, name, node)
            case _:
                self._found.altered.add(_DEVICES)

    def _file(self, directory: int, name: bytes, node: Node) -> None:
        fd = os.open(name, _NEW_FILE, 0o600, dir_fd=directory)
        if node.stored <= _SMALL:
            self._fill(fd, node)
            return
        if len(self._pending) >= _QUEUED:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(self._fill, fd, node))

    def _fill(self, fd: int, node: Node) -> None:
        """Write a file's contents; closes ``fd``."""
        try:
            written = position = 0
            for chunk in self._image.chunks(node):
                if self._stopped:
                    return
                if isinstance(chunk, int):
                    position += chunk
                    continue
                written += len(chunk)
                if written > node.stored:
                    raise Corrupt(f"inode {node.number} holds more than it says")
                while chunk:
                    done = os.pwrite(fd, chunk, position)
                    position, chunk = position + done, chunk[done:]
            if position != node.size:
                raise Corrupt(f"inode {node.number} has {position} bytes instead of {node.size}")
            if os.fstat(fd).st_size != position:
                os.ftruncate(fd, position)  # it ends in a hole
            self._finish(fd, node)
            self._written += written
            if self._progress is not None:
                self._progress(self._written, self._found.stored)
        finally:
            os.close(fd)

    def _finish(self, fd: int, node: Node) -> None:
        """Give an open file or directory its owner, mode and time."""
        if self._is_others(node):
            os.fchown(fd, *node.owner)
        os.fchmod(fd, self._mode(node))
        os.utime(fd, (node.mtime, node.mtime))

    def _finish_unopened(self, directory: int, name: bytes, node: Node) -> None:
        if self._is_others(node):
            os.chown(name, *node.owner, dir_fd=directory, follow_symlinks=False)
        os.utime(name, (node.mtime, node.mtime), dir_fd=directory, follow_symlinks=False)

    def _is_others(self, node: Node) -> bool:
        """Whether a file is to be given to somebody else."""
        if node.owner in (self._me, (0, 0)):
            return False
        if not self._keep_owners:
            self._found.altered.add(_OWNERS)
        return self._keep_owners

    def _mode(self, node: Node) -> int:
        """A file's mode bits: its owner can always read it, and remove what is in a directory."""
        mode = node.mode | (stat.S_IRWXU if node.kind == "directory" else stat.S_IRUSR)
        if mode & 0o6000 and not self._keep_owners:
            self._found.altered.add(_SET_ID)
            mode &= 0o1777
        return mode
