"""What a command says: answers on standard output, all else on standard error.

An error is one line, so that one line of a log tells what happened and what to do:

    squeue: error: SENTENCE; HINT

Two shapes are not ours to choose, because scripts match them.  A command line that getopt_long(3)
refuses is reported as getopt does it, without ``error:`` and with its advice on a second line; and
a wrong command line ends srun, sbatch and salloc with 255 where the other commands end with 1.

A reader that went away (``squeue | head -1``) is no error: we end as a program that SIGPIPE killed,
and say nothing.
"""

from __future__ import annotations

import os
import sys

from roadstead.cli import option, options
from roadstead.core.printable import printable
from roadstead.errors import RoadsteadError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

INTERRUPTED: Final = 128 + 2
PIPE_BROKEN: Final = 128 + 13
_WRONG_COMMAND_LINE: Final = 255
_ADVICE: Final = 'Try "'
# How the sentences of getopt_long(3) begin; see cli/getopt_long.py.
_GETOPT: Final = ("unrecognized option ", "invalid option ", "option ")


def run(command: str, body: Callable[[], int]) -> int:
    """The exit code of ``body``, whose errors are printed; 130 when Ctrl-C ended it."""
    try:
        return body()
    except RoadsteadError as error:
        return fail(command, error)
    except KeyboardInterrupt:
        return INTERRUPTED


def fail(command: str, error: RoadsteadError) -> int:
    """Print ``error``; the exit code that it gives the command."""
    for line in _lines(command, error):
        write_line(line)
    if isinstance(error, UsageError) and option.COMMANDS.get(command, 0) & option.LAUNCH:
        return _WRONG_COMMAND_LINE
    return error.exit_code


def _lines(command: str, error: RoadsteadError) -> list[str]:
    advice = error.hint.startswith(_ADVICE)
    if advice and str(error).startswith(_GETOPT):
        return [f"{command}: {error}", error.hint]
    if advice:
        return [f"{command}: error: {error}", error.hint]
    hint = f"; {error.hint}" if error.hint else ""
    return [f"{command}: error: {error}{hint}"]


def say_forecast(command: str, answer: dict[str, Any]) -> None:
    """--test-only: when and where a job would start."""
    import time

    from roadstead.core import hostlist

    when = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(answer["start"]))
    write_line(
        f"{command}: Job {answer['job_id']} to start at {when} using {answer['cpus']} processors"
        f" on nodes {hostlist.fold(answer['nodes'])} in partition {answer['partition']}"
    )


def test_failed(error: RoadsteadError) -> int:
    """--test-only: the job would never start."""
    what = str(error)
    for refused in ("Batch job submission failed: ", "Unable to allocate resources: "):
        what = what.removeprefix(refused)
    write_line(f"allocation failure: {what}{f'; {error.hint}' if error.hint else ''}")
    return 1


def warn(command: str, sentence: str) -> None:
    """Print an error that does not end the command."""
    write_line(f"{command}: error: {sentence}")


def warn_plainly(command: str, sentence: str) -> None:
    """The same where Slurm's sentence has no ``error:``."""
    write_line(f"{command}: {sentence}")


def informational(command: str, asked: dict[str, str]) -> bool:
    """Print --help, --usage or --version, if that was asked for; whether it was."""
    if not any(name in asked for name in ("help", "usage", "version")):
        return False
    from roadstead.cli import help

    if "version" in asked:
        write_out(help.version_text(command))
    elif "help" in asked:
        write_out(help.help_text(command))
    else:
        write_out(help.usage_text(command))
    return True


def explain(command: str, asked: dict[str, str]) -> None:
    """With --verbose, name the options that were given and do nothing here."""
    if "verbose" in asked:
        for name, reason in options.without_effect(command, asked):
            write_line(f"{command}: --{name} has no effect: {reason}")


def write_line(text: str, end: str = "\n") -> None:
    """A line on standard error.  Where that is closed there is nobody left to tell."""
    text = printable(text)
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(text + end)
        sys.stderr.flush()
    except OSError:
        return


def write_out(text: str) -> None:
    """Write to standard output, at once; bytes of file names that are no UTF-8 stay as they are.

    Raises SystemExit when nobody reads any more, RoadsteadError when it cannot be written.
    """
    if sys.stdout is None:
        raise RoadsteadError("write error: standard output is closed")
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        _discard_stdout()
        raise SystemExit(PIPE_BROKEN) from None
    except OSError as error:
        _discard_stdout()
        raise RoadsteadError(f"write error: {error.strerror}") from None


def _discard_stdout() -> None:
    """Keep the interpreter's own flush, at exit, from failing once more."""
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
