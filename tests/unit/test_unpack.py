"""Layers: what they hold comes out as it was, and what is hostile is refused or defused."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from roadstead.errors import ImageError
from roadstead.images import streams
from roadstead.images.model import Layer
from roadstead.images.streams import Blob
from roadstead.images.unpack import OPAQUE, unpack
from tests.support.layouts import Member, a_directory, a_file, a_link, tar_of


class Place:
    """Where a test unpacks: ``root``, with a canary beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = path / "root"
        self.root.mkdir()
        (path / "canary").write_text("alive")

    def unpack(self, data: bytes, **more: Any) -> Layer:
        source = self.path / "blob"
        source.write_bytes(data)
        fd = os.open(source, os.O_RDONLY)
        blob = Blob(fd, "layer", **more)
        try:
            return unpack(blob, os.fspath(self.root), "sha256:" + "0" * 64, keep_owners=False)
        finally:
            assert (self.path / "canary").read_text() == "alive"
            assert sorted(os.listdir(self.path)) == ["blob", "canary", "root"]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def is_whiteout(path: Path) -> bool:
    found = path.lstat()
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_is_in_a_layer_comes_out(place: Place, format: int) -> None:
    members = [
        a_directory("d", mode=0o555),
        a_file("d/f", b"hello" * 1000, mode=0o4750),
        a_file("./d/x", b"", mode=0o600),
        a_link("l", "/d/../../f"),
        a_link("h", "d/f", tarfile.LNKTYPE),
        ("p", {"type": tarfile.FIFOTYPE, "mode": 0o640}),
        ("null", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}),
        a_file("not/named/before", b"y"),
    ]
    if format != tarfile.USTAR_FORMAT:
        members.append(a_file("n" * 200 + "/" + "m" * 255, b"long"))
    layer = place.unpack(tar_of(members, format=format))
    root = place.root
    assert (root / "d/f").read_bytes() == b"hello" * 1000
    assert (root / "d/f").stat().st_ino == (root / "h").stat().st_ino
    assert [stat.filemode((root / each).lstat().st_mode) for each in ("d", "d/f", "d/x", "p")] == [
        "dr-xr-xr-x",
        "-rwxr-x---",  # set-id bits would make another user into this one
        "-rw-------",
        "prw-r-----",
    ]
    assert os.readlink(root / "l") == "/d/../../f"
    assert {(root / each).lstat().st_mtime for each in ("d", "d/f", "l", "p")} == {1e9}
    assert not (root / "null").exists()
    assert layer.altered == ("devices", "set-id bits")
    assert layer.entries == len(members)
    if format != tarfile.USTAR_FORMAT:
        assert (root / ("n" * 200) / ("m" * 255)).read_bytes() == b"long"


def test_later_entries_replace_earlier_ones(place: Place) -> None:
    place.unpack(
        tar_of(
            [
                a_file("a", b"1"),
                a_file("a", b"22"),
                a_directory("d"),
                a_file("d/x/y"),
                a_file("d", b"file"),
                a_file("e", b"file"),
                a_directory("e"),
                a_file("e/in"),
                a_directory("s"),
                a_file("s/in"),
                a_link("s", "e"),
            ]
        )
    )
    assert (place.root / "a").read_bytes() == b"22"
    assert (place.root / "d").read_bytes() == b"file"
    assert (place.root / "e/in").exists()
    assert os.readlink(place.root / "s") == "e"


def test_whiteouts_are_overlayfs_own(place: Place) -> None:
    layer = place.unpack(
        tar_of(
            [
                a_file("a/.wh.gone"),
                a_directory("b"),
                a_file("b/.wh..wh..opq"),
                a_file("b/new"),
                a_file(".wh.c"),  # and made anew: nothing of the one below is to be seen
                a_directory("c"),
                a_file("kept"),
                a_file(".wh.kept"),
                a_file(".wh..wh.plnk"),
            ]
        )
    )
    assert is_whiteout(place.root / "a/gone")
    for each in ("b", "c"):
        assert os.getxattr(place.root / each, OPAQUE) == b"y"
    assert (place.root / "kept").read_bytes() == b"x"
    assert sorted(os.listdir(place.root)) == ["a", "b", "c", "kept"]
    assert not layer.opaque


def test_an_opaque_root_is_told(place: Place) -> None:
    assert place.unpack(tar_of([a_file(".wh..wh..opq"), a_file("f")])).opaque


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        ([a_file("../canary", b"dead")], 'a name with ".."'),
        ([a_file("a/../../canary", b"dead")], 'a name with ".."'),
        ([a_link("h", "../canary", tarfile.LNKTYPE)], 'a name with ".."'),
        ([a_link("h", "nowhere", tarfile.LNKTYPE)], "which the layer does not have"),
        ([a_directory("d"), a_link("h", "d", tarfile.LNKTYPE)], "a directory"),
        ([a_link("h", ".", tarfile.LNKTYPE)], "hard link to the root"),
        ([a_link("a", "b"), a_link("b", "a"), a_file("a/x")], "circle of links"),
        ([a_link("a", "a/a/a"), a_file("a/x")], "circle of links"),
        ([a_file(".wh.")], "whiteout"),
        ([a_file(".wh..")], "whiteout"),
        ([a_file(".wh...")], "whiteout"),
        ([("q", {"type": b"Q"})], "unknown kind"),
        ([a_file("/".join(["n"] * 3000))], "more than 4096 characters"),
    ],
)
@pytest.mark.long
def test_hostile_entries_are_refused(place: Place, members: list[Member], sentence: str) -> None:
    with pytest.raises(ImageError, match=sentence):
        place.unpack(tar_of(members))


