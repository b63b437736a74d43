"""--multi-prog: a file that says which tasks of a step execute which program (srun(1)).

    # tasks   program and arguments
    0         ./server %t
    1-3,5     ./client --of=%o
    *         idle

%t is the task's number and %o its place in the line's range.  Words may be quoted as in a shell;
inside single quotes % is itself.  The sentences are those that srun 22.05 was seen to print; where
it drops a % that it does not know, the % stays here.
"""

from __future__ import annotations

from typing import Final

from roadstead.core.model import Program
from roadstead.errors import RequestError

_LONGEST: Final = 1 << 20
_LITERAL: Final = "\0"  # stands for a % inside single quotes until a task is made


def parse(text: str, source: str, ntasks: int, more: tuple[str, ...] = ()) -> tuple[Program, ...]:
    """The programs of a step of ``ntasks`` tasks; ``more`` are arguments for all of them.

    ``source`` is the file's name for errors.  Raises RequestError.
    """
    if len(text) > _LONGEST:
        raise RequestError(f"Configuration file {source} invalid, it is larger than 1 MiB")
    programs: list[Program] = []
    taken: set[int] = set()
    for number, line in _lines(text):
        words = _words(line)
        if not words:
            continue
        try:
            tasks = _tasks(words[0], ntasks, taken)
            if len(words) < 2:
                raise RequestError("no program is named")
        except RequestError as error:
            raise RequestError(
                f"{error}: Line {number} of configuration file {source} invalid"
            ) from None
        taken.update(tasks)
        programs.append(Program(tasks=tuple(tasks), argv=(*words[1:], *map(_protected, more))))
    for task in range(ntasks):
        if task not in taken:
            raise RequestError(f"Configuration file {source} invalid, no record for task id {task}")
    return tuple(programs)


def argv_of(programs: tuple[Program, ...], task: int) -> tuple[str, ...]:
    """What a task executes."""
    for program in programs:
        if task in program.tasks:
            offset = program.tasks.index(task)
            return tuple([_filled(word, task, offset) for word in program.argv])
    raise AssertionError(f"task {task} has no program")


def _filled(word: str, task: int, offset: int) -> str:
    return word.replace("%t", str(task)).replace("%o", str(offset)).replace(_LITERAL, "%")


def _protected(word: str) -> str:
    return word.replace("%", _LITERAL)


def _lines(text: str) -> list[tuple[int, str]]:
    """The lines with their numbers, those that end in a backslash joined with the next."""
    found: list[tuple[int, str]] = []
    begun, kept = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        begun = begun or number
        if line.endswith("\\"):
            kept += f"{line[:-1]} "
            continue
        found.append((begun, kept + line))
        begun, kept = 0, ""
    return [*found, (begun, kept)] if kept else found


def _words(line: str) -> list[str]:
    words: list[str] = []
    word: str | None = None
    quote = ""
    for char in line:
        if quote:
            if char == quote:
                quote = ""
            else:
                word = (word or "") + (_LITERAL if quote == "'" and char == "%" else char)
        elif char in "'\"":
            quote, word = char, word or ""
        elif char.isspace():
            if word is not None:
                words.append(word)
            word = None
        elif char == "#" and not words and word is None:
            return []
        else:
            word = (word or "") + char
    return words if word is None else [*words, word]


def _tasks(text: str, ntasks: int, taken: set[int]) -> list[int]:
    if text == "*":
        return [task for task in range(ntasks) if task not in taken]
    found: list[int] = []
    for part in text.split(","):
        low, dash, high = part.partition("-")
        if not low.isdecimal() or (dash and not high.isdecimal()):
            raise RequestError(f"Invalid task range specification ({text})")
        first, last = int(low), int(high) if dash else int(low)
        if last >= ntasks:
            raise RequestError(f"Invalid task id, {last} >= ntasks")
        if last < first:
            raise RequestError(f"Invalid task range specification ({text})")
        found += range(first, last + 1)
    for task in found:
        if task in taken:
            raise RequestError(f"Duplicate record for task {task}")
    return found
