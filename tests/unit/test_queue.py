"""The queue: an order that nothing but a change of a job's own can change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from roadstead.core import queue
from roadstead.core.model import JobSpec
from roadstead.core.queue import Queue
from roadstead.core.site import Node, Partition, Site, Weights

SPEC = JobSpec(kind="batch", name="x", user="u", uid=1, gid=1, cwd="/", partition="p")
SITE = Site(
    nodes=(Node(name="n", cpus=(0, 1, 2, 3), memory=100),),
    uid=1,
    partitions=(
        Partition(name="p", nodes=("n",), job_factor=1),
        Partition(name="q", nodes=("n",), job_factor=4),
        Partition(name="top", nodes=("n",), tier=2),
    ),
)
SIZED = replace(SITE, weights=Weights(size=1000.0))


def spec(**fields: Any) -> JobSpec:
    return replace(SPEC, **fields)


def points(wanted: JobSpec, site: Site) -> int:
    return queue.priority(wanted, 0.0, site, 0.0)


KEYS = st.lists(
    st.tuples(st.integers(-2, 0), st.floats(-10, 10), st.integers(1, 30)),
    unique_by=lambda key: key[2],
    max_size=20,
)


@given(KEYS, st.data())
@settings(max_examples=100)
def test_it_is_always_sorted_and_has_whoever_was_put_in(
    keys: list[queue.Key], data: st.DataObject
) -> None:
    line, model = Queue(), dict[int, queue.Key]()
    for key in keys:
        line.add(key)
        model[key[2]] = key
        if data.draw(st.booleans()):
            gone = data.draw(st.integers(1, 30))
            line.remove(gone)  # also who is not there
            model.pop(gone, None)
        expected = [key[2] for key in sorted(model.values())]
        assert list(line) == expected
        assert len(line) == len(model)
        assert line.first(2) == expected[:2]
        assert line.head == (expected[0] if expected else None)
        assert [line.position(job_id) for job_id in line] == list(range(len(line)))
        assert all((job_id in line) == (job_id in model) for job_id in range(1, 31))
    other = Queue()
    other.fill(model.values())
    assert list(other) == list(line)


@given(st.integers(-500, 500), st.integers(-500, 500), st.floats(0, 1e6), st.floats(0, 1e6))
@settings(max_examples=100)
def test_nobodys_order_changes_with_time(one: int, other: int, early: float, late: float) -> None:
    """What lets the queue be sorted once: priorities differ by the same at any time."""
    jobs = [(spec(nice=one), early), (spec(nice=other), late)]
    keys = [queue.key(at, job, since, SITE) for at, (job, since) in enumerate(jobs)]
    for now in (1e6, 1e8):
        first, second = [queue.priority(job, since, SITE, now) for job, since in jobs]
        if abs(first - second) > 1:
            assert (first > second) == (keys[0] < keys[1])


def test_size_counts_for_or_against() -> None:
    assert points(spec(ntasks=4), SIZED) - points(spec(ntasks=2), SIZED) == 500
    assert points(spec(ntasks=400), SIZED) == points(spec(ntasks=4), SIZED), "all is all"
    small = replace(SITE, weights=Weights(size=1000.0, favour_small=True))
    assert points(spec(ntasks=1, cpus_per_task=2), small) - points(spec(ntasks=4), small) == 500


def test_a_partitions_factor_counts_and_its_tier_goes_before_everything() -> None:
    site = replace(SITE, weights=Weights(partition=100.0))
    assert points(spec(partition="q"), site) - points(spec(), site) == 75
    last = queue.key(9, spec(partition="top,p", nice=10000), 1e9, SITE)
    assert last < queue.key(1, spec(nice=-10000), 0.0, SITE)
    assert queue.key(2, spec(partition="p,top"), 0.0, SITE) < queue.key(3, spec(), 0.0, SITE)


def test_points_never_reach_zero_which_is_a_held_jobs() -> None:
    assert points(spec(nice=2147483645), SITE) == 1


def test_a_partition_that_is_gone_is_no_reason_to_fall_over() -> None:
    assert queue.key(1, spec(partition="gone"), 0.0, SITE)[0] == -1
