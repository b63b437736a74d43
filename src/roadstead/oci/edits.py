"""What devices bring to a container: apart from how they are described (cdi.py), which a task
without any need not know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Edits:
    """What is done to a container: entries of a specification, checked.

    ``nodes`` are (path of the host, path inside, permissions), ``mounts`` entries of config.json,
    ``hooks`` (stage, entry of config.json).  ``dropped`` names what else is asked for:
    groups, network devices and cache classes are not a user's to give.
    """

    env: tuple[str, ...] = ()
    nodes: tuple[tuple[str, str, str], ...] = ()
    mounts: tuple[dict[str, Any], ...] = ()
    hooks: tuple[tuple[str, dict[str, Any]], ...] = ()
    dropped: tuple[str, ...] = ()

    def __add__(self, other: Edits) -> Edits:
        return Edits(
            self.env + other.env,
            self.nodes + other.nodes,
            self.mounts + other.mounts,
            self.hooks + other.hooks,
            self.dropped + other.dropped,
        )

    def __bool__(self) -> bool:
        return bool(self.env or self.nodes or self.mounts or self.hooks)
