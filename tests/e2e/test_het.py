"""Heterogeneous jobs, ``A : B``: of a command line, of a script, under salloc, of srun alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.engine import Engine
from tests.support.waiting import eventually

CONF = "NodeName=n[1-3] CPUs=2\nPartitionName=main Nodes=n[1-3] Default=YES\n"
TOLD = "echo $SLURM_PROCID/$SLURM_NTASKS $SLURMD_NODENAME $SLURM_JOB_ID.$SLURM_STEP_ID"

SCRIPT = f"""#!/bin/sh
#SBATCH -n1 -J lead -t 5
#SBATCH hetjob
#SBATCH -n4 -N2
echo $SLURM_HET_SIZE $SLURM_JOB_NODELIST_HET_GROUP_0 $SLURM_JOB_NODELIST_HET_GROUP_1 \\
    $SLURM_NTASKS_HET_GROUP_1 $((SLURM_JOB_ID_HET_GROUP_1 - SLURM_JOB_ID))
srun sh -c '{TOLD}'
srun --het-group=1 sh -c '{TOLD}' | sort
srun --het-group=0,1 sh -c '{TOLD}' | sort
srun -l --het-group=1 echo one : --het-group=0 echo zero | sort
srun --het-group=0,1 sh -c 'exit $SLURM_PROCID'
echo $?
squeue -h -o '%i %T %l %D %j'
scontrol -o show job $SLURM_JOB_ID | cut -d' ' -f1-5
"""

SAID = """\
2 n1 n[2-3] 4 1
0/1 n1 JOB.0
0/4 n2 JOB.1
1/4 n2 JOB.1
2/4 n3 JOB.1
3/4 n3 JOB.1
0/5 n1 JOB.2
1/5 n2 JOB.2
2/5 n2 JOB.2
3/5 n3 JOB.2
4/5 n3 JOB.2
0: zero
1: one
2: one
3: one
4: one
4
JOB+0 RUNNING 5:00 1 lead
JOB+1 RUNNING 5:00 2 lead
JobId=JOB HetJobId=JOB HetJobOffset=0 JobName=lead HetJobIdSet=JOB-NEXT
JobId=NEXT HetJobId=JOB HetJobOffset=1 JobName=lead HetJobIdSet=JOB-NEXT
"""


@pytest.fixture
def cluster(engine: Engine) -> Engine:
    """An engine with three nodes."""
    folder = engine.account.mkdir(engine.base / "config" / "roadstead")
    engine.account.write(folder / "roadstead.conf", CONF)
    return engine


def lines(engine: Engine, *argv: str) -> list[str]:
    return engine.run(list(argv)).check().stdout.splitlines()


def test_a_script_with_components(cluster: Engine) -> None:
    script = cluster.account.write(cluster.work / "job.sh", SCRIPT)
    done = cluster.run(["sbatch", "--parsable", "-W", "-o", "out", str(script)]).check()
    job = done.stdout.strip()
    said = (cluster.work / "out").read_text()
    said = said.replace(str(int(job) + 1), "NEXT") if job != "0" else said
    wanted = SAID.replace("JOB", job).replace(str(int(job) + 1), "NEXT")
    assert [line for line in said.splitlines() if "error" not in line] == wanted.splitlines()
    shown = lines(cluster, "sacct", "-nPX", "-j", job, "-o", "jobid,jobidraw,state,ncpus")
    assert shown == [f"{job}+0|{job}|COMPLETED|1", f"{job}+1|{int(job) + 1}|COMPLETED|4"]


def test_components_start_together_and_are_cancelled_together(cluster: Engine) -> None:
    blocker = lines(cluster, "sbatch", "--parsable", "-w", "n3", "--exclusive", "--wrap",
                    "sleep 60")[0]  # fmt: skip
    job = lines(cluster, "sbatch", "--parsable", "-n1", ":", "-n2", "-N2", "-w", "n3", ":",
                "-n1", "--wrap", "sleep 60")[0]  # fmt: skip
    names = [f"{job}+{offset}" for offset in range(3)]
    shown = lines(cluster, "squeue", "-h", "-j", job, "-o", "%i %T %r")
    assert shown == [f"{name} PENDING Resources" for name in names]
    refused = cluster.run(["scancel", "-v", names[1]])
    assert "Operation not permitted on individual component" in refused.stderr
    assert lines(cluster, "squeue", "-h", "-j", names[2], "-o", "%i") == names[2:]
    cluster.run(["scancel", blocker]).check()
    running = [f"{name} RUNNING" for name in names]
    eventually(lambda: lines(cluster, "squeue", "-h", "-o", "%i %T") == running, timeout=20)
    cluster.run(["scancel", job]).check()
    eventually(lambda: lines(cluster, "squeue", "-h") == [], timeout=20)
    ended = lines(cluster, "sacct", "-nPX", "-j", job, "-o", "jobid,state")
    assert [line.split(" by ")[0] for line in ended] == [f"{name}|CANCELLED" for name in names]


def test_salloc_and_srun(cluster: Engine) -> None:
    held = cluster.run(
        ["salloc", "-Q", "-n1", ":", "-n2", "sh", "-c",
         "echo $SLURM_NTASKS $SLURM_NTASKS_HET_GROUP_1 $SLURM_JOB_NODELIST; "
         "srun -l echo a : echo b | sort; srun -l --het-group=0-1 echo c | sort"]
    ).check()  # fmt: skip
    assert held.stdout.splitlines() == [
        "3 2", "0: a", "1: b", "2: b", "0: c", "1: c", "2: c",
    ]  # fmt: skip
    done = cluster.run(["srun", "-l", "-n1", "echo", "a", ":", "-n2", "sh", "-c", "exit 3"])
    assert (done.stdout, done.returncode) == ("0: a\n", 3)
    assert "tasks 1-2: Exited with exit code 3" in done.stderr
    assert cluster.run(["srun", "-n1", "echo", ":", "-n99", "echo"]).returncode == 1
    assert lines(cluster, "squeue", "-h") == []


def test_components_in_containers(cluster: Engine, make_bundle: Callable[..., Path]) -> None:
    one, two = make_bundle(cluster.work / "one"), make_bundle(cluster.work / "two")
    done = cluster.run(
        ["srun", "-l", "--container", str(one), "-n1", "sh", "-c", "echo $SLURM_CONTAINER", ":",
         "--container", str(two), "-n2", "sh", "-c", "echo $SLURM_CONTAINER $SLURM_PROCID"],
        timeout=120,
    ).check()  # fmt: skip
    assert sorted(done.stdout.splitlines()) == [f"0: {one}", f"1: {two} 1", f"2: {two} 2"]


def test_a_kill_of_the_controller_loses_no_component(cluster: Engine) -> None:
    wait = "srun --het-group=0,1 sh -c '>runs.$SLURM_PROCID; until [ -e go ]; do sleep 0.2; done'"
    job = lines(cluster, "sbatch", "--parsable", "-n1", ":", "-n2", "--wrap", wait)[0]
    eventually(lambda: len(list(cluster.work.glob("runs.*"))) == 3, timeout=20)
    assert len(lines(cluster, "squeue", "-h", "-s")) == 2  # and srun has been told that they run
    cluster.run(["roadstead", "engine", "stop", "--now"]).check()
    assert lines(cluster, "squeue", "-h", "-o", "%i %T") == [f"{job}+0 RUNNING", f"{job}+1 RUNNING"]
    cluster.account.write(cluster.work / "go", "")
    eventually(lambda: lines(cluster, "squeue", "-h") == [], timeout=30)
    ended = lines(cluster, "sacct", "-nPX", "-j", job, "-o", "jobid,state")
    assert ended == [f"{job}+0|COMPLETED", f"{job}+1|COMPLETED"]
