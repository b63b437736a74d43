"""roadstead image: what is in the image store, and bringing something into it before a job asks."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, Final

from roadstead.cli import report
from roadstead.cli.progress import Line, size
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
        lines.append((record.digest[7:19], size(record.size), when, record.reference))
    for digest, large, when, reference in lines:
        report.write_out(f"{digest:<12}  {large:>8}  {when:<16}  {printable(reference)}\n")
    return 0


def _pull(store: Store, text: str) -> int:
    from roadstead.images.resolve import resolve

    with Line(sys.stderr) as shown:
        image = resolve(text, store=store, refresh=True, progress=shown)
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
