"""host/cgroup.py: what the texts of the kernel mean, and where groups can be made.

The trees are directories with the files that the kernel has in them; the real ones are in
tests/e2e/test_limits.py.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from roadstead.host import cgroup
from roadstead.host.cgroup import Group, Hierarchy, Place

# What hosts were seen to have.
V1 = """\
25 20 0:22 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755
30 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:15 - cgroup cgroup rw,cpu,cpuacct
31 25 0:28 / /sys/fs/cgroup/memory rw,nosuid shared:16 - cgroup cgroup rw,memory
32 25 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
"""
UNIFIED = "33 25 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n"
OURS = "5:cpu,cpuacct:/user.slice\n4:memory:/user.slice/user-1000.slice\n1:name=systemd:/\n0::/a\n"
V2 = "35 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"


@pytest.mark.parametrize(
    ("mounts", "layout"), [(V1, "v1"), (V1 + UNIFIED, "hybrid"), (V2, "v2"), ("", "none")]
)
def test_layout(mounts: str, layout: str) -> None:
    assert cgroup.layout(cgroup.hierarchies(mounts, OURS)) == layout


def test_version_1_with_its_controllers() -> None:
    found = cgroup.hierarchies(V1, OURS)
    assert found["memory"] == Hierarchy(
        1, "/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/user.slice/user-1000.slice"
    )
    top = "/sys/fs/cgroup/cpu,cpuacct"
    assert found["cpuacct"] == found["cpu"] == Hierarchy(1, top, f"{top}/user.slice")
    assert "" not in found


def test_hybrid_has_both() -> None:
    found = cgroup.hierarchies(V1 + UNIFIED, OURS)
    assert found[""] == Hierarchy(2, "/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified/a")
    assert found["memory"].version == 1


def test_version_2() -> None:
    found = cgroup.hierarchies(V2, "0::/\n")
    assert found == {"": Hierarchy(2, "/sys/fs/cgroup", "/sys/fs/cgroup")}


@pytest.mark.parametrize(
    ("root", "path", "below"),
    [
        ("/", "/x/y", "/x/y"),
        ("/docker/1", "/docker/1", ""),  # a container that sees its own part of the host's tree
        ("/docker/1", "/docker/1/x", "/x"),
        ("/docker/1", "/docker/12", None),
        ("/", "/../other", None),  # a cgroup namespace that we are not in
    ],
)
def test_a_mount_of_a_part(root: str, path: str, below: str | None) -> None:
    mounts = f"31 25 0:28 {root} /cg rw - cgroup cgroup rw,memory\n"
    found = cgroup.hierarchies(mounts, f"4:memory:{path}\n")
    assert found == ({} if below is None else {"memory": Hierarchy(1, "/cg", f"/cg{below}")})


def group(path: Path, controllers: str, passed_on: str, procs: str = "") -> Path:
    """A directory like a version 2 group."""
    path.mkdir(exist_ok=True)
    (path / "cgroup.controllers").write_text(controllers)
    (path / "cgroup.subtree_control").write_text(passed_on)
    (path / "cgroup.procs").write_text(procs)
    return path


def test_the_nearest_group_that_passes_it_on(tmp_path: Path) -> None:
    top = group(tmp_path / "top", "cpuset memory pids", "memory pids")
    slice_ = group(top / "app.slice", "memory pids", "memory")
    scope = group(slice_ / "x.scope", "memory", "", f"{os.getpid()}\n")
    found = {"": Hierarchy(2, str(top), str(scope))}
    assert cgroup.place("memory", found) == Place(2, str(slice_), str(scope))
    assert cgroup.place("pids", found) == Place(2, str(top), str(scope))
    lacking = cgroup.place("cpuset", found)
    assert (lacking.directory, lacking.lacking) == ("", True)
    assert cgroup.place("hugetlb", found).version == 0


def test_a_group_that_is_not_delegated(tmp_path: Path) -> None:
    top = group(tmp_path / "top", "memory", "memory")
    own = top / "somebody's"
    found = {"": Hierarchy(2, str(top), str(own))}  # it is not even there: nobody may write to it
    place = cgroup.place("memory", found)
    assert (place.directory, place.why) == ("", f"{own} is not delegated to this user")
    found = {"memory": Hierarchy(1, str(top), str(own))}
    assert cgroup.place("memory", found).why == f"{own} is not delegated to this user"
    assert cgroup.place("pids", found).version == 0


def test_no_process_of_others_is_moved(tmp_path: Path) -> None:
    own = group(tmp_path / "own", "memory", "", "17 4242\n")
    assert cgroup.step_aside(str(own), ["memory"], [17, 18]) is False
    assert not (own / "roadstead-engine").exists()


def test_limits_of_version_2(tmp_path: Path) -> None:
    """The files and their values, as cgroup-v2.rst has them."""
    places = {name: Place(2, str(tmp_path), str(tmp_path)) for name in ("memory", "pids")}
    made = Group.below(places, "roadstead-7.0")
    made.make()
    directory = tmp_path / "roadstead-7.0"
    for name in ("memory.max", "memory.swap.max", "pids.max", "cgroup.subtree_control"):
        (directory / name).touch()
    made.share()
    made.limit_memory(64 << 20)
    made.limit_pids(9)
    assert {path.name: path.read_text() for path in directory.iterdir()} == {
        "memory.max": "67108864",
        "memory.swap.max": "0",
        "pids.max": "9",
        "cgroup.subtree_control": "+memory +pids",
    }
    (directory / "memory.events").write_text("low 0\nhigh 0\nmax 31\noom 2\noom_kill 1\n")
    (directory / "pids.events").write_text("max 3\n")
    assert (made.memory_kills(), made.refused_forks()) == (1, 3)
    child = made.child("task-0")
    assert set(child.directories.values()) == {f"{directory}/task-0"}
