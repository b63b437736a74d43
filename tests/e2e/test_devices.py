"""Devices by their CDI names, and hooks of directories."""

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


@pytest.fixture(params=["crun", "runc"])
def runtime(request: pytest.FixtureRequest) -> dict[str, str]:
    require(request.param, "busybox")
    return {"ROADSTEAD_RUNTIME": request.param, "ROADSTEAD_OCI_CONF": "none"}


@pytest.fixture
def rootfs(engine: Engine) -> Path:
    require("busybox")
    path = engine.work / "rootfs"
    bundle.make_rootfs(path)
    return engine.account.own(path)


@pytest.fixture
def cdi(engine: Engine) -> dict[str, str]:
    """Two devices of one kind, with all that a specification can say, and a kind for GPUs."""
    place = engine.work / "cdi"
    engine.account.mkdir(place)
    engine.account.write(engine.work / "lib", "a library\n")
    hook = engine.work / "hook"
    engine.account.write(hook, f"#!/bin/sh\ncat > /dev/null\necho $1 >> {engine.work}/hooked\n")
    hook.chmod(0o755)
    devices = [
        {
            "name": name,
            "containerEdits": {
                "env": [f"V_{name.upper()}={name}"],
                "deviceNodes": [{"path": f"/dev/v-{name}", "hostPath": host}],
            },
        }
        for name, host in (("zero", "/dev/zero"), ("full", "/dev/full"))
    ]
    common = {
        "env": ["V=yes", "TERM=of-v"],
        "mounts": [
            {"hostPath": f"{engine.work}/lib", "containerPath": "/usr/lib/v/lib", "options": ["ro"]}
        ],
        "hooks": [{"hookName": "createRuntime", "path": f"{hook}", "args": ["hook", "made"]}],
    }
    made = {"cdiVersion": "0.6.0", "kind": "v.com/c", "devices": devices, "containerEdits": common}
    engine.account.write(place / "v.json", json.dumps(made))
    gpus = "\n".join(
        f'- name: "{number}"\n  containerEdits:\n    deviceNodes:\n    - path: /dev/gpu{number}\n'
        f"      hostPath: {path}\n"
        for number, path in enumerate(("/dev/full", "/dev/random"))
    )
    engine.account.write(place / "g.yaml", f"cdiVersion: 0.5.0\nkind: g.com/gpu\ndevices:\n{gpus}")
    return {"ROADSTEAD_CDI_DIRS": os.fspath(place)}


def run(engine: Engine, root: Path, script: str, *options: object, env: Any) -> Any:
    return engine.run(["srun", *options, "--container", root, "sh", "-c", script], env=env)


def test_a_device(engine: Engine, rootfs: Path, runtime: Any, cdi: Any) -> None:
    script = (
        "head -c 3 /dev/v-zero | od -An -tx1; test -e /dev/v-full || echo none; "
        "echo $V $V_ZERO [$V_FULL] $TERM; cat /usr/lib/v/lib; echo x >> /usr/lib/v/lib"
    )
    done = run(engine, rootfs, script, "--device=v.com/c=zero", env={**runtime, **cdi})
    said = ["00 00 00", "none", "yes zero [] of-v", "a library"]
    assert [line.strip() for line in done.stdout.splitlines()] == said, done.stderr
    assert "Read-only" in done.stderr
    assert (engine.work / "hooked").read_text() == "made\n"
    both = run(engine, rootfs, "echo x > /dev/v-full; ls /dev/v-zero",
               "--device=v.com/c=zero,v.com/c=full", env={**runtime, **cdi})  # fmt: skip
    assert both.stdout == "/dev/v-zero\n"
    assert "No space left" in both.stderr
    assert not (rootfs / "usr/lib/v").exists()


def test_the_gpus_of_a_job(engine: Engine, rootfs: Path, runtime: Any, cdi: Any) -> None:
    """Each task has those of its node, counted from 0 in its container."""
    conf = (
        "NodeName=n[1-2] CPUs=2 Gres=gpu:1\nName=gpu NodeName=n1 File=/dev/full\n"
        "Name=gpu NodeName=n2 File=/dev/random\nPartitionName=p Nodes=ALL Default=YES\n"
    )
    (engine.base / "config/roadstead").mkdir(exist_ok=True)
    engine.account.own(engine.base / "config/roadstead")
    engine.account.write(engine.base / "config/roadstead/roadstead.conf", conf)
    script = "echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES $(ls -d /dev/gpu*)"
    done = run(engine, rootfs, script, "-N2", "-n2", "--gres=gpu:1", env={**runtime, **cdi})
    assert sorted(done.check().stdout.split("\n")) == ["", "n1 0 /dev/gpu0", "n2 0 /dev/gpu1"]
    done = run(engine, rootfs, script, "-N1", "-n1", env={**runtime, **cdi})
    assert done.stdout == "n1\n"


