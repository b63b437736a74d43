"""Batch scripts: what is one, and how the words of #SBATCH lines are read."""

from __future__ import annotations

import pytest

from roadstead.cli.script import check, directives, split, wrap
from roadstead.errors import RequestError


def found(text: str) -> list[tuple[int, list[str]]]:
    return [(directive.line_number, directive.argv) for directive in directives(text)]


def test_reads_directives_up_to_the_first_command() -> None:
    script = """#!/bin/sh

#SBATCH -n 2 --job-name=a  # two tasks
   # a remark, and a blank line

#SBATCH
\t
#SBATCH --time=5
  echo hello
#SBATCH --time=6
"""
    assert found(script) == [(3, ["-n", "2", "--job-name=a"]), (8, ["--time=5"])]


@pytest.mark.parametrize(
    "line",
    ["# SBATCH -n2", " #SBATCH -n2", "##SBATCH -n2", "#sbatch -n2", "#PBS -n2", "#BSUB -n2"],
)
def test_what_only_looks_like_a_directive_is_a_comment(line: str) -> None:
    assert found(f"#!/bin/sh\n{line}\n#SBATCH -N1") == [(3, ["-N1"])]


# Each was given to sbatch 22.05.8, which said what it had read.
@pytest.mark.parametrize(
    ("line", "words"),
    [
        (" -n bad#x", ["-n", "bad"]),
        (' -n "bad#x"', ["-n", "bad#x"]),
        (r" -n bad\#x", ["-n", "bad#x"]),
        ("-nbad", ["-nbad"]),
        ("\t-n\tbad\ttab", ["-n", "bad", "tab"]),
        (r""" -n "a b"c""", ["-n", "a bc"]),
        (r" -n a\ b", ["-n", "a", "b"]),
        (r" -n 'a\b'", ["-n", "ab"]),
        (r' -n "a\"b"', ["-n", 'a"b']),
        (r' -n "a\\b\x"', ["-n", r"a\bx"]),
        (r" -n a\\b", ["-n", r"a\b"]),
        ('''  -n "it's"''', ["-n", "it's"]),
        (" -n b$HOME`x`*", ["-n", "b$HOME`x`*"]),
        (" -n1 # -n bad", ["-n1"]),
        (" #-n bad", []),
        (" -n2 \\", ["-n2"]),
        (" -n a\\", ["-n", "a"]),
        (" --comment=''", ["--comment="]),
        ("X -n2", ["X", "-n2"]),
        # Here we differ: Slurm drops the line from the empty word on.
        (' -J "" -n2', ["-J", "", "-n2"]),
    ],
)
def test_words_are_split_as_sbatch_does(line: str, words: list[str]) -> None:
    assert split(line, 2) == words


@pytest.mark.parametrize("line", [' -J "a b', " -J 'a", ' -J "a\\'])
def test_an_open_quote_is_refused(line: str) -> None:
    with pytest.raises(RequestError, match=r"^unmatched ['\"] in #SBATCH.*: line 2 of the batch"):
        directives(f"#!/bin/sh\n#SBATCH{line}\n")


@pytest.mark.parametrize(
    ("text", "sentence", "hint"),
    [
        ("", "Batch script is empty", "#!/bin/sh"),
        (" \n\t\n", "Batch script is only white space", "#!/bin/sh"),
        ("echo hi\n", "This does not look like a batch script", "#!/bin/sh"),
        ("\n#!/bin/sh\n", "This does not look like a batch script", "#!/bin/sh"),
        ("\x7fELF\0", "This does not look like a batch script", "--wrap"),
        ("#!/bin/sh\n\0", "NUL", "--wrap"),
        ("#!/bin/sh\r\ntrue\r\n", "DOS line endings", "sed"),
    ],
)
def test_what_is_no_script_is_refused_with_the_fix(text: str, sentence: str, hint: str) -> None:
    with pytest.raises(RequestError, match=sentence) as caught:
        directives(text)
    assert hint in caught.value.hint


def test_wrap_makes_a_script() -> None:
    script = wrap("echo 1\necho 2 # three")
    check(script)
    assert found(script) == []
    assert script.endswith("\necho 1\necho 2 # three\n")
