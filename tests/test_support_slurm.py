"""The Slurm to compare with is a real one, and an ordinary user can run containers on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.account import Account
from tests.support.slurm_cluster import SlurmCluster

pytestmark = [pytest.mark.slurm, pytest.mark.container]


def test_steps_reach_every_node(slurm_cluster: SlurmCluster, account: Account) -> None:
    argv = ["srun", "-N2", "sh", "-c", "echo $SLURMD_NODENAME $(id -un)"]
    seen = slurm_cluster.run(account, argv).check().stdout
    assert sorted(seen.splitlines()) == [f"n1 {account.name}", f"n2 {account.name}"]


@pytest.mark.parametrize("spec", ["runc", "crun"])
def test_a_step_runs_in_a_container(
    slurm_cluster: SlurmCluster, account: Account, make_bundle: Callable[..., Path], spec: str
) -> None:
    bundle = make_bundle(spec=spec, args=["sh", "-c", "exit 9"])
    bundle.parent.chmod(0o755)
    # An absolute path: Slurm from 23.02 on looks a bare name up on the host.
    seen = slurm_cluster.run(
        account, ["srun", "--container", bundle, "/bin/sh", "-c", "ls /; exit 3"]
    )
    assert " ".join(seen.check(3).stdout.split()) == "bin dev etc home proc root run sys tmp var"
