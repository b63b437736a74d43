"""Heterogeneous jobs: several that are one, from the command line to their steps."""

from __future__ import annotations

from typing import Any

import pytest

from roadstead.cli import components
from roadstead.cli.script import Directive
from roadstead.core import het
from roadstead.core.model import BATCH_STEP, StepRequest
from roadstead.errors import RequestError, UsageError
from tests.unit.test_reactor import World

SCRIPT = "#!/bin/sh\n"
Asked = dict[str, str]


def component(**options: str) -> dict[str, Any]:
    named = {name.replace("_", "-"): value for name, value in options.items()}
    return {"options": named, "argv": ["x"]}


@pytest.fixture
def world() -> World:
    return World()


def submit(world: World, *others: dict[str, Any], **options: str) -> int:
    told = world.heard(world.say("submit", script=SCRIPT, options=options, components=[*others]))
    return int(told[0]["job_id"])


def words(world: World, first: int, number: int = 2) -> list[str]:
    return [world.word(first + at) for at in range(number)]


# -- command lines ---------------------------------------------------------------------------------


def test_what_a_component_does_not_say_is_as_before_it() -> None:
    lines, rest = components.lines(
        "sbatch", ["-n1", "-t5", "--mem=9", "-p", "a", ":", "-N2", ":", "-t7", "job.sh", "x"]
    )
    assert rest == ["job.sh", "x"]
    script = [[Directive(2, ["--comment=one"])], [Directive(4, ["--comment=two"])]]
    found = components.gather("sbatch", lines, {"SBATCH_PARTITION": "b"}, script)
    assert found == [
        {"ntasks": "1", "time": "5", "mem": "9", "partition": "a", "comment": "one"},
        {"nodes": "2", "time": "5", "mem": "9", "partition": "b", "comment": "two"},
        {"time": "7", "mem": "9", "partition": "b", "comment": "two"},
    ]


def test_a_script_has_its_own_components() -> None:
    argvs = (["-n1"], ["hetjob"], ["packjob"], ["-n3"])
    found = components.of_script([Directive(at, argv) for at, argv in enumerate(argvs)])
    assert [[each.argv for each in part] for part in found] == [[["-n1"]], [], [["-n3"]]]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("-n1 a 1 : -n2 b", [("1", ["a", "1"]), ("2", ["b"])]),
        ("-n1 : -n2 b", [("1", ["b"]), ("2", ["b"])]),
        (": b", [(None, ["b"]), (None, ["b"])]),
    ],
)
def test_sruns_components_have_commands(line: str, found: list[tuple[str | None, Any]]) -> None:
    asked = components.commands("srun", line.split(), {})
    assert [(each.get("ntasks"), argv) for each, argv in asked] == found


def test_a_step_has_the_variables_of_its_component() -> None:
    env = {
        "SLURM_HET_SIZE": "2", "SLURM_NTASKS": "3", "SLURM_NTASKS_HET_GROUP_0": "1",
        "SLURM_NTASKS_HET_GROUP_1": "2", "SLURM_JOB_ID": "7", "SLURM_JOB_ID_HET_GROUP_1": "8",
    }  # fmt: skip
    asked = components.commands("srun", ["--het-group=0-1", "a"], env)
    assert [(each["ntasks"], each["het-group"], each["jobid"]) for each, _ in asked] == [
        ("1", "0", "7"), ("2", "1", "7"),
    ]  # fmt: skip
    alone = components.commands("srun", ["--het-group=1", "a"], env)
    assert [(each["ntasks"], each["het-group"]) for each, _ in alone] == [("2", "1")]
    plain = components.commands("srun", ["a"], env)
    assert plain == [({"ntasks": "1", "jobid": "7"}, ["a"])]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("-n1 a :", "No command given"),
        ("a : --pty b", "--pty is for all components of a step"),
        ("a : -o x b", "--output is for all components of a step"),
        (" : ".join(["a"] * 130), "at most 128 components"),
    ],
)
def test_wrong_components(line: str, error: str) -> None:
    with pytest.raises((RequestError, UsageError, Exception), match=error):
        components.commands("srun", line.split(), {})


