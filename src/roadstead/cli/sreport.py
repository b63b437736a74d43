"""sreport: what was used of the machine in a time, from the engine's journal.

``sreport REPORT start=… end=…``; without times it is about yesterday, as with Slurm.  A job counts
with the CPUs that it had for as long as it had them in that time, whatever it did with them.
"""

from __future__ import annotations

import os
import time

from roadstead.cli import fields, inquiry, moments, report, sacct_fields
from roadstead.cli.fields import Field
from roadstead.core import names
from roadstead.engines import local
from roadstead.errors import RequestError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Final, TypeAlias

    from roadstead.cli.fields import Value
    from roadstead.cli.inquiry import Inquiry
    from roadstead.cli.words import Ask, View

    Row: TypeAlias = dict[str, Any]

COMMAND: Final = "sreport"

_DAY: Final = 86400
_LINE: Final = "-" * 80
_UNITS: Final = {"seconds": 1, "minutes": 60, "hours": 3600, "percent": 0}
_SIZES: Final = ((0, 49), (50, 249), (250, 499), (500, 999), (1000, None))


class Period:
    """The time that is reported on, the unit of CPU time, and what there was of it."""

    __slots__ = ("capacity", "since", "unit", "until")

    def __init__(self, since: float, until: float, unit: str, cpus: int) -> None:
        self.since, self.until, self.unit = since, until, unit
        self.capacity = cpus * (until - since)

    def used(self, job: View) -> float:
        """CPU seconds that a job had within the period."""
        start, end = sacct_fields.began(job), sacct_fields.ended(job)
        if start is None or not job["node"]:
            return 0.0
        last = self.until if end is None else min(end, self.until)
        return max(0.0, last - max(start, self.since)) * float(job["cpus"])

    def shown(self, seconds: float) -> str:
        """CPU time in the unit that is wanted."""
        if self.unit == "percent":
            return f"{100 * seconds / self.capacity if self.capacity else 0:.2f}%"
        return f"{seconds / _UNITS[self.unit]:.0f}"


def _time(name: str) -> Value:
    return lambda row, period: period.shown(row[name])


def _key(name: str) -> Value:
    return lambda row, period: str(row[name])


_CLUSTER: Final = Field("Cluster", 9, lambda row, period: names.CLUSTER)
_LOGIN: Final = (Field("Login", 9, _key("user")), Field("Proper Name", 15, _key("name")))
_USED: Final = (Field("Used", 8, _time("used")), Field("Energy", 8, lambda row, period: "0"))


def _utilization(jobs: list[View], period: Period) -> list[Row]:
    allocated = sum(period.used(job) for job in jobs)
    idle = max(0.0, period.capacity - allocated)
    return [{"allocated": allocated, "idle": idle, "none": 0.0, "reported": period.capacity}]


def _by_user(jobs: list[View], period: Period) -> list[Row]:
    found: dict[tuple[str, str], Row] = {}
    for job in jobs:
        row = found.setdefault(
            (job["account"], job["user"]),
            {"account": job["account"], "user": job["user"], "name": "", "used": 0.0},
        )
        row["used"] += period.used(job)
    return sorted(found.values(), key=lambda row: -row["used"])


def _by_size(jobs: list[View], period: Period) -> list[Row]:
    found: dict[str, Row] = {}
    for job in jobs:
        row = found.setdefault(job["account"], {"account": job["account"], "sizes": [0.0] * 5})
        for at, (least, most) in enumerate(_SIZES):
            if job["cpus"] >= least and (most is None or job["cpus"] <= most):
                row["sizes"][at] += period.used(job)
    return list(found.values())


def _size(at: int) -> Value:
    return lambda row, period: period.shown(row["sizes"][at])


def _of_cluster(row: Row, period: Period) -> str:
    return f"{100 * sum(row['sizes']) / period.capacity if period.capacity else 0:.2f}%"