@pytest.mark.parametrize("target", ["..", "/", "../../..", "/..", "."])
def test_links_lead_to_nothing_outside(place: Place, target: str) -> None:
    place.unpack(tar_of([a_link("up", target), a_file("up/canary", b"dead")]))
    assert (place.root / "canary").read_bytes() == b"dead"


def test_an_absolute_name_is_below_the_root(place: Place) -> None:
    outside = os.fspath(place.path / "canary")
    place.unpack(tar_of([a_file(outside, b"dead")]))
    assert (place.root / outside[1:]).read_bytes() == b"dead"


def test_a_link_in_the_way_of_a_file_is_replaced(place: Place) -> None:
    outside = os.fspath(place.path / "canary")
    place.unpack(tar_of([a_link("f", outside), a_file("f", b"dead")]))
    assert (place.root / "f").read_bytes() == b"dead"


def test_a_hard_link_to_a_link_is_the_link(place: Place) -> None:
    outside = os.fspath(place.path / "canary")
    place.unpack(tar_of([a_link("l", outside), a_link("h", "l", tarfile.LNKTYPE), a_file("h")]))
    assert (place.root / "h").read_bytes() == b"x"


def test_devices_are_no_whiteouts_in_disguise(place: Place) -> None:
    layer = place.unpack(tar_of([("etc", {"type": tarfile.CHRTYPE, "devmajor": 0, "devminor": 0})]))
    assert os.listdir(place.root) == []
    assert layer.altered == ("devices",)


def test_attributes_of_overlayfs_are_dropped(place: Place) -> None:
    pax = {
        "SCHILY.xattr.user.overlay.redirect": "/etc",
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.user.kept": "yes",
    }
    layer = place.unpack(tar_of([a_file("f", pax_headers=pax), a_directory("d", pax_headers=pax)]))
    for each in ("f", "d"):
        assert os.listxattr(place.root / each) == ["user.kept"]
    assert layer.altered == ("attributes",)


# -- streams -----------------------------------------------------------------------------------

SMALL = tar_of([a_file("f", os.urandom(3 << 20))])


@pytest.mark.parametrize(
    "packed",
    [
        lambda data: data,
        gzip.compress,
        bz2.compress,
        lambda data: gzip.compress(data[:700_000]) + gzip.compress(data[700_000:]),
        lambda data: gzip.compress(data) + bytes(1000),
    ],
    ids=["none", "gzip", "bzip2", "members", "zeros"],
)
@pytest.mark.long
def test_compressions(place: Place, packed: Callable[[bytes], bytes]) -> None:
    data = packed(SMALL)
    digest, inner = (f"sha256:{hashlib.sha256(each).hexdigest()}" for each in (data, SMALL))
    layer = place.unpack(data, size=len(data), digest=digest, diff_id=inner)
    assert layer.compressed == len(data)
    assert (place.root / "f").stat().st_size == 3 << 20


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"digest": "sha256:" + "1" * 64}, "its digest is"),
        ({"diff_id": "sha256:" + "1" * 64}, "its content has the digest"),
        ({"size": 10 << 20}, "it ends after"),
        ({"size": 1000}, "damaged"),
    ],
)
@pytest.mark.long
def test_lies_are_found_out(place: Place, more: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ImageError, match=sentence):
        place.unpack(gzip.compress(SMALL), **more)


@pytest.mark.parametrize("data", [b"", b"x", bytes(511), b"x" * 512, gzip.compress(b"x" * 512)])
def test_what_is_not_a_layer(place: Place, data: bytes) -> None:
    with pytest.raises(ImageError, match="not a tar file"):
        place.unpack(data)


def test_a_cut_layer(place: Place) -> None:
    with pytest.raises(ImageError, match="ends in the middle"):
        place.unpack(SMALL[: 1 << 20])


def test_the_last_padding_may_be_missing(place: Place) -> None:
    """umoci leaves it out, and so do the two blocks of zeros."""
    data = tar_of([a_file("a", b"12345")])
    place.unpack(data[: 512 + 5])
    assert (place.root / "a").read_bytes() == b"12345"


def test_a_lying_size(place: Place) -> None:
    data = bytearray(tar_of([a_file("f", b"x")], format=tarfile.GNU_FORMAT))
    data[124:136] = b"\x80" + (1 << 70).to_bytes(11, "big")
    total = sum(data[:148]) + sum(data[156:512]) + 8 * 32
    data[148:156] = b"%06o\0 " % total
    with pytest.raises(ImageError, match="ends in the middle"):
        place.unpack(bytes(data))


@pytest.mark.long
def test_a_bomb_is_not_inflated_to_its_end(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_BOMB_FROM", 8 << 20)
    with pytest.raises(ImageError, match="a bomb"):
        place.unpack(gzip.compress(tar_of([a_file("f")]) + bytes(64 << 20)))


@pytest.mark.long
def test_sparse_files(place: Place, tmp_path_factory: pytest.TempPathFactory) -> None:
    import subprocess

    work = tmp_path_factory.mktemp("sparse")
    with open(work / "s", "wb") as file:
        for number in range(40):  # more than a header holds
            file.seek(number << 16)
            file.write(b"x" * 4096)
        file.truncate(100 << 20)
    expected = (work / "s").read_bytes()
    for form in (
        ["--format=gnu"],
        *(["--format=pax", f"--sparse-version={v}"] for v in ("0.0", "0.1", "1.0")),
    ):
        argv = ["tar", "-C", work, "--sparse", *form, "-cf", "-", "s"]
        data = subprocess.run(argv, check=True, capture_output=True).stdout
        place.unpack(data)
        found = place.root / "s"
        assert found.read_bytes() == expected, form
        assert found.stat().st_blocks < 2000
        found.unlink()
