"""Virtual nodes, partitions, devices, priority; jobs that are held, stopped, requeued, moved."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.engine import Engine
from tests.support.waiting import eventually

CONF = """\
# Four nodes of this machine, more than it has.
NodeName=DEFAULT CPUs=2 RealMemory=400
NodeName=n[1-3]
NodeName=big CPUs=4 Gres=gpu:a100:2 Feature=fast,new
PartitionName=debug Nodes=n[1-3] Default=YES MaxTime=10 DefaultTime=5
PartitionName=gpu Nodes=big PriorityTier=2
Licenses=matlab:1
KillWait=1
"""


@pytest.fixture
def site(engine: Engine) -> Engine:
    """An engine with a roadstead.conf."""
    configure(engine, CONF)
    return engine


def configure(engine: Engine, text: str) -> Path:
    folder = engine.base / "config" / "roadstead"
    if not folder.exists():
        engine.account.mkdir(folder, 0o700)
    return engine.account.write(folder / "roadstead.conf", text)


def submit(engine: Engine, *argv: str) -> str:
    return engine.run(["sbatch", "--parsable", *argv]).check().stdout.strip()


def of(engine: Engine, job: str, fields: str = "%T %r") -> str:
    """A job's fields as squeue shows them."""
    shown = engine.run(["squeue", "-h", "-tall", "-j", job, "-o", fields]).check().stdout
    return shown.strip()


def reaches(engine: Engine, job: str, words: str) -> None:
    eventually(lambda: of(engine, job) == words, timeout=20)


def scontrol(engine: Engine, *words: str) -> None:
    done = engine.run(["scontrol", *words]).check()
    assert done.stdout + done.stderr == ""


def test_tasks_on_several_nodes(site: Engine) -> None:
    said = "echo $SLURM_PROCID $SLURM_LOCALID $SLURM_NODEID $SLURMD_NODENAME $SLURM_TASKS_PER_NODE"
    done = site.run(["srun", "-N3", "-n4", "sh", "-c", said]).check()
    assert sorted(done.stdout.splitlines()) == [
        "0 0 0 n1 2,1(x2)",
        "1 1 0 n1 2,1(x2)",
        "2 0 1 n2 2,1(x2)",
        "3 0 2 n3 2,1(x2)",
    ]
    done = site.run(["srun", "-N2", "-l", "hostname"]).check()
    assert [line.split(":")[0] for line in sorted(done.stdout.splitlines())] == ["0", "1"]


def test_a_failure_names_the_node_of_the_task(site: Engine) -> None:
    done = site.run(["srun", "-N2", "sh", "-c", "exit $SLURM_NODEID"])
    assert done.returncode == 1
    assert "srun: error: n2: task 1: Exited with exit code 1" in done.stderr


def test_steps_of_an_allocation_of_nodes(site: Engine) -> None:
    script = (
        "echo $SLURM_JOB_NODELIST $SLURM_JOB_CPUS_PER_NODE; srun -l -n2 -N2 printenv "
        "SLURM_STEP_NODELIST; srun -N1 -n1 printenv SLURMD_NODENAME"
    )
    done = site.run(["salloc", "-Q", "-N3", "-n5", "sh", "-c", script]).check()
    assert done.stdout.splitlines()[0] == "n[1-3] 2(x2),1"
    assert sorted(done.stdout.splitlines()[1:]) == ["0: n[1-2]", "1: n[1-2]", "n1"]


def test_what_the_site_is_like_is_shown(site: Engine) -> None:
    lines = site.run(["sinfo", "-h", "-o", "%P %D %N %G %l"]).check().stdout.splitlines()
    assert sorted(lines) == [
        "debug* 3 n[1-3] (null) 10:00",
        "gpu 1 big gpu:a100:2 infinite",
    ]
    shown = site.run(["scontrol", "show", "node", "big"]).check().stdout
    assert "CPUTot=4 " in shown
    assert "AvailableFeatures=fast,new" in shown
    shown = site.run(["scontrol", "show", "licenses"]).check().stdout
    assert "Total=1 Used=0 Free=1" in shown
    shown = site.run(["scontrol", "show", "config"]).check().stdout
    assert "KillWait                = 1 sec" in shown


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["-N4"], "Node count specification invalid"),
        (["-t11"], "Requested time limit is invalid (missing or exceeds some limit)"),
        (["-pnone"], "invalid partition specified: none"),
        (["-pgpu", "--gres=gpu:3"], "Requested node configuration is not available"),
        (["--gres=fpga"], "Invalid generic resource (gres) specification"),
        (["-Cslow"], "Invalid feature specification"),
        (["-wn9"], "Invalid node name specified"),
        (["-Lansys"], "Invalid license specification"),
        (["--mem=500"], "Requested node configuration is not available"),
    ],
)
def test_what_can_never_be_is_refused(site: Engine, options: list[str], sentence: str) -> None:
    done = site.run(["srun", *options, "true"])
    assert done.returncode == 1
    assert f"srun: error: Unable to allocate resources: {sentence}" in done.stderr


