"""Looking a command up inside a root file system, without being inside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from roadstead.errors import CommandNotFound, CommandNotRunnable
from roadstead.oci.lookup import DEFAULT_PATH, View, check_command


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "rootfs"
    for name in ("usr/bin", "etc", "opt", "tmp"):
        (root / name).mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    (root / "usr/bin/prog").write_text("#!/bin/sh\n")
    (root / "usr/bin/prog").chmod(0o755)
    (root / "usr/bin/abs").symlink_to("/usr/bin/prog")
    (root / "usr/bin/up").symlink_to("../../../../../../usr/bin/prog")
    (root / "usr/bin/loop").symlink_to("loop")
    (root / "usr/bin/host").symlink_to(f"{tmp_path}/outside")
    (tmp_path / "outside").write_text("")
    (tmp_path / "outside").chmod(0o755)
    (root / "etc/passwd").write_text("")
    return root


def view(root: Path, *mounts: dict[str, object]) -> View:
    return View.of(os.fspath(root), os.fspath(root.parent), list(mounts))


@pytest.mark.parametrize("command", ["prog", "/bin/prog", "abs", "up", "usr/bin/prog"])
def test_found(root: Path, command: str) -> None:
    check_command(view(root), command, path=DEFAULT_PATH, cwd="/")
    assert Path(view(root).resolve("/bin/up")) == root / "usr/bin/prog"


@pytest.mark.parametrize("command", ["nosuch", "/nosuch", "loop", "host", "./prog", ""])
def test_not_found(root: Path, command: str) -> None:
    with pytest.raises(CommandNotFound) as raised:
        check_command(view(root), command, path=DEFAULT_PATH, cwd="/")
    assert raised.value.exit_code == 127


@pytest.mark.parametrize("command", ["/etc/passwd", "/etc"])
def test_not_executable(root: Path, command: str) -> None:
    with pytest.raises(CommandNotRunnable) as raised:
        check_command(view(root), command, path=DEFAULT_PATH, cwd="/")
    assert raised.value.exit_code == 126


def test_a_bind_mount_hides_and_provides(root: Path, tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/tool").write_text("")
    (tmp_path / "tools/tool").chmod(0o755)
    bind = {"destination": "/opt", "type": "bind", "source": f"{tmp_path}/tools"}
    check_command(view(root, bind), "/opt/tool", path="", cwd="/")
    with pytest.raises(CommandNotFound):
        check_command(view(root), "/opt/tool", path="", cwd="/")
    relative = {"destination": "/opt/", "type": "none", "options": ["rbind"], "source": "tools"}
    check_command(view(root, relative), "/opt/tool", path="", cwd="/")


def test_what_cannot_be_known_is_left_to_the_runtime(root: Path) -> None:
    tmpfs = {"destination": "/tmp", "type": "tmpfs"}
    assert view(root, tmpfs).is_directory("/tmp/x") is None
    check_command(view(root, tmpfs), "/tmp/x", path="", cwd="/")
    assert view(root).is_directory("/etc") is True
    assert view(root).is_directory("/nosuch") is False


def test_what_is_above_a_mount_is_made_by_the_runtime(tmp_path: Path) -> None:
    rootfs, host = tmp_path / "rootfs", tmp_path / "host"
    rootfs.mkdir()
    (host / "bin").mkdir(parents=True)
    program = host / "bin" / "x"
    program.write_text("")
    program.chmod(0o755)
    mounts = [{"destination": "/a/b/c", "type": "bind", "source": str(host)}]
    view = View.of(str(rootfs), str(tmp_path), mounts)
    assert view.resolve("/a/b/c/bin/x") == str(program)
    check_command(view, "/a/b/c/bin/x", path="/bin", cwd="/")
    with pytest.raises(CommandNotFound):
        check_command(view, "/a/bin/x", path="/bin", cwd="/")
