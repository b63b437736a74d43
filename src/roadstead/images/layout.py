"""``oci:`` and ``oci-archive:``: an OCI image layout, in a directory or in a tar file
(image-spec, image-layout.md)."""

from __future__ import annotations

from typing import Protocol

from roadstead.errors import ImageError
from roadstead.images import layered, layers, manifest
from roadstead.images.archive import Archive
from roadstead.images.manifest import Descriptor
from roadstead.images.model import Record
from roadstead.images.reference import Reference
from roadstead.images.resolve import Context
from roadstead.images.store import Store


def import_(reference: Reference, store: Store, context: Context) -> Record:
    """Bring the image into the store.  Raises ImageError."""
    if reference.transport == "oci-archive":
        with store.work() as work:
            archive = Archive(reference.path, reference.text, work)
            return _import(reference, store, context, archive)
    return _import(reference, store, context, _Directory(reference.path, reference.text))


class _Files(Protocol):
    """Where the files of a layout are, by their names in it."""

    def open(self, name: str) -> int: ...

    def document(self, name: str) -> bytes: ...


class _Directory:
    """A layout's directory."""

    def __init__(self, path: str, what: str) -> None:
        self._path = path
        self._what = what

    def open(self, name: str) -> int:
        return layered.open_file(f"{self._path}/{name}", self._what)

    def document(self, name: str) -> bytes:
        return layered.read_document(self.open(name), -1, self._what)


def _import(reference: Reference, store: Store, context: Context, source: _Files) -> Record:
    blobs = _Layout(reference.text, source)
    index = source.document("index.json")
    node = manifest.document(index, f"the index of {reference.text}")
    found = manifest.descriptors(node, "manifests", reference.text)
    chosen = _tagged(found, reference)
    first = manifest.select(
        blobs.document(chosen), context.platform, blobs.document, reference.text
    )
    return layered.bring(reference, store, context, blobs, first)


def _tagged(found: tuple[Descriptor, ...], reference: Reference) -> Descriptor:
    names = [each.name for each in found if each.name]
    chosen = [each for each in found if not reference.tag or each.name == reference.tag]
    if len({each.digest for each in chosen}) == 1:
        return chosen[0]
    there = ", ".join(names) or "images without a name"
    if chosen:
        raise ImageError(
            f"{reference.text}: which image? there is {there}",
            hint=f"{reference.text}:{names[0] if names else 'NAME'}",
        )
    raise ImageError(f"{reference.text}: no image of the name {reference.tag}: there is {there}")


class _Layout:
    """Blobs of a layout, each under its digest."""

    def __init__(self, what: str, source: _Files) -> None:
        self._what = what
        self._source = source

    def document(self, wanted: Descriptor) -> bytes:
        data = self._source.document(_name(wanted.digest))
        return layered.checked(data[: wanted.size], wanted.digest, self._what)

    def layer(self, wanted: Descriptor, diff_id: str) -> layers.Source:
        name = _name(wanted.digest)
        return layers.Source(diff_id, wanted.digest, wanted.size, lambda: self._source.open(name))


def _name(digest: str) -> str:
    return f"blobs/sha256/{digest.partition(':')[2]}"
