"""Whole images that were made to do harm: refused in a sentence or defused, within bounds of memory
and time, with nothing touched outside of the store and nothing left in it."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import resource
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from roadstead.errors import ImageError
from roadstead.host import codecs
from roadstead.images import streams, unpack
from roadstead.images.resolve import resolve
from roadstead.images.store import Store
from tests.support import layouts
from tests.support.layouts import a_directory, a_file, a_link, tar_of

MOST_MEMORY = 350 << 20
_KIND = "application/vnd.oci.image"
SMALL = layouts.layer({"bin/sh": b"x"})


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    (tmp_path / "canary").write_text("alive")
    return tmp_path / "layout"


def index(layout: Path, *described: Any, **more: Any) -> None:
    layout.mkdir(exist_ok=True)
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (layout / "index.json").write_text(json.dumps({"manifests": described, **more}))


def image_of(layout: Path, blobs: list[dict[str, Any]], config: dict[str, Any]) -> None:
    """An image with these descriptors of layers and this configuration."""
    manifest = {
        "schemaVersion": 2,
        "config": layouts.put(layout, json.dumps(config).encode(), f"{_KIND}.config.v1+json"),
        "layers": blobs,
    }
    data = json.dumps(manifest).encode()
    index(layout, layouts.put(layout, data, f"{_KIND}.manifest.v1+json"))


def configured(diff_ids: list[str], **more: Any) -> dict[str, Any]:
    return {
        "architecture": layouts.ARCHITECTURE,
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        **more,
    }


def sha(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def blob(layout: Path, data: bytes, **more: Any) -> dict[str, Any]:
    return {**layouts.put(layout, data, f"{_KIND}.layer.v1.tar"), **more}


def refused(layout: Path, sentence: str) -> None:
    """The import fails with this sentence; there is nothing of it, and the rest is as it was."""
    store = Store(os.fspath(layout.parent / "store"))
    with pytest.raises(ImageError, match=sentence):
        resolve(f"oci:{layout}", store=store)
    for room in ("images", "layers", "work", "pins"):
        assert os.listdir(f"{store.path}/{room}") == [], room
    assert sorted(os.listdir(layout.parent)) == ["canary", "layout", "store"]
    assert (layout.parent / "canary").read_text() == "alive"


def lying_size(layout: Path) -> str:
    image_of(layout, [blob(layout, SMALL, size=len(SMALL) + 1)], configured([sha(SMALL)]))
    return "it ends after .* bytes"


def lying_digest(layout: Path) -> str:
    found = blob(layout, SMALL)
    (layout / "blobs/sha256" / found["digest"][7:]).write_bytes(layouts.layer({"bin/sh": b"y"}))
    image_of(layout, [found], configured([sha(SMALL)]))
    return "its digest is"


def lying_diff_id(layout: Path) -> str:
    image_of(layout, [blob(layout, SMALL)], configured([sha(b"something else")]))
    return "its content has the digest"


def other_number(layout: Path) -> str:
    image_of(layout, [blob(layout, SMALL)], configured([sha(SMALL)] * 2))
    return "has 1 layers, its configuration 2"


def negative_size(layout: Path) -> str:
    image_of(layout, [blob(layout, SMALL, size=-1)], configured([sha(SMALL)]))
    return "size"


def digest_that_is_a_path(layout: Path) -> str:
    wrong = blob(layout, SMALL, digest="sha256:../../../canary")
    image_of(layout, [wrong], configured([sha(SMALL)]))
    return "digest"


def looping_index(layout: Path) -> str:
    """As far as digests let one: an index that is an index that is an index …"""
    described = layouts.put(layout, b"{}", f"{_KIND}.manifest.v1+json")
    for _ in range(30):
        data = json.dumps({"manifests": [described]}).encode()
        described = layouts.put(layout, data, f"{_KIND}.index.v1+json")
    index(layout, described)
    return "lead from one to the next"


def index_of_itself(layout: Path) -> str:
    described = layouts.put(layout, b"{}", f"{_KIND}.index.v1+json")
    data = json.dumps({"manifests": [described]}).encode()
    (layout / "blobs/sha256" / described["digest"][7:]).write_bytes(data)
    index(layout, {**described, "size": len(data)})
    return "has another digest"


def deep_document(layout: Path) -> str:
    described = layouts.put(layout, b'{"a":' * 100_000, f"{_KIND}.manifest.v1+json")
    index(layout, described)
    return "not valid JSON|nested"


def large_document(layout: Path) -> str:
    described = layouts.put(layout, b" " * (40 << 20), f"{_KIND}.manifest.v1+json")
    index(layout, described)
    return "more than 16 MiB"


def million_layers(layout: Path) -> str:
    row = {"mediaType": "x", "digest": sha(b""), "size": 0}
    image_of(layout, [row] * 90_000, configured([sha(SMALL)]))
    return "at most 1000 descriptors"


def arrays_of_other_things(layout: Path) -> str:
    config = {"Env": [["A=1"] * 10] * 1000, "Cmd": {"a": 1}}
    image_of(layout, [blob(layout, SMALL)], configured([sha(SMALL)], config=config))
    return "is not an array of strings"


def gzip_bomb(layout: Path) -> str:
    header = bytearray(tar_of([a_file("zeros")])[:512])
    header[124:136] = b"77777777777\0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data = gzip.compress(bytes(header) + bytes(64 << 20), 9)
    image_of(layout, [blob(layout, data)], configured([sha(SMALL)]))
    return "not a layer but a bomb"


def entries_without_end(layout: Path) -> str:
    members = [a_file(f"d{number % 7}/f", b"") for number in range(6_000)]
    image_of(layout, [blob(layout, tar_of(members))], configured([sha(SMALL)]))
    return "more than 5000 entries|replace earlier"


def way_out(layout: Path) -> str:
    members = [a_link("up", ".."), a_file("up/up/canary", b"dead"), a_file("../canary", b"dead")]
    image_of(layout, [blob(layout, tar_of(members))], configured([sha(SMALL)]))
    return 'a name with ".."'


def whiteout_of_the_root(layout: Path) -> str:
    members = [a_file(".wh..", b"")]
    image_of(layout, [blob(layout, tar_of(members))], configured([sha(SMALL)]))
    return "whiteout of a directory's own entry"


CASES = (
    lying_size, lying_digest, lying_diff_id, other_number, negative_size, digest_that_is_a_path,
    looping_index, index_of_itself, deep_document, large_document, million_layers,
    arrays_of_other_things, gzip_bomb, entries_without_end, way_out, whiteout_of_the_root,
)  # fmt: skip


@pytest.mark.parametrize("make", CASES, ids=[case.__name__ for case in CASES])
@pytest.mark.long
def test_it_is_refused(
    layout: Path, make: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Bounds that a test can reach; they are those of the real thing, made smaller.
    monkeypatch.setattr(streams, "_BOMB_FROM", 8 << 20)
    monkeypatch.setattr(unpack, "MAX_ENTRIES", 5_000)
    refused(layout, make(layout))


def test_what_can_be_defused_is(layout: Path) -> None:
    """Devices, set-id programs, pipes, links to everywhere: there, and harmless."""
    members = [
        a_directory("etc"),
        ("dev/mem", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 1}),
        a_file("bin/su", b"#!", mode=0o6755),
        ("pipe", {"type": tarfile.FIFOTYPE}),
        a_link("host", "/"),
        a_file("host/etc/passwd", b"root::0:0::/:/bin/sh\n"),
    ]
    data = tar_of(members)
    image_of(layout, [blob(layout, data)], configured([sha(data)]))
    store = Store(os.fspath(layout.parent / "store"))
    (lower,) = resolve(f"oci:{layout}", store=store).lowers
    assert Path(lower, "etc/passwd").read_text().startswith("root::")
    if os.geteuid():
        assert Path(lower, "bin/su").stat().st_mode & 0o6000 == 0
        assert not Path(lower, "dev/mem").exists()
    assert (layout.parent / "canary").read_text() == "alive"


@pytest.mark.long
def test_a_bomb_takes_no_memory(layout: Path) -> None:
    """A file of 512 MiB in half of one, with the bounds as they are: it comes out in pieces."""
    size = 512 << 20
    header = bytearray(tar_of([a_file("zeros")])[:512])
    header[124:136] = b"%011o\0" % size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    compressor, inner = zlib.compressobj(1, 8, 31), hashlib.sha256()
    parts = []
    for piece in (bytes(header), *[bytes(1 << 20)] * (size >> 20), bytes(1024)):
        inner.update(piece)
        parts.append(compressor.compress(piece))
    data = b"".join([*parts, compressor.flush()])
    digest = f"sha256:{inner.hexdigest()}"
    image_of(layout, [blob(layout, data)], configured([digest]))
    store = Store(os.fspath(layout.parent / "store"))
    resolve(f"oci:{layout}", store=store)
    # Who unpacks is a process of its own.
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10 < MOST_MEMORY


def test_zstd_is_read_without_python_knowing_it() -> None:
    """By the C library; frames one after the other, and never more than is asked for."""
    stream = codecs.ZstdStream()
    # 1 MiB of zeros, as zstd(1) packs it.
    frame = bytes.fromhex(
        "28b52ffd04585400001000000100fbff39c00202001000020010000200100002001000020010000200100003001000f13e16e1"
    )
    found = b""
    data = frame + b"after"
    while not stream.eof:
        piece = stream.decompress(data, 1000)
        assert len(piece) <= 1000
        found += piece
        data = b""
    assert (found, stream.unused_data) == (bytes(1 << 20), b"after")
    with pytest.raises(ValueError, match="not zstd data"):
        codecs.ZstdStream().decompress(b"\x28\xb5\x2f\xfd" + b"\xff" * 20, 1000)
