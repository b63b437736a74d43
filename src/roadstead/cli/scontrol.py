"""scontrol: show what the controller knows, and change it; one command, or a prompt for many.

A command is a keyword, what it is about, and an id.  Keywords may be cut short where Slurm lets
them be (``sho jo 7``), and options may follow them.  What is shown is in scontrol_show.py, what
changes something in control.py; a keyword that cannot be served is refused by name, with a reason.

Without a command it reads commands from standard input until ``exit``; ``!!`` is the last again.
"""

from __future__ import annotations

import os
import sys

from roadstead.cli import control, inquiry, report, scontrol_show, words
from roadstead.cli.control import VERBS
from roadstead.cli.scontrol_show import Session, begins
from roadstead.engines import local
from roadstead.errors import EngineError, RequestError, RoadsteadError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Final, TypeAlias

    from roadstead.cli.inquiry import Inquiry
    from roadstead.cli.words import Ask, View

    Keyword: TypeAlias = Callable[[Session, list[str]], int]

COMMAND: Final = "scontrol"

_ONE_MACHINE: Final = "the local engine is this machine, which is not its to restart"
_NO_DAEMON: Final = "there are no daemons of a site; roadstead engine stop ends the controller"
_LEVELS: Final = "the controller writes one log, of one level"
# Keywords that cannot be served, and why.
REFUSED: Final[dict[str, str]] = {
    "abort": _NO_DAEMON,
    "cancel_reboot": _ONE_MACHINE,
    "fsdampeningfactor": "the local engine keeps no shares of users",
    "reboot": _ONE_MACHINE,
    "schedloglevel": _LEVELS,
    "setdebug": _LEVELS,
    "setdebugflags": _LEVELS,
    "shutdown": _NO_DAEMON,
    "takeover": "there is no second controller",
    "token": "the kernel vouches for users; there are no tokens",
}
# Slurm's numbers for errors that scripts ask for (slurm_errno.h).
_ERRORS: Final = {
    2000: "Invalid partition name specified",
    2014: "Requested node configuration is not available",
    2017: "Invalid job id specified",
    2021: "Job/step already completing or completed",
    2022: "Job is pending execution",
    2035: "Job is no longer pending execution",
    2052: "Job dependency problem",
    2072: "Invalid generic resource (gres) specification",
}


def main(
    argv: list[str] | None = None,
    ask: Ask = local.ask,
    *,
    environ: Mapping[str, str] = os.environ,
    now: float | None = None,
) -> int:
    """Run scontrol with ``argv`` (without the program's name); its exit code."""
    return inquiry.run(COMMAND, argv, _answer, ask, environ, now)


def _answer(inquiry: Inquiry) -> int:
    session = Session(inquiry)
    if inquiry.operands:
        return _do(session, inquiry.operands)
    return _converse(session)


def _converse(session: Session) -> int:
    """Do what is typed, line by line; the exit code is 1 if anything failed.

    What comes from a file or a pipe stands in the output behind its prompt, as with Slurm: so a
    transcript can be read.
    """
    import shlex  # which imports re: for those who type

    last: list[str] = []
    code = 0
    echo = not sys.stdin.isatty()
    while True:
        report.write_out("scontrol: ")
        line = sys.stdin.readline()
        if not line or echo:
            report.write_out(line if line.endswith("\n") else f"{line}\n")
        if not line:
            return code
        try:
            operands = shlex.split(line)
            if operands == ["!!"]:
                operands = last
            if operands and operands[0].lower() in ("exit", "quit"):
                return code
            last = operands
            if operands:
                code |= int(_do(session, operands) != 0)
        except (RoadsteadError, ValueError) as error:
            failure = error if isinstance(error, RoadsteadError) else UsageError(f"{error}")
            code |= int(report.fail(COMMAND, failure) != 0)


def _do(session: Session, operands: list[str]) -> int:
    word, rest = operands[0].lower(), operands[1:]
    for name, least, keyword in KEYWORDS:
        if begins(word, name, least):
            return keyword(session, rest)
    verb = control.named(word)
    if verb:
        return VERBS[verb](session.ask, verb, rest)
    if word in REFUSED:
        raise RequestError(f"{word}: {REFUSED[word]}")
    raise UsageError(f"invalid keyword: {operands[0]}", hint=_known())


def _known() -> str:
    names = [name for name, _, _ in KEYWORDS]
    return f"the keywords here are {', '.join([*names, *VERBS])}"


def _few(keyword: str, operands: list[str], least: int, most: int, usage: str) -> None:
    """Raise UsageError for too few or too many operands."""
    if not least <= len(operands) <= most:
        what = "few" if len(operands) < least else "many"
        raise UsageError(f"too {what} arguments for keyword:{keyword}", hint=f"scontrol {usage}")


