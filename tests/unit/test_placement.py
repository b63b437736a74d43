"""Where tasks go: every task has a place, no node more than it can take, the same each time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roadstead.core import placement
from roadstead.core.model import Gres, JobSpec
from roadstead.core.placement import Free, Slot, capacity, deal, fit, in_partition
from roadstead.core.site import Node, Partition

SPEC = JobSpec(kind="batch", name="x", user="u", uid=1, gid=1, cwd="/")


def spec(ntasks: int = 1, **fields: Any) -> JobSpec:
    return replace(SPEC, ntasks=ntasks, **fields)


def node(name: str, cpus: int = 2, memory: int = 100, gpus: int = 0, *features: str) -> Node:
    gres = (Gres(name="gpu", type="a", count=gpus),) if gpus else ()
    return Node(name=name, cpus=tuple(range(cpus)), memory=memory, gres=gres, features=features)


NODES = [node("a"), node("b", 4, 400, 2, "fast"), node("c", 1), node("d", 2, 200)]


def frees(nodes: list[Node] = NODES) -> list[Free]:
    return [Free.all_of(each) for each in nodes]


def placed(wanted: JobSpec, free: list[Free] | None = None) -> list[tuple[str, int, int]] | None:
    slots = fit(wanted, frees() if free is None else free)
    return None if slots is None else [(s.node.name, s.ntasks, s.cpus) for s in slots]


TABLE: list[tuple[JobSpec, list[tuple[str, int, int]] | None]] = [
    (spec(), [("a", 1, 1)]),
    (spec(3), [("b", 3, 3)]),
    (spec(2, cpus_per_task=2), [("b", 2, 4)]),
    (spec(4, nodes=3), [("a", 2, 2), ("b", 1, 1), ("c", 1, 1)]),
    (spec(6), [("a", 2, 2), ("b", 4, 4)]),
    (spec(9), [("a", 2, 2), ("b", 4, 4), ("c", 1, 1), ("d", 2, 2)]),
    (spec(10), None),
    (spec(6, nodes=1, max_nodes=1), None),
    (spec(2, nodes=2, nodelist=("d",)), [("a", 1, 1), ("d", 1, 1)]),
    (spec(1, nodelist=("d", "c")), [("c", 1, 1), ("d", 0, 1)]),
    (spec(1, nodelist=("e",)), None),
    (spec(2, exclude=("a", "b")), [("d", 2, 2)]),
    (spec(1, features=("fast",)), [("b", 1, 1)]),
    (spec(1, features=("slow",)), None),
    (spec(1, exclusive=True), [("a", 1, 2)]),
    (spec(3, nodes=2, exclusive=True), [("a", 2, 2), ("b", 1, 4)]),
    (spec(1, memory=150), [("b", 1, 1)]),
    (spec(2, memory_per_cpu=60), [("b", 2, 2)]),
    (spec(2, memory_per_cpu=60, exclusive=True), [("b", 2, 4)]),
    (spec(1, memory_per_cpu=60, exclusive=True, exclude=("b", "c")), [("d", 1, 2)]),
    (spec(1, gres=(Gres(name="gpu", count=2),)), [("b", 1, 1)]),
    (spec(1, gres=(Gres(name="gpu", type="x"),)), None),
    (spec(9, overcommit=True), [("a", 9, 1)]),
    (spec(5, nodes=2, max_nodes=2, overcommit=True), [("a", 3, 1), ("b", 2, 1)]),
    (spec(3, ntasks_per_node=1), [("a", 1, 1), ("b", 1, 1), ("c", 1, 1)]),
    (spec(1, nodes=2), None),
]  # fmt: skip


@pytest.mark.parametrize(("wanted", "expected"), TABLE, ids=range(len(TABLE)))
def test_where_tasks_go(wanted: JobSpec, expected: list[tuple[str, int, int]] | None) -> None:
    assert placed(wanted) == expected


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 72), st.booleans())
@settings(max_examples=200)
@pytest.mark.long
def test_dealing_adds_up(capacities: list[int], ntasks: int, evenly: bool) -> None:
    ntasks = min(ntasks, sum(capacities))
    if evenly:
        capacities = [1 << 30 for _ in capacities]
    numbers = deal(ntasks, capacities, evenly=evenly)
    assert sum(numbers) == ntasks
    assert all(0 <= number <= most for number, most in zip(numbers, capacities, strict=True))
    if ntasks >= len(capacities):
        assert min(numbers) >= 1
    if evenly:
        assert max(numbers) - min(numbers) <= 1


SITES = st.lists(
    st.builds(
        lambda cpus, memory, gpus, fast: (cpus, memory, gpus, fast),
        st.integers(1, 6),
        st.integers(1, 300),
        st.integers(0, 3),
        st.booleans(),
    ),
    min_size=1,
    max_size=5,
)
JOBS = st.builds(
    lambda ntasks, nodes, more, fields: spec(
        max(ntasks, nodes), nodes=nodes, max_nodes=nodes + more if more else 0, **fields
    ),
    st.integers(1, 12),
    st.integers(1, 4),
    st.integers(0, 3),
    st.fixed_dictionaries(
        {},
        optional={
            "cpus_per_task": st.integers(1, 3),
            "memory": st.integers(0, 200),
            "memory_per_cpu": st.integers(0, 80),
            "gres": st.just((Gres(name="gpu", count=1),)),
            "features": st.just(("fast",)),
            "exclude": st.just(("n0",)),
            "nodelist": st.just(("n1",)),
            "exclusive": st.booleans(),
            "overcommit": st.booleans(),
            "ntasks_per_node": st.integers(1, 3),
        },
    ),
)


def site_of(drawn: list[tuple[int, int, int, bool]]) -> list[Free]:
    return frees(
        [
            node(f"n{at}", cpus, memory, gpus, *(["fast"] if fast else []))
            for at, (cpus, memory, gpus, fast) in enumerate(drawn)
        ]
    )


@given(SITES, JOBS)
@settings(max_examples=400)
@pytest.mark.long
def test_what_fits_fits(drawn: list[tuple[int, int, int, bool]], wanted: JobSpec) -> None:
    there = site_of(drawn)
    slots = fit(wanted, there)
    assert slots == fit(wanted, site_of(drawn)), "the same each time"
    if slots is None:
        return
    names = [slot.node.name for slot in slots]
    assert names == [free.node.name for free in there if free.node.name in names], "in order"
    assert sum(slot.ntasks for slot in slots) == wanted.ntasks
    assert wanted.nodes <= len(slots) <= (wanted.max_nodes or len(there))
    assert set(wanted.nodelist) <= set(names)
    for slot in slots:
        _check(slot, wanted)
    placement.subtract(there, wanted, slots)
    assert all(free.cpus >= 0 and free.memory >= 0 for free in there)
    assert all(number >= 0 for free in there for number in free.gres.values())


def _check(slot: Slot, wanted: JobSpec) -> None:
    assert slot.ntasks <= capacity(wanted, Free.all_of(slot.node))
    assert slot.ntasks >= 1 or wanted.nodelist
    assert slot.node.name not in wanted.exclude
    assert set(wanted.features) <= set(slot.node.features)
    if wanted.exclusive:
        assert slot.cpus == len(slot.node.cpus)
    elif not wanted.overcommit:
        assert slot.cpus == wanted.cpus_per_task * max(1, slot.ntasks)
    if wanted.ntasks_per_node:
        assert slot.ntasks <= wanted.ntasks_per_node


@given(SITES, JOBS)
@settings(max_examples=100)
def test_more_room_never_hurts(drawn: list[tuple[int, int, int, bool]], wanted: JobSpec) -> None:
    if fit(wanted, site_of(drawn)) is not None:
        assert fit(wanted, site_of([*drawn, (6, 300, 3, True)])) is not None


def test_units_of_any_type_are_taken_from_the_first_that_has_some() -> None:
    units = {("gpu", "b"): 2, ("gpu", "a"): 1, ("nic", ""): 1}
    assert placement.units_free(units, Gres(name="gpu")) == 3
    assert placement.units_free(units, Gres(name="gpu", type="b")) == 2
    placement.take_units(units, Gres(name="gpu", count=2))
    assert units == {("gpu", "b"): 1, ("gpu", "a"): 0, ("nic", ""): 1}


@pytest.mark.parametrize(
    ("fields", "nodes", "most"),
    [
        ({}, 1, 0),
        ({"min_nodes": 2}, 2, 0),
        ({"max_nodes": 3}, 1, 3),
        ({"min_nodes": 2, "max_nodes": 2}, 2, 2),
    ],
)
def test_a_partition_narrows_the_nodes_of_a_job(
    fields: dict[str, int], nodes: int, most: int
) -> None:
    partition = Partition(name="p", nodes=("a",), **fields)  # type: ignore[arg-type]
    found = in_partition(spec(4), partition)
    assert (found.nodes, found.max_nodes) == (nodes, most)
    assert in_partition(spec(4, max_nodes=1), partition).max_nodes == 1
    assert in_partition(spec(), replace(partition, exclusive=True)).exclusive


def test_a_partition_that_gives_fewer_nodes_holds_fewer_tasks() -> None:
    few = Partition(name="few", nodes=("a", "b"), max_nodes=1)
    assert placed(in_partition(spec(6), few)) is None
    assert placed(in_partition(spec(4), few)) == [("b", 4, 4)]
    many = Partition(name="many", nodes=("a", "b"), min_nodes=2)
    assert placed(in_partition(spec(2), many)) == [("a", 1, 1), ("b", 1, 1)]
    assert placed(in_partition(spec(1), many)) is None
