"""What jobs wait for, and how they come back: dependencies, times, requeues, --test-only."""

from __future__ import annotations

import re
import time

import pytest

from tests.support.engine import Engine
from tests.support.waiting import eventually


def line(engine: Engine, *argv: str) -> str:
    return engine.run(list(argv)).check().stdout.strip()


def submit(engine: Engine, *argv: str) -> str:
    return line(engine, "sbatch", "--parsable", "-o", "/dev/null", *argv)


def shown(engine: Engine, job: str, form: str = "%T %r %E") -> str:
    return line(engine, "squeue", "-h", "-t", "all", "-j", job, "-o", form)


def test_a_chain_of_jobs(engine: Engine) -> None:
    first = submit(engine, "--hold", "--wrap", "exit 3")
    good = submit(engine, "-d", f"afterok:{first}", "--wrap", "true")
    kill = ["--kill-on-invalid-dep=yes", "-d", f"afterok:{first}"]
    killed = submit(engine, *kill, "--wrap", "true")
    bad = submit(engine, "-d", f"afternotok:{first}", "--wrap", "true")
    after = submit(engine, "-d", f"afterany:{bad}", "--wrap", "true")
    record = line(engine, "scontrol", "show", "job", good)
    assert f"Reason=Dependency Dependency=afterok:{first}(unfulfilled)" in record
    assert "EligibleTime=Unknown" in record
    engine.run(["scontrol", "release", first]).check()
    eventually(lambda: shown(engine, after, "%T") == "COMPLETED", timeout=20)
    assert shown(engine, good, "%T %r") == "PENDING DependencyNeverSatisfied"
    assert shown(engine, killed, "%T %r") == "CANCELLED DependencyNeverSatisfied"
    engine.run(["scontrol", "update", f"JobId={good}", f"Dependency=afterany:{first}"]).check()
    eventually(lambda: shown(engine, good, "%T") == "COMPLETED", timeout=20)


def test_srun_waits_for_a_job(engine: Engine) -> None:
    first = submit(engine, "--wrap", "sleep 0.5")
    done = engine.run(["srun", "-d", f"afterok:{first}", "echo", "ran"]).check()
    assert done.stdout == "ran\n"
    assert "queued and waiting for resources" in done.stderr
    assert shown(engine, first, "%T") == "COMPLETED"


def test_begin(engine: Engine) -> None:
    job = submit(engine, "--begin=now+2", "--wrap", "true")
    assert shown(engine, job, "%T %r") == "PENDING BeginTime"
    far = submit(engine, "--begin=now+1hour", "--wrap", "true")
    engine.stop().check()
    eventually(lambda: shown(engine, job, "%T") == "COMPLETED", timeout=20)
    assert shown(engine, far, "%T %r") == "PENDING BeginTime"
    engine.run(["scontrol", "update", f"JobId={far}", "StartTime=now"]).check()
    eventually(lambda: shown(engine, far, "%T") == "COMPLETED", timeout=20)
    done = engine.run(["sbatch", "--begin=4pm", "--wrap", "true"]).check(255)
    assert done.stderr.startswith(
        "Invalid time specification (pos=1): 4pm\nsbatch: error: Invalid --begin specification"
    )


def test_deadline(engine: Engine) -> None:
    job = submit(engine, "--hold", "-t1", "--deadline=now+61", "--wrap", "true")
    eventually(lambda: shown(engine, job, "%T %r") == "DEADLINE DeadLine", timeout=20)
    late = ["--begin=now+1hour", "--deadline=now+10minutes", "-t1", "--wrap", "true"]
    done = engine.run(["sbatch", *late]).check(1)
    assert "Incompatible begin and deadline time specification" in done.stderr


