"""Claims and exit records, and what is swept up after a supervisor that was killed; files too."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from roadstead.core.model import ExitRecord, TaskExit
from roadstead.host import files, fork, process
from roadstead.step import record, sweep

RECORD = ExitRecord(
    job_id=1, step_id=2, tasks=(TaskExit(procid=0, code=3),), started_at=1.0, ended_at=2.0
)


def test_an_exit_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    directory = os.fspath(tmp_path / "1.2")
    assert record.read_exit(directory) is None
    record.write_exit(directory, RECORD)
    assert record.read_exit(directory) == RECORD
    record.forget(directory)
    record.forget(directory)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null"])
def test_a_broken_record_is_none(tmp_path: Path, text: str) -> None:
    directory = os.fspath(tmp_path / "1.2")
    Path(record.exit_path(directory)).write_text(text)
    assert record.read_exit(directory) is None
    os.mkdir(directory)
    Path(directory, record.CLAIM).write_text(text)
    assert not record.read_claim(directory)


def claimed(tmp_path: Path, pid: int, started: str, **more: object) -> str:
    directory = os.fspath(tmp_path / "1.2")
    os.makedirs(f"{directory}/task-0/deep")
    record.write_claim(directory, {"pid": pid, "start_time": started, **more})
    return directory


def test_a_supervisor_that_lives_is_left_alone(tmp_path: Path) -> None:
    me = os.getpid()
    directory = claimed(tmp_path, me, record.start_time(me), mark="1.2")
    assert sweep.sweep(directory) == []
    assert os.path.isdir(directory)


def test_what_a_dead_one_left_is_removed(tmp_path: Path) -> None:
    mark = f"{os.getpid()}.sweep"
    marked = process.spawn(["/bin/sleep", "60"], env={"ROADSTEAD_STEP": mark})
    other = process.spawn(["/bin/sleep", "60"], env={"ROADSTEAD_STEP": f"{mark}0"})
    state = tmp_path / "state"
    state.mkdir()
    deleted = tmp_path / "deleted"
    container = {
        "delete": ["/bin/sh", "-c", f"/bin/touch {deleted}"],
        "state": os.fspath(state),
        "directory": "",
    }
    # The same pid, of another time: it is somebody else's by now.
    directory = claimed(
        tmp_path, os.getpid(), "1", mark=mark, containers=[container, {}, {"delete": ["/no/such"]}]
    )
    found = sweep.sweep(directory)
    assert f"process {marked.pid}" in found
    assert f"state {state}" in found
    assert any("/no/such could not be called" in line for line in found)
    assert marked.reap() == -9
    assert other.reap_if_ended() is None
    other.signal(process.KILL)
    other.reap()
    assert deleted.exists()
    assert sorted(os.listdir(tmp_path)) == ["deleted"]


def test_the_first_process_of_a_container_has_runcs_environment_only(tmp_path: Path) -> None:
    deletes = ["runc --root /r delete --force 'a.1'", "runc delete --force b.1"]
    claims = [{"delete": ["/bin/sh", "-c", line]} for line in deletes]
    directory = claimed(
        tmp_path, os.getpid(), "1", containers=[{"state": "/own/c.1"}, *claims], mark="none"
    )
    ours, theirs = ("/own/c.1", "/r/a.1", "/run/runc/b.1"), ("/own/c.2", "/other/a.1", "/r/a.11")
    first, other = (
        [
            process.spawn(["/bin/sleep", "60"], env={"_LIBCONTAINER_STATEDIR": path, "A": "b"})
            for path in paths
        ]
        for paths in (ours, theirs)
    )
    first[0].signal(process.STOP)
    found = sweep.sweep(directory)
    assert {line for line in found if "process" in line} == {f"process {it.pid}" for it in first}
    assert [it.reap() for it in first] == [-9, -9, -9]
    for it in other:
        assert it.reap_if_ended() is None
        it.signal(process.KILL)
        it.reap()


@pytest.mark.long
def test_a_child_that_is_yet_to_become_a_task_is_waited_for(tmp_path: Path) -> None:
    """Its supervisor was killed between the fork and the execution: it has no mark so far."""
    directory = claimed(tmp_path, os.getpid(), "1")
    held = record.hold(directory)
    ready, go = os.pipe()

    def late() -> None:
        os.read(ready, 1)
        time.sleep(0.2)
        os.execve("/bin/sleep", ["sleep", "60"], {record.MARK: directory})

    child = process.adopt(fork.run_in_child(late))
    os.close(held)
    os.write(go, b"+")
    os.close(ready)
    os.close(go)
    assert sweep.sweep(directory) == [f"process {child.pid}"]
    assert child.reap() == -9
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("keep", [False, True])
def test_two_who_sweep_do_it_one_after_the_other(tmp_path: Path, keep: bool) -> None:
    """As a controller and whoever joins a named container; together they disturb each other."""
    for number in range(2):
        directory = os.fspath(tmp_path / f"1.{number}")
        for each in range(60):
            os.makedirs(f"{directory}/task-0/{each}/deep/deeper/{each}")
        record.write_claim(directory, {"pid": os.getpid(), "start_time": "1", "mark": "none"})
        sweepers = [
            process.adopt(fork.run_in_child(lambda where=directory: sweep.sweep(where, keep=keep)))
            for _ in range(2)
        ]
        assert [each.reap() for each in sweepers] == [0, 0]
        assert (os.listdir(directory) == [record.CLAIM]) if keep else not os.path.exists(directory)


def test_a_directory_without_a_claim_goes(tmp_path: Path) -> None:
    directory = os.fspath(tmp_path / "1.2")
    os.mkdir(directory)
    assert sweep.sweep(directory) == []
    assert not os.path.exists(directory)
    assert sweep.sweep(directory) == []


# -- host/files.py ------------------------------------------------------------------------------


def test_a_file_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    leftover = tmp_path / f"file.{os.getpid()}.new"
    leftover.write_text("of a crash, and longer than what comes")
    leftover.chmod(0o600)
    files.write_atomically(os.fspath(path), "caf\udce9", sync=True)
    assert path.read_bytes() == b"caf\xe9"
    assert path.stat().st_mode & 0o777 == 0o600
    assert not leftover.exists()


def test_nothing_is_left_of_a_write_that_failed(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(IsADirectoryError):
        files.write_atomically(os.fspath(tmp_path / "file"), "text")
    assert os.listdir(tmp_path) == ["file"]
    (tmp_path / f"link.{os.getpid()}.new").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        files.write_atomically(os.fspath(tmp_path / "link"), "text")
    assert not (tmp_path / "elsewhere").exists()


def test_a_tree_goes_whatever_is_in_it(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text(json.dumps(None))
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "b" / "file").touch()
    (tree / "a" / "b" / "link").symlink_to(kept)
    (tree / "dangling").symlink_to("nowhere")
    os.mkfifo(tree / "fifo")
    (tree / "a" / "b").chmod(0)
    (tree / "a").chmod(0o500)
    files.remove_tree(os.fspath(tree))
    files.remove_tree(os.fspath(tree))
    assert not tree.exists()
    assert (kept / "file").exists()
    (tmp_path / "link").symlink_to(kept)
    with pytest.raises(OSError, match="Not a directory"):
        files.remove_tree(os.fspath(tmp_path / "link"))
    assert (kept / "file").exists()


def test_a_zombie_has_gone() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert record.start_time(pid) == ""
    os.waitpid(pid, 0)
