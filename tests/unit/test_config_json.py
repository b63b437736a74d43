"""config.json for one task: what is replaced, what is kept, what has to give way."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from roadstead.errors import BundleError
from roadstead.oci import config, environment
from roadstead.oci.bundle import Bundle
from roadstead.oci.idmap import IdMap

MAP = IdMap(((0, 1001, 1),), 0)
BASE: dict[str, Any] = {
    "ociVersion": "1.0.2",
    "process": {
        "terminal": True,
        "consoleSize": {"height": 1, "width": 1},
        "user": {"uid": 0, "gid": 0, "additionalGids": [10]},
        "args": ["sh"],
        "env": ["PATH=/image", "A=image"],
        "cwd": "/image",
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 4096, "soft": 1024}],
        "oomScoreAdj": -100,
    },
    "root": {"path": "rootfs", "readonly": True},
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev/pts", "type": "devpts", "options": ["nosuid", "gid=5", "mode=0620"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
        {"destination": "/data", "type": "bind", "source": "data", "options": ["rbind"]},
    ],
    "linux": {
        "uidMappings": [{"containerID": 0, "hostID": 4242, "size": 1}],
        "gidMappings": [{"containerID": 0, "hostID": 4242, "size": 1}],
        "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "user"}, {"type": "mount"}],
        "resources": {"devices": [{"allow": False}]},
        "cgroupsPath": "/x",
        "devices": [{"path": "/dev/fuse"}],
    },
    "annotations": {"kept": "yes"},
}


def rewritten(base: dict[str, Any] = BASE, **changes: Any) -> tuple[dict[str, Any], list[str]]:
    before = copy.deepcopy(base)
    change = config.Change(
        **{
            "rootfs": "/b/rootfs",
            "args": ("echo", "hi"),
            "env": {"A": "1"},
            "uids": MAP,
            "gids": MAP,
            "limits": {"RLIMIT_NOFILE": 2048},
            **changes,
        }
    )
    result = config.rewrite(Bundle("/b", base, "/b/rootfs"), change)
    assert base == before, "the bundle's own config was changed"
    return result


def test_the_task_is_the_users() -> None:
    written, _ = rewritten()
    process = written["process"]
    assert process["args"] == ["echo", "hi"]
    assert process["env"] == ["A=1"]
    assert process["cwd"] == "/image"
    assert process["terminal"] is False
    assert "consoleSize" not in process
    on_terminal = rewritten(terminal=(30, 99))[0]["process"]
    assert on_terminal["terminal"] is True
    assert on_terminal["consoleSize"] == {"height": 30, "width": 99}
    assert process["user"] == {"uid": 0, "gid": 0}
    assert process["rlimits"] == [{"type": "RLIMIT_NOFILE", "hard": 2048, "soft": 1024}]
    assert process["oomScoreAdj"] == 0
    assert written["root"] == {"path": "/b/rootfs", "readonly": True}
    assert written["annotations"] == {"kept": "yes"}
    assert rewritten(cwd="/w")[0]["process"]["cwd"] == "/w"
    assert rewritten(readonly=False)[0]["root"]["readonly"] is False


def test_mappings_are_those_of_the_user_who_runs_it() -> None:
    linux = rewritten()[0]["linux"]
    assert linux["uidMappings"] == [{"containerID": 0, "hostID": 1001, "size": 1}]
    assert [entry["type"] for entry in linux["namespaces"]] == ["user", "pid", "mount"]


def test_what_an_unprivileged_container_cannot_have() -> None:
    written, notes = rewritten()
    assert {"resources", "cgroupsPath", "devices"}.isdisjoint(written["linux"])
    mounts = {mount["destination"]: mount for mount in written["mounts"]}
    assert mounts["/dev/pts"]["options"] == ["nosuid", "mode=0620"]
    assert mounts["/sys"]["source"] == "/sys"
    assert "rbind" in mounts["/sys"]["options"]
    assert mounts["/data"]["source"] == "/b/data"
    said = " ".join(notes)
    assert all(word in said for word in ("host's network", "resources", "devices", "groups"))


def test_root_keeps_what_root_can_have() -> None:
    written, _ = rewritten(uids=None, gids=None, privileged=True, cgroup="own")
    assert written["linux"]["cgroupsPath"] == "/own"
    assert written["linux"]["resources"] == {"devices": [{"allow": False}]}
    kinds = [entry["type"] for entry in written["linux"]["namespaces"]]
    assert kinds == ["pid", "network", "mount"]
    assert "uidMappings" not in written["linux"]


HOOKS = {"prestart": [{"path": "/x"}], "startContainer": [{"path": "/in"}]}


def test_hooks_by_policy() -> None:
    base = {**BASE, "hooks": HOOKS}
    dropped, notes = rewritten(base)
    assert dropped["hooks"] == {"startContainer": [{"path": "/in"}]}
    assert any("hooks of the bundle left out (prestart)" in note for note in notes)
    assert rewritten(base, hooks="run")[0]["hooks"] == HOOKS
    without = rewritten(base, hooks="run", disabled_hooks=("prestart",))[0]["hooks"]
    assert without == {"startContainer": [{"path": "/in"}]}
    with pytest.raises(BundleError, match="prestart"):
        rewritten(base, hooks="refuse")


def test_a_report_of_the_start_is_one_more_hook() -> None:
    written, _ = rewritten(report="/r")
    assert written["hooks"]["poststart"][0]["args"] == ["cp", "/dev/stdin", "/r"]


def test_an_almost_empty_config_is_filled() -> None:
    written, _ = rewritten({"root": {"path": "rootfs"}})
    assert written["ociVersion"]
    assert written["process"]["cwd"] == "/"
    assert written["linux"]["namespaces"] == [{"type": "user"}, {"type": "mount"}]


JOB = {"PATH": "/job", "B": "job", "SLURM_JOB_ID": "7", "SECRET": "x"}
IMAGE = ["PATH=/image", "B=image", "SLURM_JOB_ID=evil", "HOME=/root"]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("merge", {"PATH": "/image", "B": "image", "HOME": "/root", "SECRET": "x"}),
        ("image", {"PATH": "/image", "B": "image", "HOME": "/root"}),
        ("host", {"PATH": "/job", "B": "job", "SECRET": "x"}),
        ("clean", {"PATH": "/image", "HOME": "/root"}),
    ],
)
def test_environment_policies(policy: Any, expected: dict[str, str]) -> None:
    env = environment.compose(policy, JOB, IMAGE)
    assert env == {**expected, "SLURM_JOB_ID": "7"}


def test_env_exclude_drops_whole_entries() -> None:
    env = environment.compose("host", JOB, [], excluded=lambda entry: entry == "SECRET=x")
    assert "SECRET" not in env
    assert env["B"] == "job"
