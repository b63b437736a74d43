"""Images of container systems that cannot be installed here: files made as they are published, and
what is written beside them.  Command lines against fakes are in test_systems.py; what was run for
real is in docs/systems.md.  And a system that is brought by somebody else's package."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import systems
from tests.support.engine import Engine
from tests.support.skips import needs

pytestmark = [pytest.mark.container, needs("busybox", "squashfs-tools")]


@pytest.fixture
def only_user(engine: Engine) -> Engine:
    if engine.account.uid == 0:
        pytest.skip("shown as the user alone")
    return engine


def test_images_of_a_sarus_repository_made_here(
    only_user: Engine, make_bundle: Callable[..., Path]
) -> None:
    engine = only_user
    systems.sarus_repository(engine, make_bundle() / "rootfs")
    done = engine.run(
        ["srun", "--container=sarus:box:1", "sh", "-c", "echo $GREETING; pwd; exit 5"]
    )
    assert (done.returncode, done.stdout) == (5, "hello\n/etc\n"), done
    done = engine.run(["srun", "--container=sarus:other", "true"])
    assert done.returncode == 1
    assert "sarus:other: no such image" in done.stderr
    assert "sarus pull other" in done.stderr


def test_images_of_a_shifter_gateway_made_here(
    only_user: Engine, make_bundle: Callable[..., Path]
) -> None:
    engine = only_user
    env = systems.shifter_gateway(engine, make_bundle() / "rootfs")
    argv = ["srun", "--container=shifter:box:1", "sh", "-c", "echo $GREETING; pwd; exit 5"]
    done = engine.run(argv, env=env)
    assert (done.returncode, done.stdout) == (5, "hello\n/etc\n"), done


def test_scripts_for_shifter_run_without_shifter(
    only_user: Engine, make_bundle: Callable[..., Path]
) -> None:
    """Its options and its word, as its plugin for Slurm has them."""
    engine = only_user
    env = systems.shifter_gateway(engine, make_bundle() / "rootfs")
    data = engine.account.mkdir(engine.work / "data")
    engine.account.write(data / "in", "from the host\n")
    script = engine.account.write(engine.work / "job", f"""#!/bin/sh
#SBATCH --image=docker:box:1 --volume={data}:/data:ro --output=said
test -e {data}/in && srun test -e {data}/in && echo on the node
srun -n2 --overcommit shifter -e X=1 sh -c 'cat /data/in; echo $GREETING $X; exit 3'
""")  # fmt: skip
    done = engine.run(["sbatch", "--wait", script], env=env)
    assert done.returncode == 3, done
    said = sorted((engine.work / "said").read_text().splitlines())
    assert [line for line in said if "srun: error" not in line] == sorted(
        ["on the node", *["from the host", "hello 1"] * 2]
    ), said
    srun = ["srun", "--image=box:1", f"--volume={data}:/data"]
    for word in ([], ["shifter"]):
        done = engine.run([*srun, *word, "sh", "-c", "cat /data/in; pwd; exit 5"], env=env)
        assert (done.returncode, done.stdout) == (5, "from the host\n/etc\n"), done
    allocated = ["salloc", "-Q", "--image=box:1", "srun", "shifter", "sh", "-c", "echo $GREETING"]
    assert engine.run(allocated, env=env).stdout == "hello\n"
    for argv, sentence in (
        (["srun", "--image=box:2", "true"], "srun: error: shifter:docker:box:2: no such image"),
        (["srun", "--image=a b", "true"], "srun: error: --image=a b: not an image's name"),
        (["srun", "--volume=/a:/b", "true"], "srun: error: --volume needs --image"),
        (["srun", "shifter", "true"], "srun: error: shifter: no image"),
        (["sbatch", "--image=box:1", "--volume=x", script], "sbatch: error: --volume: 'x': x is"),
        (["srun", "--image=box", "--container=/", "true"], "--container and --image are given"),
    ):
        done = engine.run(argv, env=env)
        assert done.returncode != 0
        assert sentence in done.stderr, done
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("system", ["ch-image", "enroot"])
def test_containers_and_images_of_storages_made_here(
    only_user: Engine, make_bundle: Callable[..., Path], system: str
) -> None:
    engine, rootfs = only_user, make_bundle() / "rootfs"
    top = engine.work / "storage"
    name, path, variable = {
        "ch-image": ("a/box:1", top / "img/a%box+1", "CH_IMAGE_STORAGE"),
        "enroot": ("box", top / "box", "ENROOT_DATA_PATH"),
    }[system]
    path.parent.mkdir(parents=True)
    rootfs.rename(path)
    engine.account.own(top)
    argv = ["srun", f"--container={system}:{name}", "sh", "-c", "cat /etc/group; exit 5"]
    done = engine.run(argv, env={variable: f"{top}"})
    assert (done.returncode, done.stdout) == (5, "root:x:0:\n"), done


_PACKAGE = '''\
"""An eleventh container system, brought by a package of somebody else's."""

from roadstead.systems import Start, System


class Chroot(System):
    """unshare(1), with the directory as its root."""

    name = "unshare"
    programs = ("unshare",)
    becomes = True

    def start(self, program, container):
        argv = [program, "--user", "--map-root-user", "--mount", f"--root={container.rootfs}"]
        return Start([*argv, f"--wd={container.cwd}", *container.args], dict(container.env))
'''


def test_a_package_brings_an_eleventh(only_user: Engine, make_bundle: Callable[..., Path]) -> None:
    """No change in the product: a module, and an entry point."""
    engine = only_user
    library = engine.work / "library"
    (library / "eleventh-1.dist-info").mkdir(parents=True)
    (library / "eleventh.py").write_text(_PACKAGE)
    (library / "eleventh-1.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: eleventh\nVersion: 1\n"
    )
    points = "[roadstead.systems]\nunshare = eleventh:Chroot\n"
    (library / "eleventh-1.dist-info/entry_points.txt").write_text(points)
    engine.account.own(library)
    env = {"ROADSTEAD_SYSTEMS": os.fspath(library)}
    argv = ["srun", "--container-system=unshare", f"--container={make_bundle(readonly=False)}"]
    done = engine.run([*argv, "sh", "-c", "cat /etc/group; exit 6"], env=env)
    assert (done.returncode, done.stdout) == (6, "root:x:0:\n"), done
    done = engine.run([*argv, "true"])
    assert done.returncode != 0
    assert "--container-system=unshare: no such container system" in done.stderr
    assert "known are apptainer, bubblewrap" in done.stderr
