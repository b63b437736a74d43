"""Going through checks: one that crashes, hangs or is killed takes nothing with it."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from roadstead.cli import doctor
from roadstead.doctor import checks, facts, judge, probes, probes_places, probes_runtime
from roadstead.doctor.checks import CHECKS, Check
from roadstead.errors import RoadsteadError
from roadstead.host import process
from tests.support.components import ROOT, program


def fine(context: probes.Context) -> str:
    return context.user


def crashing(context: probes.Context) -> str:
    os.write(1, b"about to crash\n")
    raise ZeroDivisionError("on purpose")


def hanging(context: probes.Context) -> str:
    time.sleep(60)
    return ""


def dying(context: probes.Context) -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return ""


def refusing(context: probes.Context) -> str:
    raise RoadsteadError("no home", hint="set HOME")


def littering(context: probes.Context) -> str:
    """Leaves a process and a directory, and dies."""
    if os.fork() == 0:
        time.sleep(60)
    os.mkdir(context.scratch())
    return dying(context)


def said(text: Any) -> facts.Finding:
    return judge.ok(str(text))


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"HOME": os.fspath(tmp_path), "XDG_RUNTIME_DIR": os.fspath(tmp_path / "none")}


def examined(environ: dict[str, str], *probes_: Any, seconds: float = 10) -> list[facts.Finding]:
    rows = tuple(Check(probe.__name__, probe, said, seconds) for probe in probes_)
    return list(checks.examine(environ, rows))


def test_one_that_crashes_is_shown_by_name_and_the_next_goes_on(environ: dict[str, str]) -> None:
    crashed, after = examined(environ, crashing, fine)
    assert (crashed.name, crashed.status) == ("crashing", "failure")
    assert crashed.cause == "ZeroDivisionError: on purpose"
    assert "bug" in crashed.fix
    assert "about to crash" in crashed.details
    assert after.status == "ok"


@pytest.mark.long
def test_one_that_hangs_is_ended(environ: dict[str, str]) -> None:
    began = time.monotonic()
    hung, after = examined(environ, hanging, fine, seconds=0.2)
    assert time.monotonic() - began < 5
    assert (hung.status, after.status) == ("failure", "ok")
    assert "hangs" in hung.cause


def test_one_that_is_killed(environ: dict[str, str]) -> None:
    killed, after = examined(environ, dying, fine)
    assert (killed.cause, after.status) == ("its process was killed", "ok")


def test_a_users_mistake_is_not_our_bug(environ: dict[str, str]) -> None:
    (refused,) = examined(environ, refusing)
    assert (refused.status, refused.cause, refused.fix) == ("failure", "no home", "set HOME")


def test_nothing_is_left(environ: dict[str, str], tmp_path: Path) -> None:
    dead = tmp_path / f"{probes.SCRATCH}{2**22 + 1}.5"  # of a process that cannot be
    dead.mkdir()
    others = process.children(os.getpid())
    examined(environ, littering)
    assert process.children(os.getpid()) == others
    assert list(tmp_path.iterdir()) == []


def test_the_names_are_those_of_the_man_page() -> None:
    page = (ROOT / "docs/man/roadstead.1.in").read_text().replace("\\-", "-")
    names = [check.name for check in CHECKS]
    assert re.search(r"^python, .*", page, re.MULTILINE)[0] == ", ".join(names) + "."  # type: ignore[index]
    assert len(set(names)) == len(names)


def test_the_object_for_programs(environ: dict[str, str]) -> None:
    told = checks.as_json(examined(environ, fine, refusing), environ)
    assert (told["version"], told["summary"]["failure"]) == (1, 1)
    assert set(told["checks"][0]) == {"name", "status", "found", "cause", "fix", "details"}


def test_lines_for_people() -> None:
    finding = facts.Finding(
        name="x", status="warning", found="f", cause="c", fix="do", details=("d",)
    )
    assert doctor.lines(finding, 4, verbose=False) == [
        "WARNING  x     f",
        "               cause: c",
        "               fix:   do",
    ]
    assert doctor.lines(finding, 4, verbose=True)[-1].strip() == "d"
    assert doctor.summary([finding]) == ("1 checks: 0 ok, 1 warning, 0 failures, 0 not applicable")


# -- what the probes read --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "programs"),
    [
        ("crun run %n", ["crun"]),
        ("sudo singularity oci run", ["sudo", "singularity"]),
        ("sudo -n crun run", ["sudo"]),
        ("X=1 crun run", []),
        ("$HOME/bin/crun run", []),
        ("'/a b/crun' run", []),
        ("cd /; crun run", []),
        ("", []),
    ],
)
def test_programs_of_a_command_line(pattern: str, programs: list[str]) -> None:
    assert probes_runtime._programs(pattern) == programs


def test_a_static_program(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n" * 20)
    assert not probes_runtime.is_static(os.fspath(script))
    assert not probes_runtime.is_static("/bin/sh")
    busybox = program("busybox")
    if busybox is None:
        pytest.skip("component busybox is not available: not on PATH")
    assert probes_runtime.is_static(busybox)


def test_compiled_files(tmp_path: Path) -> None:
    import py_compile

    source = tmp_path / "m.py"
    source.write_text("a = 1\n")
    assert probes._compiled(os.fspath(source)) == "missing"
    py_compile.compile(os.fspath(source))
    assert probes._compiled(os.fspath(source)) == "fresh"
    source.write_text("a = 22\n")
    assert probes._compiled(os.fspath(source)) == "stale"


def test_the_kind_of_a_file_system() -> None:
    assert probes.kind_of("/proc/self") == "proc"
    assert probes.kind_of("/") != "unknown"


def test_a_setting_of_logind(tmp_path: Path) -> None:
    path = tmp_path / "logind.conf"
    path.write_text("[Login]\n#KillUserProcesses=no\nKillUserProcesses = yes\n")
    assert probes_places._setting(os.fspath(path), "KillUserProcesses") == "yes"
    assert probes_places._setting(os.fspath(tmp_path / "none"), "KillUserProcesses") == ""
