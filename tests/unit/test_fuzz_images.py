"""Fuzzing of what reads things from strangers: references, manifests, tar headers, SIF headers,
Environment Definition Files.

Each target takes something that is in order and changes some of it.  It then is read, or refused by
an error of ours; never anything else, and nothing is made outside of where it should be.  Here the
number of examples is small; `script/fuzz --seconds N` goes on for as long as it is told.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from roadstead.core import edf
from roadstead.errors import RoadsteadError
from roadstead.images import manifest, reference, sif
from roadstead.images.filesystem import Corrupt
from roadstead.images.resolve import own_platform
from roadstead.images.streams import Blob
from roadstead.images.unpack import unpack
from tests.support import layouts
from tests.support import sif as sif_files
from tests.support.layouts import a_directory, a_file, a_link, tar_of

bounded = settings(
    max_examples=int(os.environ.get("ROADSTEAD_FUZZ_EXAMPLES", "40")),
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@contextmanager
def or_refused(word: str) -> Iterator[None]:
    """What may be refused, by a sentence that says what of."""
    try:
        yield
    except Corrupt:
        return  # of a file system; whoever opened the file says which
    except RoadsteadError as error:
        if word not in str(error):
            raise AssertionError(f"{error} does not say what") from error


@st.composite
def changed(draw: Any, data: bytes, most: int = 12) -> bytes:
    """``data`` with some bytes replaced, removed, repeated or inserted."""
    generator = random.Random(draw(st.integers(0, 1 << 32)))
    found = bytearray(data)
    for _ in range(draw(st.integers(0, most))):
        at = generator.randrange(len(found) + 1)
        match generator.randrange(6):
            case 0:
                found[at : at + 1] = bytes([generator.randrange(256)])
            case 1:
                del found[at : at + generator.randrange(1, 40)]
            case 2:
                found[at:at] = found[at : at + generator.randrange(1, 600)]
            case 3:
                found[at:at] = generator.choice([b"\0", b"/", b"..", b"\xff" * 8, b"9" * 12, b"-1"])
            case 4:
                found[at : at + 8] = struct.pack("<q", generator.choice([-1, 0, 1 << 40, 1 << 62]))
            case _:
                found[at : at + 12] = generator.choice(
                    [b"77777777777\0", b"\x80" + bytes(10) + b"\xff", b"\xff" * 12, b" " * 12]
                )
    return bytes(found)


_DIGEST = "sha256:" + "0123456789abcdef" * 4
_REFERENCES = (
    f"docker://registry.example.org:5000/a/b:1.2@{_DIGEST}",
    "oci:/some/layout:tag",
    "docker-archive:/file.tar:name:tag",
    "containers-storage:[overlay@/a]name",
    "./path:with",
)


@bounded
@given(st.sampled_from(_REFERENCES).flatmap(lambda text: changed(text.encode())))
def test_references(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    with or_refused(""):
        found = reference.parse(text, "/work")
        assert reference.parse(str(found), "/work").path == found.path


def _manifests() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        layout = layouts.write(Path(folder) / "l", [b"x"], config={"User": "a:b", "Volumes": {}})
        documents = [path.read_bytes() for path in (layout / "blobs/sha256").iterdir()]
        found = [each for each in documents if each.startswith(b"{")]
        return [*found, (layout / "index.json").read_bytes()]


_DOCUMENTS = _manifests()
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=5,
)


@st.composite
def documents(draw: Any) -> bytes:
    """A document of an image's, with bytes or values exchanged."""
    data = draw(st.sampled_from(_DOCUMENTS))
    if draw(st.booleans()):
        return bytes(draw(changed(data)))
    node = json.loads(data)
    places: list[tuple[Any, Any]] = []
    pending = [node]
    while pending:
        each = pending.pop()
        keys = list(each) if isinstance(each, dict) else range(len(each))
        places += [(each, key) for key in keys]
        pending += [each[key] for key in keys if isinstance(each[key], dict | list)]
    for _ in range(draw(st.integers(1, 3))):
        holder, key = draw(st.sampled_from(places))
        holder[key] = draw(_VALUES)
    return json.dumps(node).encode("utf-8", "surrogatepass")


