"""What a page of docs/ types, and what it says comes of it.

In a ```console block ``$ `` begins a user's command, ``root# `` root's, ``> `` more of it; other
lines are what it prints, standard error with it.  A line ``…`` stands for any.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Command(NamedTuple):
    """One command: where it stands, whose it is, its text, and the lines below it."""

    line: int
    root: bool
    text: str
    shown: list[str]


def commands(page: Path) -> Iterator[Command]:
    """The commands of a page, in order."""
    found: Command | None = None
    inside = False
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if line.startswith("```"):
            inside = line == "```console"
        elif inside and line.startswith(("$ ", "root# ")):
            if found:
                yield found
            prompt, _, text = line.partition(" ")
            found = Command(number, prompt == "root#", text, [])
        elif inside and found and line.startswith("> "):
            found = found._replace(text=f"{found.text}\n{line[2:]}")
        elif inside and found:
            found.shown.append(line)
    if found:
        yield found


def agrees(shown: list[str], printed: list[str]) -> bool:
    """Whether a command has printed what a page shows: in any order, as tasks answer so, and but
    for numbers, times, digests, and what doctor finds on one machine or another."""
    wanted, found = sorted(map(_alike, shown)), sorted(map(_alike, printed))
    if "…" not in wanted:
        return wanted == found
    return all(line in found for line in wanted if line != "…")


def _alike(line: str) -> str:
    line = re.sub(r"\b[0-9a-f]{12,64}\b", "DIGEST", line)
    line = re.sub(r"\d+(\.\d+)*", "0", line)
    line = re.sub(r"(?<!\S)(warning|-)(?!\S)", "ok", line)
    return " ".join(line.replace("x0_0", "aarch0").replace("MiB", "GiB").split())
