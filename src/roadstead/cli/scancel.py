"""scancel: end jobs and steps, or send them a signal.

Ids are sent to the controller as they are; where there are filters, or where the user wants to be
asked, the jobs are listed first and the ids of those that pass are sent.

Slurm is quiet about plain cancelling: an unknown or ended job id is no failure and not mentioned
without -v, because scripts cancel what may have ended by itself.  With a signal, a step or a filter
it is one.
"""

from __future__ import annotations

import os
import sys

from roadstead.cli import options, report, words
from roadstead.core import hostlist, values
from roadstead.core.printable import printable
from roadstead.engines import choice, local
from roadstead.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

    from roadstead.cli.words import Ask, View

COMMAND: Final = "scancel"

_UNKNOWN: Final = "Invalid job id specified"
_STATES: Final = ("PENDING", "RUNNING", "SUSPENDED")
# What Slurm calls the filters when nothing passes them, in its order.
_FILTERS: Final[dict[str, str]] = {
    "name": "job_name",
    "partition": "partition",
    "state": "state",
    "user": "user_name",
    "nodelist": "nodelist",
}


class Request:
    """One command line, understood."""

    __slots__ = ("asked", "batch", "full", "ids", "quiet", "signal", "verbose")

    def __init__(self, asked: dict[str, str], operands: list[str]) -> None:
        self.asked = asked
        self.ids = [_checked(part) for word in operands for part in hostlist.split(word) if part]
        self.signal = values.signal_number(asked["signal"]) if "signal" in asked else None
        self.batch = "batch" in asked
        self.full = "full" in asked
        self.quiet = "quiet" in asked
        self.verbose = "verbose" in asked and not self.quiet
        if "me" in asked:
            asked["user"] = str(os.getuid())

    @property
    def filtered(self) -> bool:
        return any(name in self.asked for name in _FILTERS)

    @property
    def special(self) -> bool:
        """Whether this is more than cancelling jobs by their ids."""
        chosen = self.filtered or "interactive" in self.asked
        return chosen or self.batch or self.signal is not None

    def announce(self, ident: str) -> None:
        """With -v, say what is about to be done."""
        if not self.verbose:
            return
        what = "step" if "." in ident else "batch job" if self.batch else "job"
        done = "Terminating" if self.signal is None else f"Signal {self.signal} to"
        report.write_line(f"{COMMAND}: {done} {what} {ident}")

    def complain(self, ident: str, sentence: str) -> int:
        """Say, if it matters, that one job or step could not be cancelled; the exit code."""
        matters = self.special or "." in ident
        if self.verbose or (matters and not self.quiet):
            report.warn(COMMAND, sentence)
        return int(matters)

    def unknown(self, ident: str) -> int:
        """Say, if it matters, that there is no such job or step; the exit code."""
        what = "job step id" if "." in ident else "job id"
        return self.complain(ident, f"Kill job error on {what} {ident}: {_UNKNOWN}")


def main(
    argv: list[str] | None = None,
    ask: Ask = local.ask,
    *,
    environ: Mapping[str, str] = os.environ,
) -> int:
    """Run scancel with ``argv`` (without the program's name); its exit code."""
    given = sys.argv[1:] if argv is None else argv
    return report.run(COMMAND, lambda: _run(given, ask, environ))


def _run(argv: list[str], ask: Ask, environ: Mapping[str, str]) -> int:
    if ask is local.ask:
        choice.hand_over(COMMAND, argv, environ)
    asked, operands = options.gather(COMMAND, argv, environ)
    if report.informational(COMMAND, asked):
        return 0
    report.explain(COMMAND, asked)
    request = Request(asked, operands)
    if not request.ids and not request.filtered:
        raise UsageError("No job identification provided", hint="give job ids, or --me for all")
    code, ids = 0, request.ids
    if request.filtered or "interactive" in asked:
        code, ids = _chosen(request, ask)
    sent = []
    for ident in ids:
        request.announce(ident)
        sent.append(ident)
    if not sent:
        return code
    answer = ask(
        {
            "op": "cancel",
            "jobs": sent,
            "signal": request.signal,
            "batch": request.batch,
            "full": request.full,
            "user": None,
            "name": None,
            "state": None,
            "partition": None,
        }
    )
    for error in answer["errors"]:
        code = max(code, request.complain(str(error["job"]), error["sentence"]))
    return code


