"""Tables of the accounting commands (sacct, sstat …): named fields in columns or between bars.

Their grammar is not squeue's.  ``--format=jobid,state%20,name%-12`` names fields in any case; a
number is the width and a minus puts the text at the left.  Text that is too wide ends in a ``+``,
numbers and times stand out.  With --parsable there are no widths: a bar follows each value, with
--parsable2 it stands between them.

Pure: rows and a clock in, text out.
"""

from __future__ import annotations

from roadstead.core.printable import printable
from roadstead.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, Final, TypeAlias

    Value: TypeAlias = Callable[[Any, Any], str]

_WIDEST: Final = 65536


class Field:
    """One row of a table of fields: its name, width (negative: at the left), and value.

    ``cut``: text that is too wide is cut; numbers and times are not.
    """

    __slots__ = ("cut", "name", "value", "width")

    def __init__(self, name: str, width: int, value: Value, *, cut: bool = True) -> None:
        self.name, self.width, self.value, self.cut = name, width, value, cut

    def place(self, text: str, *, cut: bool) -> str:
        """The text in its column."""
        width = abs(self.width)
        if cut and len(text) > width:
            text = f"{text[: width - 1]}+" if width else ""
        return text.rjust(width) if self.width > 0 else text.ljust(width)

    def heading(self) -> str:
        width = abs(self.width)
        text = self.name[:width]
        return text.rjust(width) if self.width > 0 else text.ljust(width)

    def with_width(self, width: int) -> Field:
        return Field(self.name, width, self.value, cut=self.cut)


class Style:
    """How a table is printed: ``bars`` 0 in columns, 1 with a bar after each value, 2 between."""

    __slots__ = ("bars", "delimiter", "headings")

    def __init__(self, bars: int = 0, delimiter: str = "|", *, headings: bool = True) -> None:
        self.bars, self.delimiter, self.headings = bars, delimiter, headings


def style(asked: dict[str, str]) -> Style:
    """The style that --noheader, --parsable, --parsable2 and --delimiter ask for."""
    bars = 2 if "parsable2" in asked else 1 if "parsable" in asked else 0
    return Style(bars, asked.get("delimiter", "|"), headings="noheader" not in asked)


def chosen(text: str, table: Sequence[Field]) -> list[Field]:
    """The fields of a ``--format``.  Raises UsageError for one that is not in the table."""
    by_name = {field.name.lower(): field for field in table}
    found: list[Field] = []
    for word in text.split(","):
        name, percent, measure = word.strip().partition("%")
        if not name:
            continue
        field = by_name.get(name.lower())
        if field is None:
            raise UsageError(f'Invalid field requested: "{name}"')
        digits = measure.lstrip("-")
        if percent and digits.isascii() and digits.isdigit():
            width = min(int(digits[:9]), _WIDEST)
            field = field.with_width(-width if measure.startswith("-") else width)
            # A field that is named again has one width everywhere: the last.
            found = [field if each.name == field.name else each for each in found]
        found.append(field)
    return found


def table(fields: Sequence[Field], rows: Iterable[Any], clock: Any, style: Style) -> str:
    """The lines for ``rows``, each ended, under the headings if they are wanted."""
    lines = []
    if style.headings and style.bars:
        lines.append(_between([field.name for field in fields], style))
    elif style.headings:
        lines.append("".join(f"{field.heading()} " for field in fields))
        lines.append("".join(f"{'-' * abs(field.width)} " for field in fields))
    for row in rows:
        texts = [printable(field.value(row, clock)) for field in fields]
        if style.bars:
            lines.append(_between(texts, style))
        else:
            pairs = zip(fields, texts, strict=True)
            lines.append("".join([f"{f.place(text, cut=f.cut)} " for f, text in pairs]))
    return "".join(f"{line}\n" for line in lines)


def _between(texts: list[str], style: Style) -> str:
    end = style.delimiter if style.bars == 1 else ""
    return style.delimiter.join(texts) + end


def names(table: Iterable[Field], width: int = 20) -> str:
    """The list that --helpformat prints: four names on a line."""
    found = [field.name.ljust(width - 1) for field in table]
    lines = [" ".join(found[start : start + 4]) for start in range(0, len(found), 4)]
    return "".join(f"{line}\n" for line in lines)
