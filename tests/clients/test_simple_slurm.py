"""simple-slurm: any option of sbatch as an argument, scripts through standard input."""

from __future__ import annotations

import pytest

from tests.clients.environment import Environment


def test_arrays_dependencies_and_queries(light: Environment) -> None:
    done = light.run(
        """
        import time
        from simple_slurm import Slurm

        first = Slurm(
            array=range(3, 5), cpus_per_task=1, job_name="first", time="0:2:0",
            output=f"{Slurm.JOB_ARRAY_MASTER_ID}_{Slurm.JOB_ARRAY_ID}.txt",
        )
        job = first.sbatch("echo element $SLURM_ARRAY_TASK_ID", shell="/bin/sh")
        then = Slurm(dependency=dict(afterok=job), output="then.txt")
        then.add_cmd("echo first line")
        last = then.sbatch("cat", f"{job}_3.txt", f"{job}_4.txt")
        Slurm(dependency=dict(afterany=last), wait=True, output="/dev/null").sbatch("true")
        print(open("then.txt").read(), flush=True)

        print(Slurm(ntasks=1).srun("echo foo"), flush=True)
        held = Slurm(job_name="held", hold=True)
        number = held.sbatch("sleep 600")
        held.squeue.update_squeue()
        print(held.squeue.jobs[number]["NAME"], held.squeue.jobs[number]["ST"])
        held.scancel.cancel_job(number)
        held.squeue.update_squeue()
        print(number in held.squeue.jobs)
        """
    )
    printed = [line for line in done.stdout.splitlines() if line and "Submitted" not in line]
    assert printed == ["first line", "element 3", "element 4", "foo", "0", "held PD", "False"]


@pytest.mark.container
def test_in_a_container(light: Environment) -> None:
    done = light.run(
        """
        import sys
        from simple_slurm import Slurm

        slurm = Slurm("--container", sys.argv[1], output="out.txt", wait=True)
        slurm.sbatch("test -e /.in-the-container && echo inside")
        print(open("out.txt").read().strip())
        """,
        str(light.bundle()),
    )
    assert "inside" in done.stdout
