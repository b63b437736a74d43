"""From what a user wrote to an image in the store: one entry for everyone.

    resolve(text, store=…)  →  Image

A reference that is pinned is only looked up.  Else its source imports it, once, however many
processes ask: the others wait for the first.  Sources are modules with one function,

    import_(reference, store, context) -> Record

named in one table, so that only the one that is needed is loaded.
"""

from __future__ import annotations

import importlib
import os
import platform as machine
from dataclasses import dataclass
from typing import Final, Protocol

from roadstead.errors import ImageError
from roadstead.images import pins, repositories
from roadstead.images.model import Image, Record
from roadstead.images.reference import Reference, parse
from roadstead.images.store import Store

# transport, or what recognise.py says of a path → the module of roadstead.images that reads it.
SOURCES: Final[dict[str, str]] = {
    "docker": "registry",
    "docker-daemon": "saved",
    "containers-storage": "saved",
    "oci": "layout",
    "oci-archive": "layout",
    "docker-archive": "dockerarchive",
    "dir": "dirlayout",
    "sif": "diskimage",
    "sqsh": "diskimage",
    "squashfs": "diskimage",
    "ext": "diskimage",
    "tarball": "tarball",
    "rootfs": "directory",
    "udocker": "directory",
}

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "armv7l": "arm/v7"}


class Progress(Protocol):
    """Who shows how far an import is; ``total`` is 0 where it is not known."""

    def __call__(self, what: str, done: int, total: int) -> None: ...


def silent(what: str, done: int, total: int) -> None:
    """Shows nothing."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a source is told beside the reference: the platform (os/architecture[/variant]) that is
    wanted, and whom to tell of progress."""

    platform: str
    progress: Progress = silent


def own_platform() -> str:
    """This machine's, in the words of images."""
    kind = machine.machine()
    return f"linux/{_MACHINES.get(kind, kind)}"


def resolve(
    text: str | Reference,
    *,
    store: Store,
    cwd: str = "",
    platform: str = "",
    progress: Progress = silent,
    refresh: bool = False,
) -> Image:
    """The image that ``text`` names, imported if it is not in the store.

    With ``refresh`` what is pinned is looked up anew.  Raises ImageError, UsageError.
    """
    reference = parse(text, cwd or os.getcwd()) if isinstance(text, str) else text
    reference = repositories.find(reference, os.environ)
    if not refresh:
        for place in (store.path, *store.others):
            digest = pins.pinned(place, reference, platform)
            if digest:
                return store.load(digest)
    _check_meaning(reference, cwd or os.getcwd())
    store.prepare()
    asked = pins.identity(store.path, reference, platform)
    with store.lock(f"pin-{_lock_name(reference, platform)}"):
        # Whoever held it before us has looked up and imported the very same, after we had asked.
        waited = not refresh or pins.identity(store.path, reference, platform) != asked
        digest = pins.pinned(store.path, reference, platform) if waited else ""
        if digest:
            return store.load(digest)
        before = pins.mark(reference)
        with store.importing():
            record = _import(reference, store, Context(platform or own_platform(), progress))
            image = store.add(record)
        pins.pin(store.path, reference, platform, image.digest, before, mode=store.mode)
        return image


def _check_meaning(reference: Reference, cwd: str) -> None:
    """Raise ImageError for a reference that is the name of a file as well."""
    from roadstead.images.recognise import ambiguity

    if reference.transport:
        both = ambiguity(reference.text, os.path.exists(os.path.join(cwd, reference.text)))
        if both:
            raise ImageError(both)


def _import(reference: Reference, store: Store, context: Context) -> Record:
    kind = reference.transport or _recognised(reference)
    if kind not in SOURCES:
        raise ImageError(f"{reference.text}: {kind} images cannot be read yet")
    source = importlib.import_module(f"roadstead.images.{SOURCES[kind]}")
    record: Record = source.import_(reference, store, context)
    return record


def _recognised(reference: Reference) -> str:
    """The kind of image that a path leads to.  Raises ImageError."""
    from roadstead.images.recognise import recognise

    return recognise(reference.path)


def _lock_name(reference: Reference, platform: str) -> str:
    import hashlib

    return hashlib.sha256(os.fsencode(f"{reference} {platform}")).hexdigest()
