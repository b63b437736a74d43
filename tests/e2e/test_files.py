"""Files and directories that are no layered images, through the one entry that everybody uses."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from roadstead.errors import ImageError
from roadstead.images.resolve import own_platform, resolve
from roadstead.images.store import Store
from tests.support import diskimages, sif
from tests.support.skips import needs

ARCHITECTURE = sif.ARM64 if own_platform() == "linux/arm64" else sif.AMD64
OTHER = sif.AMD64 if ARCHITECTURE == sif.ARM64 else sif.ARM64


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    top = tmp_path / "rootfs"
    for name in ("bin", "etc", "usr"):
        (top / name).mkdir(parents=True)
    (top / "etc/os-release").write_text("NAME=test\n")
    return top


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def tar(rootfs: Path, file: Path, *options: str) -> Path:
    subprocess.run(["tar", *options, "-C", rootfs, "-cf", file, "."], check=True)
    return file


@needs("squashfs-tools", "e2fsprogs")
@pytest.mark.parametrize("kind", ["squashfs", "sqsh:", "ext", "sif:", "sif", "tar", "tarball:"])
def test_a_file_becomes_a_layer_once(rootfs: Path, tmp_path: Path, store: Store, kind: str) -> None:
    file = tmp_path / "image"
    if kind in ("squashfs", "sqsh:"):
        diskimages.squashfs(rootfs, file, "-comp", "lzo")
    elif kind == "ext":
        diskimages.ext(rootfs, file, "-t", "ext3")
    elif kind in ("sif", "sif:"):
        inner = diskimages.squashfs(rootfs, tmp_path / "inner").read_bytes()
        sif.write(file, [sif.partition(inner, architecture=ARCHITECTURE)])
    else:
        tar(rootfs, file, *(["-z"] if kind == "tar" else []))
    reference = f"{kind}{file}" if kind.endswith(":") else str(file)
    image = resolve(reference, store=store)
    (lower,) = image.lowers
    assert (Path(lower) / "etc/os-release").read_text() == "NAME=test\n"
    assert resolve(reference, store=store) == image
    assert store.load(image.digest).lowers == image.lowers
    assert len(os.listdir(f"{store.path}/layers")) == 1
    assert os.listdir(f"{store.path}/work") == []


def test_a_directory_is_used_where_it_is(rootfs: Path, store: Store) -> None:
    (rootfs / "ch").mkdir()
    (rootfs / "ch/metadata.json").write_text(json.dumps({"env": {"A": "1"}, "cwd": "/usr"}))
    image = resolve(str(rootfs), store=store)
    assert image.lowers == (str(rootfs),)
    assert (image.config.env, image.config.workdir) == (("A=1",), "/usr")


@needs("squashfs-tools")
def test_what_is_refused_leaves_nothing(rootfs: Path, tmp_path: Path, store: Store) -> None:
    good = diskimages.squashfs(rootfs, tmp_path / "good").read_bytes()
    files = {
        "cut": (good[:200], "is broken: "),
        "other": (sif.sif([sif.partition(good, architecture=OTHER)]), "is for linux/"),
    }
    for name, (data, said) in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ImageError, match=said):
            resolve(str(tmp_path / name), store=store)
    with pytest.raises(ImageError, match="is not a SIF file"):
        resolve(f"sif:{tmp_path}/good", store=store)
    with tarfile.open(tmp_path / "top.tar", "w") as archive:
        archive.add(rootfs, "some/where")
    with pytest.raises(ImageError, match="holds no root file system"):
        resolve(f"tarball:{tmp_path}/top.tar", store=store)
    assert os.listdir(f"{store.path}/layers") == []
    assert os.listdir(f"{store.path}/work") == []


def test_a_reference_that_is_a_file_as_well_is_refused(tmp_path: Path, store: Store) -> None:
    (tmp_path / "oci:app").write_text("a file")
    with pytest.raises(ImageError, match=r"oci:app could be .* write \./oci:app"):
        resolve("oci:app", store=store, cwd=str(tmp_path))
