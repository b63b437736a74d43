"""sattach: show what the tasks of a running step write from now on, and send them input.

We talk to the step's own supervisor, at its socket: it has the output, and it tells us when the
step ends, whether a controller is there or not.  The supervisor writes to our standard output
itself.  Ctrl-C ends us, not the step, as with Slurm's; no signal is passed on.
"""

from __future__ import annotations

import os
import sys

from roadstead.cli import attend, options, report
from roadstead.engines import choice, local, steps
from roadstead.errors import RoadsteadError
from roadstead.host import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

COMMAND = "sattach"

_FILTERS = ("input-filter", "output-filter", "error-filter")
_STEPS = {"batch": 0xFFFFFFFB, "interactive": 0xFFFFFFFA}
_LARGEST = (1 << 32) - 1
_CHUNK = 1 << 16


def main(argv: list[str] | None = None) -> int:
    """Run sattach with ``argv`` (without the program's name); its exit code."""
    given = sys.argv[1:] if argv is None else argv
    attend.open_standard_streams()
    return report.run(COMMAND, lambda: _run(given))


def _run(argv: list[str]) -> int:
    choice.hand_over(COMMAND, argv, os.environ)
    asked, operands = options.gather(COMMAND, argv, os.environ)
    if report.informational(COMMAND, asked):
        return 0
    filters = {
        name.partition("-")[0]: _task(name, asked[name]) for name in _FILTERS if name in asked
    }
    pty = "pty" in asked
    if pty and filters:
        raise RoadsteadError("don't specify both --pty and I/O filtering", hint="leave one out")
    if len(operands) != 1:
        why = "too many parameters" if operands else "no step given"
        raise RoadsteadError(why, hint="sattach [options] JOB.STEP")
    job, step = _step_id(operands[0])
    if "layout" in asked:
        return _show_layout(job, step)
    if pty:
        attend.terminal_size()  # refuses where there is no terminal
    message: dict[str, Any] = {
        "op": "attach",
        "label": "label" in asked,
        "pty": pty,
        "types": "input-filter" in asked or not _is_null(0),
        "terminal": True if pty else None,
        "options": {},
        **filters,
    }
    visit = Visit(message, verbose=int(asked.get("verbose", "0")), quiet="quiet" in asked)
    return visit.attach(job, step)


def _task(option: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise RoadsteadError(f'Invalid numeric value "{text}" for {option}.')
    return int(text)


def _step_id(text: str) -> tuple[int, int]:
    """12.0 or 12.batch."""
    job, dot, step = text.partition(".")
    if not dot or not _is_number(job):
        raise RoadsteadError(
            "Failed to parse stepid from command line options", hint="sattach [options] JOB.STEP"
        )
    if step in _STEPS:
        return int(job), _STEPS[step]
    if not _is_number(step):
        raise RoadsteadError(f"Bad step specified: {text}", hint="a number, batch or interactive")
    return int(job), int(step)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _LARGEST


def _is_null(fd: int) -> bool:
    return os.fstat(fd).st_rdev == os.stat(os.devnull).st_rdev


def _show_layout(job: int, step: int) -> int:
    nodes = steps.ask(job, step, {"op": "layout"})["nodes"]
    from roadstead.core import hostlist

    names = hostlist.fold([node["name"] for node in nodes])
    total = sum(len(node["tasks"]) for node in nodes)
    lines = ["Job step layout:", f"\t{total} tasks, {len(nodes)} nodes ({names})", ""]
    for number, node in enumerate(nodes):
        tasks = "".join(f"{task} " for task in node["tasks"])
        lines.append(f"\tNode {number} ({node['name']}), {len(node['tasks'])} task(s): {tasks}")
    report.write_out("\n".join(lines) + "\n")
    return 0


class Visit(attend.Attendance):
    """Being attached to one step, from the request to the step's end or ours."""

    def __init__(self, message: dict[str, Any], *, verbose: int, quiet: bool) -> None:
        super().__init__(COMMAND, message, verbose=verbose, quiet=quiet)
        self._fds: list[int] = []

    def attach(self, job: int, step: int) -> int:
        """Attach; the exit code is the step's.  Raises RoadsteadError."""
        self._job, self._step, self._started = job, step, True
        self._connection = steps.connect(job, step)
        pty = self.message["terminal"] is not None
        fds = self._streams(pty)
        try:
            self._connection.send(self.message, fds)
        except (BrokenPipeError, ConnectionResetError):
            raise RoadsteadError(steps.UNKNOWN) from None
        for fd in fds:
            if fd > 2:
                os.close(fd)
        nothing = signals.watch([])
        return self._attend_on_terminal(nothing) if pty else self._attend(nothing)

    def _receive(self) -> dict[str, Any] | None:
        assert self._connection is not None
        answer, self._fds = local.receive_with_fds(self._connection)
        return answer

    def _on_answer(self, answer: dict[str, Any]) -> int | None:
        match answer["event"]:
            case "attached":
                if self.verbose:
                    self._say(f"attached to StepId={self._job}.{self._step}")
                for sentence in answer["lost"]:
                    self._say(f"warning: {sentence}")
                return None
            case "notice":
                if answer["sentence"].startswith("warning:"):
                    self._say(answer["sentence"])
                else:
                    self._on_notice(answer["sentence"])
                return None
            case "exit":
                return self._on_end(answer)
            case _:
                return None  # a newer supervisor may tell more than we understand

    def _on_end(self, answer: dict[str, Any]) -> int:
        for fd, rest in zip((1, 2), self._fds, strict=False):
            _copy(rest, fd)
        tasks = answer["record"]["tasks"]
        for task in tasks:
            if task["message"]:
                self._write(f"error: {task['message']}")
            elif task["signal"]:
                what = signals.describe(task["signal"])
                self._write(f"error: task {task['procid']}: {what}")
            elif task["code"]:
                code = task["code"]
                self._write(f"error: task {task['procid']} exited with exit code {code}")
        return max((int(task["code"]) for task in tasks), default=0)


def _copy(source: int, target: int) -> None:
    """What the step's supervisor could not wait for us to take."""
    at = 0
    try:
        while data := os.pread(source, _CHUNK, at):
            at += os.write(target, data)
    except BrokenPipeError:
        raise SystemExit(report.PIPE_BROKEN) from None
    except OSError as error:
        raise RoadsteadError(f"write error: {error.strerror}") from None
