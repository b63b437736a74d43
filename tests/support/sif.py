"""SIF files, written as the format's own library does: for tests, as no Singularity installs from
this Debian.  What is written here is read back by its `siflist` where that is to be had."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

PARTITION, DEFINITION, ENVIRONMENT, LABELS = 0x4004, 0x4001, 0x4002, 0x4003
OCI_INDEX = 0x400A
SQUASHFS, EXT3, ENCRYPTED = 1, 2, 5
SYSTEM, PRIMARY, DATA, OVERLAY = 1, 2, 3, 4
AMD64, ARM64 = b"02", b"04"
TABLE_AT, SLOTS, DATA_AT = 4096, 48, 32768


def partition(
    data: bytes, *, kind: int = SQUASHFS, role: int = PRIMARY, architecture: bytes = AMD64
) -> tuple[int, str, bytes, bytes]:
    """A data object that is a partition: its type, name, contents and extra field."""
    extra = struct.pack("<ii3s", kind, role, architecture + b"\0")
    return PARTITION, "partition", data, extra


def text(kind: int, content: str) -> tuple[int, str, bytes, bytes]:
    """A data object that is a text."""
    return kind, "text", content.encode(), b""


def sif(objects: Sequence[tuple[int, str, bytes, bytes]]) -> bytes:
    """A file with these data objects."""
    rows, body = [], b""
    for number, (kind, name, data, extra) in enumerate(objects, 1):
        body += bytes(-len(body) % 4096)
        at = DATA_AT + len(body)
        body += data
        rows.append(
            struct.pack(
                "<i?IIIqqqqqqq128s384s",
                kind, True, number, 0xF0000001, 0, at, len(data), len(data), 0, 0, 0, 0,
                name.encode(), extra,
            )
        )  # fmt: skip
    head = struct.pack(
        "<32s10s3s3s16sqqqqqqqq",
        b"#!/usr/bin/env run-singularity\n", b"SIF_MAGIC\0", b"01\0", b"02\0", bytes(range(16)),
        0, 0, SLOTS - len(rows), SLOTS, TABLE_AT, SLOTS * 585, DATA_AT, len(body),
    )  # fmt: skip
    table = b"".join(rows).ljust(SLOTS * 585, b"\0")
    return head.ljust(TABLE_AT, b"\0") + table.ljust(DATA_AT - TABLE_AT, b"\0") + body


def write(path: Path, objects: Sequence[tuple[int, str, bytes, bytes]]) -> Path:
    path.write_bytes(sif(objects))
    return path
