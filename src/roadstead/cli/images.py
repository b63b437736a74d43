"""roadstead image: what is in the image store, what comes into it, and what goes."""

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
from roadstead.errors import ImageError, UsageError
from roadstead.images import pins
from roadstead.images.reference import parse
from roadstead.images.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from roadstead.images.collect import Collected

USAGE: Final = "roadstead image ls | pull | inspect | rm | gc | verify | export; --help says more"
HELP: Final = """Usage: roadstead image ls [--json]
       roadstead image pull REFERENCE
       roadstead image inspect IMAGE
       roadstead image rm IMAGE…
       roadstead image gc [--older-than=AGE] [--quota=SIZE] [--dry-run] [--json]
       roadstead image verify [IMAGE…] [--json]
       roadstead image export IMAGE oci:DIR[:TAG]|oci-archive:FILE[:TAG]|tarball:FILE|sqsh:FILE

IMAGE is a reference whose image is in the store, or a digest, the first digits of which will do.

ls       lists the images in your store, the last used first.
pull     brings an image into the store, or looks for a newer one under the same name; prints its
         digest.  A job that names the reference then starts at once.
inspect  prints what is known of an image in the store, as JSON.
rm       removes images, and the layers that only they have.
gc       removes what no image needs; with --older-than images that were not used for so long, with
         --quota the longest unused until the rest takes no more.  What a job needs that waits or
         runs is never removed.
verify   reads every file of the images (default: all) and says what is not as it was unpacked.
export   writes an image with one layer, for others to read.

  --older-than=AGE  a number with s, m, h, d or w: 30d
  --quota=SIZE      bytes, or a number with K, M, G or T: 50G
  --dry-run         say what would be removed
  --json            one object, for programs
  -h, --help        this text

Exit status: 0; 1 if it failed, or verify has found a fault.
"""
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_BYTES: Final = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def main(operands: list[str]) -> int:
    """Run ``roadstead image``; the exit code.  Raises RoadsteadError."""
    if "-h" in operands or "--help" in operands:
        report.write_out(HELP)
        return 0
    store = Store.default(os.environ)
    verb, *rest = operands or [""]
    if verb in _VERBS:
        run, options, fewest, most = _VERBS[verb]
        given, words = _options(rest, options)
        if fewest <= len(words) <= most:
            return run(store, words, given)
    raise UsageError(f"image does not know {' '.join(operands) or 'what to do'}", hint=USAGE)


def _options(words: list[str], known: tuple[str, ...]) -> tuple[dict[str, str], list[str]]:
    """The options among the words, with their values, and the other words."""
    given: dict[str, str] = {}
    others = []
    pending = list(words)
    while pending:
        word = pending.pop(0)
        name, equals, value = word.partition("=")
        if not word.startswith("--") or name not in [each.rstrip("=") for each in known]:
            others.append(word)
        elif name in known:  # takes no value
            given[name] = ""
        elif equals or pending:
            given[name] = value if equals else pending.pop(0)
        else:
            raise UsageError(f"{name} needs a value", hint=USAGE)
    if wrong := next((word for word in others if word.startswith("-")), ""):
        raise UsageError(f"unknown option {wrong}", hint=USAGE)
    return given, others


def _list(store: Store, words: list[str], options: dict[str, str]) -> int:
    records = [(store.known(digest), used) for digest, used in store.images()]
    if "--json" in options:
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


def _pull(store: Store, words: list[str], options: dict[str, str]) -> int:
    from roadstead.images.resolve import resolve

    with Line(sys.stderr) as shown:
        image = resolve(words[0], store=store, refresh=True, progress=shown)
    report.write_out(f"{image.digest}\n")
    return 0


def _inspect(store: Store, words: list[str], options: dict[str, str]) -> int:
    found: dict[str, Any] = to_json(store.record(_digest(store, words[0])))
    # The documents are what the digests are of, byte for byte; here they are to be read.
    for name in ("manifest", "configuration"):
        found[name] = _document(found[name])
    report.write_out(json.dumps(found, indent=2) + "\n")
    return 0


def _document(text: str) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return text  # a SIF's definition is no JSON


def _remove(store: Store, words: list[str], options: dict[str, str]) -> int:
    from roadstead.images import collect

    digests = list(dict.fromkeys(_digest(store, word) for word in words))
    _say(collect.remove(store, digests), "removed")
    return 0


