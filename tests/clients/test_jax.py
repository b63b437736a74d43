"""jax.distributed finds a step's coordinator, ranks and number of processes by itself."""

from __future__ import annotations

import pytest

from tests.clients.environment import Environment

pytestmark = pytest.mark.clients

PROGRAM = """
import os, sys
import jax
import jax.numpy as jnp

jax.distributed.initialize()
told = jax.process_index(), jax.process_count(), jax.local_device_count(), jax.device_count()
assert told[0] == int(os.environ["SLURM_PROCID"])
client = jax._src.distributed.global_state.client
client.key_value_set(f"from-{told[0]}", f"{told[0]}")
other = client.blocking_key_value_get(f"from-{1 - told[0]}", 20_000)
print(*told, other, os.path.exists("/.in-the-container"), float(jnp.ones(3).sum()), flush=True)
"""


def ranks(jax: Environment, *options: str) -> list[str]:
    program = jax.write("program.py", PROGRAM)
    done = jax.call("srun", "-On2", *options, jax.python, program).check()
    return sorted(done.stdout.splitlines())


def test_processes_of_a_step(jax: Environment) -> None:
    assert ranks(jax) == ["0 2 1 2 1 False 3.0", "1 2 1 2 0 False 3.0"]


@pytest.mark.container
def test_in_containers(jax: Environment) -> None:
    options = [f"--container={jax.bundle()}", f"--container-mounts={jax.engine.work}"]
    assert ranks(jax, *options) == ["0 2 1 2 1 True 3.0", "1 2 1 2 0 True 3.0"]
