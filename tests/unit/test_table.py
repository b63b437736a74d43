"""The grammar of -o and -O, on two columns whose values are known.

Cases marked so were seen in Slurm 22.05.8's squeue; the properties hold for all strings.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roadstead.cli.table import Column, Layout, by_letter, by_name, fixed, key
from roadstead.cli.words import Clock

CLOCK = Clock(0)
COLUMNS = (
    Column("i", "jobid", "JOBID", key("id")),
    Column("j", "name jobname", "NAME", fixed("train")),
    Column("l", "timelimit", "TIME_LIMIT", key("limit"), duration=True),
)
VIEW: dict[str, Any] = {"id": 4, "limit": "1-02:03:00"}


def both(layout: Layout) -> str:
    return f"{layout.header()}${layout.row(VIEW, CLOCK)}$"


@pytest.mark.parametrize(
    ("text", "printed", "unknown"),
    [
        ("%.6i %.5j %j", " JOBID  NAME NAME$     4 train train$", []),
        ("x%%i%%", "xJOBID$x4$", []),  # seen: %% before a letter is %
        ("100%% %i", "100% JOBID$100% 4$", [" "]),  # seen
        ("%", "$$", []),  # seen
        ("%5", "%5$%5$", [""]),  # seen
        ("%.i|%5i|%.5i|%05i|", "JOBID|JOBID|JOBID|JOBID|$4|4    |    4|4    |$", []),  # seen
        ("%-5i|%i", "%-5i|JOBID$%-5i|4$", ["-"]),  # seen
        ("%1j|%.1j|%.2j", "N|N|NA$t|t|tr$", []),  # seen
        ("%0i|%.0i", "JOBID|JOBID$4|4$", []),  # seen
        ("%!", "%!$%!$", ["!"]),  # seen
        ("", "$$", []),  # seen
        ("abc", "abc$abc$", []),  # seen
        ("%i%i", "JOBIDJOBID$44$", []),  # seen
        (r"a\tb\n%i", r"a\tb\nJOBID$a\tb\n4$", []),  # seen
        ("%i %", "JOBID $4 $", []),  # seen
        ("'%i %j'", "'JOBID NAME'$'4 train'$", []),
        ("%i^^^%j", "JOBID^^^NAME$4^^^train$", []),
        ('"%i","%j"', '"JOBID","NAME"$"4","train"$', []),
        ("%.9l|%9l|", "TIME_LIMI|TIME_LIMI|$1-02:03:00|1-02:03:0|$", []),  # seen
        ("%.12l", "  TIME_LIMIT$  1-02:03:00$", []),
        ("%99999999999999999999i", None, []),
    ],
)  # fmt: skip
def test_by_letter(text: str, printed: str | None, unknown: list[str]) -> None:
    layout, strange = by_letter(text, COLUMNS)
    assert strange == unknown
    if printed is None:
        assert len(layout.header()) == 65536
    else:
        assert both(layout) == printed


@pytest.mark.parametrize(
    ("text", "printed", "unknown"),
    [
        ("jobid,name", f"{'JOBID':20}{'NAME':20}${4:<20}{'train':20}$", []),  # seen
        ("JobID:5,Name:.5", "JOBID NAME$4    train$", []),  # seen
        ("jobid:.N,name:1", "JOBIDNN$4Nt$", []),  # seen
        ("jobid:,name:2", "JOBIDNA$4tr$", []),  # seen
        ("jobid:4:|,name:3", "JOBI:|NAM$4   :|tra$", []),  # seen
        ("jobid:4suffix,name:3", "JOBIsuffixNAM$4   suffixtra$", []),  # seen
        ("bogus", "$$", ["bogus"]),  # seen
        ("", "$$", []),  # seen
        ("jobid:3,,name:3,", "JOBNAM$4  tra$", []),  # seen
        ("jobid:2, name", "JO$4 $", [" name"]),  # seen
        ("jobid:0", "JOBID$4$", []),  # seen
        ("jobname:4", "NAME$trai$", []),
    ],
)
def test_by_name(text: str, printed: str, unknown: list[str]) -> None:
    layout, strange = by_name(text, COLUMNS)
    assert (both(layout), strange) == (printed, unknown)


def test_a_table() -> None:
    layout, _ = by_letter("%i|%j", COLUMNS)
    assert layout.header() == "JOBID|NAME"
    assert layout.lines([VIEW, VIEW], CLOCK) == ["4|train", "4|train"]
    assert layout.lines([], CLOCK) == []


literals = st.text(st.characters(exclude_characters="%", exclude_categories=("Cs",)), max_size=5)
# What follows a letter may not look like more of the column: there is nothing more of one.
cells = st.tuples(st.booleans(), st.integers(0, 30), st.sampled_from("ij"), literals)


@given(literals, st.lists(cells, max_size=5), st.integers(1, 3))
@settings(max_examples=60)
def test_a_format_is_its_parts(prefix: str, parts: list[Any], signs: int) -> None:
    """Cells are placed as Python's own format() places them, however many signs introduce them."""
    text, header, row = prefix, prefix, prefix
    for right, width, letter, suffix in parts:
        text += f"{'%' * signs}{'.' if right else ''}{width or ''}{letter}{suffix}"
        heading, value = {"i": ("JOBID", "4"), "j": ("NAME", "train")}[letter]
        spec = f"{'>' if right else '<'}{width}.{width}" if width else ""
        header += f"{heading:{spec}}{suffix}"
        row += f"{value:{spec}}{suffix}"
    layout, unknown = by_letter(text, COLUMNS)
    assert (layout.header(), layout.row(VIEW, CLOCK), unknown) == (header, row, [])


@given(st.text("%.ij0159-x ,:", max_size=20))
@settings(max_examples=60)
def test_any_string_is_a_format(text: str) -> None:
    layout, unknown = by_letter(text, COLUMNS)
    assert len(layout.fields) >= len(unknown)
    if "%" not in text:
        assert layout.row(VIEW, CLOCK) == text
    names, strange = by_name(text, COLUMNS)
    assert names.fields == [] or not strange or len(names.fields) + len(strange) > 1
    layout.header(), names.row(VIEW, CLOCK)
