"""The source of images that are directories already: a root file system, Charliecloud's image,
Singularity's sandbox, a container of udocker's.

Nothing is copied: the directory is used where it is, as the only lower directory, and never written
to.  Its digest stands for the directory and how it is to be run, not for its files, which are its
owner's to change.
"""

from __future__ import annotations

import hashlib
import json
import os
import time

from roadstead.core.model import to_json
from roadstead.errors import ImageError
from roadstead.images import described
from roadstead.images.model import Record
from roadstead.images.recognise import recognise
from roadstead.images.reference import Reference
from roadstead.images.resolve import Context
from roadstead.images.store import Store


def import_(reference: Reference, store: Store, context: Context) -> Record:
    """What there is to know of the directory.  Raises ImageError."""
    path = os.path.realpath(reference.path)
    description, rootfs = look(path)
    wanted = context.platform.split("/")[1] if "/" in context.platform else ""
    architecture = description.config.architecture
    if wanted and architecture and architecture != wanted:
        raise ImageError(
            f"{reference.text} is for linux/{architecture}, and {context.platform} is wanted",
            hint="build it for this machine, or name the other platform",
        )
    found = os.stat(rootfs)
    identity = [rootfs, found.st_dev, found.st_ino, to_json(description.config)]
    return Record(
        digest=f"sha256:{hashlib.sha256(json.dumps(identity).encode()).hexdigest()}",
        reference=reference.text,
        config=description.config,
        directory=rootfs,
        created_at=time.time(),
    )


def look(path: str) -> tuple[described.Description, str]:
    """How a directory is to be run, and where its root file system is.  Raises ImageError."""
    if recognise(path) == "udocker":
        rootfs = f"{path}/ROOT"
        if not os.path.isdir(rootfs):
            raise ImageError(f"{rootfs} is not a directory")
        return described.udocker(path), rootfs
    return described.describe(path), path
