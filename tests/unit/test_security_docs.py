"""docs/security.md: every line of its tables names tests, and those are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "security.md").read_text()
ROWS = [
    line
    for line in TEXT.splitlines()
    if line.startswith("|") and not line.startswith(("| threat ", "|---"))
]
NAMED = sorted(set(re.findall(r"`((?:unit|e2e)/[\w.]+(?:::\w+)?)`", TEXT)))


def names_in(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_the_tables_are_found() -> None:
    assert len(ROWS) > 25
    assert all(row.count(" | ") == 2 for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2:40])
def test_a_line_names_its_test(row: str) -> None:
    assert re.search(r"`(unit|e2e)/", row.rpartition(" | ")[2])


@pytest.mark.parametrize("name", NAMED)
def test_a_test_that_is_named_is_there(name: str) -> None:
    file, _, test = name.partition("::")
    there = names_in(ROOT / "tests" / file)
    assert there
    assert not test or test in there


@pytest.mark.parametrize("file", sorted((ROOT / "tests").glob("*/test_security*.py")), ids=str)
def test_a_test_of_security_is_named(file: Path) -> None:
    """The table is whole: who adds a test adds its line."""
    if file == Path(__file__):
        return
    room = f"{file.parent.name}/{file.name}"
    assert {f"{room}::{test}" for test in names_in(file)} <= {*NAMED, *NOT_THREATS}


NOT_THREATS = {"unit/test_security_messages.py::test_what_commands_send_is_not"}
