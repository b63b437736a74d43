"""roadstead bundle: making bundles, and saying what is wrong with one."""

from __future__ import annotations

import json
import os
import sys
from typing import Final

from roadstead.cli import report
from roadstead.errors import UsageError

USAGE: Final = "roadstead bundle create BUNDLE --from KIND WHAT… | bundle check BUNDLE [--json]"
HELP: Final = """Usage: roadstead bundle create BUNDLE --from KIND WHAT… [--writable] [-- OPTION…]
       roadstead bundle check BUNDLE [--json]

create  makes BUNDLE, a new directory, with a config.json for you to run it with.  What an image
        says of its command, variables, user, directory and volumes is in it.
check   says all that is wrong with a bundle, and what to do.

  --from rootfs DIR                  a root file system, Charliecloud's image, Singularity's sandbox
                                     or a container of udocker's; DIR is used where it is
  --from image REFERENCE             any image that srun --container takes, copied
  --from docker IMAGE|CONTAINER      what Docker has; so do podman and buildah
  --from debootstrap SUITE [MIRROR]  Debian or Ubuntu; so does mmdebstrap
  --from dnf PACKAGE…                Fedora and its relatives
  -- OPTION…                         options for debootstrap, mmdebstrap or dnf itself
  --writable                         the root file system can be written to (default: read-only)
  --json                             one object, for programs
  -h, --help                         this text

Exit status: 0; 1 if it failed, or check has found an error.
"""


def main(operands: list[str]) -> int:
    """Run ``roadstead bundle``; the exit code.  Raises RoadsteadError."""
    ours = operands[: operands.index("--")] if "--" in operands else operands
    if "-h" in ours or "--help" in ours:
        report.write_out(HELP)
        return 0
    match ours:
        case ["check", *rest] if len(names := [word for word in rest if word != "--json"]) == 1:
            return _check(os.path.abspath(names[0]), as_json="--json" in rest)
        case ["create", *rest]:
            words = [word for word in rest if word != "--writable"]
            options = tuple(operands[len(ours) + 1 :])
            return _create(words, options, writable="--writable" in rest)
        case _:
            pass
    raise UsageError(f"bundle does not know {' '.join(operands) or 'what to do'}", hint=USAGE)


def _check(path: str, *, as_json: bool) -> int:
    from roadstead.oci import checkup

    remarks = checkup.examine(path)
    if as_json:
        rows = [{"level": r.level, "what": r.what, "fix": r.fix} for r in remarks]
        report.write_out(json.dumps({"bundle": path, "remarks": rows}, indent=2) + "\n")
    else:
        for remark in remarks:
            fix = f"; {remark.fix}" if remark.fix else ""
            report.write_out(f"{remark.level}: {remark.what}{fix}\n")
        if not remarks:
            report.write_out(f"{path} is in order\n")
    return int(any(remark.level == "error" for remark in remarks))


def _create(words: list[str], options: tuple[str, ...], *, writable: bool) -> int:
    from roadstead.cli.progress import Line
    from roadstead.images import making

    if words[:1] == ["--from"]:  # the bundle may come last
        words = [words[-1], *words[:-1]] if len(words) > 2 else words
    if len(words) < 3 or words[1] != "--from" or words[0].startswith("-"):
        raise UsageError("bundle create takes a new directory and --from KIND", hint=USAGE)
    bundle, kind, what = words[0], words[2], words[3:]
    if kind not in making.SOURCES:
        raise UsageError(f"--from {kind}: not a way to a bundle", hint=", ".join(making.SOURCES))
    with Line(sys.stderr) as shown:
        wanted = making.Wanted(
            kind=kind,
            operands=tuple(what),
            options=options,
            show=sys.stderr.isatty(),
            progress=shown,
        )
        notes = making.create(os.path.abspath(bundle), wanted, writable=writable)
    for note in notes:
        report.write_line(f"roadstead: {note}")
    return 0
