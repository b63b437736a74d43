"""The man pages: committed as they would be made, complete, and fit for man(1)."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from roadstead.cli import man
from roadstead.cli.option import COMMANDS
from roadstead.cli.options import variables
from roadstead.cli.umbrella import SUBCOMMANDS
from roadstead.core import siteconf
from roadstead.core.site import Node
from roadstead.oci.conf import KEYS
from roadstead.oci.patterns import LETTERS
from tests.support.components import ROOT
from tests.support.skips import require

PAGES = ROOT / "docs" / "man"
TEMPLATES = sorted(PAGES.glob("*.in"))
SECTIONS = ("NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS", "EXAMPLES", "SEE ALSO")


def named(text: str) -> str:
    """A page's source without its escapes: words as a reader sees them."""
    plain = text.replace("\\(aq", "'").replace("\\-", "-").replace("\\e", "\\")
    return re.sub(r"\\f[BIR]", "", plain)


def test_there_is_a_page_for_every_command() -> None:
    assert {path.stem for path in TEMPLATES} == {
        *(f"{command}.1" for command in COMMANDS),
        "roadstead.1",
        "oci.conf.5",
        "roadstead.conf.5",
    }
    assert {path.name for path in PAGES.iterdir()} == {
        name for path in TEMPLATES for name in (path.name, path.stem)
    }


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_a_committed_page_is_the_one_that_would_be_made(template: Path) -> None:
    made = man.page(template.read_text())
    assert template.with_suffix("").read_text() == made, "run script/man"
    assert "@" not in re.sub(r"%@|@ \(arguments\)|@seconds|user@", "", made)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_a_page_has_its_sections(template: Path) -> None:
    found = re.findall(r"^\.SH (.*)$", template.read_text(), re.MULTILINE)
    wanted = [name for name in SECTIONS if template.stem[-2:] != ".5" or name in found]
    assert [name for name in found if name in SECTIONS] == wanted


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_in_its_page_once(command: str) -> None:
    options = (PAGES / f"{command}.1").read_text().partition(".SH OPTIONS")[2]
    words = re.split(r"[^-\w]+", named(options.partition("\n.SH ")[0]))
    for row in man.rows(command):
        for name in (row.name, *row.aliases.split()):
            assert f"--{name}" in words, name
        assert not row.short or f"-{row.short}" in words, row.short


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_not_honoured_says_why(command: str) -> None:
    text = named((PAGES / f"{command}.1").read_text())
    honoured, _, others = text.partition(".SS Accepted, without effect here")
    for row in man.rows(command):
        kind, _, reason = row.treatment.partition(":")
        if kind != "honoured":
            assert f".TP\n-{row.short}, --{row.name}" not in honoured
            assert f"--{row.name}" in others
            assert reason[1:] in others


@pytest.mark.parametrize("command", COMMANDS)
def test_every_variable_of_an_option_is_in_the_page(command: str) -> None:
    environment = (PAGES / f"{command}.1").read_text().partition(".SH ENVIRONMENT")[2]
    words = set(re.findall(r"\w+", named(environment)))
    for row in man.rows(command):
        assert words.issuperset(variables(command, row)), row.name


def test_the_umbrella_page_has_its_subcommands() -> None:
    text = named((PAGES / "roadstead.1").read_text())
    assert all(f"\nroadstead {name}" in text for name in SUBCOMMANDS)


def test_the_configuration_page_has_every_key_and_pattern() -> None:
    template = (PAGES / "oci.conf.5.in").read_text()
    assert sorted(re.findall(r"^@KEY (\w+) ", template, re.MULTILINE)) == sorted(KEYS)
    assert set(re.findall(r"^@PATTERN (.)@$", template, re.MULTILINE)) == set(LETTERS)


def test_the_page_of_the_site_has_every_key() -> None:
    template = (PAGES / "roadstead.conf.5.in").read_text()
    told = re.findall(r"^\.TP\n\\fB(\w+)\\fR=", template, re.MULTILINE)
    known = siteconf.NODE_KEYS | siteconf.DEVICE_KEYS | siteconf.PARTITION_KEYS
    assert {key.lower() for key in told} == known | siteconf.PLAIN_KEYS


def test_the_example_of_the_site_is_one() -> None:
    text = named((PAGES / "roadstead.conf.5.in").read_text())
    machine = Node(name="m", cpus=(0,), memory=1)
    for example in re.findall(r"\.EX\n(NodeName.*?)\.EE", text, re.DOTALL):
        found = siteconf.parse(example, "x", str, machine=machine, uid=1, login={})
        assert found.site.nodes[-1].gres
        assert found.warnings == ()


def test_man_has_nothing_to_warn_of() -> None:
    """groff, called as man(1) calls it but for more warnings, takes all pages in one go; through
    man(1), which starts ten processes a page, goes one of them."""
    require("man")
    pages = [template.with_suffix("") for template in TEMPLATES]
    environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "MANWIDTH": "80"}
    for argv in (
        ["groff", "-k", "-t", "-mandoc", "-ww", "-z", "-Tutf8", *pages],
        ["man", "--warnings", "-l", PAGES / "srun.1"],
    ):
        done = subprocess.run(argv, env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), argv[0]


def test_text_of_the_tables_cannot_become_a_request() -> None:
    assert man.literal("--a\\b'c") == "\\-\\-a\\eb\\(aqc"
    assert man.prose("unless it says --exact") == "unless it says \\-\\-exact"
    for template in TEMPLATES:
        made = man.page(template.read_text())
        known = r"\.(\\\"|TH|SH|SS|TP|PP|IP|B|I|BR|RB|BI|IR|RI|br|EX|EE)(\s|$)"
        odd = [line for line in made.splitlines() if line[:1] in ".'" and not re.match(known, line)]
        assert odd == []
