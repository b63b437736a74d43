"""Listings in few words say what the views of jobs say (core/listing.py), and squeue asks for all
that its columns read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from roadstead.cli import squeue
from roadstead.cli.squeue_columns import JOBS, READS
from roadstead.cli.words import Clock
from roadstead.core import answers, listing, views
from roadstead.core.events import Facts
from roadstead.errors import EngineError
from tests.support import recorded
from tests.unit.test_control import TwoNodes

FIELDS = sorted(listing._KNOWN)


@pytest.fixture
def world() -> TwoNodes:
    """Jobs in each state: one runs and stands still, one completes, others wait for all reasons."""
    world = TwoNodes()
    world.submit(nodes="2", ntasks="2", account="science")
    ending = world.submit()
    world.cancel(str(ending))
    world.why("suspend", 1)
    world.submit(exclusive="", nodes="2")
    world.submit(exclusive="", nodes="2", nice="7", qos="high", time="5")
    world.submit(hold="")
    world.submit(dependency="afterok:1")
    world.submit(begin="uts600")
    world.submit(array="1-4%1")
    world.submit(array="1-2", hold="")
    world.submit(partition="one,main", priority="9", exclusive="", nodes="2")
    world.at += 50
    return world


def listed(world: TwoNodes, names: list[str]) -> Iterator[dict[str, Any]]:
    for group in listing.groups(world.state, world.state.jobs.values(), names, world.at):
        for row in zip(*group["columns"].values(), strict=True):
            yield {**group["same"], **dict(zip(group["columns"], row, strict=True))}


@pytest.mark.parametrize("names", [FIELDS, ["job_id"], ["job_id", "name"], ["job_id", "priority"]])
def test_a_listing_says_what_the_views_say(world: TwoNodes, names: list[str]) -> None:
    said = {view["job_id"]: view for view in listed(world, names)}
    for job in world.state.jobs.values():
        view = views.job(world.state, job, world.at)
        assert {name: said[job.id][name] for name in names} == {name: view[name] for name in names}
    assert len(said) == len(world.state.jobs)


def test_also_when_nothing_can_start(world: TwoNodes) -> None:
    for job_id in list(world.state.jobs):
        world.why("release", job_id)
    world.node("n[1-2]", "DRAIN")
    said = {view["job_id"]: view["reason"] for view in listed(world, ["job_id", "reason"])}
    found = {job.id: views.reason(world.state, job, world.at) for job in world.state.jobs.values()}
    assert said == found
    assert any(reason.startswith("ReqNodeNotAvail") for reason in found.values())


@pytest.mark.parametrize("names", [None, [], "job_id", ["job_id", "work_dir"], ["bogus"]])
def test_what_cannot_be_listed(world: TwoNodes, names: Any) -> None:
    with pytest.raises(EngineError, match="malformed request"):
        listing.groups(world.state, [], names, world.at)


@pytest.mark.parametrize("letter", READS)
def test_columns_read_what_is_asked_for(letter: str) -> None:
    (column,) = [each for each in JOBS if each.letter == letter]
    clock = Clock(recorded.NOW)
    for view in recorded.JOBS:
        known = {"het_job_id": None, **view}
        narrow = {name: known.get(name) for name in READS[letter].split()}
        assert column.value(narrow, clock) == column.value(view, clock)
        assert column.order(narrow, clock) == column.order(view, clock)
    assert set(READS[letter].split()) <= listing._KNOWN


ALL = "|".join(f"%{letter}" for letter in READS)


@pytest.mark.parametrize(
    "argv",
    [
        [], ["-l"], ["-h"], ["-r"], ["-t", "all"], ["-t", "PD,S"], ["-t", "F"], ["--me"],
        ["-u", "root"], ["-u", "1"], ["-n", "job,x"], ["-A", "science"], ["-q", "high", "-S", "y"],
        ["-w", "n1"], ["-j", "2,5,9,10"], ["-p", "one"], ["-S", "p,-i"], ["-S", "l,-t,j"],
        ["-S", "-M,S"], ["-S", "R,-y"], ["-o", ALL], ["-r", "-o", ALL], ["-t", "all", "-o", ALL],
        ["-r", "-o", "100%%|a%.3i|%.4l|%-9M %.1t%2T %.20R "], ["-o", "nothing"], ["-o", "%T"],
        ["-O", "jobid:.7,name,reasonlist:12"], ["-S", "-r", "-o", "%i %r"],
    ],
)  # fmt: skip
def test_squeue_prints_of_groups_what_it_prints_of_views(
    world: TwoNodes, argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the columns, the order and the filters."""
    world.submit(job_name="a\tb", array="3,5")
    in_groups = []

    def in_few_words(query: dict[str, Any]) -> dict[str, Any]:
        told = answers.answer(world.state, query, Facts(), world.at)
        in_groups.append("groups" in told)
        return told

    def in_full(query: dict[str, Any]) -> dict[str, Any]:
        return in_few_words({key: value for key, value in query.items() if key != "fields"})

    said = []
    for ask in (in_few_words, in_full):
        code = squeue.main(argv, ask, environ={}, now=world.at)
        said.append((code, *capsys.readouterr()))
    assert said[0] == said[1]
    assert any(in_groups[: len(in_groups) // 2])
    assert not any(in_groups[len(in_groups) // 2 :])
