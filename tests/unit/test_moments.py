"""--begin and --deadline: what a real Slurm 22.05 made of the same words at the same time."""

from __future__ import annotations

import time

import pytest

from roadstead.cli import moments
from roadstead.errors import UsageError

NOW = "2026-11-25T14:57:20"
SEEN = {
    "now": "2026-11-25T14:57:20",
    "now+1hour": "2026-11-25T15:57:20",
    "now+60": "2026-11-25T14:58:20",
    "now+60minutes": "2026-11-25T15:57:20",
    "now+3days": "2026-11-28T14:57:20",
    "now+2weeks": "2026-12-09T14:57:20",
    "now-60": "2026-11-25T14:56:20",
    "teatime": "2026-11-25T16:00:00",
    "fika": "2026-11-25T15:00:00",
    "noon": "2026-11-26T12:00:00",
    "midnight": "2026-11-26T00:00:00",
    "today": "2026-11-25T00:00:00",
    "tomorrow": "2026-11-26T00:00:00",
    "16:00": "2026-11-25T16:00:00",
    "16:00:30": "2026-11-25T16:00:30",
    "4:30PM": "2026-11-25T16:30:00",
    "4:30AM": "2026-11-26T04:30:00",
    "2030-01-20T12:34:00": "2030-01-20T12:34:00",
    "2030-01-20T12:34": "2030-01-20T12:34:00",
    "2030-01-20": "2030-01-20T00:00:00",
    "010130": "2030-01-01T00:00:00",
    "01/20/30-16:00": "2030-01-20T16:00:00",
    "01/20/30": "2030-01-20T00:00:00",
    "01/20": "2027-01-20T00:00:00",
    "12.24": "2026-12-24T00:00:00",
    "2020-01-01": "2020-01-01T00:00:00",
    "uts1900000000": "2030-03-17T17:46:40",
}
WRONG = (
    "4pm", "elevenses", "yesterday", "20.01.30", "1900000000", "16:00+2hours", "xyzzy", "25:00",
    "now+", "now+1parsec", "now*3", "13:00PM", "2030-02-30", "12/", "T12:00",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def epoch(text: str) -> int:
    return int(time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S")))


@pytest.mark.parametrize("text", SEEN)
def test_what_slurm_understands(text: str) -> None:
    assert moments.parse(text, epoch(NOW)) == epoch(SEEN[text])


@pytest.mark.parametrize("text", WRONG)
def test_what_it_does_not(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="Invalid --begin specification"):
        moments.convert({"begin": text}, "begin")
    assert capsys.readouterr().err.startswith("Invalid time specification (pos=")


def test_only_what_is_asked_for_is_converted() -> None:
    asked = {"begin": "uts5", "time": "5"}
    moments.convert(asked, "begin", "deadline")
    assert asked == {"begin": "uts5", "time": "5"}


@pytest.mark.parametrize(("text", "at"), [("4pm", 1), ("16:00+2hours", 5), ("xyzzy", 0)])
def test_where_it_is_wrong(text: str, at: int) -> None:
    with pytest.raises(moments.NotAMoment, match=rf"\(pos={at}\)"):
        moments.parse(text, epoch(NOW))
