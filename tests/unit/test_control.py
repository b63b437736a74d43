"""scontrol's requests through the reactor: each effect, each refusal, and what a restart leaves."""

from __future__ import annotations

from typing import Any

import pytest

from roadstead.core import control, siteconf, waiting
from roadstead.core import effects as do
from roadstead.core import events as on
from roadstead.core import lifecycle as life
from roadstead.core.model import BATCH_STEP
from roadstead.core.site import Node
from roadstead.core.state import State
from tests.unit.test_reactor import ALLOCATION, SETTINGS, World

CONF = """\
NodeName=n[1-2] CPUs=2 RealMemory=100
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=10
PartitionName=one Nodes=n1 MaxTime=0:30
"""
MACHINE = Node(name="host", cpus=(0, 1, 2, 3), memory=1000)


class TwoNodes(World):
    """The World of test_reactor.py, with a roadstead.conf."""

    def boot(self) -> None:
        found = siteconf.parse(CONF, "conf", str, machine=MACHINE, uid=1, login={"USER": "root"})
        self.state = State(found.site, SETTINGS)
        self.timers.clear()

    def why(self, action: str, *jobs: int, **fields: Any) -> str:
        """Why it was not done to the only job that is named; "" where it was."""
        errors = self.control(action, *jobs, **fields)
        return str(errors[0].get("why") or errors[0]["sentence"]) if errors else ""

    def change(self, job_id: int, **changes: str) -> str:
        return self.why("update", job_id, changes=changes)

    def node(self, nodes: str, state: str, reason: str = "r") -> list[dict[str, Any]]:
        client = self.say("update_node", nodes=nodes, state=state, reason=reason)
        return self.heard(client)

    def end(self, job_id: int, code: int = 143) -> None:
        self.ended((job_id, BATCH_STEP), code, "cancelled" if code else "program")


@pytest.fixture
def world() -> TwoNodes:
    return TwoNodes()


PENDING = "Job is pending execution"
NOT_PENDING = "Job is no longer pending execution"
OVER = "Job/step already completing or completed"
DISABLED = "Requested operation is presently disabled"
NOBODY = "Invalid job id specified"


def in_state(world: TwoNodes, state: str) -> int:
    """A job that waits, is held, runs, stands still or is being ended."""
    if state == "PENDING":
        world.submit(exclusive="", nodes="2")
    job_id = world.submit(**({"hold": ""} if state == "HELD" else {}))
    if state == "SUSPENDED":
        assert world.why("suspend", job_id) == ""
    if state == "COMPLETING":
        world.cancel(str(job_id))
    expected = "PENDING" if state == "HELD" else state
    assert world.word(job_id) == expected
    return job_id


@pytest.mark.parametrize(
    ("action", "answers"),
    [
        #           PENDING  HELD     RUNNING      SUSPENDED    COMPLETING
        ("hold", ["", "", NOT_PENDING, NOT_PENDING, NOT_PENDING]),
        ("release", ["", "", NOT_PENDING, NOT_PENDING, NOT_PENDING]),
        ("requeue", [PENDING, PENDING, "", "", OVER]),
        ("suspend", [PENDING, PENDING, "", DISABLED, OVER]),
        ("resume", [PENDING, PENDING, DISABLED, "", OVER]),
    ],
)
@pytest.mark.parametrize("at", range(5))
def test_what_can_be_done_in_which_state(
    world: TwoNodes, action: str, answers: list[str], at: int
) -> None:
    state = ["PENDING", "HELD", "RUNNING", "SUSPENDED", "COMPLETING"][at]
    assert world.why(action, in_state(world, state)) == answers[at]


@pytest.mark.parametrize("action", control.ACTIONS)
def test_a_job_that_is_not_there(world: TwoNodes, action: str) -> None:
    assert world.why(action, 99, changes={}) == NOBODY
    job_id = world.submit()
    world.end(job_id, 0)
    again = action == "requeue"
    assert world.why(action, job_id, changes={}) == ("" if again else OVER)
    assert (job_id in world.state.jobs) == again


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"action": "burn", "jobs": [1]}, "malformed request: action"),
        ({"action": "hold", "jobs": 1}, "malformed request: action"),
        ({"action": "hold", "jobs": [None]}, "malformed request: jobs"),
        ({"action": "hold", "jobs": [True]}, "malformed request: jobs"),
        ({"action": "update", "jobs": [1]}, "malformed request: changes"),
        ({"action": "update", "jobs": [1], "changes": {"name": 1}}, "malformed request: changes"),
        ({"action": "hold", "jobs": ["nobody"]}, "Invalid job name specified: nobody"),
    ],
)
def test_requests_that_are_none(world: TwoNodes, fields: dict[str, Any], sentence: str) -> None:
    (answer,) = world.heard(world.say("control", **fields))
    assert (answer["event"], answer["sentence"]) == ("error", sentence)