def test_gpus_are_given_once_and_named(site: Engine) -> None:
    show = "echo $CUDA_VISIBLE_DEVICES $SLURM_JOB_GPUS"
    one = submit(site, "-pgpu", "--gres=gpu:1", "--wrap", f"{show}; sleep 30")
    two = submit(site, "-pgpu", "-G1", "--wrap", show)
    three = submit(site, "-pgpu", "--gres=gpu:a100:2", "--wrap", show)
    reaches(site, two, "COMPLETED None")
    assert (site.work / f"slurm-{two}.out").read_text() == "1 1\n"
    assert of(site, three) == "PENDING Resources"
    assert of(site, three, "%b") == "gres:gpu:a100:2"
    site.run(["scancel", one]).check()
    reaches(site, three, "COMPLETED None")
    assert (site.work / f"slurm-{three}.out").read_text() == "0,1 0,1\n"


def test_priority_and_backfill(site: Engine) -> None:
    """Behind a job that waits for all nodes, what ends before it can start goes ahead."""
    running = submit(site, "-n2", "-t2", "-wn1", "--wrap", "sleep 30")
    wide = submit(site, "-N3", "-n6", "--wrap", "true")
    long = submit(site, "-n1", "-t9", "--wrap", "sleep 30")
    short = submit(site, "-n1", "-t1", "--wrap", "true")
    reaches(site, short, "COMPLETED None")
    assert of(site, wide) == "PENDING Resources"
    assert of(site, long) == "PENDING Priority"
    scontrol(site, "update", f"JobId={long}", "Nice=-500")
    reaches(site, long, "RUNNING None")
    assert int(of(site, long, "%Q")) == int(of(site, wide, "%Q")) + 500
    site.run(["scancel", running, long]).check()
    reaches(site, wide, "COMPLETED None")


def test_licences_are_counted(site: Engine) -> None:
    first = submit(site, "-Lmatlab", "--wrap", "sleep 30")
    second = submit(site, "-Lmatlab", "--wrap", "true")
    reaches(site, first, "RUNNING None")
    assert of(site, second) == "PENDING Licenses"
    site.run(["scancel", first]).check()
    reaches(site, second, "COMPLETED None")


def test_hold_and_release(site: Engine) -> None:
    job = submit(site, "--hold", "--wrap", "true")
    assert of(site, job, "%T %r %Q") == "PENDING JobHeldUser 0"
    scontrol(site, "release", job)
    reaches(site, job, "COMPLETED None")
    done = site.run(["scontrol", "hold", f"{job},999"])
    assert done.returncode == 1
    assert done.stderr == (
        f"Job/step already completing or completed for job {job}\n"
        "Invalid job id specified for job 999\n"
    )


def counter(path: Path) -> Callable[[], int]:
    return lambda: len(path.read_text()) if path.exists() else 0


