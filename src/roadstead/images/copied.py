"""Bundles of what is there already: a root file system, which is used where it is, and any image,
whose layers are copied one over the other."""

from __future__ import annotations

import os

from roadstead.errors import BundleError
from roadstead.host import flatten
from roadstead.images import directory
from roadstead.images.making import Made, Wanted
from roadstead.images.model import Image
from roadstead.images.resolve import resolve
from roadstead.images.store import Store


def make(wanted: Wanted, work: str) -> Made:
    """See images/making.py.  Raises BundleError, ImageError."""
    (name,) = wanted.operands
    if wanted.kind == "image":
        store = Store.default(os.environ)
        with store.importing():  # nothing of it is removed meanwhile
            return unfold(resolve(name, store=store, progress=wanted.progress), work)
    description, rootfs = directory.look(os.path.realpath(name))
    if not os.path.isdir(rootfs):
        raise BundleError(f"{name} is not a directory", hint="name a root file system")
    return Made(config=description.config, rootfs=rootfs, notes=description.notes)


def unfold(image: Image, work: str) -> Made:
    """Have the image's files in ``work``/rootfs."""
    os.mkdir(f"{work}/rootfs", 0o755)
    flatten.copy(image.lowers, f"{work}/rootfs")
    return Made(config=image.config)
