"""dask-jobqueue: workers as jobs."""

from __future__ import annotations

import pytest

from tests.clients.environment import Environment

PROGRAM = """
import os, subprocess, sys, time
from dask.distributed import Client
from dask_jobqueue import SLURMCluster

def where(x):
    return x * x, os.path.exists("/.in-the-container")

if __name__ == "__main__":
    options = dict(
        cores=1, processes=1, memory="400MB", queue="local", walltime="00:05:00", interface="lo",
        log_directory="logs", scheduler_options={"dashboard_address": None},
        worker_extra_args=["--no-dashboard"], job_extra_directives=sys.argv[1:],
    )
    with SLURMCluster(**options) as cluster, Client(cluster) as client:
        cluster.scale(2)
        client.wait_for_workers(2, timeout=60)
        print(client.gather(client.map(where, range(4))))
        cluster.scale(0)
        left = ["squeue", "--me", "-h", "-t", "PD,R"]
        while subprocess.run(left, capture_output=True, check=True).stdout:
            time.sleep(0.1)
"""


def test_workers_come_and_go(light: Environment) -> None:
    done = light.run(PROGRAM)
    assert done.stdout.splitlines() == ["[(0, False), (1, False), (4, False), (9, False)]"]


@pytest.mark.container
def test_workers_in_containers(light: Environment) -> None:
    directives = [f"--container={light.bundle()}", f"--container-mounts={light.engine.base}"]
    done = light.run(PROGRAM, *directives)
    assert done.stdout.splitlines() == ["[(0, True), (1, True), (4, True), (9, True)]"]
