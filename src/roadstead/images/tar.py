"""Tar headers from a stream: ustar, GNU and pax, with long names, sparse files and attributes.

The standard library's tarfile can do the same and takes five times as long for it, which is most of
what unpacking a small file costs.  Here a header is one struct and an entry one object, and what an
archive may ask for is bounded: names, headers, maps of sparse files.

The formats are those of pax(1), "ustar" and "pax interchange format", and of GNU tar's manual,
"Storing Sparse Files".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from roadstead.errors import ImageError
from roadstead.images.streams import Blob

_HEADER: Final = struct.Struct("100s8s8s8s12s12s8sc100s6s2s32s32s8s8s155s12x")
_ZEROS: Final = bytes(512)
_MAX_EXTENDED: Final = 1 << 20
_MAX_NAME: Final = 4096  # PATH_MAX
_MAX_SPARSE: Final = 100_000

FILE, HARD_LINK, SYMLINK, CHAR, BLOCK, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_REGULAR: Final = (b"0", b"\0", b"7")
_XATTR: Final = "SCHILY.xattr."


class Entry:
    """One member.  ``size`` bytes of data follow it in the stream; ``sparse`` says where they go
    (offset, length) in a file of ``real_size``."""

    __slots__ = (
        "gid",
        "kind",
        "link",
        "major",
        "minor",
        "mode",
        "mtime_ns",
        "name",
        "real_size",
        "size",
        "sparse",
        "uid",
        "xattrs",
    )

    name: str
    kind: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    link: str
    major: int
    minor: int
    sparse: list[tuple[int, int]] | None
    real_size: int
    xattrs: dict[str, bytes] | None


class Reader:
    """The members of the tar file in a blob.  Whoever has got an entry reads its data, or not, with
    ``copy`` before it asks for the next."""

    def __init__(self, blob: Blob) -> None:
        self._blob = blob
        self._left = 0  # of the member's data
        self._padding = 0

    def copy(self, count: int, write: object) -> None:
        """Hand the next bytes of the member to ``write``, as ``Blob.copy``."""
        self._left -= count
        self._blob.copy(count, write)  # type: ignore[arg-type]

    def _data(self, count: int, most: int) -> bytes:
        if count > most:
            raise self._damaged(f"a header of {count} bytes")
        data = self._blob.read(count + -count % 512)
        if len(data) < count:
            raise self._damaged("it ends in the middle of a header")
        return data[:count]

    def _damaged(self, why: str) -> ImageError:
        return ImageError(f"{self._blob.what}: not a tar file that can be read: {why}")

    def __iter__(self) -> Iterator[Entry]:
        pax: dict[str, bytes] = {}
        common: dict[str, bytes] = {}
        name = link = b""
        sparse_pairs: list[tuple[str, bytes]] = []
        read = self._blob.read
        first = True
        while True:
            if self._left or self._padding:
                self._blob.copy(self._left, len)
                read(self._padding)  # umoci leaves out that of the last member
                self._left = self._padding = 0
            block = read(512)
            if len(block) < 512:
                if block or first:
                    raise self._damaged("it is cut off" if block else "it is empty")
                return  # many writers leave the two blocks of zeros out
            if block == _ZEROS:
                return
            first = False
            fields = _HEADER.unpack(block)
            self._check_sum(block, fields[6])
            kind, size = fields[7], self._number(fields[4])
            if size < 0:
                raise self._damaged(f"a size of {size}")
            if kind in (b"x", b"g"):
                pairs = self._pax(self._data(size, _MAX_EXTENDED))
                sparse_pairs = [pair for pair in pairs if pair[0].startswith("GNU.sparse.")]
                (common if kind == b"g" else pax).update(pairs)
                continue
            if kind == b"L":
                name = self._data(size, _MAX_NAME + 1).rstrip(b"\0")
                continue
            if kind == b"K":
                link = self._data(size, _MAX_NAME + 1).rstrip(b"\0")
                continue
            entry = self._entry(fields, kind, size, name, link)
            if kind == b"S":
                self._old_sparse(entry, block)
            if common or pax:
                self._apply({**common, **pax}, sparse_pairs, entry)
            pax, name, link, sparse_pairs = {}, b"", b"", []
            if len(entry.name) > _MAX_NAME or len(entry.link) > _MAX_NAME:
                raise self._damaged("a name of more than 4096 characters")
            yield entry

    def _entry(
        self, fields: tuple[bytes, ...], kind: bytes, size: int, name: bytes, link: bytes
    ) -> Entry:
        entry = Entry()
        if not name:
            name = fields[0].partition(b"\0")[0]
            if fields[9] == b"ustar\0" and fields[15][0]:
                name = fields[15].partition(b"\0")[0] + b"/" + name
        entry.name = name.decode("utf-8", "surrogateescape")
        entry.link = (link or fields[8].partition(b"\0")[0]).decode("utf-8", "surrogateescape")
        if kind in _REGULAR or kind == b"S":
            # Before POSIX.1-1988 a slash at the end was what told directories.
            kind = DIRECTORY if entry.name.endswith("/") else FILE
        entry.kind = kind
        entry.mode = self._number(fields[1]) & 0o7777
        entry.uid, entry.gid = self._number(fields[2]), self._number(fields[3])
        entry.mtime_ns = self._number(fields[5]) * 1_000_000_000
        entry.major = entry.minor = 0
        if kind in (CHAR, BLOCK):
            entry.major, entry.minor = self._number(fields[13]), self._number(fields[14])
        entry.sparse = entry.xattrs = None
        entry.real_size = entry.size = size
        self._set_size(entry, size)
        return entry

    def _set_size(self, entry: Entry, size: int) -> None:
        # A link's size is that of the file it is a link to, in some writers; no data follow.
        if entry.kind in (HARD_LINK, SYMLINK, CHAR, BLOCK, DIRECTORY, FIFO):
            size = 0
        entry.size = entry.real_size = size
        self._left, self._padding = size, -size % 512

    def _check_sum(self, block: bytes, stored: bytes) -> None:
        total = sum(block) - sum(block[148:156]) + 256
        if total != self._number(stored):
            signed = total - 256 * sum(byte > 127 for byte in block[:148] + block[156:])
            if signed != self._number(stored):  # as some old writers had it
                raise self._damaged("a header whose checksum is wrong")

    def _number(self, field: bytes) -> int:
        if field[0] & 0x80:  # base 256: after 0x80 a positive number, 0xff begins a negative one
            if field[0] == 0xFF:
                return int.from_bytes(field, "big", signed=True)
            return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        text = field.partition(b"\0")[0].strip()
        try:
            return int(text, 8) if text else 0
        except ValueError:
            raise self._damaged(f"{field!r} is not a number") from None

    # -- pax ---------------------------------------------------------------------------------------

    def _pax(self, data: bytes) -> list[tuple[str, bytes]]:
        pairs = []
        at = 0
        while at < len(data) and data[at]:
            digits, _, _ = data[at : at + 20].partition(b" ")
            length = int(digits) if digits.isdigit() else 0
            record = data[at + len(digits) + 1 : at + length]
            key, equals, value = record.partition(b"=")
            if length <= len(digits) or not equals or value[-1:] != b"\n":
                raise self._damaged("a pax header that makes no sense")
            pairs.append((key.decode("utf-8", "surrogateescape"), value[:-1]))
            at += length
        return pairs

    def _apply(self, pax: dict[str, bytes], sparse: list[tuple[str, bytes]], entry: Entry) -> None:
        try:
            for key, value in pax.items():
                match key:
                    case "path":
                        entry.name = value.decode("utf-8", "surrogateescape")
                    case "linkpath":
                        entry.link = value.decode("utf-8", "surrogateescape")
                    case "size":
                        if int(value) < 0:
                            raise ValueError
                        self._set_size(entry, int(value))
                    case "uid":
                        entry.uid = int(value)
                    case "gid":
                        entry.gid = int(value)
                    case "mtime":
                        seconds, _, part = value.partition(b".")
                        nanoseconds = int((part + b"000000000")[:9])
                        sign = -1 if seconds.startswith(b"-") else 1
                        entry.mtime_ns = int(seconds) * 1_000_000_000 + sign * nanoseconds
                    case _:
                        if key.startswith(_XATTR):
                            entry.xattrs = entry.xattrs or {}
                            entry.xattrs[key.removeprefix(_XATTR)] = value
            if sparse and entry.kind == FILE:
                self._pax_sparse(pax, sparse, entry)
        except ValueError:
            raise self._damaged("a pax header with a number that is none") from None

    # -- sparse files ------------------------------------------------------------------------------

    def _old_sparse(self, entry: Entry, block: bytes) -> None:
        pairs, at, more = [], 386, block[482]
        real_size = self._number(block[483:495])
        places, where = 4, block
        while True:
            for _ in range(places):
                offset, length = where[at : at + 12], where[at + 12 : at + 24]
                if not offset.strip(b"\0 "):
                    break
                pairs.append((self._number(offset), self._number(length)))
                at += 24
            if not more:
                break
            where = self._data(512, 512)
            at, places, more = 0, 21, where[504]
            if len(pairs) > _MAX_SPARSE:
                raise self._damaged("a sparse file in too many parts")
        self._set_sparse(entry, pairs, real_size)

    def _pax_sparse(
        self, pax: dict[str, bytes], sparse: list[tuple[str, bytes]], entry: Entry
    ) -> None:
        size = int(pax.get("GNU.sparse.realsize", pax.get("GNU.sparse.size", b"0")))
        if "GNU.sparse.name" in pax:
            entry.name = pax["GNU.sparse.name"].decode("utf-8", "surrogateescape")
        numbers: list[int] = []
        if pax.get("GNU.sparse.major") == b"1":
            numbers = self._sparse_map()
            entry.size = self._left
        elif "GNU.sparse.map" in pax:
            numbers = [int(number) for number in pax["GNU.sparse.map"].split(b",") if number]
        else:
            wanted = ("GNU.sparse.offset", "GNU.sparse.numbytes")
            numbers = [int(value) for key, value in sparse if key in wanted]
        if len(numbers) % 2 or len(numbers) > 2 * _MAX_SPARSE:
            raise self._damaged("a sparse file whose map makes no sense")
        self._set_sparse(entry, list(zip(numbers[::2], numbers[1::2], strict=True)), size)

    def _sparse_map(self) -> list[int]:
        """The map of format 1.0: lines of decimal digits before the data, padded to 512."""
        numbers: list[int] = []
        text, wanted = b"", -1
        while wanted < 0 or len(numbers) < wanted:
            line, newline, rest = text.partition(b"\n")
            if not newline:
                if self._left < 512 or len(text) > 64:
                    raise self._damaged("a sparse file whose map makes no sense")
                text += self._blob.read(512)
                self._left -= 512
                continue
            text = rest
            if wanted < 0:
                wanted = 2 * int(line)
                if not 0 <= wanted <= 2 * _MAX_SPARSE:
                    raise self._damaged("a sparse file in too many parts")
            else:
                numbers.append(int(line))
        return numbers

    def _set_sparse(self, entry: Entry, pairs: list[tuple[int, int]], real_size: int) -> None:
        end = 0
        for offset, length in pairs:
            if offset < end or length < 0 or offset + length > real_size:
                raise self._damaged("a sparse file whose map makes no sense")
            end = offset + length
        if sum(length for _, length in pairs) != entry.size:
            raise self._damaged("a sparse file whose map does not fit its data")
        entry.sparse, entry.real_size = pairs, real_size
