"""Text that somebody else chose, as a terminal, a log or a script that reads lines may have it.

A job's name, a path or a runtime's complaint can hold an escape sequence, which a terminal obeys
(it may retitle, recolour, or type), a line feed, which forges a line of squeue's, or the marks that
turn the direction of writing and so show ``exe.gpj`` as ``jpg.exe``.  Slurm prints them all as they
are.  Here each becomes a question mark; bytes that are not UTF-8 and letters of any script stay,
and so does a tab, which only moves.

On the commands' start-up path: nothing is imported.
"""

from __future__ import annotations

# C0 without the tab, DEL and C1; line and paragraph separators, and the explicit directions of
# Unicode's annex 9.
_HARMFUL = {
    code: "?"
    for codes in (
        range(0x09), range(0x0A, 0x20), range(0x7F, 0xA0),
        range(0x2028, 0x202F), range(0x2066, 0x206A),
    )
    for code in codes
}  # fmt: skip
# The bytes of C1 where they are no UTF-8: Python's surrogateescape of 0x80 to 0x9F.
_HARMFUL.update((code, "?") for code in range(0xDC80, 0xDCA0))


def printable(text: str) -> str:
    """``text`` with a question mark for everything that is no character of a line."""
    return text if text.isprintable() else text.translate(_HARMFUL)
