r"""%-patterns: the holes in ``oci.conf``'s command lines and paths, and how they are filled.

Slurm pastes values into the text as they are and hands the text to ``/bin/sh -c``, so that the
bundle's path, which any user chooses, is live shell.  Here a value is quoted for the place it lands
in: bare, inside ``'…'`` or inside ``"…"``.  Whatever the value, the shell sees exactly that text,
and the site's own ``$HOME``, pipes and ``$(…)`` work as before.  A plain value gets no quotes.

Where quoting cannot hold, only the numeric letters (``%j %s %t %U %p``) may stand; that is checked
when the file is read.  Such places are ``${x:-…}`` and all that comes after what only a whole shell
could follow: a backtick, ``$((…))``, ``"$(…)"``, ``$'…'``, ``<<``, a comment.
A letter right after ``\`` or ``$`` is refused: those would swallow our first quote.
One thing is beyond us: in ``sh -c 'crun run -b %b'`` the inner shell reads the value as a program.
Write ``sh -c 'crun run -b $1' sh %b``.

``ContainerPath`` and ``MountSpoolDir`` are paths, not shell text.  Nothing is quoted in them, and a
value that is not a path itself (``%u``, ``%n``) cannot add a slash or a ``..``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from roadstead.errors import ConfigError

# %s is a number in all of Slurm's releases; the words occur in directory names alone.
BATCH_STEP = 4294967291
INTERACTIVE_STEP = 4294967290

PATH_KEYS = frozenset({"ContainerPath", "MountSpoolDir"})


class _Kind(Enum):
    NUMBER = "number"
    NAME = "name"
    PATH = "path"
    ARGUMENTS = "arguments"


@dataclass(frozen=True, slots=True, kw_only=True)
class Substitutions:
    """What each letter stands for.  ``pid`` is None as long as the container has no process."""

    arguments: tuple[str, ...]
    bundle: str
    environment_file: str
    job_id: int
    spool_dir: str
    node_name: str
    pid: int | None = None
    rootfs: str
    step_id: int
    task_id: int
    user: str
    uid: int
    work_dir: str


# Letter: attribute of Substitutions, kind.  %% is a percent sign everywhere and has no row.
LETTERS = {
    "@": ("arguments", _Kind.ARGUMENTS),
    "b": ("bundle", _Kind.PATH),
    "e": ("environment_file", _Kind.PATH),
    "j": ("job_id", _Kind.NUMBER),
    "m": ("spool_dir", _Kind.PATH),
    "n": ("node_name", _Kind.NAME),
    "p": ("pid", _Kind.NUMBER),
    "r": ("rootfs", _Kind.PATH),
    "s": ("step_id", _Kind.NUMBER),
    "t": ("task_id", _Kind.NUMBER),
    "u": ("user", _Kind.NAME),
    "U": ("uid", _Kind.NUMBER),
    "Z": ("work_dir", _Kind.PATH),
}

_NO_PID = "%p is known only once the container has a process"
_NOT_A_PATH = "%@ is a command line, not a path"
_REFUSED = {
    "RunTimeCreate": {"p": _NO_PID},
    "RunTimeStart": {"p": _NO_PID},
    "RunTimeRun": {"p": _NO_PID},
    "ContainerPath": {
        "p": _NO_PID,
        "@": _NOT_A_PATH,
        "e": "%e is a file in the directory that ContainerPath names",
    },
    "MountSpoolDir": {"p": _NO_PID, "@": _NOT_A_PATH},
}
_VALID = " ".join(f"%{letter}" for letter in "%" + "".join(LETTERS))


class _Place(Enum):
    """Where in the shell's text a letter stands."""

    BARE = "bare"
    SINGLE = "inside single quotes"
    DOUBLE = "inside double quotes"
    OPAQUE = "where quoting cannot hold"


@dataclass(frozen=True, slots=True)
class _Hole:
    """One %-letter.  ``exposed``: an unquoted value would run into its neighbours' meaning."""

    letter: str
    place: _Place
    exposed: bool = False


@dataclass(frozen=True, slots=True)
class _Source:
    """Whose pattern it is, for the sentence of an error."""

    key: str = ""
    path: str = ""
    line: int = 0

    def error(self, sentence: str, hint: str) -> ConfigError:
        prefix = f"{self.key}: " if self.key else ""
        return ConfigError(f"{prefix}{sentence}", path=self.path, line=self.line, hint=hint)


