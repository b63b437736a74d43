"""Every kind of image, made by its own tool, run by srun: what it says of itself holds inside."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from roadstead.images.resolve import own_platform
from tests.support import diskimages, engines, leaks, sif
from tests.support.engine import Engine
from tests.support.skips import needs, require

pytestmark = [pytest.mark.container, needs("busybox", "crun", "skopeo", "umoci")]

Make = Callable[[Path, Path, Path], str]


@pytest.fixture(scope="module")
def top() -> Iterator[Path]:
    """A directory for all, with an image as an OCI layout, two archives and its files."""
    require("skopeo", "umoci", "busybox")
    made = Path(tempfile.mkdtemp(prefix=leaks.PREFIX, dir="/tmp"))
    made.chmod(0o755)
    engines.archive(made)
    run("chmod", "-R", "a+rX", made)
    yield made
    leaks.remove(made)


def run(*argv: str | os.PathLike[str], **more: str) -> None:
    env = {**os.environ, "USER": "root", **more}
    subprocess.run(argv, check=True, capture_output=True, text=True, env=env)


def copied(destination: str, *options: str) -> Make:
    """By skopeo, to another transport."""

    def make(top: Path, root: Path, to: Path) -> str:
        target = destination.format(to)
        argv = ["skopeo", "copy", "-q", "--insecure-policy", *options]
        run(*argv, f"oci:{top}/layout:box", target)
        return target

    return make


def layout(top: Path, root: Path, to: Path) -> str:
    return f"oci:{top}/layout:box"


def tar(form: str, *options: str) -> Make:
    def make(top: Path, root: Path, to: Path) -> str:
        run("tar", *options, "-C", root, "-cf", f"{to}.tar", ".")
        return f"{form}{to}.tar"

    return make


def squashfs(form: str) -> Make:
    def make(top: Path, root: Path, to: Path) -> str:
        require("squashfs-tools")
        diskimages.squashfs(root, to.with_suffix(".sqsh"), "-comp", "zstd")
        return f"{form}{to}.sqsh"

    return make


def ext4(top: Path, root: Path, to: Path) -> str:
    require("e2fsprogs")
    diskimages.ext(root, to.with_suffix(".img"), "-t", "ext4")
    return f"{to}.img"


def sif_file(form: str) -> Make:
    """No Singularity installs from this Debian: the file is written as its library writes it."""

    def make(top: Path, root: Path, to: Path) -> str:
        require("squashfs-tools")
        inner = diskimages.squashfs(root, to.with_suffix(".inner")).read_bytes()
        arm = own_platform() == "linux/arm64"
        part = sif.partition(inner, architecture=sif.ARM64 if arm else sif.AMD64)
        sif.write(to.with_suffix(".sif"), [part])
        return f"{form}{to}.sif"

    return make


def sandbox(top: Path, root: Path, to: Path) -> str:
    """Singularity's, as `singularity build --sandbox` leaves it."""
    shutil.copytree(root, to, symlinks=True)
    (to / ".singularity.d/env").mkdir(parents=True)
    (to / ".singularity.d/env/90-environment.sh").write_text("export GREETING='hello'\n")
    return os.fspath(to)


def charliecloud(kind: str) -> Make:
    def make(top: Path, root: Path, to: Path) -> str:
        require("charliecloud")
        run("tar", "-C", root, "-czf", f"{to}.tar.gz", ".")
        suffix = {"dir": "", "squash": ".sqfs"}[kind]
        run("ch-convert", "-i", "tar", "-o", kind, f"{to}.tar.gz", f"{to}{suffix}")
        return f"{to}{suffix}"

    return make


def udocker(top: Path, root: Path, to: Path) -> str:
    """A container of udocker's, as `udocker create` leaves it: udocker fetches its engines from the
    network when it is first used, and there is none here."""
    (to / "ROOT").parent.mkdir()
    shutil.copytree(root, to / "ROOT", symlinks=True)
    config = {"config": {"Env": ["GREETING=hello"], "WorkingDir": "/srv"}}
    (to / "container.json").write_text(json.dumps(config))
    return os.fspath(to)


# what → how it is made, and whether it knows the image's variables and directory.
KINDS: dict[str, tuple[Make, bool]] = {
    "oci": (layout, True),
    "oci-archive": (copied("oci-archive:{}.oci"), True),
    "oci-archive with a tag": (copied("oci-archive:{}.oci2:a"), True),
    "docker-archive": (copied("docker-archive:{}.docker:box:1"), True),
    "dir": (copied("dir:{}"), True),
    "dir of Docker's schema": (copied("dir:{}", "--format=v2s2"), True),
    "dir with zstd": (copied("dir:{}", "--dest-compress", "--dest-compress-format=zstd"), True),
    "tarball": (tar("tarball:"), False),
    "tar.gz by its path": (tar("", "-z"), False),
    "tar.xz by its path": (tar("", "-J"), False),
    "sqsh": (squashfs("sqsh:"), False),
    "squashfs by its path": (squashfs(""), False),
    "ext4 by its path": (ext4, False),
    "sif": (sif_file("sif:"), False),
    "sif by its path": (sif_file(""), False),
    "Charliecloud's directory": (charliecloud("dir"), False),
    "Charliecloud's squashfs": (charliecloud("squash"), False),
    "Singularity's sandbox": (sandbox, False),
    "udocker's container": (udocker, True),
}


