"""SIF: the header and the table of descriptors, as the format is published, and what is wrong with
files that are not quite it."""

from __future__ import annotations

import struct

import pytest

from roadstead.errors import ImageError
from roadstead.images.filesystem import Corrupt
from roadstead.images.sif import Primary, primary
from tests.support import sif

IMAGE = b"hsqs and so on" * 100


def read(data: bytes) -> Primary:
    return primary(lambda at, length: data[at : at + length], len(data), "app.sif")


def changed(data: bytes, at: int, form: str, value: object) -> bytes:
    copy = bytearray(data)
    struct.pack_into(form, copy, at, value)
    return bytes(copy)


def test_what_a_file_holds() -> None:
    data = sif.sif(
        [
            sif.text(sif.DEFINITION, "Bootstrap: docker\nFrom: debian\n"),
            sif.text(sif.LABELS, '{"maintainer": "me"}'),
            sif.text(sif.ENVIRONMENT, "export A=1\n"),
            sif.partition(b"overlay", kind=sif.EXT3, role=sif.OVERLAY),
            sif.partition(IMAGE, architecture=sif.ARM64),
        ]
    )
    found = read(data)
    assert data[found.offset : found.offset + found.length] == IMAGE
    assert found.offset % 4096 == 0
    assert (found.file_system, found.architecture, found.overlays) == ("squashfs", "arm64", 1)
    assert found.definition.startswith("Bootstrap: docker")
    assert found.environment == "export A=1\n"
    assert found.labels == '{"maintainer": "me"}'


GOOD = sif.sif([sif.partition(IMAGE)])
ROW = sif.TABLE_AT
DAMAGED = {
    "no magic": (changed(GOOD, 32, "9s", b"FIS_MAGIC"), "no SIF header"),
    "cut off in the header": (GOOD[:100], "no SIF header"),
    "another version": (changed(GOOD, 42, "3s", b"07\0"), "version 07"),
    "no descriptors": (changed(GOOD, 88, "<q", 0), "table of 0"),
    "a billion descriptors": (changed(GOOD, 88, "<q", 1 << 30), "table of 1073741824"),
    "a negative number": (changed(GOOD, 88, "<q", -1), "table of -1"),
    "the table beyond the end": (changed(GOOD, 96, "<q", 1 << 40), "table of"),
    "the table at a negative place": (changed(GOOD, 96, "<q", -8), "table of"),
    "cut off in the table": (GOOD[: sif.TABLE_AT + 100], "cut off"),
    "data beyond the end": (changed(GOOD, ROW + 17, "<q", 1 << 40), "data object 1"),
    "data at a negative place": (changed(GOOD, ROW + 17, "<q", -1), "data object 1"),
    "data of negative length": (changed(GOOD, ROW + 25, "<q", -1), "data object 1"),
    "no image": (sif.sif([sif.partition(IMAGE, role=sif.DATA)]), "0 primary"),
    "two images": (sif.sif([sif.partition(IMAGE), sif.partition(IMAGE)]), "2 primary"),
    "a text of two MiB": (
        sif.sif([sif.partition(IMAGE), sif.text(sif.DEFINITION, "x" * (2 << 20))]),
        "a text of 2097152 bytes",
    ),
}


@pytest.mark.parametrize(("data", "said"), DAMAGED.values(), ids=DAMAGED.keys())
def test_what_is_damaged(data: bytes, said: str) -> None:
    with pytest.raises(Corrupt, match=said):
        read(data)


@pytest.mark.parametrize(
    ("data", "said", "hint"),
    [
        (sif.sif([sif.partition(IMAGE, kind=sif.ENCRYPTED)]), "encrypted squashfs", "--sandbox"),
        (sif.sif([(sif.OCI_INDEX, "index", b"{}", b"")]), "OCI-SIF", "--oci"),
    ],
)
def test_what_is_in_order_and_cannot_be_read(data: bytes, said: str, hint: str) -> None:
    with pytest.raises(ImageError, match=said) as refused:
        read(data)
    assert hint in refused.value.hint
