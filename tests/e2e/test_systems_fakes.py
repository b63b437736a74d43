"""Container systems that cannot be installed here: command lines against fakes (support/fakes.py),
and image formats against files made as they are published.  What was run for real is in
docs/systems.md."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import diskimages, fakes
from tests.support.engine import Engine
from tests.support.skips import needs, require

pytestmark = [pytest.mark.container, needs("busybox", "bwrap")]

_NAMES = {"sarus": "sarus:box:1", "shifter": "shifter:box:1"}
_IMAGES = {"sarus": "box:1", "shifter": "docker:box:1"}


@pytest.fixture
def only_user(engine: Engine) -> Engine:
    if engine.account.uid == 0:
        pytest.skip("shown as the user alone")
    return engine


@pytest.mark.parametrize("system", fakes.PUBLISHED)
def test_command_line_of_a_fake(
    only_user: Engine, make_bundle: Callable[..., Path], system: str
) -> None:
    """Exit code, environment, directory, mounts and streams, by published options alone."""
    engine = only_user
    bundle = make_bundle(readonly=False)
    (bundle / "rootfs/data").mkdir()
    engine.account.own(bundle)
    images = {_IMAGES[system]: f"{bundle}/rootfs"} if system in _IMAGES else {}
    env = fakes.install(engine, system, images)
    data = engine.account.mkdir(engine.work / "data")
    engine.account.write(data / "in", "from the host\n")
    argv = [
        "srun", f"--container-system={system}", f"--container={_NAMES.get(system, bundle)}",
        f"--container-mounts={data}:/data:ro", "--chdir=/etc",
    ]  # fmt: skip
    script = 'printf "%s|" "$WORDS" "$SLURM_PROCID"; pwd; cat /data/in; cat; exit 3'
    env = {**env, "WORDS": "two  'words' $HOME"}
    done = engine.run([*argv, "sh", "-c", script], env=env, stdin="typed")
    assert done.stdout == "two  'words' $HOME|0|/etc\nfrom the host\ntyped", done
    assert done.returncode == 3, done
    process = engine.popen([*argv, "sh", "-c", "echo up; exec sleep 60"], env=env)
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    assert engine.finish(process).returncode == 143


def squashed(engine: Engine, rootfs: Path, path: Path) -> None:
    require("squashfs-tools")
    path.parent.mkdir(parents=True, exist_ok=True)
    diskimages.squashfs(rootfs, path)
    engine.account.own(engine.work)


def test_images_of_a_sarus_repository_made_here(
    only_user: Engine, make_bundle: Callable[..., Path]
) -> None:
    engine = only_user
    repository = engine.home / ".sarus"
    image = repository / "images/index.docker.io/library/box/1.squashfs"
    squashed(engine, make_bundle() / "rootfs", image)
    told = {"Cmd": ["sh"], "Entrypoint": [], "WorkingDir": "/etc", "Env": {"GREETING": "hello"}}
    image.with_suffix(".meta").write_text(json.dumps(told))
    row = {
        "uniqueKey": "index.docker.io/library/box/1", "server": "index.docker.io",
        "namespace": "library", "image": "box", "tag": "1", "digest": "", "datasize": "1MB",
        "created": "2026-01-01T00:00:00", "imagePath": f"{image}",
        "metadataPath": f"{image.with_suffix('.meta')}",
    }  # fmt: skip
    (repository / "metadata.json").write_text(json.dumps({"images": [row]}))
    engine.account.own(repository)
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
    image = engine.work / "images/abc123.squashfs"
    squashed(engine, make_bundle() / "rootfs", image)
    image.with_suffix(".meta").write_text("FORMAT: squashfs\nWORKDIR: /etc\nENV: GREETING=hello\n")
    folder = engine.account.mkdir(engine.base / "fakes")
    lookup = '#!/bin/sh\ntest "$1 $2" = "lookup docker:box:1" && echo abc123\n'
    engine.account.write(folder / "shifterimg", lookup, 0o755)
    conf = engine.account.write(engine.work / "udiRoot.conf", f"imagePath={image.parent}\n")
    env = {"PATH": f"{folder}:{engine.variables['PATH']}", "ROADSTEAD_UDIROOT_CONF": f"{conf}"}
    argv = ["srun", "--container=shifter:box:1", "sh", "-c", "echo $GREETING; pwd; exit 5"]
    done = engine.run(argv, env=env)
    assert (done.returncode, done.stdout) == (5, "hello\n/etc\n"), done


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
