"""YAML as programs write it: the part of it that tools which generate files use.

Block mappings and sequences, plain and quoted scalars, ``[]``, ``{}`` and flow sequences on one
line, comments, one document.  Whatever else a file has (anchors, tags, block scalars, several
documents) is refused by its line, never guessed at.  Scalars without quotes are what YAML's core
schema makes of them; mappings have strings as keys.

This is not a YAML library, and none is needed: CDI specifications are all that is read with it,
where a container is started.  Nothing that the standard library does not have travels there.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

_DEEPEST: Final = 64
_INTEGER: Final = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_OCTAL: Final = re.compile(r"0o([0-7]+)")
_HEX: Final = re.compile(r"0x([0-9a-fA-F]+)")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: Final[dict[str, Any]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_DOUBLE: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_SINGLE: Final = re.compile(r"'(?:[^']|'')*'")
_ELSEWHERE: Final = "&*!|>%@`{}"  # what begins a plain scalar that is none


class YamlError(Exception):
    """``line`` is where, from 1."""

    def __init__(self, sentence: str, line: int) -> None:
        super().__init__(sentence)
        self.line = line


class _Line:
    __slots__ = ("indent", "number", "text")

    def __init__(self, number: int, indent: int, text: str) -> None:
        self.number = number
        self.indent = indent
        self.text = text


def load(text: str) -> Any:
    """What a document holds: dicts, lists, strings, numbers, booleans, None.  Raises YamlError."""
    lines = _lines(text)
    if not lines:
        return None
    reader = _Reader(lines)
    found = reader.node(lines[0].indent, 0)
    if reader.at < len(lines):
        raise YamlError("not indented as what is above it", lines[reader.at].number)
    return found


def _lines(text: str) -> list[_Line]:
    found: list[_Line] = []
    begun = False
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.rstrip()
        stripped = line.lstrip(" ")
        if not stripped or stripped.startswith("#"):
            continue
        if stripped.startswith("\t"):
            raise YamlError("indented by a tab", number)
        if line == "---" and not found and not begun:
            begun = True
            continue
        if line.startswith(("---", "...", "%")):
            raise YamlError("more than one document, or a directive", number)
        found.append(_Line(number, len(line) - len(stripped), stripped))
    return found


class _Reader:
    """Goes through the lines; ``at`` is the next one."""

    def __init__(self, lines: list[_Line]) -> None:
        self._lines = lines
        self.at = 0

    def node(self, indent: int, depth: int) -> Any:
        """What begins at this line, with this indentation."""
        line = self._lines[self.at]
        if depth > _DEEPEST:
            raise YamlError("nested too deeply", line.number)
        if _is_entry(line.text):
            return self._sequence(indent, depth)
        if _key(line) is not None:
            return self._mapping(indent, depth)
        self.at += 1
        return _value(line.text, line.number)

    def _sequence(self, indent: int, depth: int) -> list[Any]:
        found = []
        while (line := self._next(indent)) is not None and _is_entry(line.text):
            rest = line.text[1:].lstrip(" ")
            if not rest or rest.startswith("#"):
                self.at += 1
                found.append(self._below(indent, depth, line))
                continue
            # What is behind the dash is a node of its own, as far in as it stands.
            line.indent += len(line.text) - len(rest)
            line.text = rest
            found.append(self.node(line.indent, depth + 1))
        return found

    def _mapping(self, indent: int, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while (line := self._next(indent)) is not None:
            split = _key(line)
            if split is None:
                raise YamlError("neither a key nor an entry", line.number)
            key, rest = split
            if key in found:
                raise YamlError(f"{key!r} is there twice", line.number)
            self.at += 1
            if rest and not rest.startswith("#"):
                found[key] = _value(rest, line.number)
            else:
                found[key] = self._below(indent, depth, line, sequences=True)
        return found

    def _below(self, indent: int, depth: int, line: _Line, *, sequences: bool = False) -> Any:
        """The node that stands further in; a mapping's sequences may stand as far in as it."""
        if self.at == len(self._lines):
            return None
        following = self._lines[self.at]
        if following.indent > indent:
            return self.node(following.indent, depth + 1)
        if sequences and following.indent == indent and _is_entry(following.text):
            return self._sequence(indent, depth + 1)
        return None

    def _next(self, indent: int) -> _Line | None:
        if self.at == len(self._lines):
            return None
        line = self._lines[self.at]
        if line.indent > indent:
            raise YamlError("further in than what is above it", line.number)
        return line if line.indent == indent else None


