"""MPI programs (MPICH, of PyPI) under srun --mpi=pmi2."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.engine import Engine

pytestmark = pytest.mark.needs("mpich")

# What one rank got from the one before it, and how many there are.
RING = """
from mpi4py import MPI
world = MPI.COMM_WORLD
after, before = (world.rank + 1) % world.size, (world.rank - 1) % world.size
got = world.sendrecv(f"from {world.rank}", dest=after, source=before)
print(world.rank, world.size, got, world.allreduce(world.rank), flush=True)
"""
EXPECTED = [f"{n} 4 from {(n - 1) % 4} 6" for n in range(4)]


def python() -> str:
    return sys.executable


def test_ranks_on_the_host(engine: Engine) -> None:
    ran = engine.run(["srun", "--mpi=pmi2", "-On4", python(), "-c", RING]).check()
    assert sorted(ran.stdout.splitlines()) == EXPECTED


def test_without_mpi_each_task_is_alone(engine: Engine) -> None:
    ran = engine.run(["srun", "-On2", python(), "-c", RING]).check()
    assert ran.stdout.splitlines() == ["0 1 from 0 0"] * 2


def test_abort_ends_the_step(engine: Engine) -> None:
    # MPICH unlinks its segment in /dev/shm when it ends by itself; it is killed here, as in Slurm.
    engine.leaks_are_expected = True
    script = """
from mpi4py import MPI
import time
MPI.COMM_WORLD.rank and MPI.COMM_WORLD.Abort(7)
time.sleep(600)
"""
    ran = engine.run(["srun", "--mpi=pmi2", "-On2", python(), "-c", script])
    assert ran.returncode == 137
    assert "task 1 called MPI_Abort(7)" in ran.stderr


def test_mpiexec_starts_its_proxies_through_srun(engine: Engine) -> None:
    """Hydra finds an allocation by SLURM_JOB_ID, and shells out to srun."""
    hydra = Path(python()).with_name("mpiexec.hydra")
    argv = ["salloc", "-On4", hydra, "-launcher", "slurm", "-n", "4", python(), "-c", RING]
    ran = engine.run([str(word) for word in argv]).check()
    assert sorted(ran.stdout.splitlines()) == EXPECTED


def test_types(engine: Engine) -> None:
    ran = engine.run(["srun", "--mpi=list"]).check()
    assert ran.stderr.splitlines()[:3] == ["MPI plugin types are...", "\tnone", "\tpmi2"]
    ran = engine.run(["srun", "--mpi=foo", "true"])
    assert ran.returncode == 1
    assert "Invalid MPI type 'foo', --mpi=list for acceptable types" in ran.stderr
