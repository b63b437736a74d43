"""Whether what is in a store is what was put there: records, layers, and every file of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from roadstead.errors import ImageError
from roadstead.images import inventory, manifest
from roadstead.images.model import Record
from roadstead.images.store import Store


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with an image or layer; ``references`` are the images that it makes useless."""

    digest: str
    what: str
    references: tuple[str, ...] = ()


def verify(
    store: Store, digests: list[str], tell: Callable[[str, int, int], None]
) -> Iterator[Fault]:
    """Look at these images and their layers; what is wrong, as it is found."""
    users: dict[str, list[str]] = {}
    for digest in digests:
        try:
            record = store.record(digest)
        except ImageError as error:
            yield Fault(digest, str(error))
            continue
        yield from _record(record)
        for name in record.layers:
            users.setdefault(name, []).append(record.reference)
    sizes = {name: _size(store, name) for name in users}
    done, total = 0, sum(sizes.values())
    for name, references in users.items():
        for what in _layer(store, name):
            yield Fault(name, what, tuple(dict.fromkeys(references)))
        done += sizes[name]
        tell("verifying", done, total)


def _size(store: Store, name: str) -> int:
    try:
        return store.described(name).size
    except ImageError:
        return 0


def _record(record: Record) -> Iterator[Fault]:
    """The source's own documents have digests of their own."""
    if record.directory and not os.path.isdir(record.directory):
        yield Fault(record.digest, f"{record.directory} is not there", (record.reference,))
    if not record.manifest:
        return
    data = record.manifest.encode()
    try:
        found = manifest.manifest(data, json.loads(data), record.reference)
    except (ImageError, ValueError) as error:
        yield Fault(record.digest, f"its manifest is damaged: {error}", (record.reference,))
        return
    if manifest.digest_of(record.configuration.encode()) != found.config.digest:
        yield Fault(record.digest, "its configuration has another digest", (record.reference,))


def _layer(store: Store, name: str) -> list[str]:
    try:
        root = store.layer(name)
        store.described(name)
    except ImageError as error:
        return [str(error)]
    return inventory.differences(root, f"{os.path.dirname(root)}/{inventory.NAME}")
