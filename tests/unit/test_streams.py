"""Which descriptors a task gets, and the names of its files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from roadstead.core.model import BATCH_STEP, Stdio, StepSpec
from roadstead.errors import LaunchError
from roadstead.host.loop import Loop
from roadstead.step.streams import Streams


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


def streams(loop: Loop, cwd: Path, *, user: bool = True, **changes: Any) -> Streams:
    spec: dict[str, Any] = {
        "job_id": 7, "step_id": 0, "kind": "run", "name": "name", "user": "me", "uid": 1, "gid": 1,
        "node": "host.example", "cwd": str(cwd), "argv": ("true",), "env": {}, **changes,
    }  # fmt: skip
    fds = [os.open(os.devnull, os.O_RDWR) for _ in range(3)] if user else []
    return Streams(loop, StepSpec(**spec), fds, loop.stop)


def finish(loop: Loop, made: Streams) -> str:
    said: list[str] = []

    def done(error: str) -> None:
        said.append(error)
        loop.stop()

    loop.call_later(0, lambda: made.finish(done))
    loop.run()
    return said[0]


def test_a_lone_task_has_the_users_own(loop: Loop, tmp_path: Path) -> None:
    made = streams(loop, tmp_path)
    user = list(made._user)
    assert list(made.for_task(0)) == user
    made.started()
    for fd in user:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    assert finish(loop, made) == ""


def test_files_by_pattern(loop: Loop, tmp_path: Path) -> None:
    made = streams(loop, tmp_path, ntasks=2, stdio=Stdio(output="%j.%s.%t.%N.%u", error="%%-%q"))
    for number in range(2):
        _, out, err = made.for_task(number)
        os.write(out, b"o")
        os.write(err, b"e\n")
    made.started()
    assert finish(loop, made) == ""
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"7.0.0.host.me": "o", "7.0.1.host.me": "o", "%-%q": "e\ne\n"}


def test_one_file_for_both_streams(loop: Loop, tmp_path: Path) -> None:
    made = streams(loop, tmp_path, step_id=BATCH_STEP, user=False, stdio=Stdio(output="%s-%J"))
    made.say("before the task")
    stdin, out, err = made.for_task(0)
    assert os.read(stdin, 1) == b""
    os.write(out, b"o\n")
    os.write(err, b"e\n")
    made.started()
    made.say("after it")
    assert finish(loop, made) == ""
    assert (tmp_path / "batch-7").read_text() == "o\ne\nafter it\n"


def test_a_file_that_cannot_be_opened(loop: Loop, tmp_path: Path) -> None:
    made = streams(loop, tmp_path, stdio=Stdio(output="no/such"))
    with pytest.raises(LaunchError, match="no/such for output: No such file or directory"):
        made.for_task(0)
    made = streams(loop, tmp_path, stdio=Stdio(input="nothing"))
    with pytest.raises(LaunchError, match=r"--input=.*/nothing: No such file"):
        made.for_task(0)


def test_lost_output_is_told(loop: Loop, tmp_path: Path) -> None:
    made = streams(loop, tmp_path, stdio=Stdio(output="/dev/full", label=True))
    os.write(made.for_task(0)[1], b"x")
    made.started()
    assert finish(loop, made) == "No space left on device"


def test_a_task_of_its_own_choice(loop: Loop, tmp_path: Path) -> None:
    made = streams(loop, tmp_path, ntasks=2, stdio=Stdio(output="1", error="none"))
    null = os.stat(os.devnull).st_rdev
    _, out, err = made.for_task(0)
    assert {os.fstat(fd).st_rdev for fd in (out, err)} == {null}
    _, out, _ = made.for_task(1)
    assert os.fstat(out).st_rdev != null
    made.started()
    assert finish(loop, made) == ""
