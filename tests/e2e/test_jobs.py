"""The batch system: queue, limits, allocations, steps, and what the queries say of them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.support.engine import Engine
from tests.support.waiting import eventually

CPUS = len(os.sched_getaffinity(0))


def states(engine: Engine, *options: str) -> dict[str, str]:
    lines = engine.run(["squeue", "-h", "-o", "%i %T %r", *options]).check().stdout.splitlines()
    return {line.split()[0]: " ".join(line.split()[1:]) for line in lines}


def submit(engine: Engine, *argv: str) -> str:
    return engine.run(["sbatch", "--parsable", *argv]).check().stdout.strip()


def test_first_come_first_served(engine: Engine) -> None:
    first = submit(engine, f"-n{CPUS}", "--wrap", "sleep 30")
    second = submit(engine, f"-n{CPUS}", "--wrap", "echo second")
    third = submit(engine, "-n1", "--wrap", "echo third")
    eventually(lambda: states(engine).get(first) == "RUNNING None")
    assert states(engine)[second] == "PENDING Resources"
    assert states(engine)[third].startswith("PENDING")
    engine.run(["scancel", first]).check()
    eventually(lambda: states(engine) == {}, timeout=20)
    assert (engine.work / f"slurm-{second}.out").read_text() == "second\n"


def test_a_plain_job_and_its_environment(engine: Engine) -> None:
    done = engine.run(
        ["srun", "-n2", "-O", "-J", "name", "sh", "-c", "echo $SLURM_JOB_NAME $SLURM_PROCID"]
    ).check()
    assert sorted(done.stdout.splitlines()) == ["name 0", "name 1"]
    script = engine.account.write(
        engine.work / "job.sh",
        "#!/bin/sh\n#SBATCH -J scripted -o out-%x-%j\n"
        "echo $SLURM_JOB_NAME $SLURM_SUBMIT_DIR\nsrun echo step $SLURM_JOB_ID\nexit 4\n",
    )
    done = engine.run(["sbatch", "--wait", str(script)]).check(4)
    job = done.stdout.split()[-1]
    written = (engine.work / f"out-scripted-{job}").read_text()
    assert written == f"scripted {engine.work}\nstep {job}\n"


def test_memory_is_counted(engine: Engine) -> None:
    total = int(engine.run(["sinfo", "-h", "-o", "%m"]).check().stdout.strip().rstrip("+"))
    first = submit(engine, "-n1", f"--mem={total}", "--wrap", "sleep 30")
    second = submit(engine, "-n1", "--mem=1", "--wrap", "true")
    eventually(lambda: states(engine).get(first, "").startswith("RUNNING"))
    assert states(engine)[second] == "PENDING Resources"
    engine.run(["scancel", first, second]).check()
    eventually(lambda: states(engine) == {}, timeout=20)


def test_time_limit_of_a_batch_job(engine: Engine) -> None:
    job = submit(engine, "-t", "0:01", "--wrap", "sleep 60")
    eventually(lambda: "TIMEOUT" in shown(engine, job), timeout=20)
    assert "DUE TO TIME LIMIT" in (engine.work / f"slurm-{job}.out").read_text()


def shown(engine: Engine, job: str) -> str:
    return engine.run(["scontrol", "-o", "show", "job", job]).stdout


def test_scancel(engine: Engine) -> None:
    job = submit(engine, "--wrap", "sleep 60")
    eventually(lambda: states(engine).get(job) == "RUNNING None")
    engine.run(["scancel", job]).check()
    eventually(lambda: "JobState=CANCELLED" in shown(engine, job), timeout=20)
    done = engine.run(["squeue", "-j", "99999"]).check(1)
    assert done.stderr == "slurm_load_jobs error: Invalid job id specified\n"


def test_held_until_cancelled(engine: Engine) -> None:
    job = submit(engine, "--hold", "--wrap", "true")
    assert states(engine)[job] == "PENDING JobHeldUser"
    engine.run(["scancel", job]).check()
    assert states(engine) == {}


def test_an_allocation_and_its_steps(engine: Engine) -> None:
    script = (
        "srun -n1 echo one; srun -n1 sh -c 'exit 3'; echo $?; "
        "srun -n1 sleep 0.5 & srun -n1 sleep 0.5 & wait; squeue -h -s | wc -l"
    )
    done = engine.run(["salloc", f"-n{CPUS}", "sh", "-c", script]).check()
    assert done.stdout.splitlines()[:2] == ["one", "3"], str(done)
    assert states(engine) == {}


def test_steps_wait_for_the_jobs_cpus(engine: Engine) -> None:
    script = "srun -n1 sleep 0.5 & srun -n1 sleep 0.5 & wait"
    began = time.monotonic()
    done = engine.run(["salloc", "-n1", "sh", "-c", script], timeout=30).check()
    assert time.monotonic() - began >= 1.0, "one CPU runs one step at a time"
    assert "step creation temporarily disabled" in done.stderr


def test_scontrol_and_sinfo(engine: Engine) -> None:
    node = engine.run(["sinfo", "-h", "-o", "%N %T %c"]).check().stdout.split()
    assert node[1:] == ["idle", str(CPUS)]
    assert f"NodeName={node[0]}" in engine.run(["scontrol", "show", "node"]).check().stdout
    assert "PartitionName=local" in engine.run(["scontrol", "show", "partition"]).check().stdout
    config = engine.run(["scontrol", "show", "config"]).check().stdout
    assert "SLURM_VERSION           = 22.05.8" in config
    held = engine.popen(["srun", "sleep", "30"])
    job = eventually(lambda: next(iter(states(engine)), ""))
    step = engine.run(["scontrol", "show", "step", f"{job}.0"]).check().stdout
    assert f"StepId={job}.0" in step
    engine.run(["scancel", f"{job}.0"]).check()
    assert engine.finish(held, timeout=20).returncode == 143


def test_the_controller_comes_and_goes(engine: Engine, scratch: Path) -> None:
    """Started by the first command, gone when idle; its journal stays."""
    env = {"ROADSTEAD_IDLE": "0.3", "XDG_STATE_HOME": str(scratch / "state2")}
    job = engine.run(["sbatch", "--parsable", "--wrap", "true"], env=env).check().stdout.strip()
    eventually(lambda: not engine.processes(), timeout=20, what="the controller to end")
    again = engine.run(["sbatch", "--parsable", "--wrap", "true"], env=env).check().stdout.strip()
    assert int(again) == int(job) + 1
    eventually(lambda: not engine.processes(), timeout=20, what="the controller to end")
    status = engine.run(["roadstead", "engine", "status"], env=env).check().stdout
    assert "not running" in status


def test_twenty_at_once_start_one_controller(engine: Engine) -> None:
    started = [engine.popen(["srun", "-O", "echo", "x"]) for _ in range(20)]
    done = [engine.finish(process, timeout=60) for process in started]
    assert [each.returncode for each in done] == [0] * 20, "\n".join(map(str, done))
    assert "".join(each.stdout for each in done) == "x\n" * 20


@pytest.mark.parametrize("victim", ["controller"])
def test_kill_9(engine: Engine, victim: str) -> None:
    """A job that was accepted survives, runs once, and its status is recorded."""
    running = submit(engine, "-n1", "--wrap", "sleep 1; echo ran; exit 7")
    waiting = submit(engine, f"-n{CPUS}", "--wrap", "echo waited")
    eventually(lambda: states(engine).get(running) == "RUNNING None")
    said = engine.run(["roadstead", "engine", "status"]).check().stdout
    os.kill(int(said.partition("controller ")[2].partition(",")[0]), 9)
    eventually(lambda: states(engine) == {}, timeout=30)
    assert (engine.work / f"slurm-{running}.out").read_text() == "ran\n"
    assert (engine.work / f"slurm-{waiting}.out").read_text() == "waited\n"
    assert "JobState=FAILED" in shown(engine, running)
    assert "ExitCode=7:0" in shown(engine, running)


def test_a_process_has_its_commands_name(engine: Engine) -> None:
    """Harnesses find commands by name."""
    held = engine.popen(["srun", "sleep", "30"])
    eventually(lambda: states(engine) != {})
    assert Path(f"/proc/{held.pid}/comm").read_text() == "srun\n"
    held.terminate()
    assert engine.finish(held, timeout=20).returncode == 143
