"""Jobs in groups that have much in common: chosen, put in order and printed column by column.

A listing of many jobs comes as core/listing.py says it.  To make a view of each job and to ask each
column about it costs several times what the lines cost that are printed in the end.  So a column is
asked once for what a group has in common, and otherwise once for each different value; what all
lines of a group have in common is in the format that makes them.  Tests hold the lines against
those that Layout.table makes of views.
"""

from __future__ import annotations

from itertools import chain, compress

from roadstead.cli import words
from roadstead.cli.squeue_columns import READS
from roadstead.cli.table import Key, Unless

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from typing import Any

    from roadstead.cli.table import Column, Field, Layout
    from roadstead.cli.words import Clock, View


class Of:
    """A test of what a view has under one key."""

    __slots__ = ("name", "passes")

    def __init__(self, name: str, passes: Callable[[Any], bool]) -> None:
        self.name, self.passes = name, passes

    def __call__(self, view: View) -> bool:
        return self.passes(view[self.name])


class Group:
    """Jobs: what is the same for all of them by key, and a list of the values of each other key."""

    __slots__ = ("columns", "same", "size")

    def __init__(self, same: View, columns: dict[str, list[Any]]) -> None:
        self.same, self.columns = same, columns
        self.size = len(columns["job_id"])

    def views(self) -> list[View]:
        """A view of each job."""
        names = list(self.columns)
        rows = zip(*self.columns.values(), strict=True)
        return [{**self.same, **dict(zip(names, row, strict=True))} for row in rows]

    def tell(self, reads: Sequence[str], ask: Callable[[View], Any]) -> tuple[Any, list[Any]]:
        """What ``ask`` says of each job's view, of which it looks at the keys ``reads``: one value
        for all, or else (None and) a list."""
        varied = [name for name in reads if name in self.columns]
        if not varied:
            return ask(self.same), []
        rows = list(zip(*[self.columns[name] for name in varied], strict=True))
        said = {row: ask({**self.same, **dict(zip(varied, row, strict=True))}) for row in set(rows)}
        return None, [said[row] for row in rows]

    def chosen(self, tests: Sequence[Callable[[View], bool]]) -> Group:
        """Those that pass each test."""
        group = self
        for test in tests:
            reads = [test.name] if isinstance(test, Of) else list(self.columns)
            every, each = group.tell(reads, test)
            kept = each or [every] * group.size
            if not all(kept):
                columns = {name: list(compress(of, kept)) for name, of in group.columns.items()}
                group = Group(self.same, columns)
        return group

    def lines(self, layout: Layout, clock: Clock) -> list[str]:
        """A line for each job."""
        parts = [layout.prefix.replace("%", "%%")]
        varied: list[list[Any]] = []
        for field in layout.fields:
            if field.column is not None:
                text, texts = self._texts(field, clock)
                if texts:
                    parts.append(field.conversion())
                    varied.append(texts)
                else:
                    parts.append((field.conversion() % (text,)).replace("%", "%%"))
            parts.append(field.suffix.replace("%", "%%"))
        form = "".join(parts)
        rows = zip(*varied, strict=True) if varied else [()] * self.size
        lines = [form % row for row in rows]
        if not all(map(str.isprintable, lines)):  # rare: then each value is looked at
            return [layout.row(view, clock) for view in self.views()]
        return lines

    def _texts(self, field: Field, clock: Clock) -> tuple[Any, list[Any]]:
        """The texts of a column: one for all of the group, or a list."""
        assert field.column is not None
        value = field.whole_or_cut()
        if isinstance(value, Key) or (
            isinstance(value, Unless)
            and all(self.same.get(other, 0) is None for other in value.others)
        ):
            return self._under(value.name)
        return self.tell(_reads(field.column), lambda view: value(view, clock))

    def keys(self, column: Column, clock: Clock) -> tuple[Any, list[Any]]:
        """What a column is sorted by: one value for all of the group, or a list."""
        order = column.order
        if isinstance(order, Key):
            return self._under(order.name)
        return self.tell(_reads(column), lambda view: order(view, clock))

    def _under(self, name: str) -> tuple[Any, list[Any]]:
        return (None, self.columns[name]) if name in self.columns else (self.same[name], [])


def _reads(column: Column) -> list[str]:
    reads = READS[column.letter].split()
    return [*reads, "array_tasks"] if "array_task_id" in reads else reads


def together(groups: list[Group], alone: Collection[str]) -> list[Group]:
    """With one line for the elements of an array that wait for the same (words.together)."""
    plain = [group for group in groups if group.same.get("array_job_id", 0) is None]
    if len(plain) == len(groups):
        return groups
    views = chain.from_iterable([group.views() for group in groups if group not in plain])
    shown = words.together(sorted(views, key=lambda view: view["job_id"]), alone)
    if not shown:
        return plain
    keys = [*shown[0], "array_tasks"]
    return [*plain, Group({}, {name: [view.get(name) for view in shown] for name in keys})]


def table(
    groups: list[Group], layout: Layout, order: list[tuple[Column, bool]], clock: Clock
) -> list[str]:
    """The lines of all jobs: by number, then by the columns of ``order``, the first one strongest;
    True turns one round."""
    lines = list(chain.from_iterable([group.lines(layout, clock) for group in groups]))
    places = list(range(len(lines)))
    numbers = list(chain.from_iterable([group.columns["job_id"] for group in groups]))
    places.sort(key=numbers.__getitem__)
    for column, turned in reversed(order):
        told = [group.keys(column, clock) for group in groups]
        if any(each for _, each in told) or len({every for every, _ in told}) > 1:
            flat = [
                each or [every] * group.size
                for (every, each), group in zip(told, groups, strict=True)
            ]
            places.sort(key=list(chain.from_iterable(flat)).__getitem__, reverse=turned)
    return [lines[place] for place in places]