@pytest.mark.parametrize(
    ("asked", "size", "found"),
    [
        (["0,1"], 2, [(0, 0), (1, 0)]),
        (["1", "0"], 2, [(0, 1), (1, 0)]),
        ([None, None], 2, [(0, 0), (1, 1)]),
        ([None], 3, [(0, 0)]),
        (["1-2", "0"], 3, [(0, 1), (1, 0), (2, 0)]),
        (["7"], 2, r"offset exceeds highest hetjob index \(7 > 1\)"),
        (["0", "0"], 2, "Duplicate het groups"),
        (["x"], 2, "Invalid --het-group value: x"),
        (["-1"], 2, "Invalid --het-group value"),
    ],
)
def test_het_groups(asked: list[str | None], size: int, found: object) -> None:
    if isinstance(found, str):
        with pytest.raises((RequestError, UsageError), match=found):
            het.groups(asked, size, split=False)
    else:
        assert het.groups(asked, size, split=False) == found


def test_parts_that_divide_a_plain_allocation() -> None:
    assert het.groups([None, None], 1, split=True) == [(0, 0), (0, 1)]


# -- jobs ------------------------------------------------------------------------------------------


def test_components_start_in_one_turn_and_end_with_the_script(world: World) -> None:
    first = submit(world, component(ntasks="1"), ntasks="1")
    assert words(world, first) == ["RUNNING"] * 2
    (launch,) = world.launched
    assert launch.payload == first
    assert world.supervisors == {(first, BATCH_STEP)}
    env = launch.spec.env
    assert env["SLURM_HET_SIZE"] == "2"
    assert env["SLURM_JOB_ID"] == env["SLURM_JOB_ID_HET_GROUP_0"] == str(first)
    assert env["SLURM_JOB_ID_HET_GROUP_1"] == str(first + 1)
    assert env["SLURM_NTASKS_HET_GROUP_1"] == env["SLURM_NTASKS_PACK_GROUP_1"] == "1"
    world.ended((first, BATCH_STEP), 3)
    assert words(world, first) == ["FAILED"] * 2
    assert [world.outcome(first + at).code for at in (0, 1)] == [3, 3]
    assert world.state.pool.nodes["vm"].cpu_count == 2


def test_they_wait_together(world: World) -> None:
    blocker = world.submit(ntasks="1")
    first = submit(world, component(ntasks="1"), ntasks="1")
    small = world.submit(ntasks="1")
    assert words(world, first) == ["PENDING"] * 2
    assert world.word(small) == "PENDING", "the blocker may be there for ever, as may it"
    shown = world.heard(world.say("query", what="jobs", job_id=first))[0]["jobs"]
    assert [(each["het_offset"], each["reason"]) for each in shown] == [
        (0, "Resources"), (1, "Resources"),
    ]  # fmt: skip
    world.restart()
    assert words(world, first) == ["PENDING"] * 2
    world.ended((blocker, BATCH_STEP))
    assert words(world, first) == ["RUNNING"] * 2


@pytest.mark.parametrize(
    ("others", "options", "error"),
    [
        ([component(ntasks="2")], {"ntasks": "2"}, "not available"),
        ([component(ntasks="3")], {}, "More processors"),
        ([component()], {"array": "0-1"}, "Invalid job array specification"),
        (["x"], {}, "malformed request"),
        ([component()] * 200, {}, "malformed request"),
    ],
)
def test_what_can_never_be(world: World, others: list[Any], options: Asked, error: str) -> None:
    told = world.heard(world.say("submit", script=SCRIPT, options=options, components=others))[0]
    assert error in told["sentence"]
    assert not world.state.jobs


@pytest.mark.parametrize("how", ["7", "7+0", "all"])
def test_cancelling_the_first_cancels_all(world: World, how: str) -> None:
    first = submit(world, component(ntasks="1"), ntasks="1")
    names = [f"{first}+0", f"{first}+1"] if how == "all" else [how.replace("7", str(first))]
    assert world.cancel(*names)["errors"] == []
    world.ended((first, BATCH_STEP), 143, "cancelled")
    assert words(world, first) == ["CANCELLED"] * 2


def test_a_component_that_runs_can_be_cancelled_alone(world: World) -> None:
    first = submit(world, component(ntasks="1"), ntasks="1")
    assert world.cancel(f"{first}+1")["errors"] == []
    assert words(world, first) == ["RUNNING", "CANCELLED"]
    refused = world.cancel(f"{first}+1", signal=10)["errors"]
    assert "Invalid job id" in refused[0]["sentence"]
    world.restart()
    world.ended((first, BATCH_STEP))
    assert words(world, first) == ["COMPLETED", "CANCELLED"]


def test_a_component_that_waits_cannot(world: World) -> None:
    first = submit(world, component(), hold="1")
    (refused,) = world.cancel(f"{first}+1")["errors"]
    assert refused["sentence"].endswith(het.NOT_WHOLE)
    assert world.cancel(str(first))["errors"] == []
    assert words(world, first) == ["CANCELLED"] * 2


