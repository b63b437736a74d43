"""`srun --container docker://…`: from a registry on loopback to the exit code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import layouts
from tests.support.components import program
from tests.support.engine import Engine
from tests.support.registry import registry
from tests.support.skips import needs, require

pytestmark = [needs("skopeo", "umoci", "docker-registry", "busybox"), pytest.mark.container]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry that has the image `box:latest`."""
    require("skopeo", "umoci", "docker-registry", "busybox")
    top = tmp_path_factory.mktemp("registry")
    (top / "root/bin").mkdir(parents=True)
    shutil.copy(program("busybox") or "", top / "root/bin/busybox")
    (top / "root/bin/sh").symlink_to("busybox")
    (top / "root/hello").write_text("from a registry\n")
    image = f"{top}/image"
    for command in (
        ["umoci", "init", "--layout", image],
        ["umoci", "new", "--image", f"{image}:box"],
        ["umoci", "insert", "--image", f"{image}:box", f"{top}/root", "/"],
    ):
        subprocess.run(command, check=True, capture_output=True)
    layouts.write(top / "large", layouts.random_layers(3, 6, 80, 30_000))
    with registry(top) as found:
        subprocess.run(
            ["skopeo", "copy", "-q", "--insecure-policy", "--dest-tls-verify=false",
             f"oci:{top}/large", f"docker://{found}/large:latest"],
            check=True,
        )  # fmt: skip
        subprocess.run(
            ["skopeo", "copy", "-q", "--insecure-policy", "--dest-tls-verify=false",
             f"oci:{image}:box", f"docker://{found}/box:latest"],
            check=True,
        )  # fmt: skip
        LOGS[found] = top / "log"
        yield found


LOGS: dict[str, Path] = {}


def accept(engine: Engine, host: str) -> None:
    """Have skopeo speak to the registry without TLS, and accept images without a signature."""
    folder = engine.home / ".config/containers"
    folder.mkdir(parents=True)
    (folder / "registries.conf").write_text(f'[[registry]]\nlocation = "{host}"\ninsecure = true\n')
    (folder / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    for path in (folder.parent, folder, *folder.iterdir()):
        engine.account.own(path)


def test_an_image_of_a_registry_runs_and_is_fetched_once(engine: Engine, host: str) -> None:
    accept(engine, host)
    argv = ["srun", "--container", f"docker://{host}/box:latest", "/bin/sh", "-c"]
    done = engine.run([*argv, "while read -r line; do echo $line; done </hello; exit 3"])
    assert (done.stdout, done.returncode) == ("from a registry\n", 3)
    # Nothing is asked of the registry for what is in the store.
    done = engine.run([*argv, "exit 4"], env={"PATH": f"{engine.shims}:/usr/bin:/bin"})
    assert done.returncode == 4
    assert not list(Path(engine.home).glob("**/work/*")), "something of the import is left"


def test_many_at_once_fetch_once(engine: Engine, host: str) -> None:
    """Twenty commands want the same image: the registry sees each layer fetched once."""
    accept(engine, host)
    seen = len(LOGS[host].read_text())
    argv = ["roadstead", "image", "pull", f"docker://{host}/large"]
    processes = [
        engine.popen(
            ["srun", "--container", f"docker://{host}/large", "none"] if number % 2 else argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for number in range(20)
    ]
    done = [engine.finish(each) for each in processes]
    assert {each.returncode for each in done[::2]} == {0}, done
    assert {each.returncode for each in done[1::2]} == {127}, done  # there is no such program
    lines = LOGS[host].read_text()[seen:].splitlines()
    blobs = [line for line in lines if '"GET /v2/large/blobs/' in line]
    fetched = Counter(line.partition("/blobs/")[2].split()[0] for line in blobs)
    found = json.loads(engine.run(["roadstead", "image", "inspect", argv[-1]]).check().stdout)
    assert [fetched[layer["digest"]] for layer in found["manifest"]["layers"]] == [1] * 6


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("box:other", "no such image or tag"),
        ("other", "no such image or tag"),
    ],
)
def test_what_a_registry_does_not_have(engine: Engine, host: str, name: str, sentence: str) -> None:
    accept(engine, host)
    done = engine.run(["srun", "--container", f"docker://{host}/{name}", "true"])
    assert done.returncode == 1
    assert done.stderr.startswith(f"srun: error: docker://{host}/{name}: {sentence}")
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_registry_without_tls_is_refused(engine: Engine, host: str) -> None:
    done = engine.run(["srun", "--container", f"docker://{host}/box", "true"])
    assert done.returncode == 1
    assert "TLS" in done.stderr
    assert "registries.conf" in done.stderr


def test_no_registry_and_no_skopeo(engine: Engine) -> None:
    done = engine.run(["srun", "--container", "docker://127.0.0.1:9/box", "true"])
    assert (done.returncode, "the registry cannot be reached" in done.stderr) == (1, True)
    # A PATH with no more than the commands themselves need.
    folder = engine.work / "bin"
    folder.mkdir()
    for each in ("python3", "sh", "env"):
        os.symlink(shutil.which(each, path="/usr/bin:/bin") or "", folder / each)
    done = engine.run(
        ["srun", "--container", "docker://127.0.0.1:9/box", "true"],
        env={"PATH": f"{engine.shims}:{folder}"},
    )
    assert done.returncode == 1
    assert "skopeo is needed to fetch it, and is not installed; apt install skopeo" in done.stderr


def test_roadstead_image(engine: Engine, host: str) -> None:
    accept(engine, host)
    name = f"docker://{host}/box:latest"
    missing = engine.run(["roadstead", "image", "inspect", name])
    assert (missing.returncode, f"roadstead image pull {name}" in missing.stderr) == (1, True)
    pulled = engine.run(["roadstead", "image", "pull", name]).check()
    assert pulled.stderr == "", "progress is for terminals"
    digest = pulled.stdout.strip()
    for what in (name, digest):
        found = json.loads(engine.run(["roadstead", "image", "inspect", what]).check().stdout)
        assert (found["digest"], found["reference"]) == (digest, name)
        assert found["manifest"]["layers"]
    listed = engine.run(["roadstead", "image", "ls"]).check().stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["DIGEST", digest[7:19]]
    (row,) = json.loads(engine.run(["roadstead", "image", "ls", "--json"]).check().stdout)["images"]
    assert (row["digest"], row["size"] > 0) == (digest, True)
    wrong = engine.run(["roadstead", "image", "rm"])
    assert (wrong.returncode, "roadstead image ls" in wrong.stderr) == (1, True)
