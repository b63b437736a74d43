"""The source of images that are one file with a file system in it: Singularity's SIF, Enroot's and
other squashfs, ext.

The file is read twice: once for its digest, which names the layer in the store, and, if there is no
such layer yet, once to unpack it.  So the same image under another name costs no space, and a
file that was copied over in place is another image.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import replace
from functools import partial

from roadstead.core.model import to_json
from roadstead.errors import ImageError
from roadstead.images import beside, described, sif
from roadstead.images.ext import Ext
from roadstead.images.filesystem import AGAIN, Corrupt, FileSystem, extract, survey
from roadstead.images.model import ImageConfig, Layer, Record
from roadstead.images.recognise import recognise
from roadstead.images.reference import Reference
from roadstead.images.resolve import Context
from roadstead.images.squashfs import Squashfs
from roadstead.images.store import Store

_PIECE = 4 << 20
# transport → what must be in the file
_EXPECTED = {"sif": "sif", "sqsh": "squashfs"}
_NAMES = {"sif": "a SIF file", "squashfs": "a squashfs"}


def import_(reference: Reference, store: Store, context: Context) -> Record:
    """Have the file's contents in the store.  Raises ImageError."""
    path = reference.path
    kind = recognise(path)
    expected = _EXPECTED.get(reference.transport, kind)
    if kind != expected:
        raise ImageError(
            f"{path} is not {_NAMES[expected]}", hint=f"leave out {reference.transport}:"
        )
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}") from None
    try:
        return _import(fd, kind, reference, store, context)
    except OSError as error:
        raise ImageError(f"{reference.text}: {error.strerror}") from None
    finally:
        os.close(fd)


def _import(fd: int, kind: str, reference: Reference, store: Store, context: Context) -> Record:
    what = reference.text
    try:
        image, architecture, extra = _open(fd, kind, what)
    except Corrupt as error:
        raise ImageError(f"{what} is broken: {error}", hint=AGAIN) from None
    _check_platform(what, architecture, context.platform)
    digest = digest_of(fd, what, context)
    layer = f"sha256:{digest}"
    store.ensure_layer(layer, partial(_fill, image, layer, what, context))
    description = described.describe(store.layer(layer))
    if reference.transport == "sqsh" and description.system == "rootfs":
        description = described.enroot(store.layer(layer))
    config = description.config
    if extra is not None:
        config = _with_objects(config, extra)
    config = replace(config, architecture=architecture or config.architecture)
    told = beside.described(reference.path, config)
    identity = layer
    if told != config:  # the same file without that is another image
        text = json.dumps([layer, to_json(told)])
        identity = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    return Record(
        digest=identity,
        reference=what,
        config=told,
        layers=(layer,),
        size=survey(image).stored,
        created_at=time.time(),
        configuration=extra.definition if extra is not None else "",
    )


def _open(fd: int, kind: str, what: str) -> tuple[FileSystem, str, sif.Primary | None]:
    """The file system in the file, for which architecture, and what else a SIF says."""
    size = os.fstat(fd).st_size
    if kind == "squashfs":
        return Squashfs(fd, 0, size, what), "", None
    if kind == "ext":
        return Ext(fd, 0, size, what), "", None

    def read(at: int, length: int) -> bytes:
        return os.pread(fd, length, at)

    found = sif.primary(read, size, what)
    reader = Squashfs if found.file_system == "squashfs" else Ext
    return reader(fd, found.offset, found.length, what), found.architecture, found


def _check_platform(what: str, architecture: str, wanted: str) -> None:
    if architecture and wanted and architecture != wanted.split("/")[1]:
        raise ImageError(
            f"{what} is for linux/{architecture}, and {wanted} is wanted",
            hint="build it for this machine, or name the other platform",
        )


def digest_of(fd: int, what: str, context: Context) -> str:
    """The file's SHA-256.  Raises ImageError for one that changes meanwhile."""
    before = os.fstat(fd)
    found = hashlib.sha256()
    done = 0
    while piece := os.pread(fd, _PIECE, done):
        found.update(piece)
        done += len(piece)
        context.progress(f"reading {os.path.basename(what)}", done, before.st_size)
    after = os.fstat(fd)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise ImageError(f"{what} changed while it was read", hint="try again when it is complete")
    return found.hexdigest()


def _fill(image: FileSystem, layer: str, what: str, context: Context, directory: str) -> Layer:
    began = time.monotonic()

    def progress(done: int, total: int) -> None:
        context.progress(f"unpacking {os.path.basename(what)}", done, total)

    found = extract(image, directory, what=what, progress=progress)
    return Layer(
        name=layer,
        entries=found.entries,
        size=found.stored,
        seconds=time.monotonic() - began,
        altered=tuple(sorted(found.altered)),
    )


def _with_objects(config: ImageConfig, extra: sif.Primary) -> ImageConfig:
    """With what the SIF keeps beside its file system."""
    env = dict(entry.partition("=")[::2] for entry in config.env)
    described.assign(extra.environment, env)
    labels = {**described.labels(extra.labels), **config.labels}
    return replace(config, env=tuple(f"{k}={v}" for k, v in env.items()), labels=labels)
