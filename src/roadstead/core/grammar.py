r"""The line grammar that all of Slurm's configuration files share.

A file is a list of ``KEY=VALUE``, one to a line.  Slurm makes four passes, in this order, which is
why neither configparser nor shlex can read these files:

1. a ``#`` after an even number of backslashes ends the line, *also inside double quotes*;
2. an odd number of backslashes at the end joins the next line, with nothing between the two;
3. every other backslash is dropped and what follows it is kept: ``\#`` is ``#``, ``\\`` is ``\``;
4. a value is either in double quotes, or has no blanks.  A ``"`` cannot be part of one, and a
   single quote is a character like any other.

``include FILE``, in the first column, reads another file, relative to the one that names it (Slurm:
src/common/parse_config.c).

We depart from Slurm in three places.  A double quote that is never closed is taken to be closed at
the end of the line, with a warning: Slurm's own guide has that slip.  ``KEY+=VALUE``, which Slurm
parses and then treats as ``=``, is refused.  So is ``a"b``, which Slurm's expression lets through
by accident.  The module is pure: reading an included file is the caller's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from roadstead.errors import ConfigError

# isspace(3) in the C locale.  Python's own notion of blank has 25 characters more.
BLANKS = " \t\n\v\f\r"

MAX_INCLUDES = 16

_UNCOMMENTED = re.compile(r"(?:\\.|[^\\#])*\\?")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_INCLUDE = re.compile(rf"include[{BLANKS}]+([^{BLANKS}]*)(.*)", re.DOTALL | re.IGNORECASE)
_ASSIGNMENT = re.compile(
    rf"[{BLANKS}]*([A-Za-z0-9_.]+)[{BLANKS}]*([-+*/]?)=[{BLANKS}]*(.*)", re.DOTALL
)

Read = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class LogicalLine:
    """One line after comments, continuations and escapes; ``number`` is where it starts."""

    number: int
    text: str
    commented: bool


@dataclass(frozen=True, slots=True)
class Assignment:
    """One ``KEY=VALUE`` and where it stands.  ``unclosed``: the closing quote was missing."""

    key: str
    value: str
    path: str
    line: int
    unclosed: bool = False

    def error(self, sentence: str, *, hint: str = "") -> ConfigError:
        """The error that points at this line."""
        return ConfigError(sentence, path=self.path, line=self.line, hint=hint)

    @property
    def where(self) -> str:
        return f"{self.path}:{self.line}"


def logical_lines(text: str) -> Iterator[LogicalLine]:
    """Join, cut and unescape the physical lines of ``text``."""
    joined, start, commented = "", 0, False
    for number, physical in enumerate(text.split("\n"), 1):
        start = start or number
        kept = _without_comment(physical)
        commented = commented or len(kept) < len(physical)
        continued = _before_continuation(kept)
        if continued is not None:
            joined += continued
            continue
        yield LogicalLine(start, _ESCAPE.sub(r"\1", joined + kept), commented)
        joined, start, commented = "", 0, False
    if start:  # the last line promised another
        yield LogicalLine(start, _ESCAPE.sub(r"\1", joined), commented)


def assignments(text: str, path: str, read: Read) -> Iterator[Assignment]:
    """The assignments of a file and of those it includes, in order.

    ``read`` returns the text of an included file, or raises OSError.
    """
    yield from _assignments(text, path, read, (path,))


def written(key: str, value: str) -> str:
    """``KEY="VALUE"`` as it has to stand in the file; double quotes become single ones."""
    escaped = value.replace("\\", "\\\\").replace("#", "\\#").replace('"', "'")
    return f'{key}="{escaped}"'


def _assignments(text: str, path: str, read: Read, open_: tuple[str, ...]) -> Iterator[Assignment]:
    for line in logical_lines(text):
        if not line.text.strip(BLANKS):
            continue
        if "\0" in line.text:
            raise ConfigError("a NUL byte: this is not a text file", path=path, line=line.number)
        include = _INCLUDE.fullmatch(line.text)
        if include is None:
            yield _assignment(line, path)
        else:
            yield from _included(include, path, line.number, read, open_)


def _included(
    include: re.Match[str], path: str, number: int, read: Read, open_: tuple[str, ...]
) -> Iterator[Assignment]:
    def error(sentence: str, hint: str) -> ConfigError:
        return ConfigError(sentence, path=path, line=number, hint=hint)

    name, rest = include.group(1), include.group(2).strip(BLANKS)
    if not name or rest:
        raise error("include takes one file name, without blanks or quotes", "write: include FILE")
    target = _beside(path, name)
    if target in open_:
        raise error(f"include {name}: that file is being read already", "remove this line")
    if len(open_) > MAX_INCLUDES:
        raise error(
            f"include {name}: more than {MAX_INCLUDES} files deep", "include fewer files in files"
        )
    try:
        text = read(target)
    except OSError as failure:
        raise error(
            f"include {name}: {target}: {_reason(failure)}",
            "name a readable file, relative to this one, or remove the line",
        ) from None
    yield from _assignments(text, target, read, (*open_, target))


def _assignment(line: LogicalLine, path: str) -> Assignment:
    match = _ASSIGNMENT.fullmatch(line.text)
    if match is None:
        raise ConfigError(
            f"neither KEY=VALUE nor include FILE: {_excerpt(line.text)}",
            path=path,
            line=line.number,
            hint='write KEY="VALUE"; an include starts in the first column; # starts a comment',
        )
    key, operator, rest = match.groups()
    found = Assignment(key, rest.rstrip(BLANKS), path, line.number)
    if operator:
        raise found.error(f"{key}{operator}= is not understood", hint=f"write {key}=VALUE")
    if not found.value:
        raise found.error(f"{key} has no value", hint=f'write {key}="VALUE" or remove the line')
    if found.value.startswith('"'):
        return _quoted(found, commented=line.commented)
    return _unquoted(found)


def _quoted(found: Assignment, *, commented: bool) -> Assignment:
    value, closed, rest = found.value[1:].partition('"')
    if not closed and commented:
        raise found.error(
            f"{found.key}: the value was cut by a comment: {_excerpt(value)}",
            hint=r"write \# for a # inside a value, and end the value with a double quote",
        )
    if not closed:
        return replace(found, value=value, unclosed=True)
    another_key = rest[:1] in BLANKS and _ASSIGNMENT.fullmatch(rest) is not None
    if closed in rest and not another_key:
        raise _embedded(found, f"{value}{closed}{rest.removesuffix(closed)}")
    if rest:
        raise found.error(
            f"{found.key}: unexpected text after the value: {_excerpt(rest)}",
            hint="one key to a line, and only a # comment after the closing quote",
        )
    return replace(found, value=value)


def _unquoted(found: Assignment) -> Assignment:
    if '"' in found.value:
        raise _embedded(found, found.value)
    blank = re.search(f"[{BLANKS}]", found.value)
    if blank is not None:
        raise found.error(
            f"{found.key}: unexpected text after the value: {_excerpt(found.value[blank.end() :])}",
            hint=f"quote the value: {written(found.key, found.value)}",
        )
    return found


def _embedded(found: Assignment, value: str) -> ConfigError:
    paired = value.count('"') % 2 == 0
    return found.error(
        f"{found.key}: a double quote cannot be part of a value",
        hint=f"use single quotes inside{f': {written(found.key, value)}' if paired else ''}",
    )


def _without_comment(physical: str) -> str:
    kept = _UNCOMMENTED.match(physical)
    return kept.group() if kept else ""


def _before_continuation(kept: str) -> str | None:
    text = kept.rstrip(BLANKS)
    backslashes = len(text) - len(text.rstrip("\\"))
    return text[:-1] if backslashes % 2 else None


def _beside(path: str, name: str) -> str:
    directory, slash, _ = path.rpartition("/")
    return name if name.startswith("/") else f"{directory}{slash}{name}"


def _reason(failure: OSError) -> str:
    return (failure.strerror or str(failure)).lower()


def _excerpt(text: str, limit: int = 60) -> str:
    text = text.strip(BLANKS)
    return text if len(text) <= limit else f"{text[:limit]}…"
