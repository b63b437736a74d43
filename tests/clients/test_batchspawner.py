"""batchspawner: JupyterHub's servers as jobs; the spawner is called as a hub calls it."""

from __future__ import annotations

import pytest

from tests.clients.environment import Environment

PROGRAM = '''
import asyncio, os, sys
from types import SimpleNamespace
from batchspawner import JobStatus, SlurmSpawner
from traitlets.config import Config

settings = Config()
spawner = settings.SlurmSpawner
spawner.exec_prefix = "env"  # the hub is the user: no sudo
spawner.req_runtime = "0:05:00"
spawner.req_partition = "local"
spawner.req_memory = "100M"
spawner.req_nprocs = "1"
spawner.batchspawner_singleuser_cmd = "sh"
if sys.argv[1:]:
    spawner.req_options = sys.argv[1]
    spawner.req_srun = ""  # the whole script is in the container, and no srun is there

class Server(SlurmSpawner):
    cmd = [os.path.abspath("server")]
    def get_args(self):
        return []
    def get_env(self):
        return {**os.environ, "JUPYTERHUB_API_TOKEN": "x"}

SERVER = """
trap "echo told to end; exit 0" TERM
test -e /.in-the-container; echo inside $?
while :; do sleep 0.1; done
"""
open("server", "w").write(SERVER)

async def until(spawner, wanted):
    for _ in range(200):
        if await spawner.query_job_status() == wanted:
            return
        await asyncio.sleep(0.05)
    raise SystemExit(f"not {wanted}: {spawner.job_status}")

async def main():
    user = SimpleNamespace(name=os.environ["USER"], url="")
    spawner = Server(config=settings, user=user, hub=SimpleNamespace())
    job = await spawner.submit_batch_script()
    await until(spawner, JobStatus.RUNNING)
    print(job.isdigit(), spawner.state_gethost() == os.uname().nodename)
    home = os.path.expanduser("~" + os.environ["USER"])
    log = f"{home}/jupyterhub_slurmspawner_{job}.log"
    while not os.path.exists(log) or "inside" not in open(log).read():
        await asyncio.sleep(0.05)
    await spawner.cancel_batch_job()
    await until(spawner, JobStatus.NOTFOUND)
    print(*[line for line in open(log).read().splitlines() if "inside" in line or "told" in line])
    os.remove(log)

asyncio.run(main())
'''


def test_a_server_comes_and_goes(light: Environment) -> None:
    done = light.run(PROGRAM)
    assert done.stdout.splitlines() == ["True True", "inside 1 told to end"]


@pytest.mark.container
def test_a_server_in_a_container(light: Environment) -> None:
    mounts = f"--container-mounts={light.engine.work}"
    done = light.run(PROGRAM, f"--container={light.bundle()} {mounts}")
    assert done.stdout.splitlines() == ["True True", "inside 0 told to end"]