def test_jobs_by_name_each_once_and_the_others_have_it_done(world: TwoNodes) -> None:
    jobs = [world.submit(job_name="a", hold=""), world.submit(job_name="a", hold="")]
    client = world.say("control", action="release", jobs=[jobs[0], 99, "a", jobs[0]])
    (answer,) = world.heard(client)
    assert answer["jobs"] == jobs
    assert answer["errors"] == [{"job_id": 99, "why": NOBODY}]
    assert [world.word(job_id) for job_id in jobs] == ["RUNNING", "RUNNING"]


# -- hold, release ---------------------------------------------------------------------------------


def test_a_held_job_lets_others_by_and_has_its_place_again(world: TwoNodes) -> None:
    world.submit(exclusive="", nodes="2")
    first, second = world.submit(exclusive="", nodes="2"), world.submit(exclusive="", nodes="2")
    world.at += 10
    assert list(world.state.queue) == [first, second]
    world.control("hold", first)
    assert list(world.state.queue) == [second]
    world.restart()
    assert list(world.state.queue) == [second]
    world.control("release", first)
    assert list(world.state.queue) == [first, second]


# -- requeue ---------------------------------------------------------------------------------------


def test_a_requeued_job_runs_again_with_its_number(world: TwoNodes) -> None:
    job_id = world.submit()
    world.control("requeue", job_id)
    assert do.Terminate((job_id, BATCH_STEP), "cancelled", 15) not in world.restart()
    assert world.word(job_id) == "COMPLETING"
    world.end(job_id)
    job = world.state.jobs[job_id]
    assert (job.state.word, job.restarts) == (life.RUNNING, 1)
    assert world.launched[-1].spec.env["SLURM_RESTART_COUNT"] == "1"
    assert world.launched[-1].spec.directory.endswith(f"/{job_id}.{BATCH_STEP}.1")


def test_requeued_and_held(world: TwoNodes) -> None:
    one, other = world.submit(), world.submit()
    world.control("requeue", one, hold=True)
    world.control("suspend", other)
    world.control("requeue", other)
    for job_id in (one, other):
        world.end(job_id)
        job = world.state.jobs[job_id]
        assert waiting.is_held(job)
        assert job_id not in world.state.queue
    pools = world.state.pool.nodes
    assert [pools[name].cpu_count for name in ("n1", "n2")] == [2, 2]


def test_who_is_not_requeued(world: TwoNodes) -> None:
    assert world.why("requeue", world.submit(no_requeue="")) == DISABLED
    world.run()
    assert world.why("requeue", 2) == "Only batch jobs are accepted or processed"


def test_how_it_is_to_wait_can_be_changed_while_it_ends(world: TwoNodes) -> None:
    one, marked, other = world.submit(), world.submit(), world.submit()
    world.control("requeue", one, hold=True)
    world.control("requeue", marked, special=True)
    world.control("requeue", other)
    for job_id, action in ((one, "release"), (marked, "release"), (other, "hold")):
        assert world.why(action, job_id) == ""
        world.end(job_id)
    assert [world.word(job_id) for job_id in (one, marked)] == [life.RUNNING, life.RUNNING]
    assert waiting.is_held(world.state.jobs[other])


def test_a_job_that_is_being_requeued_can_be_cancelled(world: TwoNodes) -> None:
    job_id = world.submit()
    world.control("requeue", job_id)
    world.cancel(str(job_id))
    world.end(job_id)
    assert world.word(job_id) == "CANCELLED"


# -- suspend, resume -------------------------------------------------------------------------------


