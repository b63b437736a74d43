"""A node's answer on the standard output of its task: JSON in pieces, each a short line.

Of a long line slurmstepd passes on a kilobyte at a time, with pieces of other nodes' in between;
and a site's prolog may print lines of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Final

from roadstead.core.model import to_json
from roadstead.host import wire

_MARK: Final = "roadstead-says"
_PIECE: Final = 700


def tell(node: str, answer: object) -> None:
    """Say it, for ``heard``."""
    text = wire.dumps(to_json(answer))
    pieces = [text[at : at + _PIECE] for at in range(0, len(text), _PIECE)]
    for number, piece in enumerate(pieces):
        os.write(1, f"{_MARK} {node} {number} {len(pieces)} {piece}\n".encode())


def heard(lines: Iterable[str]) -> dict[str, Any]:
    """What each node has said, by its name; nothing of one that did not come to its end."""
    pieces: dict[str, dict[int, str]] = {}
    wanted: dict[str, int] = {}
    for line in lines:
        mark, *rest = line.split(" ", 4)
        if mark != _MARK or len(rest) != 4 or not (rest[1].isdigit() and rest[2].isdigit()):
            continue
        node, number, count, piece = rest
        pieces.setdefault(node, {})[int(number)] = piece
        wanted[node] = int(count)
    found = {}
    for node, parts in pieces.items():
        if sorted(parts) == list(range(wanted[node])):
            try:
                found[node] = wire.loads("".join(parts[at] for at in sorted(parts)))
            except ValueError:
                continue
    return found
