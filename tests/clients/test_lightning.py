"""Lightning Fabric takes its ranks and addresses from Slurm's variables."""

from __future__ import annotations

import pytest

from tests.clients.environment import Environment

pytestmark = pytest.mark.clients

PROGRAM = """
import os
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import SLURMEnvironment

assert SLURMEnvironment.detect()
fabric = Fabric(accelerator="cpu", devices=2, num_nodes=1, strategy="ddp")
fabric.launch()
place = fabric.strategy.cluster_environment
assert isinstance(place, SLURMEnvironment)
total = fabric.all_reduce(torch.tensor(float(fabric.global_rank + 1)), reduce_op="sum")
fabric.barrier()
inside = os.path.exists("/.in-the-container")
print(fabric.global_rank, fabric.world_size, fabric.local_rank, total.item(), inside, flush=True)
"""


def ranks(lightning: Environment, *options: str) -> list[str]:
    lightning.write("program.py", PROGRAM)
    text = f"""#!/bin/sh
#SBATCH --ntasks-per-node=2 --nodes=1 --overcommit --output=out --wait
srun {" ".join(options)} {lightning.python} {lightning.engine.work}/program.py
"""
    lightning.call("sbatch", lightning.write("job.sh", text)).check()
    out = (lightning.engine.work / "out").read_text()
    found = sorted(line for line in out.splitlines() if line[:1].isdigit())
    assert found, out
    return found


def test_tasks_of_a_step(lightning: Environment) -> None:
    assert ranks(lightning) == ["0 2 0 3.0 False", "1 2 1 3.0 False"]


@pytest.mark.container
def test_in_containers(lightning: Environment) -> None:
    options = [f"--container={lightning.bundle()}", f"--container-mounts={lightning.engine.work}"]
    assert ranks(lightning, *options) == ["0 2 0 3.0 True", "1 2 1 3.0 True"]
