"""Subordinate ids, the settings that forbid user namespaces, and a private writable layer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from roadstead.errors import RuntimeFailure
from roadstead.host import linux, namespaces, overlay

ODD = "a,b:c\\d e\nf"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", None),
        ("other:1:2\nme:100000:65536\nme:5:6\n", (100000, 65536)),
        ("1001:7:8\n", (7, 8)),
        ("me:x:1\nme:\n\nme\nme:3:4:5\n", None),
    ],
)
def test_the_first_range(tmp_path: Path, text: str, found: object) -> None:
    path = tmp_path / "subuid"
    path.write_text(text)
    assert namespaces._first_range(os.fspath(path), "me", 1001) == found
    assert namespaces._first_range(os.fspath(tmp_path / "none"), "me", 1001) is None


def test_a_free_id_is_above_all_ranges() -> None:
    assert namespaces.first_free_id(1 << 40) == 1 << 40
    for path in ("/etc/subuid", "/etc/subgid"):
        for _, start, count in namespaces._ranges(path):
            assert namespaces.first_free_id() >= start + count


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({}, ""),
        ({"kernel.unprivileged_userns_clone": "1", "user.max_user_namespaces": "7"}, ""),
        ({"kernel.unprivileged_userns_clone": "0"}, "kernel.unprivileged_userns_clone"),
        ({"user.max_user_namespaces": "0"}, "user.max_user_namespaces"),
        (
            {"kernel.apparmor_restrict_unprivileged_userns": "1"},
            "kernel.apparmor_restrict_unprivileged_userns",
        ),
    ],
)
def test_which_setting_forbids_namespaces(values: dict[str, str], name: str) -> None:
    found, right = namespaces.blocked_by(values)
    assert found == name
    assert not name or values[name] != right


def test_ranges_are_usable_together_only() -> None:
    one = (1, 2)
    assert namespaces.SubordinateIds(one, one).usable
    assert not namespaces.SubordinateIds(one, None).usable


def test_without_newuidmap_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/none")
    assert not namespaces.subordinate_ids("root", 0).usable


def in_own_namespace(tmp_path: Path, mountable: bool) -> str:
    """What a child of ours saw: "ok", or what went wrong."""
    lower = tmp_path / ODD
    scratch = tmp_path / "s,c:r"
    lower.mkdir()
    scratch.mkdir()
    (lower / "file").write_text("below")
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        said = "failed"
        try:
            namespaces.enter(ranges=None, hide_unified=False)
            if mountable:
                merged, why = overlay.private_layer([os.fspath(lower)], os.fspath(scratch))
            else:
                merged, why = overlay.private_layer(["/proc/self/nothing"], os.fspath(scratch))
            with open(f"{merged}/file", "a", encoding="utf-8") as file:
                file.write(", above")
            said = Path(merged, "file").read_text() + why
            overlay.unmount_layer(os.fspath(scratch))
            overlay.unmount_layer(os.fspath(scratch))
        except (RuntimeFailure, OSError) as error:
            said = str(error)
        finally:
            os.write(write, said.encode())
            os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    with open(read, encoding="utf-8") as pipe:
        return pipe.read()


def test_a_private_layer_over_an_odd_path(tmp_path: Path) -> None:
    said = in_own_namespace(tmp_path, mountable=True)
    if "does not allow user namespaces" in said:
        pytest.skip(said)
    assert said.startswith("below, above")
    assert (tmp_path / ODD / "file").read_text() == "below"
    assert os.listdir(tmp_path / "s,c:r") in ([], ["merged"])


def test_no_layer_and_no_copy(tmp_path: Path) -> None:
    said = in_own_namespace(tmp_path, mountable=False)
    assert "no private writable layer over" in said or "does not allow" in said


def test_the_hint_names_a_setting_or_a_reason() -> None:
    assert namespaces.user_namespace_hint()


def test_system_calls_raise_as_os_does() -> None:
    with pytest.raises(OSError, match="/no/such"):
        linux.unmount("/no/such")
