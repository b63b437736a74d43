"""Singularity's and Apptainer's file format: the header, the table of descriptors, and what of them
a container needs.  Pure: bytes in, values out.

A SIF is a fixed header of 128 bytes, a table of descriptors of 585 bytes each, and the data objects
that these point to: one file system partition that is the image ("primary system"), the definition
it was built from, labels, signatures.  All numbers are little-endian; the format is that of
github.com/apptainer/sif, version "01".
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from roadstead.errors import ImageError
from roadstead.images.filesystem import Corrupt

MAGIC: Final = b"SIF_MAGIC\0"
MAGIC_AT: Final = 32

_HEADER: Final = struct.Struct("<32s10s3s3s16sqqqqqqqq")
_DESCRIPTOR: Final = struct.Struct("<i?IIIqqqqqqq128s384s")
_PARTITION: Final = struct.Struct("<ii3s")
_MOST_DESCRIPTORS: Final = 1 << 14
_LARGEST_TEXT: Final = 1 << 20

DEFINITION: Final = 0x4001
ENVIRONMENT: Final = 0x4002
LABELS: Final = 0x4003
PARTITION: Final = 0x4004
_OCI_INDEX: Final = 0x400A
_OVERLAY: Final = 4
_PRIMARY: Final = 2
FILE_SYSTEMS: Final = {1: "squashfs", 2: "ext", 3: "archive", 4: "raw", 5: "encrypted squashfs"}
_ARCHITECTURES: Final = {
    "01": "386", "02": "amd64", "03": "arm", "04": "arm64", "05": "ppc64", "06": "ppc64le",
    "07": "mips", "08": "mipsle", "09": "mips64", "10": "mips64le", "11": "s390x", "12": "riscv64",
}  # fmt: skip

ReadAt = Callable[[int, int], bytes]  # offset, length → bytes, fewer at the end of the file


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One data object: where it is, what it is, and ``extra``, which depends on what it is."""

    kind: int
    number: int
    offset: int
    length: int
    name: str
    extra: bytes


@dataclass(frozen=True, slots=True)
class Primary:
    """The partition that is the image, and the files that go with it.

    ``definition`` is the recipe the image was built from; ``environment`` what the format keeps
    apart (Singularity itself writes /.singularity.d/env inside the image instead); ``overlays``
    is the number of writable layers in the file, which are not part of what is read.
    """

    offset: int
    length: int
    file_system: str
    architecture: str
    definition: str
    environment: str
    labels: str
    overlays: int


def descriptors(read: ReadAt, size: int) -> list[Descriptor]:
    """The table of a SIF file of ``size`` bytes.  Raises Corrupt."""
    head = read(0, _HEADER.size)
    if len(head) < _HEADER.size or head[MAGIC_AT : MAGIC_AT + len(MAGIC)] != MAGIC:
        raise Corrupt("it has no SIF header")
    _, _, version, _, _, _, _, _, total, at, _, _, _ = _HEADER.unpack(head)
    if version[:2] != b"01":
        raise Corrupt(f"it is of SIF version {_text(version)}, and 01 can be read")
    if not 0 < total <= _MOST_DESCRIPTORS or not _HEADER.size <= at <= size:
        raise Corrupt(f"its table of {total} descriptors is at byte {at}")
    table = read(at, total * _DESCRIPTOR.size)
    if len(table) != total * _DESCRIPTOR.size:
        raise Corrupt("its table of descriptors is cut off")
    found = []
    for row in _DESCRIPTOR.iter_unpack(table):
        kind, used, number, _, _, offset, length, _, _, _, _, _, name, extra = row
        if not used:
            continue
        if offset < 0 or length < 0 or offset + length > size:
            raise Corrupt(f"data object {number} is at byte {offset} and has {length}")
        found.append(Descriptor(kind, number, offset, length, _text(name), extra))
    return found


def primary(read: ReadAt, size: int, what: str) -> Primary:
    """The image that a SIF file holds; ``what`` names the file in errors.

    Raises Corrupt, and ImageError for a file with no image that can be read here.
    """
    table = descriptors(read, size)
    if any(each.kind == _OCI_INDEX for each in table):
        raise ImageError(
            f"{what} is an OCI-SIF, which holds the layers of an image and no file system",
            hint="singularity build --sandbox DIR FILE, or pull it anew without --oci",
        )
    partitions = [(each, *_partition(each)) for each in table if each.kind == PARTITION]
    found = [row for row in partitions if row[2] == _PRIMARY]
    if len(found) != 1:
        raise Corrupt(f"it has {len(found)} primary partitions")
    descriptor, file_system, _, architecture = found[0]
    if file_system not in ("squashfs", "ext"):
        raise ImageError(
            f"{what} holds its image as {file_system}, which cannot be read here",
            hint=f"singularity build --sandbox DIR {what}" if "enc" in file_system else "",
        )
    return Primary(
        offset=descriptor.offset,
        length=descriptor.length,
        file_system=file_system,
        architecture=architecture,
        definition=_object(read, table, DEFINITION),
        environment=_object(read, table, ENVIRONMENT),
        labels=_object(read, table, LABELS),
        overlays=sum(role == _OVERLAY for _, _, role, _ in partitions),
    )


def _partition(descriptor: Descriptor) -> tuple[str, int, str]:
    kind, role, architecture = _PARTITION.unpack_from(descriptor.extra)
    named = FILE_SYSTEMS.get(kind, f"file system type {kind}")
    return named, role, _ARCHITECTURES.get(_text(architecture), "")


def _object(read: ReadAt, table: list[Descriptor], kind: int) -> str:
    """The text of the first data object of a kind; "" for none.  Raises Corrupt."""
    for each in table:
        if each.kind == kind:
            if each.length > _LARGEST_TEXT:
                raise Corrupt(f"data object {each.number} is a text of {each.length} bytes")
            return read(each.offset, each.length).decode(errors="replace")
    return ""


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode(errors="replace")
