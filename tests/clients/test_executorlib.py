"""executorlib, and pysqa below it: functions by srun, or by sbatch with files."""

from __future__ import annotations

import pytest

from tests.clients.environment import Environment

BY_SRUN = """
import os, sys
from executorlib import SlurmJobExecutor

def where(x):
    return x * x, os.environ["SLURM_PROCID"], os.path.exists("/.in-the-container")

if __name__ == "__main__":
    options = {"cores": 1, "slurm_cmd_args": sys.argv[1:]}
    with SlurmJobExecutor(max_workers=2, resource_dict=options, hostname_localhost=True) as pool:
        print([future.result() for future in [pool.submit(where, x) for x in range(3)]])
"""

BY_SBATCH = """
import os, sys
from executorlib import SlurmClusterExecutor

def double(x):
    return 2 * x

if __name__ == "__main__":
    options = {"cores": 1, "run_time_max": 120, "partition": "local"}
    with SlurmClusterExecutor(resource_dict=options, cache_directory="cache") as pool:
        first = pool.submit(double, 4)
        print(pool.submit(double, first).result())
"""

PYSQA = """
import os, sys, time
from pysqa import QueueAdapter

queue = QueueAdapter(queue_type="SLURM")
options = dict(job_name="adapted", working_directory=os.getcwd(), cores=1, run_time_max=60)
options["partition"] = "local"  # without one its template says `--partition=`: Slurm refuses that
held = queue.submit_job(command="sleep 600", **options)
names = [name.strip() for name in queue.get_queue_status().jobname]
print(queue.get_status_of_job(process_id=held), names)
queue.delete_job(process_id=held)
done = queue.submit_job(command="test -e /.in-the-container; echo $? > made", **options)
while queue.get_status_of_job(process_id=done) is not None:
    time.sleep(0.05)
print(open("made").read().strip())
"""


def test_functions_by_srun(light: Environment) -> None:
    done = light.run(BY_SRUN)
    assert done.stdout.splitlines() == ["[(0, '0', False), (1, '0', False), (4, '0', False)]"]


@pytest.mark.container
def test_functions_by_srun_in_containers(light: Environment) -> None:
    mounts = f"--container-mounts={light.engine.base}"
    done = light.run(BY_SRUN, f"--container={light.bundle()}", mounts)
    assert done.stdout.splitlines() == ["[(0, '0', True), (1, '0', True), (4, '0', True)]"]


def test_functions_by_sbatch(light: Environment) -> None:
    assert light.run(BY_SBATCH).stdout.splitlines() == ["16"]


def test_the_queue_adapter_below(light: Environment) -> None:
    assert light.run(PYSQA).stdout.splitlines() == ["running ['adapted']", "1"]
