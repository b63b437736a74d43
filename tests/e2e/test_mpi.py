"""MPI programs (MPICH, of PyPI) under srun --mpi=pmi2, on the host and in containers."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
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
# UCX, MPICH's first choice, finds no way between containers where there is no network but lo.
OFI = {"MPIR_CVAR_CH4_NETMOD": "ofi"}
_SYSTEM = ("/usr", "/lib", "/lib64", "/bin")
PATTERNS = {
    "run": 'RunTimeRun="crun --root={state} run --bundle %b %n.%j.%s.%t"\n',
    "create": """\
RunTimeCreate="crun --root={state} create --bundle %b %n.%j.%s.%t"
RunTimeStart="crun --root={state} start %n.%j.%s.%t"
RunTimeQuery="crun --root={state} state %n.%j.%s.%t"
""",
}
END = """\
RunTimeKill="crun --root={state} kill --all %n.%j.%s.%t"
RunTimeDelete="crun --root={state} delete --force %n.%j.%s.%t"
"""


def python() -> str:
    return sys.executable


def test_ranks_on_the_host(engine: Engine) -> None:
    ran = engine.run(["srun", "--mpi=pmi2", "-On4", python(), "-c", RING]).check()
    assert sorted(ran.stdout.splitlines()) == EXPECTED


@pytest.fixture
def box(engine: Engine, make_bundle: Callable[..., Path]) -> str:
    """A bundle that sees the host's Python and libraries, and our virtual environment."""
    bundle = make_bundle()
    config = json.loads((bundle / "config.json").read_text())
    config["mounts"] += [
        {"destination": path, "type": "bind", "source": path, "options": ["rbind", "ro"]}
        for path in dict.fromkeys([*_SYSTEM, sys.prefix, sys.base_prefix])
        if os.path.isdir(path)
    ]
    engine.account.write(bundle / "config.json", json.dumps(config))
    return str(bundle)


@pytest.mark.needs("crun", "runc")
@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_ranks_in_containers(engine: Engine, box: str, runtime: str) -> None:
    env = {"ROADSTEAD_RUNTIME": runtime, **OFI}
    argv = ["srun", "--mpi=pmi2", "-On4", f"--container={box}", python(), "-c", RING]
    ran = engine.run(argv, env=env).check()
    assert sorted(ran.stdout.splitlines()) == EXPECTED


@pytest.mark.needs("crun")
@pytest.mark.parametrize("mode", PATTERNS)
def test_ranks_in_containers_of_an_oci_conf(engine: Engine, box: str, mode: str) -> None:
    text = (PATTERNS[mode] + END).format(state=engine.base / "run" / "crun")
    conf = engine.account.write(engine.base / "oci.conf", text)
    env = {"ROADSTEAD_OCI_CONF": str(conf), **OFI}
    argv = ["srun", "--mpi=pmi2", "-On4", f"--container={box}", python(), "-c", RING]
    ran = engine.run(argv, env=env).check()
    assert sorted(ran.stdout.splitlines()) == EXPECTED


def test_a_runtime_that_may_not_pass_descriptors_on(engine: Engine, box: str) -> None:
    text = 'RunTimeRun="sh -c true"\nRunTimeKill="true"\nRunTimeDelete="true"\n'
    conf = engine.account.write(engine.base / "oci.conf", text)
    ran = engine.run(
        ["srun", "--mpi=pmi2", f"--container={box}", "true"], env={"ROADSTEAD_OCI_CONF": str(conf)}
    )
    assert ran.returncode == 1
    assert "--mpi=pmi2: sh is not known to pass descriptors on" in ran.stderr
    assert f"let {conf} call crun or runc" in ran.stderr


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


@pytest.mark.skipif(
    "ROADSTEAD_TEST_IMPI" not in os.environ,
    reason="ROADSTEAD_TEST_IMPI names no directory of Intel MPI (PyPI: impi-rt, 130 MB)",
)
def test_intel_mpi(engine: Engine) -> None:
    root = os.environ["ROADSTEAD_TEST_IMPI"]
    env = {
        "LD_LIBRARY_PATH": f"{root}/lib",
        "I_MPI_ROOT": root,
        "I_MPI_FABRICS": "shm",
        "MPI4PY_MPIABI": "impi",
    }
    ran = engine.run(["srun", "--mpi=pmi2", "-On4", python(), "-c", RING], env=env).check()
    assert sorted(ran.stdout.splitlines()) == EXPECTED
    mpiexec = [f"{root}/bin/mpiexec.hydra", "-bootstrap", "slurm", "-n", "4"]
    ran = engine.run(["salloc", "-Q", "-On4", *mpiexec, python(), "-c", RING], env=env).check()
    assert sorted(ran.stdout.splitlines()) == EXPECTED


# -- Open MPI, by PMIx -----------------------------------------------------------------------------

OPEN_MPI = {"MPI4PY_MPIABI": "openmpi"}


@pytest.mark.needs("openmpi")
def test_open_mpi_on_the_host(engine: Engine) -> None:
    ran = engine.run(["srun", "--mpi=pmix", "-On4", python(), "-c", RING], env=OPEN_MPI).check()
    assert sorted(ran.stdout.splitlines()) == EXPECTED
    ran = engine.run(["srun", "--mpi=list"]).check()
    assert "\tpmix" in ran.stderr.splitlines()


@pytest.mark.needs("openmpi", "crun")
def test_open_mpi_in_containers(engine: Engine, box: str) -> None:
    argv = ["srun", "--mpi=pmix", "-On4", f"--container={box}", python(), "-c", RING]
    ran = engine.run(argv, env=OPEN_MPI).check()
    assert sorted(ran.stdout.splitlines()) == EXPECTED


@pytest.mark.needs("openmpi")
def test_who_does_not_know_the_namespace_is_refused(engine: Engine) -> None:
    """The port is open to every user of the machine; the namespace's name is a secret."""
    guess = 'PMIX_NAMESPACE=${PMIX_NAMESPACE%??}00 exec "$@"'
    argv = ["srun", "--mpi=pmix", "-n1", "sh", "-c", guess, "sh", python(), "-c", RING]
    ran = engine.run(argv, env=OPEN_MPI)
    assert ran.returncode
    assert "PMI" in ran.stderr
    shown = ["srun", "--mpi=pmix", "-n1", "sh", "-c", "echo ${#PMIX_NAMESPACE}"]
    assert int(engine.run(shown).check().stdout) >= 32


@pytest.mark.needs("openmpi")
def test_abort_of_open_mpi(engine: Engine) -> None:
    # Open MPI unlinks its segments in /dev/shm when it ends by itself; it is killed here.
    engine.leaks_are_expected = True
    script = """
from mpi4py import MPI
import time
MPI.COMM_WORLD.rank and MPI.COMM_WORLD.Abort(7)
time.sleep(600)
"""
    ran = engine.run(["srun", "--mpi=pmix", "-On2", python(), "-c", script], env=OPEN_MPI)
    assert ran.returncode in (7, 137)
    assert "called MPI_Abort" in ran.stderr


@pytest.mark.needs("openmpi")
def test_mpirun_of_open_mpi_in_an_allocation(engine: Engine) -> None:
    mpirun = ["mpirun.openmpi", "--allow-run-as-root", "-n", "4"]
    argv = ["salloc", "-Q", "-On4", *mpirun, python(), "-c", RING]
    ran = engine.run(argv, env=OPEN_MPI).check()
    assert sorted(ran.stdout.splitlines()) == EXPECTED
