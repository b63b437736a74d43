"""Scripts and Environment Definition Files as the documentation of Pyxis, of Enroot and of CSCS's
Container Engine has users write them, save for the names of the images: these are files here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.support import bundle
from tests.support.engine import Engine
from tests.support.skips import require

pytestmark = pytest.mark.container


@pytest.fixture
def image(engine: Engine) -> Path:
    """A squashfs as `enroot import` makes it: with /etc/rc and /etc/environment."""
    require("busybox", "squashfs-tools")
    root = engine.base / "home" / "root"
    bundle.make_rootfs(root)
    (root / "usr/bin").mkdir(parents=True)
    (root / "etc/os-release").write_text('PRETTY_NAME="A Linux"\n')
    (root / "etc/environment").write_text("PATH=/usr/bin:/bin\nNVIDIA_VISIBLE_DEVICES=void\n")
    (root / "etc/rc").write_text('echo "from the entrypoint"\nexec "$@"\n')
    path = engine.work / "ubuntu.sqsh"
    engine.account.own(root)
    argv = ["mksquashfs", root, path, "-all-root", "-no-progress", "-quiet"]
    engine.account.run(argv).check()
    return path


def batch(engine: Engine, script: str, env: Any = None) -> list[str]:
    engine.account.write(engine.work / "job.sh", script)
    engine.run(["sbatch", "--wait", "--output=out", "job.sh"], env=env).check()
    return (engine.work / "out").read_text().splitlines()


def test_a_job_script_of_pyxis(engine: Engine, image: Path) -> None:
    """Packages are added to a container with a name, which is used, and saved as an image."""
    (engine.work / "data").mkdir()
    engine.account.own(engine.work / "data")
    script = """\
#!/bin/bash
#SBATCH --job-name=train
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --time=00:10:00

CONT="$PWD/ubuntu.sqsh"
MOUNTS="$PWD/data:/data,/etc/hostname:/host/hostname:ro"

srun grep -c . /etc/os-release > /dev/null && echo outside

srun --ntasks=1 --container-image="${CONT}" --container-name=train --container-remap-root \\
    sh -c 'printf "#!/bin/sh\\necho tool of root\\n" > /usr/bin/tool; chmod +x /usr/bin/tool'

srun --container-name=train --container-mounts="${MOUNTS}" --container-workdir=/data \\
    --no-container-mount-home --export=ALL,EPOCHS=3 \\
    sh -c 'tool; pwd; echo "epochs $EPOCHS" | tee result; test -s /host/hostname && echo host'

srun --container-name=train --container-save="$PWD/trained.sqsh" true

srun --container-image=./trained.sqsh grep PRETTY /etc/os-release
srun --container-image=./trained.sqsh --container-entrypoint tool
"""
    said = batch(engine, script)
    assert said == [
        "outside", "tool of root", "/data", "epochs 3", "host", 'PRETTY_NAME="A Linux"',
        "from the entrypoint", "tool of root",
    ]  # fmt: skip
    assert (engine.work / "data/result").read_text() == "epochs 3\n"
    assert (engine.work / "data/result").stat().st_uid == engine.account.uid


def test_the_whole_script_in_a_container(engine: Engine, image: Path) -> None:
    script = (
        "#!/bin/sh\n#SBATCH --container-image=./ubuntu.sqsh\n#SBATCH --container-writable\n"
        "grep PRETTY /etc/os-release\ntouch /new && echo written\n"
    )
    assert batch(engine, script) == ['PRETTY_NAME="A Linux"', "written"]


def test_variables_of_pyxis(engine: Engine, image: Path) -> None:
    env = {
        "PYXIS_CONTAINER_IMAGE": "./ubuntu.sqsh",
        "PYXIS_CONTAINER_WORKDIR": "/var/tmp",
        "PYXIS_CONTAINER_READONLY": "1",
        "PYXIS_CONTAINER_ENV": "NVIDIA_VISIBLE_DEVICES",
        "NVIDIA_VISIBLE_DEVICES": "all",
    }
    script = "pwd; touch /x 2>/dev/null || echo read-only; echo $NVIDIA_VISIBLE_DEVICES"
    done = engine.run(["srun", "sh", "-c", script], env=env).check()
    assert done.stdout == "/var/tmp\nread-only\nall\n"


def test_an_environment_of_the_container_engine(engine: Engine, image: Path) -> None:
    """Inheritance, variables, a squashfs with data, a script that uses it by name."""
    scratch = engine.base / "home" / "scratch"
    scratch.mkdir()
    data = engine.base / "home" / "data"
    data.mkdir()
    (data / "samples").write_text("1 2 3\n")
    engine.account.own(scratch)
    engine.account.own(data)
    argv = ["mksquashfs", data, scratch / "data.sqsh", "-all-root", "-no-progress", "-quiet"]
    engine.account.run(argv).check()
    edf = engine.home / ".edf"
    engine.account.mkdir(edf)
    engine.account.write(
        edf / "common_env.toml",
        'image = "${IMAGES}/ubuntu.sqsh"\nmounts = ["${SCRATCH}:${SCRATCH}"]\n'
        '[env]\nMY_RUN = "base"\nKEPT = "base"\nUNWANTED = ""\n'
        '[annotations.com.hooks.ssh]\nenabled = "false"\n',
    )
    engine.account.write(
        edf / "train.toml",
        'base_environment = ["common_env"]\n'
        'mounts = ["${SCRATCH}/data.sqsh:/data:sqsh"]\nworkdir = "${SCRATCH}"\n'
        "entrypoint = false\nwritable = true\n"
        '[env]\nMY_RUN = "production"\nMY_NODE = "${VAR_FROM_HOST}"\n'
        'PATH = "${PATH}:/custom/bin"\nNONE = "${NOT_SET:-}"\nLITERAL = "$${VAR}"\n',
    )
    script = (
        "#!/bin/bash\n#SBATCH --job-name=edf-example\n#SBATCH --time=00:01:00\n\n"
        "srun --environment=train sh -c 'cat /data/samples; pwd; touch /data/x 2>&1 | grep -o "
        'Read-only; echo $MY_RUN $KEPT $MY_NODE "[$UNWANTED]" $LITERAL; echo $PATH; touch out2\'\n'
    )
    env = {
        "SCRATCH": os.fspath(scratch),
        "IMAGES": os.fspath(engine.work),
        "VAR_FROM_HOST": "here",
        "UNWANTED": "1",
    }
    assert batch(engine, script, env) == [
        "1 2 3", os.fspath(scratch), "Read-only", "production base here [] ${VAR}",
        "/usr/bin:/bin:/custom/bin",
    ]  # fmt: skip
    assert (scratch / "out2").exists()
    held = list(engine.base.glob("home/**/holds/*"))
    assert not held, held


def test_a_squashfs_of_data_beside_a_bundle(engine: Engine, make_bundle: Any, image: Path) -> None:
    argv = ["srun", "--container", make_bundle(), "--container-mounts=./ubuntu.sqsh:/image:sqsh"]
    done = engine.run([*argv, "cat", "/image/etc/os-release"]).check()
    assert done.stdout == 'PRETTY_NAME="A Linux"\n'
    argv[-1] = "--container-mounts=./none.sqsh:/image:sqsh"
    done = engine.run([*argv, "true"])
    assert "none.sqsh" in done.stderr
    assert done.returncode == 1
