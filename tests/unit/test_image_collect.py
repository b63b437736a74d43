"""Removal: what jobs hold stays, whoever comes first; what nobody needs goes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from roadstead.controller.holdings import Holdings
from roadstead.errors import ImageError
from roadstead.images import collect, holds, inventory, pins
from roadstead.images.model import ImageConfig, Layer, Record
from roadstead.images.reference import parse
from roadstead.images.store import GOING, Store
from roadstead.images.verify import verify

ONE, TWO, THREE = (f"sha256:{digit * 64}" for digit in "123")
SHARED, OWN, OTHER = (f"sha256:{digit * 64}" for digit in "abc")
DAY = 86400


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two images that share a layer of 100 bytes, with one of 10 bytes each; one used long ago."""
    found = Store(os.fspath(tmp_path / "images"))
    for digest, own in ((ONE, OWN), (TWO, OTHER)):
        for name, size in ((SHARED, 100), (own, 10)):

            def fill(directory: str, name: str = name, size: int = size) -> Layer:
                Path(directory, name[7]).write_bytes(bytes(size))
                return Layer(name=name, size=size, entries=1)

            found.ensure_layer(name, fill)
        found.add(
            Record(
                digest=digest,
                reference=f"docker://{digest[7]}",
                config=ImageConfig(),
                layers=(SHARED, own),
            )
        )
        pins.pin(found.path, parse(f"docker://{digest[7]}", "/"), "", digest, "")
    used(found, ONE, 40 * DAY)
    return found


def used(store: Store, digest: str, ago: float) -> None:
    os.utime(store.image_file(digest), (time.time() - ago,) * 2)


def images(store: Store) -> set[str]:
    return {digest for digest, _ in store.images()}


def layers(store: Store) -> set[str]:
    return {f"sha256:{name}" for name in os.listdir(f"{store.path}/layers")}


def test_by_age(store: Store) -> None:
    told = collect.collect(store, unused_seconds=30 * DAY, dry_run=True)
    assert [record.digest for record in told.images] == [ONE]
    assert (told.layers, told.freed, images(store)) == ([OWN], 10, {ONE, TWO})
    done = collect.collect(store, unused_seconds=30 * DAY)
    assert (done.layers, done.freed) == ([OWN], 10)
    assert (images(store), layers(store)) == ({TWO}, {SHARED, OTHER})
    assert os.listdir(f"{store.path}/work") == []
    assert len(os.listdir(f"{store.path}/pins")) == 1


@pytest.mark.parametrize(
    ("quota", "left"), [(120, {ONE, TWO}), (119, {TWO}), (110, {TWO}), (9, set())]
)
def test_by_quota(store: Store, quota: int, left: set[str]) -> None:
    collect.collect(store, quota=quota)
    assert images(store) == left


def test_without_a_reason_only_orphans_go(store: Store) -> None:
    store.ensure_layer(THREE, lambda directory: Layer(name=THREE, size=5))
    assert collect.collect(store).layers == [THREE]
    assert images(store) == {ONE, TWO}


def test_what_is_held_stays(store: Store) -> None:
    made = holds.take(store, ONE, "me", "jobs of mine")
    assert collect.collect(store, unused_seconds=0, quota=0).images[0].digest == TWO
    assert (images(store), layers(store)) == ({ONE}, {SHARED, OWN})
    with pytest.raises(ImageError, match="docker://1 is needed by jobs of mine"):
        collect.remove(store, [ONE])
    holds.release(made)
    collect.remove(store, [ONE])
    assert (images(store), layers(store)) == (set(), set())
    with pytest.raises(ImageError, match="is not in the store"):
        holds.take(store, ONE, "me", "jobs of mine")


def test_a_hold_that_comes_in_between_wins(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first look, and while the image is out of sight."""
    rename = os.rename

    def late(old: str, new: str) -> None:
        if new.endswith(GOING):
            Path(f"{store.path}/holds/{ONE[7:]}.late").write_text("no JSON")
        rename(old, new)

    monkeypatch.setattr(os, "rename", late)
    done = collect.collect(store, unused_seconds=30 * DAY)
    assert (done.images, done.held, images(store)) == ([], {ONE: ["somebody"]}, {ONE, TWO})


def test_who_decides_may_be_killed(store: Store) -> None:
    path = store.image_file(ONE)
    os.rename(path, f"{path}{GOING}")
    assert store.load(ONE).digest == ONE, "a step that starts now"
    collect.collect(store)
    assert images(store) == {ONE, TWO}


def test_a_hold_keeps_the_layers_of_anothers_image(store: Store, tmp_path: Path) -> None:
    own = Store(os.fspath(tmp_path / "own"), others=(store.path,))
    own.add(Record(digest=THREE, reference="x", config=ImageConfig(), layers=(SHARED, OWN)))
    made = holds.take(own, THREE, "me", "jobs")
    assert [path.rpartition("/holds/")[0] for path in made] == [own.path, store.path]
    collect.collect(store, unused_seconds=0)
    assert (images(store), layers(store)) == (set(), {SHARED, OWN})


def test_a_damaged_image_can_be_removed(store: Store) -> None:
    Path(store.image_file(ONE)).write_text("{")
    collect.remove(store, [ONE])
    assert (images(store), layers(store)) == ({TWO}, {SHARED, OTHER})


def test_verify(store: Store) -> None:
    def faults() -> list[str]:
        return [fault.what for fault in verify(store, [ONE, TWO], lambda *_: None)]

    assert faults() == []
    file = Path(store.layer(OWN)) / "b"
    file.write_bytes(bytes(9) + b"x")
    assert faults() == ["'b' has changed"]
    file.unlink()
    (file.parent / "new").symlink_to("/")
    assert faults() == ["'new' was added", "'b' is missing"]
    (file.parent.parent / inventory.NAME).unlink()
    assert faults() == ["its list of files is missing"]
    Path(store.image_file(TWO)).write_text("[]")
    assert len(faults()) == 2


# -- the engine's ---------------------------------------------------------------------------------


def message(store: Store, digest: str) -> dict[str, object]:
    return {"image": {"store": store.path, "digest": digest}}


def held(store: Store) -> set[str]:
    return set(holds.of(store.path))


def test_a_refused_message_holds_nothing(store: Store, tmp_path: Path) -> None:
    holdings = Holdings(os.fspath(tmp_path))
    holdings.take(message(store, ONE))
    assert held(store) == {ONE}
    holdings.note([])
    assert held(store) == set()
    assert os.listdir(tmp_path / "holds") == []
    with pytest.raises(ImageError):
        holdings.take(message(store, THREE))
    holdings.take({})


def test_what_a_killed_engine_held_is_let_go(store: Store, tmp_path: Path) -> None:
    Holdings(os.fspath(tmp_path)).take(message(store, ONE))
    assert held(store) == {ONE}
    Holdings(os.fspath(tmp_path)).restore([], [])
    assert held(store) == set()
