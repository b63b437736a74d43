"""Reading squashfs and ext: what mksquashfs and mke2fs write comes back as it was, and what is
broken is refused without anything outside being touched."""

from __future__ import annotations

import os
import random
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from roadstead.errors import ImageError
from roadstead.images.ext import Ext
from roadstead.images.filesystem import Corrupt, FileSystem, extract
from roadstead.images.squashfs import Squashfs
from tests.support import diskimages
from tests.support.skips import needs

METHODS = ("gzip", "xz", "zstd", "lz4", "lzo", "lzma")
EXTS = {
    "ext4": ("-t", "ext4"),
    "ext4 without 64bit": ("-t", "ext4", "-O", "^64bit,^metadata_csum"),
    "ext3": ("-t", "ext3"),
    "ext2 of 1 KiB": ("-t", "ext2", "-b", "1024"),
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind of file that an image can have, and the cases that layouts depend on."""
    top = tmp_path_factory.mktemp("tree") / "tree"
    for name in ("etc", "bin", "a/b/c", "many"):
        (top / name).mkdir(parents=True)
    (top / "empty").touch()
    (top / "small").write_text("a few bytes\n")
    generator = random.Random(1)
    (top / "blocks").write_bytes(generator.randbytes(300_000))
    (top / "compressible").write_bytes(b"line\n" * 200_000)
    with (top / "sparse").open("wb") as file:
        file.truncate(5_000_000)
        file.seek(3_000_000)
        file.write(b"in the middle")
    (top / "a/b/c/hard").hardlink_to(top / "blocks")
    (top / "link").symlink_to("../../etc/passwd")
    (top / "long link").symlink_to("x" * 200)
    for number in range(600):
        (top / "many" / f"file {number}").write_text(str(number))
    (top / "na\u00efve \U0001f6a2").write_text("ship")
    (top / "bin/su").write_text("setuid")
    (top / "bin/su").chmod(0o4755)
    (top / "etc/shadow").write_text("secret")
    (top / "etc/shadow").chmod(0)
    (top / "a").chmod(0o555)
    os.mkfifo(top / "pipe")
    return top


@contextmanager
def opened(path: Path) -> Iterator[FileSystem]:
    fd = os.open(path, os.O_RDONLY)
    try:
        is_ext = os.pread(fd, 2, 1080) == b"\x53\xef"
        yield (Ext if is_ext else Squashfs)(fd, 0, os.fstat(fd).st_size, "the image")
    finally:
        os.close(fd)


def unpacked(path: Path, target: Path) -> Path:
    target.mkdir()
    with opened(path) as image:
        extract(image, str(target), what="the image")
    return target


def look(top: Path) -> dict[str, tuple[object, ...]]:
    """All of a tree that must survive; modes and owners apart, which depend on who unpacks."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(top.rglob("*")):
        seen = path.lstat()
        kind = stat.S_IFMT(seen.st_mode)
        content: object = ""
        if stat.S_ISREG(kind):
            content = path.read_bytes()
        elif stat.S_ISLNK(kind):
            content = os.readlink(path)
        links = 1 if stat.S_ISDIR(kind) else seen.st_nlink
        found[str(path.relative_to(top))] = (kind, content, links, int(seen.st_mtime))
    return found


def modes(top: Path) -> dict[str, int]:
    return {
        str(path.relative_to(top)): stat.S_IMODE(path.lstat().st_mode)
        for path in top.rglob("*")
        if not path.is_symlink()
    }


@needs("squashfs-tools")
@pytest.mark.parametrize("method", METHODS)
def test_a_squashfs_comes_back_as_it_was(tree: Path, tmp_path: Path, method: str) -> None:
    made = diskimages.squashfs(tree, tmp_path / "i", "-comp", method)
    assert look(unpacked(made, tmp_path / "o")) == look(tree)


@needs("squashfs-tools")
@pytest.mark.parametrize(
    "options",
    [("-noI", "-noD", "-noF"), ("-no-fragments",), ("-b", "4096"), ("-always-use-fragments",)],
)
def test_a_squashfs_of_another_layout(tree: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    made = diskimages.squashfs(tree, tmp_path / "i", *options)
    assert look(unpacked(made, tmp_path / "o")) == look(tree)


@needs("e2fsprogs")
@pytest.mark.parametrize("options", EXTS.values(), ids=EXTS.keys())
def test_an_ext_comes_back_as_it_was(tree: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    made = diskimages.ext(tree, tmp_path / "i", *options)
    assert look(unpacked(made, tmp_path / "o")) == look(tree)


@needs("squashfs-tools")
def test_modes_stay_and_holes_are_holes(tree: Path, tmp_path: Path) -> None:
    made = unpacked(diskimages.squashfs(tree, tmp_path / "i"), tmp_path / "o")
    found, expected = modes(made), modes(tree)
    set_id = 0o4755 if os.geteuid() == 0 else 0o755
    assert found.pop("bin/su") == set_id
    expected.pop("bin/su")
    # Their owner can read every file, and remove what is in every directory.
    assert found == expected | {"etc/shadow": 0o400, "a": 0o755}
    assert (made / "sparse").stat().st_blocks < 1000


@needs("squashfs-tools")
def test_a_part_of_a_file(tree: Path, tmp_path: Path) -> None:
    """As in a SIF: the file system begins somewhere, and may not read beyond its end."""
    inner = diskimages.squashfs(tree, tmp_path / "i").read_bytes()
    (tmp_path / "outer").write_bytes(b"x" * 512 + inner + b"beyond")
    fd = os.open(tmp_path / "outer", os.O_RDONLY)
    (tmp_path / "o").mkdir()
    try:
        image = Squashfs(fd, 512, len(inner), "the image")
        extract(image, str(tmp_path / "o"), what="the image")
        with pytest.raises(Corrupt, match="cut off"):
            Squashfs(fd, 512, 4096, "the image")
    finally:
        os.close(fd)
    assert look(tmp_path / "o") == look(tree)


# -- broken and hostile --------------------------------------------------------------------------


def broken(data: bytes, seed: int) -> bytes:
    """Some bytes changed, or a part cut off."""
    generator = random.Random(seed)
    changed = bytearray(data)
    if seed % 5 == 0:
        return bytes(changed[: generator.randrange(96, len(changed))])
    for _ in range(1 << seed % 6):
        # Tables are at the end of a squashfs and at the start of an ext.
        at = generator.choice([0, 1024, len(data) - 2048]) + generator.randrange(2048)
        at = at if seed % 2 else generator.randrange(len(data))
        changed[at % len(changed)] = generator.randrange(256)
    return bytes(changed)


@pytest.mark.parametrize("kind", ["squashfs", "ext"])
@needs("squashfs-tools", "e2fsprogs")
def test_broken_images_are_refused_or_read(tmp_path: Path, kind: str) -> None:
    """Never anything but an ImageError, and nothing outside of the directory."""
    small = tmp_path / "tree"
    (small / "d").mkdir(parents=True)
    (small / "d/file").write_text("content " * 5000)
    (small / "d/link").symlink_to("file")
    made = (
        diskimages.squashfs(small, tmp_path / "i")
        if kind == "squashfs"
        else diskimages.ext(small, tmp_path / "i", "-t", "ext4", "-O", "^has_journal", mib=1)
    )
    data = made.read_bytes()
    refused = 0
    for seed in range(150):
        (tmp_path / "b").write_bytes(broken(data, seed))
        target = tmp_path / f"o{seed}"
        try:
            unpacked(tmp_path / "b", target)
        except (ImageError, Corrupt):
            refused += 1
    assert refused > 20
    # All that there is are the images and the directories that were unpacked to.
    assert {path.name.rstrip("0123456789") for path in tmp_path.iterdir()} == {
        "i",
        "b",
        "o",
        "tree",
    }


@needs("e2fsprogs")
def test_what_an_ext_has_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    made = diskimages.ext(tmp_path / "tree", tmp_path / "i", "-t", "ext4", "-O", "inline_data")
    with pytest.raises(ImageError, match="inline_data"), opened(made):
        pass
    data = bytearray(diskimages.ext(tmp_path / "tree", tmp_path / "j", "-t", "ext4").read_bytes())
    (needs_,) = struct.unpack_from("<I", data, 1024 + 96)
    struct.pack_into("<I", data, 1024 + 96, needs_ | 4)
    (tmp_path / "j").write_bytes(data)
    with pytest.raises(ImageError, match="was not unmounted"), opened(tmp_path / "j"):
        pass
