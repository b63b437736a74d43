"""`roadstead bundle`: what create makes runs, and check says what is wrong."""

from __future__ import annotations

import json

import pytest

from roadstead.oci import checkup
from tests.support.bundle import make_rootfs
from tests.support.engine import Engine
from tests.support.skips import needs

pytestmark = [pytest.mark.container, needs("busybox", "crun")]


def test_a_root_file_system_becomes_a_bundle_that_runs(engine: Engine) -> None:
    rootfs = make_rootfs(engine.work / "image")
    (rootfs / "ch").mkdir()
    (rootfs / "ch" / "environment").write_text("GREETING=hello\n")
    engine.account.own(rootfs)
    engine.run(["roadstead", "bundle", "create", "app", "--from", "rootfs", "image"]).check()
    assert engine.run(["roadstead", "bundle", "check", "app"]).check().stdout.endswith("in order\n")
    done = engine.run(["srun", "--container", "app", "sh", "-c", "echo $GREETING; touch /x"])
    assert done.stdout == "hello\n"
    assert done.returncode == 1, "the root file system is read-only"
    again = engine.run(["roadstead", "bundle", "create", "app", "--from", "rootfs", "image"])
    assert "app is there already; name a new directory" in again.check(1).stderr


def test_check_says_everything(engine: Engine) -> None:
    rootfs = make_rootfs(engine.work / "image")
    engine.account.own(rootfs)
    engine.run(["roadstead", "bundle", "create", "app", "--from", "rootfs", "image"]).check()
    path = engine.work / "app" / "config.json"
    config = json.loads(path.read_text())
    config["process"]["args"] = ["no-such-program"]
    config["process"]["cwd"] = "/nowhere"
    config["mounts"].append({"destination": "/d", "type": "bind", "source": "/no/such"})
    config["hooks"] = {"poststop": [{"path": "/bin/true"}]}
    engine.account.write(path, json.dumps(config))
    said = engine.run(["roadstead", "bundle", "check", "app"]).check(1).stdout
    for words in ("/no/such does not exist", "/nowhere", "no-such-program", "hooks"):
        assert words in said
    assert said.startswith("error: ")
    engine.account.write(path, "{")
    assert checkup.examine(str(engine.work / "app"))[0].level == "error"
    assert "not valid JSON" in engine.run(["roadstead", "bundle", "check", "app"]).check(1).stdout
