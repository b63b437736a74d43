"""Id mappings: the bundle's shape, the user's ids."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roadstead.oci import idmap

ONE = [{"containerID": 0, "hostID": 4242, "size": 1}]
MANY = [*ONE, {"containerID": 1, "hostID": 200000, "size": 65536}]
RANGE = (100000, 65536)


@pytest.mark.parametrize(
    ("bundle", "process", "subordinate", "root_needed", "entries", "inside", "degraded"),
    [
        (ONE, 0, RANGE, False, ((0, 1001, 1),), 0, False),
        (ONE, 7, None, False, ((7, 1001, 1),), 7, False),
        (ONE, 7, None, True, ((0, 1001, 1),), 0, False),
        (MANY, 0, RANGE, False, ((0, 1001, 1), (1, 100000, 65536)), 0, False),
        (None, 0, RANGE, False, ((0, 1001, 1), (1, 100000, 65536)), 0, False),
        (
            None, 1000, RANGE, False,
            ((0, 100000, 1000), (1000, 1001, 1), (1001, 101000, 64536)), 1000, False,
        ),
        (MANY, 0, None, False, ((0, 1001, 1),), 0, True),
        (None, 5, None, True, ((0, 1001, 1),), 0, True),
        (None, 70000, RANGE, False, ((70000, 1001, 1),), 70000, True),
    ],
)  # fmt: skip
def test_plan(
    bundle: list[dict[str, int]] | None,
    process: int,
    subordinate: tuple[int, int] | None,
    root_needed: bool,
    entries: tuple[idmap.Entry, ...],
    inside: int,
    degraded: bool,
) -> None:
    mapping = idmap.plan(
        bundle, process=process, me=1001, subordinate=subordinate, root_needed=root_needed
    )
    assert (mapping.entries, mapping.process, mapping.degraded) == (entries, inside, degraded)


@given(st.integers(0, 70000), st.integers(1000, 60000), st.integers(0, 70000))
@settings(max_examples=60)
def test_the_process_is_the_user_and_no_id_is_used_twice(process: int, me: int, count: int) -> None:
    mapping = idmap.plan(None, process=process, me=me, subordinate=(100000, count))
    hosts = [h for _, first, size in mapping.entries for h in (first, first + size - 1)]
    assert [h for c, h, s in mapping.entries if c == mapping.process and s == 1] == [me]
    assert all(size > 0 for _, _, size in mapping.entries)
    assert all(h == me or 100000 <= h < 100000 + count for h in hosts)
    inside = sorted((c, c + s) for c, _, s in mapping.entries)
    assert all(a[1] <= b[0] for a, b in pairwise(inside))


def test_nested_counts_in_the_ids_of_the_steps_own_namespace() -> None:
    mapping = idmap.plan(None, process=1000, me=1001, subordinate=RANGE)
    assert idmap.nested(mapping, 1001, RANGE).entries == (
        (0, 1, 1000),
        (1000, 0, 1),
        (1001, 1001, 64536),
    )


def test_what_config_json_gets() -> None:
    mapping = idmap.plan(ONE, process=0, me=1001, subordinate=None)
    assert mapping.to_config() == [{"containerID": 0, "hostID": 1001, "size": 1}]
    assert mapping.has(0)
    assert not mapping.has(1)
