"""Generators that wait for processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import roadstead
from roadstead.errors import RoadsteadError
from roadstead.host import process
from roadstead.host.loop import Loop
from roadstead.step.life import Life, Lives, Until


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


def child(*argv: str) -> process.Child:
    return process.spawn([process.which(argv[0], "/bin:/usr/bin") or "", *argv[1:]], env={})


def outcome(loop: Loop, life: Callable[[], Life[object]]) -> object:
    found: list[object] = []

    def end(value: object) -> None:
        found.append(value)
        loop.stop()

    Lives(loop).start(life(), end, end)
    assert not found, "told from the loop, never from here"
    loop.run()
    return found[0]


def test_a_life_waits_for_ends(loop: Loop) -> None:
    def life() -> Life[object]:
        first = yield Until(child("true"))
        second = yield Until(child("false"), 10)
        return first, second

    assert outcome(loop, life) == (0, 1)


def test_waiting_has_an_end(loop: Loop) -> None:
    def life() -> Life[object]:
        slow = child("sleep", "20")
        early = yield Until(slow, 0.001)
        slow.signal(process.KILL)
        return early, (yield Until(slow))

    assert outcome(loop, life) == (None, -9)


def test_a_failure_before_anything_was_awaited(loop: Loop) -> None:
    error = RoadsteadError("no")

    def life() -> Life[object]:
        raise error
        yield

    assert outcome(loop, life) is error


def test_a_failure_later_and_what_it_cleans_up(loop: Loop) -> None:
    error = RoadsteadError("no")
    cleaned: list[int | None] = []

    def life() -> Life[object]:
        try:
            yield Until(child("true"))
            raise error
        finally:
            cleaned.append((yield Until(child("false"))))

    assert outcome(loop, life) is error
    assert cleaned == [1]


def test_what_is_no_users_error_comes_out(loop: Loop) -> None:
    def life() -> Life[object]:
        yield Until(child("true"))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        outcome(loop, life)


CODE = """
import os, sys
sys.path.insert(0, sys.argv[1])
from roadstead.host import linux, process
from roadstead.host.loop import Loop
from roadstead.step.life import Lives, Until, until_ours

linux.set_child_subreaper()
read, write = os.pipe()
os.set_inheritable(write, True)
# As crun does: whose child makes the first process, tells its number, and ends after that.
line = "(sh -c 'exit 7' & echo $! >&%d; exec sleep 0.3) &" % write
made = process.spawn(["/bin/sh", "-c", line], env=dict(os.environ), keep=(write,))
assert made.reap() == 0
init = process.adopt(int(os.read(read, 32)))

def life():
    yield from until_ours(init)
    return (yield Until(init, 20))

loop, said = Loop(), []
def end(status):
    said.append(status)
    loop.stop()
Lives(loop).start(life(), end, print)
loop.run()
print(*said)
"""


@pytest.mark.long
def test_a_first_process_that_is_not_ours_yet_is_waited_for() -> None:
    source = os.fspath(Path(roadstead.__file__).parents[1])
    argv = [sys.executable, "-c", CODE, source]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("7\n", "")
