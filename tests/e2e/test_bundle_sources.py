"""`roadstead bundle create --from …`: each way with its own real tool, and what it makes runs."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
from referencing import Registry, Resource

from tests.support import engines, leaks, packages
from tests.support.components import program
from tests.support.engine import Engine
from tests.support.skips import needs, require

pytestmark = [pytest.mark.container, needs("busybox", "crun")]

_SCHEMA = Path("/usr/share/gocode/src/github.com/opencontainers/runtime-spec/schema")


@pytest.fixture(scope="module")
def public() -> Iterator[Path]:
    """A directory that everybody can read: apt and rpm read as somebody else."""
    top = Path(tempfile.mkdtemp(prefix=leaks.PREFIX, dir="/tmp"))
    top.chmod(0o755)
    yield top
    leaks.remove(top)


@pytest.fixture(scope="module")
def debian(public: Path) -> Path:
    require("dpkg")
    (public / "debian").mkdir()
    return packages.debian(public / "debian")


@pytest.fixture(scope="module")
def fedora(public: Path) -> Path:
    require("dnf")
    (public / "fedora").mkdir()
    return packages.fedora(public / "fedora")


@pytest.fixture(scope="module")
def image(public: Path) -> Path:
    require("skopeo", "umoci", "busybox")
    (public / "image").mkdir()
    return engines.archive(public / "image")


def conforms(bundle: Path) -> None:
    """Against the runtime-spec's own schema."""
    require("oci-schema")

    def retrieve(uri: str) -> Resource[object]:
        return Resource.opaque(json.loads((_SCHEMA / uri.rpartition("/")[2]).read_text()))

    schema = json.loads((_SCHEMA / "config-schema.json").read_text())
    schema["id"] = schema["$id"] = "file:///config-schema.json"
    config = json.loads((bundle / "config.json").read_text())
    registry: Registry[object] = Registry(retrieve=retrieve)  # type: ignore[call-arg]
    jsonschema.Draft4Validator(schema, registry=registry).validate(config)


def check(engine: Engine, bundle: str) -> None:
    """It is in order, as we and as the specification see it, and nothing is beside it."""
    conforms(engine.work / bundle)
    said = engine.run(["roadstead", "bundle", "check", bundle])
    assert said.returncode == 0, said
    assert not list(engine.work.glob("*.new"))


def hello(engine: Engine, bundle: str) -> None:
    """What every image of ``engines.archive`` says."""
    check(engine, bundle)
    script = "pwd; echo $GREETING; cat hello; echo x > /data/y && echo volume"
    done = engine.run(["srun", "--container", bundle, "sh", "-c", script])
    assert done.stdout == "/srv\nhello\nfrom an image\nvolume\n", done
    assert done.returncode == 0


def test_an_image_of_any_kind(engine: Engine, image: Path) -> None:
    argv = ["roadstead", "bundle", "create", "app", "--from", "image", f"oci-archive:{image}"]
    assert engine.run(argv).check().stderr == ""
    hello(engine, "app")
    assert engine.run(["roadstead", "image", "ls"]).check().stdout.count("\n") == 2


@needs("mmdebstrap")
def test_mmdebstrap(engine: Engine, debian: Path) -> None:
    mirror = f"deb [trusted=yes] copy:{debian} stable main"
    argv = ["roadstead", "bundle", "create", "app", "--from", "mmdebstrap", "stable", mirror]
    engine.run([*argv, "--", "--variant=extract", "--include=box"]).check()
    check(engine, "app")
    argv = ["srun", "--container", "app", "cat", "/etc/box"]
    assert engine.run(argv).check().stdout == "from a package\n"


@needs("debootstrap")
def test_debootstrap(engine: Engine, debian: Path) -> None:
    """As an ordinary user too, which debootstrap itself refuses."""
    argv = ["roadstead", "bundle", "create", "app", "--from", "debootstrap", "stable"]
    more = ["--", "--no-check-gpg", "--foreign", "--no-merged-usr"]
    engine.run([*argv, f"file:{debian}", *more]).check()
    check(engine, "app")
    argv = ["srun", "--container", "app", "cat", "/etc/box"]
    assert engine.run(argv).check().stdout == "from a package\n"


def test_dnf(engine: Engine, fedora: Path) -> None:
    argv = ["roadstead", "bundle", "create", "app", "--from", "dnf", "box"]
    lacking = engine.run(argv)
    assert lacking.returncode == 1
    assert "after --, say where packages are" in lacking.stderr
    more = ["--", "--releasever=9", f"--repofrompath=box,file://{fedora}", "--nogpgcheck"]
    engine.run([*argv, *more]).check()
    check(engine, "app")
    argv = ["srun", "--container", "app", "cat", "/etc/box"]
    assert engine.run(argv).check().stdout == "from a package\n"
    assert list((engine.work / "app/rootfs/var/cache/dnf").iterdir()) == []


