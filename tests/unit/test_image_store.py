"""The store: what is complete is believed, what is not goes, and one of many does the work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from roadstead.errors import ImageError
from roadstead.host import fork
from roadstead.images import pins
from roadstead.images.model import ImageConfig, Layer, Record
from roadstead.images.reference import parse
from roadstead.images.store import Store

LAYER, OTHER, IMAGE = (f"sha256:{digit * 64}" for digit in "abc")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(os.fspath(tmp_path / "images"))


def filled(directory: str) -> Layer:
    Path(directory, "file").write_text("content")
    return Layer(name=LAYER, entries=1, size=7)


def record(**more: object) -> Record:
    fields = {"digest": IMAGE, "reference": "docker://x", "config": ImageConfig(cmd=("sh",))}
    return Record(**{**fields, **more})  # type: ignore[arg-type]


def test_an_image_is_what_was_added(store: Store) -> None:
    store.ensure_layer(LAYER, filled)
    image = store.add(record(layers=(LAYER,)))
    assert image == store.load(IMAGE)
    assert image.config.cmd == ("sh",)
    assert [os.listdir(lower) for lower in image.lowers] == [["file"]]
    assert os.stat(store.path).st_mode & 0o777 == 0o700
    assert os.listdir(f"{store.path}/work") == os.listdir(f"{store.path}/locks") == []


def test_a_directory_is_used_where_it_is(store: Store, tmp_path: Path) -> None:
    image = store.add(record(directory=os.fspath(tmp_path)))
    assert image.lowers == (os.fspath(tmp_path),)
    with pytest.raises(ImageError, match="not there any more"):
        store.add(record(directory="/nonexistent"))


def test_an_image_without_its_layers_is_refused(store: Store) -> None:
    with pytest.raises(ImageError, match=f"layer {OTHER} is not in the store"):
        store.add(record(layers=(OTHER,)))
    with pytest.raises(ImageError, match="is not in the store"):
        store.load(IMAGE)
    with pytest.raises(ImageError, match="not a digest"):
        store.load("sha256:../../etc")


def test_a_failed_layer_leaves_nothing(store: Store) -> None:
    def fails(directory: str) -> Layer:
        filled(directory)
        raise FileNotFoundError("the source has gone")

    with pytest.raises(FileNotFoundError):
        store.ensure_layer(LAYER, fails)
    assert not store.has_layer(LAYER)
    for room in ("layers", "work", "locks"):
        assert os.listdir(f"{store.path}/{room}") == []


def test_what_a_killed_import_left_goes_with_the_next(store: Store) -> None:
    child = fork.run_in_child(
        lambda: store.ensure_layer(
            LAYER, lambda directory: os.kill(os.getpid(), 9) or Layer(name="")
        )
    )
    assert os.waitpid(child, 0)[1] == 9
    assert len(os.listdir(f"{store.path}/work")) == 2
    store.ensure_layer(LAYER, filled)
    assert os.listdir(f"{store.path}/work") == []
    assert store.has_layer(LAYER)


def test_one_of_many_fills(store: Store, tmp_path: Path) -> None:
    def slowly(directory: str) -> Layer:
        os.mkdir(tmp_path / "filled")  # the second would fail
        return filled(directory)

    children = [fork.run_in_child(lambda: store.ensure_layer(LAYER, slowly)) for _ in range(8)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8


def test_another_store_is_read(store: Store, tmp_path: Path) -> None:
    store.ensure_layer(LAYER, filled)
    store.add(record(layers=(LAYER,)))
    own = Store(os.fspath(tmp_path / "own"), others=(store.path,))
    assert own.load(IMAGE).lowers == store.load(IMAGE).lowers
    own.ensure_layer(LAYER, lambda directory: pytest.fail("is there"))
    assert not os.path.exists(own.path)


def test_a_pin_holds_until_the_file_changes(store: Store, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    archive.write_text("one")
    reference = parse("docker-archive:a.tar", os.fspath(tmp_path))
    store.add(record(directory=os.fspath(tmp_path)))
    assert pins.pinned(store.path, reference) == ""
    pins.pin(store.path, reference, "", IMAGE, pins.mark(reference))
    assert pins.pinned(store.path, reference) == IMAGE
    assert pins.pinned(store.path, reference, "linux/arm64") == ""
    archive.write_text("another")
    assert pins.pinned(store.path, reference) == ""


def test_stores_of_an_environment() -> None:
    assert pins.store_path({"ROADSTEAD_IMAGES": "/s/", "HOME": "/h"}) == "/s"
    assert pins.store_path({"XDG_DATA_HOME": "/d"}) == "/d/roadstead/images"
    assert pins.store_path({"HOME": "/h"}) == "/h/.local/share/roadstead/images"
    assert pins.other_stores({"ROADSTEAD_IMAGE_STORES": "/a:b:/c/"}) == ("/a", "/c")