@pytest.mark.parametrize("contained", [False, True], ids=["plain", "container"])
def test_suspend_and_resume(
    site: Engine, contained: bool, make_bundle: Callable[..., Path]
) -> None:
    bundle = make_bundle() if contained else None
    options = ["--container", str(bundle), "-o", "ticks"] if bundle else ["-o", "ticks"]
    job = submit(site, "-t1", *options, "--wrap", "while :; do printf .; sleep 0.02; done")
    ticks = counter(site.work / "ticks")
    eventually(lambda: ticks() > 2, timeout=20)
    scontrol(site, "suspend", job)
    assert of(site, job) == "SUSPENDED None"
    time.sleep(0.1)
    before, since = ticks(), time.monotonic()
    time.sleep(1.1)
    assert ticks() == before
    shown = site.run(["scontrol", "show", "job", job]).check().stdout
    assert "JobState=SUSPENDED" in shown
    scontrol(site, "resume", job)
    eventually(lambda: ticks() > before, timeout=20)
    left = of(site, job, "%L")
    assert left in ("1:00", "0:59", "0:58"), (left, time.monotonic() - since)
    done = site.run(["scontrol", "resume", job])
    assert done.stderr == f"Requested operation is presently disabled for job {job}\n"
    site.run(["scancel", job]).check()
    reaches(site, job, "CANCELLED None")


def test_a_suspended_job_can_be_cancelled(site: Engine) -> None:
    job = submit(site, "--wrap", "trap 'echo ended; exit' TERM; echo on; sleep 30 & wait")
    out = site.work / f"slurm-{job}.out"
    eventually(lambda: out.exists() and "on" in out.read_text())
    scontrol(site, "suspend", job)
    site.run(["scancel", job]).check()
    reaches(site, job, "CANCELLED None")
    assert "ended" in out.read_text()


def test_a_suspended_job_outlives_its_controller(site: Engine) -> None:
    job = submit(site, "-o", "ticks", "--wrap", "while :; do printf .; sleep 0.02; done")
    ticks = counter(site.work / "ticks")
    eventually(lambda: ticks() > 2)
    scontrol(site, "suspend", job)
    site.stop().check()
    assert of(site, job) == "SUSPENDED None"
    before = ticks()
    scontrol(site, "resume", job)
    eventually(lambda: ticks() > before)
    site.run(["scancel", job]).check()
    reaches(site, job, "CANCELLED None")


def test_requeue(site: Engine) -> None:
    job = submit(
        site, "--open-mode=append", "--wrap", "echo run ${SLURM_RESTART_COUNT:-0}; sleep 30"
    )
    out = site.work / f"slurm-{job}.out"
    eventually(lambda: out.exists() and "run 0" in out.read_text())
    scontrol(site, "requeue", job)
    eventually(lambda: "run 1" in out.read_text(), timeout=20)
    scontrol(site, "requeuehold", job)
    reaches(site, job, "PENDING JobHeldUser")
    assert "Requeue=1 Restarts=2" in site.run(["scontrol", "show", "job", job]).check().stdout
    site.run(["scancel", job]).check()
    never = submit(site, "--no-requeue", "--wrap", "sleep 30")
    reaches(site, never, "RUNNING None")
    done = site.run(["scontrol", "requeue", never])
    assert done.stderr == f"Requested operation is presently disabled for job {never}\n"
    site.run(["scancel", never]).check()


def test_drain_and_down(site: Engine) -> None:
    on_n1 = submit(site, "-n2", "-wn1", "--no-requeue", "--wrap", "sleep 30")
    again = submit(site, "-n2", "-wn2", "--wrap", "echo started; sleep 30")
    reaches(site, on_n1, "RUNNING None")
    done = site.run(["scontrol", "update", "NodeName=n1", "State=DRAIN"])
    assert "You must specify a reason" in done.stderr
    scontrol(site, "update", "NodeName=n[1-2]", "State=DRAIN", "Reason=broken fan")
    shown = site.run(["sinfo", "-h", "-N", "-pdebug", "-o", "%N %t %E"]).check().stdout
    assert shown.splitlines() == ["n1 drng broken fan", "n2 drng broken fan", "n3 idle none"]
    shown = site.run(["sinfo", "-R", "-h"]).check().stdout.split()
    assert (shown[:2], shown[-1]) == (["broken", "fan"], "n[1-2]")
    waiting = submit(site, "-n2", "-wn1", "--wrap", "true")
    assert of(site, waiting) == "PENDING Resources"
    assert of(site, on_n1) == "RUNNING None", "draining ends nothing"
    scontrol(site, "update", "NodeName=n[1-2]", "State=DOWN", "Reason=broken fan")
    reaches(site, on_n1, "NODE_FAIL NodeDown")
    eventually(lambda: of(site, again, "%T") == "PENDING", timeout=20)
    site.stop().check()  # what was said of nodes is kept
    scontrol(site, "update", "NodeName=ALL", "State=RESUME")
    reaches(site, waiting, "COMPLETED None")
    reaches(site, again, "RUNNING None")
    site.run(["scancel", again]).check()
    reaches(site, again, "CANCELLED None")


