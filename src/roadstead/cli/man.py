r"""The man pages: prose from docs/man/*.in, facts from the tables that the program itself reads.

A template is man(7) source.  A line that is one of these words between two @ is replaced:

    OPTIONS srun        the command's options: honoured ones, then, in sections of their own and
                        each with the reason, those without effect and those refused
    VARIABLES srun      the environment variables that stand for them
    SETS srun           the names of the variables that its tasks, script or command find
    COLUMNS jobs        the columns of squeue's jobs, squeue's steps or sinfo's nodes
    FIELDS sacct        the fields of an accounting command
    SUBCOMMANDS         what the umbrella command knows
    KEY Name value      a key of oci.conf, its default and its age; its meaning follows in prose
    PATTERN b           a %-pattern of oci.conf, likewise

and ``@VERSION@`` anywhere in a line.  So a page can be out of date in its prose only; a test holds
the committed pages against this module, and the keys and patterns of the template against theirs.

Pure: templates in, pages out; script/man does the reading and writing.  No command imports it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from roadstead import __version__
from roadstead.cli import (
    options,
    sacct_fields,
    sinfo,
    sprio,
    squeue_columns,
    sshare,
    sstat,
    umbrella,
)
from roadstead.cli.getopt_long import NO_ARG, OPTIONAL
from roadstead.cli.option import HONOURED, Option
from roadstead.cli.options import variables
from roadstead.cli.table import Column
from roadstead.core import environment
from roadstead.core.lifecycle import Job, JobRunning
from roadstead.core.model import Allocation, ContainerRequest, JobSpec, Share, StepRequest
from roadstead.oci.conf import KEYS
from roadstead.oci.patterns import LETTERS

_DIRECTIVE = re.compile(r"@([A-Z]+)(?: (.+))?@")
_INEFFECTIVE: Final = {
    "no-op": "Their options are accepted without effect, and so are they.",
    "refused": "Their options are refused, and so is a command that finds one of them set.",
}
_ASKED = ("ntasks", "cpus-per-task", "ntasks-per-node", "mem", "mem-per-cpu")


def page(template: str) -> str:
    """The man page that a template describes.  Raises KeyError for a name that no table has."""
    lines = [r".\" Made by script/man from the .in file beside this one; edit that."]
    for line in template.replace("@VERSION@", __version__).splitlines():
        directive = _DIRECTIVE.fullmatch(line)
        if directive is None:
            lines.append(line)
        else:
            lines += _DIRECTIVES[directive[1]](directive[2] or "")
    return "\n".join(lines) + "\n"


def rows(command: str) -> list[Option]:
    """The options that a command's page names: all but the hidden ones, by name."""
    own = options.rows(command)
    shown = [row for row in own if row.help or row.treatment != HONOURED]
    return sorted(shown, key=lambda row: row.name.lower())


def literal(text: str) -> str:
    """Text that is to be read, and copied, as it stands."""
    return text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")


def prose(text: str) -> str:
    """A sentence of one of the tables: options in it stay whole."""
    words = text.replace("\\", "\\e")
    return re.sub(r"--[a-z][a-z-]*", lambda found: literal(found[0]), words)


# -- options ---------------------------------------------------------------------------------------


def _options(command: str) -> Iterator[str]:
    own = rows(command)
    for row in own:
        if row.treatment == HONOURED:
            yield from (".TP", _spelling(row), prose(_capital(row.help)) + ".")
    for heading, treatment in (("Accepted, without effect here", "no-op"), ("Refused", "refused")):
        reasons: dict[str, list[Option]] = {}
        for row in own:
            kind, _, reason = row.treatment.partition(":")
            if kind == treatment:
                reasons.setdefault(reason, []).append(row)
        if reasons:
            yield f".SS {heading}"
        for reason, those in reasons.items():
            names = ", ".join(_names(row) for row in those)
            yield from (".TP", names, prose(_capital(reason)) + ".")


def _names(row: Option) -> str:
    words = [f"-{row.short}"] if row.short else []
    words += [f"--{name}" for name in (row.name, *row.aliases.split())]
    return ", ".join(f"\\fB{literal(word)}\\fR" for word in words)


def _spelling(row: Option) -> str:
    if row.arg == NO_ARG:
        return _names(row)
    value = f"=\\fI{literal(row.metavar)}\\fR"
    return _names(row) + (f"[{value}]" if row.arg == OPTIONAL else value)


