"""Which CPUs, how much memory, which units and which licences are free."""

from __future__ import annotations

import copy
import heapq
from collections.abc import Mapping, Sequence

from roadstead.core.model import Allocation, Gres, JobSpec, Share
from roadstead.core.placement import Free, Slot, memory_of
from roadstead.core.site import Node


class NodePool:
    """What of one node is free."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.memory = node.memory
        self._cpus = set(node.cpus)
        self._units: dict[tuple[str, str], set[int]] = {}
        self._files: dict[tuple[str, str], dict[int, str]] = {}
        for each in node.gres:
            key = (each.name, each.type)
            indexes = each.indexes or tuple(range(each.count))
            self._units.setdefault(key, set()).update(indexes)
            files = self._files.setdefault(key, {})
            files.update(zip(indexes, each.files, strict=False))
        self._all = {key: frozenset(indexes) for key, indexes in self._units.items()}

    def copy(self) -> NodePool:
        """One to try things with."""
        found = copy.copy(self)
        found._cpus = set(self._cpus)
        found._units = {key: set(indexes) for key, indexes in self._units.items()}
        return found

    @property
    def cpu_count(self) -> int:
        return len(self._cpus)

    @property
    def cpus(self) -> tuple[int, ...]:
        return tuple(sorted(self._cpus))

    def free(self) -> Free:
        """The numbers; a copy."""
        units = {key: len(indexes) for key, indexes in self._units.items()}
        return Free(self.node, len(self._cpus), self.memory, units)

    def take(self, spec: JobSpec, slot: Slot) -> Share:
        """What the slot counts, the lowest numbers of it."""
        cpus = tuple(heapq.nsmallest(slot.cpus, self._cpus))
        gres = tuple([part for wanted in spec.gres for part in self._pick(wanted)])
        share = Share(
            node=self.node.name,
            cpus=cpus,
            memory=memory_of(spec, slot),
            gres=gres,
            ntasks=slot.ntasks,
        )
        self.take_again(share)
        return share

    def _pick(self, wanted: Gres) -> list[Gres]:
        found, missing = [], wanted.count
        for key, indexes in sorted(self._units.items()):
            if key[0] != wanted.name or wanted.type not in ("", key[1]) or not missing:
                continue
            chosen = tuple(heapq.nsmallest(missing, indexes))
            if not chosen:
                continue
            missing -= len(chosen)
            files = self._files[key]
            found.append(
                Gres(
                    name=key[0],
                    type=key[1],
                    count=len(chosen),
                    indexes=chosen,
                    files=tuple([files[index] for index in chosen if index in files]),
                )
            )
        return found

    def take_again(self, share: Share) -> None:
        """Note what a job has."""
        self._cpus.difference_update(share.cpus)
        self.memory -= share.memory
        for each in share.gres:
            self._units.get((each.name, each.type), set()).difference_update(each.indexes)

    def give_back(self, share: Share) -> None:
        # The node may have less now than when the job started.
        self._cpus.update(set(share.cpus) & set(self.node.cpus))
        self.memory += share.memory
        for each in share.gres:
            key = (each.name, each.type)
            if key in self._all:
                self._units[key].update(self._all[key].intersection(each.indexes))


class Pool:
    """What of all nodes, and which licences, are free."""

    def __init__(self, nodes: Sequence[Node], licenses: Mapping[str, int]) -> None:
        self.nodes = {node.name: NodePool(node) for node in nodes}
        self.licenses = dict(licenses)

    def copy(self) -> Pool:
        """One to try things with."""
        found = Pool((), self.licenses)
        found.nodes = {name: pool.copy() for name, pool in self.nodes.items()}
        return found

    @property
    def has_cpu(self) -> bool:
        return any(pool.cpu_count for pool in self.nodes.values())

    def has_licenses(self, spec: JobSpec) -> bool:
        return all(self.licenses.get(each.name, 0) >= each.count for each in spec.licenses)

    def take(self, spec: JobSpec, slots: Sequence[Slot]) -> tuple[Share, ...]:
        """CPUs and units for a job that fits."""
        self._count_licenses(spec, -1)
        return tuple([self.nodes[slot.node.name].take(spec, slot) for slot in slots])

    def take_again(self, spec: JobSpec, allocation: Allocation) -> None:
        """Note what a job has that was started by the controller before this one."""
        self._count_licenses(spec, -1)
        for share in allocation.shares:
            if share.node in self.nodes:
                self.nodes[share.node].take_again(share)

    def give_back(self, spec: JobSpec, allocation: Allocation) -> None:
        self._count_licenses(spec, +1)
        for share in allocation.shares:
            if share.node in self.nodes:
                self.nodes[share.node].give_back(share)

    def _count_licenses(self, spec: JobSpec, sign: int) -> None:
        for each in spec.licenses:
            self.licenses[each.name] = self.licenses.get(each.name, 0) + sign * each.count
