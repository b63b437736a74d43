"""Columns of text as Slurm's format strings ask for them.

``-o "%.18i %.9P %R"`` names columns by letter.  Slurm cuts the string at its percent signs, and all
else follows: what precedes the first one is printed before each line, what follows a letter is
printed after its column, and a percent sign that another one follows is nothing (``%%i`` is ``%i``,
which programs rely on).  ``-O jobid:8,name:.20|`` names them in words; a column is 20 wide unless
it says otherwise.  A dot puts the text at the right; a width also cuts, and 0 leaves text as it is.

A letter or a name that means nothing does not end the command: Slurm complains and prints the
letter as it stands, so ``by_letter`` and ``by_name`` return those beside the layout.  ``%all`` is
every column.

Pure.  A column's value is made from a view (what the controller said of a job, a node …) and a
clock, which this module hands on and does not look at.
"""

from __future__ import annotations

from operator import itemgetter

from roadstead.core.printable import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Final, TypeAlias

    from roadstead.cli.words import Clock, View

    Value: TypeAlias = Callable[[View, Clock], str]
    Order: TypeAlias = Callable[[View, Clock], Any]

_NAMED_WIDTH: Final = 20
_WIDEST: Final = 65536
_DIGITS: Final = "0123456789"


class Column:
    """One row of a table of columns: its letter ("": none), names (in lower case), and heading.

    ``order`` gives what to sort by, where that is not the text.  A ``duration`` that stands at the
    right is never cut: Slurm shows 1-02:03:00 in a column of 9.
    """

    __slots__ = ("duration", "header", "letter", "names", "order", "value")

    def __init__(
        self,
        letter: str,
        names: str,
        header: str,
        value: Value,
        order: Order | None = None,
        *,
        duration: bool = False,
    ) -> None:
        self.letter, self.names, self.header = letter, names.split(), header
        self.value = value
        self.order = order or value
        self.duration = duration


class Fixed:
    """The value of a column that is the same for all: nothing here has another."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __call__(self, view: Any, clock: Any) -> str:
        return self.text


def fixed(text: str) -> Value:
    """The value of a column that is the same for all."""
    return Fixed(text)


class Key:
    """The value of a column that a view has as it is: as text, and (``get``) to sort by."""

    __slots__ = ("get", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.get = itemgetter(name)

    def __call__(self, view: View, clock: Clock) -> str:
        return str(view[self.name])


class Unless:
    """The value that a view has under ``name`` as it is, unless it has one under ``others``: then
    what ``value`` says."""

    __slots__ = ("name", "others", "value")

    def __init__(self, name: str, others: str, value: Value) -> None:
        self.name, self.others, self.value = name, others.split(), value

    def __call__(self, view: View, clock: Clock) -> str:
        return self.value(view, clock)


def key(name: str) -> Value:
    """The value that a view has under ``name``."""
    return Key(name)


class Field:
    """A column at its place in a line.  Without a column it is only its ``suffix``."""

    __slots__ = ("column", "right", "suffix", "width")

    def __init__(self, column: Column | None, width: int, right: bool, suffix: str) -> None:
        self.column, self.width, self.right, self.suffix = column, width, right, suffix

    def header(self) -> str:
        return self._place(self.column.header if self.column else "", cut=True)

    def text(self, view: View, clock: Clock) -> str:
        """The column's value, padded and cut to the width, and what follows it."""
        if self.column is None:
            return self.suffix
        value = printable(self.column.value(view, clock))
        whole = self.column.duration and self.right and value[:1].isdigit()
        return self._place(value, cut=not whole)

    def conversion(self, name: str = "") -> str:
        """The column in the words of printf(3), of the value of that name, or of the next one."""
        named = f"%({name})" if name else "%"
        if not self.width:
            return f"{named}s"
        cut = "" if self.column is not None and self.column.duration else f".{self.width}"
        return f"{named}{'' if self.right else '-'}{self.width}{cut}s"

    def whole_or_cut(self) -> Value:
        """The value of the column, cut if ``conversion`` does not: a duration that is none."""
        assert self.column is not None
        value, width = self.column.value, self.width
        if not self.column.duration or not width:
            return value
        if not self.right:
            return lambda view, clock: value(view, clock)[:width]

        def whole(view: View, clock: Clock) -> str:
            text = value(view, clock)
            return text if len(text) <= width or text[0].isdigit() else text[:width]

        return whole

    def _place(self, value: str, *, cut: bool) -> str:
        if self.width:
            value = value[: self.width] if cut else value
            value = value.rjust(self.width) if self.right else value.ljust(self.width)
        return value + self.suffix