def test_a_suspended_job_keeps_its_cpus_and_its_time(world: TwoNodes) -> None:
    job_id = world.submit(ntasks="2", time="1")
    world.step(job_id)
    assert world.timers == {("limit", job_id, ALLOCATION): 160.0}
    world.at = 130.0
    world.control("suspend", job_id)
    assert world.timers == {}
    assert world.state.pool.nodes["n1"].cpu_count == 0
    world.restart()
    assert world.timers == {}, "nobody's time runs while it stands still"
    world.at = 200.0
    effects = world.react(world_message(world, "resume", job_id))
    assert {each.step for each in effects if isinstance(each, do.Resume)} == {
        (job_id, BATCH_STEP),
        (job_id, 0),
    }
    assert world.timers == {("limit", job_id, ALLOCATION): 230.0}
    granted = world.state.jobs[job_id].state
    assert isinstance(granted, life.JobRunning)
    assert (granted.allocation.suspended, granted.allocation.ends_at) == (70.0, 230.0)


def world_message(world: TwoNodes, action: str, job_id: int) -> Any:
    body = {"op": "control", "action": action, "jobs": [job_id]}
    return on.Message(at=world.at, client=99, body=body, facts=on.Facts())


def test_a_step_that_ends_while_its_job_stands_still(world: TwoNodes) -> None:
    job_id = world.submit()
    world.control("suspend", job_id)
    world.end(job_id, 0)
    assert world.word(job_id) == "COMPLETED"


# -- update a job ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("5", 300), ("0:30", 30), ("+1", 180), ("-1", 60), ("-9", 60), ("+8", 600), ("10", 600)],
)
def test_a_time_limit(world: TwoNodes, value: str, seconds: int) -> None:
    job_id = world.submit(time="2")
    assert world.change(job_id, timelimit=value) == ""
    assert world.state.jobs[job_id].spec.time_limit == seconds
    assert world.timers == {("limit", job_id, ALLOCATION): 100.0 + seconds}
    world.restart()
    assert world.timers == {("limit", job_id, ALLOCATION): 100.0 + seconds}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"timelimit": "11"}, "Requested time limit is invalid (missing or exceeds some limit)"),
        ({"timelimit": "UNLIMITED"}, "Requested time limit is invalid"),
        ({"timelimit": "x"}, "Invalid TimeLimit specification"),
        ({"timelimit": "+UNLIMITED"}, "Invalid TimeLimit specification"),
        ({"nice": "x"}, "Invalid --nice specification"),
        ({"priority": "0"}, 'Invalid numeric value "0" for Priority.'),
        ({"partition": "none"}, "Batch job submission failed: invalid partition specified: none"),
        ({"requeue": "yes"}, "Invalid Requeue specification: yes; 0 or 1"),
        ({"name": "new", "timelimit": "x"}, "Invalid TimeLimit specification"),
    ],
    ids=str,
)
def test_a_change_that_cannot_be_changes_nothing(
    world: TwoNodes, changes: dict[str, str], why: str
) -> None:
    world.submit(exclusive="", nodes="2")
    jobs = [world.submit(time="2"), world.submit(time="2")]
    before = [world.state.jobs[job_id] for job_id in jobs]
    client = world.say("control", action="update", jobs=jobs, changes=changes)
    (answer,) = world.heard(client)
    assert [each["job_id"] for each in answer["errors"]] == jobs
    assert all(each["why"].startswith(why) for each in answer["errors"])
    assert [world.state.jobs[job_id] for job_id in jobs] == before


def test_what_cannot_be_changed_is_said_before_anything_is_done(world: TwoNodes) -> None:
    job_id = world.submit()
    sentence = world.change(job_id, name="new", account="a")
    assert sentence == "Update of this parameter is not supported: account=a"
    assert world.state.jobs[job_id].spec.name == "x"


def test_what_is_changed_while_it_waits_only(world: TwoNodes) -> None:
    job_id = world.submit()
    for changes in ({"nice": "1"}, {"priority": "5"}, {"partition": "one"}):
        assert world.change(job_id, **changes) == NOT_PENDING
    assert world.change(job_id, name="n", comment="c", requeue="0") == ""
    spec = world.state.jobs[job_id].spec
    assert (spec.name, spec.comment, spec.requeue) == ("n", "c", False)
    world.cancel(str(job_id))
    assert world.change(job_id, name="late") == OVER


