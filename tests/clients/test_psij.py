"""PSI/J: states of jobs, by squeue and by files that its script writes."""

from __future__ import annotations

import pytest

from tests.clients.environment import Environment

PROGRAM = """
import sys
from datetime import timedelta
from pathlib import Path
from psij import Job, JobAttributes, JobExecutor, JobSpec, JobState, ResourceSpecV1
from psij.executors.batch.slurm import SlurmExecutorConfig

config = SlurmExecutorConfig(initial_queue_polling_delay=0, queue_polling_interval=1)
slurm = JobExecutor.get_instance("slurm", config=config)

def job(executable, *arguments, launcher=None, **attributes):
    spec = JobSpec(executable=executable, arguments=list(arguments), launcher=launcher)
    spec.resources = ResourceSpecV1(node_count=1, processes_per_node=1, cpu_cores_per_process=1)
    custom = {f"slurm.{name}": value for name, value in attributes.items()}
    spec.attributes = JobAttributes(
        duration=timedelta(minutes=2), queue_name="local", custom_attributes=custom
    )
    spec.stdout_path = Path.cwd() / "out"
    return Job(spec)

custom = dict(word.split("=", 1) for word in sys.argv[1:])
made = job("/bin/sh", "-c", "test -e /.in-the-container; echo $?", **custom)
slurm.submit(made)
print(made.wait(timeout=timedelta(seconds=60)).state.name, open("out").read().strip())
if custom:
    sys.exit()
stepped = job("/bin/sh", "-c", "echo $SLURM_STEP_ID", launcher="srun")
slurm.submit(stepped)
print(stepped.wait(timeout=timedelta(seconds=60)).state.name, open("out").read().strip())
failed = job("/bin/sh", "-c", "exit 5")
slurm.submit(failed)
ended = failed.wait(timeout=timedelta(seconds=60))
print(ended.state.name, ended.exit_code)
long = job("/bin/sleep", "600")
slurm.submit(long)
long.wait(timeout=timedelta(seconds=60), target_states=[JobState.ACTIVE])
print(long.native_id in slurm.list())
long.cancel()
print(long.wait(timeout=timedelta(seconds=60)).state.name)
"""


def test_jobs_that_end_in_every_way(light: Environment) -> None:
    assert light.run(PROGRAM).stdout.splitlines() == [
        "COMPLETED 1", "COMPLETED 0", "FAILED 5", "True", "CANCELED",
    ]  # fmt: skip


@pytest.mark.container
def test_in_a_container(light: Environment) -> None:
    custom = [f"container={light.bundle()}", f"container-mounts={light.engine.base}"]
    assert light.run(PROGRAM, *custom).stdout.splitlines() == ["COMPLETED 0"]
