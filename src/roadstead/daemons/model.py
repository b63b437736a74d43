"""What a keeper is told: which daemon, and the images that it is to have from the start."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """An image of our store, under the ``name`` that the daemon is to know it by."""

    name: str
    digest: str
    store: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A daemon; ``option`` is the one that asked for it (kinds.py).  ``token`` is a part of its
    address, which so is the same on each node."""

    option: str
    token: str
    seeds: tuple[Seed, ...] = ()