def _checked(text: str) -> str:
    """``text`` if it has the form of a job or step id.  Jobs have the numbers from 1 on."""
    job, dot, step = text.partition(".")
    number, _, index = job.replace("+", "_").partition("_")
    numbers = [number, *(index.strip("[]").replace("-", ",").split(",") if index else ["0"])]
    if dot and step not in words.STEP_NAMES:
        numbers.append(step)
    if not all(part.isascii() and part.isdigit() and len(part) < 19 for part in numbers):
        raise UsageError(f"Invalid job id {text}")
    if not int(number):
        raise UsageError(f"Invalid job id {text}")
    return text


def _chosen(request: Request, ask: Ask) -> tuple[int, list[str]]:
    """The ids that pass the filters and to which the user says yes, and the exit code so far."""
    answer = ask({"op": "query", "what": "jobs", "job_id": None, "all": False})
    jobs: dict[str, View] = {words.job_id(view): view for view in answer["jobs"]}
    code, ids = 0, []
    passing = _passing(request.asked, jobs)
    whole = {str(view["array_job_id"] or view.get("het_job_id")) for view in answer["jobs"]}
    named = [
        each
        for ident in request.ids
        for each in (
            [n for n in jobs if n.startswith((f"{ident}_", f"{ident}+"))]
            if ident in whole
            else [ident]
        )
    ]
    for ident in named or passing:
        job = ident.partition(".")[0]
        if job not in jobs:
            code = max(code, request.unknown(ident))
        elif job in passing and ("interactive" not in request.asked or _agreed(ident, jobs[job])):
            ids.append(ident)
    if request.verbose and not passing:
        listed = " ".join(
            f"{shown}={request.asked[name]}"
            for name, shown in _FILTERS.items()
            if name in request.asked
        )
        report.warn(COMMAND, f"No active jobs match ALL job filters, including: {listed} ")
    return code, ids


def _passing(asked: dict[str, str], jobs: dict[str, View]) -> list[str]:
    """The ids of the jobs that pass all filters."""
    wanted: dict[str, object] = {
        name: asked[name] for name in ("name", "partition") if name in asked
    }
    if "state" in asked:
        wanted["state"] = _state(asked["state"])
    if "user" in asked:
        wanted["uid"] = _uid(asked["user"])
    nodes = hostlist.expand(asked.get("nodelist", ""))
    return [
        ident
        for ident, view in jobs.items()
        if all(view[key] == value for key, value in wanted.items())
        and (not nodes or not set(nodes).isdisjoint(hostlist.expand(view["node"])))
    ]


def _state(text: str) -> str:
    upper = text.upper()
    for state in _STATES:
        if upper in (state, words.STATES[state]):
            return state
    raise UsageError(
        f"Invalid job state specified: {text}",
        hint="Valid job states are PENDING, RUNNING, and SUSPENDED",
    )


def _uid(text: str) -> int:
    import pwd

    if text.isascii() and text.isdigit():
        return int(text)
    try:
        return pwd.getpwnam(text).pw_uid
    except KeyError:
        raise UsageError(f"Invalid user name: {text}") from None


def _agreed(ident: str, view: View) -> bool:
    """Ask the user on the terminal; the end of input is a no."""
    kind = "step_id" if "." in ident else "job_id"
    question = f"Cancel {kind}={ident} name={view['name']} partition={view['partition']} [y/n]? "
    while True:
        report.write_out(printable(question))
        answer = sys.stdin.readline() if sys.stdin else ""
        if not answer or answer[0] in "nN":
            return False
        if answer[0] in "yY":
            return True
