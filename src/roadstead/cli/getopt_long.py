"""getopt_long(3) as glibc does it, over rows.

Scripts rely on its corners, and argparse and Python's getopt have others: an optional argument
binds only when it is attached (``--exclusive hostname`` runs hostname), a prefix that fits one
option is enough, ``-vvn4`` is a cluster, and programs match the sentences of its errors.
util-linux's getopt(1), which is glibc's function as a program, is the oracle of the tests.

A row has ``name``, ``short``, ``arg`` and ``aliases``; what else it has is its owner's.
"""

from __future__ import annotations

from roadstead.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Final

    from roadstead.cli.option import Option

    Pairs = list[tuple[str, str]]

NO_ARG: Final = 0
REQUIRED: Final = 1
OPTIONAL: Final = 2


class Grammar:
    """The rows of one command, by every long name and by letter.

    With ``in_order`` the first operand ends the options; else options may follow operands.  A
    ``lenient`` one takes ``--name=value`` for an option whatever the name is: of others one cannot
    know whether the next word is a value.
    """

    __slots__ = ("command", "in_order", "lenient", "letters", "names", "rows")

    def __init__(
        self, command: str, rows: Iterable[Option], *, in_order: bool, lenient: bool = False
    ) -> None:
        self.command = command
        self.in_order = in_order
        self.lenient = lenient
        self.rows = list(rows)
        self.letters = {row.short: row for row in self.rows if row.short}
        self.names: dict[str, Option] = {}
        for row in self.rows:
            self.names[row.name] = row
            for alias in row.aliases.split():
                self.names[alias] = row

    def parse(self, argv: Iterable[str]) -> tuple[Pairs, list[str]]:
        """The options in the order given, by their long names ("" where no value), and the rest."""
        pairs: Pairs = []
        rest: list[str] = []
        words = iter(argv)
        for word in words:
            if word == "--":
                rest.extend(words)
            elif word.startswith("--"):
                pairs.append(self._long(word, words))
            elif word.startswith("-") and word != "-":
                self._letters(word, words, pairs)
            else:
                rest.append(word)
                if self.in_order:
                    rest.extend(words)
        return pairs, rest

    def _wrong(self, sentence: str) -> UsageError:
        return UsageError(sentence, hint=f'Try "{self.command} --help" for more information')

    def _long(self, word: str, words: Iterator[str]) -> tuple[str, str]:
        if self.lenient and self._is_strange(word):
            strange, _, value = word[2:].partition("=")
            return strange, value
        name, row = self._find(word)
        attached, value = word.partition("=")[1:]
        if attached and row.arg == NO_ARG:
            raise self._wrong(f"option '--{name}' doesn't allow an argument")
        if not attached and row.arg == REQUIRED:
            for value in words:
                return row.name, value
            raise self._wrong(f"option '--{name}' requires an argument")
        return row.name, value

    def _is_strange(self, word: str) -> bool:
        name, attached, _ = word[2:].partition("=")
        return bool(attached) and not any(known.startswith(name) for known in self.names)

    def _find(self, word: str) -> tuple[str, Option]:
        """The row that ``--name[=value]`` means, and the long name it was matched with."""
        name = word[2:].partition("=")[0]
        if name in self.names:
            return name, self.names[name]
        matches = [known for known in self.names if known.startswith(name)]
        if not matches:
            raise self._wrong(f"unrecognized option '{word}'")
        row = self.names[matches[0]]
        # Two spellings of one option do not make a prefix ambiguous: glibc compares what they set.
        others = [known for known in matches if self.names[known] is not row]
        if others:
            listed = "".join(f" '--{known}'" for known in (matches[0], *others))
            raise self._wrong(f"option '{word}' is ambiguous; possibilities:{listed}")
        return matches[0], row

    def _letters(self, word: str, words: Iterator[str], pairs: Pairs) -> None:
        """Read ``-vvn4``: flags, up to a letter that takes what is left of the word."""
        for at, letter in enumerate(word[1:], start=2):
            row = self.letters.get(letter)
            if row is None:
                raise self._wrong(f"invalid option -- '{letter}'")
            if row.arg == NO_ARG:
                pairs.append((row.name, ""))
                continue
            value = word[at:]
            if not value and row.arg == REQUIRED:
                following = next(words, None)
                if following is None:
                    raise self._wrong(f"option requires an argument -- '{letter}'")
                value = following
            pairs.append((row.name, value))
            return
