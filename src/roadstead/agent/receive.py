"""``receive``: what sbcast has written on this node becomes a bundle or an image that can be used.

It is a tar file, believed when it has the digest that it was sent with, and unpacked as any layer
is (images/unpack.py): nothing in it leads out of its directory.  Of several that receive the same
one unpacks, the others find it.  The Parcel comes as JSON in a variable, the Receipt goes as a line
of JSON to standard output.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from dataclasses import dataclass, field

from roadstead.agent import cache, check, tell
from roadstead.core.model import from_json, to_json
from roadstead.errors import ImageError, RoadsteadError
from roadstead.host import files, paths, wire
from roadstead.images import unpack
from roadstead.images.model import ImageConfig, Record
from roadstead.images.store import Store
from roadstead.images.streams import Blob


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """What was sent: the file's name in PLACE/incoming, its digest, "bundle" or "image", and the
    bytes that it takes; ``config`` and ``reference`` are an image's."""

    name: str
    key: str
    kind: str
    size: int
    config: ImageConfig = field(default_factory=ImageConfig)
    reference: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """``error``: why it cannot be used."""

    node: str
    error: str = ""


def receive(parcel: Parcel, environ: dict[str, str]) -> None:
    """Unpack it, if nobody has.  Raises RoadsteadError, OSError."""
    top = paths.node_cache(environ)
    cache.prepare(top)
    path = f"{top}/incoming/{os.path.basename(parcel.name)}"
    try:
        with cache.lock(top, parcel.key):
            if cache.find(top, parcel.key) is not None:
                return
            cache.make_room(top, parcel.size, cache.quota(environ))
            image = ""
            if parcel.kind == "image":
                image = _image(path, top, parcel)
            else:
                _bundle(path, top, parcel.key)
            cache.add(
                top, cache.Staged(key=parcel.key, kind=parcel.kind, size=parcel.size, image=image)
            )
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _blob(path: str, key: str) -> Blob:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    return Blob(fd, "what was sent to this node", digest=f"sha256:{key}")


def _image(path: str, top: str, parcel: Parcel) -> str:
    """The digest that the image has here: of its root, which is one layer now, and how it is
    run."""
    store = Store(f"{top}/images")
    layer = f"sha256:{parcel.key}"
    with store.importing():
        store.ensure_layer(
            layer, lambda directory: unpack.unpack(_blob(path, parcel.key), directory, layer)
        )
        about = f"{layer} {wire.dumps(to_json(parcel.config))}"
        record = Record(
            digest=f"sha256:{hashlib.sha256(about.encode()).hexdigest()}",
            reference=parcel.reference,
            config=parcel.config,
            layers=(layer,),
            size=parcel.size,
            created_at=time.time(),
        )
        return store.add(record).digest


def _bundle(path: str, top: str, key: str) -> None:
    """By a rename: it is whole, or not there."""
    work = f"{top}/bundles/.{key}.new"
    files.remove_tree(work)  # of one that was killed; we have the lock
    os.mkdir(work, 0o700)
    try:
        unpack.unpack(_blob(path, key), work, key)
        files.remove_tree(f"{top}/bundles/{key}")
        os.rename(work, f"{top}/bundles/{key}")
    finally:
        files.remove_tree(work)


def main() -> int:
    """Receive a parcel; says how it went, on standard output."""
    environ = dict(os.environ)
    node = environ.get("SLURMD_NODENAME") or os.uname().nodename
    told = Receipt(node=node)
    try:
        receive(from_json(Parcel, wire.loads(environ.pop(check.VARIABLE))), environ)
    except ImageError as error:
        told = Receipt(node=node, error=str(error).replace("ROADSTEAD_IMAGES", paths.NODE_CACHE))
    except RoadsteadError as error:
        told = Receipt(node=node, error=str(error))
    except OSError as error:
        told = Receipt(node=node, error=f"{error.filename or 'receiving'}: {error.strerror}")
    tell.tell(node, told)
    return 0
