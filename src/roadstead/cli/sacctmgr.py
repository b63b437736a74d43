"""sacctmgr show: what Slurm's accounting database would have of this engine.

There is one cluster, one user, and what jobs can be measured by; accounts, qualities of service and
associations are none, for jobs carry theirs as labels.  Programs ask to learn what they may submit
under.  What changes something is refused.
"""

from __future__ import annotations

import os

from roadstead.cli import fields, inquiry, report
from roadstead.cli.fields import Field
from roadstead.core import names
from roadstead.engines import local
from roadstead.errors import RequestError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final, TypeAlias

    from roadstead.cli.fields import Value
    from roadstead.cli.inquiry import Inquiry
    from roadstead.cli.words import Ask

    Row: TypeAlias = dict[str, str]

COMMAND: Final = "sacctmgr"

_ENTITIES: Final = (
    'Input line must include "Account", "Association", "Cluster", "Configuration",',
    '"Event", "Federation", "Problem", "QOS", "Resource", "Reservation",',
    '"RunAwayJobs", "Stats", "Transaction", "TRES", "User", or "WCKey"',
)
# What changes something.
REFUSED: Final = (
    "add", "create", "modify", "delete", "remove", "archive", "clear", "dump", "load",
    "reconfigure", "shutdown",
)  # fmt: skip


def _key(name: str) -> Value:
    return lambda row, scene: str(row.get(name, ""))


def _fields(widths: str) -> tuple[Field, ...]:
    """``User:10 Def_Acct:10``: names (blanks are written _) and widths."""
    pairs = [word.split(":") for word in widths.split()]
    return tuple(
        Field(name.replace("_", " "), int(width), _key(name.lower().replace("_", "")))
        for name, width in pairs
    )


_LIMITS: Final = (
    "Share:9 Priority:10 GrpJobs:7 GrpTRES:13 GrpSubmit:9 GrpWall:11 GrpTRESMins:13 MaxJobs:7"
    " MaxTRES:13 MaxTRESPerNode:14 MaxSubmit:9 MaxWall:11 MaxTRESMins:13 QOS:20 Def_QOS:9"
    " GrpTRESRunMins:13"
)
# entity → how little of its name will do, its fields, those that are shown, and its rows
Rows = "Callable[[Inquiry], list[Row]]"


def _users(inquiry: Inquiry) -> list[Row]:
    name = inquiry.query("config")["SlurmUser"].partition("(")[0]
    return [{"user": name, "admin": "None", "cluster": names.CLUSTER}]


def _clusters(inquiry: Inquiry) -> list[Row]:
    return [
        {
            "cluster": names.CLUSTER, "controlhost": os.uname().nodename, "controlport": "0",
            "rpc": "9728", "share": "1",
        }
    ]  # fmt: skip


def _tres(inquiry: Inquiry) -> list[Row]:
    kinds = ("cpu", 1), ("mem", 2), ("energy", 3), ("node", 4), ("billing", 5)
    return [{"type": kind, "id": str(number)} for kind, number in kinds]


def _none(inquiry: Inquiry) -> list[Row]:
    return []


TABLES: Final[tuple[tuple[str, int, str, str, Any], ...]] = (
    ("accounts", 2, "Account:10 Descr:20 Org:20", "account,descr,org", _none),
    ("associations", 2, f"Cluster:10 Account:10 User:10 Partition:10 {_LIMITS}", "", _none),
    ("clusters", 2, f"Cluster:10 ControlHost:15 ControlPort:12 RPC:5 {_LIMITS}",
     "cluster,controlhost,controlport,rpc,share,grpjobs,grptres,grpsubmit,maxjobs,maxtres,maxsubmit,"
     "maxwall,qos,defqos", _clusters),
    ("events", 1, "Cluster:10 NodeName:15 TimeStart:19 TimeEnd:19 State:6 Reason:30 User:10", "",
     _none),
    ("federation", 1, "Federation:10 Cluster:10 ID:2 Weight:6 Features:20 FedState:12", "", _none),
    ("problem", 1, "Cluster:10 Account:10 User:10 Problem:40", "", _none),
    ("qos", 1, f"Name:10 Priority:10 GraceTime:10 Preempt:10 PreemptMode:11 Flags:40 {_LIMITS}",
     "name,priority,gracetime,preempt,preemptmode,flags", _none),
    ("resource", 4, "Name:10 Server:10 Type:8 Count:6 %Allocated:11 ServerType:10", "", _none),
    ("reservation", 4, "Cluster:10 Name:15 TRES:30 TimeStart:19 TimeEnd:19", "", _none),
    ("runawayjobs", 2, "ID:12 Name:10 Partition:10 Cluster:10 State:10 TimeStart:19 TimeEnd:19", "",
     _none),
    ("transactions", 4, "Time:19 Action:20 Actor:10 Where:20 Info:20", "", _none),
    ("tres", 4, "Type:8 Name:15 ID:6", "", _tres),
    ("users", 1, f"User:10 Def_Acct:10 Admin:9 Cluster:10 Account:10 Partition:10 {_LIMITS}",
     "user,defacct,admin", _users),
    ("wckeys", 1, "WCKey:10 Cluster:10 User:10", "", _none),
)  # fmt: skip