@bounded
@given(documents())
def test_manifests_and_configurations(data: bytes) -> None:
    def read(wanted: manifest.Descriptor) -> bytes:
        return data

    for look in (
        lambda: manifest.select(data, own_platform(), read, "it"),
        lambda: manifest.configuration(data, "it"),
    ):
        with or_refused("it"):
            look()


_TARS = [
    tar_of(
        [
            a_directory("etc"),
            a_file("etc/passwd", b"root" * 300),
            a_link("bin", "usr/bin"),
            a_link("hard", "etc/passwd", tarfile.LNKTYPE),
            a_file("bin/" + "n" * 90, b"x" * 700, pax_headers={"SCHILY.xattr.user.a": "b"}),
            a_file("etc/.wh.gone", b""),
        ],
        format=format,
    )
    for format in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)
]


def _summed(data: bytes) -> bytes:
    """With check sums that are right, or a change would always end there."""
    found = bytearray(data)
    for at in range(0, len(found) - 511, 512):
        if found[at + 257 : at + 262] == b"ustar":
            found[at + 148 : at + 156] = b" " * 8
            found[at + 148 : at + 156] = b"%06o\0 " % sum(found[at : at + 512])
    return bytes(found)


@bounded
@given(st.sampled_from(_TARS).flatmap(changed).map(_summed))
def test_tar_headers(data: bytes) -> None:
    top = Path(tempfile.mkdtemp())
    try:
        (top / "root").mkdir()
        (top / "canary").write_text("alive")
        (top / "blob").write_bytes(data)
        fd = os.open(top / "blob", os.O_RDONLY)
        with or_refused("it"):
            unpack(Blob(fd, "it"), os.fspath(top / "root"), "", listed=os.fspath(top / "files"))
        assert {path.name for path in top.iterdir()} <= {"root", "canary", "blob", "files"}
        assert (top / "canary").read_text() == "alive"
    finally:
        shutil.rmtree(top, ignore_errors=True)


_SIF = sif_files.sif(
    [
        sif_files.partition(b"hsqs" + bytes(2000)),
        sif_files.text(sif_files.DEFINITION, "from: x"),
        sif_files.text(sif_files.LABELS, '{"a": "b"}'),
    ]
)
# Its header and its table; what lies between is of no meaning.
_HEAD = sif_files.TABLE_AT + 3 * 585


@bounded
@given(changed(_SIF[:128]), changed(_SIF[sif_files.TABLE_AT : _HEAD]))
def test_sif_headers(head: bytes, table: bytes) -> None:
    data = head[:128].ljust(sif_files.TABLE_AT, b"\0") + table
    data = data[:_HEAD].ljust(_HEAD, b"\0") + _SIF[_HEAD:]

    def read(at: int, length: int) -> bytes:
        assert at >= 0
        assert 0 <= length <= 64 << 20
        return data[at : at + length]

    with or_refused("it"):
        found = sif.primary(read, len(data), "it")
        assert 0 <= found.offset <= found.offset + found.length <= len(data)


_EDF = b"""\
base_environment = ["common", "other"]
image = "docker://x/y:1"
mounts = ["${SCRATCH}:/scratch:ro", "/a:/b"]
workdir = "${HOME:-/}"
entrypoint = true
[env]
A = "$${B}"
PATH = "${PATH}:/x"
[annotations]
com.hooks.x.enabled = "true"
"""


@bounded
@given(changed(_EDF))
def test_environment_definition_files(data: bytes) -> None:
    text = data.decode("utf-8", "replace")

    def read(name: str) -> tuple[str, str]:
        return f"/edf/{name}", text if name == "first" else 'image = "z"\n[env]\nC = "1"\n'

    with or_refused(""):
        found = edf.load("first", read, {"SCRATCH": "/s", "HOME": "/h"})
        assert all(isinstance(each, str) for each in found.mounts)


def test_a_base_that_is_named_again_and_again_is_not_read_for_ever() -> None:
    def read(name: str) -> tuple[str, str]:
        bases = json.dumps([f"{int(name) + 1}"] * 50) if int(name) < 9 else "[]"
        return f"/edf/{name}", f"base_environment = {bases}\n"

    with pytest.raises(RoadsteadError, match="more than 100 files"):
        edf.load("1", read, {})
