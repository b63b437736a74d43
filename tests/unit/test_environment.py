"""The SLURM_* variables, against the names that a real Slurm 22.05 set, and --export."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from roadstead.core import environment
from roadstead.core.lifecycle import Job, JobRunning
from roadstead.core.model import (
    Allocation,
    ContainerRequest,
    Gres,
    JobSpec,
    Share,
    StepRequest,
)

SPEC = JobSpec(
    kind="batch",
    name="b.sh",
    user="alice",
    uid=1001,
    gid=1002,
    cwd="/w",
    submit_dir="/home/alice",
    ntasks=2,
    partition="local",
    asked=("ntasks",),
)
GRANTED = Allocation(job_id=2, shares=(Share(node="vm", cpus=(0, 1), ntasks=2),), started_at=1.0)
SHARES = GRANTED.shares
JOB = Job(id=2, spec=SPEC, submitted_at=0.0, state=JobRunning(allocation=GRANTED))
WANTED = StepRequest(name="env", argv=("env",), cwd="/w", ntasks=2)

# `env | grep SLURM` under salloc -n2, in sbatch -n2's script, and in a step of either, less
# SLURM_CONF, SLURM_WORKING_CLUSTER and SLURM_TASK_PID, and the task's own four.
SALLOC = (
    "CLUSTER_NAME JOBID JOB_CPUS_PER_NODE JOB_ID JOB_NAME JOB_NODELIST JOB_NUM_NODES "
    "JOB_PARTITION NNODES NODELIST NODE_ALIASES NPROCS NTASKS SUBMIT_DIR SUBMIT_HOST "
    "TASKS_PER_NODE"
)
NODE = "CPUS_ON_NODE JOB_GID JOB_UID JOB_USER PRIO_PROCESS TOPOLOGY_ADDR TOPOLOGY_ADDR_PATTERN"
STEP = (
    "LAUNCH_NODE_IPADDR SRUN_COMM_HOST SRUN_COMM_PORT STEPID STEP_ID STEP_LAUNCHER_PORT "
    "STEP_NODELIST STEP_NUM_NODES STEP_NUM_TASKS STEP_TASKS_PER_NODE UMASK"
)
IN_JOB = "DISTRIBUTION JOB_CPUS_PER_NODE_PACK_GROUP_0"


def slurm(*lists: str) -> set[str]:
    return {f"SLURM_{name}" for names in lists for name in names.split()}


def test_salloc_has_the_names_that_slurm_sets() -> None:
    env = environment.allocation(JOB, GRANTED)
    assert set(env) == slurm(SALLOC)
    assert env["SLURM_JOB_CPUS_PER_NODE"] == "2"
    assert env["SLURM_SUBMIT_DIR"] == "/home/alice"


def test_a_batch_script_has_the_names_that_slurm_sets() -> None:
    env = environment.batch(JOB, GRANTED)
    assert set(env) == slurm(SALLOC, NODE) | {"SLURMD_NODENAME", "ENVIRONMENT"}


def test_a_step_has_the_names_that_slurm_sets() -> None:
    env = environment.step(JOB, 0, GRANTED, WANTED, SHARES)
    own = {"SLURMD_NODENAME", "SRUN_DEBUG"}
    assert set(env) == slurm(SALLOC, NODE, STEP, IN_JOB) | own
    assert (env["SLURM_STEP_ID"], env["SLURM_NTASKS"], env["SLURM_UMASK"]) == ("0", "2", "0022")


def asking(**fields: Any) -> Job:
    return replace(JOB, spec=replace(SPEC, **fields))


def test_tasks_are_told_apart() -> None:
    assert environment.task(4, 1, 2, Share(node="n3", cpus=(0, 1), ntasks=2), range(3, 5)) == {
        "SLURM_PROCID": "4",
        "SLURM_LOCALID": "1",
        "SLURM_NODEID": "2",
        "SLURM_GTIDS": "3,4",
        "SLURM_CPUS_ON_NODE": "2",
        "SLURMD_NODENAME": "n3",
        "SLURM_TOPOLOGY_ADDR": "n3",
    }


def test_several_nodes_are_told_as_slurm_tells_them() -> None:
    shares = tuple(
        Share(node=f"n{number}", cpus=tuple(range(tasks)), ntasks=tasks)
        for number, tasks in enumerate((2, 2, 1), start=1)
    )
    granted = replace(GRANTED, shares=shares)
    env = environment.allocation(JOB, granted)
    assert (env["SLURM_JOB_CPUS_PER_NODE"], env["SLURM_JOB_NODELIST"]) == ("2(x2),1", "n[1-3]")
    env = environment.step(JOB, 0, granted, replace(WANTED, ntasks=2), shares[:2])
    assert (env["SLURM_STEP_NODELIST"], env["SLURM_STEP_TASKS_PER_NODE"]) == ("n[1-2]", "2(x2)")
    assert (env["SLURM_NNODES"], env["SLURM_STEP_NUM_NODES"]) == ("3", "2")


def test_gpus_are_named_where_they_are() -> None:
    gpus = Gres(name="gpu", type="a", count=2, indexes=(1, 3))
    share = Share(node="n", cpus=(0,), gres=(gpus,), ntasks=1)
    env = environment.task(0, 0, 0, share, range(1))
    assert (env["CUDA_VISIBLE_DEVICES"], env["SLURM_STEP_GPUS"]) == ("1,3", "1,3")
    assert env["SLURM_GPUS_ON_NODE"] == "2"
    batch = environment.batch(JOB, replace(GRANTED, shares=(share,)))
    assert (batch["SLURM_JOB_GPUS"], batch["CUDA_VISIBLE_DEVICES"]) == ("1,3", "1,3")


def test_a_job_that_starts_again_is_told_so() -> None:
    assert "SLURM_RESTART_COUNT" not in environment.batch(JOB, GRANTED)
    assert environment.batch(replace(JOB, restarts=2), GRANTED)["SLURM_RESTART_COUNT"] == "2"


def test_the_number_of_tasks_is_told_only_if_it_was_asked_for() -> None:
    asked = ("cpus-per-task", "mem")
    env = environment.allocation(asking(asked=asked, memory=100), GRANTED)
    assert "SLURM_NTASKS" not in env
    assert (env["SLURM_CPUS_PER_TASK"], env["SLURM_MEM_PER_NODE"]) == ("1", "100")


def test_a_container_is_the_steps_own() -> None:
    contained = asking(container=ContainerRequest(bundle="/b", id="x"))
    assert environment.batch(contained, GRANTED)["SLURM_CONTAINER"] == "/b"
    assert "SLURM_CONTAINER" not in environment.step(contained, 0, GRANTED, WANTED, SHARES)
    wanted = replace(WANTED, container=ContainerRequest(bundle="/c"))
    env = environment.step(contained, 0, GRANTED, wanted, SHARES)
    assert env["SLURM_CONTAINER"] == "/c"
    assert "SLURM_CONTAINER_ID" not in env


def test_a_new_job_does_not_take_itself_for_a_step_of_the_old_one() -> None:
    env = environment.step(JOB, 0, GRANTED, WANTED, SHARES) | environment.task(
        0, 0, 0, SHARES[0], range(1)
    )
    assert environment.without_job({**env, "SLURM_MINE": "x", "HOME": "/h"}) == {
        "SLURM_MINE": "x",
        "HOME": "/h",
    }


ENV = {"FOO": "foo", "BAR": "bar", "SLURM_MINE": "x"}
MINE = {"SLURM_MINE": "x"}


@pytest.mark.parametrize(
    ("option", "step", "batch"),
    [
        (None, ENV, ENV),
        ("ALL", ENV, ENV),
        ("all", ENV, ENV),
        ("NONE", MINE, {**MINE, "HOME": "/h"}),
        ("NIL", MINE, {**MINE, "HOME": "/h"}),
        ("FOO", {**MINE, "FOO": "foo"}, {**MINE, "FOO": "foo", "HOME": "/h"}),
        ("FOO,NEW=1", {**MINE, "FOO": "foo", "NEW": "1"}, None),
        ("ALL,NEW=1", {**ENV, "NEW": "1"}, {**ENV, "NEW": "1"}),
        ("FOO,ALL", ENV, ENV),
        # srun's users keep their value, sbatch's do not: so does Slurm.
        ("ALL,FOO=z", ENV, {**ENV, "FOO": "z"}),
        ("NEW=1,NEW=2", {**MINE, "NEW": "2"}, None),
        ("MISSING", MINE, None),
        ("=x", MINE, None),
        ("", MINE, None),
        ("NEW='a,b',FOO", {**MINE, "NEW": "'a,b'", "FOO": "foo"}, None),
        (r"NEW=a\,b", {**MINE, "NEW": "a\\"}, None),
    ],
)
def test_export(option: str | None, step: dict[str, str], batch: dict[str, str] | None) -> None:
    login = {"HOME": "/h"}
    assert environment.exported(ENV, option, login=login, batch=False) == step
    if batch is not None:
        assert environment.exported(ENV, option, login=login, batch=True) == batch