@needs("podman")
def test_podman_and_buildah(engine: Engine, image: Path) -> None:
    env = engines.settings(engine)
    engine.run(["podman", "load", "-q", "-i", image], env=env).check()
    name = engine.run(["podman", "images", "-q"], env=env).check().stdout.split()[0]
    for tool in ("podman", "buildah"):
        argv = ["roadstead", "bundle", "create", tool, "--from", tool]
        engine.run([*argv, name], env=env).check()
        hello(engine, tool)
        missing = engine.run(
            ["roadstead", "bundle", "create", "x", "--from", tool, "no/such"], env=env
        )
        assert f"{tool} has no image or container no/such; {tool} pull no/such" in missing.stderr
    made = engine.run(["buildah", "from", name], env=env).check().stdout.strip()
    engine.run(["buildah", "config", "--env", "GREETING=hello", made], env=env).check()
    argv = ["roadstead", "bundle", "create", "container", "--from", "buildah", made]
    engine.run(argv, env=env).check()
    hello(engine, "container")
    engine.run(["podman", "create", "--name", "c", "--network=none", name, "sh"], env=env).check()
    argv = ["roadstead", "bundle", "create", "exported", "--from", "podman", "c"]
    engine.run(argv, env=env).check()
    check(engine, "exported")
    argv = ["srun", "--container", "exported", "cat", "hello"]
    assert engine.run(argv).check().stdout == "from an image\n"
    argv = ["srun", "--container", f"containers-storage:{name}", "cat", "hello"]
    assert engine.run(argv, env=env).check().stdout == "from an image\n"
    engine.run(["podman", "rm", "c"], env=env).check()
    engines.remove(engine, env)


@needs("docker", "root")
def test_docker(engine: Engine, image: Path) -> None:
    with engines.docker_daemon(engine.account.gid) as host:
        env = {"DOCKER_HOST": host}
        engine.run(["docker", "load", "-q", "-i", image.with_name("box.docker")], env=env).check()
        argv = ["roadstead", "bundle", "create", "app", "--from", "docker", "box"]
        engine.run(argv, env=env).check()
        hello(engine, "app")
        engine.run(["docker", "create", "--name", "made", "box"], env=env).check()
        argv = ["roadstead", "bundle", "create", "exported", "--from", "docker", "made"]
        engine.run(argv, env=env).check()
        hello(engine, "exported")
        done = engine.run(
            ["srun", "--container", "docker-daemon:box:latest", "cat", "hello"], env=env
        )
        assert done.stdout == "from an image\n", done
        missing = engine.run(["srun", "--container", "docker-daemon:no/such", "true"], env=env)
        assert missing.stderr.endswith("; docker pull no/such\n"), missing


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["app"], "bundle create takes a new directory and --from KIND"),
        (["app", "--from", "tar", "x"], "--from tar: not a way to a bundle; rootfs, image, docker"),
        (["app", "--from", "debootstrap"], "--from debootstrap takes SUITE [MIRROR]"),
        (["app", "--from", "image", "x", "--", "-q"], "--from image passes no options on"),
        (["app", "--from", "image", "./nothing"], "nothing does not exist"),
        (["no/app", "--from", "rootfs", "/"], "cannot make"),
        (["app", "--from", "dnf", "-x"], "an operand begins with -; options of the tool follow --"),
    ],
)
def test_what_is_wrong(engine: Engine, words: list[str], said: str) -> None:
    done = engine.run(["roadstead", "bundle", "create", *words])
    assert (done.returncode, said in done.stderr) == (1, True), done
    assert done.stderr.count("\n") == 1
    assert list(engine.work.iterdir()) == []


def test_a_tool_that_is_missing_is_named(engine: Engine) -> None:
    folder = engine.work / "bin"
    folder.mkdir()
    for each in ("python3", "sh", "env"):
        os.symlink(shutil.which(each, path="/usr/bin:/bin") or "", folder / each)
    env = {"PATH": f"{engine.shims}:{folder}"}
    argv = ["roadstead", "bundle", "create", "app", "--from", "docker", "x"]
    if program("docker") not in ("/usr/local/sbin/docker", "/usr/sbin/docker", "/sbin/docker"):
        done = engine.run(argv, env=env)
        said = "docker is needed for that, and is not installed; apt install docker.io, or dnf"
        assert said in done.stderr
    assert done.returncode == 1
