"""roadstead doctor: what containers need here, checked for real; see doctor/checks.py."""

from __future__ import annotations

import json
import os

from roadstead.cli import report
from roadstead.doctor import checks
from roadstead.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from roadstead.doctor.facts import Finding

USAGE: Final = "roadstead doctor [--json] [--verbose] [--nodes LIST]"
HELP: Final = f"""Usage: {USAGE}

Checks for you, on this machine, what containers and the local engine need: each thing is really
tried where that is possible.  What is wrong is told with its cause and what to do.

  --json         one object, for programs; roadstead(1) describes it
  --nodes LIST   look at these nodes of a Slurm cluster instead, all at once; ALL: every one
  -v, --verbose  also what is not applicable here, and more of each
  -h, --help     this text

Exit status: 0 when nothing has failed, else 1.
"""
_SHOWN: Final = {"ok": "ok", "warning": "WARNING", "failure": "FAILURE", "not applicable": "-"}


def main(operands: list[str]) -> int:
    """Examine the machine; the exit code."""
    at = next((at for at, word in enumerate(operands) if word.startswith("--nodes")), -1)
    if at >= 0:
        name, equals, nodes = operands[at].partition("=")
        rest = operands[:at] + operands[at + (1 if equals else 2) :]
        nodes = nodes if equals else "".join(operands[at + 1 : at + 2])
        if name != "--nodes" or not nodes or set(rest) - {"--json"}:
            raise UsageError("doctor --nodes takes a list of nodes, and --json", hint=USAGE)
        from roadstead.cli import doctor_nodes

        return doctor_nodes.main(nodes, as_json=bool(rest))
    known = {
        "--json": "json",
        "-v": "verbose",
        "--verbose": "verbose",
        "-h": "help",
        "--help": "help",
    }
    asked = {known.get(word, word) for word in operands}
    wrong = asked - set(known.values())
    if wrong:
        raise UsageError(f"doctor does not know {' '.join(sorted(wrong))}", hint=USAGE)
    if "help" in asked:
        report.write_out(HELP)
        return 0
    findings = []
    width = max(len(check.name) for check in checks.CHECKS)
    try:
        for finding in checks.examine(os.environ):
            findings.append(finding)
            if "json" not in asked:
                report.write_out(_text(finding, width, verbose="verbose" in asked))
    except checks.Interrupted as end:
        return 128 + end.number
    if "json" in asked:
        report.write_out(json.dumps(checks.as_json(findings, os.environ), indent=2) + "\n")
    else:
        report.write_out(f"\n{summary(findings)}\n")
    return 1 if any(finding.status == "failure" for finding in findings) else 0


def _text(finding: Finding, width: int, *, verbose: bool) -> str:
    if finding.status == "not applicable" and not verbose:
        return ""
    return "".join(f"{line}\n" for line in lines(finding, width, verbose=verbose))


def lines(finding: Finding, width: int, *, verbose: bool) -> list[str]:
    """A finding, for people."""
    shown = [f"{_SHOWN[finding.status]:<8} {finding.name:<{width}}  {finding.found}"]
    indent = " " * (width + 11)
    if finding.cause:
        shown.append(f"{indent}cause: {finding.cause}")
    if finding.fix:
        shown.append(f"{indent}fix:   {finding.fix}")
    if verbose or finding.status == "failure":
        shown += [f"{indent}{detail}" for detail in finding.details]
    return shown


def summary(findings: list[Finding]) -> str:
    """One line that says it all."""
    number = checks.count(findings)
    parts = [
        f"{number['ok']} ok",
        f"{number['warning']} warning{'s' * (number['warning'] != 1)}",
        f"{number['failure']} failure{'s' * (number['failure'] != 1)}",
        f"{number['not applicable']} not applicable",
    ]
    return f"{len(findings)} checks: {', '.join(parts)}"
