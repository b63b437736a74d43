"""The Containers Guide, example by example: each test quotes what it runs."""

from __future__ import annotations

import os
import pty
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.components import ROOT
from tests.support.engine import Engine
from tests.support.skips import require
from tests.support.waiting import eventually

GUIDE = ROOT / "tests" / "data" / "guide"
RELEASE = "roadstead test release 1.0"


@pytest.fixture
def bundle(engine: Engine, make_bundle: Callable[..., Path]) -> str:
    """A bundle whose /etc/os-release says where a command ran."""
    path = make_bundle()
    engine.account.write(path / "rootfs" / "etc" / "os-release", f"{RELEASE}\n")
    return str(path)


def output_of(engine: Engine, job: str) -> str:
    """What a batch job wrote, once it has ended."""
    eventually(
        lambda: not engine.run(["squeue", "-h", "-j", job], timeout=20).stdout.strip(),
        what=f"job {job} to end",
        timeout=30,
    )
    return (engine.work / f"slurm-{job}.out").read_text()


def test_batch_step_inside_of_container(engine: Engine, bundle: str) -> None:
    """sbatch --container $ABS_PATH_TO_BUNDLE --wrap 'bash -c "cat /etc/*rel*"'"""
    done = engine.run(["sbatch", "--container", bundle, "--wrap", 'sh -c "cat /etc/*rel*"']).check()
    assert done.stdout.startswith("Submitted batch job ")
    assert RELEASE in output_of(engine, done.stdout.split()[-1])


def test_batch_job_with_step_0_inside_of_container(engine: Engine, bundle: str) -> None:
    """sbatch --wrap 'srun bash -c "--container $ABS_PATH_TO_BUNDLE cat /etc/*rel*"'

    The guide's quotes make --container a word of bash's; what is meant is an option of srun's.
    """
    line = f'cat /etc/hostname; srun --container {bundle} sh -c "cat /etc/*rel*"'
    job = engine.run(["sbatch", "--wrap", line]).check().stdout.split()[-1]
    written = output_of(engine, job)
    assert RELEASE in written
    assert Path("/etc/hostname").read_text() in written, "the batch step itself is not contained"


def test_interactive_step_inside_of_container(engine: Engine, bundle: str) -> None:
    """salloc --container $ABS_PATH_TO_BUNDLE bash -c "cat /etc/*rel*" """
    done = engine.run(["salloc", "--container", bundle, "sh", "-c", "cat /etc/*rel*"]).check()
    assert done.stdout == f"{RELEASE}\n"
    assert "salloc: Granted job allocation " in done.stderr
    assert "salloc: Relinquishing job allocation " in done.stderr


def test_interactive_job_step_0_inside_of_container(engine: Engine, bundle: str) -> None:
    """salloc srun --container $ABS_PATH_TO_BUNDLE bash -c "cat /etc/*rel*" """
    done = engine.run(["salloc", "srun", "--container", bundle, "sh", "-c", "cat /etc/*rel*"])
    assert done.check().stdout == f"{RELEASE}\n"


def test_job_with_step_0_inside_of_container(engine: Engine, bundle: str) -> None:
    """srun --container $ABS_PATH_TO_BUNDLE bash -c "cat /etc/*rel*" """
    done = engine.run(["srun", "--container", bundle, "sh", "-c", "cat /etc/*rel*"])
    assert done.check().stdout == f"{RELEASE}\n"


def test_job_with_step_1_inside_of_container(engine: Engine, bundle: str) -> None:
    """srun srun --container $ABS_PATH_TO_BUNDLE bash -c "cat /etc/*rel*" """
    script = "cat /etc/*rel*; echo step $SLURM_STEP_ID"
    done = engine.run(["srun", "srun", "--container", bundle, "sh", "-c", script])
    assert done.check().stdout == f"{RELEASE}\nstep 1\n"


@pytest.mark.parametrize("variable", ["SRUN_CONTAINER", "SALLOC_CONTAINER", "SBATCH_CONTAINER"])
def test_the_container_by_environment(engine: Engine, bundle: str, variable: str) -> None:
    env = {variable: bundle}
    if variable == "SBATCH_CONTAINER":
        done = engine.run(["sbatch", "--wrap", "cat /etc/os-release"], env=env).check()
        said = output_of(engine, done.stdout.split()[-1])
    else:
        command = variable.split("_")[0].lower()
        said = engine.run([command, "cat", "/etc/os-release"], env=env).check().stdout
    assert RELEASE in said


