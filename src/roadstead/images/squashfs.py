"""Reading a squashfs, version 4 (the kernel's Documentation/filesystems/squashfs.rst).

A squashfs is a superblock, blocks of file contents, and tables in *metadata blocks* of 8 KiB, each
compressed for itself: of inodes, of directories, and of fragments, which are blocks that hold the
ends of many files.  Everything is found by offsets from a table's start, so every offset is checked
by what reading there gives: short data, data that does not decompress, an inode of no known type.

Blocks are read with pread(2), so several threads can read files at once.
"""

from __future__ import annotations

import os
import struct
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from roadstead.errors import ImageError
from roadstead.host import codecs
from roadstead.images.filesystem import Corrupt, Kind, Node

MAGIC: Final = b"hsqs"

_SUPERBLOCK: Final = struct.Struct("<4sIIIIHHHHHHQQQQQQQQ")
_METHODS: Final = {1: "gzip", 2: "lzma", 3: "lzo", 4: "xz", 5: "lz4", 6: "zstd"}
_METADATA: Final = 8192
_RAW_METADATA: Final = 0x8000
_RAW_BLOCK: Final = 1 << 24
_NO_FRAGMENT: Final = 0xFFFFFFFF
_CACHED_METADATA: Final = 2048  # blocks: 16 MiB
_CACHED_FRAGMENTS: Final = 16  # blocks of up to 1 MiB
_HEAD: Final = struct.Struct("<HHHHII")
_DIRECTORY: Final = struct.Struct("<IIHHI")
_LONG_DIRECTORY: Final = struct.Struct("<IIIIHHI")
_FILE: Final = struct.Struct("<IIII")
_LONG_FILE: Final = struct.Struct("<QQQIIII")
_LINK: Final = struct.Struct("<II")
_LIST_HEAD: Final = struct.Struct("<III")
_LIST_ENTRY: Final = struct.Struct("<HhHH")
_FRAGMENT: Final = struct.Struct("<QII")
_LONGEST_LINK: Final = 4096
_MOST_BLOCKS: Final = 1 << 22  # of one file: 512 GiB of 128 KiB


@dataclass(frozen=True, slots=True)
class _Listing:
    """Where a directory's entries are, in the directory table."""

    block: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class _Blocks:
    """Where a file's contents are; its sizes of blocks are read when they are needed."""

    start: int
    sizes_at: tuple[int, int]  # position in the inode table
    count: int
    fragment: int
    offset: int


@dataclass(frozen=True, slots=True)
class _Target:
    at: tuple[int, int]
    size: int