# Narrower than shlex.quote: "a=b" before a command is an assignment, "," may expand in braces, and
# a lone reserved word is syntax.
_PLAIN = re.compile(
    r"(?!(?:case|coproc|do|done|elif|else|esac|fi|for|function|if|in|select|then|time|until|while)\Z)"
    r"[A-Za-z0-9_./:@%+-]+"
)

_HOLE = r"(?P<hole> %.? )"
_BRACED = r"(?P<braced> \$\{ [^}'\"`\\{(]* \} )"
_SWALLOWED = r"(?P<swallowed> [\\$] (?= %[^%] ) )"
_TOKENS = {
    _Place.BARE: re.compile(
        rf"""
        {_HOLE} | {_SWALLOWED} | {_BRACED}
      | (?P<opaque> ` | \$?\(\( | \$\[ | \$\{{ | \$' | << | (?<![^\s;&|()<>@])\# )
      | (?P<escape> \\ [^%]? ) | (?P<quote> ['"] ) | (?P<text> . )
        """,
        re.VERBOSE | re.DOTALL,
    ),
    _Place.SINGLE: re.compile(rf"{_HOLE} | (?P<quote> ' ) | (?P<text> . )", re.VERBOSE | re.DOTALL),
    _Place.DOUBLE: re.compile(
        rf"""
        {_HOLE} | {_SWALLOWED} | {_BRACED} | (?P<opaque> ` | \$[(\[{{] )
      | (?P<escape> \\ [^%]? ) | (?P<quote> " ) | (?P<text> . )
        """,
        re.VERBOSE | re.DOTALL,
    ),
    _Place.OPAQUE: re.compile(rf"{_HOLE} | (?P<text> . )", re.VERBOSE | re.DOTALL),
}
_QUOTED_PLACE = {"'": _Place.SINGLE, '"': _Place.DOUBLE}
# "$x%n" must not become "$xnode", "%j>f" a redirection of descriptor 12, "%u=f" an assignment.
_ENDS_IN_VARIABLE = re.compile(r"\$[A-Za-z0-9_]+\Z")
_JOINS_WORD_BEFORE = frozenset("<>=")


def check(pattern: str, key: str, path: str = "", line: int = 0) -> None:
    """Refuse, when the file is read, what could not be expanded when a container is started."""
    source = _Source(key, path, line)
    is_path = key in PATH_KEYS
    refused = _REFUSED.get(key, {})
    for piece in _path_pieces(pattern, source) if is_path else _shell_pieces(pattern, source):
        if isinstance(piece, _Hole) and piece.letter in refused:
            valid = " ".join(f"%{letter}" for letter in LETTERS if letter not in refused)
            raise source.error(refused[piece.letter], f"use another pattern: %% {valid}")
    if is_path and not _is_absolute(pattern):
        raise source.error(
            f"{pattern} is not an absolute path", "start it with / or with %m, %b, %r or %Z"
        )


def expand(pattern: str, substitutions: Substitutions, *, quote: bool = True, key: str = "") -> str:
    """Fill the holes of ``pattern``: shell text, or a path when ``quote`` is false."""
    source = _Source(key)
    pieces = _shell_pieces(pattern, source) if quote else _path_pieces(pattern, source)
    expanded = []
    for piece in pieces:
        if isinstance(piece, str):
            expanded.append(piece)
        elif quote:
            expanded.append(_for_shell(piece, substitutions, source))
        else:
            expanded.append(_for_path(piece, substitutions, source))
    return "".join(expanded)


def quoted(value: str, *, exposed: bool = False) -> str:
    """``value`` as one word of sh(1), without quotes when it is plain."""
    if _PLAIN.fullmatch(value) and not exposed:
        return value
    return "'" + value.replace("'", r"'\''") + "'"


