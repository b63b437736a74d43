"""docs/slurm.md and docs/slurm-admin.md, typed as they stand: by a new user, and by root, on a real
Slurm of three nodes.

The places on the pages are theirs: what is in /home/alice, /etc/slurm or /opt/roadstead there is in
directories of the test here, and pip finds Roadstead in one of them instead of at its index.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.account import Account, Completed
from tests.support.bundle import make_bundle
from tests.support.components import ROOT
from tests.support.engine import Engine, make_base
from tests.support.leaks import remove
from tests.support.pages import Command, agrees, commands
from tests.support.places import SCHEDULING
from tests.support.skips import require
from tests.support.slurm_cluster import SlurmCluster
from tests.support.waiting import eventually

pytestmark = [pytest.mark.slurm, pytest.mark.container]
RELEASE = 'PRETTY_NAME="An application 1.0"\n'
TRAIN = """\
#!/bin/sh
#SBATCH -N 2
#SBATCH --output=train.out
srun --container=docker-archive:app.tar sh -c 'echo training on $SLURMD_NODENAME'
"""


class Site:
    """A cluster, a user who has nothing of ours yet, and places with other names on the pages."""

    def __init__(self, cluster: SlurmCluster, user: Engine, wheels: Path) -> None:
        self.cluster, self.user = cluster, user
        self.home = user.home
        self.opt = user.base.parent / f"{user.base.name}-opt"
        self.opt.mkdir()
        self.places = [
            ("/opt/roadstead", os.fspath(self.opt)),
            ("/etc/slurm", os.fspath(cluster.base)),
            ("/home/alice", os.fspath(self.home)),
            ("alice", user.account.name),
        ]
        self.variables = {
            "SLURM_CONF": os.fspath(cluster.conf),
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": os.fspath(wheels),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            # Three nodes are one machine here, and nothing is to stay on it.
            "ROADSTEAD_NODE_CACHE": os.fspath(user.base / "node"),
            "PATH": f"{self.home}/bin:{user.account.environment['PATH']}",
        }

    def type(self, command: Command) -> Completed:
        """Run a command of a page, once nothing of what came before it runs any more."""
        if not command.text.startswith("squeue"):
            eventually(self._is_quiet, timeout=60, what="the jobs of the page have ended")
        text = command.text
        for theirs, ours in self.places:
            text = text.replace(theirs, ours)
        argv = ["bash", "-c", f"exec 2>&1\n{text}"]
        if command.root:
            path = {"PATH": Account.current().environment["PATH"]}
            env = {**self.variables, **path}
            return Account.current().run(argv, env=env, cwd="/", timeout=120)
        return self.user.run(argv, env=self.variables, cwd=self.home, timeout=120)

    def printed(self, done: Completed) -> list[str]:
        text = done.stdout
        for theirs, ours in self.places:
            text = text.replace(ours, theirs)
        return text.splitlines()

    def _is_quiet(self) -> bool:
        said = self.cluster.run(
            self.user.account, ["squeue", "-h", "-t", "running,completing,pending", "-o", "%r"]
        )
        return all(reason.startswith("JobHeld") for reason in said.stdout.splitlines())


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an index would have."""
    place = tmp_path_factory.mktemp("wheels")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", place, ROOT], check=True)
    for each in (place, *place.parents):
        if each.stat().st_uid == os.geteuid() and each != Path("/tmp"):
            each.chmod(each.stat().st_mode | 0o055)
    return place


@pytest.fixture(scope="module")
def site(user: Account, wheels: Path) -> Iterator[Site]:
    require("root", "slurm", "address", "crun", "busybox")
    engine = Engine(user, None, make_base(user))
    bundle = make_bundle(user, engine.home / "bundle")
    user.write(bundle / "rootfs" / "etc" / "os-release", RELEASE)
    _docker_archive(bundle / "rootfs", engine.home / "app.tar")
    user.own(engine.home / "app.tar")
    user.write(engine.home / "train.sh", TRAIN)
    try:
        with SlurmCluster(3, cpus=4, more=SCHEDULING) as cluster:
            made = Site(cluster, engine, wheels)
            yield made
            remove(made.opt)
    finally:
        engine.close()


def _docker_archive(rootfs: Path, target: Path) -> None:
    """A file as `docker save` writes it."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add(rootfs, arcname=".")
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    config = {
        "architecture": platform.machine().replace("x86_64", "amd64").replace("aarch64", "arm64"),
        "os": "linux",
        "config": {"Env": ["PATH=/usr/bin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": ["app:1"], "Layers": ["layer.tar"]}]
    with tarfile.open(target, "w") as tar:
        for name, data in (
            ("layer.tar", layer.getvalue()),
            ("config.json", json.dumps(config).encode()),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            about = tarfile.TarInfo(name)
            about.size = len(data)
            tar.addfile(about, io.BytesIO(data))


@pytest.mark.parametrize("page", ["slurm.md", "slurm-admin.md"])
def test_a_page(site: Site, page: str) -> None:
    """Every command prints what the page shows."""
    wrong = []
    for command in commands(ROOT / "docs" / page):
        printed = site.printed(site.type(command))
        if not agrees(command.shown, printed):
            said = "\n".join(printed)
            wrong.append(f"docs/{page}:{command.line}: $ {command.text}\n{said}")
    assert not wrong, "\n\n".join(wrong)
