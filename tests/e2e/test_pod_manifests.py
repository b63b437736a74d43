"""Ten manifests (tests/data/pods), each of which says what Kubernetes' documentation says of it:
run here, and, as far as it goes, by `podman kube play`, with the same image.

Where Podman differs it is not followed, and DIFFERENCES says how.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support import bundle, engines, leaks, waiting
from tests.support.account import Account, Completed
from tests.support.engine import Engine, make_base, make_shims
from tests.support.product import Product
from tests.support.skips import require

pytestmark = pytest.mark.container

MANIFESTS = Path(__file__).parents[1] / "data" / "pods"
IMAGE = "localhost/box"


class Course(NamedTuple):
    """What a pod comes to: its exit code, and of each container its output, exit code and how often
    it was started again."""

    code: int
    containers: dict[str, tuple[str, int, int]]


COURSES = {
    "shared-localhost": Course(
        0, {"server": ("", 0, 0), "client": ("hello\nshared-localhost\n", 0, 0)}
    ),
    "init": Course(
        0, {"first": ("", 0, 0), "second": ("", 0, 0), "main": ("first\nsecond\n", 0, 0)}
    ),
    "sidecar": Course(0, {"side": ("up\nbye\n", 9, 0), "main": ("done\n", 0, 0)}),
    "liveness": Course(0, {"main": ("ended\nagain\n", 0, 1)}),
    "on-failure": Course(0, {"main": ("run\nrun\n", 0, 1)}),
    "config-and-secret": Course(
        0, {"main": ("debug debug\nanswer = 42\nhunter2\n", 0, 0)}
    ),
    "empty-dir": Course(0, {"writer": ("", 0, 0), "reader": ("data\nread-only\n", 0, 0)}),
    "resources": Course(0, {"main": ("1 64\n", 0, 0)}),
    "failing": Course(3, {"bad": ("failing\n", 3, 0), "good": ("going on\n", 0, 0)}),
    "never-ready": Course(
        128 + signal.SIGTERM, {"main": ("", 128 + signal.SIGTERM, 0)}
    ),
}  # fmt: skip
# What Podman (4.3) does other than the API documents.
DIFFERENCES = {
    "sidecar": "init containers with restartPolicy or probes are refused",
    "liveness": "probes are timers of systemd, and are not asked where there is none",
    "never-ready": "readiness is not asked for, and activeDeadlineSeconds does nothing",
    # Of Secrets it has files, and those in base64; variables are an error ("not valid JSON").
    "resources": "a limit of memory is refused where cgroups are not the user's, instead of told",
}
# Init containers that have succeeded are removed by Podman: there is nothing to ask them.
GONE = {"init": ("first", "second")}


def test_every_manifest_has_a_course() -> None:
    assert {path.stem for path in MANIFESTS.iterdir()} == set(COURSES)
    assert set(DIFFERENCES) < set(COURSES)


@pytest.fixture(scope="module")
def image(shared_engine: Engine) -> str:
    require("busybox", "crun")
    path = shared_engine.work / "manifests-rootfs"
    bundle.make_rootfs(path)
    shared_engine.account.own(path)
    return os.fspath(path)


@pytest.mark.parametrize("name", COURSES)
def test_manifests_behave_as_the_api_documents(
    shared_engine: Engine, image: str, name: str
) -> None:
    text = (MANIFESTS / f"{name}.yaml").read_text().replace(IMAGE, image)
    shared_engine.account.write(shared_engine.work / f"{name}.yaml", text)
    done = shared_engine.run(["roadstead", "pod", "run", f"{name}.yaml"])
    told = shared_engine.run(["roadstead", "pod", "status", "--json", name]).check()
    containers = {each["name"]: each for each in json.loads(told.stdout)["containers"]}
    course = Course(
        done.returncode,
        {
            each: (_printed(done.stdout, record["prefix"]), record["code"], record["restarts"])
            for each, record in containers.items()
        },
    )
    assert course == COURSES[name], done


def _printed(output: str, prefix: str) -> str:
    lines = output.splitlines(keepends=True)
    return "".join(line.removeprefix(prefix) for line in lines if line.startswith(prefix))


@pytest.fixture
def podman(product: Product, user: Account) -> Iterator[tuple[Engine, dict[str, str]]]:
    """An engine of an ordinary user's, and Podman with the image; the container that holds a pod's
    namespaces is one of that too, as its own pause program is not installed everywhere."""
    require("busybox", "podman", "runc", "newuidmap")
    shims = make_shims(product, user)
    engine = Engine(user, shims, make_base(user))
    env = engines.settings(engine)
    conf = engine.work / "containers.conf"
    user.write(
        conf,
        '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "runc"\n'
        'stop_timeout = 0\ninfra_image = "localhost/pause"\n[containers]\npids_limit = 0\n',
    )
    env["CONTAINERS_CONF"] = os.fspath(conf)
    rootfs = user.own(bundle.make_rootfs(engine.work / "rootfs"))
    engine.run(["tar", "-C", rootfs, "-cf", "box.tar", "."]).check()
    path = ["-c", "ENV PATH=/bin"]
    for image, more in ((IMAGE, []), ("localhost/pause", ["-c", 'CMD ["sleep", "600"]'])):
        argv = ["podman", "import", "-q", *path, *more, "box.tar", image]
        engine.run(argv, env=env).check()
    yield engine, env
    engine.run(["podman", "pod", "kill", "--all"], env=env, timeout=120)
    engine.run(["podman", "pod", "rm", "--all", "--force", "--time=0"], env=env, timeout=120)
    engines.remove(engine, env)
    engine.close()
    leaks.remove(shims)


def test_podman_kube_play_has_the_same_courses(podman: tuple[Engine, dict[str, str]]) -> None:
    """All at once, as each of its commands takes a while."""
    engine, env = podman
    names = [name for name in COURSES if name not in DIFFERENCES]
    manifest = "---\n".join((MANIFESTS / f"{name}.yaml").read_text() for name in names)
    engine.account.write(engine.work / "all.yaml", manifest)
    play = ["podman", "kube", "play", "--network=none", "all.yaml"]
    engine.run(play, env=env, timeout=120).check()
    wanted = {
        f"{name}-{each}": course
        for name in names
        for each, course in COURSES[name].containers.items()
        if each not in GONE.get(name, ())
    }

    def ended() -> dict[str, Any] | None:
        done = engine.run(["podman", "inspect", *wanted], env=env, timeout=60).check()
        found = {each["Name"]: each for each in json.loads(done.stdout)}
        over = all(
            found[name]["State"]["Status"] == "exited"
            and found[name]["RestartCount"] >= wanted[name][2]
            for name in wanted
        )
        return found if over else None

    found = waiting.eventually(ended, timeout=60)
    assert found is not None
    seen = {
        name: (
            _printed_by_podman(engine.run(["podman", "logs", name], env=env, timeout=60)),
            found[name]["State"]["ExitCode"],
            found[name]["RestartCount"],
        )
        for name in wanted
    }
    assert seen == wanted


def _printed_by_podman(done: Completed) -> str:
    """This version shows a Secret's files as they are in the manifest: base64."""
    return done.check().stdout.replace("aHVudGVyMg==", "hunter2")