class Squashfs:
    """The file system in ``length`` bytes of ``fd`` from ``offset``; ``what`` names it in errors.

    Raises ImageError where it is none, or is compressed in a way that cannot be read here, and
    Corrupt.
    """

    def __init__(self, fd: int, offset: int, length: int, what: str) -> None:
        self._fd = fd
        self._base = offset
        head = os.pread(fd, _SUPERBLOCK.size, offset)
        if len(head) < _SUPERBLOCK.size or head[:4] != MAGIC:
            raise ImageError(f"{what} is not a squashfs")
        (
            _, self.inodes, self.made_at, self._block, _, method, log, _, _, major, minor,
            self._root, self._end, self._ids, _, self._inodes, self._listings, self._fragments, _,
        ) = _SUPERBLOCK.unpack(head)  # fmt: skip
        if major != 4:
            raise ImageError(
                f"{what} is a squashfs of version {major}.{minor}; version 4 can be read",
                hint="make it anew with mksquashfs 4.0 or later",
            )
        if not 12 <= log <= 20 or self._block != 1 << log:
            raise Corrupt(f"its blocks are {self._block} bytes long")
        if self._end > length:
            raise Corrupt(f"it is cut off: {length} of {self._end} bytes are there")
        self.method = _METHODS.get(method, "")
        if not self.method:
            raise Corrupt(f"compression method {method} does not exist")
        try:
            self._decode = codecs.decoder(self.method)
        except codecs.MissingLibrary as lack:
            raise ImageError(
                f"{what} is compressed with {self.method}, and this machine has no library for it",
                hint=f"install {lack.package} (its Debian name)",
            ) from None
        self._metadata: OrderedDict[int, tuple[bytes, int]] = OrderedDict()
        self._ends: OrderedDict[int, bytes] = OrderedDict()
        self._known_ids: dict[int, int] = {}
        self._lock = threading.Lock()

    # -- FileSystem -------------------------------------------------------------------------------

    def root(self) -> Node:
        return self._inode(self._root >> 16, self._root & 0xFFFF)

    def entries(self, directory: Node) -> Iterator[tuple[bytes, Node]]:
        place = directory.place
        cursor = _Cursor(self, self._listings + place.block, place.offset)
        left = place.size - 3  # as if "." and ".." were in it
        while left > 0:
            count, start, _ = _LIST_HEAD.unpack(cursor.read(_LIST_HEAD.size))
            left -= _LIST_HEAD.size
            if count >= 256:
                raise Corrupt("a part of a directory has more than 256 entries")
            for _ in range(count + 1):
                offset, _, _, length = _LIST_ENTRY.unpack(cursor.read(_LIST_ENTRY.size))
                if length >= 256:
                    raise Corrupt("a name is longer than 256 bytes")
                name = cursor.read(length + 1)
                left -= _LIST_ENTRY.size + length + 1
                yield name, self._inode(start, offset)
        if left:
            raise Corrupt("a directory's length is not that of its entries")

    def target(self, link: Node) -> bytes:
        return _Cursor(self, *link.place.at).read(link.place.size)

    def chunks(self, file: Node) -> Iterator[bytes | int]:
        place, left, at = file.place, file.size, file.place.start
        sizes = _Cursor(self, *place.sizes_at).read(4 * place.count)
        for (size,) in struct.iter_unpack("<I", sizes):
            whole = min(left, self._block)
            left -= whole
            if size == 0:
                yield whole
                continue
            block = self._read_block(at, size)
            at += size & ~_RAW_BLOCK
            if len(block) != whole:
                raise Corrupt(f"a block of inode {file.number} has {len(block)} bytes")
            yield block
        if left:
            found = self._end_block(place.fragment)[place.offset : place.offset + left]
            if len(found) != left:
                raise Corrupt(f"the end of inode {file.number} is not in its fragment")
            yield found

    # -- inodes -----------------------------------------------------------------------------------

    def _inode(self, block: int, offset: int) -> Node:
        cursor = _Cursor(self, self._inodes + block, offset)
        kind, mode, uid, gid, mtime, number = _HEAD.unpack(cursor.read(_HEAD.size))
        links, size, stored = 1, 0, 0
        place: object = None
        name: Kind = "device"
        if kind in (1, 8):
            name, place, links = "directory", *self._directory(cursor, long=kind == 8)
        elif kind in (2, 9):
            name, place, links, size, stored = "file", *self._file(cursor, long=kind == 9)
        elif kind in (3, 10):
            links, size = _LINK.unpack(cursor.read(_LINK.size))
            if not 0 < size <= _LONGEST_LINK:
                raise Corrupt(f"a symbolic link is {size} bytes long")
            name, place = "link", _Target(cursor.position, size)
        elif kind in (6, 13):
            name = "fifo"
            (links,) = struct.unpack("<I", cursor.read(4))
        elif not 4 <= kind <= 14:
            raise Corrupt(f"there is no inode type {kind}")
        owner = self._id(uid), self._id(gid)
        return Node(name, number, links, mode & 0o7777, owner, mtime, size, stored, place)

    def _id(self, index: int) -> int:
        """An id from the table of ids that the inodes count in."""
        found = self._known_ids.get(index)
        if found is None:
            block, slot = divmod(index, _METADATA // 4)
            (table,) = struct.unpack("<Q", self._pread(self._ids + 8 * block, 8))
            (found,) = struct.unpack("<I", _Cursor(self, table, 4 * slot).read(4))
            self._known_ids[index] = found
        return found

    def _directory(self, cursor: _Cursor, *, long: bool) -> tuple[_Listing, int]:
        if long:
            links, size, block, _, _, offset, _ = _LONG_DIRECTORY.unpack(
                cursor.read(_LONG_DIRECTORY.size)
            )
        else:
            block, links, size, offset, _ = _DIRECTORY.unpack(cursor.read(_DIRECTORY.size))
        return _Listing(block, offset, size), links

    def _file(self, cursor: _Cursor, *, long: bool) -> tuple[_Blocks, int, int, int]:
        links = 1
        sparse = 0
        if long:
            start, size, sparse, links, fragment, offset, _ = _LONG_FILE.unpack(
                cursor.read(_LONG_FILE.size)
            )
        else:
            start, fragment, offset, size = _FILE.unpack(cursor.read(_FILE.size))
        whole, rest = divmod(size, self._block)
        count = whole + (1 if rest and fragment == _NO_FRAGMENT else 0)
        if count > _MOST_BLOCKS or sparse > size:
            raise Corrupt(f"a file says that it has {size} bytes")
        return _Blocks(start, cursor.position, count, fragment, offset), links, size, size - sparse

    # -- blocks -----------------------------------------------------------------------------------

    def _read_block(self, at: int, size: int) -> bytes:
        length = size & ~_RAW_BLOCK
        if length > self._block:
            raise Corrupt("a block is longer than blocks are")
        data = self._pread(at, length)
        return data if size & _RAW_BLOCK else self._decoded(data, self._block, at)

    def _end_block(self, number: int) -> bytes:
        """A fragment: the ends of several files, which come one after another as a rule."""
        with self._lock:
            if number in self._ends:
                self._ends.move_to_end(number)
                return self._ends[number]
        index, slot = divmod(number, _METADATA // _FRAGMENT.size)
        (table,) = struct.unpack("<Q", self._pread(self._fragments + 8 * index, 8))
        entry = _Cursor(self, table, slot * _FRAGMENT.size).read(_FRAGMENT.size)
        start, size, _ = _FRAGMENT.unpack(entry)
        found = self._read_block(start, size)
        with self._lock:
            self._ends[number] = found
            if len(self._ends) > _CACHED_FRAGMENTS:
                self._ends.popitem(last=False)
        return found

    def metadata(self, at: int) -> tuple[bytes, int]:
        """The metadata block at an offset, decompressed, and the offset of the next."""
        with self._lock:
            if at in self._metadata:
                return self._metadata[at]
        (head,) = struct.unpack("<H", self._pread(at, 2))
        length = head & ~_RAW_METADATA
        if not 0 < length <= _METADATA:
            raise Corrupt(f"no metadata block begins at byte {at}")
        data = self._pread(at + 2, length)
        if not head & _RAW_METADATA:
            data = self._decoded(data, _METADATA, at)
        with self._lock:
            self._metadata[at] = data, at + 2 + length
            if len(self._metadata) > _CACHED_METADATA:
                self._metadata.popitem(last=False)
        return data, at + 2 + length

    def _decoded(self, data: bytes, room: int, at: int) -> bytes:
        try:
            return self._decode(data, room)
        except ValueError as error:
            raise Corrupt(f"the block at byte {at} cannot be decompressed: {error}") from None

    def _pread(self, at: int, length: int) -> bytes:
        data = os.pread(self._fd, length, self._base + at) if at + length <= self._end else b""
        if len(data) != length:
            raise Corrupt(f"it points to byte {at}, which is not in it")
        return data


class _Cursor:
    """Reads on in a table, across its metadata blocks."""

    def __init__(self, image: Squashfs, block: int, offset: int) -> None:
        self._image = image
        self._block = block
        self._offset = offset

    @property
    def position(self) -> tuple[int, int]:
        return self._block, self._offset

    def read(self, length: int) -> bytes:
        data, following = self._image.metadata(self._block)
        found = data[self._offset : self._offset + length]
        if len(found) == length:
            self._offset += length
            return found
        if self._offset > len(data):
            raise Corrupt(f"the metadata block at byte {self._block} is too short")
        parts, missing = [found], length - len(found)
        while missing:
            self._block = following
            data, following = self._image.metadata(self._block)
            if not data:
                raise Corrupt(f"the metadata block at byte {self._block} is empty")
            parts.append(data[:missing])
            self._offset = len(parts[-1])
            missing -= len(parts[-1])
        return b"".join(parts)
