"""An image's configuration as config.json: conversion.md of the OCI image-spec, rule by rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from roadstead.errors import ImageError
from roadstead.images.model import ImageConfig
from roadstead.images.translate import Accounts, User, config

PASSWD = "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/:\nbad line\nbig:x:99999999999:1::/:\n"
GROUP = "root:x:0:\napp:x:1001:\nvideo:x:44:app,other\nrender:x:45:other,app\n"


def made(image: ImageConfig, **options: Any) -> dict[str, Any]:
    return config(image, root="rootfs", user=User(), uid=1234, gid=5678, **options)


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "args"),
    [
        ((), (), ["/bin/sh"]),
        ((), ("a", "b"), ["a", "b"]),
        (("e",), (), ["e"]),
        (("e", "x"), ("a",), ["e", "x", "a"]),
    ],
)
def test_args(entrypoint: tuple[str, ...], cmd: tuple[str, ...], args: list[str]) -> None:
    assert made(ImageConfig(entrypoint=entrypoint, cmd=cmd))["process"]["args"] == args


def test_env_and_directory() -> None:
    process = made(ImageConfig(env=("A=1", "PATH=/bin", "A=2", "E="), workdir="/w"))["process"]
    assert process["env"] == ["PATH=/bin", "A=2", "E="]
    assert process["cwd"] == "/w"
    bare = made(ImageConfig(workdir="relative"))["process"]
    assert bare["env"][0].startswith("PATH=/usr/local/sbin:")
    assert bare["cwd"] == "/"
    assert bare["terminal"] is False


def test_annotations_and_labels() -> None:
    image = ImageConfig(
        architecture="arm64",
        variant="v8",
        stop_signal="SIGINT",
        labels={"a": "b", "org.opencontainers.image.os": "mine"},
    )
    assert made(image)["annotations"] == {
        "org.opencontainers.image.os": "mine",
        "org.opencontainers.image.architecture": "arm64",
        "org.opencontainers.image.variant": "v8",
        "org.opencontainers.image.stopSignal": "SIGINT",
        "a": "b",
    }


def test_volumes_are_mounts() -> None:
    found = made(ImageConfig(volumes=("/data", "relative", "/")))["mounts"]
    extra = [mount for mount in found if mount["destination"] not in PLACES]
    assert [mount["destination"] for mount in extra] == ["/data"]
    assert extra[0]["type"] == "tmpfs"
    assert "tmpcopyup" in extra[0]["options"]


PLACES = ("/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup")


def test_ids_are_those_of_who_runs_it() -> None:
    written = config(ImageConfig(), root="r", user=User(1000, 1001, (44,)), uid=1234, gid=5678)
    assert written["process"]["user"] == {"uid": 1000, "gid": 1001, "additionalGids": [44]}
    linux = written["linux"]
    assert linux["uidMappings"] == [{"containerID": 1000, "hostID": 1234, "size": 1}]
    assert linux["gidMappings"] == [{"containerID": 1001, "hostID": 5678, "size": 1}]
    assert "network" not in [entry["type"] for entry in linux["namespaces"]]


USERS = {
    "": User(),
    "app": User(1000, 1001, (44, 45)),
    "1000": User(1000, 1001, (44, 45)),
    "4321": User(4321, 0),
    "app:video": User(1000, 44),
    "app:7": User(1000, 7),
    "4321:4321": User(4321, 4321),
    "root": User(0, 0),
    ":video": User(0, 44),
}


@pytest.fixture
def rootfs(tmp_path: Path) -> str:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    (tmp_path / "etc/group").write_text(GROUP)
    return str(tmp_path)


@pytest.mark.parametrize(("text", "user"), USERS.items())
def test_users(rootfs: str, text: str, user: User) -> None:
    assert Accounts.of(rootfs).find(text) == user


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nobody", "/etc/passwd has no 'nobody'"),
        ("big", "/etc/passwd has no 'big'"),
        ("app:nogroup", "/etc/group has no 'nogroup'"),
        ("-1", "/etc/passwd has no '-1'"),
        ("99999999999", "/etc/passwd has no '99999999999'"),
    ],
)
def test_users_that_are_not_there(rootfs: str, text: str, said: str) -> None:
    with pytest.raises(ImageError, match=said):
        Accounts.of(rootfs).find(text)


def test_an_image_without_accounts(tmp_path: Path) -> None:
    assert Accounts.of(str(tmp_path)).find("7:8") == User(7, 8)
