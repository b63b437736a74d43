"""Container systems: the table, mount points in strange roots, and arguments that say no secret."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from roadstead import systems
from roadstead.errors import RuntimeFailure
from roadstead.host import inside
from roadstead.systems import Container, Mount
from tests.support.components import ROOT
from tests.support.systems import FAKES, INSTALLED


@pytest.mark.parametrize("name", systems.TABLE)
def test_a_row_is_complete(name: str) -> None:
    made = systems.find(name, {})
    assert made.name == name
    assert made.programs
    assert made.package


def _rows() -> list[list[str]]:
    """The table of docs/systems.md that has a row a system, without its head."""
    text = (ROOT / "docs/systems.md").read_text()
    table = text.partition("| system | (i)")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()[2:]]


def test_the_documented_rows_are_the_members() -> None:
    told = {name for row in _rows() for name in re.findall(r"`([a-z]+)`", row[2].partition(":")[0])}
    assert told == set(systems.TABLE)
    assert all(len(row) == 5 and all(row) for row in _rows())


def test_a_documented_row_says_how_its_system_is_tested() -> None:
    for row in _rows():
        for name in re.findall(r"`([a-z]+)`", row[2].partition(":")[0]):
            is_real = name in INSTALLED
            assert is_real or f"fake-{name}" in FAKES, name
            assert row[4].startswith("the real one, " if is_real else "a fake "), name


@pytest.mark.parametrize("name", systems.TABLE)
def test_the_images_it_runs_by_name_are_documented(name: str) -> None:
    row = next(row for row in _rows() if f"`{name}`" in row[2].partition(":")[0])
    for transport in systems.find(name, {}).own:
        assert f"`{transport}:" in row[1], transport


def test_a_name_that_nobody_has() -> None:
    with pytest.raises(RuntimeFailure, match="no such container system") as caught:
        systems.find("nobody", {})
    assert "charliecloud" in caught.value.hint


@pytest.mark.parametrize("name", sorted(set(systems.TABLE) - {"podman"}))
def test_no_variable_is_in_argv(name: str, tmp_path: Path) -> None:
    made = systems.find(name, {})
    container = Container(
        name="n.u.1.0.0", args=("app", "--flag"), directory=f"{tmp_path}", cwd="/work",
        env={"PATH": "/bin", "TOKEN": "very secret"}, rootfs=f"{tmp_path}/root" * made.takes_root,
        image="box" * (not made.takes_root), mounts=(Mount("/data", "/data"),),
    )  # fmt: skip
    start = made.start("/usr/bin/program", container)
    words = " ".join(start.argv)
    assert "very secret" not in words
    assert "/data" in words or name == "bubblewrap"  # whose words are in a file
    assert start.argv[-1] == "--flag"


@pytest.mark.parametrize(
    ("links", "path", "made"),
    [
        ({}, "/a/b", "a/b"),
        ({"a": "/etc"}, "/a/b", "etc/b"),
        ({"a": "../../../x"}, "/a/b", "x/b"),
        ({"a": "b", "b": "/c/d"}, "/a/e", "c/d/e"),
    ],
)
@pytest.mark.parametrize("is_directory", [True, False])
def test_a_mount_point_is_made_in_the_root(
    tmp_path: Path, links: dict[str, str], path: str, made: str, is_directory: bool
) -> None:
    root = tmp_path / "deep/root"
    root.mkdir(parents=True)
    for name, target in links.items():
        (root / name).symlink_to(target)
    inside.make(f"{root}", path, is_directory=is_directory)
    assert (root / made).is_dir() == is_directory
    assert (root / made).exists()
    assert sorted(os.listdir(tmp_path)) == ["deep"]
    inside.make(f"{root}", path, is_directory=is_directory)  # what is there is left alone


def test_a_mount_point_in_a_circle_of_links(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="Too many levels"):
        inside.make(f"{tmp_path}", "/a/x", is_directory=True)
