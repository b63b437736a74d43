"""What container systems need to run in a test's own directories, and what they may not leave."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support import engines
from tests.support.engine import Engine
from tests.support.skips import require

# system → the components that bring it.
INSTALLED: Final[dict[str, tuple[str, ...]]] = {
    "bubblewrap": ("bwrap",),
    "charliecloud": ("charliecloud",),
    "docker": ("docker", "root"),
    "podman": ("podman", "crun"),
    "udocker": ("udocker", "proot"),
}
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