@pytest.fixture(scope="module")
def made(top: Path) -> dict[str, str]:
    """What there is in ``top``, and no longer: kind → how it is named to srun."""
    return {}


@pytest.mark.parametrize("kind", KINDS)
def test_it_runs(engine: Engine, top: Path, made: dict[str, str], kind: str) -> None:
    make, knows = KINDS[kind]
    if kind not in made:
        made[kind] = make(top, top / "root", top / "-".join(kind.replace("'", "").split()))
        run("chmod", "-R", "a+rX", top)
    script = "pwd; echo $GREETING; cat /srv/hello; echo x > /new && cat /new; exit 3"
    argv = ["srun", "--container", made[kind], "sh", "-c", script]
    said = ["/srv", "hello"] if knows else ["/", "hello" if "sandbox" in kind else ""]
    for _ in range(2):  # from its file, and from the store
        done = engine.run(argv)
        assert done.stdout.split("\n") == [*said, "from an image", "x", ""], done
        assert (done.returncode, done.stderr.count("\n")) == (3, 1), done


def test_progress_is_for_terminals(engine: Engine, top: Path) -> None:
    """A bar while the image is brought, which is gone when the program starts."""
    seen, shown = os.openpty()
    name = f"oci:{top}/layout:box"
    process = engine.popen(["srun", "--container", name, "echo", "started"], stderr=shown)
    os.close(shown)
    assert engine.finish(process).returncode == 0
    text = os.read(seen, 65536).decode()
    os.close(seen)
    assert "unpacking [#" in text
    assert text.endswith("\r\x1b[K")


def test_a_disk_that_is_full_is_told_before_there_is_a_job(engine: Engine, top: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")
    disk = engine.account.mkdir(engine.work / "disk", 0o700)
    uid, gid = engine.account.uid, engine.account.gid
    options = f"size=40m,mode=0700,uid={uid},gid={gid}"
    run("mount", "-t", "tmpfs", "-o", options, "small", disk)
    try:
        argv = ["sbatch", "--container", f"oci:{top}/layout:box", "--wrap", "true"]
        done = engine.run(argv, env={"ROADSTEAD_IMAGES": f"{disk}/store"})
        assert done.returncode == 1
        assert "no space left where the image store is" in done.stderr
        assert "set ROADSTEAD_IMAGES to a place with more" in done.stderr
        assert engine.run(["squeue", "-h", "-t", "all"]).stdout == ""
        assert (
            list((disk / "store/work").iterdir()) == list((disk / "store/layers").iterdir()) == []
        )
    finally:
        run("umount", "--lazy", disk)


def test_a_directory_is_looked_at_again_when_what_describes_it_has_changed(
    engine: Engine, top: Path
) -> None:
    image = engine.work / "image"
    sandbox(top, top / "root", image)
    engine.account.own(image)
    argv = ["srun", "--container", "image", "sh", "-c", "echo $GREETING"]
    assert engine.run(argv).check().stdout == "hello\n"
    script = image / ".singularity.d/env/90-environment.sh"
    engine.account.write(script, "export GREETING='another'\n")
    assert engine.run(argv).check().stdout == "another\n"


def test_config_json_with_mounts_of_everything(engine: Engine, top: Path) -> None:
    """The host's root is not shown, nothing is put over the container's, and arrays without end are
    told; the engine lives on."""
    argv = ["roadstead", "bundle", "create", "app", "--from", "image", f"oci:{top}/layout:box"]
    engine.run(argv).check()
    path = engine.work / "app/config.json"
    whole = json.loads(path.read_text())

    def tried(**changes: object) -> str:
        engine.account.write(path, json.dumps({**whole, **changes}))
        done = engine.run(["srun", "--container", "app", "sh", "-c", "echo in; touch /m/etc/x"])
        assert done.returncode != 0
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    root = {"type": "bind", "source": "/", "options": ["rbind", "rw"]}
    assert "left out" in tried(mounts=[*whole["mounts"], {**root, "destination": "/m"}])
    over = tried(mounts=[*whole["mounts"], {**root, "destination": "/"}])
    assert "covers the container's whole root" in over
    many = [{"type": "tmpfs", "source": "t", "destination": f"/m/{n}"} for n in range(100_000)]
    assert "mounts has 100000 entries, and 10000 are the most" in tried(mounts=many)
    process = {**whole["process"], "env": [f"V{n}=x" for n in range(400_000)]}
    assert "process.env has 400000 entries" in tried(process=process)
    engine.account.write(path, json.dumps(whole))
    assert engine.run(["srun", "--container", "app", "echo", "up"]).check().stdout == "up\n"
