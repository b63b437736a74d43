"""roadstead runtime test: the Containers Guide's test of the OCI runtime, through the commands that
are configured.  What is done is in step/trial.py; here it is told, as it happens.
"""

from __future__ import annotations

import os
import shlex

from roadstead.cli import report
from roadstead.errors import RoadsteadError, UsageError
from roadstead.step import trial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from roadstead.step.trial_case import Done

USAGE: Final = "roadstead runtime test BUNDLE [--keep-going]"
HELP: Final = f"""Usage: {USAGE}

Makes a container of BUNDLE as srun would, and calls the OCI runtime as oci.conf says, or by the
built-in command lines: each command is shown as it is executed, with its status and its output.
At the first failure it says why, and what to do.  Nothing is left behind.

  --keep-going   go on after a failure
  -h, --help     this text

Exit status: 0 when all commands did what they are for, else 1.
"""
_MODES: Final = {"run": "run", "create": "create and start"}


def main(operands: list[str]) -> int:
    """Run the test that ``operands`` ask for; its exit code."""
    if any(word in ("-h", "--help") for word in operands):
        report.write_out(HELP)
        return 0
    bundle, keep_going = _parse(operands)
    talk = _Talk()
    with trial.place(os.environ) as at:
        ending = trial.attempt(
            os.path.abspath(bundle), os.environ, at, keep_going=keep_going, hear=talk.hear
        )
    if ending.signal:
        return 128 + ending.signal
    if ending.overdue:
        raise RoadsteadError(
            "the test took too long and was ended",
            hint="ROADSTEAD_RUNTIME_TIMEOUT=10 gives each command less time",
        )
    if ending.crash:
        raise AssertionError(f"{ending.crash}\n{ending.output}")
    if not ending.complete:
        raise RoadsteadError("the test was killed; what it had made is removed")
    return talk.summary()


def _parse(operands: list[str]) -> tuple[str, bool]:
    if not operands or operands[0] != "test":
        wrong = f"does not know {operands[0]}" if operands else "has to be told what to do"
        raise UsageError(f"runtime {wrong}", hint=USAGE)
    bundles = []
    keep_going = literal = False
    for word in operands[1:]:
        if literal or not word.startswith("-"):
            bundles.append(word)
        elif word == "--":
            literal = True
        elif word == "--keep-going":
            keep_going = True
        else:
            raise UsageError(f"runtime test: unknown option {word}", hint=USAGE)
    if len(bundles) != 1 or not bundles[0]:
        raise UsageError("runtime test takes one bundle", hint=USAGE)
    return bundles[0], keep_going


class _Talk:
    """Tells each step; remembers how many there were and how many failed."""

    def __init__(self) -> None:
        self._mode = ""
        self._steps = 0
        self._failed = 0
        self._warnings = 0

    def hear(self, done: Done) -> None:
        if done.mode != self._mode:
            self._mode = done.mode
            report.write_out(f"\n{_MODES[done.mode]}:\n")
        if done.verdict == "failure":
            self._failed += 1
        report.write_out("".join(f"{line}\n" for line in lines(done)))
        self._warnings += done.verdict == "warning"
        self._steps += bool(done.argv)

    def summary(self) -> int:
        commands = f"{self._steps} command{'s' * (self._steps != 1)}"
        if self._failed:
            report.write_out(f"\n{commands} called, {self._failed} failed\n")
            return 1
        warned = f", {self._warnings} with a warning" if self._warnings else ""
        report.write_out(f"\n{commands} called{warned}: srun --container will work\n")
        return 0


def lines(done: Done) -> list[str]:
    """A step, for people.  The line that begins with $ can be typed."""
    if not done.argv:
        if done.verdict != "failure":
            return [f"{done.found}"]
        return [f"FAILED {done.operation}", *_why(done)]
    shown = [f"$ {shlex.join(done.argv)}"]
    shown += [f"  | {line}" for line in done.output.splitlines()]
    status = "running" if done.status is None else f"status {done.status}"
    if done.verdict == "failure":
        status = "no end" if done.status is None else status
        return [*shown, f"  FAILED {done.operation}: {status}, {done.seconds:.3f} s", *_why(done)]
    if done.verdict == "warning":
        return [*shown, f"  WARNING {done.operation}: {status}, {done.seconds:.3f} s", *_why(done)]
    return [*shown, f"  {done.operation}: {status}, {done.seconds:.3f} s: {done.found}"]


def _why(done: Done) -> list[str]:
    return [f"  cause: {done.found}", *([f"  fix:   {done.hint}"] if done.hint else [])]
