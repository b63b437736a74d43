"""What container systems need to run in a test's own directories, and what they may not leave.

Those that install here are real.  Of the others there are fakes (fakes.py), which are told apart by
their names: "fake-enroot".
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support import diskimages, engines, fakes
from tests.support.components import program
from tests.support.engine import Engine
from tests.support.skips import require

# system → the components that bring it.
INSTALLED: Final[dict[str, tuple[str, ...]]] = {
    "apptainer": ("apptainer", "squashfs-tools"),
    "bubblewrap": ("bwrap",),
    "charliecloud": ("charliecloud",),
    "docker": ("docker", "root"),
    "podman": ("podman", "crun"),
    "singularity": ("apptainer",),  # by its older name
    "udocker": ("udocker", "proot"),
}
FAKES: Final = ("fake-apptainer", "fake-enroot", "fake-sarus", "fake-shifter")
# What of the fakes run images of their own alone, and what such an image is called.
_NAMED: Final = {"sarus": "box:1", "shifter": "docker:box:1"}
_UDOCKER: Final = """\
#!/usr/bin/python3
import sys
sys.path.insert(0, {library!r})
from udocker.maincmd import main
main()
"""


@contextlib.contextmanager
def ready(system: str, engine: Engine, rootfs: Path) -> Iterator[tuple[dict[str, str], str]]:
    """The variables with which the system keeps to the engine's directories, and the reference of
    an image of its own with these files, or ""."""
    if system in FAKES:
        yield _fake(system.removeprefix("fake-"), engine, rootfs)
        return
    require(*INSTALLED[system])
    if system == "podman":
        with _podman(engine, rootfs) as found:
            yield found
    elif system == "docker":
        with engines.docker_daemon(engine.account.gid) as host:
            env = {"DOCKER_HOST": host}
            archive = _packed(rootfs, engine.work)
            engine.run(["docker", "import", archive, "box"], env=env).check()
            yield env, "docker-daemon:box"
    elif system == "udocker":
        if engine.account.uid == 0:
            pytest.skip("udocker refuses root")
        yield _udocker(engine, rootfs), "udocker:box"
    elif system in ("apptainer", "singularity"):
        yield _apptainer(engine, rootfs, is_first=system == "apptainer")
    else:
        yield {}, ""


@contextlib.contextmanager
def _podman(engine: Engine, rootfs: Path) -> Iterator[tuple[dict[str, str], str]]:
    env = engines.settings(engine)
    try:
        archive = _packed(rootfs, engine.work)
        engine.run(["podman", "import", "-q", archive, "box"], env=env).check()
        yield env, "containers-storage:localhost/box"
    finally:
        engines.remove(engine, env)


def _udocker(engine: Engine, rootfs: Path) -> dict[str, str]:
    """Its own Python package, readable by the account, and the machine's PRoot as its engine; its
    tools come from a file made here, as it would fetch them from the network."""
    library, folder = engine.base / "udocker/lib", engine.base / "udocker/bin"
    for path in (library.parent, library, folder):
        engine.account.mkdir(path)
    package = Path(sysconfig.get_path("purelib")) / "udocker"
    shutil.copytree(package, library / "udocker", ignore=shutil.ignore_patterns("__pycache__"))
    engine.account.write(folder / "udocker", _UDOCKER.format(library=f"{library}"), 0o755)
    tools = engine.base / "udocker/udockertools"
    for name in ("bin", "lib", "doc"):
        (tools / "udocker_dir" / name).mkdir(parents=True)
    (tools / "udocker_dir/lib/VERSION").write_text("1.2.11")
    proot = shutil.which("proot") or ""
    shutil.copy(proot, tools / "udocker_dir/bin" / f"proot-{os.uname().machine}")
    with tarfile.open(tools.with_suffix(".tar.gz"), "w:gz") as made:
        made.add(tools / "udocker_dir", "udocker_dir")
    engine.account.own(engine.base / "udocker")
    env = {
        "PATH": f"{folder}:{engine.variables['PATH']}",
        "UDOCKER_DIR": f"{engine.base}/udocker/repository",
        "UDOCKER_TARBALL": f"{tools}.tar.gz",
        "UDOCKER_USE_PROOT_EXECUTABLE": proot,
    }
    engine.run(["udocker", "install"], env=env).check()
    archive = _packed(rootfs, engine.work)
    engine.run(["udocker", "import", archive, "box:latest"], env=env).check()
    engine.run(["udocker", "create", "--name=box", "box:latest"], env=env).check()
    return env


def _apptainer(engine: Engine, rootfs: Path, *, is_first: bool) -> tuple[dict[str, str], str]:
    """Apptainer, and a SIF file that it has made."""
    folder = Path(program("apptainer") or "").parent
    env = {"PATH": f"{engine.variables['PATH']}:{folder}"}
    if not is_first:
        return env, ""
    image = engine.work / "box.sif"
    engine.run(["apptainer", "--silent", "build", image, rootfs], env=env).check()
    return env, f"sif:{image}"


def _fake(system: str, engine: Engine, rootfs: Path) -> tuple[dict[str, str], str]:
    """A fake, and an image in the system's repository, as it is published."""
    require("bwrap", "squashfs-tools")
    name = _NAMED.get(system, "")
    env = fakes.install(engine, system, {name: f"{rootfs}"} if name else {})
    if system == "sarus":
        sarus_repository(engine, rootfs)
    elif system == "shifter":
        gateway = shifter_gateway(engine, rootfs)
        env |= gateway | {"PATH": f"{gateway['PATH']}:{env['PATH']}"}
    return env, f"{system}:{name}" if name else ""


