"""Daemons that a job brings up for itself: --dockerd and --podman-service.

Real dockerd, rootlesskit and podman, as an unprivileged user, without a network.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import bundle, leaks, waiting
from tests.support.account import Account
from tests.support.engine import Engine, make_base, make_shims
from tests.support.product import Product
from tests.support.skips import require

pytestmark = pytest.mark.container

SEED = "--dockerd-image=bb=./rootfs"
RUN = "docker run --rm --network=none bb"


@pytest.fixture(scope="module")
def users_shims(product: Product, user: Account) -> Iterator[Path]:
    folder = make_shims(product, user)
    yield folder
    leaks.remove(folder)


@pytest.fixture
def users(user: Account, users_shims: Path) -> Iterator[Engine]:
    """An engine of an ordinary user's, and a root file system to seed: root has no such daemon."""
    require("busybox", "docker", "newuidmap")
    made = Engine(user, users_shims, make_base(user))
    user.own(bundle.make_rootfs(made.work / "rootfs"))
    yield made
    made.close()


@pytest.fixture
def docker(users: Engine) -> Engine:
    require("rootlesskit")
    return users


def left(engine: Engine) -> list[str]:
    """What of daemons is there."""
    found = [*engine.base.glob("tmp/*/daemons/*"), *engine.runtime.glob("roadstead/steps/*")]
    found += Path("/tmp").glob(f"roadstead-{engine.account.uid}-*")
    running = [each for each in engine.processes() if "dockerd" in str(each)]
    return [os.fspath(each) for each in found] + [str(each) for each in running]


def test_a_batch_script_has_a_daemon_with_its_image(docker: Engine) -> None:
    """It is there before the script's first line, steps reach it, and nothing of it stays; the
    script's arguments, standard input and exit code are its own."""
    docker.account.write(
        docker.work / "job",
        f"#!/bin/sh\n#SBATCH --dockerd {SEED} -n2 --mem=900\n"
        f"{RUN} sh -c 'echo inside; exit 5'; echo $? $1\n"
        "docker run -d --network=none bb sleep 300 > /dev/null\n"
        "srun -n1 docker ps --format '{{.Image}} {{.Command}}'\nexit 3\n",
    )
    done = docker.run(["sbatch", "-W", "-o", "out", "job", "argument"])
    assert (docker.work / "out").read_text() == 'inside\n5 argument\nbb "sleep 300"\n'
    assert done.returncode == 3
    waiting.eventually(lambda: not left(docker))


def test_srun_and_salloc_have_one_while_they_run(docker: Engine) -> None:
    words = [*RUN.split(), "sh", "-c", "echo $0; exit 4", "x"]
    done = docker.run(["srun", "--dockerd", SEED, *words])
    assert (done.returncode, done.stdout) == (4, "x\n"), done
    assert not left(docker)
    inside = f"srun -n1 --dockerd {SEED} {RUN} echo a; {RUN} echo b"
    done = docker.run(["salloc", "-Q", "-n2", "--dockerd", SEED, "sh", "-c", inside])
    assert (done.returncode, done.stdout) == (0, "a\nb\n"), done
    assert not left(docker)


def test_podman_has_a_service(users: Engine) -> None:
    require("podman")
    done = users.run(
        ["srun", "--podman-service", SEED, "docker", "images", "--format", "{{.Repository}}"]
    )
    assert (done.returncode, done.stdout.strip().rpartition("/")[2]) == (0, "bb"), done
    waiting.eventually(lambda: not left(users))


def supervisors(engine: Engine) -> list[int]:
    claims = engine.runtime.glob("roadstead/steps/*/claim.json")
    found: list[dict[str, Any]] = [json.loads(each.read_text()) for each in claims]
    return [each["pid"] for each in found]


def controller(engine: Engine) -> int:
    said = engine.run(["roadstead", "engine", "status"]).check().stdout
    return int(said.partition("controller ")[2].partition(",")[0])


@pytest.mark.parametrize("how", ["cancelled", "supervisors", "controller"])
def test_nothing_is_left_whatever_the_end(docker: Engine, how: str) -> None:
    """Cancelled at a random moment; its supervisors killed, and all of the engine."""
    trials = int(
        os.environ.get("ROADSTEAD_TEST_DAEMON_TRIALS", "20" if how == "cancelled" else "1")
    )
    seed = int(os.environ.get("ROADSTEAD_TEST_SEED", "0")) or random.randrange(1 << 32)
    chance = random.Random(seed)
    docker.account.write(
        docker.work / "job",
        f"#!/bin/sh\n#SBATCH --dockerd {SEED} -n2 -o out\n"
        "docker run -d --network=none bb sleep 300 && touch up; sleep 300\n",
    )
    for _ in range(trials):
        (docker.work / "up").unlink(missing_ok=True)
        docker.run(["sbatch", "job"]).check()
        if how == "cancelled":
            time.sleep(chance.uniform(0, 2.5))
            docker.run(["scancel", "-u", docker.account.name]).check()
        else:
            waiting.eventually((docker.work / "up").exists, timeout=60)
            pids = supervisors(docker)
            for pid in [*pids] if how == "supervisors" else [controller(docker), *pids]:
                os.kill(pid, signal.SIGKILL)
            docker.run(["squeue"]).check()
        waiting.eventually(lambda: not left(docker), timeout=60)
        assert not docker.run(["squeue", "-h"]).stdout, f"seed {seed}"


def test_what_is_wrong_has_one_sentence(engine: Engine) -> None:
    if engine.account.uid == 0:
        done = engine.run(["srun", "--dockerd", "true"])
        assert (done.returncode, done.stdout) == (1, "")
        assert "--dockerd: root has no daemon of a job's own; use the machine's" in done.stderr
        return
    without = engine.account.mkdir(Path(engine.base / "bin"))
    for name in ("sh", "env"):
        (without / name).symlink_to(f"/bin/{name}")
    path = f"{engine.shims}:{without}"
    require("newuidmap")
    done = engine.run(["srun", "--dockerd-image=x", "true"])
    assert "--dockerd-image needs --dockerd or --podman-service" in done.stderr
    done = engine.run(
        ["sbatch", "--dockerd", "--container=/x", "--wrap", "true"], env={"PATH": path}
    )
    assert "--dockerd is for scripts on the node" in done.stderr
    assert done.returncode == 1
