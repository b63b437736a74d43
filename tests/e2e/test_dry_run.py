"""srun --dry-run: what would run, said and not done."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support import bundle
from tests.support.engine import Engine
from tests.support.skips import require

pytestmark = pytest.mark.container


@pytest.fixture
def rootfs(engine: Engine) -> Path:
    require("busybox", "crun")
    path = engine.work / "rootfs"
    bundle.make_rootfs(path)
    return engine.account.own(path)


def dry(engine: Engine, *options: object, env: Any = None) -> dict[str, Any]:
    argv = ["srun", "--dry-run=json", *options]
    found: dict[str, Any] = json.loads(engine.run(argv, env=env).check().stdout)
    return found


def everything(engine: Engine) -> set[str]:
    """What is in the engine's directories, but for the controller's own files."""
    own = ("controller", "journal", "start.lock", "run", "holds")
    return {
        os.path.join(top, name)
        for place in (engine.state, engine.runtime, engine.base / "tmp", engine.work)
        for top, folders, files in os.walk(place)
        for name in (*folders, *files)
        if not name.startswith(own)
    }


def test_it_says_what_would_run_and_runs_nothing(engine: Engine, rootfs: Path) -> None:
    engine.run(["squeue"]).check()
    before = everything(engine)
    options = ["--container", rootfs, "--container-mounts=./:/in:ro", "--container-env=MINE",
               "--export=ALL", "-n2", "--overcommit"]  # fmt: skip
    said = dry(engine, *options, "touch", "/in/x", env={"MINE": "1", "TERM": "t"})
    first, second = said["tasks"]
    assert first["config"]["process"]["args"] == ["touch", "/in/x"]
    assert first["config"]["mounts"][-1]["destination"] == "/in"
    variables = first["environment"]
    assert variables["MINE"] == {"value": "1", "from": "--container-env"}
    assert variables["PATH"]["from"] == "image"
    assert variables["TERM"] == {"value": "t", "from": "job"}
    assert variables["SLURM_PROCID"] == {"value": "0", "from": "step"}
    assert second["environment"]["SLURM_PROCID"]["value"] == "1"
    env = dict(each.split("=", 1) for each in first["config"]["process"]["env"])
    assert env == {name: each["value"] for name, each in variables.items()}
    run = first["commands"]["run"]
    assert "run" in run
    assert f"--bundle={engine.runtime}/roadstead/steps/1.0/task-0" in run
    text = engine.run(["srun", "--dry-run", *options, "touch", "/in/x"]).check().stdout
    assert text.startswith("# config.json of task 0 on ")
    assert "step            SLURM_PROCID=1" in text
    assert everything(engine) == before
    assert not engine.run(["squeue", "-h"]).stdout
    assert engine.run(["sacct", "-n"]).stdout == ""
    engine.run(["srun", "--container", rootfs, "true"]).check()
    assert "1.0" in engine.run(["sacct", "-n", "-o", "jobid"]).stdout  # no number was used up


def test_what_is_said_is_what_the_runtime_reads(engine: Engine, make_bundle: Any) -> None:
    made = make_bundle()
    spy = engine.work / "crun"
    engine.account.write(
        spy,
        '#!/bin/sh\nfor a; do case $a in --bundle=*) cp "${a#--bundle=}/config.json" '
        f'{engine.work}/read ;; esac; done\nexec crun "$@"\n',
    )
    spy.chmod(0o755)
    env = {"ROADSTEAD_RUNTIME": os.fspath(spy), "ROADSTEAD_OCI_CONF": "none"}
    said = dry(engine, "--container", made, "true", env=env)
    engine.run(["srun", "--container", made, "true"], env=env).check()
    assert said["tasks"][0]["config"] == json.loads((engine.work / "read").read_text())


def test_a_batch_script_and_a_step_of_a_job(engine: Engine, rootfs: Path) -> None:
    engine.account.write(
        engine.work / "job",
        "#!/bin/sh\n#SBATCH --container=./rootfs\n#SBATCH --output=out\ntouch made\n",
    )
    done = engine.run(["sbatch", "--dry-run=json", "job", "a"]).check()
    (task,) = json.loads(done.stdout)["tasks"]
    assert task["config"]["process"]["args"][0].endswith("/startup")
    assert task["config"]["process"]["args"][1:] == ["a"]
    assert task["environment"]["ENVIRONMENT"]["value"] == "BATCH"
    assert not (engine.work / "made").exists()
    script = "srun --dry-run --container=./rootfs hostname; srun --container=./rootfs echo ran"
    done = engine.run(["salloc", "sh", "-c", script]).check()
    assert "SLURM_STEP_ID=0" in done.stdout
    assert done.stdout.endswith("ran\n")


def test_a_container_with_a_name(engine: Engine, rootfs: Path) -> None:
    named = ["--container-name=c", "--container-image=./rootfs"]
    script = (
        f"srun --dry-run {' '.join(named)} true > one; srun {' '.join(named)} touch /x; "
        "srun --dry-run --container-name=c true > two; srun --container-name=c ls /x"
    )
    done = engine.run(["salloc", "sh", "-c", script]).check()
    assert done.stdout == "/x\n"
    assert "# commands" in (engine.work / "one").read_text()
    assert "# commands" in (engine.work / "two").read_text()
    done = engine.run(["srun", "--dry-run", "--container-name=c", "true"])
    assert "the job has no container of this name" in done.stderr


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--container=./rootfs", "nothing"], 127, "nothing: not found"),
        (["--container=./none", "true"], 1, "does not exist"),
        (["--container=./rootfs", "--container-save=none/x", "true"], 1, "no directory"),
        (["true"], 1, "--dry-run is about containers"),
        (["--dry-run=xml", "--container=./rootfs", "true"], 255, "Invalid --dry-run"),
        (["--container=./rootfs", "-n9999", "true"], 1, "More processors requested than permitted"),
    ],
)
def test_what_would_fail(
    engine: Engine, rootfs: Path, options: list[str], code: int, said: str
) -> None:
    done = engine.run(["srun", "--dry-run", *options])
    assert said in done.stderr
    assert done.returncode == code
    assert done.stdout == ""
