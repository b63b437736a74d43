"""Which descriptors a task gets, and the names of its files."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from roadstead.core.model import BATCH_STEP, Stdio, StepSpec, Terminal
from roadstead.errors import LaunchError
from roadstead.host import terminal
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


def test_a_number_that_is_no_task_is_a_file(loop: Loop, tmp_path: Path) -> None:
    made = streams(loop, tmp_path, ntasks=2, stdio=Stdio(output="2"))
    made.for_task(0)
    made.started()
    assert finish(loop, made) == ""
    made = streams(loop, tmp_path, step_id=BATCH_STEP, user=False, stdio=Stdio(output="0"))
    made.for_task(0)
    made.started()
    assert {path.name for path in tmp_path.iterdir()} == {"0", "2"}


def test_tasks_of_a_node_share_its_file(loop: Loop, tmp_path: Path) -> None:
    made = streams(loop, tmp_path, ntasks=3, stdio=Stdio(output="%N.%n"))
    for procid, node_id in enumerate((0, 0, 1)):
        out = made.for_task(procid, f"n{node_id}.example", node_id)[1]
        os.write(out, b"%d\n" % procid)
    made.started()
    assert finish(loop, made) == ""
    found = {path.name: sorted(path.read_text().split()) for path in tmp_path.iterdir()}
    assert found == {"n0.0": ["0", "1"], "n1.1": ["2"]}


def test_unbuffered_is_a_terminal_that_changes_no_byte(loop: Loop, tmp_path: Path) -> None:
    made = streams(loop, tmp_path, stdio=Stdio(output="out", unbuffered=True))
    _, out, err = made.for_task(0)
    assert (os.isatty(out), os.isatty(err)) == (True, False)
    os.write(out, b"a\n\tb\x04")
    os.write(err, b"e")
    made.started()
    assert finish(loop, made) == ""
    assert sorted((tmp_path / "out").read_bytes()) == sorted(b"a\n\tb\x04e")


def test_a_fifo_that_nobody_reads_yet(loop: Loop, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    made = streams(loop, tmp_path, stdio=Stdio(output="fifo"))
    os.write(made.for_task(0)[1], b"words")
    made.started()
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    assert finish(loop, made) == ""
    assert os.read(reader, 99) == b"words"
    os.close(reader)


def test_nobody_is_waited_for_for_ever(loop: Loop, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    made = streams(loop, tmp_path, stdio=Stdio(output="fifo"))
    os.write(made.for_task(0)[1], b"words")
    made.started()
    loop.call_later(0.01, made.abandon)
    assert finish(loop, made) == "nobody reads it"


def test_a_fifo_is_read_by_every_task(loop: Loop, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    made = streams(loop, tmp_path, ntasks=2, stdio=Stdio(input="fifo"))
    ends = [os.dup(made.for_task(procid)[0]) for procid in range(2)]
    made.started()
    writer = os.open(tmp_path / "fifo", os.O_WRONLY)
    os.write(writer, b"words")
    os.close(writer)
    loop.call_later(0.01, loop.stop)
    loop.run()
    assert finish(loop, made) == ""
    for end in ends:
        with open(end, "rb") as file:
            assert file.read() == b"words"


def _on_a_terminal(loop: Loop, where: Path) -> tuple[Streams, int, str]:
    """The streams of a step that has the user's terminal, its screen, and the console's socket."""
    screen, slave = terminal.open_raw()
    made = streams(loop, where, terminal=Terminal(rows=24, columns=80))
    for fd in made._user:
        os.dup2(slave, fd)
    os.close(slave)
    console = str(where / "console")
    made.for_task(0, console=console)
    made.started()
    return made, screen, console


def _hand_over(console: str, said: bytes) -> None:
    """What a runtime does whose container's program says something and ends at once."""
    master, slave = terminal.open_raw()
    os.write(slave, said)
    with socket.socket(socket.AF_UNIX) as runtime:
        runtime.connect(console)
        socket.send_fds(runtime, [b" "], [master])
    os.close(master)
    os.close(slave)


def test_a_terminal_that_is_handed_over_late_is_read_to_its_end(loop: Loop, tmp_path: Path) -> None:
    """The runtime has come and gone before we look: nothing of what its program said is lost."""
    made, screen, console = _on_a_terminal(loop, tmp_path)
    _hand_over(console, b"some words\n")
    assert finish(loop, made) == ""
    assert os.read(screen, 100) == b"some words\n"
    assert not os.path.exists(console)
    made.close()
    os.close(screen)


def test_a_terminal_that_never_comes_is_not_waited_for(loop: Loop, tmp_path: Path) -> None:
    made, screen, console = _on_a_terminal(loop, tmp_path)
    assert finish(loop, made) == ""
    assert not os.path.exists(console)
    made.close()
    os.close(screen)
