"""scontrol: show what the controller knows of a job, a step, a node …, in full; and change it.

A command line is a keyword, what it is about, and an id: ``show job 7``, also ``show job=7``.
Keywords may be cut short where Slurm lets them be (``sho jo 7``), and options may follow them.
Slurm's sentences for what is not there go where Slurm sends them: of a job to standard error, of a
node, a partition or a step to standard output; the exit code is 1 for all.

Keywords that change things are in control.py; some are refused by name until they are there.
"""

from __future__ import annotations

import os

from roadstead.cli import control, inquiry, report, show, words
from roadstead.cli.control import VERBS
from roadstead.core import hostlist
from roadstead.engines import local
from roadstead.errors import EngineError, RequestError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Final, TypeAlias

    from roadstead.cli.inquiry import Inquiry
    from roadstead.cli.words import Ask, View

    Entity: TypeAlias = "Callable[[Session, str], int]"

COMMAND: Final = "scontrol"

# Slurm's keywords that are not here yet.
_LATER: Final = (
    *("abort", "all", "cancel_reboot", "cluster", "completing", "create", "delete", "details"),
    *("errnumstr", "exit", "fsdampeningfactor", "hide", "listpids", "notify", "oneliner"),
    *("pidinfo", "quiet", "quit", "reboot", "schedloglevel", "setdebug", "setdebugflags"),
    *("shutdown", "takeover", "token", "top", "verbose", "wait_job", "write"),
)
# What there is none of, and how Slurm says so.
_NONE: Final[dict[str, str]] = {
    "federation": "",
    "reservations": "No reservations in the system\n",
}


class Session:
    """One command line: how it wants its answers, and whom to ask."""

    __slots__ = ("ask", "clock", "details", "environ", "one_line", "query", "quiet")

    def __init__(self, inquiry: Inquiry) -> None:
        self.ask, self.query = inquiry.ask, inquiry.query
        self.clock, self.environ = inquiry.clock, inquiry.environ
        self.one_line = "oneliner" in inquiry
        self.details = "details" in inquiry
        self.quiet = "quiet" in inquiry

    def records(self, records: list[list[str]]) -> int:
        """Print records."""
        report.write_out("".join(show.record(lines, one_line=self.one_line) for lines in records))
        return 0

    def missing(self, sentence: str, *, on_stderr: bool = False) -> int:
        """Say that what was asked for is not there."""
        if not self.quiet:
            if on_stderr:
                report.write_line(sentence)
            else:
                report.write_out(f"{sentence}\n")
        return 1


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
    session, operands = Session(inquiry), inquiry.operands
    if not operands:
        raise UsageError("no keyword given", hint=_known())
    word, rest = operands[0].lower(), operands[1:]
    if _begins(word, "show", 3):
        return _show(session, rest)
    if _begins(word, "ping", 3):
        return _ping(session, rest)
    if word in ("version", "help"):
        report.informational(COMMAND, {word: "1"})
        return 0
    verb = control.named(word)
    if verb:
        return VERBS[verb](session.ask, verb, rest)
    if word in _LATER:
        raise RequestError(f"{word}: not supported yet by the local engine", hint=_known())
    raise UsageError(f"invalid keyword: {operands[0]}", hint=_known())


def _known() -> str:
    return f"the keywords here are show, ping, version, help, {', '.join(VERBS)}"


def _begins(word: str, name: str, least: int) -> bool:
    return len(word) >= least and name.startswith(word)


def _show(session: Session, operands: list[str]) -> int:
    if not operands:
        raise UsageError("too few arguments for keyword:show", hint=_entities())
    if len(operands) > 2:
        raise UsageError("too many arguments for keyword:show", hint="show one at a time")
    tag, equals, ident = operands[0].partition("=")
    if not equals:
        ident = operands[1] if operands[1:] else ""
    word = tag.lower()
    for name, least, entity in _ENTITIES:
        if _begins(word, name, least):
            return entity(session, ident)
    for name, sentence in _NONE.items():
        if _begins(word, name, 3):
            report.write_out(sentence)
            return 0
    raise UsageError(f"invalid entity:{tag} for keyword:show", hint=_entities())


def _entities() -> str:
    return f"show knows {', '.join(dict.fromkeys(name for name, _, _ in _ENTITIES))}"


def _ping(session: Session, operands: list[str]) -> int:
    if operands:
        raise UsageError("too many arguments for keyword:ping")
    try:
        session.ask({"op": "ping"})
    except EngineError:
        report.write_out(f"Slurmctld(primary) at {_host()} is DOWN\n")
        raise
    report.write_out(f"Slurmctld(primary) at {_host()} is UP\n")
    return 0


