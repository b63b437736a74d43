"""Images in Docker, Podman and Buildah, for an account of a test."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support import leaks
from tests.support.components import program
from tests.support.engine import Engine

# Machines without CAP_SYS_RESOURCE, cgroups or /dev/net/tun: none of it is what is tested.
_STORAGE = '[storage]\ndriver = "vfs"\n'
_POLICY = '{"default": [{"type": "insecureAcceptAnything"}]}'


def settings(engine: Engine) -> dict[str, str]:
    """Have Podman, Buildah and skopeo keep what they have in the engine's own directories; the
    variables for that."""
    folder = engine.home / ".config/containers"
    folder.mkdir(parents=True, exist_ok=True)
    where = f'graphroot = "{engine.base}/storage"\nrunroot = "{engine.runtime}/containers"\n'
    (folder / "storage.conf").write_text(_STORAGE + where)
    (folder / "policy.json").write_text(_POLICY)
    for path in (folder.parent, folder, *folder.iterdir()):
        engine.account.own(path)
    return {
        "XDG_CONFIG_HOME": f"{engine.home}/.config",
        "CONTAINERS_STORAGE_CONF": f"{folder}/storage.conf",
        "STORAGE_DRIVER": "vfs",
        "BUILDAH_ISOLATION": "chroot",
    }


def remove(engine: Engine, env: dict[str, str]) -> None:
    """Remove Podman's storage, some of it other ids', and the process that keeps its namespaces."""
    engine.run(["podman", "unshare", "rm", "-rf", engine.base / "storage"], env=env)
    for each in engine.processes():
        if "podman" in each.command or "catatonit" in each.command:
            os.kill(each.pid, signal.SIGKILL)
    for lock in Path("/dev/shm").glob(f"libpod*lock*{engine.account.uid or ''}"):
        lock.unlink()


def archive(top: Path) -> Path:
    """An oci-archive of a busybox whose command, user's directory and variable are known."""
    root = top / "root"
    for name in ("bin", "etc", "data", "srv"):
        (root / name).mkdir(parents=True)
    (root / "bin/busybox").write_bytes(Path(program("busybox") or "").read_bytes())
    (root / "bin/busybox").chmod(0o755)
    for name in ("sh", "cat", "pwd", "echo", "ls"):
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
    (root / "srv/hello").write_text("from an image\n")
    image = f"{top}/layout:box"
    for command in (
        ["umoci", "init", "--layout", f"{top}/layout"],
        ["umoci", "new", "--image", image],
        ["umoci", "insert", "--rootless", "--image", image, os.fspath(root), "/"],
        ["umoci", "config", "--image", image, "--config.workingdir", "/srv",
         "--config.env", "GREETING=hello", "--config.cmd", "sh", "--config.volume", "/data"],
        ["skopeo", "copy", "-q", "--insecure-policy", f"oci:{image}", f"oci-archive:{top}/box.oci"],
        ["skopeo", "copy", "-q", "--insecure-policy", f"oci:{image}",
         f"docker-archive:{top}/box.docker:box:latest"],
    ):  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
    for path in (top / "box.oci", top / "box.docker"):
        path.chmod(0o644)
    return top / "box.oci"


@contextlib.contextmanager
def docker_daemon(group: int) -> Iterator[str]:
    """A Docker daemon without a network, whose socket the group can use: DOCKER_HOST."""
    top = Path(tempfile.mkdtemp(prefix=f"{leaks.PREFIX}docker-", dir="/tmp"))
    top.chmod(0o755)
    argv: list[str] = [
        program("dockerd") or "", f"--data-root={top}/data", f"--exec-root={top}/exec",
        f"--pidfile={top}/pid", "-H", f"unix://{top}/s", "-G", str(group),
        "--iptables=false", "--bridge=none", "--storage-driver=vfs",
    ]  # fmt: skip
    with (top / "log").open("wb") as log:
        daemon = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while not _answers(f"unix://{top}/s"):
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((top / "log").read_text()[-2000:])
            time.sleep(0.1)
        yield f"unix://{top}/s"
    finally:
        daemon.terminate()
        daemon.wait()
        for left in Path("/sys/fs/cgroup").glob("*/docker"):
            left.rmdir()
        leaks.remove(top)


def _answers(host: str) -> bool:
    env = {**os.environ, "DOCKER_HOST": host}
    docker = program("docker") or ""
    return subprocess.run([docker, "version"], env=env, capture_output=True).returncode == 0
