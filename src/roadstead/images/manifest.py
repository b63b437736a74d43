"""Manifests, indexes and configurations: what an image says of itself, read with suspicion.

The documents are those of the OCI image-spec and of Docker's schema 2, which differ in their media
types alone.  All come from strangers: each is bounded, each field is checked for its type, and an
index may lead to another only so often.  Pure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from roadstead.errors import ImageError
from roadstead.images.model import ImageConfig
from roadstead.images.reference import is_digest

MAX_DOCUMENT: Final = 16 << 20
_MAX_DEPTH: Final = 4
_MAX_LAYERS: Final = 1000
_MAX_WORDS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A reference from one document to another, or to a layer (image-spec, descriptor.md)."""

    digest: str
    size: int
    media_type: str = ""
    platform: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image's manifest: its own digest and text, and what it leads to."""

    digest: str
    text: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True)
class Configuration:
    """An image's configuration, as far as we use it: parameters, and the layers' diff_ids."""

    text: str
    config: ImageConfig
    diff_ids: tuple[str, ...]


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def document(data: bytes, what: str) -> dict[str, Any]:
    """The JSON object in ``data``.  Raises ImageError."""
    if len(data) > MAX_DOCUMENT:
        raise ImageError(f"{what} is larger than {MAX_DOCUMENT >> 20} MiB")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise ImageError(f"{what} is not valid JSON") from None
    if not isinstance(found, dict):
        raise ImageError(f"{what} is not a JSON object")
    return found


def descriptor(node: Any, what: str) -> Descriptor:
    """The descriptor that ``node`` is.  Raises ImageError."""
    if not isinstance(node, dict):
        raise ImageError(f"{what} is not an object")
    digest, size = node.get("digest"), node.get("size")
    if not isinstance(digest, str) or not is_digest(digest):
        raise ImageError(f"{what} has no digest that can be checked: {digest!r}")
    if type(size) is not int or size < 0:
        raise ImageError(f"{what} has no size: {size!r}")
    where = node.get("platform")
    parts: list[Any] = []
    if isinstance(where, dict):
        parts = [where.get("os"), where.get("architecture"), where.get("variant")]
    notes = node.get("annotations")
    name = notes.get("org.opencontainers.image.ref.name") if isinstance(notes, dict) else ""
    return Descriptor(
        digest,
        size,
        str(node.get("mediaType", "")),
        "/".join(part for part in parts if isinstance(part, str) and part),
        name if isinstance(name, str) else "",
    )


def descriptors(node: dict[str, Any], key: str, what: str) -> tuple[Descriptor, ...]:
    """The descriptors in the array ``key``.  Raises ImageError."""
    found = node.get(key)
    if not isinstance(found, list) or len(found) > _MAX_LAYERS:
        raise ImageError(f"{what} has no array {key!r} of at most {_MAX_LAYERS} descriptors")
    return tuple(descriptor(each, f"{what}: {key}[{at}]") for at, each in enumerate(found))


def select(start: bytes, platform: str, read: Callable[[Descriptor], bytes], what: str) -> Manifest:
    """The manifest for ``platform`` that the document ``start`` is or leads to.

    Raises ImageError: there is none, or it leads nowhere.
    """
    data = start
    for _ in range(_MAX_DEPTH):
        node = document(data, f"the manifest of {what}")
        if "manifests" not in node:
            return manifest(data, node, what)
        data = read(_for_platform(descriptors(node, "manifests", what), platform, what))
    raise ImageError(f"{what}: its indexes lead from one to the next, more than {_MAX_DEPTH} deep")


def _for_platform(found: tuple[Descriptor, ...], platform: str, what: str) -> Descriptor:
    # Attestations stand among the images, for a platform that nobody has.
    images = [each for each in found if not each.platform.startswith("unknown")]
    exact = [each for each in images if each.platform == platform]
    close = [each for each in images if each.platform.startswith(f"{platform}/")]
    if not close and platform == "linux/arm64":
        close = [each for each in images if each.platform == "linux/arm64/v8"]
    unnamed = [each for each in images if not each.platform]
    chosen = exact or close or (unnamed if len(images) == 1 else [])
    if chosen:
        return chosen[0]
    there = ", ".join(sorted({each.platform for each in images if each.platform})) or "nothing"
    raise ImageError(
        f"{what} is not made for {platform}: there is {there}",
        hint="ask for another tag, or --platform",
    )


def manifest(data: bytes, node: dict[str, Any], what: str) -> Manifest:
    """A manifest of schema 2.  Raises ImageError."""
    if node.get("schemaVersion") == 1:
        raise ImageError(
            f"{what} has a manifest of schema 1, from before 2017", hint="build or push it again"
        )
    if "config" not in node:
        raise ImageError(f"the manifest of {what} has no config: it is not an image")
    return Manifest(
        digest_of(data),
        data.decode("utf-8", "replace"),
        descriptor(node["config"], f"{what}: config"),
        descriptors(node, "layers", what),
    )


def configuration(data: bytes, what: str) -> Configuration:
    """The configuration in ``data``.  Raises ImageError."""
    node = document(data, f"the configuration of {what}")
    roots = node.get("rootfs")
    diff_ids = roots.get("diff_ids") if isinstance(roots, dict) else None
    if not isinstance(diff_ids, list) or len(diff_ids) > _MAX_LAYERS:
        raise ImageError(f"the configuration of {what} has no rootfs.diff_ids")
    for each in diff_ids:
        if not isinstance(each, str) or not is_digest(each):
            raise ImageError(f"the configuration of {what}: {each!r} is not a diff_id")
    inner = node.get("config")
    inner = inner if isinstance(inner, dict) else {}

    def words(key: str) -> tuple[str, ...]:
        value = inner.get(key) or []
        if isinstance(value, str):  # schema 1's "shell form"
            return ("/bin/sh", "-c", value)
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise ImageError(f"the configuration of {what}: {key} is not an array of strings")
        if len(value) > _MAX_WORDS:
            raise ImageError(f"the configuration of {what}: {key} has {len(value)} entries")
        return tuple(value)

    def word(node: dict[str, Any], key: str) -> str:
        value = node.get(key) or ""
        if not isinstance(value, str):
            raise ImageError(f"the configuration of {what}: {key} is not a string")
        return value

    volumes, labels = inner.get("Volumes") or {}, inner.get("Labels") or {}
    if not isinstance(volumes, dict) or not isinstance(labels, dict):
        raise ImageError(f"the configuration of {what}: Volumes and Labels are not objects")
    if len(volumes) > _MAX_WORDS or len(labels) > _MAX_WORDS:
        raise ImageError(f"the configuration of {what}: too many Volumes or Labels")
    config = ImageConfig(
        entrypoint=words("Entrypoint"),
        cmd=words("Cmd"),
        env=words("Env"),
        user=word(inner, "User"),
        workdir=word(inner, "WorkingDir"),
        volumes=tuple(sorted(volumes)),
        labels={str(name): str(value) for name, value in labels.items()},
        stop_signal=word(inner, "StopSignal"),
        architecture=word(node, "architecture"),
        os=word(node, "os") or "linux",
        variant=word(node, "variant"),
    )
    return Configuration(data.decode("utf-8", "replace"), config, tuple(diff_ids))
