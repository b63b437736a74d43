"""Whole lines out of chunks of bytes, each with a label if one is wanted: ``--label``.

Pure, and the place where bytes could be lost or mixed, so a property test holds it against any way
of cutting a stream into chunks.  A line ends with a newline and with nothing else: carriage
returns and zero bytes are bytes like others.  Slurm 22.05 cuts labelled lines after 1,024 bytes; we
keep a line whole up to 1 MiB.
"""

from __future__ import annotations

from typing import Final

LONGEST: Final = 1 << 20


class Lines:
    """Keeps what follows the last newline until the rest of its line has come.

    A line longer than ``LONGEST`` is passed on in pieces, so that it does not eat all memory;
    with a label each piece becomes a line of its own.
    """

    __slots__ = ("_between", "_label", "_partial", "kept")

    def __init__(self, label: bytes = b"") -> None:
        self._label = label
        self._between = b"\n" + label
        self._partial: list[bytes] = []
        self.kept = 0  # bytes that wait for the end of their line

    def feed(self, data: bytes) -> bytes:
        """The lines that are whole now."""
        end = data.rfind(b"\n") + 1
        if not end:
            self._keep(data)
            return self.end() if self.kept > LONGEST else b""
        whole = data if end == len(data) else data[:end]
        if self._partial:
            whole = b"".join((*self._partial, whole))
            self._partial.clear()
            self.kept = 0
        if end < len(data):
            self._keep(data[end:])
        return self._labelled(whole)

    def end(self) -> bytes:
        """What is left of a line without an end."""
        rest = b"".join(self._partial)
        self._partial.clear()
        self.kept = 0
        if not rest or not self._label:
            return rest
        return self._labelled(rest + b"\n")

    def _keep(self, data: bytes) -> None:
        self._partial.append(data)
        self.kept += len(data)

    def _labelled(self, whole: bytes) -> bytes:
        if not self._label:
            return whole
        # One call for all lines: joining them in Python takes ten times as long.
        return self._label + whole[:-1].replace(b"\n", self._between) + b"\n"


class Verbatim:
    """Bytes as they come: ``--unbuffered`` without ``--label``, and a pty."""

    __slots__ = ()
    kept: Final = 0

    def feed(self, data: bytes) -> bytes:
        return data

    def end(self) -> bytes:
        return b""


Shape = Lines | Verbatim