def _host() -> str:
    return os.uname().nodename


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _job(session: Session, ident: str) -> int:
    text, underscore, task = ident.partition("_")
    number = _number(text)
    if ident and (number is None or (underscore and _number(task) is None)):
        return session.missing("scontrol_print_job error: Invalid job id specified", on_stderr=True)
    jobs = session.query("jobs", number, ended=True)
    if underscore:
        jobs = [view for view in jobs if words.job_id(view) == ident]
    if ident and not jobs:
        return session.missing("slurm_load_jobs error: Invalid job id specified", on_stderr=True)
    if not jobs:
        report.write_out("No jobs in the system\n")
    host = _host()
    return session.records(
        [show.job(view, session.clock, host, details=session.details) for view in jobs]
    )


def _step(session: Session, ident: str) -> int:
    job, dot, _ = ident.partition(".")
    number = _number(job)
    if ident and number is None:
        return session.missing(f"Job step {ident} not found")
    # A step that waits in its job is not shown: scripts take what is shown for started.
    steps = [view for view in session.query("steps") if view["start_time"] is not None]
    if not ident:
        if not steps:
            report.write_out("No job steps in the system\n")
    elif not dot:
        steps = [view for view in steps if view["job_id"] == number]
    else:
        steps = [view for view in steps if words.step_id(view) == ident]
    if ident and not steps:
        if not session.query("jobs", number, ended=True):
            sentence = "slurm_get_job_steps error: Invalid job id specified"
            return session.missing(sentence, on_stderr=True)
        return session.missing(f"Job step {ident} not found")
    return session.records([show.step(view, session.clock) for view in steps])


def _node(session: Session, ident: str) -> int:
    nodes: list[View] = session.query("nodes")
    code = 0
    if ident:
        by_name = {view["name"]: view for view in nodes}
        names = hostlist.expand(ident)
        nodes = [by_name[name] for name in names if name in by_name]
        for name in names:
            if name not in by_name:
                code = session.missing(f"Node {name} not found")
    members = [
        (partition["name"], hostlist.expand(partition["nodes"]))
        for partition in session.query("partitions")
    ]
    records = []
    for view in nodes:
        partitions = [name for name, hosts in members if view["name"] in hosts]
        records.append(show.node(view, session.clock, partitions, details=session.details))
    session.records(records)
    return code


def _partition(session: Session, ident: str) -> int:
    partitions: list[View] = session.query("partitions")
    if ident:
        partitions = [view for view in partitions if view["name"] == ident]
        if not partitions:
            return session.missing(f"Partition {ident} not found")
    return session.records([show.partition(view, session.clock) for view in partitions])


def _licenses(session: Session, ident: str) -> int:
    found: list[View] = session.query("licenses")
    if ident:
        found = [view for view in found if view["name"] == ident]
    if not found:
        report.write_out("No licenses configured in Slurm.\n")
    return session.records([show.license(view) for view in found])


def _config(session: Session, ident: str) -> int:
    if ident:
        raise UsageError("too many arguments for keyword:show", hint="show config takes none")
    text = show.config(session.query("config"), session.clock)
    report.write_out(f"{text}\nSlurmctld(primary) at {_host()} is UP\n")
    return 0


def _hostnames(session: Session, ident: str) -> int:
    named = ("SLURM_JOB_NODELIST", "SLURM_NODELIST")
    text = ident or next((session.environ[name] for name in named if session.environ.get(name)), "")
    if not text:
        raise UsageError("host list is empty", hint="give one, or set SLURM_JOB_NODELIST")
    report.write_out("".join(f"{name}\n" for name in hostlist.expand(text)))
    return 0


def _hostlist(session: Session, ident: str) -> int:
    return _fold(_listed(ident))


def _sorted_hostlist(session: Session, ident: str) -> int:
    return _fold(sorted(_listed(ident), key=words.natural))


def _fold(names: list[str]) -> int:
    report.write_out(f"{hostlist.fold(names)}\n")
    return 0


def _listed(text: str) -> list[str]:
    """Names from the command line, or from the file of that path."""
    if not text:
        raise UsageError("invalid encode argument", hint="give names, or the path of a file")
    if not text.startswith("/"):
        return hostlist.expand(text)
    try:
        with open(text, encoding="utf-8", errors="surrogateescape") as file:
            return hostlist.expand(",".join(file.read().split()))
    except OSError as error:
        raise RequestError(f"Can not open {text}: {error.strerror}") from None


# What can be shown: its name, how little of it will do, and what shows it.
_ENTITIES: Final[tuple[tuple[str, int, Entity], ...]] = (
    ("jobs", 1, _job),
    ("jobid", 4, _job),
    ("steps", 2, _step),
    ("nodes", 1, _node),
    ("partitions", 2, _partition),
    ("config", 1, _config),
    ("licenses", 3, _licenses),
    ("hostnames", 5, _hostnames),
    ("hostlist", 5, _hostlist),
    ("hostlistsorted", 9, _sorted_hostlist),
)
