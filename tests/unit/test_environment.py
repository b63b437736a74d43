"""The SLURM_* variables, against the names that a real Slurm 22.05 set, and --export."""

from __future__ import annotations

from dataclasses import replace

import pytest

from roadstead.core import environment
from roadstead.core.model import Allocation, ContainerRequest, JobSpec, StepRequest

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
GRANTED = Allocation(job_id=2, node="vm", cpus=(0, 1), memory=0, started_at=1.0)
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
    env = environment.allocation(2, SPEC, GRANTED)
    assert set(env) == slurm(SALLOC)
    assert env["SLURM_JOB_CPUS_PER_NODE"] == "2"
    assert env["SLURM_SUBMIT_DIR"] == "/home/alice"


def test_a_batch_script_has_the_names_that_slurm_sets() -> None:
    env = environment.batch(2, SPEC, GRANTED)
    assert set(env) == slurm(SALLOC, NODE) | {"SLURMD_NODENAME", "ENVIRONMENT"}


def test_a_step_has_the_names_that_slurm_sets() -> None:
    env = environment.step(2, 0, SPEC, GRANTED, WANTED, 2)
    own = {"SLURMD_NODENAME", "SRUN_DEBUG"}
    assert set(env) == slurm(SALLOC, NODE, STEP, IN_JOB) | own
    assert (env["SLURM_STEP_ID"], env["SLURM_NTASKS"], env["SLURM_UMASK"]) == ("0", "2", "0022")


def test_tasks_are_told_apart() -> None:
    assert environment.task(1, 3) == {
        "SLURM_PROCID": "1",
        "SLURM_LOCALID": "1",
        "SLURM_NODEID": "0",
        "SLURM_GTIDS": "0,1,2",
    }


def test_the_number_of_tasks_is_told_only_if_it_was_asked_for() -> None:
    asked = ("cpus-per-task", "mem")
    env = environment.allocation(2, replace(SPEC, asked=asked, memory=100), GRANTED)
    assert "SLURM_NTASKS" not in env
    assert (env["SLURM_CPUS_PER_TASK"], env["SLURM_MEM_PER_NODE"]) == ("1", "100")


def test_a_container_is_the_steps_own() -> None:
    contained = replace(SPEC, container=ContainerRequest(bundle="/b", id="x"))
    assert environment.batch(2, contained, GRANTED)["SLURM_CONTAINER"] == "/b"
    assert "SLURM_CONTAINER" not in environment.step(2, 0, contained, GRANTED, WANTED, 2)
    wanted = replace(WANTED, container=ContainerRequest(bundle="/c"))
    env = environment.step(2, 0, contained, GRANTED, wanted, 2)
    assert env["SLURM_CONTAINER"] == "/c"
    assert "SLURM_CONTAINER_ID" not in env


def test_a_new_job_does_not_take_itself_for_a_step_of_the_old_one() -> None:
    env = environment.step(2, 0, SPEC, GRANTED, WANTED, 2) | environment.task(0, 1)
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