def test_places_in_the_queue(world: TwoNodes) -> None:
    world.submit(exclusive="", nodes="2")
    first, second, third = [world.submit(time="0:20") for _ in range(3)]
    world.change(first, nice="10")
    world.change(third, priority="20000")
    assert list(world.state.queue) == [third, second, first]
    world.change(third, nice="0")
    assert list(world.state.queue) == [second, third, first]
    world.restart()
    assert list(world.state.queue) == [second, third, first]
    assert world.change(second, partition="one") == ""
    assert world.state.jobs[second].spec.partition == "one"
    wide = world.submit(nodes="2", time="0:20")
    assert "Node count specification invalid" in world.change(wide, partition="one")
    long = world.submit(time="1")
    assert "Requested time limit is invalid" in world.change(long, partition="one")


# -- nodes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "state", "reason", "sentence"),
    [
        ("n9", "DRAIN", "r", "Invalid node name specified: n9"),
        ("", "DRAIN", "r", "Invalid node name specified: "),
        ("n[1-", "DRAIN", "r", "Invalid hostlist: n[1-"),
        ("n1", "BROKEN", "r", "Invalid node state specified: BROKEN"),
        (
            "n1",
            "DRAIN",
            "",
            "You must specify a reason when DOWNING or DRAINING a node. Request denied",
        ),
        (
            "n1",
            "down",
            "",
            "You must specify a reason when DOWNING or DRAINING a node. Request denied",
        ),
    ],
)
def test_nodes_that_cannot_be_updated(
    world: TwoNodes, nodes: str, state: str, reason: str, sentence: str
) -> None:
    (answer,) = world.node(nodes, state, reason)
    assert (answer["event"], answer["sentence"]) == ("error", sentence)
    assert world.state.conditions == {}


def test_a_drained_node_takes_no_job_until_it_is_back(world: TwoNodes) -> None:
    running = world.submit(nodelist="n1")
    world.node("n[1-2]", "drain", "fan")
    waiting = world.submit()
    assert [world.word(running), world.word(waiting)] == ["RUNNING", "PENDING"]
    world.restart()
    condition = world.state.conditions["n2"]
    assert (condition.word, condition.reason, condition.user) == ("DRAIN", "fan", "root")
    assert condition.since == 100.0
    world.node("n2", "RESUME", "")
    assert world.word(waiting) == "RUNNING"
    world.node("ALL", "UNDRAIN", "")
    assert {each.word for each in world.state.conditions.values()} == {"UP"}


def test_a_node_that_is_down_ends_or_returns_what_ran_there(world: TwoNodes) -> None:
    again = world.submit(nodelist="n1")
    never = world.submit(nodelist="n1", no_requeue="")
    srun = world.run(nodelist="n2", ntasks="1")
    effects = world.react(_down(world, "n1"))
    assert {each.step for each in effects if isinstance(each, do.Terminate)} == {
        (again, BATCH_STEP),
        (never, BATCH_STEP),
    }
    assert all(each.signal == 9 for each in effects if isinstance(each, do.Terminate))
    world.end(again, 137)
    world.end(never, 137)
    assert [world.word(again), world.word(never)] == ["PENDING", "NODE_FAIL"]
    assert world.outcome(never).reason == "NodeDown"
    assert world.word(3) == "RUNNING", "the other node is not down"
    assert "exit" not in world.told(srun)


def _down(world: TwoNodes, nodes: str) -> Any:
    body = {"op": "update_node", "nodes": nodes, "state": "DOWN", "reason": "r"}
    return on.Message(at=world.at, client=98, body=body, facts=on.Facts())


def test_a_suspended_job_on_a_node_that_goes_down(world: TwoNodes) -> None:
    job_id = world.submit(no_requeue="")
    world.control("suspend", job_id)
    world.node("n1", "DOWN")
    world.end(job_id, 137)
    assert world.word(job_id) == "NODE_FAIL"


# -- who wants to hear of a job, and who of its step -----------------------------------------------


def ready(world: TwoNodes, job_id: int) -> int:
    return world.say("ready", job_id=job_id)


def test_who_waits_for_a_job_hears_that_it_has_its_nodes(world: TwoNodes) -> None:
    first = world.submit(exclusive="", nodes="2")
    assert world.told(ready(world, first)) == ["ready"]
    second, third = world.submit(exclusive="", nodes="2"), world.submit(hold="")
    client, other = ready(world, second), ready(world, third)
    assert world.told(client) == world.told(other) == []
    world.end(first, 0)
    world.cancel(str(third))
    assert world.told(client) == ["ready"]
    assert world.told(other) == ["exit"]
    assert world.told(ready(world, 99)) == ["error"]