def _ping(session: Session, operands: list[str]) -> int:
    _few("ping", operands, 0, 0, "ping")
    try:
        session.ask({"op": "ping"})
    except EngineError:
        report.write_out(f"Slurmctld(primary) at {session.host} is DOWN\n")
        raise
    report.write_out(f"Slurmctld(primary) at {session.host} is UP\n")
    return 0


def _completing(session: Session, operands: list[str]) -> int:
    """Jobs that have ended, and whose last processes have not."""
    for job in session.query("jobs"):
        if job["state"] == "COMPLETING":
            ended = session.clock.moment(job["end_time"], "Unknown")
            report.write_out(
                f"JobId={words.job_id(job)} EndTime={ended} Nodes(COMPLETING)={job['node']}\n"
            )
    return 0


def _listpids(session: Session, operands: list[str]) -> int:
    from roadstead.cli import processes

    return processes.listpids(session, operands)


def _pidinfo(session: Session, operands: list[str]) -> int:
    from roadstead.cli import processes

    return processes.pidinfo(session, operands)


def _write(session: Session, operands: list[str]) -> int:
    """``write batch_script JOB [FILE]``; ``-`` is standard output."""
    _few("write", operands, 2, 3, "write batch_script JOBID [FILE]")
    what, ident = operands[0].lower(), operands[1]
    if begins(what, "config", 1):
        raise RequestError("write config: roadstead.conf is the configuration, in your own words")
    if not begins(what, "batch_script", 1):
        raise UsageError(f"invalid write argument:{operands[0]}", hint="batch_script JOBID [FILE]")
    script = _script(session, ident)
    if script is None:
        return session.missing(
            "job script retrieval failed: Invalid job id specified", on_stderr=True
        )
    name = operands[2] if operands[2:] else f"slurm-{ident}.sh"
    if name == "-":
        report.write_out(script)
        return 0
    try:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o700)
        with open(fd, "wb") as file:
            file.write(script.encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise RequestError(f"failed to create script file `{name}`: {error.strerror}") from None
    if not session.quiet:
        report.write_out(f"batch script for job {ident} written to {name}\n")
    return 0


def _script(session: Session, ident: str) -> str | None:
    """What a batch job was submitted with, while it is kept; None for what has none."""
    number = ident.replace("+", "_").partition("_")[0]
    if not (number.isascii() and number.isdigit() and len(number) < 19):
        return None
    request = {"op": "query", "what": "jobs", "job_id": int(number), "details": True}
    jobs: list[View] = session.ask(request)["jobs"]
    found = [job for job in jobs if ident in (words.job_id(job), number)]
    return (found[0].get("script") or None) if found else None


def _errnumstr(session: Session, operands: list[str]) -> int:
    """What an error's number stands for."""
    _few("errnumstr", operands, 1, 1, "errnumstr NUMBER")
    number = operands[0]
    if not (number.isascii() and number.isdigit() and len(number) < 10):
        raise UsageError(f"invalid error number: {number}", hint="scontrol errnumstr 2017")
    report.write_out(f"{_ERRORS.get(int(number)) or os.strerror(int(number))}\n")
    return 0


def _informational(name: str) -> Keyword:
    def keyword(session: Session, operands: list[str]) -> int:
        report.informational(COMMAND, {name: "1"})
        return 0

    return keyword


def _setting(keyword: str, **values: bool) -> Keyword:
    """A keyword that says how answers are wanted from now on."""

    def setting(session: Session, operands: list[str]) -> int:
        _few(keyword, operands, 0, 0, keyword)
        for name, value in values.items():
            setattr(session, name, value)
        return 0

    return setting


def _cluster(session: Session, operands: list[str]) -> int:
    """There is one."""
    if operands:
        raise RequestError(f"No cluster '{operands[0]}' known by database.")
    return 0


# Keywords that change nothing: the name, how little of it will do, and what does it.
KEYWORDS: Final[tuple[tuple[str, int, Keyword], ...]] = (
    ("show", 3, scontrol_show.run),
    ("ping", 3, _ping),
    ("completing", 3, _completing),
    ("listpids", 1, _listpids),
    ("pidinfo", 3, _pidinfo),
    ("write", 1, _write),
    ("errnumstr", 2, _errnumstr),
    ("version", 4, _informational("version")),
    ("help", 2, _informational("help")),
    ("oneliner", 1, _setting("oneliner", one_line=True)),
    ("details", 3, _setting("details", details=True)),
    ("quiet", 4, _setting("quiet", quiet=True)),
    ("verbose", 4, _setting("verbose", quiet=False)),
    ("all", 3, _setting("all")),
    ("hide", 2, _setting("hide")),
    ("cluster", 2, _cluster),
    ("exit", 1, _setting("exit")),
    ("quit", 4, _setting("quit")),
)
