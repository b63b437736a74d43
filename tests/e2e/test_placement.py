"""Which task runs what, where and on which CPUs: --multi-prog, --cpu-bind and --distribution."""

from __future__ import annotations

import os
import re

import pytest

from tests.support.engine import Engine

CONF = "NodeName=n[1-3] CPUs=2\nPartitionName=main Nodes=n[1-3] Default=YES\n"


@pytest.fixture
def cluster(engine: Engine) -> Engine:
    """An engine with three nodes."""
    folder = engine.account.mkdir(engine.base / "config" / "roadstead")
    engine.account.write(folder / "roadstead.conf", CONF)
    return engine


def lines(engine: Engine, *argv: str) -> list[str]:
    return sorted(engine.run(list(argv)).check().stdout.splitlines())


# -- --multi-prog ----------------------------------------------------------------------------------


def test_a_file_says_which_task_runs_what(engine: Engine) -> None:
    engine.account.write(
        engine.work / "programs",
        "# tasks  program\n0  echo first of $SLURM_NTASKS\n1-2,4  sh -c 'echo %t %o'\n"
        '*  echo "task %t is number %o"\n',
    )
    said = lines(engine, "srun", "-l", "-On5", "--multi-prog", "programs")
    assert said == [
        "0: first of $SLURM_NTASKS",
        "1: %t %o",
        "2: %t %o",
        "3: task 3 is number 0",
        "4: %t %o",
    ]
    # What stands behind the file's name goes to all of them.
    engine.account.write(engine.work / "programs", "0-1 echo")
    assert lines(engine, "srun", "-On2", "--multi-prog", "programs", "a", "b") == ["a b"] * 2


def test_files_that_say_nothing_sensible(engine: Engine) -> None:
    for text, why in (
        ("0 echo\n", "Configuration file programs invalid, no record for task id 1"),
        ("0-1 echo\n1 echo\n", "Line 2 of configuration file programs invalid"),
        ("0-1\n", "Line 1 of configuration file programs invalid"),
    ):
        engine.account.write(engine.work / "programs", text)
        done = engine.run(["srun", "-On2", "--multi-prog", "programs"])
        assert done.returncode == 1
        assert why in done.stderr
    done = engine.run(["srun", "--multi-prog", "nowhere"])
    assert "Could not open multi_prog config file nowhere: No such file" in done.stderr


def test_exit_codes_of_several_programs(engine: Engine) -> None:
    engine.account.write(engine.work / "programs", "0 true\n1 sh -c 'exit 4'\n")
    done = engine.run(["srun", "-On2", "--multi-prog", "programs"])
    assert done.returncode == 4
    assert "task 1: Exited with exit code 4" in done.stderr


# -- --cpu-bind ------------------------------------------------------------------------------------


def bound(engine: Engine, *argv: str) -> tuple[list[str], list[str]]:
    """What the tasks may use, and what srun has reported."""
    show = "sed -n 's/^Cpus_allowed_list:.//p' /proc/self/status; env | grep ^SLURM_CPU_BIND | sort"
    done = engine.run(["srun", "-l", *argv, "sh", "-c", show]).check()
    return sorted(done.stdout.splitlines()), sorted(done.stderr.splitlines())


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="tasks are told apart by their CPUs")
def test_tasks_are_bound_and_it_is_reported(engine: Engine) -> None:
    first, second = sorted(os.sched_getaffinity(0))[:2]
    said, reported = bound(engine, "-n2", f"--cpu-bind=verbose,map_cpu:{second},{first}")
    assert [line for line in said if "SLURM" not in line] == [f"0: {second}", f"1: {first}"]
    assert f"0: SLURM_CPU_BIND=verbose,map_cpu:{second},{first}" in said
    assert "0: SLURM_CPU_BIND_VERBOSE=verbose" in said
    pattern = r"cpu-bind=MAP +- \S+, task +(\d) +\1 \[\d+\]: mask 0x([0-9A-Fa-f]+) set"
    found = [re.search(pattern, line) for line in reported]
    assert [(each[1], int(each[2], 16)) for each in found if each] == [
        ("0", 1 << second), ("1", 1 << first),
    ]  # fmt: skip
    said, reported = bound(engine, "-n2", "--cpu-bind=rank")
    assert [line for line in said if "SLURM" not in line] == [f"0: {first}", f"1: {second}"]
    assert reported == []
    said, _ = bound(engine, "-n2", f"--cpu-bind=mask_cpu:{1 << first:x},{1 << second:x}")
    assert [line for line in said if "SLURM" not in line] == [f"0: {first}", f"1: {second}"]


