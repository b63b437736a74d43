"""Lines of KEY=VALUE, as slurm.conf(5) has them: comments, continuations, quotes and includes.

Keys are in lower case, as case does not matter.  A line knows where it is, so that whatever is
wrong with a value of it can be told with that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from roadstead.core import hostlist, values
from roadstead.core.grammar import BLANKS, Read, logical_lines
from roadstead.errors import ConfigError, RequestError, RoadsteadError

_PAIR: Final = re.compile(r'[ \t]*([A-Za-z0-9_.]+)[ \t]*=[ \t]*("[^"]*"|[^ \t"]*)')
_INCLUDE: Final = re.compile(r"include[ \t]+([^ \t]+)[ \t]*", re.IGNORECASE)
_YES: Final = {"yes": True, "no": False, "true": True, "false": False, "1": True, "0": False}
_DEEPEST: Final = 16


@dataclass(frozen=True, slots=True)
class Line:
    """The pairs of one line, keys in lower case."""

    path: str
    number: int
    pairs: dict[str, str]

    def error(self, sentence: str, hint: str = "") -> RoadsteadError:
        return ConfigError(sentence, path=self.path, line=self.number, hint=hint)

    def hosts(self, text: str) -> list[str]:
        """The names of a hostlist."""
        try:
            return hostlist.expand(text)
        except RoadsteadError as error:
            raise self.error(str(error), error.hint) from None

    def meaning(self, key: str, read: Callable[[], Any]) -> Any:
        """What a value means; an error of its reader's, with the line."""
        try:
            return read()
        except RoadsteadError as error:
            raise self.error(f"{key}: {error}", error.hint) from None

    def count(self, pairs: Mapping[str, str], key: str, default: int, least: int = 0) -> int:
        """A whole number of these pairs, which may be more than the line's own."""
        text = pairs.get(key, "")
        if not text:
            return default
        return int(self.meaning(key, lambda: values.count(text, key, least=least)))

    def yes(self, key: str, text: str) -> bool:
        found = _YES.get(text.lower())
        if found is None:
            raise self.error(f"{key}={text}: yes or no")
        return found


@dataclass(frozen=True, slots=True)
class Typed(Line):
    """The pairs of a command of scontrol's."""

    def error(self, sentence: str, hint: str = "") -> RoadsteadError:
        return RequestError(sentence, hint=hint)


def read_lines(text: str, path: str, read: Read, depth: int = 0) -> list[Line]:
    """The lines of a file and of those that it includes.  Raises ConfigError that names the line.

    ``read`` returns the text of an included file, or raises OSError.
    """
    found: list[Line] = []
    for line in logical_lines(text):
        if not line.text.strip(BLANKS):
            continue
        include = _INCLUDE.fullmatch(line.text.rstrip(BLANKS))
        if include is None:
            found.append(Line(path, line.number, _pairs(line.text, path, line.number)))
            continue
        name = include.group(1)
        directory, slash, _ = path.rpartition("/")
        target = name if name.startswith("/") else f"{directory}{slash}{name}"
        try:
            if depth >= _DEEPEST:
                raise OSError(40, "files include each other")
            inner = read(target)
        except OSError as failure:
            raise ConfigError(
                f"include {name}: {(failure.strerror or str(failure)).lower()}",
                path=path,
                line=line.number,
                hint="name a readable file, relative to this one, or remove the line",
            ) from None
        found += read_lines(inner, target, read, depth + 1)
    return found


def _pairs(text: str, path: str, number: int) -> dict[str, str]:
    pairs: dict[str, str] = {}
    text = text.rstrip(BLANKS)
    at, end = 0, len(text)
    while at < end:
        match = _PAIR.match(text, at)
        if match is None or (match.end() < end and text[match.end()] not in BLANKS):
            raise ConfigError(
                f"not KEY=VALUE: {text[at:end].strip(BLANKS)[:60]}",
                path=path,
                line=number,
                hint='a value with blanks is written in double quotes: KEY="VALUE"',
            )
        key, value = match.group(1).lower(), match.group(2).strip('"')
        if key in pairs:
            raise ConfigError(f"{match.group(1)} is there twice", path=path, line=number)
        pairs[key] = value
        at = match.end()
    return pairs
