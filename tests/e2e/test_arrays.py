"""Job arrays, as scripts for Slurm use them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.engine import Engine
from tests.support.waiting import eventually

CPUS = len(os.sched_getaffinity(0))


def lines(engine: Engine, *argv: str) -> list[str]:
    return engine.run(list(argv)).check().stdout.splitlines()


def test_an_array_runs_a_script_for_each_number(engine: Engine) -> None:
    script = engine.account.write(
        engine.work / "job.sh",
        "#!/bin/sh\n#SBATCH --array=1-7:3\n"
        "echo $SLURM_ARRAY_JOB_ID $SLURM_ARRAY_TASK_ID $SLURM_ARRAY_TASK_COUNT "
        "$SLURM_ARRAY_TASK_MIN $SLURM_ARRAY_TASK_MAX $SLURM_ARRAY_TASK_STEP\n"
        "exit $SLURM_ARRAY_TASK_ID\n",
    )
    done = engine.run(["sbatch", "--parsable", "--wait", str(script)]).check(7)
    first = int(done.stdout)
    for number in (1, 4, 7):
        said = (engine.work / f"slurm-{first}_{number}.out").read_text()
        assert said == f"{first} {number} 3 1 7 3\n"
    assert not list(engine.work.glob("*.err"))
    shown = lines(engine, "squeue", "-h", "-tall", "-S", "i", "-o", "%i %T %A %F %K")
    assert shown == [
        f"{first}_{number} FAILED {first + at} {first} {number}"
        for at, number in enumerate((1, 4, 7))
    ]


def test_elements_in_containers(engine: Engine, make_bundle: Callable[..., Path]) -> None:
    bundle = make_bundle()
    done = engine.run(
        ["sbatch", "--parsable", "-W", "-a", "0-3", "--container", str(bundle), "-o", "out-%a",
         "--wrap", "echo $SLURM_ARRAY_TASK_ID in $(cat /etc/hostname 2>/dev/null || echo box)"],
        timeout=120,
    ).check()  # fmt: skip
    assert done.stdout.strip()
    for number in range(4):
        assert (engine.work / f"out-{number}").read_text().startswith(f"{number} in ")


@pytest.fixture
def waiting(engine: Engine) -> int:
    """An array that waits behind a job that has the whole machine."""
    blocker = engine.run(["sbatch", "--exclusive", "--wrap", "sleep 60"]).check()
    assert blocker.stdout
    done = engine.run(["sbatch", "--parsable", "-a", "0-4%2", "--wrap", "sleep 30"]).check()
    return int(done.stdout)


def test_those_that_wait_are_one_line(engine: Engine, waiting: int) -> None:
    job = str(waiting)
    assert lines(engine, "squeue", "-h", "-j", job, "-o", "%i %T") == [f"{job}_[0-4%2] PENDING"]
    each = lines(engine, "squeue", "-h", "-r", "-S", "i", "-j", job, "-o", "%i %r")
    assert each == [
        *(f"{job}_{number} Resources" for number in range(1)),
        f"{job}_1 Priority",
        *(f"{job}_{number} JobArrayTaskLimit" for number in (2, 3, 4)),
    ]
    shown = lines(engine, "scontrol", "show", "job", f"{job}_3")
    assert shown[0].startswith(f"JobId={waiting + 3} ArrayJobId={job} ArrayTaskId=3 ")
    engine.run(["scancel", f"{job}_[0,2-3]"]).check()
    assert lines(engine, "squeue", "-h", "-j", job, "-o", "%i") == [f"{job}_[1,4%2]"]
    engine.run(["scontrol", "hold", job]).check()
    held = lines(engine, "squeue", "-h", "-j", job, "-o", "%i %r")
    assert held == [f"{job}_[1,4%2] JobHeldUser"]
    engine.run(["scontrol", "release", f"{job}_4"]).check()
    assert len(lines(engine, "squeue", "-h", "-j", job)) == 2
    engine.run(["scancel", job]).check()
    assert lines(engine, "squeue", "-h", "-j", job) == []
    engine.run(["scancel", "1"]).check()
    eventually(lambda: lines(engine, "squeue", "-h") == [], timeout=20)


def test_a_limit_holds_through_a_restart(engine: Engine) -> None:
    job = engine.run(
        ["sbatch", "--parsable", "-a", "0-2%1", "-o", "/dev/null", "--wrap", "sleep 30"]
    ).check()  # fmt: skip
    name = job.stdout.strip()

    def running() -> list[str]:
        return lines(engine, "squeue", "-h", "-tR", "-o", "%i")

    eventually(lambda: running() == [f"{name}_0"])
    engine.stop().check()
    assert running() == [f"{name}_0"]
    engine.run(["scancel", f"{name}_0"]).check()
    eventually(lambda: running() == [f"{name}_1"], timeout=20)
    engine.run(["scancel", name]).check()
    eventually(lambda: lines(engine, "squeue", "-h") == [], timeout=20)


@pytest.mark.parametrize("text", ["x", "5-1", "0-2000", "0-3%0"])
def test_what_is_no_array(engine: Engine, text: str) -> None:
    done = engine.run(["sbatch", "-a", text, "--wrap", "true"])
    assert done.returncode == 1
    assert "Batch job submission failed: Invalid job array specification" in done.stderr
