"""The options of Slurm's commands, and what a command line makes of them.

Parsing, the environment, ``--help`` and the #SBATCH lines all read the rows (option.py) of one
table, so an option is added in one place.  Every option of Slurm 22.05 has a row: what we cannot do
is refused by name and never "unrecognized".  The rows are in a table for each kind of command
(options_launch.py, options_queries.py, options_accounting.py), as every srun builds its own when it
starts.

``parse`` is getopt_long(3); after an operand only the commands that ask still take options, as in
``scontrol show job -o 7``.  ``gather`` adds the environment and, for sbatch, the script.  What a
value means is decided in ``core/request.py``.
"""

from __future__ import annotations

from roadstead.cli.getopt_long import NO_ARG, REQUIRED, Grammar
from roadstead.cli.option import (
    COMMANDS,
    COUNT,
    EVERY,
    LAUNCH,
    LIST,
    LISTS,
    NO_CLUSTERS,
    SACCT,
    SCANCEL,
    SCONTROL,
    Option,
)
from roadstead.errors import RequestError, RoadsteadError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Final

    from roadstead.cli.script import Directive

# fmt: off
# One row a line is what makes this a table; the formatter would give each field a line of its own.
_EVERYWHERE: tuple[Option, ...] = (
    Option("clusters", "M", REQUIRED, LAUNCH | SCANCEL, treatment=NO_CLUSTERS, aliases="cluster"),
    Option("clusters", "M", REQUIRED, LISTS | SCONTROL, "", "names",
           "ask this cluster, of which there is one", aliases="cluster"),
    Option("quiet", "Q", NO_ARG, LAUNCH | SCANCEL | SCONTROL, "", "", "say less"),
    Option("verbose", "v", NO_ARG, EVERY, "SLURM_DEBUG SBATCH_DEBUG SALLOC_DEBUG SCANCEL_VERBOSE",
           "", "say more; again for still more", repeat=COUNT),
    Option("help", "h", NO_ARG, LAUNCH | SCONTROL, "", "", "show this text"),
    Option("help", "", NO_ARG, LISTS | SCANCEL, "", "", "show this text"),
    Option("usage", "", NO_ARG, EVERY, "", "", "show a short form of it"),
    Option("version", "V", NO_ARG, EVERY, "", "", "show the version"),
)
# fmt: on


# Given on a stronger level, one of these takes the others of a weaker level away: the
# SLURM_MEM_PER_NODE of a batch script must not meet the --mem-per-cpu of a step in it.
_RIVALS: Final[tuple[tuple[str, ...], ...]] = (
    ("mem", "mem-per-cpu"),
    ("container-readonly", "container-writable"),
    ("container", "container-image", "environment"),
    ("container-entrypoint", "no-container-entrypoint"),
    ("container-mount-home", "no-container-mount-home"),
    ("container-remap-root", "no-container-remap-root"),
    ("format", "Format"),
)

_SELECTORS: Final = ("container", "container-image", "container-name", "environment")
_INFORMATION: Final = ("help", "usage", "version")
_PYXIS: Final = "PYXIS_"  # of whose variables every command reads those that it has options for
_PLUGINS: Final = "SLURM_SPANK_"  # and of those that carry the options of plugins
_PREFIXES: Final = (
    "SLURM_",
    "SRUN_",
    "SBATCH_",
    "SALLOC_",
    "SQUEUE_",
    "SCANCEL_",
    "SINFO_",
    _PYXIS,
)


_added: list[Option] = []  # by plugins


def parse(
    command: str, argv: Iterable[str], *, lenient: bool = False
) -> tuple[list[tuple[str, str]], list[str]]:
    """The options of one command line in order, as (long name, value or ""), and the rest.  With
    ``lenient`` also those that nobody here knows, if they have a value of their own."""
    grammar = _grammar(command)
    grammar.lenient = lenient
    return grammar.parse(argv)


def gather(
    command: str,
    argv: Iterable[str],
    environ: Mapping[str, str],
    directives: Iterable[Directive] = (),
) -> tuple[dict[str, str], list[str]]:
    """All that was asked for, by long name: the command line over the environment over the script.

    A flag is "1", a counted flag its count, an optional value that was not given "".  With --help,
    --usage or --version on the command line nothing else is looked at.
    """
    grammar = _grammar(command)
    pairs, rest = grammar.parse(argv)
    for name, _ in pairs:
        if name in _INFORMATION:
            return {name: "1"}, rest
    levels = (_script(grammar, directives), _environment(grammar, environ), _level(grammar, pairs))
    asked = layered(levels)
    if not any(name in asked for name in _SELECTORS):
        # What the environment says of containers is about steps that have one.
        for name in levels[1]:
            if name not in levels[0] and name not in levels[2] and _is_about_containers(name):
                del asked[name]
    return asked, rest


