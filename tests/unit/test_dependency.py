"""Dependencies: read as a real Slurm 22.05 reads them, and met when they should be."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roadstead.core import dependency
from roadstead.core import lifecycle as life
from roadstead.core.model import BATCH_STEP
from roadstead.core.site import Node, Site
from roadstead.core.state import State
from roadstead.errors import RequestError
from tests.unit.test_reactor import ALLOCATION, SETTINGS, World

BLOCKED = {"hold": ""}
READ = {  # what was typed → what squeue -o %E shows of it, with 24 an array
    "afterok:1": "afterok:1(unfulfilled)",
    "afterok:1:2,after:1": "afterok:1(unfulfilled),afterok:2(unfulfilled),after:1(unfulfilled)",
    "afterok:1?afterany:1": "afterok:1(unfulfilled)?afterany:1(unfulfilled)",
    "after:1+5": "after:1+5(unfulfilled)",
    "singleton,afterok:1": "singleton(unfulfilled),afterok:1(unfulfilled)",
    "1": "afterany:1(unfulfilled)",
    "afterok:24_1": "afterok:24_1(unfulfilled)",
    "afterok:24": "afterok:24_*(unfulfilled)",
    "afterok:24_*": "afterok:24_*(unfulfilled)",
    "aftercorr:24": "aftercorr:24_*(unfulfilled)",
    "afterok:24_[1-2]": "afterok:24_1(unfulfilled),afterok:24_2(unfulfilled)",
    "": "",
}
REFUSED = (
    "bogus:1", "afterok", "afterok:", "after:1+x", "1:2", "afterok:x", "afterburstbuffer:1",
    "afterok:1+5", "afterok:0", "afterok:24_x", "singleton:1", "afterok:1,",
)  # fmt: skip


@pytest.mark.parametrize("text", READ)
def test_what_is_read_is_shown(text: str) -> None:
    assert dependency.text(dependency.parse(text), {24}) == READ[text]


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_none(text: str) -> None:
    with pytest.raises(RequestError, match="Job dependency problem"):
        dependency.parse(text)


def test_a_job_is_not_expanded() -> None:
    with pytest.raises(RequestError, match="Requested operation not supported on this system"):
        dependency.parse("expand:1")


class Two(World):
    """Two CPUs, so that a job of one starts at once."""

    def boot(self) -> None:
        node = Node(name="vm", cpus=tuple(range(64)), memory=1000)
        self.state = State(Site.of(node, 1), SETTINGS)
        self.timers.clear()

    def view(self, job_id: int) -> dict[str, Any]:
        found = self.heard(self.say("query", what="jobs", job_id=job_id))[0]["jobs"]
        return dict(next(each for each in found if each["job_id"] == job_id))

    def shown(self, job_id: int) -> tuple[str, str, str]:
        view = self.view(job_id)
        return view["state"], view["reason"], view["dependency"]

    def runs(self, job_id: int) -> bool:
        return self.view(job_id)["state"] == "RUNNING"

    def end(self, job_id: int, code: int = 0) -> None:
        self.ended((job_id, BATCH_STEP), code)


@pytest.fixture
def two() -> Two:
    return Two()


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize(
    ("kind", "after_good", "after_bad"),
    [
        ("afterok", True, False),
        ("afternotok", False, True),
        ("afterany", True, True),
        ("aftercorr", True, False),
    ],
)
@pytest.mark.parametrize("code", [0, 3])
@pytest.mark.parametrize("late", [False, True])
def test_after_the_end(
    two: Two, kind: str, after_good: bool, after_bad: bool, code: int, late: bool, restart: bool
) -> None:
    first = two.submit()
    if late:
        two.end(first, code)
    second = two.submit(dependency=f"{kind}:{first}")
    if not late:
        assert two.shown(second) == ("PENDING", "Dependency", f"{kind}:{first}(unfulfilled)")
        if restart:
            two.restart()
        two.end(first, code)
    if after_bad if code else after_good:
        assert two.runs(second)
    else:
        assert two.shown(second) == (
            "PENDING", "DependencyNeverSatisfied", f"{kind}:{first}(failed)",
        )  # fmt: skip


def test_after_the_start_and_some_minutes(two: Two) -> None:
    first = two.submit(hold="")
    at_once = two.submit(dependency=f"after:{first}")
    later = two.submit(dependency=f"after:{first}+5")
    assert not two.runs(at_once)
    two.control("release", first)
    assert two.runs(at_once)
    assert two.shown(later)[1:] == ("Dependency", f"after:{first}+5(unfulfilled)")
    assert two.timers["begin", later, ALLOCATION] == two.at + 300
    two.at += 300
    two.restart()
    two.due(("begin", later, ALLOCATION))
    assert two.runs(later)


def test_and_or(two: Two) -> None:
    one, other = two.submit(), two.submit()
    both = two.submit(dependency=f"afterok:{one},afterok:{other}")
    either = two.submit(dependency=f"afterok:{one}?afterok:{other}")
    two.end(one, 1)
    assert two.shown(both)[1] == "DependencyNeverSatisfied"
    assert two.shown(either)[1] == "Dependency"
    two.end(other)
    assert two.runs(either)


def test_an_invalid_dependency_can_end_a_job_and_those_behind_it(two: Two) -> None:
    first = two.submit()
    kill = {"kill-on-invalid-dep": "yes"}
    second = two.submit(dependency=f"afterok:{first}", **kill)
    third = two.submit(dependency=f"afterok:{second}", **kill)
    last = two.submit(dependency=f"afterany:{third}")
    two.end(first, 1)
    for job_id in (second, third):
        assert two.shown(job_id)[:2] == ("CANCELLED", "DependencyNeverSatisfied")
    assert two.runs(last)
    at_once = two.submit(dependency=f"afterok:{first}", **kill)
    assert two.shown(at_once)[0] == "CANCELLED"


def test_singletons_run_one_at_a_time(two: Two) -> None:
    name = {"job-name": "n"}
    plain = two.submit(**name)
    ones = [two.submit(dependency="singleton", **name) for _ in range(3)]
    assert two.shown(ones[0])[1:] == ("Dependency", "singleton(unfulfilled)")
    for at, before in enumerate((plain, ones[0], ones[1])):
        two.end(before)
        assert [two.view(each)["state"] for each in ones[at:]].count("RUNNING") == 1
        assert two.runs(ones[at])


def test_arrays_as_targets(two: Two) -> None:
    array = two.submit(array="0-1")
    whole = two.submit(dependency=f"afterok:{array}")
    element = two.submit(dependency=f"afterok:{array}_1")
    each = two.submit(dependency=f"aftercorr:{array}", array="0-2")
    assert two.runs(each + 2), "there is no element 2 to wait for"
    two.end(array + 1)
    assert two.runs(element)
    assert two.runs(each + 1)
    assert not two.runs(each)
    assert not two.runs(whole)
    two.end(array, 1)
    assert two.shown(whole)[1] == "DependencyNeverSatisfied"
    assert two.shown(each)[1] == "DependencyNeverSatisfied"


def test_nobody_waits_for_himself_or_in_a_circle(two: Two) -> None:
    first = two.submit(hold="")
    second = two.submit(dependency=f"afterok:{first}")
    for text in (f"afterok:{first}", f"afterok:{second}"):
        (error,) = two.control("update", first, changes={"dependency": text})
        assert error["why"].startswith("Job dependency problem")
    two.control("update", second, changes={"dependency": ""})
    assert two.runs(second)


def test_begin_and_deadline(two: Two) -> None:
    job_id = two.submit(begin=f"uts{int(two.at) + 60}")
    assert two.shown(job_id)[1] == "BeginTime"
    assert two.view(job_id)["start_time"] == two.at + 60
    two.restart()
    two.at += 60
    two.due(("begin", job_id, ALLOCATION))
    assert two.runs(job_id)
    late = two.submit(deadline=f"uts{int(two.at) + 600}", time="5", hold="")
    assert two.timers["deadline", late, ALLOCATION] == two.at + 300
    two.due(("deadline", late, ALLOCATION))
    assert two.shown(late)[:2] == ("DEADLINE", "DeadLine")


def test_requeued_after_the_end(two: Two) -> None:
    job_id = two.submit()
    two.submit()
    two.end(job_id, 3)
    assert two.control("requeue", job_id, special=True, hold=True) == []
    assert two.shown(job_id)[:2] == ("SPECIAL_EXIT", "JobHeldUser")
    assert two.view(job_id)["exit_code"] == 3
    two.restart()
    assert list(two.state.jobs) == sorted(two.state.jobs)
    two.control("release", job_id)
    assert two.runs(job_id)
    assert two.launched[-1].spec.env["SLURM_RESTART_COUNT"] == "1"
    assert two.launched[-1].payload == job_id
    two.end(job_id)
    two.due(("payload", job_id, ALLOCATION))
    assert two.journal.payload(job_id) == ({}, "")


def test_how_many_of_an_array_run_can_be_changed(two: Two) -> None:
    array = two.submit(array="0-3%1")
    for number, running in ((3, 3), (0, 4)):
        two.control("update", array, changes={"arraytaskthrottle": str(number)})
        states = [two.state.jobs[array + at].state.word for at in range(4)]
        assert states.count(life.RUNNING) == running


KINDS = ("after", "afterok", "afternotok", "afterany", "singleton")


@settings(max_examples=60, deadline=None)
@given(st.data())
@pytest.mark.long
def test_nobody_waits_for_what_has_come_true(data: st.DataObject) -> None:
    """Whatever happens, who still waits has an unmet need, and who runs has none."""
    two = Two()
    made: list[int] = []
    for _ in range(data.draw(st.integers(3, 14))):
        live = [each for each in made if each in two.state.jobs]
        running = [each for each in live if two.state.jobs[each].state.word == life.RUNNING]
        doing = data.draw(st.sampled_from(["submit", "submit", "end", "cancel", "restart"]))
        if doing == "submit" or not live:
            kinds = data.draw(st.lists(st.sampled_from(KINDS), max_size=2)) if made else []
            words = [
                kind if kind == "singleton" else f"{kind}:{data.draw(st.sampled_from(made))}"
                for kind in kinds
            ]
            joined = data.draw(st.sampled_from(",?")).join(words)
            options = {"job-name": data.draw(st.sampled_from("ab")), "dependency": joined}
            made.append(two.submit(**{name: text for name, text in options.items() if text}))
        elif doing == "end" and running:
            two.end(data.draw(st.sampled_from(running)), data.draw(st.sampled_from([0, 1])))
        elif doing == "cancel":
            two.cancel(str(data.draw(st.sampled_from(live))))
            for each in [key for key in two.supervisors if key[0] not in two.state.queue]:
                if each in two.state.steps and two.state.steps[each].state.word == life.COMPLETING:
                    two.ended(each, 143, "cancelled")
        elif doing == "restart":
            two.restart()
        for job in two.state.jobs.values():
            waits = job.spec.dependency is not None
            assert waits == (job.state.word == life.PENDING), "there is room for everybody"
            for need in job.spec.dependency.needs if job.spec.dependency else ():
                target = two.state.jobs.get(need.job_id)
                assert need.failed or need.kind == "singleton" or target is not None
