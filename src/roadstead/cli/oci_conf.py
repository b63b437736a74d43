"""roadstead engine oci-conf: print an oci.conf for a site's Slurm.

Without a name it is the one that calls ``roadstead oci`` with an OCI runtime; with that of a
container system ``roadstead oci`` has that run the container.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Final, cast

from roadstead import systems
from roadstead.cli import report
from roadstead.errors import UsageError
from roadstead.host import process
from roadstead.oci import sample
from roadstead.oci.patterns import quoted

_HINT: Final = (
    "roadstead engine oci-conf [SYSTEM] [--slurm-version V] [--mode run|create] [--command CMD]"
)
_OPTIONS: Final = ("slurm-version", "mode", "command")
# Where Debian and RPMs have what an ordinary user's PATH does not.
_ALSO: Final = "/usr/local/bin:/usr/bin:/usr/local/sbin:/usr/sbin"


def main(operands: list[str]) -> int:
    """Print the file; the exit code."""
    options, names = _parse(operands)
    if len(names) > 1:
        raise UsageError(f"one container system, not {' and '.join(names)}", hint=_HINT)
    if names and names[0] in sample.NATIVE:
        report.write_out(sample.NATIVE[names[0]])
        return 0
    mode = options.get("mode", "run")
    if mode not in sample.MODES:
        raise UsageError(f"--mode={mode}: one of {', '.join(sample.MODES)}")
    version = sample.parse_version(options.get("slurm-version") or _installed())
    command = options.get("command") or f"{quoted(_ourselves())} oci"
    if names:
        system = systems.find(names[0], os.environ)
        if mode != "run" or not system.takes_root:
            what = "has no create and start" if mode != "run" else "runs no bundles"
            raise UsageError(f"{system.name} {what}: there is no oci.conf for that")
        command += f" --container-system {system.name}"
    report.write_out(sample.oci_conf(version, cast("sample.Mode", mode), command))
    return 0


def _parse(operands: list[str]) -> tuple[dict[str, str], list[str]]:
    options: dict[str, str] = {}
    names: list[str] = []
    words = list(operands)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            names.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        if name not in _OPTIONS:
            raise UsageError(f"unknown option --{name}", hint=_HINT)
        if not equals:
            if not words:
                raise UsageError(f"--{name} needs a value", hint=_HINT)
            value = words.pop(0)
        options[name] = value
    return options, names


def _installed() -> str:
    """The version of the Slurm on this machine, by its daemon.  Raises UsageError."""
    path = f"{os.environ.get('PATH', os.defpath)}:{_ALSO}"
    program = process.which("slurmd", path) or process.which("slurmctld", path)
    if program is not None:
        said = process.output([program, "-V"])
        if found := re.search(r"\d+\.\d+", said):
            return found[0]
    raise UsageError(
        "there is no Slurm here whose version could be asked for",
        hint="name it: --slurm-version 22.05",
    )


def _ourselves() -> str:
    """The program that was called; every node is to have it at the same place."""
    called = os.path.abspath(sys.argv[0])
    return called if os.access(called, os.X_OK) else f"{sys.prefix}/bin/roadstead"
