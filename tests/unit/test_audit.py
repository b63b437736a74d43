"""What is left and what lives: the comparison by table, the looks and removals for real."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from roadstead.host import process
from roadstead.step import audit, record
from roadstead.step.audit import Seen, Thing

STEPS = "/run/r/steps"
DIR = f"{STEPS}/1.0"


def thing(kind: str, what: str = "x", step: str = DIR) -> Thing:
    return Thing(kind, what, step)


def seen(*things: Thing, supervised: bool = False, directory: bool = False) -> Seen:
    here = frozenset({DIR}) if directory or supervised else frozenset()
    return Seen(frozenset(things), here if supervised else frozenset(), here)


OF_STEPS = ("process", "container", "control group", "mount")


@pytest.mark.parametrize("kind", ["directory", "exit record", *OF_STEPS])
def test_what_no_step_needs_is_left(kind: str) -> None:
    both = seen(thing(kind))
    assert audit.compare(both, [], both) == [thing(kind)]


@pytest.mark.parametrize("kind", ["directory", "exit record", *OF_STEPS])
def test_what_a_supervisor_has_is_not(kind: str) -> None:
    lives = seen(thing(kind), supervised=True)
    assert audit.compare(lives, [], lives) == []
    # It came, or went, between the looks.
    assert audit.compare(seen(thing(kind)), [], lives) == []
    assert audit.compare(lives, [], seen(thing(kind))) == []


@pytest.mark.parametrize("kind", ["directory", "exit record", *OF_STEPS])
def test_what_the_controller_knows_is_not(kind: str) -> None:
    both = seen(thing(kind), directory=True)
    assert audit.compare(both, [DIR], both) == []


@pytest.mark.parametrize("kind", ["directory", "exit record", *OF_STEPS, "temporary file"])
def test_what_was_there_once_is_not(kind: str) -> None:
    assert audit.compare(seen(thing(kind)), [], seen()) == []
    assert audit.compare(seen(), [], seen(thing(kind))) == []


@pytest.mark.parametrize("kind", OF_STEPS)
def test_what_is_left_of_a_step_goes_with_its_directory(kind: str) -> None:
    both = seen(thing("directory", DIR), thing(kind), directory=True)
    assert audit.compare(both, [], both) == sorted([thing("directory", DIR), thing(kind)])
    another = f"{STEPS}/1.1"
    both = seen(thing("directory", DIR), thing(kind, step=another), directory=True)
    assert audit.compare(both, [another], both) == [thing("directory", DIR)]


def test_a_spawner_is_left_without_its_controller() -> None:
    spawner = Thing("engine process", "7", "99", "1")
    both = seen(spawner)
    assert audit.compare(both, [], both, controller=99) == []
    assert audit.compare(both, [], both, controller=98) == [spawner]
    assert audit.compare(both, [], both) == [spawner]


@pytest.fixture
def places(tmp_path: Path) -> tuple[str, str]:
    (tmp_path / "state").mkdir()
    (tmp_path / "run" / "steps").mkdir(parents=True)
    return os.fspath(tmp_path / "state"), os.fspath(tmp_path / "run")


def find(state: str, runtime: str, live: list[str]) -> dict[str, list[str]]:
    environ = {"XDG_RUNTIME_DIR": runtime}
    before, after = (audit.look(state, runtime, environ) for _ in range(2))
    found: dict[str, list[str]] = {}
    for each in audit.compare(before, live, after):
        found.setdefault(each.kind, []).append(each.what)
    return found


def test_it_is_found_and_removed(places: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    state, runtime = places
    monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    steps = f"{runtime}/steps"
    gone = process.spawn(["/bin/true"], env={})
    gone.reap()
    os.makedirs(f"{steps}/1.0/task-0")
    os.makedirs(f"{steps}/2.0")
    record.write_claim(
        f"{steps}/2.0", {"pid": os.getpid(), "start_time": record.start_time(os.getpid())}
    )
    Path(f"{steps}/3.0.exit").write_text("{}")
    Path(f"{steps}/4.0.exit").write_text("{}")
    Path(f"{steps}/3.0.exit.{gone.pid}.new").touch()
    Path(f"{state}/note.new").touch()  # not one of ours
    for root in ("containers", "crun"):
        os.makedirs(f"{runtime}/{root}/node.me.5.0.0")
    Path(f"{runtime}/crun/node.me.5.0.0/status").write_text(f'{{"bundle": "{steps}/5.0/task-0"}}')
    os.makedirs(f"{runtime}/crun/theirs")
    Path(f"{runtime}/crun/theirs/status").write_text('{"bundle": "/elsewhere/steps/5.0"}')
    marked = process.spawn(["/bin/sleep", "60"], env={record.MARK: f"{steps}/6.0"})
    other = process.spawn(["/bin/sleep", "60"], env={record.MARK: "/elsewhere/steps/6.0"})
    expected = {
        "directory": [f"{steps}/1.0"],
        "exit record": [f"{steps}/3.0.exit"],
        "temporary file": [f"{steps}/3.0.exit.{gone.pid}.new"],
        "container": [f"{runtime}/{root}/node.me.5.0.0" for root in ("containers", "crun")],
        "process": [str(marked.pid)],
    }
    live = [f"{steps}/4.0"]
    try:
        assert find(state, runtime, live) == expected
        here = set(os.listdir(steps))
        # What a controller that has gone believes is of the past.
        assert audit.clean(state, runtime, here=here, live=live, controller=gone.pid) == []
        assert find(state, runtime, live) == expected
        lines = audit.clean(state, runtime, here=here, live=live, controller=os.getppid())
        assert len(lines) == 6
        assert all(line.endswith(": removed") for line in lines)
        assert marked.reap() == -process.KILL
        assert other.reap_if_ended() is None
        assert find(state, runtime, live) == {}
        assert sorted(os.listdir(steps)) == ["2.0", "4.0.exit"]
        assert os.listdir(f"{runtime}/crun") == ["theirs"]
    finally:
        for child in (marked, other):
            child.signal(process.KILL)
            child.reap()


def test_what_came_after_the_start_is_not_judged(places: tuple[str, str]) -> None:
    state, runtime = places
    os.makedirs(f"{runtime}/steps/1.0")
    assert audit.clean(state, runtime, here=set(), live=[], controller=os.getppid()) == []
    assert os.path.isdir(f"{runtime}/steps/1.0")


def test_what_cannot_be_removed_is_said(places: tuple[str, str]) -> None:
    left = Thing("exit record", f"{places[1]}/no/such.exit")
    assert audit.remove([left]) == [(left, "No such file or directory")]


def test_a_container_belongs_to_the_run_of_its_step_that_is_there(tmp_path: Path) -> None:
    """A requeued job's batch step has the same number, and another directory."""
    runtime = tmp_path / "run"
    for name in ("steps/7.4294967291.2", "steps/7.4294967291.10", "containers/n.u.7.4294967291.0"):
        (runtime / name).mkdir(parents=True)
    seen = audit.look(str(tmp_path), str(runtime), {"XDG_RUNTIME_DIR": str(tmp_path)})
    steps = {thing.step for thing in seen.things if thing.kind == "container"}
    assert f"{runtime}/steps/7.4294967291.10" in steps
    assert f"{runtime}/steps/7.4294967291" not in steps
