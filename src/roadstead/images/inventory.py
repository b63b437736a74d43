"""What a layer consists of, so that `roadstead image verify` can tell whether it still does.

    STORE/layers/HEX/files      a record for each entry, each ended by a zero byte:

    f CRC32 SIZE PATH    d PATH    l TARGET-CRC32 PATH    w PATH (a whiteout)    p PATH (a fifo)
    h PATH (another name of what is listed under its first)

Written while a layer is unpacked, where each entry ends where its name says.  Where links of the
layer itself were followed, or later entries replaced earlier ones, it is made by a walk afterwards.
The check sum is against disks and mistakes, not against an enemy: who can write to the store is its
owner.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Final

NAME: Final = "files"
_PIECE: Final = 1 << 20
_CLOSED: Final = "closed "  # to its owner too, by its mode


class Writer:
    """The inventory of a layer that is being unpacked."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "wb")  # noqa: SIM115

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
        for record in _walk(root):
            writer.add(*record)
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
    for kind, name, about in _walk(root):
        wanted = expected.pop(name, None)
        if wanted is None and kind == "d":
            continue  # of no entry's own, on the way to one
        if wanted is None:
            found.append(f"{name!a} was added")
        elif wanted[0] != "h" and wanted != (kind, about) and about != _CLOSED:
            found.append(f"{name!a} has changed")
    found += [f"{name!a} is missing" for name in expected]
    return found if len(found) <= most else [*found[:most], f"and {len(found) - most} more"]


def _records(file: BinaryIO) -> Iterator[tuple[str, tuple[str, str]]]:
    fields = {"f": 2, "l": 1}
    for record in file.read().decode("utf-8", "surrogateescape").split("\0"):
        if record:
            kind = record[0]
            *about, name = record.split(" ", 1 + fields.get(kind, 0))[1:]
            yield name, (kind, "".join(f"{each} " for each in about))


def _walk(root: str) -> Iterator[tuple[str, str, str]]:
    """Kind, path and what is known of each entry; no link is followed."""
    pending = [""]
    while pending:
        inner = pending.pop()
        try:
            listed = list(os.scandir(f"{root}/{inner}"))
        except PermissionError:
            continue  # what is missing will be told
        for entry in listed:
            name = f"{inner}{entry.name}"
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                pending.append(f"{name}/")
                yield "d", name, ""
            elif stat.S_ISLNK(mode):
                yield "l", name, about_link(os.readlink(entry.path))
            elif stat.S_ISREG(mode):
                yield "f", name, _content(entry.path)
            elif stat.S_ISCHR(mode) and entry.stat(follow_symlinks=False).st_rdev == 0:
                yield "w", name, ""
            else:
                yield "p", name, ""


def _content(path: str) -> str:
    crc = size = 0
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except PermissionError:
        return _CLOSED
    try:
        while piece := os.read(fd, _PIECE):
            crc = zlib.crc32(piece, crc)
            size += len(piece)
    finally:
        os.close(fd)
    return about_file(crc, size)
