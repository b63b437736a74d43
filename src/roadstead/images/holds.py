"""Holds: what keeps an image that a job needs from being removed.

    STORE/holds/HEX.WHO     JSON: who it is for, and the layers

A job's engine makes the file before it accepts the job, and removes it when no job of its needs the
image any more.  So the record is there whether or not the engine is, on this host or another; an
engine that was killed finds its own again (controller/holdings.py).  A hold that is left over keeps
an image for too long, and never the other way.

Making a hold and removing an image meet like this.  Who removes (collect.py) takes the image's
record out of sight, and looks for holds then; who holds makes the file, and looks for the image
then.  Whichever was first, one of them sees the other, and the image is put back or the hold has
failed.

A store that others may read has a directory of holds that they may write to, and no more.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from collections.abc import Iterator
from typing import Final

from roadstead.errors import ImageError
from roadstead.images.store import Store, key

_LARGEST: Final = 1 << 20
_ATTEMPTS: Final = 50
_PAUSE_SECONDS: Final = 0.01


def paths(store: Store, digest: str, who: str) -> tuple[str, ...]:
    """The files that ``take`` makes: one in each store that has a part of the image."""
    record = store.record(digest)
    places = [place for place in (store.path, *store.others) if _has(place, digest, record.layers)]
    return tuple(f"{place}/holds/{key(digest)}.{who}" for place in places)


def take(store: Store, digest: str, who: str, told: str) -> tuple[str, ...]:
    """Keep the image from being removed; the files that do.  ``told`` says who needs it.

    Another's store that cannot be written to goes without.  Raises ImageError: the image is gone.
    """
    record = store.record(digest)
    made = paths(store, digest, who)
    if not os.path.isdir(f"{store.path}/holds"):  # of a store from before there were any
        store.prepare()
    text = json.dumps({"for": told, "layers": record.layers, "since": time.time()})
    for path in made:
        with contextlib.suppress(OSError):
            _write(path, text)
    for attempt in range(_ATTEMPTS):
        if store.has(digest):
            return made
        if attempt + 1 < _ATTEMPTS:
            time.sleep(_PAUSE_SECONDS)  # it is out of sight for that long at most
    release(made)
    raise ImageError(
        f"image {digest} has just been removed from the store {store.path}", hint="submit it again"
    )


def release(made: tuple[str, ...]) -> None:
    """Let the image go."""
    for path in made:
        with contextlib.suppress(OSError):
            os.unlink(path)


def of(place: str) -> dict[str, tuple[list[str], set[str]]]:
    """All holds of a store: the image's digest → for whom, and which layers."""
    found: dict[str, tuple[list[str], set[str]]] = {}
    for digits, text in _texts(place):
        told, layers = found.setdefault(f"sha256:{digits}", ([], set()))
        try:
            node = json.loads(text)
            told.append(str(node["for"]))
            layers |= {name for name in node["layers"] if isinstance(name, str)}
        except (ValueError, LookupError, TypeError, RecursionError):
            told.append("somebody")  # it holds all the same
    return found


def _texts(place: str) -> Iterator[tuple[str, str]]:
    try:
        entries = os.listdir(f"{place}/holds")
    except FileNotFoundError:
        return
    for entry in entries:
        try:
            fd = os.open(
                f"{place}/holds/{entry}",
                os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
            )
        except FileNotFoundError:
            continue  # it has just been released
        except OSError:
            yield entry.partition(".")[0], ""
            continue
        with open(fd, "rb") as file:
            regular = stat.S_ISREG(os.fstat(fd).st_mode)
            data = file.read(_LARGEST) if regular else b""
        yield entry.partition(".")[0], data.decode(errors="replace")


def _has(place: str, digest: str, layers: tuple[str, ...]) -> bool:
    if os.path.exists(f"{place}/images/{key(digest)}.json"):
        return True
    return any(os.path.isdir(f"{place}/layers/{key(name)}") for name in layers)


def _write(path: str, text: str) -> None:
    """Not by rename(2): a directory of others lets us make files, and not list them."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        os.fchmod(fd, 0o644)  # for the store's owner
        os.write(fd, text.encode())
    finally:
        os.close(fd)