def test_a_jobs_container_is_not_its_steps(engine: Engine, bundle: str) -> None:
    """ "The requested job container will not be inherited by the steps called, excluding the batch
    and interactive steps." """
    held = engine.popen(["salloc", "--container", bundle, "sleep", "30"])
    job = eventually(
        lambda: engine.run(["squeue", "-h", "-t", "R", "-o", "%i"]).stdout.strip(), timeout=20
    )
    done = engine.run(["srun", "--jobid", job, "--overlap", "cat", "/etc/hostname"])
    assert done.check().stdout == Path("/etc/hostname").read_text()
    shown = engine.run(["scontrol", "show", "job", job]).check().stdout
    assert f"Container={bundle}" in shown
    assert bundle in engine.run(["squeue", "-h", "-j", job, "-O", "Container:100"]).stdout
    engine.run(["scancel", job]).check()
    engine.finish(held)


# -- the sample configurations, verbatim -----------------------------------------------------------

SAMPLES = ["runc-create.conf", "runc-run.conf", "crun-create.conf", "crun-run.conf"]


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_sample_configuration_runs_containers(engine: Engine, bundle: str, sample: str) -> None:
    """ "For runc and crun, there are two sets of examples provided." """
    require("userns", sample[:4])
    conf = engine.account.write(engine.base / "oci.conf", (GUIDE / sample).read_text())
    env = {"ROADSTEAD_OCI_CONF": str(conf)}
    argv = ["srun", "-n2", "--overcommit", "--container", bundle, "sh", "-c"]
    done = engine.run([*argv, "cat /etc/os-release; exit 5"], env=env).check(5)
    assert done.stdout == f"{RELEASE}\n" * 2
    written = engine.run(
        ["sbatch", "--wait", "--container", bundle, "--wrap", "cat /etc/os-release; exit 6"],
        env=env,
    ).check(6)
    assert RELEASE in output_of(engine, written.stdout.split()[-1])


@pytest.mark.parametrize("sample", ["nvidia-create.conf", "nvidia-run.conf"])
def test_the_nvidia_samples_call_what_they_say(engine: Engine, bundle: str, sample: str) -> None:
    """nvidia-container-runtime is runc with a hook: runc under that name stands in for it."""
    require("userns", "runc")
    folder = engine.account.mkdir(engine.base / "bin")
    (folder / "nvidia-container-runtime").symlink_to("/usr/sbin/runc")
    conf = engine.account.write(engine.base / "oci.conf", (GUIDE / sample).read_text())
    env = {
        "ROADSTEAD_OCI_CONF": str(conf),
        "PATH": f"{folder}:{engine.variables['PATH']}",
    }
    done = engine.run(["srun", "--container", bundle, "cat", "/etc/os-release"], env=env)
    assert done.check().stdout == f"{RELEASE}\n"


def test_the_singularity_sample_is_understood(engine: Engine, bundle: str) -> None:
    """Its keys and its missing quote are named with their fix; `sudo` stands in as a recorder."""
    folder = engine.account.mkdir(engine.base / "bin")
    log = engine.base / "work" / "calls"
    engine.account.write(folder / "sudo", f'#!/bin/sh\necho "$@" >>{log}\nexit 1\n', 0o755)
    conf = engine.account.write(engine.base / "oci.conf", (GUIDE / "singularity.conf").read_text())
    env = {"ROADSTEAD_OCI_CONF": str(conf), "PATH": f"{folder}:{engine.variables['PATH']}"}
    done = engine.run(["srun", "--container", bundle, "true"], env=env).check(125)
    assert "OCIRunTimeQuery" in done.stderr
    assert log.read_text().startswith("singularity oci create --bundle /")


def test_the_interactive_step_has_a_terminal(engine: Engine, bundle: str) -> None:
    """salloc --container $ABS_PATH_TO_BUNDLE: a shell in the container, on the user's terminal."""
    master, slave = pty.openpty()
    process = engine.popen(
        ["salloc", "--container", bundle],
        stdin=slave, stdout=slave, stderr=slave,
        env={"SHELL": "/bin/sh"},
    )  # fmt: skip
    os.close(slave)
    os.write(master, b"tty; cat /etc/os-release; exit 9\n")
    said = b""
    while True:
        try:
            data = os.read(master, 4096)
        except OSError:
            break
        if not data:
            break
        said += data
    os.close(master)
    assert process.wait(timeout=20) == 9, said
    assert b"/dev/pts/0" in said or b"/dev/console" in said
    assert RELEASE.encode() in said
