"""AiiDA's slurm scheduler plugin, called as its daemon calls it, with its own local transport."""

from __future__ import annotations

import pytest

from tests.clients.environment import Environment

pytestmark = pytest.mark.clients

PROGRAM = """
import os, sys, time
from aiida.common.datastructures import CodeRunMode
from aiida.schedulers.datastructures import JobTemplate, JobTemplateCodeInfo
from aiida.schedulers.plugins.slurm import SlurmScheduler
from aiida.transports.plugins.local import LocalTransport

scheduler = SlurmScheduler()

def script(*words):
    template = JobTemplate()
    template.shebang = "#!/bin/bash"
    template.job_name = "aiida-1"
    one = {"num_machines": 1, "num_mpiprocs_per_machine": 1}
    template.job_resource = scheduler.create_job_resource(**one)
    template.max_wallclock_seconds = 120
    template.sched_output_path, template.sched_error_path = "_out.txt", "_err.txt"
    template.queue_name = "local"
    template.custom_scheduler_commands = "\\n".join(f"#SBATCH {each}" for each in sys.argv[1:])
    code = JobTemplateCodeInfo(prepend_cmdline_params=[], cmdline_params=list(words))
    template.codes_info = [code]
    template.codes_run_mode = CodeRunMode.SERIAL
    return scheduler.get_submit_script(template)

with LocalTransport(use_login_shell=False) as transport:
    scheduler.set_transport(transport)
    here = os.getcwd()
    def submit(name, *words):
        open(name, "w").write(script(*words))
        return scheduler.submit_job(here, name)

    short = submit("short.sh", "sh", "-c", "test -e /.in-the-container; echo inside $?")
    while scheduler.get_jobs(jobs=[short]):
        time.sleep(0.1)
    print(open("_out.txt").read().strip())
    detail = scheduler.get_detailed_job_info(short)
    print(detail["retval"], "COMPLETED" in detail["stdout"])
    long = submit("long.sh", "sleep", "600")
    known = scheduler.get_jobs(jobs=[long], as_dict=True)[long]
    while known.job_state.value == "queued":
        known = scheduler.get_jobs(jobs=[long], as_dict=True)[long]
    limit = known.requested_wallclock_time_seconds
    print(known.job_state.value, known.title, known.num_machines, limit)
    print(scheduler.kill_job(long))
    while scheduler.get_jobs(jobs=[long]):
        time.sleep(0.1)
"""


def test_jobs(aiida: Environment) -> None:
    done = aiida.run(PROGRAM)
    assert done.stdout.splitlines() == ["inside 1", "0 True", "running aiida-1 1 120", "True"]


@pytest.mark.container
def test_jobs_in_containers(aiida: Environment) -> None:
    mounts = f"--container-mounts={aiida.engine.work}"
    done = aiida.run(PROGRAM, f"--container={aiida.bundle()}", mounts)
    assert done.stdout.splitlines()[:2] == ["inside 0", "0 True"]
