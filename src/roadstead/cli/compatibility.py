"""docs/slurm-compatibility.md: what becomes of each option, keyword and field of Slurm 22.05.

It is made of the tables that the commands themselves read, so it cannot say anything else than what
they do; script/man writes it, and a test holds the committed page against this module.

Pure.  No command imports it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from roadstead.cli import (
    options,
    sacct_fields,
    sacctmgr,
    scontrol,
    scontrol_show,
    sinfo,
    sprio,
    squeue_columns,
    sreport,
    sshare,
    sstat,
)
from roadstead.cli.control import VERBS
from roadstead.cli.fields import Field
from roadstead.cli.getopt_long import NO_ARG, OPTIONAL
from roadstead.cli.option import COMMANDS, HONOURED, Option
from roadstead.cli.table import Column, Fixed

_HEAD: Final = """\
<!-- Made by script/man from the tables of the program; edit those. -->

# Compatibility with Slurm

The reference is Slurm 22.05, with the container options of later releases. This page is about the
local engine; it is made of the tables that the commands read, and says of each option, keyword and
field what becomes of it:

* **yes**: it does what it does in Slurm, or what is said;
* **no effect**: it is accepted, as it cannot matter on one machine (`-v` names such options);
* **refused**: with the reason, as the command says it.

What was seen to differ from a real Slurm, command line by command line, is the table `DIFFERENCES`
of `tests/e2e/test_differential.py`, each with its reason; the rest of its two hundred and more
command lines print the same, or the same sentence with a hint.
"""
_LAUNCH: Final = ("srun", "sbatch", "salloc")
_ASKING: Final = (
    *(
        "squeue",
        "sinfo",
        "scontrol",
        "scancel",
        "sattach",
        "sbcast",
        "sacct",
        "sstat",
        "sprio",
        "sreport",
    ),
    *("sacctmgr", "sshare", "sdiag"),
)
_SPOKEN: Final = {"no-op": "no effect", "refused": "refused"}


def page() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *_sections()]) + "\n"


def _sections() -> Iterator[str]:
    yield from ("## srun, sbatch, salloc", "")
    yield from _launch_options()
    for command in _ASKING:
        yield from ("", f"## {command}", "")
        yield from _table(("option", "here", "what it does, or why not"), _options(command))
        yield from _MORE.get(command, tuple)()


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heading)} |"
    yield "|" + "---|" * len(heading)
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


# -- options ---------------------------------------------------------------------------------------


def _spelled(row: Option) -> str:
    names = [f"-{row.short}"] if row.short else []
    names += [f"--{name}" for name in (row.name, *row.aliases.split())]
    if row.arg != NO_ARG:
        value = f"={row.metavar or 'value'}"
        names[-1] += f"[{value}]" if row.arg == OPTIONAL else value
    return f"`{', '.join(names)}`"


def _fate(row: Option) -> tuple[str, str]:
    if row.treatment == HONOURED:
        return "yes", row.help
    kind, _, reason = row.treatment.partition(":")
    return _SPOKEN[kind], reason


def _shown(rows: Iterable[Option]) -> list[Option]:
    found = [row for row in rows if row.help or row.treatment != HONOURED]
    return sorted(found, key=lambda row: row.name.lower())


def _launch_options() -> Iterator[str]:
    rows = dict.fromkeys(row for command in _LAUNCH for row in options.rows(command))

    def cells() -> Iterator[Sequence[str]]:
        for row in _shown(rows):
            those = [name for name in _LAUNCH if row.commands & COMMANDS[name]]
            yield _spelled(row), "all" if those == list(_LAUNCH) else ", ".join(those), *_fate(row)

    yield from _table(("option", "of", "here", "what it does, or why not"), cells())


def _options(command: str) -> Iterator[Sequence[str]]:
    for row in _shown(options.rows(command)):
        yield _spelled(row), *_fate(row)


# -- columns and fields ----------------------------------------------------------------------------


def _value(value: object) -> str:
    """What stands in a column."""
    if not isinstance(value, Fixed):
        return "yes"
    return f"always `{value.text}`" if value.text else "always empty"


def _columns(title: str, columns: Sequence[Column]) -> Iterator[str]:
    yield from ("", f"{title}:", "")
    by_heading = sorted(columns, key=lambda each: (each.header, each.letter))
    yield from _table(
        ("letter (`-o`)", "names (`-O`)", "heading", "here"),
        (
            (
                f"`%{each.letter}`" if each.letter else "",
                ", ".join(f"`{name}`" for name in each.names),
                each.header,
                _value(each.value),
            )
            for each in by_heading
        ),
    )


def _fields(fields: Sequence[Field]) -> Iterator[str]:
    yield from ("", "Fields of `--format`:", "")
    kinds: dict[str, list[str]] = {}
    for each in fields:
        kinds.setdefault(_value(each.value), []).append(f"`{each.name}`")
    yield from _table(("here", "fields"), ((kind, ", ".join(n)) for kind, n in kinds.items()))


def _of_squeue() -> Iterator[str]:
    yield from _columns("Columns of jobs", squeue_columns.JOBS)
    yield from _columns("Columns of steps (`--steps`)", squeue_columns.STEPS)


def _of_scontrol() -> Iterator[str]:
    yield from ("", "Keywords:", "")
    known = dict.fromkeys([*(name for name, _, _ in scontrol.KEYWORDS), *VERBS])
    yield from _table(
        ("keyword", "here", ""),
        [
            *((f"`{name}`", "yes", _KEYWORDS.get(name, "")) for name in sorted(known)),
            *((f"`{name}`", "refused", reason) for name, reason in scontrol.REFUSED.items()),
            (
                "`create`, `update`, `delete` of reservations",
                "refused",
                "the local engine has no reservations",
            ),
        ],
    )
    shown = ", ".join(f"`{name}`" for name in scontrol_show.ENTITIES)
    yield from ("", f"`show` knows {shown}.")


_KEYWORDS: Final = {
    "create": "partitions",
    "delete": "partitions",
    "update": "jobs, steps, nodes, partitions",
    "hide": "nothing is hidden",
    "all": "nothing is hidden",
    "write": "`batch_script`; the configuration is roadstead.conf as it is written",
}


def _of_sacctmgr() -> Iterator[str]:
    entities = ", ".join(f"`{each[0]}`" for each in sacctmgr.TABLES)
    refused = ", ".join(f"`{word}`" for word in sacctmgr.REFUSED)
    yield from ("", f"`show` knows `configuration`, {entities}. Refused: {refused}.")


def _of_sreport() -> Iterator[str]:
    yield from ("", f"Reports: {', '.join(f'`{each[0]}`' for each in sreport.REPORTS)}.")


_MORE: Final = {
    "squeue": _of_squeue,
    "sinfo": lambda: _columns("Columns", sinfo.COLUMNS),
    "scontrol": _of_scontrol,
    "sacct": lambda: _fields(sacct_fields.FIELDS),
    "sstat": lambda: _fields(sstat.FIELDS),
    "sprio": lambda: _columns("Columns", sprio.COLUMNS),
    "sshare": lambda: _fields(sshare.FIELDS),
    "sreport": _of_sreport,
    "sacctmgr": _of_sacctmgr,
}
