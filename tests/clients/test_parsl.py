"""Parsl: blocks of workers, by SlurmProvider and SrunLauncher."""

from __future__ import annotations

import pytest

from tests.clients.environment import Environment

PROGRAM = """
import os, sys
import parsl
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.launchers import SingleNodeLauncher, SrunLauncher, SrunMPILauncher
from parsl.providers import SlurmProvider

@parsl.python_app
def where(x):
    import os
    return x * x, os.environ.get("SLURM_STEP_ID"), os.path.exists("/.in-the-container")

@parsl.bash_app
def shell(stdout):
    return "echo $SLURM_JOB_NAME"

launcher = {"single": SingleNodeLauncher, "srun": SrunLauncher, "mpi": SrunMPILauncher}[sys.argv[1]]
provider = SlurmProvider(
    partition="local", launcher=launcher(), nodes_per_block=1, init_blocks=1, max_blocks=1,
    cores_per_node=1, mem_per_node=1, walltime="00:05:00", exclusive=False,
    scheduler_options="\\n".join(f"#SBATCH {each}" for each in sys.argv[2:]),
)
workers = HighThroughputExecutor(
    label="here", provider=provider, address="127.0.0.1", max_workers_per_node=1
)
with parsl.load(Config(executors=[workers], strategy="none")):
    said = os.path.abspath("said")
    print([each.result() for each in [where(x) for x in range(3)]], shell(stdout=said).result())
    print(open(said).read().startswith("parsl.here.block-0"))
    print(workers.status()["0"].state.name)
"""


@pytest.mark.parametrize("launcher", ["single", "srun"])
def test_a_block_of_workers(light: Environment, launcher: str) -> None:
    done = light.run(PROGRAM, launcher)
    step = "None" if launcher == "single" else "'0'"
    assert done.stdout.splitlines() == [
        f"[(0, {step}, False), (1, {step}, False), (4, {step}, False)] 0",
        "True",
        "RUNNING",
    ]


@pytest.mark.container
def test_a_block_in_a_container(light: Environment) -> None:
    mounts = f"--container-mounts={light.engine.base}"
    done = light.run(PROGRAM, "single", f"--container={light.bundle()}", mounts)
    assert done.stdout.splitlines()[0] == "[(0, None, True), (1, None, True), (4, None, True)] 0"
