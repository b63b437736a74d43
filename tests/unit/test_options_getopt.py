"""Command lines against getopt(1): what it accepts, in what order, and the words of its errors."""

from __future__ import annotations

import functools
import shlex
import shutil
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from roadstead.cli import options
from roadstead.cli.getopt_long import NO_ARG
from roadstead.cli.option import COMMANDS, LAUNCH, Option
from roadstead.cli.options import parse
from roadstead.errors import UsageError

GETOPT = shutil.which("getopt") or ""
pytestmark = pytest.mark.skipif(not GETOPT, reason="needs getopt(1) of util-linux")

END = "\x1e"
COLONS = ("", ":", "::")


@functools.cache
def rows(command: str) -> list[Option]:
    return options.rows(command)


@functools.cache
def long_names(command: str) -> dict[str, Option]:
    """Every long name, in the order of the table."""
    return {name: row for row in rows(command) for name in (row.name, *row.aliases.split())}


def oracle_line(command: str, argv: list[str]) -> str:
    letters = "".join(row.short + COLONS[row.arg] for row in rows(command) if row.short)
    names = ",".join(name + COLONS[row.arg] for name, row in long_names(command).items())
    order = "+" if COMMANDS[command] & LAUNCH else ""
    words = [GETOPT, "-n", command, "-o", order + letters, "-l", names, "--", *argv]
    return f"{shlex.join(words)} 2>&1; printf '{END}%s{END}' $?"


def ask(lines: list[tuple[str, list[str]]]) -> list[tuple[str, int]]:
    """What getopt(1) says to each line, and its exit status; one shell asks for all of them."""
    script = "\n".join(oracle_line(command, argv) for command, argv in lines)
    said = subprocess.run(
        ["sh"], input=script, capture_output=True, text=True, check=True, env={"LC_ALL": "C"}
    ).stdout.split(END)
    return list(zip(said[0::2], map(int, said[1::2]), strict=False))


def read(command: str, output: str) -> tuple[list[tuple[str, str]], list[str]]:
    """getopt's normal form, in the shape that parse() returns."""
    by_letter = {row.short: row for row in rows(command) if row.short}
    words = iter(shlex.split(output))
    pairs = []
    for word in words:
        if word == "--":
            break
        row = long_names(command)[word[2:]] if word[1] == "-" else by_letter[word[1]]
        pairs.append((row.name, "" if row.arg == NO_ARG else next(words)))
    return pairs, list(words)


def spells_one_option_twice(command: str, word: str) -> bool:
    """getopt(1) cannot say that two names are one option, so there it calls them ambiguous."""
    if not word.startswith("--") or word == "--":
        return False
    names = long_names(command)
    stem = word[2:].partition("=")[0]
    found = [row for name, row in names.items() if name.startswith(stem)]
    return stem not in names and len({id(row) for row in found}) < len(found)


@functools.cache
def words(command: str) -> st.SearchStrategy[str]:
    def clear(word: str) -> bool:
        return not spells_one_option_twice(command, word)

    names = [f"--{name}" for name in (*long_names(command), "bogus")]
    stems = {name[:end] for name in names for end in range(3, len(name))}
    name, stem = st.sampled_from(names), st.sampled_from(sorted(filter(clear, stems)))
    letters = "".join(row.short for row in rows(command)) + "y=-:1"
    value = st.text("ab=- '\"\\1", max_size=4).filter(clear)
    return st.one_of(
        name,
        stem,
        st.builds("{}={}".format, name | stem, value),
        st.text(letters, min_size=1, max_size=4).map("-{}".format).filter(clear),
        value,
        st.sampled_from(["--", "-", "hostname"]),
    )


LINES = st.sampled_from(sorted(COMMANDS)).flatmap(
    lambda command: st.tuples(st.just(command), st.lists(words(command), max_size=6))
)


def outcome(command: str, argv: list[str]) -> tuple[object, str]:
    try:
        return parse(command, argv), ""
    except UsageError as error:
        return None, f"{command}: {error}"


@settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.lists(LINES, min_size=12, max_size=20))
@pytest.mark.long
def test_parse_agrees_with_getopt(lines: list[tuple[str, list[str]]]) -> None:
    for (command, argv), (output, status) in zip(lines, ask(lines), strict=True):
        parsed, error = outcome(command, argv)
        if error:
            assert (error, 1) == (output.split("\n")[0], status), argv
        else:
            assert status == 0, (argv, output)
            assert parsed == read(command, output), argv


def test_two_spellings_of_an_option_are_not_ambiguous() -> None:
    assert parse("squeue", ["--use=alice"]) == ([("users", "alice")], [])
    assert parse("srun", ["--tasks=2"]) == ([("ntasks-per-node", "2")], [])
