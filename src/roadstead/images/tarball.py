"""The source of images that are a tar file of a root file system, compressed or not: what ``docker
export``, ``ch-convert``, ``mmdebstrap`` and ``tar -C rootfs -c .`` write.

It is unpacked as a layer is, from the stream, with the same rules; its digest, known when all has
been read, is compared with that by which the layer is called.
"""

from __future__ import annotations

import os
import time

from roadstead.errors import ImageError
from roadstead.images import described, diskimage, inventory
from roadstead.images.layered import check_platform, open_file
from roadstead.images.model import Layer, Record
from roadstead.images.recognise import recognise
from roadstead.images.reference import Reference
from roadstead.images.resolve import Context
from roadstead.images.store import Store
from roadstead.images.streams import Blob
from roadstead.images.unpack import unpack


def import_(reference: Reference, store: Store, context: Context) -> Record:
    """Have the tar file's contents in the store.  Raises ImageError."""
    path, what = reference.path, reference.text
    kind = recognise(path)
    if kind != "tarball":
        raise ImageError(f"{path} is no tar file of a root file system", hint=f"{kind}:{path}")
    fd = open_file(path, what)
    try:
        digest = f"sha256:{diskimage.digest_of(fd, what, context)}"
    finally:
        os.close(fd)

    def fill(directory: str) -> Layer:
        source = Blob(open_file(path, what), what, digest=digest)
        listed = f"{os.path.dirname(directory)}/{inventory.NAME}"
        layer = unpack(source, directory, digest, readable=store.shared, listed=listed)
        _check_root(directory, what)
        return layer

    store.ensure_layer(digest, fill)
    description = described.describe(store.layer(digest))
    config = description.config
    if config.architecture:
        check_platform(config.platform, context.platform, what)
    return Record(
        digest=digest,
        reference=str(reference),
        config=config,
        layers=(digest,),
        size=store.described(digest).size,
        created_at=time.time(),
    )


def _check_root(directory: str, what: str) -> None:
    """Raise ImageError where nothing could ever run, as with a tar file that has a directory on
    top of everything."""
    if not any(
        described.is_directory(directory, name) for name in ("/bin", "/usr", "/etc", "/lib")
    ):
        raise ImageError(
            f"{what} holds no root file system: there is no /bin, /usr, /etc or /lib in it",
            hint="pack it from inside: tar -C ROOTFS -cf FILE .",
        )
