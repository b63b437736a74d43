"""The options about containers, each by its effect."""

from __future__ import annotations

import os
import tarfile
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
    require("busybox")
    path = engine.work / "rootfs"
    bundle.make_rootfs(path)
    (path / "trap").symlink_to("/../../../../../../../../../../etc/trapped")
    return engine.account.own(path)


def sh(engine: Engine, root: Path, script: str, *options: object, env: Any = None) -> Any:
    argv = ["srun", "--container", root, *options, "sh", "-c", script]
    return engine.run(argv, env=env)


def test_mounts(engine: Engine, rootfs: Path, runtime: Any) -> None:
    engine.account.write(engine.work / "file", "from outside\n")
    mounts = "./:/in:ro,./file:/etc/motd,/dev/null:/null,tmpfs:/mem:size=1m,umount:/dev/mqueue"
    script = (
        "cat /in/file /etc/motd; touch /in/x 2>&1 | grep -o Read-only; test -c /null && echo null;"
        "grep -c ' /mem ' /proc/mounts; grep -c /dev/mqueue /proc/mounts; echo y > /mem/y"
    )
    done = sh(engine, rootfs, script, f"--container-mounts={mounts}", env=runtime).check()
    assert done.stdout.split("\n") == [
        "from outside", "from outside", "Read-only", "null", "1", "0", "",
    ]  # fmt: skip
    assert not (engine.work / "x").exists()
    assert not (rootfs / "in").exists()


def test_several_options_add_up(engine: Engine, rootfs: Path) -> None:
    options = ["--container-mounts=./:/a", "--container-mounts", "./:/b"]
    sh(engine, rootfs, "test -d /a/rootfs && test -d /b/rootfs", *options).check()


def test_a_mount_through_a_link_of_the_image_stays_inside(
    engine: Engine, rootfs: Path, runtime: Any
) -> None:
    engine.account.mkdir(engine.work / "d")
    script = "ls -d /etc/trapped/inner"
    options = ["--container-mounts=./d:/trap/inner"]
    done = sh(engine, rootfs, script, *options, env=runtime)
    assert done.stdout == "/etc/trapped/inner\n" or done.returncode  # or the runtime refuses it
    assert not os.path.lexists("/etc/trapped")


@pytest.mark.parametrize("mount", ["/:/", "./:/proc", "./:/x/../../y", "./:/proc/self"])
def test_mounts_that_are_refused(engine: Engine, rootfs: Path, mount: str) -> None:
    done = sh(engine, rootfs, "true", f"--container-mounts={mount}")
    assert done.returncode
    assert "--container-mounts" in done.stderr


def test_a_source_that_is_not_there(engine: Engine, rootfs: Path) -> None:
    done = sh(engine, rootfs, "true", "--container-mounts=/nothing:/x")
    assert done.returncode == 1
    assert "--container-mounts: /nothing: No such file or directory" in done.stderr
    sh(engine, rootfs, "! test -e /x", "--container-mounts=/nothing:/x:nofail").check()


def test_a_bundle_is_not_given_mount_points(engine: Engine, make_bundle: Any) -> None:
    made = make_bundle(readonly=True)
    done = sh(engine, made, "ls /new; touch /y", "--container-mounts=./:/new")
    assert "Read-only" in done.stderr
    assert not (made / "rootfs/new").exists()


def test_where_and_who(engine: Engine, rootfs: Path, runtime: Any) -> None:
    done = sh(engine, rootfs, "pwd", "--container-workdir=/var/tmp", env=runtime).check()
    assert done.stdout == "/var/tmp\n"
    done = sh(engine, rootfs, "true", "--container-workdir=/none", env=runtime)
    assert "--container-workdir=/none: not a directory in the container" in done.stderr
    if engine.account.uid and runtime["ROADSTEAD_RUNTIME"] == "crun":
        own = sh(engine, rootfs, "id -u", "--no-container-remap-root", env=runtime).check()
        assert own.stdout == f"{engine.account.uid}\n"
    assert sh(engine, rootfs, "id -u", "--container-remap-root", env=runtime).stdout == "0\n"


def test_the_home_directory(engine: Engine, rootfs: Path) -> None:
    engine.account.write(engine.home / "mine", "x")
    sh(engine, rootfs, f"! test -e {engine.home}/mine").check()
    sh(engine, rootfs, f"test -e {engine.home}/mine", "--container-mount-home").check()
    environ = {"PYXIS_CONTAINER_MOUNT_HOME": "1"}
    sh(engine, rootfs, f"test -e {engine.home}/mine", env=environ).check()


def test_variables_of_ours_for_those_of_the_image(engine: Engine, make_bundle: Any) -> None:
    made = make_bundle()
    done = sh(engine, made, "echo $TERM", env={"TERM": "mine"}).check()
    assert done.stdout == "xterm\n"
    done = sh(engine, made, "echo $TERM", "--container-env=TERM", env={"TERM": "mine"}).check()
    assert done.stdout == "mine\n"


def test_a_bundle_has_no_entrypoint(engine: Engine, make_bundle: Any) -> None:
    done = sh(engine, make_bundle(), "true", "--container-entrypoint")
    assert "a bundle has no entrypoint" in done.stderr