def test_srun_on_a_node_that_goes_down(site: Engine) -> None:
    srun = site.popen(["srun", "-N2", "sleep", "30"])
    running = ["squeue", "-h", "-o", "%T"]
    eventually(lambda: "RUNNING" in site.run(running).check().stdout)
    scontrol(site, "update", "NodeName=n2", "State=DOWN", "Reason=x")
    done = site.finish(srun)
    assert done.returncode == 137
    reaches(site, "1", "NODE_FAIL NodeDown")


def test_a_signal_before_the_end(site: Engine) -> None:
    script = "trap 'echo warned; exit 7' USR1; echo on; while :; do sleep 0.05; done"
    job = submit(site, "-t1", "--signal=B:USR1@59", "--wrap", script)
    reaches(site, job, "FAILED NonZeroExitCode")
    assert (site.work / f"slurm-{job}.out").read_text() == "on\nwarned\n"


def test_a_time_limit_can_be_moved(site: Engine) -> None:
    job = submit(site, "-t9", "--wrap", "sleep 30")
    reaches(site, job, "RUNNING None")
    scontrol(site, "update", f"JobId={job}", "TimeLimit=8")
    assert of(site, job, "%l") == "8:00"
    scontrol(site, "update", f"JobId={job}", "TimeLimit+=1")
    assert of(site, job, "%l") == "9:00"
    done = site.run(["scontrol", "update", f"JobId={job}", "TimeLimit=11"])
    assert done.returncode == 1
    scontrol(site, "update", f"JobId={job}", "TimeLimit=0:01", "Name=short")
    reaches(site, job, "TIMEOUT TimeLimit")
    assert of(site, job, "%j") == "short"


def test_between_two_configurations_there_is_a_controller(engine: Engine) -> None:
    """Commands wait for it and start no other; what was its spawner stays nowhere, as a zombie."""
    before = engine.run(["roadstead", "engine", "start"]).check().stdout.splitlines()[0]
    for _ in range(3):
        scontrol(engine, "reconfigure")
        after = engine.run(["roadstead", "engine", "status"]).check().stdout.splitlines()
        assert before in after
    engine.run(["srun", "true"]).check()
    assert [each for each in engine.processes() if each.is_zombie] == []
    scontrol(engine, "reconfigure")
    engine.stop().check()  # the one that is about to be there
    assert engine.watch.settled() == []


def test_a_controller_that_is_killed_after_it_has_restarted_is_followed_by_another(
    engine: Engine,
) -> None:
    """The socket that it has kept is its alone: no supervisor of its has it, too."""
    scontrol(engine, "reconfigure")
    job = submit(engine, "--wrap", "sleep 60")
    reaches(engine, job, "RUNNING None")
    (pid,) = engine.state.glob("**/controller.lock")
    os.kill(int(pid.read_text()), signal.SIGKILL)
    assert of(engine, job) == "RUNNING None"
    engine.run(["scancel", job]).check()
    reaches(engine, job, "CANCELLED None")


def test_reconfigure_reads_the_file_again(site: Engine) -> None:
    job = submit(site, "--wrap", "sleep 30")
    reaches(site, job, "RUNNING None")
    configure(site, CONF.replace("n[1-3]", "n[1-5]"))
    scontrol(site, "reconfigure")
    eventually(lambda: "n[1-5]" in site.run(["sinfo", "-h", "-o", "%N"]).check().stdout)
    assert of(site, job) == "RUNNING None"
    path = configure(site, "NodeName=n1 Cpus=x\n")
    done = site.run(["scontrol", "reconfigure"])
    assert done.returncode == 1
    assert f"{path}:1: cpus: " in done.stderr
    assert of(site, job) == "RUNNING None"
    site.run(["scancel", job]).check()
    reaches(site, job, "CANCELLED None")
    site.stop().check()
    done = site.run(["srun", "true"])
    assert done.returncode == 1
    assert f"srun: error: {path}:1: cpus: " in done.stderr
    os.unlink(path)
