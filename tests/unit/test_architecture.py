"""ARCHITECTURE.md: its diagrams, its layer rule and the files it names are those of the code."""

from __future__ import annotations

import re

from roadstead.core import lifecycle
from tests.support.components import ROOT
from tests.test_layers import BELOW, SOURCE

TEXT = (ROOT / "ARCHITECTURE.md").read_text()
ROOMS = sorted(path.stem for path in (SOURCE / "roadstead").iterdir() if path.stem in BELOW)
ROW = re.compile(r"^\| `(\w+)(?:/|\.py)` \|[^|]*\| ([^|]*) \|$", re.MULTILINE)


def may_import(told: str) -> set[str]:
    """The rooms that a cell of the table names; "and what is below" adds theirs."""
    allowed, _, _ = told.partition(";")
    named = set(re.findall(r"`(\w+)`", allowed))
    below = set().union(*(BELOW[room] for room in named)) if "what is below" in told else set()
    return (named | below) & set(ROOMS)


def test_the_diagrams_are_those_of_the_tables() -> None:
    drawn = re.findall(r"^```mermaid\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert drawn == [lifecycle.diagram(lifecycle.JOB), lifecycle.diagram(lifecycle.STEP)]


def test_the_layer_table_is_the_rule_that_is_held() -> None:
    told = {room: may_import(allowed) for room, allowed in ROW.findall(TEXT)}
    held = {room: BELOW[room] & set(ROOMS) for room in ROOMS if not room.startswith("__")}
    assert told == held


def test_the_files_it_names_are_there() -> None:
    named = set(re.findall(r"`(\w+/\w+\.py)`", TEXT))
    places = (SOURCE / "roadstead", ROOT)
    assert named
    assert {name for name in named if not any((at / name).is_file() for at in places)} == set()
