"""Who starts, and on which CPUs."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from roadstead.core.lifecycle import Place
from roadstead.core.model import JobSpec, StepRequest
from roadstead.core.schedule import Node, Queue, Resources, Seats, starts

NODE = Node(name="n", cpus=(0, 1, 2, 5), memory=1000)


def spec(ntasks: int, memory: int = 0) -> JobSpec:
    return JobSpec(
        kind="batch", name="x", user="u", uid=1, gid=1, cwd="/", ntasks=ntasks, memory=memory
    )


def waiting(*specs: JobSpec) -> tuple[Queue, dict[int, JobSpec]]:
    queue, jobs = Queue(), dict(enumerate(specs, start=1))
    for number in jobs:
        queue.add(number)
    return queue, jobs


def test_first_come_first_served() -> None:
    queue, jobs = waiting(spec(2), spec(3), spec(1))
    assert list(starts(queue, Resources(NODE), jobs.get)) == [(1, (0, 1))]
    assert queue.head(lambda job_id: True) == 2


def test_memory_is_reserved_as_cpus_are() -> None:
    queue, jobs = waiting(spec(1, 600), spec(1, 600))
    resources = Resources(NODE)
    assert [job_id for job_id, _ in starts(queue, resources, jobs.get)] == [1]
    resources.give_back((0,), 600)
    assert [job_id for job_id, _ in starts(queue, resources, jobs.get)] == [2]


def test_one_that_left_the_queue_does_not_hold_it_up() -> None:
    queue, jobs = waiting(spec(4), spec(4), spec(1))
    del jobs[1], jobs[2]
    assert list(starts(queue, Resources(NODE), jobs.get)) == [(3, (0,))]


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 1000)), max_size=8),
    st.lists(st.integers(0, 7), max_size=8),
)
@settings(max_examples=40)
def test_nothing_is_ever_given_twice(wanted: list[tuple[int, int]], ends: list[int]) -> None:
    queue, jobs = waiting(*(spec(*each) for each in wanted))
    resources = Resources(NODE)
    running: dict[int, tuple[int, ...]] = {}
    for end in [*ends, 0]:
        running |= dict(starts(queue, resources, jobs.get))
        taken = [cpu for cpus in running.values() for cpu in cpus]
        assert sorted(taken + list(resources.cpus)) == list(NODE.cpus)
        memory = sum(jobs[job_id].memory for job_id in running)
        assert resources.memory == NODE.memory - memory >= 0
        if running:
            job_id = list(running)[end % len(running)]
            resources.give_back(running.pop(job_id), jobs[job_id].memory)


STEP = StepRequest(name="s", argv=("s",), cwd="/")
EXACT = replace(STEP, exact=True)


def test_a_step_has_all_cpus_of_its_job() -> None:
    seats = Seats((0, 1))
    assert seats.place(0, STEP) == Place(cpus=(0, 1), claimed=True)
    assert seats.place(1, EXACT) is None
    seats.leave(0)
    assert seats.place(1, EXACT) == Place(cpus=(0,), claimed=True)


def test_exact_steps_stand_side_by_side() -> None:
    seats = Seats((0, 1))
    assert seats.place(0, EXACT) == Place(cpus=(0,), claimed=True)
    assert seats.place(1, EXACT) == Place(cpus=(1,), claimed=True)
    assert seats.place(2, STEP) is None


def test_overlapping_steps_share() -> None:
    seats = Seats((0, 1))
    overlap = replace(STEP, overlap=True)
    assert seats.place(0, overlap) == Place(cpus=(0, 1), claimed=False)
    assert seats.place(1, STEP) == Place(cpus=(0, 1), claimed=True)
    assert seats.place(2, overlap) == Place(cpus=(0, 1), claimed=False)


def test_a_step_inside_a_step_uses_what_that_one_has() -> None:
    seats = Seats((0, 1))
    seats.place(0, EXACT)
    inner = replace(STEP, parent_step=0)
    assert seats.place(1, inner) == Place(cpus=(0,), claimed=True)
    assert seats.place(2, inner) is None, "its sibling has them"
    assert seats.place(3, replace(STEP, parent_step=1)) == Place(cpus=(0,), claimed=True)
    assert seats.place(4, EXACT) == Place(cpus=(1,), claimed=True), "a stranger has its own"


def test_steps_wait_in_the_order_they_came() -> None:
    seats = Seats((0, 1))
    seats.place(0, STEP)
    seats.wait(1, STEP)
    seats.wait(2, EXACT)
    assert seats.has_line(EXACT)
    assert seats.next() is None
    seats.leave(0)
    assert seats.next() == (1, Place(cpus=(0, 1), claimed=True))
    assert seats.next() is None
    seats.leave(1)
    assert seats.next() == (2, Place(cpus=(0,), claimed=True))


def test_an_inner_step_does_not_wait_behind_those_who_wait_for_its_parent() -> None:
    seats = Seats((0,))
    seats.place(0, STEP)
    seats.wait(1, STEP)
    inner = replace(STEP, parent_step=0)
    assert not seats.has_line(inner)
    assert seats.place(2, inner) == Place(cpus=(0,), claimed=True)


def test_what_can_never_be_placed() -> None:
    seats = Seats((0, 1))
    many = replace(STEP, ntasks=3)
    assert not seats.can_ever_place(many)
    assert seats.can_ever_place(replace(many, overcommit=True))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.integers(1, 3)), max_size=12))
@settings(max_examples=40)
def test_a_cpu_has_one_claimant_or_a_line_of_ancestors(moves: list[tuple[bool, int, int]]) -> None:
    seats = Seats((0, 1, 2))
    placed: dict[int, tuple[StepRequest, Place]] = {}
    for number, (exact, parent, ntasks) in enumerate(moves):
        inside = parent if parent in placed else None
        request = replace(STEP, exact=exact, ntasks=ntasks, parent_step=inside)
        place = seats.place(number, request)
        if place is not None:
            placed[number] = (request, place)
        for cpu in seats.cpus:
            here = [step for step, (_, place) in placed.items() if cpu in place.cpus]
            # Newest first, each is the child, grandchild … of all that are older.
            for step in here[1:]:
                line, above = [], placed[step][0].parent_step
                while above is not None:
                    line.append(above)
                    above = placed[above][0].parent_step
                assert set(here[: here.index(step)]) <= set(line)