def _collect(store: Store, words: list[str], options: dict[str, str]) -> int:
    from roadstead.images import collect

    age, quota = options.get("--older-than"), options.get("--quota")
    dry_run = "--dry-run" in options
    done = collect.collect(
        store,
        unused_seconds=None if age is None else _number(age, _SECONDS, "--older-than=30d"),
        quota=None if quota is None else _number(quota, _BYTES, "--quota=50G"),
        dry_run=dry_run,
    )
    if "--json" in options:
        answer = {
            "store": store.path,
            "dry_run": dry_run,
            "images": [{"digest": r.digest, "reference": r.reference} for r in done.images],
            "layers": done.layers,
            "bytes": done.freed,
        }
        report.write_out(json.dumps(answer, indent=2) + "\n")
        return 0
    _say(done, "would be removed" if dry_run else "removed")
    return 0


def _say(done: Collected, what: str) -> None:
    for record in done.images:
        report.write_out(f"{record.digest[7:19]}  {printable(record.reference)}\n")
    images, layers = _count(len(done.images), "image"), _count(len(done.layers), "layer")
    report.write_out(f"{what}: {images}, {layers}, {size(done.freed)}\n")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _verify(store: Store, words: list[str], options: dict[str, str]) -> int:
    from roadstead.images.verify import verify

    digests = [_digest(store, word) for word in words] or [each for each, _ in store.images()]
    with Line(sys.stderr) as shown:
        faults = list(verify(store, digests, shown))
    if "--json" in options:
        rows = [{"digest": f.digest, "what": f.what, "references": f.references} for f in faults]
        answer = {"store": store.path, "images": len(digests), "faults": rows}
        report.write_out(json.dumps(answer, indent=2) + "\n")
        return int(bool(faults))
    for fault in faults:
        of = f" (of {', '.join(map(printable, fault.references))})" if fault.references else ""
        report.write_out(f"{fault.digest[7:19]}{of}: {fault.what}\n")
    if not faults:
        verb = "is" if len(digests) == 1 else "are"
        report.write_out(f"{_count(len(digests), 'image')} {verb} as unpacked\n")
        return 0
    report.write_line(
        "roadstead: error: the store is damaged; roadstead image rm, then pull, brings an image "
        "again"
    )
    return 1


def _export(store: Store, words: list[str], options: dict[str, str]) -> int:
    from roadstead.images.export import export

    export(store.load(_digest(store, words[0])), parse(words[1], os.getcwd()), store)
    return 0


def _digest(store: Store, text: str) -> str:
    """The digest of an image in the store, by reference, digest or a part of one."""
    digits = text.removeprefix("sha256:")
    if len(digits) >= 6 and not set(digits) - set("0123456789abcdef"):
        found = [each for each, _ in store.images() if each[7:].startswith(digits)]
        if len(found) == 1:
            return found[0]
        if found:
            raise ImageError(f"{text} could be {' or '.join(each[:31] for each in found)}")
        if text.startswith("sha256:"):
            return text
    reference = parse(text, os.getcwd())
    for place in (store.path, *store.others):
        if digest := pins.last(place, reference):
            return digest
    raise UsageError(
        f"{text} is not in the store {store.path}", hint=f"roadstead image pull {text}"
    )


def _number(text: str, units: dict[str, int], example: str) -> int:
    number, factor = text, 1
    if text[-1:] in units:
        number, factor = text[:-1], units[text[-1]]
    if not number.isascii() or not number.isdigit() or len(number) > 15:
        raise UsageError(f"{example.partition('=')[0]}={text}: not a number", hint=example)
    return int(number) * factor


# name → what does it, the options it knows (= where a value follows), and how many words it takes
_VERBS: Final[
    dict[str, tuple[Callable[[Store, list[str], dict[str, str]], int], tuple[str, ...], int, int]]
] = {
    "ls": (_list, ("--json",), 0, 0),
    "pull": (_pull, (), 1, 1),
    "inspect": (_inspect, (), 1, 1),
    "rm": (_remove, (), 1, 1 << 16),
    "gc": (_collect, ("--older-than=", "--quota=", "--dry-run", "--json"), 0, 0),
    "verify": (_verify, ("--json",), 0, 1 << 16),
    "export": (_export, (), 2, 2),
}
