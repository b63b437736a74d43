"""The batch script: what it must look like, and the options in its #SBATCH lines.

sbatch reads ``#SBATCH`` lines until the first line that is neither blank nor a comment.  They look
like shell and are not: nothing is expanded, a backslash quotes the next character even between
single quotes, a blank ends a word even after a backslash, and an unquoted ``#`` starts a comment
anywhere, within a word too (``--comment=fix#5`` is ``--comment=fix``).  The tests hold what sbatch
22.05 was seen to do.  One thing differs: after an empty word (``-J ""``) Slurm forgets the rest of
the line, and we do not.
"""

from __future__ import annotations

from roadstead.errors import RequestError

PREFIX = "#SBATCH"
_BLANKS = " \t\r\v\f"
_FIX_ENDINGS = r"convert it: sed -i 's/\r$//' SCRIPT"


class Directive:
    """The words of one #SBATCH line; ``line_number`` counts from 1."""

    __slots__ = ("argv", "line_number")

    def __init__(self, line_number: int, argv: list[str]) -> None:
        self.line_number = line_number
        self.argv = argv


def directives(script_text: str) -> list[Directive]:
    """The #SBATCH lines of a script, in order.  Raises RequestError where it is not one."""
    check(script_text)
    found = []
    for number, line in enumerate(script_text.split("\n"), start=1):
        if line.startswith(PREFIX):
            argv = split(line[len(PREFIX) :], number)
            if argv:
                found.append(Directive(number, argv))
        elif line.strip() and not line.lstrip().startswith("#"):
            break
    return found


def check(script_text: str) -> None:
    """Refuse what is not a batch script, with what to do about it."""
    if not script_text:
        raise RequestError("Batch script is empty", hint="give it a first line: #!/bin/sh")
    if not script_text.strip():
        raise RequestError("Batch script is only white space", hint="begin it with: #!/bin/sh")
    if not script_text.startswith("#!"):
        raise RequestError(
            "This does not look like a batch script: line 1 does not name an interpreter",
            hint="begin it with: #!/bin/sh (for a single command there is sbatch --wrap)",
        )
    if "\0" in script_text:
        raise RequestError(
            "Batch script has a NUL character in it", hint="to run a program, use sbatch --wrap"
        )
    if "\r\n" in script_text:
        raise RequestError(r"Batch script has DOS line endings (\r\n)", hint=_FIX_ENDINGS)


def split(line: str, line_number: int) -> list[str]:
    """The words of a directive, without its ``#SBATCH``."""
    words: list[str] = []
    word, started, quote, escaped = "", False, "", False
    for char in line:
        if char in _BLANKS and not quote:
            if started:
                words.append(word)
            word, started, escaped = "", False, False
        elif escaped:
            word, started, escaped = word + char, True, False
        elif char == "\\":
            escaped = True
        elif char == quote:
            quote = ""
        elif char in "\"'" and not quote:
            quote, started = char, True
        elif char == "#" and not quote:
            break
        else:
            word, started = word + char, True
    if quote:
        raise RequestError(
            f"unmatched {quote} in {PREFIX}{line}: line {line_number} of the batch script"
        )
    if started:
        words.append(word)
    return words


def wrap(command: str) -> str:
    """The script that ``sbatch --wrap`` submits for a command line."""
    return f"#!/bin/sh\n# Made by sbatch --wrap.\n\n{command}\n"