def test_one_that_is_held_holds_all(world: World) -> None:
    first = submit(world, component(hold="1"), hold="1")
    assert words(world, first) == ["PENDING"] * 2
    assert world.control("release", f"{first}+0") == []  # type: ignore[arg-type]
    assert words(world, first) == ["PENDING"] * 2
    assert world.control("release", first) == []
    assert words(world, first) == ["RUNNING"] * 2


def test_a_requeue_is_of_all(world: World) -> None:
    first = submit(world, component(), ntasks="1")
    (refused,) = world.control("requeue", first + 1)
    assert refused["why"] == het.NOT_WHOLE
    assert world.control("requeue", first) == []
    assert words(world, first) == ["COMPLETING", "PENDING"]
    world.ended((first, BATCH_STEP), 143, "cancelled")
    assert words(world, first) == ["RUNNING"] * 2
    world.ended((first, BATCH_STEP))
    assert world.control("requeue", first) == [], "it is remembered"
    assert words(world, first) == ["RUNNING"] * 2


def test_a_requeue_waits_for_what_is_left_of_a_component(world: World) -> None:
    first = submit(world, component(), ntasks="1")
    world.step(first, het_group="1")
    world.control("requeue", first)
    world.ended((first, BATCH_STEP), 143, "cancelled")
    assert words(world, first) == ["PENDING", "COMPLETING"]
    world.ended((first + 1, 0), 143, "cancelled")
    assert words(world, first) == ["RUNNING"] * 2


# -- steps -----------------------------------------------------------------------------------------


def spanning(world: World, job_id: int, *others: dict[str, Any], **options: str) -> int:
    options["jobid"] = str(job_id)
    return world.say("run", options=options, in_job=job_id, components=[*others])


def test_steps_of_components_are_numbered_through(world: World) -> None:
    first = submit(world, component(ntasks="1"), ntasks="1")
    jobid = str(first)
    world.step(first)
    world.step(first, het_group="1")
    spanning(world, first, component(het_group="1", jobid=jobid), het_group="0")
    assert {key for key in world.supervisors if key[1] != BATCH_STEP} == {
        (first, 0), (first + 1, 1),
    }, "the third waits for both"  # fmt: skip
    world.ended((first, 0))
    assert (first, 2) not in world.supervisors
    world.ended((first + 1, 1))
    assert (first, 2) in world.supervisors
    spec = world.launched[-1].spec
    assert (spec.ntasks, [part.ntasks for part in spec.parts]) == (2, [1, 1])
    assert sorted(spec.cpus) == [0, 1]
    for part in spec.parts:
        assert part.env["SLURM_NTASKS"] == "2"
        assert part.env["SLURM_JOB_ID"] == jobid
        assert part.env["SLURM_NNODES"] == "1", "they share the machine's one node"
    assert world.state.steps_of(first + 1) == world.state.steps_of(first)[1:]
    world.step(first, het_group="1")
    assert (first + 1, 3) not in world.supervisors, "its CPUs are the spanning step's"
    world.ended((first, 2))
    assert (first + 1, 3) in world.supervisors


def test_srun_alone_has_one_step_in_all_components(world: World) -> None:
    client = world.say("run", options={"ntasks": "1"}, argv=["a"],
                       components=[component(ntasks="1") | {"argv": ["b"]}])  # fmt: skip
    (launch,) = world.launched
    first = launch.spec.job_id
    assert [part.argv for part in launch.spec.parts] == [("a",), ("b",)]
    assert launch.client == client
    assert words(world, first) == ["RUNNING"] * 2
    world.ended((first, 0), 4)
    assert world.told(client)[-1] == "exit"
    assert words(world, first) == ["FAILED"] * 2
    assert world.state.pool.nodes["vm"].cpu_count == 2


def test_salloc_is_told_of_each_component(world: World) -> None:
    client = world.say("allocate", options={"ntasks": "1"}, components=[component(ntasks="1")])
    (granted,) = [each for each in world.heard(client) if each["event"] == "granted"]
    env = granted["env"]
    assert env["SLURM_NTASKS"] == "2"
    assert "SLURM_JOB_NODELIST" not in env
    assert env["SLURM_JOB_NODELIST_HET_GROUP_1"] == "vm"
    first = granted["job_id"]
    world.say("release", client=client, code=0)
    assert words(world, first) == ["COMPLETED"] * 2


