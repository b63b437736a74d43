"""The #SBATCH lines of a batch script in a container, for Slurm's own sbatch (agent/request.py has
the whole of such a script).  Pure."""

from __future__ import annotations

from roadstead.agent import request
from roadstead.engines.slurm import rewrite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


def made(
    directives: Iterable[Sequence[tuple[str, str]] | str],
    ours: Callable[[str], bool],
    start: str,
    told: str,
    text: str,
) -> str:
    """The script to submit.  ``directives`` are the options of each #SBATCH line, or the word that
    separates the components of a heterogeneous job; ``start`` is carried.py's."""
    lines = []
    for each in directives:
        if isinstance(each, str):
            lines.append(each)
            continue
        kept = [quoted(word) for word in rewrite.words(each, ours)]
        if kept:
            lines.append(" ".join(kept))
    return request.script(lines, start, told, text)


def quoted(word: str) -> str:
    """A word of a directive, so that sbatch reads it as it is: it takes a backslash before any
    character, and blanks and # only in quotes (cli/script.py says what it was seen to do)."""
    if not any(char in word for char in " \t#\"'\\"):
        return word
    inner = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{inner}"'