def _is_entry(text: str) -> bool:
    return text == "-" or text.startswith("- ")


def _key(line: _Line) -> tuple[str, str] | None:
    """A key and what is behind its colon."""
    for pattern in (_DOUBLE, _SINGLE):
        quoted = pattern.match(line.text)
        if quoted is not None:
            rest = line.text[quoted.end() :].lstrip(" ")
            if rest == ":" or rest.startswith(": "):
                return _unquoted(quoted[0], line.number), rest[1:].lstrip(" ")
            return None
    if line.text[0] in "[{" + _ELSEWHERE or line.text.startswith("? "):
        return None
    name, colon, rest = line.text.partition(":")
    while colon and rest and not rest.startswith(" "):  # a colon inside a word
        more, colon, rest = rest.partition(":")
        name = f"{name}:{more}"
    if not colon or " #" in name:
        return None
    return name.rstrip(" "), rest.lstrip(" ")


def _value(text: str, number: int) -> Any:
    value, rest = _item(text, number, flow=False)
    if rest.lstrip(" ") and not (rest.startswith(" ") and rest.lstrip(" ").startswith("#")):
        raise YamlError(f"more behind a value: {rest.strip()!r}", number)
    return value


def _item(text: str, number: int, *, flow: bool) -> tuple[Any, str]:
    """A value at the beginning of ``text``, and what is behind it."""
    for pattern in (_DOUBLE, _SINGLE):
        if text[:1] == pattern.pattern[0]:
            quoted = pattern.match(text)
            if quoted is None:
                raise YamlError("a quote that does not end on its line", number)
            return _unquoted(quoted[0], number), text[quoted.end() :]
    if text.startswith("{}"):
        return {}, text[2:]
    if text.startswith("["):
        return _flow(text[1:], number)
    if text[:1] in tuple(_ELSEWHERE) or text.startswith(("? ", "- ")):
        raise YamlError(f"not understood: {text!r}", number)
    end = len(text)
    comment = text.find(" #")
    if comment >= 0:
        end = comment
    if flow:
        end = min([end, *(at for each in ",[]{}" if (at := text.find(each)) >= 0)])
    word = text[:end].rstrip(" ")
    if ": " in word or word.endswith(":"):
        raise YamlError(f"not understood: {word!r}", number)
    return _scalar(word), text[end:]


def _flow(text: str, number: int) -> tuple[list[Any], str]:
    found: list[Any] = []
    rest = text.lstrip(" ")
    while not rest.startswith("]"):
        if not rest or rest.startswith("["):
            raise YamlError("a [ that does not end on its line, or one in another", number)
        value, rest = _item(rest, number, flow=True)
        found.append(value)
        rest = rest.lstrip(" ")
        if rest.startswith(","):
            rest = rest[1:].lstrip(" ")
        elif not rest.startswith("]"):
            raise YamlError("a [ that does not end on its line", number)
    return found, rest[1:]


def _scalar(word: str) -> Any:
    if word in _WORDS:
        return _WORDS[word]
    if _INTEGER.fullmatch(word):
        return int(word) if len(word) < 20 else word
    if found := _OCTAL.fullmatch(word):
        return int(found[1][:20], 8)
    if found := _HEX.fullmatch(word):
        return int(found[1][:16], 16)
    if _FLOAT.fullmatch(word):
        return float(word)
    return word


def _unquoted(text: str, number: int) -> str:
    if text[0] == "'":
        return text[1:-1].replace("''", "'")
    try:
        return str(json.loads(text))  # YAML has more escapes than JSON; those are refused
    except ValueError:
        raise YamlError(f"an escape that is not JSON's: {text}", number) from None
