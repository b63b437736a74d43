"""What a layer consists of, so that `roadstead image verify` can tell whether it still does.

    STORE/layers/HEX/files      a record for each entry, each ended by a zero byte:

    f CRC32 SIZE PATH    d PATH    l TARGET-CRC32 PATH    w PATH (a whiteout)    p PATH (a fifo)
    h PATH (another name of what is listed under its first)
    s CRC32 SIZE PATH (a file with holes: the sum is of the blocks that are not all zeros)

Written while a layer is unpacked, where each entry ends where its name says.  Where links of the
layer itself were followed, or later entries replaced earlier ones, it is made by a walk afterwards.
The check sum is against disks and mistakes, not against an enemy: who can write to the store is its
owner.
"""

from __future__ import annotations

import importlib
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final

NAME: Final = "files"
_PIECE: Final = 1 << 20


def _crc32() -> Callable[[bytes | memoryview, int], int]:
    """isal's, where it is installed, is ten times as fast."""
    try:
        found = importlib.import_module("isal.isal_zlib").crc32
    except ImportError:
        found = zlib.crc32
    return found  # type: ignore[no-any-return]


crc32: Final = _crc32()
_BLOCK: Final = 4096
_CLOSED: Final = "closed "  # to its owner too, by its mode


class Writer:
    """The inventory of a layer that is being unpacked."""

    def __init__(self, path: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._file = open(os.open(path, flags, 0o600), "wb")  # noqa: SIM115

    def add(self, kind: str, path: str, about: str = "") -> None:
        """An entry; ``about`` is what stands between kind and path, with a blank after each."""
        self._file.write(f"{kind} {about}{path}\0".encode("utf-8", "surrogateescape"))

    def close(self) -> None:
        self._file.close()


def about_file(crc: int, size: int) -> str:
    """For a regular file."""
    return f"{crc:08x} {size} "


def about_link(target: str) -> str:
    """For a symbolic link."""
    return f"{zlib.crc32(os.fsencode(target)):08x} "


def take(root: str, path: str) -> None:
    """Make the inventory of a directory, by reading it, in the file ``path``."""
    writer = Writer(path)
    try:
        for kind, name, found in _walk(root):
            if kind == "f":
                kind = "s" if found.st_blocks * 512 < found.st_size - _BLOCK else "f"
            writer.add(kind, name, _about(kind, f"{root}/{name}"))
    finally:
        writer.close()


def differences(root: str, path: str, most: int = 10) -> list[str]:
    """What of the inventory is not so any more, in words; an empty list where all is."""
    try:
        with open(path, "rb") as file:
            expected = dict(_records(file))
    except FileNotFoundError:
        return ["its list of files is missing"]
    found: list[str] = []
    for kind, name, seen in _walk(root):
        wanted = expected.pop(name, None)
        if wanted is None:
            if kind != "d":  # of no entry's own, on the way to one
                found.append(f"{name!a} was added")
        elif not _is(wanted, kind, f"{root}/{name}", seen.st_size):
            found.append(f"{name!a} has changed")
    found += [f"{name!a} is missing" for name in expected]
    return found if len(found) <= most else [*found[:most], f"and {len(found) - most} more"]


def _is(wanted: tuple[str, str], kind: str, path: str, size: int) -> bool:
    """Whether an entry is what was listed; of another size it is not, and is not read."""
    listed, about = wanted
    if listed == "h":
        return kind in "flp"
    if kind == "f" and listed in "fs":
        if about.split()[-1:] != [str(size)]:
            return about == _CLOSED
        return _about(listed, path) in (about, _CLOSED)
    return kind == listed and _about(kind, path) == about


def _records(file: BinaryIO) -> Iterator[tuple[str, tuple[str, str]]]:
    fields = {"f": 2, "s": 2, "l": 1}
    for record in file.read().decode("utf-8", "surrogateescape").split("\0"):
        if record:
            kind = record[0]
            if record[2:].startswith(_CLOSED) and kind in "fs":
                yield record[2 + len(_CLOSED) :], (kind, _CLOSED)
                continue
            *about, name = record.split(" ", 1 + fields.get(kind, 0))[1:]
            yield name, (kind, "".join(f"{each} " for each in about))


def _walk(root: str) -> Iterator[tuple[str, str, os.stat_result]]:
    """Kind, path and status of each entry; no link is followed."""
    pending = [""]
    while pending:
        inner = pending.pop()
        try:
            listed = list(os.scandir(f"{root}/{inner}"))
        except PermissionError:
            continue  # what is missing will be told
        for entry in listed:
            name = f"{inner}{entry.name}"
            found = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                pending.append(f"{name}/")
                yield "d", name, found
            elif stat.S_ISLNK(found.st_mode):
                yield "l", name, found
            elif stat.S_ISREG(found.st_mode):
                yield "f", name, found
            elif stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
                yield "w", name, found
            else:
                yield "p", name, found


def _about(kind: str, path: str) -> str:
    if kind == "l":
        return about_link(os.readlink(path))
    if kind not in "fs":
        return ""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except PermissionError:
        return _CLOSED
    try:
        return about_file(_sum(fd) if kind == "f" else _sum_of_blocks(fd), os.fstat(fd).st_size)
    finally:
        os.close(fd)


def _sum(fd: int) -> int:
    crc = 0
    while piece := os.read(fd, _PIECE):
        crc = crc32(piece, crc)
    return crc


def _sum_of_blocks(fd: int) -> int:
    """Of the blocks that hold something, with their places: holes may be many terabytes, and
    another file system may keep zeros in their stead."""
    crc = at = 0
    while True:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA) // _BLOCK * _BLOCK
            end = os.lseek(fd, at, os.SEEK_HOLE)
        except OSError:  # nothing but a hole from here on
            return crc
        for place in range(at, end, _BLOCK):
            block = os.pread(fd, _BLOCK, place)
            if block.strip(b"\0"):
                crc = zlib.crc32(block, zlib.crc32(b"%d" % place, crc))
        at = end
