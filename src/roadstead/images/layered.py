"""An image of layers, from wherever its documents and blobs can be read, into the store."""

from __future__ import annotations

import os
import stat
import time
from typing import Protocol

from roadstead.errors import ImageError
from roadstead.images import layers, manifest
from roadstead.images.manifest import Descriptor, Manifest
from roadstead.images.model import Record
from roadstead.images.reference import Reference
from roadstead.images.resolve import Context
from roadstead.images.store import Store


class Blobs(Protocol):
    """Where blobs are: ``document`` gives a whole one, ``layer`` what a layer is fetched by."""

    def document(self, wanted: Descriptor) -> bytes: ...

    def layer(self, wanted: Descriptor, diff_id: str) -> layers.Source: ...


def bring(
    reference: Reference, store: Store, context: Context, blobs: Blobs, found: Manifest
) -> Record:
    """Have the image with this manifest in the store: what is kept of it.  Raises ImageError."""
    config = manifest.configuration(blobs.document(found.config), reference.text)
    check_platform(config.config.platform, context.platform, reference.text)
    if len(config.diff_ids) != len(found.layers):
        raise ImageError(
            f"{reference.text}: its manifest has {len(found.layers)} layers, its configuration "
            f"{len(config.diff_ids)}",
            hint="the image is damaged: build or fetch it again",
        )
    sources = [
        blobs.layer(layer, diff_id)
        for layer, diff_id in zip(found.layers, config.diff_ids, strict=True)
    ]
    layers.bring(sources, store, context.progress)
    return Record(
        digest=found.digest,
        reference=str(reference),
        config=config.config,
        layers=config.diff_ids,
        size=sum(store.described(name).size for name in set(config.diff_ids)),
        created_at=time.time(),
        manifest=found.text,
        configuration=config.text,
    )


def check_platform(found: str, wanted: str, what: str) -> None:
    """Raise ImageError for an image of another platform; a variant matters only if both have one
    (an image-spec from before it was added knows none)."""
    if found.split("/")[:2] != wanted.split("/")[:2] and "/" in found:
        raise ImageError(
            f"{what} is made for {found}, not for {wanted}",
            hint="fetch or build it for this machine, or ask for it by --platform",
        )


def open_file(path: str, what: str) -> int:
    """A regular file's descriptor: a pipe would keep us waiting.  Raises ImageError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        absent = isinstance(error, FileNotFoundError)
        hint = f"ls {os.path.dirname(path)} shows what is there" if absent else ""
        raise ImageError(f"{what}: {path}: {error.strerror}", hint=hint) from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ImageError(f"{what}: {path} is not a file")
    return fd


def read_document(fd: int, size: int, what: str) -> bytes:
    """``size`` bytes (-1: all) from a descriptor, which is closed.  Raises ImageError."""
    with open(fd, "rb") as file:
        data = file.read(manifest.MAX_DOCUMENT + 1 if size < 0 else min(size, 1 << 25))
    if len(data) > manifest.MAX_DOCUMENT:
        raise ImageError(f"{what}: a document of more than {manifest.MAX_DOCUMENT >> 20} MiB")
    if 0 <= size != len(data):
        raise ImageError(f"{what}: it has {len(data)} bytes, not {size}")
    return data


def checked(data: bytes, digest: str, what: str) -> bytes:
    """``data``, if it has this digest.  Raises ImageError."""
    if manifest.digest_of(data) != digest:
        raise ImageError(
            f"{what}: the document {digest} has another digest",
            hint="it is damaged or was exchanged: fetch it again",
        )
    return data
