"""Pods, and daemons of a job's own, on a real Slurm."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import bundle, waiting
from tests.support.account import Account
from tests.support.engine import make_shims
from tests.support.leaks import remove
from tests.support.places import Place, place
from tests.support.product import Product
from tests.support.skips import require

pytestmark = [pytest.mark.slurm, pytest.mark.container]

SEED = "--dockerd-image=bb=../rootfs"


@pytest.fixture(scope="module")
def site(product: Product, user: Account) -> Iterator[Place]:
    require("root", "slurm", "address", "crun", "runc", "busybox")
    shims = make_shims(product, user)
    with place("slurm", user, shims) as made:
        user.own(bundle.make_rootfs(made.engine.work / "rootfs"))
        yield made
    remove(shims)


def left(site: Place) -> list[str]:
    """What of pods and daemons is there."""
    engine = site.engine
    found = [*engine.base.glob("tmp/*/daemons/*"), *engine.base.glob("tmp/*/pods/*")]
    found += [*Path("/tmp").glob(f"roadstead-{engine.account.uid}-*")]
    found += [*engine.base.glob("run/roadstead-*/steps/*")]
    names = ("dockerd", "roadstead-keep", "roadstead-pod")
    running = [str(each) for each in engine.processes() if any(n in str(each) for n in names)]
    return [os.fspath(each) for each in found] + running


def is_clean(site: Place) -> None:
    try:
        waiting.eventually(lambda: not left(site), timeout=40)
    except AssertionError:
        raise AssertionError("\n".join(left(site))) from None


def test_docker_on_two_nodes(site: Place) -> None:
    require("docker", "rootlesskit", "newuidmap")
    done = site.run(
        "cat > job <<'X'\n#!/bin/sh\n"
        f"#SBATCH --dockerd {SEED} -N2 -n2\n"
        "docker run --rm --network=none bb sh -c 'echo batch; exit 5'; echo $? $1\n"
        "srun --overlap docker run --rm --network=none bb echo step\nexit 3\nX\n"
        "batch job argument"
    )
    assert done.stdout == "batch\n5 argument\nstep\nstep\nexit 3:0\n", done
    is_clean(site)
    done = site.run(f"srun -N2 --dockerd {SEED} docker run --rm --network=none bb echo task")
    assert (done.returncode, done.stdout) == (0, "task\ntask\n"), done
    is_clean(site)


def test_a_daemon_ends_with_a_cancelled_job(site: Place) -> None:
    """On two nodes: once it is up and has a container, and at random moments."""
    require("docker", "rootlesskit", "newuidmap")
    trials = int(os.environ.get("ROADSTEAD_TEST_DAEMON_TRIALS", "5"))
    seed = int(os.environ.get("ROADSTEAD_TEST_SEED", "0")) or random.randrange(1 << 32)
    chance = random.Random(seed)
    devices, mounts = network_devices(), mounted(site)
    for trial in range(trials):
        moment = f"sleep {chance.uniform(0, 6):.2f}" if trial else "said out up"
        site.run(
            f"job=$(sbatch --parsable -N2 -o out --dockerd {SEED} --wrap "
            "'docker run -d --network=none bb sleep 300; echo up; sleep 300')\n"
            f"{moment}; scancel $job; gone $job"
        ).check()
        is_clean(site)
        assert network_devices() == devices, f"seed {seed}, trial {trial}"
        assert mounted(site) == mounts, f"seed {seed}, trial {trial}"


def network_devices() -> set[str]:
    lines = Path("/proc/net/dev").read_text().splitlines()[2:]
    return {line.partition(":")[0].strip() for line in lines}


def mounted(site: Place) -> list[str]:
    """What is mounted of a user's, as far as the machine sees it."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    parts = (os.fspath(site.engine.base), f"roadstead-{site.engine.account.uid}")
    return sorted(line for line in lines if any(part in line for part in parts))


def test_pods(site: Place) -> None:
    """As a step that is waited for, and as a job."""
    rootfs = os.fspath(site.engine.work / "rootfs")

    def container(name: str, script: str) -> dict[str, object]:
        return {"name": name, "image": rootfs, "command": ["sh", "-c", script]}

    server = container("web", "nc -l -p 8080 -e echo hello; exit 3")
    client = container("client", "until nc localhost 8080 2>/dev/null; do sleep 0.1; done")
    document = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "demo"},
        "spec": {"restartPolicy": "Never", "containers": [server, client]},
    }
    text = json.dumps(document)
    done = site.run(f"cat > pod.json <<'X'\n{text}\nX\nroadstead pod run pod.json")
    assert (done.returncode, done.stdout) == (3, "client: hello\n"), done
    done = site.run(f"cat > pod.json <<'X'\n{text}\nX\nbatch pod.json")
    assert done.stdout == "client: hello\nexit 3:0\n", done
    done = site.run("roadstead pod ls; roadstead pod logs demo -c client")
    names, *rows = [line.split() for line in done.stdout.splitlines()[:3]]
    assert names[2:4] == ["STATUS", "RESTARTS"], done
    assert [row[:4] for row in rows] == [["demo", "0/2", "Error", "0"]] * 2, done
    assert done.stdout.splitlines()[3:] == ["hello"], done
    inside = "roadstead pod run pod.json & roadstead pod run pod.json; wait $!"
    done = site.run(f"cat > pod.json <<'X'\n{text}\nX\nsalloc -Q -N1 -n2 bash -c '{inside}'")
    assert (done.returncode, done.stdout) == (3, "client: hello\n" * 2), done
    is_clean(site)
    # Slurm signals every process: the sleep may have ended of it before the shell hears of it.
    loop = "while :; do sleep 60 & wait; done"
    server["command"] = ["sh", "-c", f"trap 'echo bye; exit 0' TERM; echo up; {loop}"]
    document["metadata"] = {"name": "long"}
    text = json.dumps(document)
    done = site.run(
        f"cat > pod.json <<'X'\n{text}\nX\njob=$(sbatch --parsable -o out pod.json)\n"
        "said out up; roadstead pod delete long; gone $job; cat out\n"
        "scontrol show job $job | grep -o JobState=[A-Z]*; roadstead pod status long"
    )
    assert "web: bye" in done.stdout.splitlines(), done
    assert "JobState=CANCELLED" in done.stdout.splitlines(), done
    assert "no pod long is known" in done.stderr, done
    is_clean(site)