def main(
    argv: list[str] | None = None,
    ask: Ask = local.ask,
    *,
    environ: Mapping[str, str] = os.environ,
    now: float | None = None,
) -> int:
    """Run sacctmgr with ``argv`` (without the program's name); its exit code."""
    return inquiry.run(COMMAND, argv, _answer, ask, environ, now)


def _answer(inquiry: Inquiry) -> int:
    operands = inquiry.operands
    if not operands:
        raise UsageError("no keyword given", hint="sacctmgr show ENTITY")
    word, rest = operands[0].lower(), operands[1:]
    if "show".startswith(word) or "list".startswith(word):
        return _show(inquiry, rest)
    if word in ("version", "help"):
        report.informational(COMMAND, {word: "1"})
        return 0
    if word in REFUSED:
        raise RequestError(
            f"{word}: the local engine keeps no accounts", hint="any --account is a job's label"
        )
    raise UsageError(f"invalid keyword: {operands[0]}", hint="sacctmgr show ENTITY")


def _show(inquiry: Inquiry, operands: list[str]) -> int:
    word = operands[0].lower() if operands else ""
    if len(word) > 1 and "configuration".startswith(word):
        return _configuration(inquiry)
    found = [each for each in TABLES if len(word) >= each[1] and each[0].startswith(word)]
    if not found:
        for line in ("No valid entity in list command", *_ENTITIES):
            report.write_line(line)
        return 1
    _, _, widths, standard, rows = found[0]
    wanted, conditions = standard, {}
    for operand in operands[1:]:
        name, equals, value = operand.partition("=")
        if name.lower() == "format" and equals:
            wanted = value
        elif name.lower() not in ("where", "withassoc", "set"):
            conditions[name.lower() if equals else _singular(found[0][0])] = value or name
    if found[0][0] == "users" and "associations" in inquiry and "format" not in str(operands):
        wanted = "user,defacct,admin,cluster,account,partition"
    table = _fields(widths)
    shown = fields.chosen(_spelled(wanted, table), table) if wanted else list(table)
    chosen = [row for row in rows(inquiry) if _fits(row, conditions)]
    report.write_out(fields.table(shown, chosen, inquiry.clock, fields.style(inquiry.asked)))
    return 0


def _spelled(wanted: str, table: tuple[Field, ...]) -> str:
    """Names of fields as the table has them: ``defqos%10`` is ``Def QOS%10``."""
    names = {field.name.lower().replace(" ", ""): field.name for field in table}
    found = []
    for word in wanted.split(","):
        name, percent, width = word.partition("%")
        found.append(f"{names.get(name.strip().lower(), name)}{percent}{width}")
    return ",".join(found)


def _singular(entity: str) -> str:
    return entity.removesuffix("s") if entity not in ("qos", "tres") else entity


def _fits(row: Row, conditions: dict[str, str]) -> bool:
    """Whether a row is of the names that were given."""
    for name, text in conditions.items():
        key = {"name": "user", "names": "user"}.get(name, name)
        if row.get(_singular(key), row.get("cluster")) not in text.split(","):
            return False
    return True


def _configuration(inquiry: Inquiry) -> int:
    settings: dict[str, str] = inquiry.query("config")
    wanted = ("AccountingStorageType", "SLURM_CONF", "SLURM_VERSION")
    date = inquiry.clock.moment(inquiry.clock.now, "")
    lines = [f"{name:<22} = {settings[name]}" for name in wanted]
    report.write_out("\n".join((f"Configuration data as of {date}", *lines)) + "\n")
    return 0
