"""Relays: what several tasks write to one place, and one input for several tasks."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from roadstead.host.loop import Loop
from roadstead.step.stdio import Input, Output, Sink


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


def small_pipe() -> tuple[int, int]:
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    return read, write


def read_all(fd: int) -> bytes:
    with open(fd, "rb") as file:
        return file.read()


def fed(data: bytes) -> int:
    """The read end of a pipe that holds ``data`` and has no writer any more."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 1 << 20)
    os.write(write, data)
    os.close(write)
    return read


def run_until_delivered(loop: Loop, *outputs: Output) -> None:
    left = len(outputs)

    def one_less() -> None:
        nonlocal left
        left -= 1
        if not left:
            loop.stop()

    for output in outputs:
        output.when_closed(lambda sink=output.sink: sink.when_empty(one_less))  # type: ignore[misc]
    loop.run()


def relayed(loop: Loop, data: bytes, **options: object) -> bytes:
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 1 << 20)
    sink = Sink(loop, write)
    run_until_delivered(loop, Output(loop, fed(data), sink, **options))  # type: ignore[arg-type]
    sink.close()
    return read_all(read)


@pytest.mark.parametrize(
    ("data", "labelled"),
    [
        (b"", b""),
        (b"a\nb\n", b"1: a\n1: b\n"),
        (b"a\npart", b"1: a\n1: part\n"),
        (b"\n\n", b"1: \n1: \n"),
        (b"\xff\0\n", b"1: \xff\0\n"),
    ],
)
def test_a_label_before_each_line(loop: Loop, data: bytes, labelled: bytes) -> None:
    assert relayed(loop, data, prefix=b"1: ") == labelled
    assert relayed(loop, data) == data
    assert relayed(loop, data, whole_lines=False) == data


def test_a_line_without_an_end_passes(loop: Loop, tmp_path: Path) -> None:
    """More than is ever kept of a line; a regular file takes all at once."""
    (tmp_path / "long").write_bytes(b"x" * (3 << 20))
    read, write = os.pipe()
    fd = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    output = Output(loop, read, Sink(loop, fd))
    feed = Input(loop, os.open(tmp_path / "long", os.O_RDONLY), [write])
    run_until_delivered(loop, output)
    assert not feed.open
    assert os.pread(fd, 4 << 20, 0) == b"x" * (3 << 20)
    os.close(fd)


def test_a_slow_reader_sets_the_pace(loop: Loop) -> None:
    """Nothing more is read while too much waits, and nothing is lost."""
    source, task = os.pipe()
    reader, write = small_pipe()
    sink = Sink(loop, write)
    output = Output(loop, source, sink, whole_lines=False)
    os.set_blocking(task, False)
    os.set_blocking(reader, False)
    sent = 0
    for _ in range(200):
        try:
            sent += os.write(task, b"y" * 65536)
        except BlockingIOError:
            loop.call_later(0, loop.stop)
            loop.run()
    assert sent < (1 << 20) + (4 << 16), "a task that is faster than its reader has to wait"
    os.close(task)
    got = bytearray()

    def take() -> None:
        got.extend(os.read(reader, 65536))

    loop.watch(reader, take)
    run_until_delivered(loop, output)
    sink.close()
    os.set_blocking(reader, True)
    loop.unwatch(reader)
    got += read_all(reader)
    assert len(got) == sent


def test_with_its_reader_gone_the_task_gets_sigpipe(loop: Loop) -> None:
    reader, write = os.pipe()
    os.close(reader)
    source, task = os.pipe()
    sink = Sink(loop, write)
    output = Output(loop, source, sink, whole_lines=False)
    output.when_closed(loop.stop)
    os.write(task, b"nobody")
    loop.watch_writable(task, lambda: os.write(task, b"x"))
    with pytest.raises(BrokenPipeError):
        loop.run()
    assert (sink.reader_gone, sink.error) == (True, ""), "which is no loss of output"
    loop.unwatch(task)
    os.close(task)
    os.close(write)


def test_a_full_disk_is_told_and_the_task_goes_on(loop: Loop) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    sink = Sink(loop, full)
    run_until_delivered(loop, Output(loop, fed(b"a\nb\n"), sink))
    assert sink.error == "No space left on device"
    assert sink.empty
    os.close(full)


@pytest.mark.parametrize("regular", [True, False])
def test_input_for_every_task(loop: Loop, tmp_path: Path, regular: bool) -> None:
    (tmp_path / "in").write_bytes(b"words")
    fd = os.open(tmp_path / "in", os.O_RDONLY) if regular else fed(b"words")
    pipes = [os.pipe() for _ in range(3)]
    os.close(pipes[1][0])  # one task has ended already
    feed = Input(loop, fd, [write for _, write in pipes], loop.stop)
    loop.run()
    loop.call_later(0.001, loop.stop)
    loop.run()
    assert not feed.open
    assert [read_all(pipes[number][0]) for number in (0, 2)] == [b"words"] * 2


def open_directory() -> int:
    return os.open("/", os.O_RDONLY)


def open_for_writing() -> int:
    return os.open(os.devnull, os.O_WRONLY)


@pytest.mark.parametrize("source", [open_directory, open_for_writing])
def test_what_cannot_be_read_is_the_end(loop: Loop, source: Callable[[], int]) -> None:
    read, write = os.pipe()
    Input(loop, source(), [write], loop.stop)
    loop.run()
    assert read_all(read) == b""


def test_input_that_somebody_else_took_is_no_end(loop: Loop) -> None:
    source, user = os.pipe()
    os.set_blocking(source, False)
    read, write = os.pipe()
    feed = Input(loop, source, [write], loop.stop)
    feed._read()
    assert feed.open
    os.close(user)
    loop.run()
    assert read_all(read) == b""


def test_a_hung_up_terminal_is_told_and_ctrl_d_is_not(loop: Loop) -> None:
    master, slave = os.openpty()
    read, write = os.pipe()
    told: list[str] = []

    def ended() -> None:
        told.append("hung up")
        loop.stop()

    feed = Input(loop, slave, [write], ended)
    os.write(master, b"\x04")
    loop.call_later(0.002, loop.stop)
    loop.run()
    assert feed.open
    assert told == []
    os.close(master)
    loop.run()
    assert told == ["hung up"]
    os.close(read)


def test_the_users_flags_stay_as_they_are(loop: Loop) -> None:
    reader, write = os.pipe()
    sink = Sink(loop, write)
    sink.write(b"x" * 100_000)
    assert os.get_blocking(write)
    assert not sink.empty
    assert len(os.read(reader, 100_000)) == 65536, "as much as the pipe takes, and no blocking"
    loop.call_later(0.001, loop.stop)
    loop.run()
    assert sink.empty
    sink.close()
    os.close(reader)
