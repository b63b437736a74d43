"""--help, --usage and --version, made from the option table.  Imported only when asked for.

``-V`` of a Slurm command names the release whose command line we speak, in the exact shape that
clients parse (``slurm 22.05.8``); ``roadstead --version`` names ours.
"""

from __future__ import annotations

from roadstead import SLURM_VERSION, __version__
from roadstead.cli.getopt_long import NO_ARG, OPTIONAL, REQUIRED
from roadstead.cli.option import COMMANDS, LAUNCH, Option
from roadstead.cli.options import is_about_containers, rows
from roadstead.engines.slurm import rewrite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_WIDTH = 80
_COLUMN = 32
# The one option that the local engine has no use for, and a cluster has.
_STAGE = Option(
    "container-stage", "", REQUIRED, LAUNCH, "", "auto|shared|bcast|none",
    "how the container gets to the nodes: in place where all see it, else sent",
)  # fmt: skip
_OPERANDS = {
    "srun": "command [argument...]",
    "sbatch": "[script [argument...]]",
    "salloc": "[command [argument...]]",
    "squeue": "",
    "scancel": "[job[.step]...]",
    "sinfo": "",
    "scontrol": "[keyword [argument...]]",
    "sattach": "job.step",
    "sbcast": "source target",
    "sacct": "",
    "sstat": "",
    "sprio": "",
    "sshare": "",
    "sreport": "report name [key=value...]",
    "sacctmgr": "show entity [key=value...]",
    "sdiag": "",
}
_PURPOSES = {
    "srun": "Run a job step, in a new allocation unless there is one, and exit as it does.",
    "sbatch": "Submit a batch script; it runs when there is room for it.",
    "salloc": "Get an allocation, and hold it while a command runs.",
    "squeue": "Show jobs that wait or run, or their steps.",
    "scancel": "End jobs or steps, or send them a signal.",
    "sinfo": "Show partitions and nodes.",
    "scontrol": "Show jobs, steps, nodes and partitions in full, and change them.",
    "sattach": "Show what the tasks of a running step write, and send them input.",
    "sbcast": "Copy a file to the nodes of a job.",
    "sacct": "Show jobs and steps, also those that have ended, and what they used.",
    "sstat": "Show what the steps of running jobs use now.",
    "sprio": "Show what the priorities of waiting jobs are made of.",
    "sshare": "Show shares of accounts: there are none.",
    "sreport": "Report what was used, from the engine's journal.",
    "sacctmgr": "Show what Slurm's accounting would have of this engine.",
    "sdiag": "Show what the controller does.",
}


def help_text(command: str) -> str:
    """What ``--help`` prints."""
    rows = _rows(command)
    shown = _by_name(row for row in rows if row.help)
    lines = [_synopsis(command), "", _PURPOSES[command], "", "Options:"]
    lines += [line for row in shown for line in _entry(row)]
    for heading, treatment in (
        ("Accepted, without effect on the local engine:", "no-op"),
        ("Refused by the local engine:", "refused"),
    ):
        names = sorted(
            f"--{row.name}" for row in rows if row.treatment.partition(":")[0] == treatment
        )
        if names:
            lines += ["", heading, *_fill(names, "  ", "  ")]
    return "\n".join(lines) + "\n"


def usage_text(command: str) -> str:
    """What ``--usage`` prints: the honoured options, without their meaning."""
    words = [f"[{_spelling(row)}]" for row in _rows(command) if row.help]
    if _OPERANDS[command]:
        words += _OPERANDS[command].split()
    head = f"Usage: {command} "
    return "\n".join(_fill(words, head, " " * len(head))) + "\n"


def on_cluster(command: str, *, usage: bool) -> str:
    """What follows Slurm's own --help, or --usage, where commands are for a real Slurm: the options
    that it does not know."""
    ours = [row for row in _rows(command) if row.help and _is_ours(row.name)]
    shown = _by_name([_STAGE, *(row for row in ours if row.name not in rewrite.REFUSED)])
    if usage:
        words = [f"[{_spelling(row)}]" for row in shown]
        head = "       Roadstead's: "
        return "\n".join(_fill(words, head, " " * len(head))) + "\n"
    lines = ["", "Roadstead's options, for containers on any node of the job:"]
    lines += [line for row in shown for line in _entry(row)]
    lines += ["", "See roadstead(1), docs/slurm.md, and `roadstead jobs` for what ran in them."]
    return "\n".join(lines) + "\n"


def _is_ours(name: str) -> bool:
    return is_about_containers(name) or name.startswith(("dockerd", "podman-service"))


def _by_name(rows: Iterable[Option]) -> list[Option]:
    return sorted(rows, key=lambda row: row.name.lower())


def version_text(command: str) -> str:
    """What ``-V`` prints; any name that is not a Slurm command's is ours."""
    return f"slurm {SLURM_VERSION}\n" if command in COMMANDS else f"roadstead {__version__}\n"


def _rows(command: str) -> list[Option]:
    return rows(command)


def _synopsis(command: str) -> str:
    return f"Usage: {command} [option...] {_OPERANDS[command]}".rstrip()


def _value(row: Option) -> str:
    if row.arg == NO_ARG:
        return ""
    return f"[={row.metavar}]" if row.arg == OPTIONAL else f"={row.metavar}"


def _spelling(row: Option) -> str:
    """The shortest way to write it: ``-n number``, ``-I[seconds]``, ``--mem=size``."""
    if not row.short:
        return f"--{row.name}{_value(row)}"
    value = _value(row).replace("=", "")
    return f"-{row.short}{'' if row.arg == OPTIONAL or not value else ' '}{value}"


def _entry(row: Option) -> list[str]:
    letter = f"-{row.short}," if row.short else "   "
    left = f"  {letter} --{row.name}{_value(row)}"
    if len(left) < _COLUMN:
        return _fill(row.help.split(), left.ljust(_COLUMN), " " * _COLUMN)
    return [left, *_fill(row.help.split(), " " * _COLUMN, " " * _COLUMN)]


def _fill(words: list[str], first: str, following: str) -> list[str]:
    """Lines of whole words, at most _WIDTH wide where the words allow it."""
    lines: list[str] = []
    line = first
    empty = True
    for word in words:
        if not empty and len(line) + 1 + len(word) > _WIDTH:
            lines.append(line)
            line, empty = following, True
        line += word if empty else f" {word}"
        empty = False
    return [*lines, line]
