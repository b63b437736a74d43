"""A bad bundle: one sentence that says what, where, and what to do."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from roadstead.errors import BundleError
from roadstead.oci import bundle

GOOD: dict[str, Any] = {"root": {"path": "rootfs"}, "process": {"args": ["sh"], "env": []}}


def make(path: Path, config: object = GOOD, *, rootfs: str = "rootfs") -> str:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    if rootfs:
        (path / rootfs).mkdir()
    return os.fspath(path)


def test_a_good_bundle(tmp_path: Path) -> None:
    path = make(tmp_path / "b")
    found = bundle.read(path)
    assert found.rootfs == f"{path}/rootfs"
    assert found.config == GOOD


@pytest.mark.parametrize("name", ["fs", "../fs", "/abs"])
def test_any_root_path(tmp_path: Path, name: str) -> None:
    named = f"{tmp_path}/abs" if name == "/abs" else name
    path = make(tmp_path / "b", {"root": {"path": named}}, rootfs="")
    expected = Path(path, named).resolve()
    expected.mkdir()
    assert bundle.read(path).rootfs == os.fspath(expected)


def test_missing_or_no_directory(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="nowhere does not exist"):
        bundle.read(f"{tmp_path}/nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="file is not a directory"):
        bundle.read(f"{tmp_path}/file")


def test_no_config(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"has no config\.json") as raised:
        bundle.read(os.fspath(tmp_path))
    assert "runc spec --rootless" in raised.value.hint


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ("{", r"not valid JSON: line 1, column 2: expecting property name"),
        ("[" * 100000, r"nested too deeply"),
        ("[]", r"config\.json: not an object"),
        ({}, r"no root\.path"),
        ({"root": {"path": ""}}, r"no root\.path"),
        ({"root": {"path": 3}}, r"root\.path is not a string"),
        ({**GOOD, "process": []}, r"process is not an object"),
        ({**GOOD, "process": {"env": ["A=1", 2]}}, r"process\.env\[\] is not a string"),
        ({**GOOD, "process": {"user": {"uid": "0"}}}, r"process\.user\.uid is not a number"),
        ({**GOOD, "process": {"user": {"uid": True}}}, r"process\.user\.uid is not a number"),
        ({**GOOD, "mounts": {"a": 1}}, r"mounts is not an array"),
        ({**GOOD, "mounts": [{"destination": 1}]}, r"mounts\[\]\.destination is not a string"),
        ({**GOOD, "linux": {"namespaces": ["user"]}}, r"linux\.namespaces\[\] is not an object"),
        ({"root": {"path": "other"}}, r"root\.path is other, and .*/other does not exist"),
    ],
)
def test_bad_config(tmp_path: Path, config: object, sentence: str) -> None:
    with pytest.raises(BundleError, match=sentence):
        bundle.read(make(tmp_path / "b", config))


def test_null_is_absent(tmp_path: Path) -> None:
    assert bundle.read(make(tmp_path / "b", {**GOOD, "hooks": None, "mounts": None}))


def test_not_utf8_and_too_large(tmp_path: Path) -> None:
    path = make(tmp_path / "b")
    Path(path, "config.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(BundleError, match="not UTF-8"):
        bundle.read(path)
    with Path(path, "config.json").open("r+b") as file:
        file.truncate(bundle.MAX_CONFIG + 1)
    with pytest.raises(BundleError, match="larger than 16 MiB"):
        bundle.read(path)


def test_rootfs_that_is_a_file(tmp_path: Path) -> None:
    path = make(tmp_path / "b", rootfs="")
    Path(path, "rootfs").write_text("")
    with pytest.raises(BundleError, match="is not a directory"):
        bundle.read(path)