def test_a_notice_goes_where_the_user_reads(world: TwoNodes) -> None:
    batch, waits = world.submit(), world.submit(hold="")
    assert world.why("notify", batch, sentence="hello") == ""
    assert do.Notify((batch, BATCH_STEP), "hello") in world.done
    assert world.why("notify", waits, sentence="hello") == PENDING
    client = world.say("allocate", options={}, argv=[])
    job_id = next(each["job_id"] for each in world.heard(client) if "job_id" in each)
    assert world.why("notify", job_id, sentence="hello") == ""
    assert world.heard(client)[-1] == {"event": "notice", "sentence": f"Job {job_id}: hello"}


def test_the_top_of_the_queue(world: TwoNodes) -> None:
    world.submit(exclusive="", nodes="2")
    jobs = [world.submit(exclusive="", nodes="2", nice=str(each)) for each in (0, 500)]
    assert list(world.state.queue) == jobs
    assert world.why("top", jobs[1]) == ""
    assert list(world.state.queue) == jobs[::-1]
    world.restart()
    assert list(world.state.queue) == jobs[::-1]
    assert world.why("top", 1) == NOT_PENDING


def test_a_steps_time_limit(world: TwoNodes) -> None:
    job_id = world.submit(time="5")
    key = (job_id, BATCH_STEP)
    client = world.say("update_step", job_id=job_id, step_id=BATCH_STEP, limit="2")
    assert world.told(client) == ["done"]
    started = world.state.steps[key].state.started_at  # type: ignore[union-attr]
    assert do.Limit(key, started + 120) in world.done
    world.say("update_step", job_id=job_id, step_id=BATCH_STEP, limit="UNLIMITED")
    assert do.Limit(key, started + 300) in world.done  # the job's own
    assert world.told(world.say("update_step", job_id=job_id, step_id=7, limit="2")) == ["error"]


# -- partitions ------------------------------------------------------------------------------------


def partition(world: TwoNodes, name: str, *, create: bool = False, **pairs: str) -> str:
    client = world.say("set_partition", name=name, create=create, pairs=pairs)
    answer = world.heard(client)[-1]
    return str(answer.get("sentence", ""))


def delete(world: TwoNodes, name: str) -> str:
    return str(world.heard(world.say("delete_partition", name=name))[-1].get("sentence", ""))


def test_partitions_come_change_and_go(world: TwoNodes) -> None:
    assert partition(world, "new", create=True, nodes="n2", maxtime="3") == ""
    found = world.state.site.partition("new")
    assert found is not None
    assert (found.nodes, found.max_time, found.default) == (("n2",), 180, False)
    assert partition(world, "new", default="YES", state="DOWN") == ""
    world.restart()
    default = world.state.site.default_partition
    assert default is not None
    assert (default.name, default.state, default.max_time) == ("new", "DOWN", 180)
    assert [each.name for each in world.state.site.partitions] == ["main", "one", "new"]
    job_id = world.submit()
    assert world.word(job_id) == "PENDING"
    assert delete(world, "new").startswith(f"Partition is in use: job {job_id}")
    assert partition(world, "new", state="UP") == ""
    assert world.word(job_id) == "RUNNING"
    world.end(job_id, 0)
    assert delete(world, "new") == ""
    world.restart()
    assert world.state.site.partition("new") is None


@pytest.mark.parametrize(
    ("name", "create", "pairs", "sentence"),
    [
        ("main", True, {}, "Partition main exists already"),
        ("gone", False, {"state": "UP"}, "Invalid partition name specified: gone"),
        ("a b", True, {}, "Invalid partition name: a b"),
        ("", True, {}, "Invalid partition name: "),
        ("main", False, {"bogus": "1"}, "Update of this parameter is not supported: bogus"),
        ("main", False, {"state": "bogus"}, "State=BOGUS: a partition is UP, DOWN, DRAIN or"),
        ("main", False, {"nodes": "n7"}, "partition main: there is no node n7"),
        ("main", False, {"maxtime": "x"}, "maxtime: Invalid maxtime"),
    ],
)
def test_what_no_partition_can_be(
    world: TwoNodes, name: str, create: bool, pairs: dict[str, str], sentence: str
) -> None:
    before = world.state.site
    assert partition(world, name, create=create, **pairs).startswith(sentence)
    assert delete(world, "gone") == "Invalid partition name specified: gone"
    assert world.state.site is before
