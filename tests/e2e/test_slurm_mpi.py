"""MPI over three nodes of a real Slurm, each rank in a container: MPICH (of PyPI) by --mpi=pmi2."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.test_mpi import OFI, RING
from tests.support.account import Account, Completed
from tests.support.bundle import make_bundle
from tests.support.engine import Engine, make_base, make_shims
from tests.support.leaks import remove
from tests.support.product import Product
from tests.support.skips import require
from tests.support.slurm_cluster import SlurmCluster

pytestmark = [pytest.mark.slurm, pytest.mark.container, pytest.mark.needs("mpich")]

EXPECTED = [f"{n} 3 from {(n - 1) % 3} 3" for n in range(3)]
_SYSTEM = ("/usr", "/lib", "/lib64", "/bin")


class Site:
    """A user's commands on a cluster, and a bundle that sees the host's Python and MPI."""

    def __init__(self, engine: Engine, cluster: SlurmCluster, shims: Path) -> None:
        self.engine, self.cluster, self.shims = engine, cluster, shims
        engine.variables |= {**cluster.variables, "ROADSTEAD_OCI_CONF": "none"}
        made = make_bundle(engine.account, engine.base / "bundle")
        config = json.loads((made / "config.json").read_text())
        config["mounts"] += [
            {"destination": path, "type": "bind", "source": path, "options": ["rbind", "ro"]}
            for path in dict.fromkeys([*_SYSTEM, sys.prefix, sys.base_prefix])
            if os.path.isdir(path)
        ]
        engine.account.write(made / "config.json", json.dumps(config))
        self.bundle = os.fspath(made)

    def run(self, srun: str | Path, script: str, *more: str, **env: str) -> Completed:
        """A script in containers, one on each node."""
        argv = [srun, "--mpi=pmi2", "-N3", "-n3", *more, f"--container={self.bundle}"]
        return self.engine.run([*argv, sys.executable, "-c", script], env=env, timeout=90)


@pytest.fixture(scope="module")
def site(product: Product, user: Account) -> Iterator[Site]:
    require("root", "slurm", "address", "crun")
    with ExitStack() as stack:
        shims = make_shims(product, user)
        stack.callback(remove, shims)
        engine = Engine(user, shims, make_base(user))
        stack.callback(engine.close)
        yield Site(engine, stack.enter_context(SlurmCluster(nodes=3)), shims)


def test_mpich_by_pmi2(site: Site) -> None:
    ran = site.run("srun", RING, **OFI).check()
    assert sorted(ran.stdout.splitlines()) == EXPECTED


def test_mpich_whose_tasks_share_their_nodes_container(site: Site) -> None:
    """They talk by memory that they share; over nodes by TCP.  (These nodes are one host: libfabric
    by itself takes memory between them, too, which they have not in common.)"""
    shared = ("-n6", "-O", "--container-per=node")
    ran = site.run("srun", RING, *shared, FI_PROVIDER="tcp", **OFI).check()
    assert sorted(ran.stdout.splitlines()) == [f"{n} 6 from {(n - 1) % 6} 15" for n in range(6)]


def test_mpich_with_slurms_own_container(site: Site) -> None:
    """The site's oci.conf calls `roadstead oci`; srun is Slurm's."""
    ours = site.shims / "roadstead"
    tool = [ours, "engine", "oci-conf", f"--command={ours} oci"]
    conf = site.engine.run(tool).check().stdout
    (site.cluster.base / "oci.conf").write_text(conf)
    ran = site.run("/usr/bin/srun", RING, **OFI).check()
    assert sorted(ran.stdout.splitlines()) == EXPECTED
