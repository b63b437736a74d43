"""sprio: what the points of waiting jobs are made of.

Every job has some to begin with (SITE), gains more as it waits (AGE), and has others for its size
and its partition where roadstead.conf gives them weights; --nice takes away.  There are no shares,
associations or qualities of service to give any.
"""

from __future__ import annotations

import os

from roadstead.cli import inquiry, report, table, words
from roadstead.cli.table import Column, fixed
from roadstead.core import values
from roadstead.engines import local
from roadstead.errors import RoadsteadError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Final

    from roadstead.cli.inquiry import Inquiry
    from roadstead.cli.table import Value
    from roadstead.cli.words import Ask, Clock, View

COMMAND: Final = "sprio"

_MAX_PRIORITY: Final = 0xFFFFFFFF
_DEFAULT: Final = "%.15i %9r %.10Y %.10S %.10A"
_OF_USERS: Final = "%.15i %9r %.8u %.10Y %.10S %.10A"
_NORM: Final = "%.15i %9r %10y %10a"
_LONG: Final = "%.15i %9r %.8u %.10Y %.10S %.10A %.10B %.10F %.10J %.10P %.10Q %.11N %.20T"


def _points(name: str) -> Value:
    return lambda view, clock: f"{view[name]:.0f}"


def _share(name: str, weight: str) -> Value:
    """A factor between 0 and 1: its points of those that it can have."""

    def value(view: View, clock: Clock) -> str:
        most = view["weights"].get(weight, 0.0)
        return f"{view[name] / most if most else 0.0:.7f}"

    return value


# fmt: off
COLUMNS: Final[tuple[Column, ...]] = (
    Column("i", "", "JOBID", lambda v, c: words.job_id(v), lambda v, c: v["job_id"]),
    Column("r", "", "PARTITION", lambda v, c: str(v["partition_name"])),
    Column("u", "", "USER", lambda v, c: str(v["user"])),
    Column("Y", "", "PRIORITY", _points("priority"), lambda v, c: v["priority"]),
    Column("y", "", "PRIORITY", lambda v, c: f"{v['priority'] / _MAX_PRIORITY:.14f}",
           lambda v, c: v["priority"]),
    Column("S", "", "SITE", _points("site"), lambda v, c: v["site"]),
    Column("A", "", "AGE", _points("age"), lambda v, c: v["age"]),
    Column("a", "", "AGE", _share("age", "PriorityWeightAge"), lambda v, c: v["age"]),
    Column("B", "", "ASSOC", fixed("0")),
    Column("b", "", "ASSOC", fixed("0.0000000")),
    Column("F", "", "FAIRSHARE", fixed("0")),
    Column("f", "", "FAIRSHARE", fixed("0.0000000")),
    Column("J", "", "JOBSIZE", _points("size"), lambda v, c: v["size"]),
    Column("j", "", "JOBSIZE", _share("size", "PriorityWeightJobSize"), lambda v, c: v["size"]),
    Column("P", "", "PARTITION", _points("partition"), lambda v, c: v["partition"]),
    Column("p", "", "PARTITION", _share("partition", "PriorityWeightPartition"),
           lambda v, c: v["partition"]),
    Column("Q", "", "QOS", fixed("0")),
    Column("q", "", "QOS", fixed("0.0000000")),
    Column("N", "", "NICE", _points("nice"), lambda v, c: v["nice"]),
    Column("T", "", "TRES", fixed("")),
    Column("t", "", "TRES", fixed("")),
    Column("c", "", "CLUSTER", fixed(words.NULL)),
)
# fmt: on


def main(
    argv: list[str] | None = None,
    ask: Ask = local.ask,
    *,
    environ: Mapping[str, str] = os.environ,
    now: float | None = None,
) -> int:
    """Run sprio with ``argv`` (without the program's name); its exit code."""
    return inquiry.run(COMMAND, argv, _answer, ask, environ, now)


def _answer(inquiry: Inquiry) -> int:
    asked = inquiry.asked
    if inquiry.operands and asked.get("jobs") == "":
        asked["jobs"] = inquiry.operands.pop(0)
    inquiry.no_operands()
    layout, unknown = table.by_letter(asked.get("format") or _standard(asked), COLUMNS)
    for letter in unknown:
        report.warn(COMMAND, f"Invalid job format specification: {letter}")
    tests = _tests(asked)
    weights = {
        name: float(text)
        for name, text in inquiry.query("config").items()
        if name.startswith("PriorityWeight")
    }
    if "weights" in asked:
        inquiry.write_table(layout, [_weights(weights)])
        return 0
    jobs: list[View] = inquiry.query("priorities")
    chosen = [job | {"weights": weights} for job in jobs if all(test(job) for test in tests)]
    if not chosen and asked.get("jobs"):
        report.write_out("Unable to find jobs matching user/id(s) specified\n")
        return 0
    _sort(chosen, asked.get("sort") or "i", inquiry.clock)
    inquiry.write_table(layout, chosen)
    return 0


def _standard(asked: dict[str, str]) -> str:
    if "long" in asked:
        return _LONG
    if "norm" in asked:
        return _NORM
    return _OF_USERS if "user" in asked else _DEFAULT


def _weights(weights: Mapping[str, float]) -> View:
    """The line of --weights: what each factor can count at most."""
    return {
        "job_id": "Weights", "array_job_id": None, "partition_name": "", "user": "", "priority": 0,
        "site": 1, "age": weights.get("PriorityWeightAge", 0.0), "nice": 0, "weights": weights,
        "size": weights.get("PriorityWeightJobSize", 0.0),
        "partition": weights.get("PriorityWeightPartition", 0.0),
    }  # fmt: skip


def _tests(asked: dict[str, str]) -> list[Callable[[View], bool]]:
    tests: list[Callable[[View], bool]] = []
    if asked.get("jobs"):
        numbers = asked["jobs"].split(",")
        for text in numbers:
            if not values.is_number(text.partition("_")[0]):
                raise RoadsteadError(f"Invalid job id: {text}")
        tests.append(lambda job: not {str(job["job_id"]), words.job_id(job)}.isdisjoint(numbers))
    if "user" in asked:
        users = asked["user"].split(",")
        tests.append(lambda job: job["user"] in users or str(job["uid"]) in users)
    if "partition" in asked:
        names = asked["partition"].split(",")
        tests.append(lambda job: job["partition_name"] in names)
    return tests


def _sort(jobs: list[View], fields: str, clock: Clock) -> None:
    by_letter = {column.letter: column for column in COLUMNS}
    keys: list[tuple[Column, bool]] = []
    sign = ""
    for char in fields:
        if char in "+-":
            sign = char
        elif char in by_letter:
            keys.append((by_letter[char], sign == "-"))
            sign = ""
        elif char not in ", ":
            raise UsageError(f"Invalid sort specification: {fields}")

    def order(column: Column) -> Callable[[View], Any]:
        return lambda view: column.order(view, clock)

    for column, turned in reversed(keys):
        jobs.sort(key=order(column), reverse=turned)
