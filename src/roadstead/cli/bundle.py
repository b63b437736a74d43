"""roadstead bundle: making bundles, and saying what is wrong with one."""

from __future__ import annotations

import json
import os
from typing import Final

from roadstead.cli import report
from roadstead.errors import BundleError, UsageError

USAGE: Final = "roadstead bundle create BUNDLE --from rootfs DIR | bundle check BUNDLE [--json]"
HELP: Final = """Usage: roadstead bundle create BUNDLE --from rootfs DIR [--writable]
       roadstead bundle check BUNDLE [--json]

create  makes BUNDLE, a new directory, with a config.json for you to run DIR with: a root file
        system, Charliecloud's image, Singularity's sandbox or a container of udocker's.  What the
        image says of its command, variables, user and directory is in it.  DIR is not copied.
check   says all that is wrong with a bundle, and what to do.

  --writable  the root file system can be written to (default: read-only)
  --json      one object, for programs
  -h, --help  this text

Exit status: 0; 1 if it failed, or check has found an error.
"""


def main(operands: list[str]) -> int:
    """Run ``roadstead bundle``; the exit code.  Raises RoadsteadError."""
    if "-h" in operands or "--help" in operands:
        report.write_out(HELP)
        return 0
    match operands:
        case ["check", *rest] if len(names := [word for word in rest if word != "--json"]) == 1:
            return _check(os.path.abspath(names[0]), as_json="--json" in rest)
        case ["create", *rest]:
            writable = "--writable" in rest
            match [word for word in rest if word != "--writable"]:
                case [bundle, "--from", "rootfs", directory] | [
                    "--from", "rootfs", directory, bundle,
                ]:  # fmt: skip
                    return _create(
                        os.path.abspath(bundle), os.path.abspath(directory), writable=writable
                    )
                case _:
                    pass
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


def _create(bundle: str, source: str, *, writable: bool) -> int:
    from roadstead.host import files
    from roadstead.images import directory, translate

    description, rootfs = directory.look(os.path.realpath(source))
    if not os.path.isdir(rootfs):
        raise BundleError(f"{source} is not a directory", hint="name a root file system")
    written = translate.config(
        description.config,
        root=rootfs,
        user=translate.Accounts.of(rootfs).find(description.config.user),
        uid=os.geteuid(),
        gid=os.getegid(),
        readonly=not writable,
    )
    try:
        os.mkdir(bundle)
    except FileExistsError:
        raise BundleError(f"{bundle} is there already", hint="name a new directory") from None
    except OSError as error:
        raise BundleError(f"cannot make {bundle}: {error.strerror}") from None
    files.write_atomically(f"{bundle}/config.json", json.dumps(written, indent=2) + "\n")
    for note in description.notes:
        report.write_line(f"roadstead: {note}")
    return 0
