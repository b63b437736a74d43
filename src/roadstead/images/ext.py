"""Reading an ext2, ext3 or ext4 file system (the kernel's Documentation/filesystems/ext4).

Fixed places, numbers of inodes and numbers of blocks.  Which blocks hold a file's contents is said
by a tree of extents (ext4) or by blocks full of block numbers (ext2, ext3).  Both are followed in
the order of the file, and an extent that goes back to what has been passed is refused, so that no
tree can keep us for longer than it is large.

Checksums are not compared: what is in an image is its maker's in any case.  A file system that
needs its journal replayed is refused, as that would write to it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Final

from roadstead.errors import ImageError
from roadstead.images.filesystem import Corrupt, Kind, Node

MAGIC: Final = b"\x53\xef"
MAGIC_AT: Final = 1024 + 56

_ROOT: Final = 2
_REPLAY: Final = 0x4
# What a reader must know about to read right (feature_incompat), and we do: directory entries with
# types, extents, 64-bit block numbers, multiple mount protection, flexible groups, a checksum seed,
# large directories, case folding.
_KNOWN: Final = 0x2 | 0x40 | 0x80 | 0x100 | 0x200 | 0x2000 | 0x4000 | 0x20000
_NAMES: Final = {
    0x1: "compression", 0x8: "a journal device", 0x10: "meta_bg", 0x400: "ea_inode",
    0x1000: "dirdata", 0x8000: "inline_data", 0x10000: "encryption",
}  # fmt: skip
_IS_64BIT: Final = 0x80
_EXTENTS: Final = 0x80000  # flag of an inode
_KINDS: Final[dict[int, Kind]] = {
    0o040000: "directory", 0o100000: "file", 0o120000: "link", 0o010000: "fifo",
}  # fmt: skip
_EXTENT_MAGIC: Final = 0xF30A
_DEEPEST: Final = 5
_UNWRITTEN: Final = 32768
_PIECE: Final = 1 << 20
_LONGEST_LINK: Final = 4096
_LARGEST_DIRECTORY: Final = 1 << 30


class Ext:
    """The file system in ``length`` bytes of ``fd`` from ``offset``; ``what`` names it in errors.

    Raises ImageError where it is none, or uses something that cannot be read here, and Corrupt.
    """

    def __init__(self, fd: int, offset: int, length: int, what: str) -> None:
        self._fd = fd
        self._base = offset
        self._length = length
        head = os.pread(fd, 1024, offset + 1024)
        if len(head) < 1024 or head[56:58] != MAGIC:
            raise ImageError(f"{what} is not an ext file system")
        self.inodes, blocks = struct.unpack_from("<II", head, 0)
        first, log, _, per_group, _, self._per_group = struct.unpack_from("<IIIIII", head, 20)
        (revision,) = struct.unpack_from("<I", head, 76)
        (self._inode_size,) = struct.unpack_from("<H", head, 88)
        if revision == 0:
            self._inode_size = 128
        needs = struct.unpack_from("<I", head, 96)[0] if revision else 0
        self._check_features(needs, what)
        if log > 6 or not 128 <= self._inode_size <= 1024 << log or not self._per_group:
            raise Corrupt("its superblock has sizes that cannot be")
        self._block = 1024 << log
        self._wide = bool(needs & _IS_64BIT)
        if self._wide:
            blocks |= struct.unpack_from("<I", head, 336)[0] << 32
        self._descriptor = max(struct.unpack_from("<H", head, 254)[0], 32) if self._wide else 32
        self._groups_at = (first + 1) * self._block
        if not per_group or blocks * self._block > length:
            raise Corrupt(f"it is cut off: {length} of {blocks * self._block} bytes are there")

    @staticmethod
    def _check_features(needs: int, what: str) -> None:
        if needs & _REPLAY:
            raise ImageError(
                f"{what} was not unmounted: its journal has changes to be written",
                hint="e2fsck -p FILE writes them",
            )
        if unknown := needs & ~_KNOWN:
            bits = [1 << bit for bit in range(32) if unknown >> bit & 1]
            names = ", ".join(_NAMES.get(bit, f"feature {bit:#x}") for bit in bits)
            raise ImageError(
                f"{what} is an ext file system with {names}, which cannot be read here",
                hint="pack its files as a squashfs: mksquashfs DIR FILE",
            )

    # -- FileSystem -------------------------------------------------------------------------------

    def root(self) -> Node:
        return self._inode(_ROOT)

    def entries(self, directory: Node) -> Iterator[tuple[bytes, Node]]:
        if directory.size > _LARGEST_DIRECTORY:
            raise Corrupt(f"directory {directory.number} says that it has {directory.size} bytes")
        for block in self.chunks(directory):
            if isinstance(block, int):
                raise Corrupt(f"directory {directory.number} has holes")
            for at in range(0, len(block), self._block):
                for name, number in _names(block[at : at + self._block]):
                    if name in (b".", b".."):
                        continue
                    if directory.number == _ROOT and name == b"lost+found":
                        continue  # e2fsck(8)'s, not the image's
                    yield name, self._inode(number)

    def target(self, link: Node) -> bytes:
        if not 0 < link.size <= _LONGEST_LINK:
            raise Corrupt(f"a symbolic link is {link.size} bytes long")
        flags, map_ = link.place
        if link.size < 60 and not flags & _EXTENTS:
            return bytes(map_[: link.size])
        return b"".join(part for part in self.chunks(link) if isinstance(part, bytes))

    def chunks(self, file: Node) -> Iterator[bytes | int]:
        flags, map_ = file.place
        blocks = -(-file.size // self._block)
        runs = self._extents(map_, blocks) if flags & _EXTENTS else self._mapped(map_, blocks)
        at, left = 0, file.size
        for logical, count, physical in runs:
            if logical > at:
                hole = min((logical - at) * self._block, left)
                left -= hole
                yield hole
            at = logical + count
            position, length = physical * self._block, min(count * self._block, left)
            left -= length
            if not physical:
                yield length
                continue
            while length:
                piece = self._pread(position, min(length, _PIECE))
                position, length = position + len(piece), length - len(piece)
                yield piece
        if left:
            yield left

    # -- inodes -----------------------------------------------------------------------------------

    def _inode(self, number: int) -> Node:
        if not 0 < number <= self.inodes:
            raise Corrupt(f"there is no inode {number}")
        group, index = divmod(number - 1, self._per_group)
        descriptor = self._pread(self._groups_at + group * self._descriptor, self._descriptor)
        (table,) = struct.unpack_from("<I", descriptor, 8)
        if self._wide and self._descriptor >= 64:
            table |= struct.unpack_from("<I", descriptor, 40)[0] << 32
        raw = self._pread(table * self._block + index * self._inode_size, 128)
        mode, uid, size, _, _, mtime, _, gid, links, sectors, flags = struct.unpack_from(
            "<HHIIIIIHHII", raw, 0
        )
        kind = _KINDS.get(mode & 0o170000, "device")
        if kind == "file":
            size |= struct.unpack_from("<I", raw, 108)[0] << 32
        # The count of 512-byte sectors includes what the map itself takes.
        sectors_high, _, uid_high, gid_high = struct.unpack_from("<HHHH", raw, 116)
        sectors |= sectors_high << 32
        owner = uid_high << 16 | uid, gid_high << 16 | gid
        stored = min(size, sectors * 512)
        place = flags, raw[40:100]
        return Node(kind, number, links, mode & 0o7777, owner, mtime, size, stored, place)

    # -- where the blocks of a file are: (logical block, number, physical block or 0) --------------

    def _extents(self, root: bytes, blocks: int) -> Iterator[tuple[int, int, int]]:
        passed = -1
        for logical, count, physical in self._leaves(root, _DEEPEST):
            if logical <= passed or count == 0:
                raise Corrupt("a tree of extents goes back to what it has passed")
            passed = logical + count - 1
            if logical >= blocks:
                return  # preallocated beyond the end
            yield logical, min(count, blocks - logical), physical

    def _leaves(self, node: bytes, deepest: int) -> Iterator[tuple[int, int, int]]:
        magic, count, _, depth = struct.unpack_from("<HHHH", node, 0)
        if magic != _EXTENT_MAGIC or depth > deepest or 12 * (count + 1) > len(node):
            raise Corrupt("a tree of extents has a node that is none")
        if depth and not count:
            raise Corrupt("a tree of extents has an empty node")
        passed = -1
        for number in range(count):
            logical, first, second, third = struct.unpack_from("<IHHI", node, 12 * (number + 1))
            if not depth:
                unwritten = first > _UNWRITTEN
                length = first - _UNWRITTEN if unwritten else first
                yield logical, length, 0 if unwritten else second << 32 | third
                continue
            if logical <= passed:
                raise Corrupt("a tree of extents goes back to what it has passed")
            passed = logical
            (low, high) = struct.unpack_from("<IH", node, 12 * (number + 1) + 4)
            below = self._pread((high << 32 | low) * self._block, self._block)
            if struct.unpack_from("<HH", below, 2)[0] == 0:
                raise Corrupt("a tree of extents has an empty node")
            yield from self._leaves(below, depth - 1)

    def _mapped(self, map_: bytes, blocks: int) -> Iterator[tuple[int, int, int]]:
        numbers = struct.unpack("<15I", map_)
        span, at = 1, 0
        for index, number in enumerate(numbers):
            level = max(0, index - 11)
            span = (self._block // 4) ** level
            if at >= blocks:
                return
            yield from self._pointed(number, level, at, blocks)
            at += span
        if at < blocks:
            raise Corrupt("a file is longer than its blocks can be numbered")

    def _pointed(
        self, number: int, level: int, at: int, blocks: int
    ) -> Iterator[tuple[int, int, int]]:
        if not number or at >= blocks:
            return
        if not level:
            yield at, 1, number
            return
        span = (self._block // 4) ** (level - 1)
        for (below,) in struct.iter_unpack("<I", self._pread(number * self._block, self._block)):
            if at >= blocks:
                return
            yield from self._pointed(below, level - 1, at, blocks)
            at += span

    def _pread(self, at: int, length: int) -> bytes:
        data = os.pread(self._fd, length, self._base + at) if at + length <= self._length else b""
        if len(data) != length:
            raise Corrupt(f"it points to byte {at}, which is not in it")
        return data


def _names(block: bytes) -> Iterator[tuple[bytes, int]]:
    """A block of a directory: names and numbers of inodes.  Blocks of its index look empty."""
    at = 0
    while at + 8 <= len(block):
        number, length, size, _ = struct.unpack_from("<IHBB", block, at)
        if length < 8 or length % 4 or at + length > len(block) or size > length - 8:
            raise Corrupt("a directory has an entry that is longer than it may be")
        if number:
            yield block[at + 8 : at + 8 + size], number
        at += length
