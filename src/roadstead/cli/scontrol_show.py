"""scontrol show: what the controller knows of a job, a step, a node …, in full.

``show job 7`` is also ``show job=7``, and what is to be shown may be cut short where Slurm lets it
be.  Slurm's sentences for what is not there go where Slurm sends them: of a job to standard error,
of a node, a partition or a step to standard output; the exit code is 1 for all.
"""

from __future__ import annotations

import os

from roadstead.cli import report, show, words
from roadstead.core import hostlist
from roadstead.errors import RequestError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, TypeAlias

    from roadstead.cli.inquiry import Inquiry
    from roadstead.cli.words import View

    Entity: TypeAlias = "Callable[[Session, str], int]"


class Session:
    """How answers are wanted, and whom to ask: of one command line, or of all that are typed."""

    __slots__ = ("ask", "clock", "details", "environ", "one_line", "query", "quiet")

    def __init__(self, inquiry: Inquiry) -> None:
        self.ask, self.query = inquiry.ask, inquiry.query
        self.clock, self.environ = inquiry.clock, inquiry.environ
        self.one_line = "oneliner" in inquiry
        self.details = "details" in inquiry
        self.quiet = "quiet" in inquiry

    @property
    def host(self) -> str:
        return os.uname().nodename

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


def begins(word: str, name: str, least: int) -> bool:
    """Whether a word is the beginning of a name, of at least so many letters."""
    return len(word) >= least and name.startswith(word)


def run(session: Session, operands: list[str]) -> int:
    """``show ENTITY [ID]``."""
    if not operands:
        raise UsageError("too few arguments for keyword:show", hint=_entities())
    if len(operands) > 2:
        raise UsageError("too many arguments for keyword:show", hint="show one at a time")
    tag, equals, ident = operands[0].partition("=")
    if not equals:
        ident = operands[1] if operands[1:] else ""
    word = tag.lower()
    for name, least, entity in _ENTITIES:
        if begins(word, name, least):
            return entity(session, ident)
    raise UsageError(f"invalid entity:{tag} for keyword:show", hint=_entities())


def _entities() -> str:
    return f"show knows {', '.join(ENTITIES)}"


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _job(session: Session, ident: str) -> int:
    text, underscore, task = ident.replace("+", "_").partition("_")
    number = _number(text)
    if ident and (number is None or (underscore and _number(task) is None)):
        return session.missing("scontrol_print_job error: Invalid job id specified", on_stderr=True)
    jobs = session.query("jobs", number, ended=True)
    if underscore:
        jobs = [view for view in jobs if words.job_id(view) == ident]
    else:
        jobs = words.together(jobs)
    if ident and not jobs:
        return session.missing("slurm_load_jobs error: Invalid job id specified", on_stderr=True)
    if not jobs:
        report.write_out("No jobs in the system\n")
    host = session.host
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
    report.write_out("".join(show.license(view, one_line=session.one_line) for view in found))
    return 0


def _config(session: Session, ident: str) -> int:
    if ident:
        raise UsageError("too many arguments for keyword:show", hint="show config takes none")
    text = show.config(session.query("config"), session.clock)
    report.write_out(f"{text}\nSlurmctld(primary) at {session.host} is UP\n")
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


def _reservations(session: Session, ident: str) -> int:
    if ident:
        return session.missing(f"Reservation {ident} not found")
    report.write_out("No reservations in the system\n")
    return 0


def _nothing(session: Session, ident: str) -> int:
    """Of burst buffers, federations and the like Slurm says nothing where there are none."""
    return 0


def _topology(session: Session, ident: str) -> int:
    what = f"Topology information contains no switch or node named {ident}" if ident else ""
    report.warn("scontrol", what or "No topology information available")
    return 0


def _daemons(session: Session, ident: str) -> int:
    report.write_out("slurmctld slurmd\n")  # what this host would have: the engine does both's work
    return 0


def _aliases(session: Session, ident: str) -> int:
    """The nodes that a host has."""
    if not ident or ident == session.host:
        names = [view["name"] for view in session.query("nodes")]
        report.write_out(f"{hostlist.fold(names)}\n")
    return 0


def _frontends(session: Session, ident: str) -> int:
    report.write_out("No nodes in the system\n")
    return 0


def _no_daemon(session: Session, ident: str) -> int:
    raise RequestError("there is no slurmd: the engine runs steps itself", hint="scontrol ping")


def _associations(session: Session, ident: str) -> int:
    raise RequestError("assoc_mgr: the local engine has no associations of users and accounts")


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
    ("reservations", 1, _reservations),
    ("topology", 1, _topology),
    ("daemons", 1, _daemons),
    ("aliases", 1, _aliases),
    ("assoc_mgr", 2, _associations),
    ("frontend", 2, _frontends),
    ("slurmd", 2, _no_daemon),
    ("federation", 2, _nothing),
    ("burstbuffer", 2, _nothing),
    ("bbstat", 2, _nothing),
    ("dwstat", 2, _nothing),
)
ENTITIES: Final = tuple(dict.fromkeys(name for name, _, _ in _ENTITIES))
