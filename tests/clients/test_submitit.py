"""submitit: functions as jobs, arrays, checkpoints; it polls sacct."""

from __future__ import annotations

import pytest

from tests.clients.environment import Environment


def test_jobs_tasks_and_arrays(light: Environment) -> None:
    """Also that output goes to a directory which submitit makes once sbatch has answered."""
    done = light.run(
        """
        import os, time, submitit

        def where(x):
            env = submitit.JobEnvironment()
            print("told", x)
            return x, env.global_rank, env.num_tasks, env.local_rank, len(env.hostnames)

        def fails():
            raise ValueError("on purpose")

        executor = submitit.AutoExecutor(folder="logs/%j")
        executor.update_parameters(timeout_min=2, mem_gb=0.25, slurm_array_parallelism=2)
        assert executor.cluster == "slurm"
        job = executor.submit(where, 1)
        print(job.result(), "told 1" in job.stdout())
        while job.get_info(mode="force")["State"] != "COMPLETED":  # once its step has ended
            time.sleep(0.05)
        array = executor.map_array(where, [1, 2, 3])
        print([job.result()[0] for job in array], [job.job_id.split("_")[1] for job in array])
        executor.update_parameters(tasks_per_node=2)
        print(executor.submit(where, 2).results())
        failed = executor.submit(fails)
        print("on purpose" in str(failed.exception()))
        """
    )
    assert done.stdout.splitlines() == [
        "(1, 0, 1, 0, 1) True",
        "[1, 2, 3] ['0', '1', '2']",
        "[(2, 0, 2, 0, 1), (2, 1, 2, 1, 1)]",
        "True",
    ]


def test_a_checkpoint_is_requeued(light: Environment) -> None:
    """SIGUSR2 for the step's tasks; scontrol requeue from inside; the same job goes on."""
    done = light.run(
        """
        import time, submitit
        from pathlib import Path

        class Count(submitit.helpers.Checkpointable):
            def __init__(self):
                self.rounds = 0
            def __call__(self):
                self.rounds += 1
                Path(f"round-{self.rounds}").touch()
                while self.rounds < 2:
                    time.sleep(0.05)
                return self.rounds

        executor = submitit.AutoExecutor(folder="logs", slurm_max_num_timeout=1)
        executor.update_parameters(timeout_min=5)
        job = executor.submit(Count())
        while not Path("round-1").exists():
            time.sleep(0.05)
        job._interrupt(timeout=False)
        print(job.result())
        """
    )
    assert done.stdout.splitlines() == ["2"]


@pytest.mark.container
def test_in_a_container(light: Environment) -> None:
    done = light.run(
        """
        import os, sys, submitit

        bundle, = sys.argv[1:]
        executor = submitit.AutoExecutor(folder="logs")
        mounts = f"--container-mounts={os.getcwd()}"
        executor.update_parameters(
            timeout_min=2, slurm_srun_args=[f"--container={bundle}", mounts]
        )
        print(executor.submit(os.path.exists, "/.in-the-container").result())
        """,
        str(light.bundle()),
    )
    assert done.stdout.splitlines() == ["True"]
