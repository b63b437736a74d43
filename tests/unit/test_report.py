"""The shapes of errors, and output that nobody reads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from roadstead.cli import report
from roadstead.errors import (
    CommandNotFound,
    EngineError,
    RequestError,
    RoadsteadError,
    RuntimeFailure,
    UsageError,
)

SOURCE = Path(__file__).resolve().parents[2] / "src"
ADVICE = 'Try "squeue --help" for more information'


@pytest.mark.parametrize(
    ("error", "printed"),
    [
        (RequestError("no such thing"), "squeue: error: no such thing\n"),
        (EngineError("gone", hint="see the log"), "squeue: error: gone; see the log\n"),
        (
            UsageError("unrecognized option '--x'", hint=ADVICE),
            f"squeue: unrecognized option '--x'\n{ADVICE}\n",
        ),
        (
            UsageError("option requires an argument -- 'o'", hint=ADVICE),
            f"squeue: option requires an argument -- 'o'\n{ADVICE}\n",
        ),
        (
            UsageError("Unrecognized option: x", hint=ADVICE),
            f"squeue: error: Unrecognized option: x\n{ADVICE}\n",
        ),
    ],
)
def test_the_shape_of_an_error(error: RoadsteadError, printed: str, capsys: Any) -> None:
    assert report.fail("squeue", error) == 1
    assert capsys.readouterr().err == printed


@pytest.mark.parametrize(
    ("command", "error", "code"),
    [
        ("srun", UsageError("x"), 255),
        ("sbatch", UsageError("x"), 255),
        ("salloc", UsageError("x"), 255),
        ("squeue", UsageError("x"), 1),
        ("roadstead", UsageError("x"), 1),
        ("srun", RequestError("x"), 1),
        ("srun", CommandNotFound("x"), 127),
        ("srun", RuntimeFailure("x"), 125),
    ],
)
def test_exit_codes(command: str, error: RoadsteadError, code: int, capsys: Any) -> None:
    assert report.fail(command, error) == code
    assert capsys.readouterr().err == f"{command}: error: x\n"


def test_a_command_is_run_and_its_errors_are_printed(capsys: Any) -> None:
    def fails() -> int:
        raise RequestError("x")

    def interrupted() -> int:
        raise KeyboardInterrupt

    assert report.run("squeue", lambda: 7) == 7
    assert report.run("squeue", fails) == 1
    assert report.run("squeue", interrupted) == 130
    assert capsys.readouterr().err == "squeue: error: x\n"


def test_options_without_effect_are_named_with_verbose(capsys: Any) -> None:
    report.explain("squeue", {"array-unique": "1"})
    report.explain("squeue", {"array-unique": "1", "verbose": "1"})
    assert capsys.readouterr().err == (
        "squeue: --array-unique has no effect:"
        " elements of an array that wait are one line already\n"
    )


def test_information_is_printed(capsys: Any) -> None:
    assert report.informational("squeue", {"version": "1"})
    assert capsys.readouterr().out == "slurm 22.05.8\n"
    assert report.informational("squeue", {"help": "1"})
    assert capsys.readouterr().out.startswith("Usage: squeue ")
    assert not report.informational("squeue", {"noheader": "1"})


def write(*, stdout: int) -> tuple[int, str]:
    """How a program ends that writes an answer to ``stdout``, and what it says."""
    code = (
        f"import sys; sys.path.insert(0, {str(SOURCE)!r})\n"
        "from roadstead.cli import report\n"
        "sys.exit(report.run('x', lambda: report.write_out('answer') or 0))\n"
    )
    done = subprocess.run(
        [sys.executable, "-IS", "-c", code],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


def test_a_reader_that_went_away_is_no_error() -> None:
    read, written = os.pipe()
    os.close(read)
    assert write(stdout=written) == (141, "")
    os.close(written)


def test_output_that_cannot_be_written_is_one() -> None:
    with open("/dev/full", "wb") as full:
        assert write(stdout=full.fileno()) == (
            1,
            "x: error: write error: No space left on device\n",
        )
