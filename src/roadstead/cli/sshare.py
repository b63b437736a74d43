"""sshare: the shares of accounts.  None are kept, so the table that Slurm would print is empty.

Programs ask to learn whether a user may use an account; here every user may use any, as a label.
"""

from __future__ import annotations

import os

from roadstead.cli import fields, inquiry, report
from roadstead.cli.fields import Field
from roadstead.cli.table import fixed
from roadstead.engines import local

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

    from roadstead.cli.inquiry import Inquiry
    from roadstead.cli.words import Ask

COMMAND: Final = "sshare"

_DEFAULT: Final = "account,user,rawshares,normshares,rawusage,effectvusage,fairshare"
_LONG: Final = (
    "account,user,rawshares,normshares,rawusage,normusage,effectvusage,fairshare,levelfs,"
    "grptresmins,tresrunmins"
)


_WIDTHS: Final = (
    ("Account", -20), ("Cluster", 10), ("EffectvUsage", 13), ("FairShare", 10), ("GrpTRESMins", 30),
    ("GrpTRESRaw", 30), ("ID", 6), ("LevelFS", 10), ("NormShares", 11), ("NormUsage", 11),
    ("Partition", 12), ("RawShares", 10), ("RawUsage", 11), ("TRESRunMins", 30), ("User", 10),
)  # fmt: skip
FIELDS: Final = tuple(Field(name, width, fixed("")) for name, width in _WIDTHS)


def main(
    argv: list[str] | None = None,
    ask: Ask = local.ask,
    *,
    environ: Mapping[str, str] = os.environ,
    now: float | None = None,
) -> int:
    """Run sshare with ``argv`` (without the program's name); its exit code."""
    return inquiry.run(COMMAND, argv, _answer, ask, environ, now)


def _answer(inquiry: Inquiry) -> int:
    asked = inquiry.asked
    if "helpformat" in asked:
        report.write_out(fields.names(FIELDS, 18))
        return 0
    inquiry.no_operands()
    shown = fields.chosen(asked.get("format") or (_LONG if "long" in asked else _DEFAULT), FIELDS)
    report.write_out(fields.table(shown, [], inquiry.clock, fields.style(asked)))
    return 0
