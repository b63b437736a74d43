"""roadstead image: what is in the image store, and bringing something into it before a job asks."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, Final

from roadstead.cli import report
from roadstead.core.model import to_json
from roadstead.core.printable import printable
from roadstead.errors import UsageError
from roadstead.images import pins
from roadstead.images.reference import parse
from roadstead.images.store import Store

USAGE: Final = "roadstead image ls [--json] | pull REFERENCE | inspect REFERENCE"
HELP: Final = """Usage: roadstead image ls [--json]
       roadstead image pull REFERENCE
       roadstead image inspect REFERENCE|DIGEST

ls       lists the images in your store, the last used first.
pull     brings an image into the store, or looks for a newer one under the same name; prints its
         digest.  A job that names the reference then starts at once.
inspect  prints what is known of an image in the store, as JSON.

  --json      one object, for programs
  -h, --help  this text

Exit status: 0; 1 if it failed.
"""


def main(operands: list[str]) -> int:
    """Run ``roadstead image``; the exit code.  Raises RoadsteadError."""
    if "-h" in operands or "--help" in operands:
        report.write_out(HELP)
        return 0
    store = Store.default(os.environ)
    match operands:
        case ["ls"] | ["ls", "--json"]:
            return _list(store, as_json="--json" in operands)
        case ["pull", text]:
            return _pull(store, text)
        case ["inspect", text]:
            return _inspect(store, text)
        case _:
            pass
    raise UsageError(f"image does not know {' '.join(operands) or 'what to do'}", hint=USAGE)


def _list(store: Store, *, as_json: bool) -> int:
    records = [(store.record(digest), used) for digest, used in store.images()]
    if as_json:
        rows = [
            {"digest": r.digest, "reference": r.reference, "size": r.size, "used_at": used}
            for r, used in records
        ]
        report.write_out(json.dumps({"store": store.path, "images": rows}, indent=2) + "\n")
        return 0
    lines = [("DIGEST", "SIZE", "USED", "REFERENCE")]
    for record, used in records:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(used))
        lines.append((record.digest[7:19], _size(record.size), when, record.reference))
    for digest, size, when, reference in lines:
        report.write_out(f"{digest:<12}  {size:>8}  {when:<16}  {printable(reference)}\n")
    return 0


def _pull(store: Store, text: str) -> int:
    from roadstead.images.resolve import resolve

    shown = _Progress(sys.stderr.isatty())
    try:
        image = resolve(text, store=store, refresh=True, progress=shown)
    finally:
        shown.close()
    report.write_out(f"{image.digest}\n")
    return 0


def _inspect(store: Store, text: str) -> int:
    digest = text
    if not text.startswith("sha256:"):
        reference = parse(text, os.getcwd())
        for place in (store.path, *store.others):
            digest = pins.pinned(place, reference)
            if digest:
                break
        else:
            raise UsageError(
                f"{text} is not in the store {store.path}", hint=f"roadstead image pull {text}"
            )
    found: dict[str, Any] = to_json(store.record(digest))
    # The documents are what the digests are of, byte for byte; here they are to be read.
    for name in ("manifest", "configuration"):
        found[name] = json.loads(found[name]) if found[name] else None
    report.write_out(json.dumps(found, indent=2) + "\n")
    return 0


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


class _Progress:
    """A line on a terminal that tells how far an import is; nothing in a pipe."""

    def __init__(self, on_terminal: bool) -> None:
        self._on_terminal = on_terminal
        self._last = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if self._on_terminal and now - self._last > 0.1:
            self._last = now
            of = f" of {_size(total)}" if total else ""
            sys.stderr.write(f"\r\033[K{what} {_size(done)}{of}")
            sys.stderr.flush()

    def close(self) -> None:
        """Take the line away."""
        if self._last:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