def _shell_pieces(pattern: str, source: _Source) -> Iterator[str | _Hole]:
    """The pattern as text and holes, each hole with the quoting in force where it stands."""
    if "\n" in pattern:
        raise source.error("a command is one line", "separate commands with ;")
    place, position = _Place.BARE, 0
    while position < len(pattern):
        token = _TOKENS[place].match(pattern, position)
        assert token is not None  # every table ends in "any character"
        text, kind, position = token.group(), token.lastgroup, token.end()
        if kind == "hole":
            yield _hole(token, place, source)
            continue
        if kind == "swallowed":
            raise _swallowed(text, pattern[position : position + 2], source)
        if kind == "braced":
            yield from _braced(text, source)
            continue
        if kind == "opaque":
            place = _Place.OPAQUE
        elif kind == "quote":
            place = _QUOTED_PLACE[text] if place is _Place.BARE else _Place.BARE
        yield text
    if place in (_Place.SINGLE, _Place.DOUBLE):
        raise source.error(f"the pattern ends {place.value}", "close the quote")


def _hole(token: re.Match[str], place: _Place, source: _Source) -> str | _Hole:
    letter = _letter(token.group(), source)
    if letter == "%":
        return "%"
    if place is _Place.OPAQUE and LETTERS[letter][1] is not _Kind.NUMBER:
        raise source.error(
            f"%{letter} stands where it cannot be quoted: after `, <<, $', $((, ${{…}}, "
            '"$(…)" or a comment',
            "move it out, for example: sh -c 'crun run -b $1' sh %b",
        )
    before, after = token.string[: token.start()], token.string[token.end() : token.end() + 1]
    exposed = _ENDS_IN_VARIABLE.search(before) is not None or after in _JOINS_WORD_BEFORE
    return _Hole(letter, place, exposed)


def _braced(text: str, source: _Source) -> Iterator[str | _Hole]:
    for token in _TOKENS[_Place.OPAQUE].finditer(text):
        is_hole = token.lastgroup == "hole"
        yield _hole(token, _Place.OPAQUE, source) if is_hole else token.group()


def _swallowed(before: str, hole: str, source: _Source) -> ConfigError:
    letter = _letter(hole, source)
    return source.error(
        f"%{letter} right after {before} cannot be quoted", f"remove the {before} before %{letter}"
    )


def _path_pieces(pattern: str, source: _Source) -> Iterator[str | _Hole]:
    for token in _TOKENS[_Place.OPAQUE].finditer(pattern):
        if token.lastgroup != "hole":
            yield token.group()
            continue
        letter = _letter(token.group(), source)
        yield "%" if letter == "%" else _Hole(letter, _Place.BARE)


def _letter(hole: str, source: _Source) -> str:
    letter = hole[1:]
    if not letter:
        raise source.error(
            "the pattern ends in a lone %",
            f"write %% for a percent sign; the patterns are {_VALID}",
        )
    if letter != "%" and letter not in LETTERS:
        raise source.error(f"unknown pattern %{letter}", f"the patterns are {_VALID}")
    return letter


def _for_shell(hole: _Hole, substitutions: Substitutions, source: _Source) -> str:
    if hole.letter == "@":
        value = " ".join(quoted(word, exposed=hole.exposed) for word in substitutions.arguments)
    else:
        value = _value(hole.letter, substitutions, source)
    match hole.place:
        case _Place.SINGLE:
            return value.replace("'", r"'\''")
        case _Place.DOUBLE:
            return ('""' if hole.exposed else "") + re.sub(r'[\\$`"]', r"\\\g<0>", value)
        case _Place.BARE if hole.letter != "@":
            return quoted(value, exposed=hole.exposed)
        case _:
            return value


def _for_path(hole: _Hole, substitutions: Substitutions, source: _Source) -> str:
    if hole.letter == "@":
        raise source.error(_NOT_A_PATH, "remove %@")
    value = _value(hole.letter, substitutions, source)
    if LETTERS[hole.letter][1] is _Kind.NAME and ("/" in value or not value.strip(".")):
        raise source.error(
            f"%{hole.letter} is {value!r} here, which cannot be part of a path",
            "use %U, %j, %s or %t in its place",
        )
    return value


def _value(letter: str, substitutions: Substitutions, source: _Source) -> str:
    value = getattr(substitutions, LETTERS[letter][0])
    if value is None:
        raise source.error(_NO_PID, "use %p in RunTimeQuery, RunTimeKill and RunTimeDelete alone")
    return str(value)


def _is_absolute(pattern: str) -> bool:
    is_path = pattern[:1] == "%" and LETTERS.get(pattern[1:2], ("", None))[1] is _Kind.PATH
    return is_path or pattern.startswith("/")
