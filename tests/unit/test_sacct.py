"""sacct, against what Slurm 22.05 printed of such jobs (tests/data/slurm-22.05/accounting.txt)."""

from __future__ import annotations

import time
from typing import Any

import pytest

from roadstead.cli import sacct
from tests.support import recorded_history
from tests.support.recorded_history import Recorded

COMMANDS = recorded_history.commands()


@pytest.fixture(autouse=True)
def _in_utc(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def run(argv: list[str], now: float, **environ: str) -> int:
    try:
        return sacct.main(argv, recorded_history.ask, environ=environ, now=now)
    except SystemExit as end:
        return int(end.code or 0)


def sentence(text: str) -> list[str]:
    """Errors as both say them: Slurm's are fatal now and then, ours have a hint behind them."""
    plain = text.replace("sacct: fatal: ", "sacct: error: ").splitlines()
    return [line.partition("; ")[0] for line in plain if line]


@pytest.mark.parametrize(
    "slurm", COMMANDS, ids=[f"{at} {' '.join(each.argv)}" for at, each in enumerate(COMMANDS)]
)
def test_it_prints_what_slurm_prints(slurm: Recorded, capsys: Any) -> None:
    code = run(slurm.argv, slurm.now, **slurm.environ)
    captured = capsys.readouterr()
    assert code == slurm.code
    if code:
        assert sentence(captured.out + captured.err) == sentence(slurm.output)
    else:
        assert captured.out + captured.err == slurm.output


def test_that_is_a_good_part_of_what_was_recorded() -> None:
    assert len(COMMANDS) > 50
