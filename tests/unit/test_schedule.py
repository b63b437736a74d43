"""Who starts when: the scheduler's promises, held over workloads that nobody thought of."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from roadstead.core import needs, queue, schedule
from roadstead.core.model import Allocation, Gres, JobSpec
from roadstead.core.placement import Free, fit
from roadstead.core.pool import Pool
from roadstead.core.queue import Queue
from roadstead.core.schedule import Holding
from roadstead.core.site import Node, NodeCondition, Partition, Site
from roadstead.errors import RequestError

GPU = Gres(name="gpu", count=2, indexes=(0, 1))
N1 = Node(name="n1", cpus=(0, 1, 2, 5), memory=1000, gres=(GPU,), features=("fast",))
N2 = Node(name="n2", cpus=(0, 1), memory=500)
SITE = Site(
    nodes=(N1, N2),
    uid=1,
    partitions=(
        Partition(name="all", nodes=("n1", "n2"), default=True),
        Partition(name="small", nodes=("n2",), tier=5),
    ),
    licenses={"lic": 1},
)


def spec(ntasks: int = 1, **fields: Any) -> JobSpec:
    plain = JobSpec(
        kind="batch", name="x", user="u", uid=1, gid=1, cwd="/", ntasks=ntasks, partition="all"
    )
    return replace(plain, **fields)


@dataclass
class Simulation:
    """A site whose jobs run as long as they are told to."""

    site: Site = SITE
    now: float = 1000.0
    pool: Pool = field(init=False)
    queue: Queue = field(default_factory=Queue)
    specs: dict[int, JobSpec] = field(default_factory=dict)
    running: dict[int, Allocation] = field(default_factory=dict)
    lengths: dict[int, float] = field(default_factory=dict)
    started: dict[int, float] = field(default_factory=dict)
    conditions: dict[str, NodeCondition] = field(default_factory=dict)
    reserved: dict[int, float] = field(default_factory=dict)
    groups: dict[int, range] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pool = Pool(self.site.nodes, self.site.licenses)

    def submit(self, wanted: JobSpec, length: float = 1e9) -> int:
        return self.submit_together([wanted], length)

    def submit_together(self, wanted: list[JobSpec], length: float = 1e9) -> int:
        """A job, of several components if there are several."""
        job_id = len(self.specs) + 1
        self.groups[job_id] = range(job_id, job_id + len(wanted))
        for number, each in zip(self.groups[job_id], wanted, strict=True):
            self.specs[number], self.lengths[number] = each, length
        self.queue.add(queue.key(job_id, wanted[0], self.now, self.site))
        return job_id

    def turn(self) -> list[int]:
        """One turn of the scheduler; who started."""
        waiting = [(n, [self.specs[each] for each in self.groups[n]]) for n in self.queue]
        holdings = [Holding(self.specs[j], granted) for j, granted in self.running.items()]
        made = schedule.plan(waiting, holdings, self.pool, self.site, self.conditions, self.now)
        for start in made.starts:
            limit = self.specs[start.job_id].time_limit
            self.queue.remove(start.job_id)
            self.started[start.job_id] = self.now
            self.running[start.job_id] = Allocation(
                job_id=start.job_id,
                shares=start.shares,
                started_at=self.now,
                ends_at=None if limit is None else self.now + limit,
                partition=start.partition,
            )
        for each in made.reservations[:1]:
            self.reserved.setdefault(each.job_id, each.start)
        begun = {start.job_id for start in made.starts}
        for group in self.groups.values():
            assert not begun & set(group) or begun >= set(group), "together or not at all"
        self.check()
        return [start.job_id for start in made.starts]

    def end(self, job_id: int) -> None:
        self.pool.give_back(self.specs[job_id], self.running.pop(job_id))

    def run(self) -> None:
        """Until nobody waits or runs; everybody ends by its limit."""
        self.turn()
        while self.running:
            ends = {j: self.started[j] + self.lengths[j] for j in self.running}
            self.now = min(ends.values())
            for job_id in [j for j, at in ends.items() if at <= self.now]:
                self.end(job_id)
            self.turn()

    def check(self) -> None:
        """Nothing is given twice, and all that is not given is free."""
        for node in self.site.nodes:
            mine = [
                share
                for granted in self.running.values()
                for share in granted.shares
                if share.node == node.name
            ]
            cpus = [cpu for share in mine for cpu in share.cpus]
            free = self.pool.nodes[node.name]
            assert sorted([*cpus, *free.cpus]) == sorted(node.cpus)
            assert free.memory == node.memory - sum(share.memory for share in mine) >= 0
            units = [i for share in mine for each in share.gres for i in each.indexes]
            assert len(set(units)) == len(units)
            assert len(units) <= sum(each.count for each in node.gres)
        assert self.pool.licenses["lic"] >= 0


def test_first_come_first_served() -> None:
    world = Simulation(replace(SITE, backfill=False))
    world.submit(spec(2))
    world.submit(spec(6))
    world.submit(spec(1))
    assert world.turn() == [1]
    world.end(1)
    assert world.turn() == [2]


def test_what_delays_nobody_goes_ahead() -> None:
    world = Simulation()
    world.submit(spec(2, time_limit=600), 600)
    world.submit(spec(6, time_limit=60), 60)
    world.submit(spec(1, time_limit=700))
    world.submit(spec(1, time_limit=500), 500)
    world.submit(spec(1))
    assert world.turn() == [1, 4], "the third would be there too long, the last perhaps for ever"
    assert world.reserved[2] == 1600.0


def test_without_limits_nobody_overtakes_who_waits_for_the_whole_node() -> None:
    world = Simulation()
    world.submit(spec(1))
    world.submit(spec(4, nodes=1, max_nodes=1, nodelist=("n1",)))
    world.submit(spec(1, nodelist=("n1",)))
    world.submit(spec(1))
    assert world.turn() == [1, 4], "the other node is nobody's business"


def test_a_node_that_is_not_up_takes_nobody() -> None:
    world = Simulation()
    world.conditions["n1"] = NodeCondition(word="DRAIN")
    world.submit(spec(1, gres=(Gres(name="gpu"),)))
    world.submit(spec(2))
    assert world.turn() == [2]
    assert [share.node for share in world.running[2].shares] == ["n2"]


def test_devices_and_licences_are_given_once() -> None:
    world = Simulation()
    world.submit(spec(1, gres=(Gres(name="gpu", count=2),)))
    world.submit(spec(1, gres=(Gres(name="gpu"),)))
    world.submit(spec(1, licenses=(Gres(name="lic"),)))
    world.submit(spec(1, licenses=(Gres(name="lic"),)))
    assert world.turn() == [1, 3]
    assert world.running[1].shares[0].gres == (GPU,)
    world.end(3)
    assert world.turn() == [4]


def test_a_higher_tier_goes_first_and_partitions_do_not_block_each_other() -> None:
    world = Simulation()
    world.submit(spec(6))
    world.submit(spec(2, partition="small"))
    world.submit(spec(4))
    assert world.turn() == [2], "the first and the third wait for n2"
    world = Simulation()
    world.submit(spec(2, partition="small,all"))
    world.submit(spec(2, partition="small,all"))
    world.turn()
    assert [granted.partition for granted in world.running.values()] == ["small", "all"]


def test_a_job_starts_in_a_partition_that_gives_so_many_nodes() -> None:
    partitions = (
        Partition(name="few", nodes=("n1", "n2"), max_nodes=1, default=True),
        Partition(name="many", nodes=("n1", "n2"), min_nodes=2),
    )
    world = Simulation(replace(SITE, partitions=partitions))
    one = world.submit(spec(1, partition="many,few"))
    two = world.submit(spec(3, nodes=2, partition="few,many"))
    world.submit(spec(6, partition="few"))
    assert world.turn() == [one, two], "the third would need more nodes than it gets"
    assert world.running[one].partition == "few"
    assert world.running[two].partition == "many"
    assert len(world.running[two].shares) == 2


def test_nice_priority_and_age() -> None:
    site = SITE
    hour = 3600.0
    plain = queue.key(1, spec(), 1000.0, site)
    assert queue.key(2, spec(), 1000.0, site) > plain, "same points: first come"
    assert queue.key(2, spec(nice=-1), 1000.0, site) < plain
    assert queue.key(2, spec(nice=100), 1000.0, site) > plain
    late = queue.key(2, spec(nice=-1), 1000.0 + hour, site)
    assert late > plain, "six points an hour make up for one"
    assert queue.priority(spec(nice=100), 1000.0, site, 1000.0) == 9900
    assert queue.priority(spec(), 1000.0, site, 1000.0 + 168 * hour) == 11000
    assert queue.priority(spec(priority=7.0), 1000.0, site, 1000.0) == 7


Workload = list[tuple[int, int, int, int, int, float]]
JOBS = st.tuples(
    st.integers(1, 6),  # tasks
    st.integers(0, 500),  # memory
    st.integers(1, 2),  # nodes
    st.integers(0, 2),  # GPUs
    st.integers(1, 50),  # limit
    st.floats(0.1, 1.0),  # how much of it is used
)
WORKLOADS = st.lists(JOBS, min_size=1, max_size=14)


def world_of(workload: Workload) -> Simulation:
    world = Simulation()
    for ntasks, memory, nodes, gpus, limit, used in workload:
        wanted = spec(
            max(ntasks, nodes),
            memory=memory,
            nodes=nodes,
            gres=(Gres(name="gpu", count=gpus),) if gpus and nodes == 1 else (),
            licenses=(Gres(name="lic"),) if limit % 5 == 0 else (),
            time_limit=limit,
        )
        if fit(wanted, [Free.all_of(node) for node in world.site.nodes]) is not None:
            world.submit(wanted, used * limit)
    return world


@given(WORKLOADS)
@example(
    [(1, 0, 1, 0, 1, 1.0)] * 3
    + [(1, 0, 1, 0, 1, 0.5), (1, 0, 1, 0, 1, 1.0), (2, 0, 1, 1, 1, 1.0), (1, 0, 1, 2, 1, 1.0)]
)  # an end less than a second away
@settings(max_examples=150, deadline=None)
@pytest.mark.long
def test_nobody_starves_and_nobody_is_later_than_reserved(workload: Workload) -> None:
    world = world_of(workload)
    world.run()
    assert set(world.started) == set(world.specs), "everybody has run"
    for job_id, at in world.reserved.items():
        assert world.started[job_id] <= at + 1e-6, "backfill has delayed who was first in line"


def test_components_start_together_or_wait_together() -> None:
    world = Simulation()
    blocker = world.submit(spec(3, time_limit=60), 60)
    assert world.turn() == [blocker]
    three = world.submit_together([spec(2), spec(1, nodelist=("n2",)), spec(3)], 10)
    small = world.submit(spec(1, time_limit=50), 50)
    late = world.submit(spec(1, time_limit=70), 70)
    assert world.turn() == [small], "it fits before the others can start; the last does not"
    assert world.reserved[three] == 1060.0
    world.run()
    assert [world.started[each] for each in (three, three + 1, three + 2)] == [1060.0] * 3
    assert world.started[late] >= 1060.0


def test_one_that_could_be_anywhere_leaves_the_only_place_of_another() -> None:
    world = Simulation(replace(SITE, nodes=(N2, N1)))
    first = world.submit_together([spec(1), spec(1, nodelist=("n2",), exclusive=True)])
    assert world.turn() == [first, first + 1]
    assert [share.node for share in world.running[first].shares] == ["n1"]


@given(st.lists(st.lists(JOBS, min_size=1, max_size=3), max_size=6))
@settings(max_examples=60, deadline=None)
@pytest.mark.long
def test_jobs_of_components_start_at_one_time_and_nobody_starves(
    jobs: list[list[tuple[int, int, int, int, int, float]]],
) -> None:
    world = Simulation()
    for parts in jobs:
        limit = parts[0][4]
        specs = [
            spec(max(ntasks, nodes), memory=memory, nodes=nodes, time_limit=limit)
            for ntasks, memory, nodes, *_ in parts
        ]
        try:
            needs.check_together("batch", specs, world.site)
        except RequestError:
            continue
        world.submit_together(specs, parts[0][5] * limit)
    world.run()
    for group in world.groups.values():
        assert len({world.started[each] for each in group}) == 1
    for job_id, at in world.reserved.items():
        assert world.started[job_id] <= at + 1e-6


@given(WORKLOADS)
@settings(max_examples=30, deadline=None)
@pytest.mark.long
def test_the_same_workload_runs_the_same_way(workload: Workload) -> None:
    one, other = world_of(workload), world_of(workload)
    one.run()
    other.run()
    assert one.started == other.started


@given(WORKLOADS, st.data())
@settings(max_examples=50, deadline=None)
@pytest.mark.long
def test_nothing_is_given_twice_whatever_ends_when(workload: Workload, data: st.DataObject) -> None:
    world = world_of(workload)
    for _ in range(len(workload)):
        world.turn()
        world.now += data.draw(st.floats(0, 30))
        if world.running:
            world.end(data.draw(st.sampled_from(sorted(world.running))))
