"""What a path leads to is seen from what is in it."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from roadstead.errors import ImageError
from roadstead.images.recognise import ambiguity, recognise
from tests.support import sif

HEX = "0123456789abcdef" * 4


def tar(names: Iterable[str]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    return made.getvalue()


FILES = {
    "a SIF": (sif.sif([sif.partition(b"x")]), "sif"),
    "a squashfs": (b"hsqs" + bytes(92), "squashfs"),
    "an ext": (bytes(1080) + b"\x53\xef" + bytes(2000), "ext"),
    "a root file system": (tar(["./", "./bin", "./etc"]), "tarball"),
    "one without dots": (tar(["usr/bin/sh"]), "tarball"),
    "a compressed one": (gzip.compress(tar(["bin/", "etc/"])), "tarball"),
    "an old docker save": (tar([f"{HEX}/", f"{HEX}/layer.tar", "manifest.json"]), "docker-archive"),
    "podman save": (tar([f"{HEX}.tar", f"{HEX}.json", "manifest.json"]), "docker-archive"),
    "an OCI archive": (tar(["blobs/sha256/x", "index.json", "oci-layout"]), "oci-archive"),
    "one of many layers": (
        tar([*(f"blobs/sha256/{number}" for number in range(100)), "oci-layout"]),
        "oci-archive",
    ),
}


@pytest.mark.parametrize(("data", "kind"), FILES.values(), ids=FILES.keys())
def test_files(tmp_path: Path, data: bytes, kind: str) -> None:
    (tmp_path / "named.txt").write_bytes(data)
    assert recognise(str(tmp_path / "named.txt")) == kind


DIRECTORIES = {
    "a bundle": ({"config.json": '{"root": {"path": "rootfs"}}', "rootfs/bin/sh": ""}, "bundle"),
    "a bundle with bad JSON": ({"config.json": "{"}, "bundle"),
    "umoci's bundle in its layout": (
        {"config.json": "{}", "oci-layout": "{}", "index.json": "{}"},
        "bundle",
    ),
    "a root file system": ({"bin/sh": "", "etc/passwd": ""}, "rootfs"),
    "Charliecloud's": ({"ch/environment": "", "bin/sh": ""}, "rootfs"),
    "a sandbox": ({".singularity.d/runscript": ""}, "rootfs"),
    "udocker's": ({"container.json": "{}", "ROOT/bin/sh": ""}, "udocker"),
    "an image's config beside a root": (
        {"config.json": '{"rootfs": {"type": "layers"}}', "bin/sh": "", "etc/x": ""},
        "rootfs",
    ),
    "an OCI layout": ({"oci-layout": "{}"}, "oci"),
    "skopeo's dir": ({"manifest.json": "{}", "version": "1"}, "dir"),
}


@pytest.mark.parametrize(("files", "kind"), DIRECTORIES.values(), ids=DIRECTORIES.keys())
def test_directories(tmp_path: Path, files: dict[str, str], kind: str) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert recognise(str(tmp_path)) == kind


OTHERS = {
    "nothing": (b"", "is an empty file"),
    "a script": (b"#!/bin/sh\n", "is no image; it is a script"),
    "a program": (b"\x7fELF" + bytes(100), "is no image; it is a program"),
    "a JSON document": (b'{"a": 1}', "is no image; it is a JSON document"),
    "bytes": (b"\1\2\3", "is no image"),
    "an empty tar file": (bytes(10240), "is no image"),
    "gzip that is no tar file": (gzip.compress(b"hello"), "is a broken tar file: "),
    "gzip that is cut off": (
        gzip.compress(tar([f"{HEX}/{n}" for n in range(99)]))[:60],
        "is a broken tar file: ",
    ),
}


@pytest.mark.parametrize(("data", "said"), OTHERS.values(), ids=OTHERS.keys())
def test_what_is_no_image(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "it").write_bytes(data)
    with pytest.raises(ImageError, match=said):
        recognise(str(tmp_path / "it"))


def test_a_directory_that_holds_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "rootfs/bin").mkdir(parents=True)
    with pytest.raises(ImageError, match="is no image") as refused:
        recognise(str(tmp_path))
    assert refused.value.hint == f"name {tmp_path}/rootfs"


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="does not exist") as refused:
        recognise(str(tmp_path / "it"))
    assert "docker://" in refused.value.hint
    (tmp_path / "layout").mkdir()
    with pytest.raises(ImageError, match="does not exist") as refused:
        recognise(str(tmp_path / "layout:v1"))
    assert f"oci:{tmp_path}/layout:v1" in refused.value.hint


def test_a_name_that_could_be_both() -> None:
    assert ambiguity("oci:app", False) == ""
    assert ambiguity("oci:app", True) == (
        "oci:app could be a file of that name or, with the transport oci, app; "
        "write ./oci:app for the file"
    )
