"""docs/slurm-compatibility.md: committed as it would be made, and complete."""

from __future__ import annotations

import pytest

from roadstead.cli import compatibility, option, options, scontrol, sinfo, squeue_columns
from roadstead.cli.control import VERBS
from tests.support.components import ROOT

PAGE = ROOT / "docs" / "slurm-compatibility.md"


def test_the_committed_page_is_the_one_that_would_be_made() -> None:
    assert PAGE.read_text() == compatibility.page(), "run script/man"


@pytest.mark.parametrize("command", option.COMMANDS)
def test_every_option_is_there(command: str) -> None:
    title = "srun, sbatch, salloc" if command in ("srun", "sbatch", "salloc") else command
    section = PAGE.read_text().partition(f"## {title}\n")[2].partition("\n## ")[0]
    for row in options.rows(command):
        if row.help or row.treatment != option.HONOURED:
            assert f"--{row.name}" in section


def test_every_keyword_and_column_is_there() -> None:
    text = PAGE.read_text()
    keywords = [*VERBS, *scontrol.REFUSED, *(name for name, _, _ in scontrol.KEYWORDS)]
    columns = (*squeue_columns.JOBS, *squeue_columns.STEPS, *sinfo.COLUMNS)
    for name in [*keywords, *(name for column in columns for name in column.names)]:
        assert f"`{name}`" in text


def test_a_value_that_nothing_has_is_said_to_be_so() -> None:
    assert "| `%v` | `reservation` | RESERVATION | always `(null)` |" in PAGE.read_text()
