"""Which of a job's CPUs each of its steps has."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from roadstead.core.lifecycle import Place
from roadstead.core.model import Gres, Share, StepRequest
from roadstead.core.seats import Seats


def seats_of(*cpus: int) -> Seats:
    return Seats((Share(node="n", cpus=cpus),))


def place(cpus: tuple[int, ...], ntasks: int = 1, *, claimed: bool) -> Place:
    return Place(shares=(Share(node="n", cpus=cpus, ntasks=ntasks),), claimed=claimed)


STEP = StepRequest(name="s", argv=("s",), cwd="/")
EXACT = replace(STEP, exact=True)


def test_a_step_has_all_cpus_of_its_job() -> None:
    seats = seats_of(0, 1)
    assert seats.place(0, STEP) == place((0, 1), claimed=True)
    assert seats.place(1, EXACT) is None
    seats.leave(0)
    assert seats.place(1, EXACT) == place((0,), claimed=True)


def test_exact_steps_stand_side_by_side() -> None:
    seats = seats_of(0, 1)
    assert seats.place(0, EXACT) == place((0,), claimed=True)
    assert seats.place(1, EXACT) == place((1,), claimed=True)
    assert seats.place(2, STEP) is None


def test_overlapping_steps_share() -> None:
    seats = seats_of(0, 1)
    overlap = replace(STEP, overlap=True)
    assert seats.place(0, overlap) == place((0, 1), claimed=False)
    assert seats.place(1, STEP) == place((0, 1), claimed=True)
    assert seats.place(2, overlap) == place((0, 1), claimed=False)


def test_a_step_inside_a_step_uses_what_that_one_has() -> None:
    seats = seats_of(0, 1)
    seats.place(0, EXACT)
    inner = replace(STEP, parent_step=0)
    assert seats.place(1, inner) == place((0,), claimed=True)
    assert seats.place(2, inner) is None, "its sibling has them"
    assert seats.place(3, replace(STEP, parent_step=1)) == place((0,), claimed=True)
    assert seats.place(4, EXACT) == place((1,), claimed=True), "a stranger has its own"


def test_steps_wait_in_the_order_they_came() -> None:
    seats = seats_of(0, 1)
    seats.place(0, STEP)
    seats.wait(1, STEP)
    seats.wait(2, EXACT)
    assert seats.has_line(EXACT)
    assert seats.next() is None
    seats.leave(0)
    assert seats.next() == (1, place((0, 1), claimed=True))
    assert seats.next() is None
    seats.leave(1)
    assert seats.next() == (2, place((0,), claimed=True))


def test_an_inner_step_does_not_wait_behind_those_who_wait_for_its_parent() -> None:
    seats = seats_of(0)
    seats.place(0, STEP)
    seats.wait(1, STEP)
    inner = replace(STEP, parent_step=0)
    assert not seats.has_line(inner)
    assert seats.place(2, inner) == place((0,), claimed=True)


def test_what_can_never_be_placed() -> None:
    seats = seats_of(0, 1)
    many = replace(STEP, ntasks=3)
    assert not seats.can_ever_place(many)
    assert seats.can_ever_place(replace(many, overcommit=True))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.integers(1, 3)), max_size=12))
@settings(max_examples=40)
def test_a_cpu_has_one_claimant_or_a_line_of_ancestors(moves: list[tuple[bool, int, int]]) -> None:
    seats = seats_of(0, 1, 2)
    placed: dict[int, tuple[StepRequest, Place]] = {}
    for number, (exact, parent, ntasks) in enumerate(moves):
        inside = parent if parent in placed else None
        request = replace(STEP, exact=exact, ntasks=ntasks, parent_step=inside)
        found = seats.place(number, request)
        if found is not None:
            placed[number] = (request, found)
        for cpu in (0, 1, 2):
            here = [step for step, (_, at) in placed.items() if cpu in at.shares[0].cpus]
            # Newest first, each is the child, grandchild … of all that are older.
            for step in here[1:]:
                line, above = [], placed[step][0].parent_step
                while above is not None:
                    line.append(above)
                    above = placed[above][0].parent_step
                assert set(here[: here.index(step)]) <= set(line)


NODES = (
    Share(node="n1", cpus=(0, 1), memory=100),
    Share(node="n2", cpus=(0, 1), memory=100),
    Share(node="n3", cpus=(0,), memory=100),
)


def laid_out(found: Place | None) -> list[tuple[str, int, int]]:
    assert found is not None
    return [(share.node, share.ntasks, len(share.cpus)) for share in found.shares]


def test_a_step_has_all_nodes_of_its_job() -> None:
    wanted = replace(STEP, ntasks=4)
    assert laid_out(Seats(NODES).place(0, wanted)) == [("n1", 2, 2), ("n2", 1, 2), ("n3", 1, 1)]


def test_a_step_of_fewer_tasks_or_nodes_has_the_first_nodes() -> None:
    assert laid_out(Seats(NODES).place(0, replace(STEP, ntasks=2))) == [("n1", 1, 2), ("n2", 1, 2)]
    wanted = replace(STEP, ntasks=2, nodes=1, exact=True)
    assert laid_out(Seats(NODES).place(0, wanted)) == [("n1", 2, 2)]
    per_node = replace(STEP, ntasks=3, ntasks_per_node=1)
    assert [ntasks for _, ntasks, _ in laid_out(Seats(NODES).place(0, per_node))] == [1, 1, 1]


def test_exact_steps_share_the_nodes_of_a_job() -> None:
    seats = Seats(NODES)
    wanted = replace(EXACT, ntasks=2, nodes=2)
    assert laid_out(seats.place(0, wanted)) == [("n1", 1, 1), ("n2", 1, 1)]
    assert laid_out(seats.place(1, replace(EXACT, ntasks=3))) == [
        ("n1", 1, 1), ("n2", 1, 1), ("n3", 1, 1),
    ]  # fmt: skip
    assert seats.place(2, EXACT) is None


GPUS = Gres(name="gpu", type="a", count=2, indexes=(0, 1), files=("/dev/g0", "/dev/g1"))


def test_a_step_sees_all_devices_or_has_those_it_asks_for() -> None:
    seats = Seats((Share(node="n", cpus=(0, 1, 2), gres=(GPUS,)),))
    one = replace(EXACT, gres=(Gres(name="gpu"),))
    units = []
    for number in (0, 1):
        found = seats.place(number, one)
        assert found is not None
        units.append((found.shares[0].gres[0].indexes, found.shares[0].gres[0].files))
    assert units == [((0,), ("/dev/g0",)), ((1,), ("/dev/g1",))]
    assert seats.place(2, one) is None
    assert not seats.can_ever_place(replace(EXACT, gres=(Gres(name="gpu", count=3),)))
    everything = seats.place(3, EXACT)
    assert everything is not None
    assert everything.shares[0].gres == (GPUS,)
    seats.leave(0)
    again = seats.place(2, one)
    assert again is not None
    assert again.shares[0].gres[0].indexes == (0,)
