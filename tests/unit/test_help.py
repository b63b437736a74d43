"""--help, --usage and -V."""

from __future__ import annotations

import pytest

from roadstead import __version__
from roadstead.cli import options_launch, options_queries
from roadstead.cli.help import help_text, on_cluster, usage_text, version_text
from roadstead.cli.option import COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_option_once_and_fits_a_terminal(command: str) -> None:
    text = help_text(command)
    for row in (*options_launch.ROWS, *options_queries.ROWS):
        if row.commands & COMMANDS[command] and (row.help or row.treatment != "honoured"):
            words = text.replace("[=", " ").replace("=", " ").split()
            assert words.count(f"--{row.name}") == 1, row.name
    assert max(map(len, text.splitlines())) <= 80
    assert text.startswith(f"Usage: {command} [option...]")
    assert text.endswith("\n")
    assert not any(line.endswith(" ") for line in text.splitlines())


def test_an_entry_has_its_letter_value_and_meaning() -> None:
    lines = help_text("srun").splitlines()
    assert "  -n, --ntasks=number           tasks to run" in lines
    assert "  -I, --immediate[=seconds]     give up unless the job starts within this time" in lines
    wide = lines.index("      --open-mode=append|truncate")
    assert lines[wide + 1] == f"{'':32}what becomes of output files that exist"


def test_hidden_options_are_not_shown() -> None:
    assert "--interactive" not in help_text("srun")
    assert "--interactive" in help_text("scancel")


def test_help_tells_what_does_nothing_and_what_is_refused() -> None:
    shown, _, others = help_text("srun").partition("\n\nAccepted, without effect")
    no_effect, _, refused = others.partition("\n\nRefused by the local engine:")
    assert "--label " in shown
    assert "--contiguous" in no_effect
    assert "--gpu-freq " in refused


@pytest.mark.parametrize("command", COMMANDS)
def test_usage_is_short(command: str) -> None:
    lines = usage_text(command).splitlines()
    assert lines[0].startswith(f"Usage: {command} [")
    assert max(map(len, lines)) <= 80


def test_usage_shows_letters_before_names() -> None:
    assert "[-n number]" in usage_text("srun")
    assert "[-I[seconds]]" in usage_text("srun")
    assert " ".join(usage_text("srun").split()).endswith(" command [argument...]")


def test_versions_are_in_the_shape_that_clients_parse() -> None:
    assert {version_text(command) for command in COMMANDS} == {"slurm 22.05.8\n"}
    assert version_text("roadstead") == f"roadstead {__version__}\n"


@pytest.mark.parametrize("command", ["srun", "sbatch", "salloc"])
def test_what_follows_slurms_own_help(command: str) -> None:
    """Our options, and none that a cluster refuses."""
    for usage in (False, True):
        text = on_cluster(command, usage=usage)
        shown = ("--container=", "--container-stage=", "--dockerd]" if usage else "--dockerd ")
        assert all(word in text for word in shown)
        assert not any(word in text for word in ("--container-name", "--dry-run", "--nodes"))
        assert max(map(len, text.splitlines())) <= 80
