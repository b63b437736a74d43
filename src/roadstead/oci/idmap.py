"""Which ids of a container are which ids of the host, for the user who runs it.

A bundle's own ``uidMappings`` are those of whoever made it (``runc spec --rootless`` and umoci
write the maker's uid), so they are never used as they are.  What is kept is their shape:

* one id: the container's process is the user, and there is nobody else;
* more than one, or none given: the process is the user and the other ids are the user's
  subordinate ids, if there are any.  Without, the container falls back to one id.

Everything here is arithmetic on (container, host, size) triples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Entry = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class IdMap:
    """A mapping, the id the process has inside, and whether ids were wanted that are not there."""

    entries: tuple[Entry, ...]
    process: int
    degraded: bool = False

    def has(self, container_id: int) -> bool:
        return any(first <= container_id < first + size for first, _, size in self.entries)

    def to_config(self) -> list[dict[str, int]]:
        """As config.json writes it (OCI runtime-spec, "User namespace mappings")."""
        return [{"containerID": c, "hostID": h, "size": s} for c, h, s in self.entries]


def plan(
    bundle_mappings: list[dict[str, Any]] | None,
    *,
    process: int,
    me: int,
    subordinate: tuple[int, int] | None,
    root_needed: bool = False,
) -> IdMap:
    """The mapping for a container whose process has id ``process`` and runs for host id ``me``.

    ``root_needed``: the runtime cannot start a container that has no id 0 (runc); a container of
    one id then runs as its root.
    """
    wanted = sum(int(entry.get("size", 1)) for entry in bundle_mappings or [])
    if wanted == 1 or subordinate is None or process > subordinate[1]:
        inside = 0 if root_needed else process
        return IdMap(((inside, me, 1),), inside, degraded=wanted != 1)
    start, count = subordinate
    below: list[Entry] = [(0, start, process)] if process else []
    above: list[Entry] = (
        [(process + 1, start + process, count - process)] if count > process else []
    )
    return IdMap((*below, (process, me, 1), *above), process)


def nested(mapping: IdMap, me: int, subordinate: tuple[int, int] | None) -> IdMap:
    """The same mapping in the ids of the step's own namespace (host/namespaces.py).

    There the user is 0 and subordinate id number k is k + 1.
    """
    start = subordinate[0] if subordinate else 0
    entries = tuple((c, 0 if h == me else h - start + 1, s) for c, h, s in mapping.entries)
    return IdMap(entries, mapping.process, mapping.degraded)