def sarus_repository(engine: Engine, rootfs: Path) -> None:
    """The user's repository of Sarus, with box:1 in it."""
    repository = engine.home / ".sarus"
    name = "index.docker.io/library/box/1"
    image = repository / f"images/{name}.squashfs"
    image.parent.mkdir(parents=True)
    diskimages.squashfs(rootfs, image)
    told = {"Cmd": ["sh"], "Entrypoint": [], "WorkingDir": "/etc", "Env": {"GREETING": "hello"}}
    image.with_suffix(".meta").write_text(json.dumps(told))
    row = {
        "uniqueKey": name, "server": "index.docker.io", "namespace": "library",
        "image": "box", "tag": "1", "digest": "", "datasize": "1MB",
        "created": "2026-01-01T00:00:00", "imagePath": f"{image}",
        "metadataPath": f"{image.with_suffix('.meta')}",
    }  # fmt: skip
    (repository / "metadata.json").write_text(json.dumps({"images": [row]}))
    engine.account.own(repository)


def shifter_gateway(engine: Engine, rootfs: Path) -> dict[str, str]:
    """What Shifter's gateway has made of docker:box:1, and a shifterimg that knows it."""
    top = engine.account.mkdir(engine.base / "gateway")
    image = top / "images/abc123.squashfs"
    image.parent.mkdir()
    diskimages.squashfs(rootfs, image)
    image.with_suffix(".meta").write_text("FORMAT: squashfs\nWORKDIR: /etc\nENV: GREETING=hello\n")
    (top / "udiRoot.conf").write_text(f"imagePath={image.parent}\n")
    lookup = '#!/bin/sh\ntest "$1 $2" = "lookup docker:box:1" && echo abc123\n'
    engine.account.write(top / "shifterimg", lookup, 0o755)
    engine.account.own(top)
    path = f"{top}:{engine.variables['PATH']}"
    return {"PATH": path, "ROADSTEAD_UDIROOT_CONF": f"{top}/udiRoot.conf"}


def _packed(rootfs: Path, folder: Path) -> Path:
    made = folder / "box.tar"
    subprocess.run(["tar", "-C", rootfs, "-cf", made, "."], check=True)
    made.chmod(0o644)
    return made


def nothing_is_kept(system: str, engine: Engine, env: dict[str, str]) -> None:
    """No container is known to the system itself any more."""
    if system in ("podman", "docker"):
        listed = engine.run([system, "ps", "--all", "--quiet"], env=env).check()
        assert listed.stdout == ""
