"""roadstead runtime test: what is told, and what is advised."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import pytest

from roadstead.cli import runtime_test
from roadstead.step import record, trial, trial_case
from roadstead.step.trial_case import Done


def done(verdict: Any = "ok", **more: Any) -> Done:
    return Done(mode="run", operation="kill", verdict=verdict, found="found", seconds=0.25, **more)


def test_a_command_is_shown_as_it_can_be_typed() -> None:
    argv = ("/bin/sh", "-c", "crun kill 'a b'")
    shown = runtime_test.lines(done(argv=argv, status=0, output="one\ntwo"))
    assert shown == [
        """$ /bin/sh -c 'crun kill '"'"'a b'"'"''""",
        "  | one",
        "  | two",
        "  kill: status 0, 0.250 s: found",
    ]
    assert shlex.split(shown[0][2:]) == list(argv)


@pytest.mark.parametrize(
    ("verdict", "status", "lines"),
    [
        ("failure", 1, ["  FAILED kill: status 1, 0.250 s", "  cause: found", "  fix:   mend"]),
        ("failure", None, ["  FAILED kill: no end, 0.250 s", "  cause: found", "  fix:   mend"]),
        ("warning", 0, ["  WARNING kill: status 0, 0.250 s", "  cause: found", "  fix:   mend"]),
        ("ok", None, ["  kill: running, 0.250 s: found"]),
    ],
)
def test_how_it_went(verdict: str, status: int | None, lines: list[str]) -> None:
    told = runtime_test.lines(done(verdict, argv=("x",), status=status, hint="mend"))
    assert told == ["$ x", *lines]


def test_what_is_no_command() -> None:
    assert runtime_test.lines(done("note")) == ["found"]
    assert runtime_test.lines(done("failure")) == ["FAILED kill", "  cause: found"]


def test_a_step_crosses_the_pipe() -> None:
    import dataclasses
    import json

    step = done(argv=("a", "b"), status=None)
    assert trial.from_json(json.loads(json.dumps(dataclasses.asdict(step)))) == step


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        ("cgroups in hybrid mode not supported", "use runc"),
        ("/bin/sh: 1: youki: not found", "PATH"),
        ("mkdir /run/runc: Permission denied", "--root"),
        ("clone: Operation not permitted", "roadstead doctor"),
        ("No space left on device", "XDG_RUNTIME_DIR"),
        ("all is well", ""),
    ],
)
def test_remedies(said: str, fix: str) -> None:
    assert fix in trial.remedy(said)
    assert bool(fix) == bool(trial.remedy(said))


@pytest.mark.parametrize(
    ("command", "uid", "advised"),
    [
        ("runc kill -a x", 7, True),
        ("crun kill --all x", 7, True),
        ("crun kill x KILL", 7, False),
        ("runc kill -a x", 0, False),
    ],
)
def test_kill_all_needs_a_control_group(command: str, uid: int, advised: bool) -> None:
    assert bool(trial_case._without_all(("/bin/sh", "-c", command), uid)) == advised


@pytest.mark.parametrize(
    ("text", "pid", "state"),
    [
        ('{"pid": 5, "status": "running"}', 5, "running"),
        ("nonsense", 0, "not JSON with a status"),
        ("[]", 0, "not JSON with a status"),
        ('{"pid": null}', 0, "not JSON with a status"),
    ],
)
def test_what_a_runtime_says_of_the_state(text: str, pid: int, state: str) -> None:
    assert (trial_case._pid(text), trial_case._state(text)) == (pid, state)


def test_a_place_goes_and_takes_the_dead_with_it(tmp_path: Path) -> None:
    environ = {"HOME": os.fspath(tmp_path), "TMPDIR": os.fspath(tmp_path)}
    top = tmp_path / f"roadstead-{os.getuid()}"
    dead = top / "trials" / f"{2**22 + 1}.5"
    dead.mkdir(parents=True)
    top.chmod(0o700)
    (top / "trials").chmod(0o700)
    alive = top / "trials" / f"{os.getppid()}.{record.start_time(os.getppid())}"
    alive.mkdir()
    with trial.place(environ) as at:
        assert sorted((top / "trials").iterdir()) == sorted([alive, Path(at)])
    assert list((top / "trials").iterdir()) == [alive]
    alive.rmdir()
    with trial.place(environ):
        pass
    assert list(top.iterdir()) == []


def test_what_it_made_goes_with_it(tmp_path: Path) -> None:
    environ = {"HOME": os.fspath(tmp_path), "TMPDIR": os.fspath(tmp_path)}
    with trial.place(environ) as at:
        assert os.stat(at).st_mode & 0o777 == 0o700
    assert list(tmp_path.iterdir()) == []
