"""The loop: descriptors, deadlines, signals, and the end of a turn."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from roadstead.host.loop import Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe2(os.O_NONBLOCK)
    yield read, write
    os.close(read)
    os.close(write)


def test_what_can_be_read_is_told(loop: Loop, pipe: tuple[int, int]) -> None:
    read, write = pipe
    heard: list[bytes] = []

    def readable() -> None:
        heard.append(os.read(read, 1))
        if len(heard) == 2:
            loop.stop()

    loop.watch(read, readable)
    os.write(write, b"ab")
    loop.run()
    assert heard == [b"a", b"b"], "readiness is level-triggered"


def test_the_end_of_a_writer_is_told(loop: Loop) -> None:
    read, write = os.pipe()
    loop.watch(read, loop.stop)
    os.close(write)
    loop.run()
    loop.unwatch(read)
    loop.unwatch(read)
    os.close(read)


def test_reading_and_writing_are_watched_apart(loop: Loop, pipe: tuple[int, int]) -> None:
    _, write = pipe
    turns: list[str] = []

    def writable() -> None:
        turns.append("writable")
        loop.unwatch_writable(write)
        loop.call_later(0, loop.stop)

    loop.watch(write, lambda: turns.append("readable"))
    loop.watch_writable(write, writable)
    loop.run()
    assert turns == ["writable"]


def test_timers_run_in_order_and_not_when_cancelled(loop: Loop) -> None:
    now, ran = time.monotonic(), []
    loop.call_at(now + 0.003, loop.stop)
    loop.call_at(now + 0.002, lambda: ran.append("second"))
    loop.call_at(now - 1, lambda: ran.append("first"))
    loop.call_at(now + 0.001, lambda: ran.append("never")).cancel()
    loop.run()
    assert ran == ["first", "second"]
    assert time.monotonic() >= now + 0.003


def test_one_that_is_forgotten_within_a_turn_is_not_called(loop: Loop) -> None:
    pairs = [os.pipe() for _ in range(2)]
    called: list[int] = []

    def readable(index: int) -> None:
        called.append(index)
        loop.unwatch(pairs[1 - index][0])
        loop.stop()

    for index, (read, write) in enumerate(pairs):
        os.write(write, b"x")
        loop.watch(read, lambda index=index: readable(index))  # type: ignore[misc]
    loop.run()
    assert len(called) == 1
    for fds in pairs:
        for fd in fds:
            os.close(fd)


def test_a_signal_is_an_event_like_others(loop: Loop) -> None:
    loop.on_signal(signal.SIGUSR1, loop.stop)
    loop.call_later(0, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    loop.run()


def test_the_end_of_a_process_can_be_watched(loop: Loop) -> None:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    pidfd = os.pidfd_open(pid)
    loop.watch(pidfd, loop.stop)
    loop.run()
    assert os.waitpid(pid, os.WNOHANG)[0] == pid
    loop.unwatch(pidfd)
    os.close(pidfd)


def test_after_a_turn_comes_what_was_to_come() -> None:
    told: list[str] = []
    loop = Loop(after_turn=lambda: told.append("turn"))
    loop.call_later(0, lambda: told.append("timer"))
    loop.call_later(0.001, loop.stop)
    loop.run()
    loop.close()
    assert told[:2] == ["timer", "turn"]


def test_a_deadline_beyond_all_measure_is_no_error(loop: Loop) -> None:
    loop.call_later(1e15, loop.stop)
    loop.on_signal(signal.SIGUSR1, loop.stop)
    os.kill(os.getpid(), signal.SIGUSR1)
    loop.run()