def test_a_component_that_goes_takes_a_spanning_step_along(world: World) -> None:
    first = submit(world, component(ntasks="1"), ntasks="1")
    jobid = str(first)
    spanning(world, first, component(het_group="1", jobid=jobid), het_group="0")
    world.cancel(f"{first}+1")
    assert words(world, first) == ["RUNNING", "COMPLETING"]
    world.ended((first, 0), 143, "cancelled")
    assert words(world, first) == ["RUNNING", "CANCELLED"]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"het_group": "2"}, "offset exceeds highest hetjob index (2 > 1)"),
        ({"het_group": "x"}, "Invalid --het-group value: x"),
        ({"het_group": "1", "ntasks": "2"}, "More processors requested"),
    ],
)
def test_steps_that_cannot_be(world: World, options: Asked, error: str) -> None:
    first = submit(world, component(ntasks="1"), ntasks="1")
    client = world.step(first, **options)
    assert error in world.heard(client)[0]["sentence"]


def test_a_plain_allocation_is_divided_by_parts(world: World) -> None:
    job_id = world.submit(ntasks="2")
    jobid = str(job_id)
    spanning(world, job_id, component(ntasks="1", jobid=jobid), ntasks="1")
    spec = world.launched[-1].spec
    assert [[share.cpus for share in part.shares] for part in spec.parts] == [[(0,)], [(1,)]]
    client = spanning(world, job_id, component(ntasks="2", jobid=jobid), ntasks="1")
    assert "More processors" in world.heard(client)[0]["sentence"]


def test_an_adopted_step_keeps_its_claims(world: World) -> None:
    first = submit(world, component(ntasks="1"), ntasks="1")
    jobid = str(first)
    spanning(world, first, component(het_group="1", jobid=jobid), het_group="0")
    world.restart()
    world.step(first, het_group="1")
    assert (first + 1, 1) not in world.supervisors
    world.ended((first, 0))
    assert (first + 1, 1) in world.supervisors


def test_a_whole_has_no_environment_in_its_parts() -> None:
    part = StepRequest(name="s", argv=("s",), cwd="/", env={"SECRET": "x"})
    whole = het.whole([part, part], {"SECRET": "x"})
    assert [each.env for each in whole.parts] == [{}, {}]
    assert whole.ntasks == 2


def test_a_group_of_no_allocation(world: World) -> None:
    for text, why in (("0", "there is no allocation"), ("x", "Invalid --het-group value: x")):
        client = world.run(**{"het-group": text})
        assert why in world.heard(client)[0]["sentence"]
    assert not world.state.jobs


def test_a_job_that_has_lost_a_component_does_not_run_again(world: World) -> None:
    first = submit(world, component(ntasks="1"), ntasks="1")
    world.cancel(f"{first}+1")
    (refused,) = world.control("requeue", f"{first}+0")  # type: ignore[arg-type]
    assert refused["why"] == "Job/step already completing or completed"
    world.say("update_node", nodes="vm", state="DOWN", reason="r")
    world.ended((first, BATCH_STEP), 137, "cancelled")
    assert words(world, first) == ["NODE_FAIL", "CANCELLED"], "and not in the queue for ever"


def test_a_node_that_fails_takes_all_components_back_to_the_queue(world: World) -> None:
    first = submit(world, component(ntasks="1"), ntasks="1")
    world.say("update_node", nodes="vm", state="DOWN", reason="r")
    world.ended((first, BATCH_STEP), 137, "cancelled")
    assert words(world, first) == ["PENDING"] * 2
    world.say("update_node", nodes="vm", state="RESUME")
    assert words(world, first) == ["RUNNING"] * 2


def test_a_component_is_cancelled_while_the_others_go_back_to_the_queue(world: World) -> None:
    first = submit(world, component(ntasks="1"), ntasks="1")
    world.step(first, het_group="1")
    world.control("requeue", first)
    world.ended((first, BATCH_STEP), 143, "cancelled")
    assert words(world, first) == ["PENDING", "COMPLETING"]
    world.cancel(f"{first}+1")
    world.ended((first + 1, 0), 143, "cancelled")
    assert words(world, first) == ["CANCELLED"] * 2


def test_srun_whose_component_is_cancelled_ends_as_a_whole(world: World) -> None:
    client = world.say("run", options={"ntasks": "1"}, argv=["a"], components=[component()])
    first = world.launched[-1].spec.job_id
    world.cancel(str(first + 1))
    world.ended((first, 0), 143, "cancelled")
    assert words(world, first) == ["CANCELLED"] * 2
    assert world.told(client)[-1] == "exit"
