"""scontrol's keywords with jobs that run: who waits, who is told, whose processes; partitions."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.engine import Engine
from tests.support.waiting import eventually


def submit(engine: Engine, *argv: str) -> str:
    return engine.run(["sbatch", "--parsable", *argv]).check().stdout.strip()


def state(engine: Engine, job: str) -> str:
    return engine.run(["squeue", "-h", "-tall", "-j", job, "-o", "%T"]).check().stdout.strip()


def runs(engine: Engine, job: str) -> None:
    eventually(lambda: state(engine, job) == "RUNNING", timeout=20)


def cancel(engine: Engine, *jobs: str) -> None:
    """End jobs, and wait until nothing of them is left."""
    engine.run(["scancel", *jobs]).check()
    for job in jobs:
        eventually(lambda job=job: state(engine, job) == "CANCELLED", timeout=20)


def test_waiting_for_a_jobs_nodes(engine: Engine) -> None:
    job = submit(engine, "--hold", "--wrap", "sleep 60")
    waiting = engine.popen(["scontrol", "wait_job", job])
    engine.run(["scontrol", "release", job]).check()
    engine.finish(waiting).check()
    assert state(engine, job) == "RUNNING"
    cancel(engine, job)
    assert engine.run(["scontrol", "wait_job", job]).check(1).stderr == (
        f"scontrol: Job {job} no longer running\n"
    )
    assert engine.run(["scontrol", "wait_job", "999"]).check(1).stderr == (
        "scontrol: Problem running job 999\n"
    )


def test_a_notice_to_a_batch_job(engine: Engine) -> None:
    job = submit(engine, "-o", "out", "--wrap", "echo begun; sleep 60")
    out = Path(engine.work) / "out"
    eventually(lambda: out.exists() and "begun" in out.read_text(), timeout=20)
    engine.run(["scontrol", "notify", job, "maintenance", "at", "six"]).check()
    eventually(lambda: "slurmstepd: error: maintenance at six\n" in out.read_text(), timeout=20)
    cancel(engine, job)


def test_a_notice_to_srun(engine: Engine) -> None:
    srun = engine.popen(["srun", "sleep", "60"])
    eventually(lambda: engine.run(["squeue", "-h"]).check().stdout)
    runs(engine, "1")
    engine.run(["scontrol", "notify", "1", "maintenance at six"]).check()
    engine.run(["scancel", "1"]).check()
    assert "srun: Job 1: maintenance at six\n" in engine.finish(srun).stderr


def test_whose_processes(engine: Engine) -> None:
    job = submit(engine, "--wrap", "srun -J busy sleep 60")
    eventually(
        lambda: f"{job}.0" in engine.run(["squeue", "-hs", "-o", "%i"]).stdout.split(), timeout=20
    )

    def rows(*argv: str) -> list[list[str]]:
        shown = engine.run(["scontrol", "listpids", *argv]).check().stdout.splitlines()
        assert shown[0].split() == ["PID", "JOBID", "STEPID", "LOCALID", "GLOBALID"]
        return [line.split() for line in shown[1:]]

    def tasks() -> list[list[str]]:
        return [row[1:] for row in rows(job) if row[3] != "-"]

    eventually(lambda: sorted(tasks()) == [[job, "0", "0", "0"], [job, "batch", "0", "0"]])
    ((pid, *_),) = [row for row in rows(f"{job}.0") if row[3] != "-"]
    said = engine.run(["scontrol", "pidinfo", pid]).check().stdout
    assert said.startswith(f"Slurm job id {job} ends at Unknown\n")
    engine.run(["scontrol", "pidinfo", "1"]).check(1)
    engine.run(["scontrol", "listpids", "999"]).check(1)
    engine.run(["scontrol", "update", f"StepId={job}.0", "TimeLimit=0:1"]).check()
    eventually(lambda: state(engine, job) == "FAILED", timeout=30)


def test_partitions_are_made_changed_and_deleted(engine: Engine) -> None:
    engine.run(["scontrol", "create", "PartitionName=late", "MaxTime=30", "State=DOWN"]).check()
    shown = engine.run(["scontrol", "-o", "show", "partition", "late"]).check().stdout
    assert " MaxTime=00:30:00 " in shown
    job = submit(engine, "-p", "late", "--wrap", "true")
    assert state(engine, job) == "PENDING"
    assert "Partition is in use" in engine.run(["scontrol", "delete", "partition=late"]).stderr
    engine.run(["scontrol", "update", "PartitionName=late", "State=UP"]).check()
    eventually(lambda: state(engine, job) == "COMPLETED", timeout=20)
    engine.run(["roadstead", "engine", "stop"]).check()
    assert "late" in engine.run(["sinfo", "-h", "-o", "%R"]).check().stdout.split()
    engine.run(["scontrol", "delete", "PartitionName=late"]).check()
    assert "late" not in engine.run(["sinfo", "-h", "-o", "%R"]).check().stdout.split()
    engine.run(["scontrol", "create", "PartitionName=late"]).check()
    engine.run(["scontrol", "reconfigure"]).check()
    assert "late" not in engine.run(["sinfo", "-h", "-o", "%R"]).check().stdout


def test_documents(engine: Engine) -> None:
    job = submit(engine, "-A", "science", "--wrap", "exit 3")
    eventually(lambda: state(engine, job) == "FAILED", timeout=20)
    (found,) = json.loads(engine.run(["squeue", "--json", "-j", job]).check().stdout)["jobs"]
    assert (found["job_state"], found["exit_code"], found["account"]) == ("FAILED", 768, "science")
    (found,) = json.loads(engine.run(["sacct", "--json", "-j", job]).check().stdout)["jobs"]
    assert found["exit_code"] == {"status": "ERROR", "return_code": 3}
    assert [step["step"]["id"] for step in found["steps"]] == ["batch"]
    (node,) = json.loads(engine.run(["sinfo", "--json"]).check().stdout)["nodes"]
    assert node["state"] == "idle"
    assert (
        engine.run(["scontrol", "write", "batch_script", job, "-"])
        .check()
        .stdout.endswith("exit 3\n")
    )


def test_when_a_job_is_expected_to_start(engine: Engine) -> None:
    first = submit(engine, "--exclusive", "-t", "10", "--wrap", "sleep 60")
    runs(engine, first)
    second = submit(engine, "--exclusive", "-t", "10", "--wrap", "true")
    shown = engine.run(["squeue", "--start", "-h"]).check().stdout.split()
    assert shown[0] == second
    end = engine.run(["squeue", "-h", "-j", first, "-o", "%e"]).check().stdout.strip()
    assert shown[5] == end
    cancel(engine, first, second)


def test_what_runs_is_measured_and_what_ended_is_reported(engine: Engine) -> None:
    busy = "while :; do :; done"
    job = submit(engine, "-A", "science", "--mem=64", "--wrap", f"srun -J busy sh -c '{busy}'")
    runs(engine, job)

    def shown() -> list[str]:
        argv = ["sstat", "-n", "-P", "-j", job, "-o", "jobid,avecpu,maxrss,ntasks,pids"]
        return engine.run(argv).check().stdout.strip().split("|")

    eventually(lambda: shown()[0] == f"{job}.0" and shown()[1] > "00:00:00", timeout=30)
    number, _cpu, memory, ntasks, pids = shown()
    assert (number, ntasks) == (f"{job}.0", "1")
    assert memory.endswith(("K", "M"))
    assert all(Path(f"/proc/{pid}").exists() for pid in pids.split(","))
    waits = submit(engine, "--exclusive", "--nice=7", "--wrap", "true")
    row = engine.run(["sprio", "-h", "-j", waits, "-o", "%i %Y %S %N"]).check().stdout.split()
    assert row == [waits, "9993", "10000", "7"]
    cancel(engine, job, waits)
    said = engine.run(["roadstead", "seff", job]).check().stdout
    assert "State: CANCELLED" in said
    assert "Memory Efficiency: " in said
    argv = ["sreport", "-n", "-P", "-t", "seconds", "user", "top", "start=now-1hour", "end=now"]
    eventually(lambda: "|science|" in engine.run(argv).check().stdout, timeout=10)
    assert "Jobs submitted: 2\n" in engine.run(["sdiag"]).check().stdout
    user = engine.account.name
    argv = ["sacctmgr", "-n", "-P", "show", "user", user, "format=user"]
    assert engine.run(argv).check().stdout == f"{user}\n"


def test_listing_again_and_again(engine: Engine) -> None:
    job = submit(engine, "--hold", "--wrap", "true")
    for argv in (["squeue", "-i", "1", "-j", job, "-o", "%i"], ["sinfo", "-i", "1", "-o", "%R"]):
        shown = engine.run(["timeout", "2.6", *argv]).check(124).stdout
        date, heading, *lines = shown.split("\n\n")[0].splitlines()
        assert date[3:4] == " "
        assert heading in ("JOBID", "PARTITION")
        assert lines == ([job] if heading == "JOBID" else ["local"])
        assert shown.count(heading) >= 2
    cancel(engine, job)