def layered(levels: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """What is asked for where each level is over those before it."""
    asked: dict[str, str] = {}
    for level in levels:
        for group in _RIVALS:
            if any(name in level for name in group):
                for name in group:
                    asked.pop(name, None)
        asked.update(level)
    return asked


def _is_about_containers(name: str) -> bool:
    return name == "device" or name.removeprefix("no-").startswith("container-")


def is_about_containers(name: str) -> bool:
    """Whether an option says which container, or what of it, or is a plugin's: what Slurm's own
    commands do not know, or know as something else."""
    if name in _SELECTORS or _is_about_containers(name):
        return True
    return any(name == row.name for row in _added)


def of_containers(
    command: str,
    argv: Iterable[tuple[str, str]],
    environ: Mapping[str, str],
    directives: Iterable[Directive] = (),
) -> dict[str, str]:
    """What a command line (as ``parse`` gives it), the environment and a script ask of containers
    alone; nothing where no container is named and only the environment has something to say."""
    grammar = Grammar(
        command, [row for row in rows(command) if is_about_containers(row.name)], in_order=True
    )
    given = _level(grammar, [pair for pair in argv if pair[0] in grammar.names])
    lent: dict[str, str] = {}
    for each in directives:
        pairs, _ = parse(command, each.argv, lenient=True)
        lent.update(_level(grammar, [pair for pair in pairs if pair[0] in grammar.names]))
    found = _environment(grammar, environ)
    asked = layered((lent, found, given))
    if not any(name in asked for name in _SELECTORS):
        asked = layered((lent, given))
    return asked


def may_ask_for_containers(command: str, argv: Iterable[str], environ: Mapping[str, str]) -> bool:
    """Whether a command line could name a container: no means no, and is found out soon."""
    ours = [row for row in rows(command) if is_about_containers(row.name)]
    names = [row.name for row in ours]
    for word in argv:
        if word.startswith("--"):
            begun = word[2:].partition("=")[0]
            if begun and any(name.startswith(begun) for name in names):
                return True
    return any(
        variable in environ
        for row in ours
        if row.name in _SELECTORS
        for variable in variables(command, row)
    )


def without_effect(command: str, asked: Iterable[str]) -> list[tuple[str, str]]:
    """Those of the options ``asked`` for that do nothing here, each with the reason."""
    names = _grammar(command).names
    split = [(name, *names[name].treatment.partition(":")) for name in asked]
    return [(name, reason) for name, treatment, _, reason in split if treatment == "no-op"]


def variables(command: str, option: Option) -> list[str]:
    """The environment variables that stand for an option, the strongest first."""
    own = f"{command.upper()}_"
    prefix = "SLURM_" if command == "srun" else own
    found = []
    for word in option.env.split():
        if word.startswith("_"):
            found.append(own + word[1:])
        elif not word.startswith(_PREFIXES):
            found.append(prefix + word)
        elif word.startswith((own, prefix, _PYXIS, _PLUGINS)):
            found.append(word)
    return found


def rows(command: str) -> list[Option]:
    """The options of a command."""
    bit = COMMANDS[command]
    if bit & LAUNCH:
        from roadstead.cli.options_launch import ROWS
    elif bit < SACCT:
        from roadstead.cli.options_queries import ROWS
    else:
        from roadstead.cli.options_accounting import ROWS
    return [option for option in (*ROWS, *_EVERYWHERE, *_added) if option.commands & bit]


def add(rows: Iterable[Option]) -> None:
    """Have more options, from now on: those of plugins."""
    _added.extend(rows)


def is_known(command: str, name: str) -> bool:
    """Whether a command has an option of this long name."""
    return name in _grammar(command).names


def _grammar(command: str) -> Grammar:
    bit = COMMANDS[command]
    return Grammar(command, rows(command), in_order=bool(bit & LAUNCH))


def _level(grammar: Grammar, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, value in pairs:
        option = grammar.names[name]
        _refuse(option, f"--{name}")
        if option.repeat == COUNT:
            values[name] = str(int(values.get(name, "0")) + 1)
        elif option.repeat == LIST and name in values:
            values[name] += f",{value}"
        else:
            values[name] = value if option.arg else "1"
    return values


def _environment(grammar: Grammar, environ: Mapping[str, str]) -> dict[str, str]:
    values: dict[str, str] = {}
    if not environ:  # a program's submission
        return values
    for option in grammar.rows:
        if not option.env:
            continue
        for variable in variables(grammar.command, option):
            # In an allocation SLURM_JOB_NAME is the job's; a step is named after its program.
            named_job = variable == "SLURM_JOB_NAME" and "SLURM_JOB_ID" in environ
            if named_job or variable not in environ:
                continue
            value = environ[variable]
            if option.arg != REQUIRED and variable.startswith(_PYXIS):
                value = _pyxis_flag(value)
                if value == "0":
                    if f"no-{option.name}" in grammar.names:
                        values[f"no-{option.name}"] = "1"
                    break
            elif option.arg == NO_ARG:
                value = _flag(value)
            if option.arg or value:
                _refuse(option, f"{variable} in the environment (--{option.name})")
                values[option.name] = value
            break
    return values


def _pyxis_flag(value: str) -> str:
    """What one of Pyxis's variables says of a flag, in its words for yes and no: "1" or "0", and ""
    for --container-writable, which has a value besides.  What is neither it ignores, and so do we.
    """
    return "1" if value.lower() in ("1", "y", "yes", "true", "on", "t") else "0"


def _flag(value: str) -> str:
    """What a variable says of a flag: Slurm takes nothing, yes or a number other than 0 for set."""
    if value in ("", "yes"):
        return "1"
    return value if value.isdecimal() and int(value) else ""


def _script(grammar: Grammar, directives: Iterable[Directive]) -> dict[str, str]:
    values: dict[str, str] = {}
    for directive in directives:
        try:
            pairs, stray = grammar.parse(directive.argv)
            if stray:
                raise RequestError(f"invalid directive found in batch script: {stray[0]}")
            values.update(_level(grammar, pairs))
            for name in (*_INFORMATION, "wrap"):  # they make sense on a command line only
                values.pop(name, None)
        except RoadsteadError as error:
            where = f"line {directive.line_number} of the batch script"
            raise type(error)(f"{error}: {where}", hint=error.hint) from None
    return values


def _refuse(option: Option, spelled: str) -> None:
    treatment, _, reason = option.treatment.partition(":")
    if treatment == "refused":
        raise RequestError(f"{spelled}: {reason}")