def test_the_variables_do_not_ask_for_a_container(engine: Engine) -> None:
    environ = {"PYXIS_CONTAINER_MOUNTS": "/a:/b", "SRUN_CONTAINER_WRITABLE": ""}
    engine.run(["srun", "true"], env=environ).check()


def test_a_pyxis_script(engine: Engine, rootfs: Path) -> None:
    """As Pyxis's README mounts a file of the host, in a batch script."""
    script = (
        "#!/bin/sh\n#SBATCH --output=out\n"
        "srun --container-image=./rootfs --container-mounts=/etc/os-release:/host/os-release "
        "grep -c PRETTY /host/os-release\n"
        "srun --container-image=./rootfs sh -c 'test -e /host || echo gone'\n"
    )
    engine.account.write(engine.work / "job", script)
    engine.run(["sbatch", "-W", "job"]).check()
    assert (engine.work / "out").read_text() == "1\ngone\n"


def test_directives(engine: Engine, rootfs: Path) -> None:
    script = (
        "#!/bin/sh\n#SBATCH --container-image=./rootfs\n#SBATCH --container-mounts=./:/in\n"
        "#SBATCH -o out --container-workdir=/in\npwd; ls -d rootfs\n"
    )
    engine.account.write(engine.work / "job", script)
    engine.run(["sbatch", "-W", "job"]).check()
    assert (engine.work / "out").read_text() == "/in\nrootfs\n"


def test_salloc(engine: Engine, rootfs: Path) -> None:
    argv = ["salloc", "--container-image=./rootfs", "--container-mounts=./:/in", "ls", "-d", "/in"]
    assert engine.run(argv).check().stdout == "/in\n"


def test_an_environment_definition_file(engine: Engine, rootfs: Path) -> None:
    """As the Container Engine's documentation writes one, with our image."""
    base = 'image = "./rootfs"\n[env]\nBASE = "yes"\nGONE = ""\n'
    top = (
        'base_environment = "common"\nworkdir = "${DATA}"\nmounts = [\n'
        '    "${DATA}:${DATA}:ro",\n]\n[env]\nDEBUG = "${WHO}!"\nPATH = "${PATH}:/custom"\n'
        '[annotations]\ncom.hooks.ssh.enabled = "true"\n'
    )
    engine.account.mkdir(engine.home / ".edf")
    engine.account.write(engine.home / ".edf/common.toml", base)
    engine.account.write(engine.home / ".edf/debian.toml", top)
    data = engine.account.mkdir(engine.work / "data") or engine.work / "data"
    environ = {"DATA": os.fspath(data), "WHO": "me", "GONE": "no", "PATH": engine.variables["PATH"]}
    script = 'pwd; echo $BASE $DEBUG "[$GONE]"; echo $PATH | grep -o :/custom; touch x 2>/dev/null'
    argv = ["srun", "--environment=debian", "sh", "-c", f"{script}; echo $?"]
    said = engine.run(argv, env=environ).check().stdout.split("\n")
    assert said == [os.fspath(data), "yes me! []", ":/custom", "1", ""]
    argv = ["srun", "--environment=nothing", "true"]
    done = engine.run(argv)
    assert f"no environment 'nothing' in {engine.home}/.edf" in done.stderr
    assert done.returncode == 1


def test_root_inside_may_change_owners(engine: Engine, rootfs: Path, runtime: Any) -> None:
    """As a package manager does; the other owners are the user's subordinate ids."""
    require("newuidmap")
    script = "touch /f && chown 33:34 /f && stat -c %u:%g /f && chroot / id -u"
    done = sh(engine, rootfs, script, "--container-remap-root", env=runtime).check()
    assert done.stdout == "33:34\n0\n"
    batch = (
        "#!/bin/sh\nsrun --container-image=./rootfs --container-name=c true\n"
        f"srun --container-name=c --container-remap-root sh -c '{script}'\n"
        "srun --container-name=c --container-remap-root --container-save=s.tar stat -c %u /f\n"
        "srun --container-name=c id -u\n"
    )
    engine.account.write(engine.work / "job", batch)
    engine.run(["sbatch", "-W", "-o", "out", "job"], env=runtime).check()
    assert (engine.work / "out").read_text() == "33:34\n0\n33\n0\n"
    with tarfile.open(engine.work / "s.tar") as archive:
        blobs = [each for each in archive.getmembers() if each.name.startswith("blobs/")]
        layer = archive.extractfile(max(blobs, key=lambda each: each.size))
        with tarfile.open(fileobj=layer) as tar:
            found = tar.getmember("f")
            own = tar.getmember("bin/busybox")
    assert (found.uid, found.gid) == (33, 34)
    assert own.uid == 0


def test_root_inside_without_subordinate_ids(engine: Engine, rootfs: Path) -> None:
    """One id is all there is, and -v says so."""
    if not engine.account.uid:
        pytest.skip("root has all ids")
    bin_ = engine.base / "bin"
    engine.account.mkdir(bin_)
    for name in ("crun", "sh", "env", "python3"):
        (bin_ / name).symlink_to(f"/usr/bin/{name}")
    env = {"PATH": f"{engine.shims}:{bin_}"}
    argv = ["srun", "-v", "--container", rootfs, "--container-remap-root"]
    done = engine.run([*argv, "sh", "-c", "id -u; touch /f; chown 33 /f"], env=env)
    assert done.stdout == "0\n"
    assert done.returncode
    assert "no subordinate ids" in done.stderr
