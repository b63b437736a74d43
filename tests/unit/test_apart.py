"""A function in a process of its own."""

from __future__ import annotations

import os
import select
import signal
import time
from pathlib import Path

import pytest

from roadstead.host import apart, process


def test_what_is_said_comes_back_as_it_comes() -> None:
    heard: list[object] = []

    def body(say: apart.Say, lifeline: int) -> None:
        say({"crash": "a word as any other"})
        say("x" * 200_000)
        say([1, None])

    ending = apart.run(body, seconds=10, hear=heard.append)
    assert heard == ending.said == [{"crash": "a word as any other"}, "x" * 200_000, [1, None]]
    assert (ending.complete, ending.crash) == (True, "")


def test_a_child_has_no_terminal_and_its_output_is_kept() -> None:
    def body(say: apart.Say, lifeline: int) -> None:
        os.write(1, b"out ")
        os.write(2, b"err")
        say([os.read(0, 1).decode(), apart.printed()])

    ending = apart.run(body, seconds=10)
    assert ending.said == [["", "out err"]]
    assert ending.output == "out err"


def test_an_exception_is_named() -> None:
    def body(say: apart.Say, lifeline: int) -> None:
        raise KeyError("k")

    ending = apart.run(body, seconds=10)
    assert (ending.crash, ending.complete) == ("KeyError: 'k'", False)
    assert "Traceback" in ending.output


@pytest.mark.long
def test_the_time_is_over_and_there_is_time_to_clean_up() -> None:
    def body(say: apart.Say, lifeline: int) -> None:
        poll = select.poll()
        poll.register(lifeline)
        poll.poll(20_000)
        say("cleaned")

    began = time.monotonic()
    ending = apart.run(body, seconds=0.1, grace=10)
    assert (ending.overdue, ending.said) == (True, ["cleaned"])
    assert time.monotonic() - began < 5


@pytest.mark.long
def test_the_end_of_a_lifeline_goes_down() -> None:
    def inner(say: apart.Say, lifeline: int) -> None:
        poll = select.poll()
        poll.register(lifeline)
        poll.poll(20_000)
        say("cleaned")

    def outer(say: apart.Say, lifeline: int) -> None:
        say(apart.run(inner, seconds=20, grace=10, lifeline=lifeline).said)

    ending = apart.run(outer, seconds=0.2, grace=10)
    assert (ending.overdue, ending.said) == (True, [["cleaned"]])


def test_who_hears_fails_and_the_child_cleans_up(tmp_path: Path) -> None:
    def body(say: apart.Say, lifeline: int) -> None:
        say(1)
        poll = select.poll()
        poll.register(lifeline)
        poll.poll(20_000)
        (tmp_path / "cleaned").touch()

    def hear(said: object) -> None:
        raise SystemExit(141)

    with pytest.raises(SystemExit):
        apart.run(body, seconds=30, grace=10, hear=hear)
    assert (tmp_path / "cleaned").exists()


def test_a_signal_ends_it_and_what_it_started() -> None:
    parent = os.getpid()

    def body(say: apart.Say, lifeline: int) -> None:
        if os.fork() == 0:
            os.setsid()
            os.kill(parent, signal.SIGTERM)
        time.sleep(60)

    before, others = signal.getsignal(signal.SIGINT), process.children(parent)
    ending = apart.run(body, seconds=30)
    assert signal.getsignal(signal.SIGINT) == before
    assert (ending.signal, ending.complete) == (signal.SIGTERM, False)
    assert process.children(parent) == others
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
