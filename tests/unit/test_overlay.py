"""Layers over layers: mounted, and copied where they cannot be."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from roadstead.errors import RuntimeFailure
from roadstead.host import files, flatten, namespaces, overlay


def in_a_namespace(body: Callable[[], str]) -> str:
    """What ``body`` returns in a child with a namespace of its own; or the error, or a skip."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        said = "failed"
        try:
            namespaces.enter(ranges=None, hide_unified=False)
            said = body()
        except (RuntimeFailure, OSError) as error:
            said = f"{type(error).__name__}: {error}"
        finally:
            os.write(write, said.encode())
            os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    with open(read, encoding="utf-8") as pipe:
        said = pipe.read()
    if "does not allow user namespaces" in said:
        pytest.skip(said)
    return said


def whiteout(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(0, 0))
    except PermissionError:
        pytest.skip("no whiteouts on this kernel (before 5.8)")


def make_layers(top: Path) -> list[str]:
    """Two layers: what the upper one takes away, replaces and adds."""
    low, high = top / "low", top / "high"
    (low / "kept/deep").mkdir(parents=True)
    (low / "emptied").mkdir()
    (low / "becomes-file").mkdir()
    (low / "becomes-file/x").write_text("x")
    (low / "gone-tree").mkdir()
    (low / "gone-tree/x").write_text("x")
    for name in ("gone", "emptied/old", "kept/file", "kept/deep/file", "becomes-dir"):
        (low / name).write_text(f"low {name}")
    (low / "link").symlink_to("/etc")
    os.link(low / "kept/file", low / "kept/twin")
    high.mkdir()
    for name in ("emptied", "kept", "becomes-dir", "link"):
        (high / name).mkdir()
    (high / "emptied/new").write_text("high")
    (high / "link/inside").write_text("not in /etc")
    (high / "kept/file").write_text("high")
    (high / "kept/file").chmod(0o4751)
    (high / "becomes-file").write_text("high")
    for name in ("gone", "gone-tree"):
        whiteout(high / name)
    os.setxattr(high / "emptied", "user.overlay.opaque", b"y")
    (low / "kept").chmod(0o555)
    return [os.fspath(low), os.fspath(high)]


def listing(top: str) -> list[str]:
    """Every name with its kind, its mode where that is the layer's, and what is in a file."""
    found = []
    for folder, directories, names in os.walk(top):
        for name in directories + names:
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            text = "" if not stat.S_ISREG(mode) else Path(path).read_text()
            found.append(f"{path[len(top) :]} {stat.filemode(mode)} {text}")
    return sorted(found)


def test_a_copy_is_what_an_overlay_shows(tmp_path: Path) -> None:
    layers = make_layers(tmp_path)
    scratch, copied = tmp_path / "scratch", tmp_path / "copied"
    scratch.mkdir()
    copied.mkdir()

    def mounted() -> str:
        merged, why = overlay.private_layer(layers, os.fspath(scratch))
        return why or "\n".join(listing(merged))

    flatten.copy(layers, os.fspath(copied))
    assert "\n".join(listing(os.fspath(copied))) == in_a_namespace(mounted)
    assert not Path("/etc/inside").exists()
    assert (copied / "kept/deep/file").read_text() == "low kept/deep/file"


def test_a_copy_keeps_links_holes_and_attributes(tmp_path: Path) -> None:
    low, copied = tmp_path / "low", tmp_path / "copied"
    low.mkdir()
    copied.mkdir()
    (low / "one").write_text("x")
    os.link(low / "one", low / "two")
    os.setxattr(low / "one", "user.mine", b"kept")
    os.utime(low / "one", ns=(5, 7_000_000_000))
    os.mkfifo(low / "pipe")
    flatten.copy([os.fspath(low)], os.fspath(copied))
    assert (copied / "one").stat().st_ino == (copied / "two").stat().st_ino
    assert os.getxattr(copied / "two", "user.mine") == b"kept"
    assert (copied / "one").stat().st_mtime_ns == 7_000_000_000
    assert stat.S_ISFIFO((copied / "pipe").lstat().st_mode)


def test_more_layers_than_a_page_of_options_has_room_for(tmp_path: Path) -> None:
    scratch = tmp_path / "s,c:r\\"
    scratch.mkdir()
    layers = []
    for number in range(128):
        layer = tmp_path / f"{number:-<80}" / "root, of: a\\layer"
        layer.mkdir(parents=True)
        (layer / "top").write_text(str(number))
        (layer / f"of-{number}").write_text("x")
        layers.append(os.fspath(layer))
    here = os.getcwd()

    def body() -> str:
        merged, why = overlay.private_layer(layers, os.fspath(scratch))
        assert os.getcwd() == here
        return why or f"{Path(merged, 'top').read_text()} {len(os.listdir(merged))}"

    assert in_a_namespace(body) == "127 129"


def test_what_was_removed_and_made_anew_is_empty(tmp_path: Path) -> None:
    low, scratch = tmp_path / "low", tmp_path / "scratch"
    (low / "d").mkdir(parents=True)
    (low / "d/old").write_text("x")
    scratch.mkdir()

    def body() -> str:
        merged, _ = overlay.private_layer([os.fspath(low)], os.fspath(scratch))
        files.remove_tree(f"{merged}/d")
        os.mkdir(f"{merged}/d")
        return " ".join(os.listdir(f"{merged}/d")) or "empty"

    assert in_a_namespace(body) == "empty"
    assert (low / "d/old").exists()


def test_the_root_has_the_mode_of_the_uppermost_layer(tmp_path: Path) -> None:
    low, scratch = tmp_path / "low", tmp_path / "scratch"
    low.mkdir(mode=0o711)
    scratch.mkdir()

    def body() -> str:
        merged, _ = overlay.private_layer([os.fspath(low)], os.fspath(scratch))
        return oct(os.stat(merged).st_mode & 0o7777)

    assert in_a_namespace(body) == "0o711"