def test_the_gpus_of_a_task(engine: Engine, rootfs: Path, cdi: Any) -> None:
    conf = (
        "NodeName=n1 CPUs=2 Gres=gpu:2\nName=gpu File=/dev/random,/dev/full\n"
        "PartitionName=p Nodes=ALL Default=YES\n"
    )
    folder = engine.account.mkdir(engine.base / "config/roadstead")
    engine.account.write(folder / "roadstead.conf", conf)
    script = "echo $SLURM_PROCID $CUDA_VISIBLE_DEVICES $(ls -d /dev/gpu*)"
    done = run(engine, rootfs, script, "-n2", "--gpus-per-task=1", env=cdi).check()
    both = "/dev/gpu0 /dev/gpu1"
    assert sorted(done.stdout.split("\n")) == ["", f"0 0 {both}", f"1 1 {both}"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("v.com/c=nine", "no such device; there is: v.com/c=zero, v.com/c=full"),
        ("w.com/c=nine", "no CDI specification of w.com/c in"),
        ("nine", "not the name of a CDI device"),
    ],
)
def test_no_such_device(engine: Engine, rootfs: Path, cdi: Any, name: str, said: str) -> None:
    done = run(engine, rootfs, "true", f"--device={name}", env=cdi)
    assert done.returncode
    assert said in done.stderr


def test_specifications_that_are_wrong(engine: Engine, rootfs: Path, cdi: Any) -> None:
    place = Path(cdi["ROADSTEAD_CDI_DIRS"])
    engine.account.write(place / "v2.json", "{")
    done = run(engine, rootfs, "true", "--device=v.com/c=zero", env=cdi).check()
    assert f"warning: {place}/v2.json:1: not valid JSON" in done.stderr
    done = run(engine, rootfs, "true", "--device=x.com/c=zero", env=cdi)
    assert f"not found; {place}/v2.json:1: not valid JSON" in done.stderr
    more = {"env": ["A=1"], "additionalGids": [44], "netDevices": []}
    made = {"cdiVersion": "1.1.0", "kind": "v.com/n", "devices": [{"name": "x"}]}
    engine.account.write(place / "n.json", json.dumps({**made, "containerEdits": more}))
    done = run(engine, rootfs, "echo $A", "--device=v.com/n=x", env=cdi).check()
    assert done.stdout == "1\n"
    for name in ("additionalGids", "netDevices"):
        what = f"containerEdits.{name} of {place}/n.json"
        assert f"warning: not done for the container: {what}" in done.stderr
    engine.account.write(place / "v2.json", (place / "v.json").read_text())
    done = run(engine, rootfs, "true", "--device=v.com/c=zero", env=cdi)
    assert "both have it; remove it from one of them" in done.stderr
    gone = (place / "v.json").read_text().replace("/dev/zero", "/dev/gone")
    (place / "v2.json").unlink()
    engine.account.write(place / "v.json", gone)
    done = run(engine, rootfs, "true", "--device=v.com/c=zero", env=cdi)
    assert "device file /dev/gone: No such file or directory" in done.stderr


def test_devices_of_an_environment(engine: Engine, rootfs: Path, cdi: Any) -> None:
    engine.account.write(engine.work / "e.toml", 'image = "./rootfs"\ndevices = ["v.com/c=zero"]\n')
    argv = ["srun", "--environment=./e.toml", "--device=v.com/c=full", "ls", "/dev"]
    assert {"v-zero", "v-full"} <= set(engine.run(argv, env=cdi).check().stdout.split())


def test_hooks_of_a_directory(engine: Engine, rootfs: Path, runtime: Any, cdi: Any) -> None:
    """As a site has them: an EDF's annotation asks for one."""
    place = engine.work / "hooks.d"
    engine.account.mkdir(place)
    for name, when in (
        ("10-ssh", {"annotations": {r"^com\.hooks\.ssh\.enabled$": "^true$"}}),
        ("20-all", {"always": True}),
        ("30-python", {"commands": ["python"]}),
    ):
        made = {
            "version": "1.0.0",
            "hook": {"path": f"{engine.work}/hook", "args": ["hook", name]},
            "when": when,
            "stages": ["createRuntime"],
        }
        engine.account.write(place / f"{name}.json", json.dumps(made))
    (engine.base / "config/roadstead").mkdir(exist_ok=True)
    engine.account.own(engine.base / "config/roadstead")
    engine.account.write(engine.base / "config/roadstead/roadstead.conf", f"OciHooksDir={place}\n")
    engine.account.write(
        engine.work / "e.toml",
        'image = "./rootfs"\n[annotations]\ncom.hooks.ssh.enabled = "true"\n',
    )
    engine.run(["srun", "--environment=./e.toml", "true"], env=runtime).check()
    assert (engine.work / "hooked").read_text() == "10-ssh\n20-all\n"
    (engine.work / "hooked").unlink()
    run(engine, rootfs, "true", env=runtime).check()
    assert (engine.work / "hooked").read_text() == "20-all\n"
    engine.account.mkdir(engine.work / "own")
    engine.account.write(engine.work / "own/20-all.json", "{}")
    done = run(engine, rootfs, "true", "--container-hooks-dir=own", env=runtime)
    assert "20-all.json: not a hook's file of version 1.0.0" in done.stderr
    assert done.returncode == 1
