"""What the commands that only ask have in common: squeue, sinfo, sacct, scontrol and the like.

Each reads its options, says its help, and then answers from what the engine knows.  An ``Inquiry``
is one such command line: what was asked for, whom to ask, and the time that answers are about.
With --iterate it is answered again and again, and the date stands above each answer.
"""

from __future__ import annotations

import sys
import time

from roadstead.cli import options, report
from roadstead.cli.words import Clock
from roadstead.core import names, values
from roadstead.engines import choice, local
from roadstead.errors import RoadsteadError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from roadstead.cli.table import Layout
    from roadstead.cli.words import Ask, View


class Inquiry:
    """One command line of a command that asks."""

    __slots__ = ("argv", "ask", "asked", "clock", "command", "environ", "operands")

    def __init__(
        self,
        command: str,
        argv: list[str],
        gathered: tuple[dict[str, str], list[str]],
        ask: Ask,
        environ: Mapping[str, str],
        now: float | None,
    ) -> None:
        self.command, self.argv, self.ask, self.environ = command, argv, ask, environ
        self.asked, self.operands = gathered
        self.clock = Clock(
            time.time() if now is None else now,
            environ.get("SLURM_TIME_FORMAT", ""),
            convert="noconvert" not in self.asked,
        )

    def __contains__(self, option: str) -> bool:
        return option in self.asked

    def query(self, what: str, job_id: int | None = None, *, ended: bool = False) -> Any:
        """All of one kind, as the engine knows them."""
        request = {"op": "query", "what": what, "job_id": job_id, "all": ended}
        return self.ask(request)[what]

    def no_operands(self, sentence: str = "Unrecognized option: {}") -> None:
        """Raise UsageError where words are left that no option takes."""
        if self.operands:
            raise UsageError(
                sentence.format(self.operands[0]),
                hint=f'Try "{self.command} --help" for more information',
            )

    def check_cluster(self) -> None:
        """Raise RoadsteadError for a cluster of another name than this engine's."""
        for name in self.asked["clusters"].split(","):
            if name not in (names.CLUSTER, "all"):
                raise RoadsteadError(
                    f"No cluster '{name}' known by database.",
                    hint=f"the local engine is one cluster, {names.CLUSTER}",
                )

    def formats(self) -> list[str]:
        """Which of --format and --Format the command line has, in order; not with --long."""
        pairs, _ = options.parse(self.command, self.argv)
        given = [name for name, _ in pairs if name in ("format", "Format")]
        if given and "long" in self:
            short = "o" if given[0] == "format" else "O"
            raise UsageError(
                f"Options -{short}(--{given[0]}) and -l(--long) are mutually exclusive. "
                "Please remove one and retry."
            )
        return given

    def write_table(self, layout: Layout, views: list[View]) -> None:
        """Print a line for each, under headings and the date where they are wanted."""
        self.write_lines(layout, layout.lines(views, self.clock))

    def write_lines(self, layout: Layout, lines: list[str]) -> None:
        """Print these lines, under headings and the date where they are wanted."""
        headings = "noheader" not in self
        dated = headings and ("long" in self or "iterate" in self)
        date = f"{self.clock.date()}\n" if dated else ""
        if headings and "clusters" in self:
            date = f"CLUSTER: {names.CLUSTER}\n{date}"
        top = [date + layout.header()] if headings else []
        report.write_out("\n".join([*top, *lines, ""]))


def run(
    command: str,
    argv: list[str] | None,
    answer: Callable[[Inquiry], int],
    ask: Ask,
    environ: Mapping[str, str],
    now: float | None,
) -> int:
    """Run a command that asks with ``argv`` (without the program's name); its exit code."""
    given = sys.argv[1:] if argv is None else argv

    def body() -> int:
        if ask is local.ask:
            choice.hand_over(command, given, environ)
        gathered = options.gather(command, given, environ)
        if report.informational(command, gathered[0]):
            return 0
        report.explain(command, gathered[0])
        inquiry = Inquiry(command, given, gathered, ask, environ, now)
        if "clusters" in inquiry and command != "sacct":  # to which it is a filter
            inquiry.check_cluster()
        if "iterate" in inquiry:
            return _again_and_again(inquiry, answer)
        return answer(inquiry)

    return report.run(command, body)


def _again_and_again(inquiry: Inquiry, answer: Callable[[Inquiry], int]) -> int:
    text = inquiry.asked["iterate"]
    if not values.is_number(text) or not int(text):
        raise RoadsteadError(f"--iterate={text}", hint="write a number of seconds")
    while True:
        operands, asked = list(inquiry.operands), dict(inquiry.asked)
        code = answer(inquiry)
        if code:
            return code
        report.write_out("\n")
        inquiry.operands, inquiry.asked = operands, asked  # of which answering takes some away
        time.sleep(int(text))
        inquiry.clock = Clock(time.time(), inquiry.clock.style, convert=inquiry.clock.convert)