def _capital(text: str) -> str:
    """A capital letter at the start, unless an option or a name stands there."""
    first = text.partition(" ")[0]
    return text[:1].upper() + text[1:] if first.isalpha() else text


def _variables(command: str) -> Iterator[str]:
    ineffective: dict[str, list[str]] = {"no-op": [], "refused": []}
    for row in rows(command):
        names = [f"\\fB{name}\\fR" for name in variables(command, row)]
        if not names:
            continue
        if row.treatment == HONOURED:
            yield from (".TP", ", ".join(names), f"As {_option_name(row)}.")
        else:
            ineffective[row.treatment.partition(":")[0]] += names
    for kind, sentence in _INEFFECTIVE.items():
        if ineffective[kind]:
            yield from (".TP", ", ".join(ineffective[kind]), sentence)


def _option_name(row: Option) -> str:
    return f"\\fB{literal(f'--{row.name}')}\\fR"


# -- what a job finds in its environment -----------------------------------------------------------


def _sets(command: str) -> Iterator[str]:
    container = ContainerRequest(bundle="/b", id="i")
    spec = JobSpec(
        kind="alloc", name="", user="", uid=0, gid=0, cwd="/", memory=1,
        overcommit=True, container=container, asked=_ASKED,
    )  # fmt: skip
    share = Share(node="n", cpus=(0,), ntasks=1)
    granted = Allocation(job_id=1, shares=(share,), started_at=0.0)
    job = Job(id=1, spec=spec, submitted_at=0.0, state=JobRunning(allocation=granted), restarts=1)
    task = environment.task(0, 0, 0, share, range(1))
    step = StepRequest(name="", argv=(), cwd="/", container=container, asked=_ASKED)
    found = {
        "srun": lambda: environment.step(job, 0, granted, step, (share,)) | task,
        "sbatch": lambda: environment.batch(job, granted) | task,
        "salloc": lambda: environment.allocation(job, granted),
    }[command]()
    yield ", ".join(sorted(found)) + "."


# -- tables of columns -----------------------------------------------------------------------------

_TABLES: Final[dict[str, tuple[Column, ...]]] = {
    "jobs": squeue_columns.JOBS,
    "steps": squeue_columns.STEPS,
    "nodes": sinfo.COLUMNS,
    "priorities": sprio.COLUMNS,
}


def _columns(table: str) -> Iterator[str]:
    yield ".EX"
    for column in sorted(_TABLES[table], key=lambda each: (each.header, each.letter)):
        letter = f"%{column.letter}" if column.letter else "  "
        yield literal(f"{letter}  {' '.join(column.names):<28} {column.header}".rstrip())
    yield ".EE"


_FIELDS: Final = {
    "sacct": sacct_fields.FIELDS,
    "sshare": sshare.FIELDS,
    "sstat": sstat.FIELDS,
}


def _fields(table: str) -> Iterator[str]:
    yield literal(", ".join(field.name for field in _FIELDS[table]) + ".")


# -- the umbrella, and oci.conf --------------------------------------------------------------------


def _subcommands(_: str) -> Iterator[str]:
    for name, (takes, does, _function) in umbrella.SUBCOMMANDS.items():
        operands = f" \\fI{literal(takes)}\\fR" if takes else ""
        yield from (".TP", f"\\fBroadstead {name}\\fR{operands}", prose(_capital(does)) + ".")


def _key(words: str) -> Iterator[str]:
    name, _, value = words.partition(" ")
    key = KEYS[name]
    yield from (".TP", f"\\fB{name}\\fR=\\fI{literal(value)}\\fR")
    default = "" if key.default in (None, (), False) else f"  Default: {key.default}."
    scrun = "  Read and checked; it matters to scrun alone." if key.scrun_only else ""
    yield f"Slurm {key.since}.{default}{scrun}"


def _pattern(letter: str) -> Iterator[str]:
    kind = LETTERS[letter][1].value
    yield from (".TP", f"\\fB%{letter}\\fR ({kind})")


_DIRECTIVES: Final[dict[str, Callable[[str], Iterable[str]]]] = {
    "OPTIONS": _options,
    "VARIABLES": _variables,
    "SETS": _sets,
    "COLUMNS": _columns,
    "FIELDS": _fields,
    "SUBCOMMANDS": _subcommands,
    "KEY": _key,
    "PATTERN": _pattern,
}