@pytest.mark.parametrize("command", [["sbatch", "--wrap", "true"], ["srun", "true"]])
def test_test_only(engine: Engine, command: list[str]) -> None:
    done = engine.run([command[0], "--test-only", *command[1:]]).check()
    found = re.fullmatch(
        rf"{command[0]}: Job 1 to start at (\S+) using 1 processors on nodes \S+ in partition .+\n",
        done.stderr,
    )
    assert found
    assert done.stdout == ""
    blocker = submit(engine, "--exclusive", "-t10", "--wrap", "sleep 60")
    later = engine.run([command[0], "--test-only", *command[1:]]).check()
    at = time.strptime(later.stderr.split()[6], "%Y-%m-%dT%H:%M:%S")
    assert time.mktime(at) - time.mktime(time.strptime(found[1], "%Y-%m-%dT%H:%M:%S")) > 500
    never = engine.run([command[0], "--test-only", "-N9", *command[1:]]).check(1)
    assert never.stderr.startswith("allocation failure: ")
    assert line(engine, "squeue", "-h", "-o", "%i") == blocker, "nothing was submitted"
    engine.run(["scancel", blocker]).check()
    # Whoever stops the controller before has the record of its end for the next one.
    eventually(lambda: line(engine, "squeue", "-h", "-o", "%i") == "")


def test_requeue_after_the_end_and_by_exit_code(engine: Engine) -> None:
    conf = engine.base / "config" / "roadstead"
    conf.mkdir(parents=True)
    engine.account.write(
        conf / "roadstead.conf",
        "RequeueExit=7\nRequeueExitHold=8-9\nAuthInfo=cred_expire=1\n"
        "NodeName=n1 CPUs=1\nPartitionName=p Nodes=n1 Default=YES\n",
    )
    engine.account.own(engine.base / "config")
    count = "echo run $SLURM_RESTART_COUNT; "
    script = count + 'case "$SLURM_RESTART_COUNT" in "") exit 7;; 1) exit 8;; *) exit 3;; esac'
    job = line(
        engine, "sbatch", "--parsable", "-o", "out", "--open-mode=append", "--wrap", script
    )  # fmt: skip
    eventually(lambda: shown(engine, job, "%T %r") == "SPECIAL_EXIT JobHeldUser", timeout=20)
    assert "ExitCode=8:0" in line(engine, "scontrol", "show", "job", job)
    engine.run(["scontrol", "release", job]).check()
    eventually(lambda: shown(engine, job, "%T") == "FAILED", timeout=20)
    engine.run(["scontrol", "requeue", job]).check()
    assert shown(engine, job, "%T %r") == "PENDING BeginTime"
    eventually(lambda: shown(engine, job, "%T") == "FAILED", timeout=20)
    said = (engine.work / "out").read_text().splitlines()
    assert said == ["run", "run 1", "run 2", "run 3"]


def test_an_output_directory_may_come_late(engine: Engine) -> None:
    """submitit makes it once it has the job's id; Slurm 22.05 was seen to be as patient."""
    late = line(engine, "sbatch", "--parsable", "-o", "late/%j/out", "--wrap", "echo hi")
    never = line(engine, "sbatch", "--parsable", "-o", "never/out", "--wrap", "true")
    told = line(engine, "sbatch", "--parsable", "-o", "told/out", "--wrap", "true")
    line(engine, "scancel", told)
    engine.run(["mkdir", "late"]).check()
    engine.run(["mkdir", f"late/{late}"]).check()
    eventually(lambda: shown(engine, late, "%T %r") == "COMPLETED None", timeout=20)
    assert (engine.work / "late" / late / "out").read_text() == "hi\n"
    eventually(lambda: shown(engine, never, "%T %r") == "FAILED JobLaunchFailure", timeout=20)
    eventually(lambda: shown(engine, told, "%T") == "CANCELLED", timeout=20)


def test_a_job_requeues_itself(engine: Engine) -> None:
    """The command has its exit code before the job is ended by its doing.  As submitit does, who
    asks for that goes on when SIGTERM comes: it comes as soon as the command has ended."""
    task = "trap : TERM; scontrol requeue $SLURM_JOB_ID; echo $? >told"
    script = f"#!/bin/sh\ntest -e told || srun sh -c '{task}'\n"
    path = engine.account.write(engine.work / "job.sh", script)
    job = submit(engine, str(path))
    told = engine.work / "told"
    eventually(told.exists, timeout=20)
    eventually(lambda: shown(engine, job, "%T") == "COMPLETED", timeout=30)
    assert told.read_text() == "0\n"
