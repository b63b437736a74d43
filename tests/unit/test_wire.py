"""Datagrams of JSON, with descriptors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from roadstead.host import wire
from roadstead.host.wire import Connection


@pytest.fixture
def ends() -> Iterator[tuple[Connection, Connection]]:
    ours, theirs = wire.pair()
    yield ours, theirs
    ours.close()
    theirs.close()


def test_a_message_arrives_as_it_was_sent(ends: tuple[Connection, Connection]) -> None:
    message = {"a": [1, 2.5, None, True, "é\n\udce9"], "b": {}}
    ends[0].send(message)
    received = ends[1].receive()
    assert received is not None
    assert received[0] == message
    assert len(received[1]) == 0


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_descriptors_come_with_their_message(
    ends: tuple[Connection, Connection], size: int
) -> None:
    read, write = os.pipe()
    ends[0].send({"x": "y" * size}, (write,))
    os.close(write)
    received = ends[1].receive()
    assert received is not None
    message, fds = received
    assert len(message["x"]) == size
    taken = fds.take(0)
    assert not os.get_inheritable(taken)
    os.write(taken, b"through")
    os.close(taken)
    assert os.read(read, 10) == b"through"
    assert os.read(read, 10) == b"", "nobody else holds the write end"
    os.close(read)


def test_descriptors_that_nobody_takes_are_closed(ends: tuple[Connection, Connection]) -> None:
    read, write = os.pipe()
    ends[0].send({}, (write,))
    os.close(write)
    received = ends[1].receive()
    assert received is not None
    received[1].close()
    assert os.read(read, 1) == b""
    os.close(read)


def test_the_end_of_a_conversation_is_none(ends: tuple[Connection, Connection]) -> None:
    ends[0].close()
    assert ends[1].receive() is None
    with pytest.raises(BrokenPipeError):
        ends[1].send({})


def test_without_waiting(ends: tuple[Connection, Connection]) -> None:
    with pytest.raises(BlockingIOError):
        ends[0].receive(wait=False)


def test_a_full_queue_does_not_stop_the_sender(ends: tuple[Connection, Connection]) -> None:
    def fill() -> None:
        for _ in range(10_000):
            ends[0].send({"x": "y" * 1000}, wait=False)

    with pytest.raises(BlockingIOError):
        fill()


@pytest.mark.parametrize("data", [b"[]", b"nope", b'{"a":', b"\xff", b'{"memfd":5}', b"{} {}"])
def test_what_is_not_ours_is_a_value_error(
    ends: tuple[Connection, Connection], data: bytes
) -> None:
    os.write(ends[0].fileno(), data)
    with pytest.raises(ValueError, match=r"."):
        ends[1].receive()


def test_a_listener_knows_its_caller(tmp_path: Path) -> None:
    path = os.fspath(tmp_path / ("d" * 120) / "s")  # longer than sun_path
    os.mkdir(os.path.dirname(path))
    listener = wire.Listener(path)
    assert os.stat(path).st_mode & 0o777 == 0o600
    client = wire.connect(path)
    server = listener.accept()
    assert server is not None
    assert (server.peer_uid(), server.peer_pid()) == (os.getuid(), os.getpid())
    server.close()
    client.close()
    listener.close()
    with pytest.raises(FileNotFoundError):
        wire.connect(path)