def test_a_cpu_that_the_step_does_not_have(engine: Engine) -> None:
    done = engine.run(["srun", "--cpu-bind=map_cpu:4000", "true"])
    assert done.returncode
    assert "Unable to satisfy cpu bind request" in done.stderr
    done = engine.run(["srun", "--cpu-bind=help"])
    assert "Bind tasks to CPUs" in done.stdout


# -- --distribution --------------------------------------------------------------------------------

WHERE = ("sh", "-c", "echo $SLURM_PROCID $SLURMD_NODENAME $SLURM_LOCALID")


@pytest.mark.parametrize(
    ("how", "nodes"),
    [
        ("block", ["n1 0", "n1 1", "n2 0", "n2 1", "n3 0", "n3 1"]),
        ("cyclic", ["n1 0", "n2 0", "n3 0", "n1 1", "n2 1", "n3 1"]),
        ("plane=2", ["n1 0", "n1 1", "n2 0", "n2 1", "n3 0", "n3 1"]),
        ("plane=1", ["n1 0", "n2 0", "n3 0", "n1 1", "n2 1", "n3 1"]),
    ],
)
def test_tasks_on_nodes(cluster: Engine, how: str, nodes: list[str]) -> None:
    said = lines(cluster, "srun", "-N3", "-n6", "-m", how, *WHERE)
    assert said == [f"{task} {node}" for task, node in enumerate(nodes)]


def test_a_list_says_where_each_task_is(cluster: Engine) -> None:
    cluster.account.write(cluster.work / "hosts", "n3\nn1\nn3\nn2\n")
    done = cluster.run(["srun", "-m", "arbitrary", *WHERE], env={"SLURM_HOSTFILE": "hosts"}).check()
    assert sorted(done.stdout.splitlines()) == ["0 n3 0", "1 n1 0", "2 n3 1", "3 n2 0"]
    assert lines(cluster, "srun", "-m", "arbitrary", "-w", "n2,n1", *WHERE) == ["0 n2 0", "1 n1 0"]
    for wrong in ("sideways", "plane", "plane=0", "block:block:block:block"):
        assert cluster.run(["srun", "-m", wrong, "true"]).returncode == 255


# -- GPUs ------------------------------------------------------------------------------------------


def test_each_task_sees_its_own_gpus(engine: Engine) -> None:
    folder = engine.account.mkdir(engine.base / "config" / "roadstead")
    conf = "NodeName=n1 CPUs=4 RealMemory=1000 Gres=gpu:4\nPartitionName=p Nodes=n1 Default=YES\n"
    engine.account.write(folder / "roadstead.conf", conf)
    told = "echo $SLURM_PROCID $CUDA_VISIBLE_DEVICES $SLURM_GPUS_ON_NODE $SLURM_NTASKS"
    show = ("sh", "-c", told)
    assert lines(engine, "srun", "-n2", "--gpus-per-task=2", *show) == ["0 0,1 4 2", "1 2,3 4 2"]
    assert lines(engine, "srun", "-n2", "-G2", "--gpu-bind=map_gpu:1,0", *show) == [
        "0 1 2 2", "1 0 2 2",
    ]  # fmt: skip
    assert lines(engine, "srun", "-G2", "--ntasks-per-gpu=2", "--gpu-bind=single:2", *show) == [
        "0 0 2 4", "1 0 2 4", "2 1 2 4", "3 1 2 4",
    ]  # fmt: skip
    done = engine.run(["sbatch", "--parsable", "-H", "-G2", "--cpus-per-gpu=2", "--mem-per-gpu=100",
                       "--wrap", "true"]).check()  # fmt: skip
    shown = lines(engine, "squeue", "-h", "-j", done.stdout.strip(), "-o", "%C %m")
    assert shown == ["4 200M"]
    wrap = f"srun sh -c '{told}' | sort"  # the job's GPUs for each task are its steps' too
    engine.run(["sbatch", "-W", "-o", "out", "-n2", "--gpus-per-task=1", "--wrap", wrap]).check()
    assert (engine.work / "out").read_text().splitlines() == ["0 0 2 2", "1 1 2 2"]
    done = engine.run(["srun", "-G1", "--gpu-bind=map_gpu:3", "true"])
    assert "--gpu-bind=map_gpu:3: the step has no such GPU; it has 1 on the node" in done.stderr