# A report: its name, its title, what stands before the unit, its fields and its rows.
Report = tuple[str, str, str, tuple[Field, ...], "Callable[[list[View], Period], list[Row]]"]
REPORTS: Final[tuple[Report, ...]] = (
    (
        "cluster utilization",
        "Cluster Utilization",
        "Usage reported in CPU",
        (
            _CLUSTER,
            Field("Allocate", 8, _time("allocated")),
            Field("Down", 8, _time("none")),
            Field("PLND Dow", 8, _time("none")),
            Field("Idle", 8, _time("idle")),
            Field("Planned", 8, _time("none")),
            Field("Reported", 8, _time("reported")),
        ),
        _utilization,
    ),
    (
        "cluster accountutilizationbyuser",
        "Cluster/Account/User Utilization",
        "Usage reported in CPU",
        (_CLUSTER, Field("Account", 15, _key("account")), *_LOGIN, *_USED),
        _by_user,
    ),
    (
        "user top",
        "Top 10 Users",
        "Usage reported in CPU",
        (_CLUSTER, *_LOGIN, Field("Account", 15, _key("account")), *_USED),
        lambda jobs, period: _by_user(jobs, period)[:10],
    ),
    (
        "job sizesbyaccount",
        "Job Sizes",
        "Time reported in",
        (
            _CLUSTER,
            Field("Account", 9, _key("account")),
            Field("0-49 CPUs", 13, _size(0)),
            Field("50-249 CPUs", 13, _size(1)),
            Field("250-499 CPUs", 13, _size(2)),
            Field("500-999 CPUs", 13, _size(3)),
            Field(">= 1000 CPUs", 13, _size(4)),
            Field("% of cluster", 12, _of_cluster),
        ),
        _by_size,
    ),
)


def main(
    argv: list[str] | None = None,
    ask: Ask = local.ask,
    *,
    environ: Mapping[str, str] = os.environ,
    now: float | None = None,
) -> int:
    """Run sreport with ``argv`` (without the program's name); its exit code."""
    return inquiry.run(COMMAND, argv, _answer, ask, environ, now)


def _answer(inquiry: Inquiry) -> int:
    words = [word.lower() for word in inquiry.operands[:2]]
    if not words:
        raise UsageError("no report given", hint=_known())
    found = next((each for each in REPORTS if _names(words, each[0])), None)
    if found is None:
        raise UsageError(f"invalid keyword: {' '.join(words)}", hint=_known())
    _, title, unit_of, shown, rows = found
    period, wanted = _period(inquiry, inquiry.operands[2:])
    if wanted:
        shown = tuple(fields.chosen(wanted, shown))
    query = {
        "op": "query",
        "what": "history",
        "since": period.since,
        "until": period.until,
    }
    jobs = [job for job in inquiry.ask(query)["jobs"] if period.used(job) > 0]
    style = fields.style(inquiry.asked)
    if style.headings and not style.bars:
        moment, seconds = inquiry.clock.moment, int(period.until - period.since)
        span = f"{moment(period.since, '')} - {moment(period.until - 1, '')}"
        length = "" if found[0] == "cluster utilization" else f" ({seconds} secs)"
        unit = f"{unit_of} {period.unit.capitalize()}"
        report.write_out(f"{_LINE}\n{title} {span}{length}\n{unit}\n{_LINE}\n")
    report.write_out(fields.table(shown, rows(jobs, period), period, style))
    return 0


def _known() -> str:
    return f"the reports here are {', '.join(each[0] for each in REPORTS)}"


def _names(words: list[str], name: str) -> bool:
    """Whether two words, which may be cut short, name a report."""
    if len(words) != 2:
        return False
    return all(whole.startswith(word) for word, whole in zip(words, name.split(), strict=True))


def _period(inquiry: Inquiry, operands: list[str]) -> tuple[Period, str]:
    """What ``start=``, ``end=`` and --time say; and the fields of ``format=``."""
    now = inquiry.clock.now
    here = time.localtime(now)
    midnight = time.mktime((here.tm_year, here.tm_mon, here.tm_mday, 0, 0, 0, 0, 0, -1))
    since, until, wanted = midnight - _DAY, midnight, ""
    for operand in operands:
        name, equals, value = operand.partition("=")
        if not equals:
            raise UsageError(f"Unknown condition: {operand}", hint="start=TIME, end=TIME")
        if name.lower() == "format":
            wanted = value
        elif name.lower() in ("start", "end"):
            moment = _moment(value, now)
            since, until = (moment, until) if name.lower() == "start" else (since, moment)
        else:
            raise RequestError(f"{name}: reports are of the whole engine", hint="start=, end=")
    if since >= until:
        raise UsageError("the start of the period is not before its end", hint="start=, end=")
    text = inquiry.asked.get("time", "minutes").lower()
    unit = next((each for each in _UNITS if text and each.startswith(text)), "")
    if not unit:
        raise UsageError(f"Invalid time format: {inquiry.asked['time']}", hint=", ".join(_UNITS))
    nodes = inquiry.query("nodes", ended=True)
    return Period(since, until, unit, sum(node["cpus"] for node in nodes)), wanted


def _moment(text: str, now: float) -> float:
    try:
        return float(moments.parse(text, now, past=True))
    except moments.NotAMoment as error:
        report.write_line(str(error))
        raise SystemExit(1) from None
