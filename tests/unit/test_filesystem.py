"""Writing out a file system that says what its author likes: nothing gets out of the directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from roadstead.errors import ImageError
from roadstead.images.filesystem import Node, extract, survey


class Invented:
    """A file system that says what its author likes."""

    def __init__(self, tree: dict[int, list[tuple[bytes, Node]]], data: list[bytes | int]) -> None:
        self.tree, self.data = tree, data

    def root(self) -> Node:
        return node("directory", 1)

    def entries(self, directory: Node) -> list[tuple[bytes, Node]]:
        return self.tree[directory.number]

    def target(self, link: Node) -> bytes:
        return b"/etc" if link.size else b""

    def chunks(self, file: Node) -> Iterator[bytes | int]:
        yield from self.data


def node(kind: str, number: int, size: int = 4, links: int = 1, stored: int = -1) -> Node:
    stored = size if stored < 0 else stored
    return Node(kind, number, links, 0o755, (0, 0), 0, size, stored, None)  # type: ignore[arg-type]


FILE, LINK, DIRECTORY = node("file", 2), node("link", 3), node("directory", 4)
HOSTILE = {
    "a name that leads up": {1: [(b"..", FILE)]},
    "a name with a slash": {1: [(b"../escaped", FILE)]},
    "an absolute name": {1: [(b"/tmp/escaped", FILE)]},
    "a name with a zero byte": {1: [(b"a\0b", FILE)]},
    "no name": {1: [(b"", FILE)]},
    "a link, then a directory of that name": {1: [(b"x", LINK), (b"x", DIRECTORY)], 4: []},
    "a link, then a file of that name": {1: [(b"x", LINK), (b"x", FILE)]},
    "a tree that contains itself": {1: [(b"x", DIRECTORY)], 4: [(b"y", node("directory", 1))]},
    "a directory in two places": {1: [(b"x", DIRECTORY), (b"y", DIRECTORY)], 4: []},
    "a file that is longer than it says": {1: [(b"x", node("file", 2, size=3))]},
    "a file that is shorter than it says": {1: [(b"x", node("file", 2, size=9))]},
    "a link to nothing": {1: [(b"x", node("link", 3, size=0))]},
    "a chain of 300 directories": {
        number: [(b"d", node("directory", number + 1))] for number in range(1, 300)
    },
}


@pytest.mark.parametrize("tree_", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_trees_are_refused(
    tmp_path: Path, tree_: dict[int, list[tuple[bytes, Node]]]
) -> None:
    target = tmp_path / "a" / "target"
    target.mkdir(parents=True)
    with pytest.raises(ImageError, match="the image is broken: "):
        extract(Invented(tree_, [b"four"]), str(target), what="the image")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["target"]


def test_more_than_the_disk_holds(tmp_path: Path) -> None:
    image = Invented({1: [(b"x", node("file", 2, size=1 << 60))]}, [])
    with pytest.raises(ImageError, match="no space left where the image store is"):
        extract(image, str(tmp_path), what="the image")
    assert list(tmp_path.iterdir()) == []


def test_a_hard_link_is_counted_once() -> None:
    twice = node("file", 2, size=100, links=2)
    assert survey(Invented({1: [(b"a", twice), (b"b", twice)]}, [])).stored == 100


def test_devices_are_left_out(tmp_path: Path) -> None:
    found = extract(Invented({1: [(b"x", node("device", 2))]}, []), str(tmp_path), what="")
    assert found.altered == {"devices"}
    assert list(tmp_path.iterdir()) == []
