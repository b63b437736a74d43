"""``dir:``: a manifest and its blobs as files of one directory, as `skopeo copy` writes them."""

from __future__ import annotations

from roadstead.images import layered, layers, manifest
from roadstead.images.manifest import Descriptor
from roadstead.images.model import Record
from roadstead.images.reference import Reference
from roadstead.images.resolve import Context
from roadstead.images.store import Store


def import_(reference: Reference, store: Store, context: Context) -> Record:
    """Bring the image into the store.  Raises ImageError."""
    blobs = _Directory(reference)
    path = f"{reference.path}/manifest.json"
    start = layered.read_document(layered.open_file(path, reference.text), -1, reference.text)
    found = manifest.select(start, context.platform, blobs.document, reference.text)
    return layered.bring(reference, store, context, blobs, found)


class _Directory:
    """Blobs under their digests; of an index's manifests with their ending."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference

    def document(self, wanted: Descriptor) -> bytes:
        ending = ".manifest.json" if "manifest" in wanted.media_type else ""
        data = layered.read_document(self._open(wanted, ending), -1, self._reference.text)
        return layered.checked(data, wanted.digest, self._reference.text)

    def layer(self, wanted: Descriptor, diff_id: str) -> layers.Source:
        return layers.Source(diff_id, wanted.digest, wanted.size, lambda: self._open(wanted, ""))

    def _open(self, wanted: Descriptor, ending: str) -> int:
        name = wanted.digest.partition(":")[2]
        return layered.open_file(f"{self._reference.path}/{name}{ending}", self._reference.text)