class Layout:
    """A line: literal text, then fields."""

    __slots__ = ("fields", "prefix")

    def __init__(self, prefix: str, fields: list[Field]) -> None:
        self.prefix, self.fields = prefix, fields

    def header(self) -> str:
        """The line of headings."""
        return self.prefix + "".join([field.header() for field in self.fields])

    def row(self, view: View, clock: Clock) -> str:
        """The line for ``view``."""
        return self.prefix + "".join([field.text(view, clock) for field in self.fields])

    def lines(self, views: Iterable[View], clock: Clock) -> list[str]:
        """The lines for ``views``."""
        lines = []
        template, computed = self._template()
        for view in views:
            for name, value in computed:
                view[name] = value(view, clock)
            line = template % view
            # What no terminal should get is rare: only then is each value looked at.
            lines.append(line if line.isprintable() else self.row(view, clock))
        return lines

    def _template(self) -> tuple[str, list[tuple[str, Value]]]:
        """A line as one format of a view, and what has to be put into that before, by key: many
        lines are made with it."""
        parts = [self.prefix.replace("%", "%%")]
        computed: list[tuple[str, Value]] = []
        for field in self.fields:
            if field.column is not None:
                value = field.whole_or_cut()
                name = value.name if isinstance(value, Key) else f" {len(computed)}"
                if not isinstance(value, Key):
                    computed.append((name, value))
                parts.append(field.conversion(name))
            parts.append(field.suffix.replace("%", "%%"))
        return "".join(parts), computed


def by_letter(text: str, columns: Iterable[Column]) -> tuple[Layout, list[str]]:
    """The layout of an ``-o`` string, and the letters in it that mean nothing."""
    letters = {column.letter: column for column in columns if column.letter}
    if text.lower() == "%all":
        return _all(letters), []
    pieces = [piece for piece in text.split("%") if piece]
    prefix = pieces.pop(0) if pieces and not text.startswith("%") else ""
    fields = []
    unknown = []
    for piece in pieces:
        right, width, rest = _measure(piece)
        column = letters.get(rest[:1])
        if column is None:
            unknown.append(rest[:1])
            fields.append(Field(None, 0, False, f"%{piece}"))
        else:
            fields.append(Field(column, width, right, rest[1:]))
    return Layout(prefix, fields), unknown


def by_name(text: str, columns: Iterable[Column]) -> tuple[Layout, list[str]]:
    """The layout of an ``-O`` string, and the names in it that mean nothing."""
    if text.lower() == "all":
        return _all({column.letter: column for column in columns if column.letter}), []
    names = {name: column for column in columns for name in column.names}
    fields = []
    unknown = []
    for piece in text.split(","):
        if not piece:
            continue
        name, colon, measure = piece.partition(":")
        right, width, suffix = _measure(measure) if colon else (False, _NAMED_WIDTH, "")
        column = names.get(name.lower())
        if column is None:
            unknown.append(name)
        else:
            fields.append(Field(column, width, right, suffix))
    return Layout("", fields), unknown


def _all(letters: dict[str, Column]) -> Layout:
    """``%all``: every column that has a letter, with bars between them."""
    small_first = sorted(letters, key=lambda letter: (letter.isupper(), letter))
    fields = [Field(letters[letter], 0, False, "|") for letter in small_first]
    fields[-1].suffix = ""
    return Layout("", fields)


def _measure(text: str) -> tuple[bool, int, str]:
    """Read ``[.][width]``; whether the text goes to the right, the width, and what follows."""
    right = text.startswith(".")
    rest = text[1:] if right else text
    after = rest.lstrip(_DIGITS)
    digits = rest[: len(rest) - len(after)]
    return right, min(int(digits[:9] or "0"), _WIDEST), after


def aligned(rows: Iterable[Iterable[str]], gap: str = "  ") -> str:
    """Lines whose columns are as wide as what is in them, with ``gap`` between them."""
    shown = [[printable(text) for text in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = [
        gap.join([f"{text:<{width}}" for text, width in zip(row, widths, strict=True)]).rstrip()
        for row in shown
    ]
    return "\n".join(lines) + "\n"
