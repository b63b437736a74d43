"""scancel: what it asks of the controller, what it says, how it ends.

Sentences and exit codes were seen in Slurm 22.05.8: a plain cancel of what is not there is no
failure and not mentioned, one with a signal, a step or a filter is.
"""

from __future__ import annotations

import io
import os
from typing import Any

import pytest

from roadstead.cli import scancel
from tests.support import recorded

UNKNOWN = "Invalid job id specified"
ENDED = "Job/step already completing or completed"


def _what(job: str) -> str:
    return "job step id" if "." in job else "job id"


def _why(job: str) -> str:
    return ENDED if job == "1" else UNKNOWN


class Controller:
    """Answers queries, remembers what it is told to cancel and fails for unknown jobs."""

    def __init__(self) -> None:
        self.cancels: list[dict[str, Any]] = []

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["op"] == "query":
            return recorded.ask(request)
        assert request.pop("op") == "cancel"
        self.cancels.append(request)
        known = {"4", "5", "6", "7", "4.0", "4.batch"}
        errors = [
            {"job": job, "sentence": f"Kill job error on {_what(job)} {job}: {_why(job)}"}
            for job in request["jobs"]
            if job not in known
        ]
        return {"cancelled": [job for job in request["jobs"] if job in known], "errors": errors}

    @property
    def jobs(self) -> list[str]:
        return [job for request in self.cancels for job in request["jobs"]]


@pytest.fixture
def controller() -> Controller:
    return Controller()


def run(controller: Controller, argv: str, **environ: str) -> int:
    return scancel.main(argv.split(), controller.ask, environ=environ)


def request(*jobs: str, **changes: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(("signal", "user", "name", "state", "partition"))
    return {"jobs": list(jobs), "batch": False, "full": False, **nothing, **changes}


@pytest.mark.parametrize(
    ("argv", "sent"),
    [
        ("4", request("4")),
        ("4 5,6", request("4", "5", "6")),
        ("4.0", request("4.0")),
        ("4.batch", request("4.batch")),
        ("4 --signal SIGTERM", request("4", signal=15)),
        ("-s USR2 4", request("4", signal=12)),
        ("--signal=9 4", request("4", signal=9)),
        ("-b -s cont 4", request("4", signal=18, batch=True)),
        ("--full --signal=USR1 4", request("4", signal=10, full=True)),
        ("-n train", request("4")),
        ("-t PENDING", request("6", "7")),
        ("-t r -p debug", request("4", "5")),
        ("-u 1000 -t pd 6 4", request("6")),
        ("-u 1000", request("4", "5", "6", "7")),
        ("-n train 4.0", request("4.0")),
    ],
)
def test_what_is_sent(argv: str, sent: dict[str, Any], controller: Controller, capsys: Any) -> None:
    assert run(controller, argv) == 0
    assert controller.cancels == [sent]
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.parametrize(
    ("argv", "code", "err"),
    [
        ("999", 0, ""),
        ("999 1", 0, ""),
        ("-f 999", 0, ""),
        ("4_1", 0, ""),
        (
            "-v 999",
            0,
            "scancel: Terminating job 999\n"
            f"scancel: error: Kill job error on job id 999: {UNKNOWN}\n",
        ),
        (
            "-v 1",
            0,
            f"scancel: Terminating job 1\nscancel: error: Kill job error on job id 1: {ENDED}\n",
        ),
        ("-Q 999", 0, ""),
        ("999.0", 1, f"scancel: error: Kill job error on job step id 999.0: {UNKNOWN}\n"),
        ("-Q 999.0", 1, ""),
        ("-s TERM 999", 1, f"scancel: error: Kill job error on job id 999: {UNKNOWN}\n"),
        ("-Q -s TERM 999", 1, ""),
        ("-b 999", 1, f"scancel: error: Kill job error on job id 999: {UNKNOWN}\n"),
        ("-t RUNNING 999", 1, f"scancel: error: Kill job error on job id 999: {UNKNOWN}\n"),
        ("-v -s USR1 4", 0, "scancel: Signal 10 to job 4\n"),
        ("-v 4 5.7", 1, None),
        ("-n nosuch", 0, ""),
        (
            "-v -t pending -u 1000 -n held -p nopart",
            0,
            "scancel: error: No active jobs match ALL job filters, including: job_name=held"
            " partition=nopart state=pending user_name=1000 \n",
        ),
        ("", 1, "scancel: error: No job identification provided; give job ids, or --me for all\n"),
        ("abc", 1, "scancel: error: Invalid job id abc\n"),
        ("4.abc", 1, "scancel: error: Invalid job id 4.abc\n"),
        ("4.", 1, "scancel: error: Invalid job id 4.\n"),
        ("0", 1, "scancel: error: Invalid job id 0\n"),
        ("-- -5", 1, "scancel: error: Invalid job id -5\n"),
        (
            "-s BOGUS 4",
            1,
            "scancel: error: Unknown job signal: BOGUS;"
            " kill -l lists the names; 1 to 64 are the numbers\n",
        ),
        (
            "-t bogus",
            1,
            "scancel: error: Invalid job state specified: bogus;"
            " Valid job states are PENDING, RUNNING, and SUSPENDED\n",
        ),
        ("-u nosuchuser", 1, "scancel: error: Invalid user name: nosuchuser\n"),
        (
            "--bogus",
            1,
            "scancel: unrecognized option '--bogus'\nTry \"scancel --help\" for more information\n",
        ),
    ],
)
def test_what_is_said(
    argv: str, code: int, err: str | None, controller: Controller, capsys: Any
) -> None:
    assert run(controller, argv) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert err is None or captured.err == err


def test_one_failure_does_not_keep_the_others(controller: Controller) -> None:
    assert run(controller, "-s TERM 999 4") == 1
    assert controller.jobs == ["999", "4"]


def test_nothing_is_sent_where_nothing_matches(controller: Controller) -> None:
    run(controller, "-n nosuch")
    run(controller, "abc 4")
    assert controller.cancels == []


def test_me_is_the_user_who_asks(controller: Controller) -> None:
    run(controller, "--me")
    assert controller.jobs == (["4", "5", "6", "7"] if os.getuid() == 1000 else [])


def test_variables_stand_for_options(controller: Controller) -> None:
    run(controller, "", SCANCEL_NAME="train")
    assert controller.jobs == ["4"]


def test_it_asks_before_each(
    controller: Controller, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("maybe\nyes\nn\n"))
    assert run(controller, "-i 4 5 6.0 998") == 1
    assert controller.jobs == ["4"]
    captured = capsys.readouterr()
    assert captured.out == (
        "Cancel job_id=4 name=train partition=debug [y/n]? " * 2
        + "Cancel job_id=5 name=srunjob partition=debug [y/n]? "
        + "Cancel step_id=6.0 name=big partition=debug [y/n]? "
    )
    assert captured.err == f"scancel: error: Kill job error on job id 998: {UNKNOWN}\n"
