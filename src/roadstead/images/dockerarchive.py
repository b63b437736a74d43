"""``docker-archive:``: what `docker save` and `podman save` write: manifest.json names, for each
image, the configuration's file and the layers'.

Such an archive has no manifest with digests: the image's digest is that of its configuration, as
Docker's image id is, and the layers are checked by their diff_ids.
"""

from __future__ import annotations

import json
from typing import Any

from roadstead.errors import ImageError
from roadstead.images import layered, layers, manifest
from roadstead.images.archive import Archive
from roadstead.images.manifest import Descriptor, Manifest
from roadstead.images.model import Record
from roadstead.images.reference import Reference
from roadstead.images.resolve import Context
from roadstead.images.store import Store


def import_(reference: Reference, store: Store, context: Context) -> Record:
    """Bring the image into the store.  Raises ImageError."""
    with store.work() as work:
        archive = Archive(reference.path, reference.text, work)
        if not archive.has("manifest.json"):
            raise ImageError(
                f"{reference.text}: it has no manifest.json: it is not what docker save writes",
                hint="oci-archive: for an OCI layout, tarball: for a root file system",
            )
        chosen = _chosen(_images(archive, reference.text), reference)
        config = archive.document(chosen["Config"])
        digest = manifest.digest_of(config)
        found = Manifest(
            digest,
            "",
            Descriptor(digest, len(config), name=chosen["Config"]),
            tuple(
                Descriptor("", archive.member(name).size, name=name) for name in chosen["Layers"]
            ),
        )
        return layered.bring(reference, store, context, _Members(archive), found)


def _images(archive: Archive, what: str) -> list[dict[str, Any]]:
    try:
        images = json.loads(archive.document("manifest.json"))
    except (ValueError, RecursionError):
        raise ImageError(f"{what}: its manifest.json is not valid JSON") from None
    if not isinstance(images, list) or not all(_is_image(each) for each in images):
        raise ImageError(f"{what}: its manifest.json does not describe images")
    return images


def _is_image(node: Any) -> bool:
    return (
        isinstance(node, dict)
        and isinstance(node.get("Config"), str)
        and isinstance(node.get("Layers"), list)
        and all(isinstance(each, str) for each in node["Layers"])
    )


def _chosen(images: list[dict[str, Any]], reference: Reference) -> dict[str, Any]:
    named = {tag: image for image in images for tag in image.get("RepoTags") or []}
    there = ", ".join(sorted(str(tag) for tag in named)) or "images without a name"
    if not reference.name:
        if len(images) == 1:
            return images[0]
        raise ImageError(
            f"{reference.text}: which image? there is {there}",
            hint=f"{reference.text}:NAME:TAG",
        )
    wanted = f"{reference.name}:{reference.tag}"
    for tag, image in named.items():
        if tag in (wanted, f"docker.io/{wanted}", f"docker.io/library/{wanted}"):
            return image
        if tag == f"localhost/{wanted}":
            return image
    raise ImageError(f"{reference.text}: no image of the name {wanted}: there is {there}")


class _Members:
    """Blobs by the names of their members."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def document(self, wanted: Descriptor) -> bytes:
        return self._archive.document(wanted.name)

    def layer(self, wanted: Descriptor, diff_id: str) -> layers.Source:
        return layers.Source(diff_id, "", wanted.size, lambda: self._archive.open(wanted.name))
