"""--mail-type and --mail-user: of which of a job's events its user wants to be told.

Who carries letters is found by the command (``program``); letters.py says when there is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from roadstead.core.model import Mail
from roadstead.errors import RequestError, UsageError

_ALL: Final = ("BEGIN", "END", "FAIL", "INVALID_DEPEND", "REQUEUE", "STAGE_OUT")
PARTS: Final = {"TIME_LIMIT_50": 50, "TIME_LIMIT_80": 80, "TIME_LIMIT_90": 90}
_WORDS: Final = (*_ALL, "TIME_LIMIT", *PARTS, "ARRAY_TASKS")
_LONGEST: Final = 1000


def parse(options: Mapping[str, str], program: str, user: str) -> Mail | None:
    """What the options ask for; None for nothing, and where nobody carries letters.  Raises
    UsageError and RequestError."""
    asked: list[str] = []
    for word in options.get("mail-type", "NONE").upper().split(","):
        if word == "ALL":
            asked += _ALL
        elif word in _WORDS:
            asked.append(word)
        elif word != "NONE":
            raise UsageError(
                "Invalid --mail-type specification", hint=f"one of: NONE, ALL, {', '.join(_WORDS)}"
            )
    to = options.get("mail-user") or user
    if not to.isprintable() or len(to) > _LONGEST:
        raise RequestError("Invalid --mail-user specification")
    if not asked or not program:
        return None
    return Mail(types=tuple(dict.fromkeys(asked)), user=to, program=program)
