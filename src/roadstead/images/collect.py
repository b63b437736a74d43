"""Taking images out of the store, and what only they needed.

Never what a job holds (holds.py).  An image goes by two renames at most: out of sight, then, if
nobody has come to hold it meanwhile, away; killed in between, it is put back by whoever is next.
Layers go when no image names them, while no import is between its first layer and its image
(``Store.importing``): first out of sight, by one rename into work/, whose contents are anybody's to
remove.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from roadstead.errors import ImageError
from roadstead.host import files
from roadstead.images import holds
from roadstead.images.model import Record
from roadstead.images.store import GOING, IMPORTING, Store, key


@dataclass(slots=True)
class Collected:
    """What went, or would go: images, layers and their bytes; what stayed because jobs need it
    (digest → for whom)."""

    images: list[Record] = field(default_factory=list)
    layers: list[str] = field(default_factory=list)
    freed: int = 0
    held: dict[str, list[str]] = field(default_factory=dict)


def collect(
    store: Store,
    *,
    unused_seconds: float | None = None,
    quota: int | None = None,
    dry_run: bool = False,
) -> Collected:
    """Remove images that were not used for so long, then the longest unused until layers take no
    more than ``quota`` bytes; then the layers that no image needs.  Raises ImageError."""
    store.prepare()
    store.restore()
    done = Collected()
    wanted = _unused(store, unused_seconds) if unused_seconds is not None else []
    if quota is not None:
        wanted += _beyond(store, quota, wanted)
    for record in wanted:
        if dry_run or _take_away(store, record, done):
            done.images.append(record)
    _remove_layers(store, done, dry_run=dry_run)
    if not dry_run:
        store.sweep()
        _forget_pins(store)
        _forget_locks(store)
    return done


def remove(store: Store, digests: list[str]) -> Collected:
    """Remove these images and what only they needed.  Raises ImageError for one that a job needs;
    those before it are removed."""
    store.prepare()
    store.restore()
    done = Collected()
    for digest in digests:
        record = store.known(digest)
        if not os.path.exists(store.image_file(digest)):
            raise ImageError(
                f"image {digest} is in another's store", hint="its owner can remove it"
            )
        if not _take_away(store, record, done):
            raise ImageError(
                f"{record.reference} is needed by {', '.join(sorted(set(done.held[digest])))}",
                hint="squeue shows which jobs wait or run",
            )
        done.images.append(record)
    _remove_layers(store, done, dry_run=False)
    _forget_pins(store)
    return done


def _unused(store: Store, seconds: float) -> list[Record]:
    before = time.time() - seconds
    held = holds.of(store.path)
    return [
        store.known(digest)
        for digest, used in store.images()
        if used <= before and digest not in held
    ]


def _beyond(store: Store, quota: int, going: list[Record]) -> list[Record]:
    """The longest unused images that have to go for the rest to fit."""
    held = holds.of(store.path)
    sizes = {name: _size(store, name) for name in _layers(store)}
    gone = {record.digest for record in going}
    records = [store.known(digest) for digest, _ in store.images() if digest not in gone]
    users: dict[str, set[str]] = {}
    for record in records:
        for name in record.layers:
            users.setdefault(name, set()).add(record.digest)
    total = sum(sizes.get(name, 0) for name in users)
    chosen: list[Record] = []
    for record in reversed(records):  # the latest used is the first
        if total <= quota:
            break
        if record.digest in held:
            continue
        chosen.append(record)
        for name in set(record.layers):
            users[name].discard(record.digest)
            if not users[name]:
                total -= sizes.get(name, 0)
    return chosen


def _take_away(store: Store, record: Record, done: Collected) -> bool:
    """Remove an image's record, unless it is held."""
    path = store.image_file(record.digest)
    told = holds.of(store.path).get(record.digest)
    if told is None:
        try:
            os.rename(path, f"{path}{GOING}")
        except FileNotFoundError:
            return False  # somebody else was faster
        told = holds.of(store.path).get(record.digest)
        if told is None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{path}{GOING}")
            return True
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{path}{GOING}", path)
    done.held[record.digest] = told[0]
    return False


def _layers(store: Store) -> list[str]:
    try:
        return [f"sha256:{name}" for name in os.listdir(f"{store.path}/layers")]
    except FileNotFoundError:
        return []


def _size(store: Store, name: str) -> int:
    try:
        return store.described(name).size
    except ImageError:
        return 0  # a damaged one counts for nothing, and goes as others do


def _remove_layers(store: Store, done: Collected, *, dry_run: bool) -> None:
    going = {record.digest for record in done.images}
    with _no_import(store):
        needed: set[str] = set()
        for digest, _ in store.images():
            if digest not in going:
                needed |= set(store.known(digest).layers)
        for _, layers in holds.of(store.path).values():
            needed |= layers
        done.layers = [name for name in _layers(store) if name not in needed]
        done.freed = sum(_size(store, name) for name in done.layers)
        if dry_run:
            return
        for name in done.layers:
            # Nobody holds it there, so it is anybody's to remove (Store.sweep).
            with contextlib.suppress(FileNotFoundError):
                os.rename(f"{store.path}/layers/{key(name)}", _unheld(store, name))
    for name in done.layers:
        files.remove_tree(_unheld(store, name))


def _unheld(store: Store, name: str) -> str:
    return f"{store.path}/work/{key(name)}.{os.getpid()}"


@contextlib.contextmanager
def _no_import(store: Store) -> Iterator[None]:
    """While no import is under way; waits for those that are."""
    fd = os.open(f"{store.path}/locks/{IMPORTING}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _forget_locks(store: Store) -> None:
    """Remove the locks that killed processes have left; who takes one looks whether it is still the
    file of its name (store.py)."""
    for name in os.listdir(f"{store.path}/locks"):
        path = f"{store.path}/locks/{name}"
        if name == IMPORTING:
            continue
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.stat(path), os.fstat(fd)):
                    os.unlink(path)
            finally:
                os.close(fd)


def _forget_pins(store: Store) -> None:
    """Remove the pins of images that are not here any more."""
    for name in os.listdir(f"{store.path}/pins"):
        path = f"{store.path}/pins/{name}"
        with contextlib.suppress(OSError, ImageError, UnicodeDecodeError):
            with open(path, encoding="ascii", errors="replace") as file:
                digest = file.readline().strip()
            if not store.has(digest):
                os.unlink(path)
