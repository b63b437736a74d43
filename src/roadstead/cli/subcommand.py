"""The words after a subcommand of roadstead's own: its options, and what it is about."""

from __future__ import annotations

from roadstead.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def options(
    words: Sequence[str], known: Mapping[str, bool], command: str, usage: str
) -> tuple[dict[str, str], list[str]]:
    """The options among the words, with their values, and the other words.  ``known`` says of each
    whether it takes a value.  Raises UsageError, with ``usage`` as what to type."""
    given: dict[str, str] = {}
    others: list[str] = []
    pending = list(words)
    while pending:
        word = pending.pop(0)
        name, equals, value = word.partition("=")
        if not word.startswith("-"):
            others.append(word)
        elif name not in known or (equals and not known[name]):
            raise UsageError(f"{command} does not know {word}", hint=usage)
        elif not known[name] or equals:
            given[name] = value
        elif pending:
            given[name] = pending.pop(0)
        else:
            raise UsageError(f"{name} needs a value", hint=usage)
    return given, others
