"""Unpacking a layer into a directory, without privilege and without trust.

What an entry is called is never given to the kernel as a path: each component is opened below the
one before, without following links (openat(2), O_NOFOLLOW), and what is open stays open for the
next entry of the same directory.  A link in the way, made by the same layer, is followed as a
container would, with the layer's directory as its root, and never out of it; a name with ".." is
refused.

Whiteouts become what overlayfs understands (kernel documentation, overlayfs.rst): a character
device 0:0, which everybody may make since Linux 5.8, and the attribute ``user.overlay.opaque`` on a
directory, for mounts with ``userxattr``.  Attributes of that name in a layer, which would give it
powers over the layers below, are dropped, and so are devices.

Owners are kept by root alone.  For everybody else all is the user's, and set-id bits go: they would
make another user who can reach the file into this one.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from typing import Final

from roadstead.errors import ImageError
from roadstead.host import files
from roadstead.images import inventory, tar
from roadstead.images.model import Layer
from roadstead.images.streams import Blob
from roadstead.images.tar import Entry

OPAQUE: Final = "user.overlay.opaque"
_WHITEOUT: Final = ".wh."
_OPAQUE_ENTRY: Final = ".wh..wh..opq"
_AUFS: Final = ".wh..wh."  # aufs's own records, which mean nothing to anybody else

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIRECTORIES: Final = 64
_MAX_HOPS: Final = 40  # as the kernel's (path_resolution(7))
MAX_ENTRIES: Final = 20_000_000
MAX_DIRECTORIES: Final = 500_000
_LOOK_EVERY: Final = 64 << 20  # bytes written between two looks at the free space
_COUNT_EVERY: Final = 1 << 14  # entries likewise
KEEP_FREE: Final = 64 << 20
KEEP_FREE_FILES: Final = 1 << 14

# What could not be kept → how it is told.
_OWNERS, _SET_ID, _DEVICES, _XATTRS = "owners", "set-id bits", "devices", "attributes"


def unpack(
    blob: Blob,
    directory: str,
    name: str,
    *,
    keep_owners: bool | None = None,
    readable: bool = False,
    listed: str = "",
) -> Layer:
    """Unpack the layer in ``blob`` into the empty ``directory``; what it is, for the store.

    ``keep_owners`` is by default root's way; with ``readable`` everybody may read what comes out.
    ``listed`` is the file for the layer's inventory, which is not made where it would not be exact.
    Raises ImageError for what is no layer or not what its digests say, and when the disk is full.
    """
    began = time.monotonic()
    owners = os.geteuid() == 0 if keep_owners is None else keep_owners
    umask = os.umask(0)  # modes are set by creation: a system call less for each file
    unpacker = None
    try:
        unpacker = _Unpacker(blob, directory, owners=owners, readable=readable, listed=listed)
        unpacker.look()
        for entry in unpacker.reader:
            unpacker.put(entry)
        blob.finish()
        unpacker.finish()
    except OSError as error:
        raise _told(error, blob.what, directory) from None
    finally:
        os.umask(umask)
        if unpacker is not None:
            unpacker.close()
        blob.close()
    return Layer(
        name=name,
        entries=unpacker.entries,
        size=unpacker.size,
        compressed=blob.taken,
        seconds=round(time.monotonic() - began, 3),
        altered=tuple(sorted(unpacker.altered)),
        opaque=unpacker.opaque,
    )


def _told(error: OSError, what: str, directory: str) -> ImageError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ImageError(
            f"{what}: no space left where the image store is ({directory.partition('/work/')[0]})",
            hint="make room, or set ROADSTEAD_IMAGES to a place with more",
        )
    return ImageError(f"{what}: cannot be unpacked: {error.strerror}")


class _Unpacker:
    """One layer on its way to its directory."""

    def __init__(
        self, blob: Blob, directory: str, *, owners: bool, readable: bool, listed: str
    ) -> None:
        self.reader = tar.Reader(blob)
        self.entries = 0
        self.size = 0
        self.altered: set[str] = set()
        self.opaque = False
        self._what = blob.what
        self._owners = owners
        self._more = 0o444 if readable else 0
        self._euid, self._egid = os.geteuid(), os.getegid()
        self._root = os.open(directory, _DIRECTORY)
        self._open: dict[str, int] = {}  # directories by their name in the layer
        self._later: dict[str, tuple[int, int]] = {}  # directory → mode, time: set at the end
        self._stale: list[int] = []
        self._look_at = _LOOK_EVERY
        self._listed = listed
        self._list = inventory.Writer(listed) if listed else None
        self._name = ""  # of the entry that is being made

    def _leave_out_the_list(self) -> None:
        """What was made is not what was listed: somebody else reads the directory for it."""
        if self._list is not None:
            self._list.close()
            os.unlink(self._listed)
            self._list = None

    def close(self) -> None:
        if self._list is not None:
            self._list.close()
        for fd in (*self._open.values(), *self._stale, self._root):
            os.close(fd)

    def _refused(self, entry: Entry, why: str) -> ImageError:
        return ImageError(f"{self._what}: {entry.name!a}: {why}")

    # -- where an entry goes -----------------------------------------------------------------------

    def _parts(self, entry: Entry, name: str) -> list[str]:
        parts = [part for part in name.split("/") if part and part != "."]
        if ".." in parts:
            raise self._refused(entry, 'a name with ".." leads out of the image')
        if "\0" in name:
            raise self._refused(entry, "a name with a zero byte")
        return parts

    def _directory(self, entry: Entry, parts: list[str]) -> int:
        """The descriptor of a directory of the layer; it is made where the layer has not named it.

        It stays ours: the caller does not close it.
        """
        if not parts:
            return self._root
        name = "/".join(parts)
        found = self._open.pop(name, None)
        if found is None:
            found = self._walk(entry, parts)
            if len(self._open) >= _OPEN_DIRECTORIES:
                oldest = next(iter(self._open))
                os.close(self._open.pop(oldest))
        self._open[name] = found  # the last used is the last to be closed
        return found

    def _walk(self, entry: Entry, parts: list[str]) -> int:
        # From the nearest directory above that is open; all the way where a link is met.
        for known in range(len(parts) - 1, 0, -1):
            above = self._open.get("/".join(parts[:known]))
            if above is not None:
                break
        else:
            known, above = 0, self._root
        fd = os.dup(above)
        try:
            for part in parts[known:]:
                fd = self._step(fd, part)
        except OSError as error:
            os.close(fd)
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            return self._follow(entry, parts)
        return fd

    def _step(self, fd: int, part: str) -> int:
        """The directory ``part`` of ``fd``, made if need be; ``fd`` is closed if that works."""
        try:
            below = os.open(part, _DIRECTORY, dir_fd=fd)
        except FileNotFoundError:
            os.mkdir(part, 0o755, dir_fd=fd)
            below = os.open(part, _DIRECTORY, dir_fd=fd)
        os.close(fd)
        return below

    def _follow(self, entry: Entry, parts: list[str]) -> int:
        """As ``_walk`` where there are links on the way: as in a container whose root this is."""
        self._leave_out_the_list()
        stack = [os.dup(self._root)]
        pending = list(reversed(parts))
        hops = 0
        try:
            while pending:
                part = pending.pop()
                if part == "..":
                    if len(stack) > 1:
                        os.close(stack.pop())
                    continue
                try:
                    target = os.readlink(part, dir_fd=stack[-1])
                except FileNotFoundError:
                    target = ""
                except OSError as error:
                    if error.errno != errno.EINVAL:
                        raise
                    target = ""  # not a link
                if target:
                    hops += 1
                    if hops > _MAX_HOPS:
                        raise self._refused(entry, "its directory is a circle of links")
                    if target.startswith("/"):
                        while len(stack) > 1:
                            os.close(stack.pop())
                    steps = [step for step in target.split("/") if step and step != "."]
                    pending += reversed(steps)
                    if len(pending) > 4096:
                        raise self._refused(entry, "its directory is a circle of links")
                    continue
                try:
                    stack.append(self._step(os.dup(stack[-1]), part))
                except NotADirectoryError:
                    # A file where now a directory is wanted: the later entry counts.
                    os.unlink(part, dir_fd=stack[-1])
                    pending.append(part)
                if len(stack) > 2048:
                    raise self._refused(entry, "its directory is too deep")
            return os.dup(stack[-1])
        finally:
            for fd in stack:
                os.close(fd)

    # -- entries -----------------------------------------------------------------------------------

    def put(self, entry: Entry) -> None:
        """Make what the entry says."""
        self.entries += 1
        if self.entries > MAX_ENTRIES:
            raise ImageError(f"{self._what}: more than {MAX_ENTRIES} entries")
        if not self.entries % _COUNT_EVERY:
            self.look()
        parts = self._parts(entry, entry.name)
        if not parts:
            if entry.kind == tar.DIRECTORY:
                self._later[""] = (entry.mode, entry.mtime_ns)
            return
        self._name = "/".join(parts)
        base = parts.pop()
        if base.startswith(_WHITEOUT):
            self._white_out(entry, parts, base)
            return
        directory = self._directory(entry, parts)
        match entry.kind:
            case tar.FILE:
                self._file(entry, directory, base)
            case tar.DIRECTORY:
                self._make_directory(entry, directory, [*parts, base])
            case tar.SYMLINK:
                self._symlink(entry, directory, base)
            case tar.HARD_LINK:
                self._hard_link(entry, directory, base)
            case tar.FIFO:
                mode = self._mode(entry)
                self._cleared(lambda: os.mkfifo(base, mode, dir_fd=directory), directory, base)
                self._finish_special(entry, directory, base)
                self._note("p")
            case tar.CHAR | tar.BLOCK:
                self._device(entry, directory, base)
            case _:
                raise self._refused(entry, f"an entry of the unknown kind {entry.kind!r}")

    def _note(self, kind: str, about: str = "") -> None:
        if self._list is not None:
            self._list.add(kind, self._name, about)

    def _mode(self, entry: Entry) -> int:
        mode = entry.mode
        if mode & 0o6000 and not self._owners:
            self.altered.add(_SET_ID)
            mode &= 0o1777
        return mode | self._more

    def _cleared(self, make: Callable[[], object], directory: int, base: str) -> None:
        """Call ``make``; what the layer has put there before makes way."""
        try:
            make()
        except FileExistsError:
            self._remove(directory, base)
            make()

    def _remove(self, directory: int, base: str) -> None:
        """Take away what an earlier entry has made.  What is open may have been below it, or
        beyond it if it is a link: it is opened anew, and closed at the end, as it may be in use."""
        self._leave_out_the_list()
        self._stale += self._open.values()
        self._open.clear()
        if len(self._stale) > 4096:
            raise ImageError(f"{self._what}: too many of its entries replace earlier ones")
        try:
            os.unlink(base, dir_fd=directory)
        except IsADirectoryError:
            fd = os.open(base, _DIRECTORY, dir_fd=directory)
            try:
                files.remove_tree(f"/proc/self/fd/{fd}/.", keep="..")
            finally:
                os.close(fd)
            os.rmdir(base, dir_fd=directory)

    def _file(self, entry: Entry, directory: int, base: str) -> None:
        mode = self._mode(entry)
        try:
            fd = os.open(base, _CREATE, mode & 0o777, dir_fd=directory)
        except FileExistsError:
            self._remove(directory, base)
            fd = os.open(base, _CREATE, mode & 0o777, dir_fd=directory)
        size, crc = entry.size, 0

        def write(data: memoryview) -> None:
            nonlocal crc
            _write_all(fd, data)
            crc = inventory.crc32(data, crc)

        try:
            if entry.sparse is not None:
                self._leave_out_the_list()
                self._sparse(entry, fd)
            elif size:
                self.size += size
                if self.size > self._look_at:
                    self.look()
                self.reader.copy(size, write)
            self._note("f", inventory.about_file(crc, size))
            if self._owners:
                self._own(fd, entry)
            if mode & 0o7000:
                os.fchmod(fd, mode)
            if entry.xattrs:
                self._attributes(fd, entry)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)

    def _own(self, fd: int, entry: Entry) -> None:
        if entry.uid != self._euid or entry.gid != self._egid:
            os.fchown(fd, entry.uid, entry.gid)

    def _sparse(self, entry: Entry, fd: int) -> None:
        assert entry.sparse is not None
        for offset, length in entry.sparse:
            os.lseek(fd, offset, os.SEEK_SET)
            self.reader.copy(length, lambda data: _write_all(fd, data))
        os.ftruncate(fd, entry.real_size)
        self.size += entry.size

    def _make_directory(self, entry: Entry, above: int, parts: list[str]) -> None:
        base, name = parts[-1], "/".join(parts)
        mode = self._mode(entry)
        if mode & 0o444 and self._more:
            mode |= 0o111
        try:
            os.mkdir(base, 0o700 | (mode & 0o777), dir_fd=above)
        except FileExistsError:
            found = os.stat(base, dir_fd=above, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                self._remove(above, base)
                os.mkdir(base, 0o700 | (mode & 0o777), dir_fd=above)
                if stat.S_ISCHR(found.st_mode):
                    self._make_opaque(self._directory(entry, parts))
        self._note("d")
        self._later[name] = (mode, entry.mtime_ns)
        if len(self._later) > MAX_DIRECTORIES:
            raise ImageError(f"{self._what}: more than {MAX_DIRECTORIES} directories")
        if self._owners or entry.xattrs:
            fd = self._directory(entry, parts)
            if self._owners:
                self._own(fd, entry)
            if entry.xattrs:
                self._attributes(fd, entry)

    def _symlink(self, entry: Entry, directory: int, base: str) -> None:
        if not entry.link:
            raise self._refused(entry, "a link to nothing")
        self._cleared(lambda: os.symlink(entry.link, base, dir_fd=directory), directory, base)
        self._finish_special(entry, directory, base)
        self._note("l", inventory.about_link(entry.link))

    def _finish_special(self, entry: Entry, directory: int, base: str) -> None:
        if self._owners and (entry.uid != self._euid or entry.gid != self._egid):
            os.chown(base, entry.uid, entry.gid, dir_fd=directory, follow_symlinks=False)
        times = (entry.mtime_ns, entry.mtime_ns)
        os.utime(base, ns=times, dir_fd=directory, follow_symlinks=False)

    def _hard_link(self, entry: Entry, directory: int, base: str) -> None:
        target = self._parts(entry, entry.link)
        if not target:
            raise self._refused(entry, "a hard link to the root")
        last = target.pop()
        source = self._directory(entry, target)
        if source == directory and last == base:
            return

        def link() -> None:
            os.link(last, base, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)

        try:
            self._cleared(link, directory, base)
            self._note("h")
        except FileNotFoundError:
            raise self._refused(
                entry, f"a hard link to {entry.link!a}, which the layer does not have"
            ) from None
        except PermissionError:
            raise self._refused(entry, f"a hard link to {entry.link!a}, a directory") from None

    def _device(self, entry: Entry, directory: int, base: str) -> None:
        """Root alone may make devices; 0:0 is nobody's: it would be a whiteout in disguise."""
        if not self._owners or not (entry.major or entry.minor):
            self.altered.add(_DEVICES)
            return
        kind = stat.S_IFCHR if entry.kind == tar.CHAR else stat.S_IFBLK
        device = os.makedev(entry.major, entry.minor)
        try:
            self._cleared(
                lambda: os.mknod(base, kind | self._mode(entry), device, dir_fd=directory),
                directory,
                base,
            )
        except PermissionError:
            self.altered.add(_DEVICES)
            return
        self._finish_special(entry, directory, base)
        self._note("p")

    # -- whiteouts ---------------------------------------------------------------------------------

    def _white_out(self, entry: Entry, parts: list[str], base: str) -> None:
        if base == _OPAQUE_ENTRY:
            if parts:
                self._make_opaque(self._directory(entry, parts))
            else:
                self.opaque = True  # overlayfs does not look at the root's own attribute
            return
        if base.startswith(_AUFS):
            return
        hidden = base.removeprefix(_WHITEOUT)
        if hidden in ("", ".", ".."):
            raise self._refused(entry, "a whiteout of a directory's own entry")
        directory = self._directory(entry, parts)
        try:
            os.mknod(hidden, stat.S_IFCHR, 0, dir_fd=directory)
            self._name = "/".join([*parts, hidden])
            self._note("w")
        except FileExistsError:
            # What this layer has put there stays: a whiteout hides what is below alone.
            found = os.stat(hidden, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                self._make_opaque(self._directory(entry, [*parts, hidden]))
        except PermissionError:
            raise ImageError(
                f"{self._what}: a whiteout cannot be made: this kernel is older than Linux 5.8, or "
                "the file system has no devices",
                hint="set ROADSTEAD_IMAGES to a directory on a local disk",
            ) from None

    def _make_opaque(self, fd: int) -> None:
        try:
            os.setxattr(fd, OPAQUE, b"y")
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            raise ImageError(
                f"{self._what}: an opaque directory cannot be made: the image store's file system "
                "has no user attributes",
                hint="set ROADSTEAD_IMAGES to a directory on a local disk",
            ) from None

    def _attributes(self, fd: int, entry: Entry) -> None:
        assert entry.xattrs is not None
        for name, value in entry.xattrs.items():
            if name.startswith(("user.overlay.", "trusted.")):
                self.altered.add(_XATTRS)
                continue
            if name == "security.capability" and not self._owners:
                self.altered.add(_SET_ID)
                continue
            try:
                os.setxattr(fd, name, value)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EPERM, errno.EINVAL, errno.ERANGE):
                    raise
                self.altered.add(_XATTRS)

    # -- the end -----------------------------------------------------------------------------------

    def finish(self) -> None:
        """Give directories their modes and times, which what came into them has changed."""
        for name, (mode, mtime_ns) in reversed(self._later.items()):
            fd = self._existing(name)
            if fd is None:
                continue  # it has made way for something else
            try:
                if mode & 0o700 != 0o700 or mode & 0o7000 or not name:
                    os.fchmod(fd, mode | 0o500 if not name else mode)
                os.utime(fd, ns=(mtime_ns, mtime_ns))
            finally:
                os.close(fd)

    def _existing(self, name: str) -> int | None:
        fd = os.dup(self._root)
        for part in name.split("/") if name else ():
            try:
                below = os.open(part, _DIRECTORY, dir_fd=fd)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES):
                    raise
                return None
            finally:
                os.close(fd)
            fd = below
        return fd

    def look(self) -> None:
        """Fail before the disk is full: others write there too."""
        self._look_at = self.size + _LOOK_EVERY
        found = os.fstatvfs(self._root)
        few = found.f_files and found.f_favail < KEEP_FREE_FILES
        if few or (found.f_blocks and found.f_bavail * found.f_frsize < KEEP_FREE):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _write_all(fd: int, data: memoryview) -> None:
    done = os.write(fd, data)
    while done < len(data):
        done += os.write(fd, data[done:])
