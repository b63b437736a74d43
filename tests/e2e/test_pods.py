"""Kubernetes pods: manifests behave as Kubernetes' documentation says.

The sentences that a test holds are those of "Pod Lifecycle", "Init Containers", "Sidecar
Containers", "Configure Liveness, Readiness and Startup Probes" and "Jobs".
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.support import bundle
from tests.support.account import Completed
from tests.support.engine import Engine
from tests.support.skips import require

pytestmark = pytest.mark.container

Run = Callable[..., Completed]


@pytest.fixture(scope="module")
def image(shared_engine: Engine) -> str:
    """A root file system; as a path it is an image: `image: /…`."""
    require("busybox", "crun")
    path = shared_engine.work / "rootfs"
    bundle.make_rootfs(path)
    shared_engine.account.own(path)
    return os.fspath(path)


def sh(name: str, image: str, script: str, **more: Any) -> dict[str, Any]:
    """A container that runs a script."""
    return {"name": name, "image": image, "command": ["sh", "-c", script], **more}


def pod(*containers: dict[str, Any], name: str = "test", **spec: Any) -> dict[str, Any]:
    spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 2, **spec}
    metadata = {"name": name, "labels": {"app": "x"}}
    spec = {"containers": list(containers), **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


@pytest.fixture
def run(shared_engine: Engine) -> Run:
    """run(document, …, options=(…)): `roadstead pod run` of a manifest with these documents."""

    def run(*documents: dict[str, Any], options: tuple[str, ...] = (), **more: Any) -> Completed:
        write(shared_engine, "pod.yaml", *documents)
        return shared_engine.run(["roadstead", "pod", "run", *options, "pod.yaml"], **more)

    return run


def write(engine: Engine, name: str, *documents: dict[str, Any]) -> None:
    """JSON is YAML; several documents have to be."""
    text = "---\n".join(f"{json.dumps(each, indent=1)}\n" for each in documents)
    engine.account.write(engine.work / name, f"# a manifest\n{text}")


SERVE = (
    "printf 'HTTP/1.0 200 OK\\r\\n\\r\\nhello\\n' > /tmp/answer; "
    "while true; do nc -l -p 8080 < /tmp/answer > /dev/null; done"
)
FETCH = "until wget -q -O - http://localhost:8080/ 2>/dev/null; do sleep 0.1; done"


def test_containers_share_localhost_and_the_pod_fails_as_they_do(run: Run, image: str) -> None:
    server = sh("web", image, "nc -l -p 8080 -e echo hello; exit 3")
    client = sh("client", image, "until nc localhost 8080; do sleep 0.1; done; hostname")
    done = run(pod(server, client))
    assert done.returncode == 3, done
    assert sorted(done.stdout.splitlines()) == ["client: hello", "client: test"]
