"""Directories that others could exchange, and directories that a container has filled."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from roadstead.core.printable import printable
from roadstead.errors import EngineError
from roadstead.host import files, paths


def test_a_directory_below_one_that_everybody_can_write_to(tmp_path: Path) -> None:
    above = tmp_path / "above"
    (above / "between").mkdir(parents=True, mode=0o700)
    place = os.fspath(above / "between" / "ours")
    above.chmod(0o777)
    with pytest.raises(EngineError, match=f"everybody may rename what is in {above}"):
        paths.make_private(place)
    above.chmod(0o1777)
    paths.make_private(place)
    above.chmod(0o775)  # a group of the user's own
    paths.make_private(place)
    above.chmod(0o755)


def test_a_way_over_links_is_judged_by_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to("open")
    with pytest.raises(EngineError, match="everybody may rename"):
        paths.make_private(os.fspath(tmp_path / "link" / "ours"))


def test_a_strangers_directory_is_told_from_ours(tmp_path: Path) -> None:
    assert paths.exchangeable(os.fspath(tmp_path / "not" / "there"), by_owners=True) == ""
    if os.geteuid():
        pytest.skip("needs root to give a directory away")
    (tmp_path / "theirs").mkdir(mode=0o755)
    os.chown(tmp_path / "theirs", 4242, 4242)
    place = os.fspath(tmp_path / "theirs" / "ours")
    assert "belongs to uid 4242" in paths.exchangeable(place, by_owners=True)
    assert paths.exchangeable(place) == ""


def test_no_umask_opens_what_is_made(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        paths.make_private(os.fspath(tmp_path / "a" / "b" / "c"))
        assert os.umask(0) == 0, "the umask is as it was"
    finally:
        os.umask(old)
    for name in ("a", "a/b", "a/b/c"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("depth", [3000])
@pytest.mark.long
def test_a_tree_of_any_depth_is_removed(tmp_path: Path, depth: int) -> None:
    """Without recursion, and with few descriptors."""
    top = tmp_path / "top"
    top.mkdir()
    fd = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=fd)
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, hard))
    try:
        files.remove_tree(os.fspath(top))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not top.exists()


def test_closed_directories_odd_names_and_links_are_removed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o750)
    (outside / "kept").touch()
    top = tmp_path / "top"
    for name in ("a/b/c", "a/\n", "a/ b", "a/-rf"):
        (top / name).mkdir(parents=True)
    for link in ("link", "a/link", "a/b/link"):
        (top / link).symlink_to(outside)
    (top / "a" / "b" / "c").chmod(0)
    (top / "a" / "b").chmod(0o500)
    (top / "a").chmod(0)
    files.remove_tree(os.fspath(top))
    assert not top.exists()
    assert (outside / "kept").exists()
    assert outside.stat().st_mode & 0o777 == 0o750, "no mode was changed through a link"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 漢 👩", "plain é 漢 👩"),
        ("tab\there", "tab\there"),
        ("caf\udce9", "caf\udce9"),
        ("\x1b]0;title\x07", "?]0;title?"),
        ("a\nb\rc\x00\x7f", "a?b?c??"),
        ("\x9b2J", "?2J"),
        ("\udc9b2J", "?2J"),
        ("gpj.\u202eexe\u2066\u2029", "gpj.?exe??"),
    ],
)
def test_text_on_a_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown
