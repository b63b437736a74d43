"""A directory that is a root file system, run without a bundle around it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.support import bundle
from tests.support.engine import Engine
from tests.support.skips import require

pytestmark = pytest.mark.container


@pytest.fixture(params=["crun", "runc"])
def runtime(request: pytest.FixtureRequest) -> dict[str, str]:
    require(request.param, "busybox")
    return {"ROADSTEAD_RUNTIME": request.param, "ROADSTEAD_OCI_CONF": "none"}


@pytest.fixture
def rootfs(engine: Engine) -> Path:
    """A Debian-like tree with busybox, of the account's own."""
    require("busybox")
    path = engine.work / "rootfs"
    bundle.make_rootfs(path)
    return engine.account.own(path)


def names(path: Path) -> list[str]:
    return sorted(os.fspath(each.relative_to(path)) for each in path.rglob("*"))


def test_it_runs_and_is_not_written_to(engine: Engine, rootfs: Path, runtime: Any) -> None:
    before = names(rootfs)
    script = "id -u; hostname; echo mine > /etc/new; rm /etc/passwd; mkdir /opt; ls /etc"
    argv = ["srun", "--container", rootfs, "sh", "-c", script]
    said = engine.run(argv, env=runtime).check().stdout.split()
    assert said[0] == "0"
    assert said[2:] == ["group", "new"]
    assert names(rootfs) == before


def test_each_task_has_a_layer_of_its_own(engine: Engine, rootfs: Path, runtime: Any) -> None:
    script = "echo $SLURM_PROCID >> /etc/who; sleep 0.3; cat /etc/who"
    argv = ["srun", "-O", "-n", "2", "--container", rootfs, "sh", "-c", script]
    assert sorted(engine.run(argv, env=runtime).check().stdout.split()) == ["0", "1"]


def test_a_batch_script(engine: Engine, rootfs: Path) -> None:
    engine.account.write(engine.work / "job", "#!/bin/sh\ntouch /etc/x\necho $0 $1; exit 3\n")
    argv = ["sbatch", "-W", "-o", "out", "--container", "rootfs", "job", "seven"]
    assert engine.run(argv).returncode == 3
    assert (engine.work / "out").read_text() == "/dev/slurm/startup seven\n"


def test_read_only(engine: Engine, rootfs: Path, runtime: Any) -> None:
    argv = ["srun", "--container-readonly", "--container", rootfs, "touch", "/etc/x"]
    done = engine.run(argv, env=runtime)
    assert done.returncode == 1
    assert "Read-only file system" in done.stderr


def test_a_directory_that_is_neither(engine: Engine) -> None:
    done = engine.run(["srun", "--container", engine.home, "true"])
    assert done.returncode == 1
    assert "has no config.json" in done.stderr


def test_an_image_of_the_store(engine: Engine, rootfs: Path, runtime: Any) -> None:
    """Two layers with a configuration, made by umoci: user, directory, variables, entrypoint."""
    require("umoci")
    engine.account.write(
        rootfs / "etc/passwd", "root:x:0:0::/root:/bin/sh\nmine:x:7:8::/:/bin/sh\n"
    )
    engine.account.write(rootfs / "etc/entry", '#!/bin/sh\necho entered "$1"\nexec "$@"\n')
    (rootfs / "etc/entry").chmod(0o755)
    tag = "layout:latest"
    commands = [
        ["umoci", "init", "--layout", "layout"],
        ["umoci", "new", "--image", tag],
        ["umoci", "insert", "--rootless", "--image", tag, "rootfs", "/"],
        ["umoci", "insert", "--rootless", "--image", tag, "--whiteout", "/etc/group"],
        ["umoci", "config", "--image", tag, "--config.user=mine", "--config.workingdir=/var/tmp",
         "--config.env=OF=image", "--config.entrypoint=/etc/entry"],
    ]  # fmt: skip
    for command in commands:
        engine.run(command).check()
    script = "id -u; pwd; echo $OF; ls /etc; touch /etc/new"
    argv = ["srun", "--container", f"oci:{tag}", "sh", "-c", script]
    uid = "0" if runtime["ROADSTEAD_RUNTIME"] == "runc" and engine.account.uid else "7"
    for _ in range(2):  # what the first has written the second does not see
        done = engine.run(argv, env={**runtime, "OF": "job"})
        said = done.stdout.split()
        assert said[:3] == [uid, "/var/tmp", "image"], str(done)
        assert sorted(said[3:]) == ["entry", "passwd"]
    argv = ["srun", "--container-image", f"oci:{tag}", "--container-entrypoint", "echo", "ran"]
    assert engine.run(argv, env=runtime).check().stdout == "entered echo\nran\n"
