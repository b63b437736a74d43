"""squeue: the jobs that wait or run, or their steps, a line each.

The controller is asked once and says all it knows; choosing, sorting and printing happen here.
The columns are in squeue_columns.py, listings of many jobs in squeue_groups.py, the documents of
--json and --yaml in openapi.py.

A lone unknown job id is an error, several are not: batch systems' pollers depend on both.
"""

from __future__ import annotations

import os

from roadstead.cli import inquiry, report, squeue_groups, table, words
from roadstead.cli.squeue_columns import JOBS, READS, STEPS
from roadstead.cli.squeue_groups import Group, Of
from roadstead.core import hostlist
from roadstead.engines import local
from roadstead.errors import RoadsteadError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Final, TypeAlias

    from roadstead.cli.inquiry import Inquiry
    from roadstead.cli.table import Column, Layout
    from roadstead.cli.words import Ask, Clock, View

    Test: TypeAlias = Callable[[View], bool]

COMMAND: Final = "squeue"

_DEFAULT: Final = "%.18i %.9P %.8j %.8u %.2t %.10M %.6D %R"
_LONG: Final = "%.18i %.9P %.8j %.8u %.8T %.10M %.9l %.6D %R"
_START: Final = "%.18i %.9P %.8j %.8u %.2t %.19S %.6D %20Y %R"
_STEPS: Final = "%.15i %.8j %.9P %.8u %.9M %N"


def main(
    argv: list[str] | None = None,
    ask: Ask = local.ask,
    *,
    environ: Mapping[str, str] = os.environ,
    now: float | None = None,
) -> int:
    """Run squeue with ``argv`` (without the program's name); its exit code."""
    return inquiry.run(COMMAND, argv, _answer, ask, environ, now)


def _answer(inquiry: Inquiry) -> int:
    asked, clock = inquiry.asked, inquiry.clock
    _take_operands(inquiry)
    layout = _layout(inquiry)
    document = "json" in asked or "yaml" in asked
    by_step = "steps" in asked and not document
    tests = _tests(inquiry, by_step=by_step)
    order = _order_asked(asked)
    alone = _parts(asked.get("jobs", ""))
    views = _steps(inquiry) if by_step else _jobs(inquiry, None if document else layout)
    if views is None:
        report.write_line("slurm_load_jobs error: Invalid job id specified")
        return 1
    if isinstance(views, dict):
        groups = [Group(each["same"], each["columns"]).chosen(tests) for each in views["groups"]]
        if "array" not in asked:
            groups = squeue_groups.together(groups, alone)
        inquiry.write_lines(layout, squeue_groups.table(groups, layout, order, clock))
        return 0
    chosen = views
    for test in tests:
        chosen = [view for view in chosen if test(view)]
    if "array" not in asked and not by_step:
        chosen = words.together(chosen, alone)
    _sort(chosen, order, clock, by_step=by_step)
    if document:
        from roadstead.cli import openapi

        found = [openapi.job(view, clock) for view in chosen]
        told = openapi.document(openapi.GENERAL, "jobs", found)
        report.write_out(openapi.text(told, yaml="yaml" in asked))
    else:
        inquiry.write_table(layout, chosen)
    return 0


def _take_operands(inquiry: Inquiry) -> None:
    """Give ``-j 7`` and ``-s 7.0`` the values that getopt_long(3) leaves among the operands."""
    for name in ("jobs", "steps"):
        if inquiry.operands and inquiry.asked.get(name) == "":
            inquiry.asked[name] = inquiry.operands.pop(0) or ","  # "," is a list, of nothing
    inquiry.no_operands()


def _layout(inquiry: Inquiry) -> Layout:
    """The layout asked for.  Letters and names that mean nothing are complained of."""
    asked, given = inquiry.asked, inquiry.formats()
    columns, kind = (STEPS, "job step") if "steps" in asked else (JOBS, "job")
    if "format" in given and "Format" in given:
        first, last = ("-o (--format)", "-O (--Format)")[:: 1 if given[-1] == "Format" else -1]
        raise UsageError(f"{last} is incompatible with {first}")
    # SQUEUE_FORMAT is for the plain listing of jobs; it gives way to -l, --start and -s.
    plain = given or not any(name in asked for name in ("long", "start", "steps"))
    if plain and "format" in asked:
        layout, unknown = table.by_letter(asked["format"], columns)
    elif plain and "Format" in asked:
        layout, unknown = table.by_name(asked["Format"], columns)
    else:
        layout, unknown = table.by_letter(_standard(asked), columns)
    for name in unknown:
        report.warn(COMMAND, f"Invalid {kind} format specification: {name}")
    return layout


def _standard(asked: dict[str, str]) -> str:
    if "steps" in asked:
        return _STEPS
    if "start" in asked:
        return _START
    return _LONG if "long" in asked else _DEFAULT


def _jobs(inquiry: Inquiry, layout: Layout | None) -> list[View] | dict[str, Any] | None:
    """Every job that might be wanted; None when one was asked for that there never was.  With a
    layout, only what that needs of each, in groups (core/listing.py) where that can be told."""
    asked = inquiry.asked
    ids = _parts(asked.get("jobs", ""))
    numbers = [_job_number(part) for part in ids]
    lone = numbers[0] if len(numbers) == 1 else None
    ended = bool(ids) or not {"states", "json", "yaml"}.isdisjoint(asked)
    query: View = {"op": "query", "what": "jobs", "job_id": lone, "all": ended}
    if "start" in asked:
        query["expected"] = True
    if asked.get("states", "all").lower() != "all":
        query["states"] = [_state(part) for part in _parts(asked["states"])]
    fields = None if lone is not None or layout is None else _fields(asked, layout)
    if fields is not None:
        query["fields"] = fields
    answer = inquiry.ask(query)
    if "groups" in answer:
        return answer
    jobs: list[View] = answer["jobs"]
    return None if lone is not None and not jobs else jobs


def _fields(asked: dict[str, str], layout: Layout) -> list[str] | None:
    """The keys that are needed of each job; None where that cannot be told: all of them."""
    if not _FILTERS_OF_MORE.isdisjoint(asked):
        return None
    letters = [field.column.letter for field in layout.fields if field.column]
    letters += [char for char in asked.get("sort") or _SORT if char.isalpha()]
    if not all(letter in READS for letter in letters):
        return None
    needed = dict.fromkeys(READS["i"].split())  # what puts elements of an array together
    needed.update((key, None) for option, key in _LOOKED_AT.items() if option in asked)
    for letter in letters:
        needed.update(dict.fromkeys(READS[letter].split()))
    return list(needed)


_FILTERS_OF_MORE: Final = frozenset(("licenses", "start"))
# Filters, and the key that each looks at.
_LOOKED_AT: Final = {
    "name": "name", "partition": "partition", "accounts": "account", "qos": "qos", "users": "uid",
    "me": "uid", "nodelist": "node",
}  # fmt: skip
_SORT: Final = "P,t,-p"


def _steps(inquiry: Inquiry) -> list[View]:
    """The steps that run; Slurm does not list those that wait in their job."""
    steps: list[View] = inquiry.query("steps")
    return [view for view in steps if view["start_time"] is not None]


def _job_number(text: str) -> int:
    """The job of ``7``, ``7.0``, ``7_1`` or ``7+1``."""
    rest = text.lstrip("0123456789")
    digits = text[: len(text) - len(rest)]
    if not digits or not (rest == "" or rest[0] in "._+"):
        raise RoadsteadError(f"Invalid job id: {text}")
    return int(digits[:18])


def _names(view: View) -> set[str]:
    """What a job answers to: its number, its array's, its place in that."""
    names = {str(view["job_id"])}
    if view.get("het_job_id") is not None:
        return names | {words.job_id(view), str(view["het_job_id"])}
    if view.get("array_job_id") is None:
        return names
    return names | {words.job_id(view), str(view["array_job_id"])}


def _tests(inquiry: Inquiry, *, by_step: bool) -> list[Test]:
    """What a job or step has to pass to be shown."""
    asked = inquiry.asked
    tests: list[Test] = []
    if asked.get("jobs"):
        listed = {part.partition(".")[0] for part in _parts(asked["jobs"])}
        tests.append(lambda view: not listed.isdisjoint(_names(view)))
    if by_step and asked.get("steps"):
        labels = set(_parts(asked["steps"]))
        tests.append(lambda view: not labels.isdisjoint((words.step_id(view), str(view["job_id"]))))
    if "me" in asked:
        own = os.getuid()
        tests.append(Of("uid", lambda uid: uid == own))
    if "users" in asked:
        uids = _uids(asked["users"])
        tests.append(Of("uid", lambda uid: uid in uids))
    if "nodelist" in asked:
        nodes = _nodes(inquiry)
        tests.append(Of("node", lambda node: not nodes.isdisjoint(hostlist.expand(node))))
    for option, name in _BY_VALUE.items():
        if option in asked:
            tests.append(_one_of(name, _parts(asked[option])))
    if "reservation" in asked:
        tests.append(lambda view: False)  # there are none
    if "licenses" in asked:
        wanted = set(_parts(asked["licenses"]))
        tests.append(lambda view: not wanted.isdisjoint(_licenses(view)))
    if "start" in asked:
        return [*tests, _one_of("state", ["PENDING"])]
    if "states" in asked:
        return tests if asked["states"].lower() == "all" else [*tests, _in_states(asked["states"])]
    if by_step or "json" in asked or "yaml" in asked:
        return tests
    return [*tests, Of("state", lambda state: state not in words.FINISHED)]


# Options that name values of one key.
_BY_VALUE: Final = {
    "name": "name", "partition": "partition", "accounts": "account", "qos": "qos",
}  # fmt: skip


def _nodes(inquiry: Inquiry) -> set[str]:
    """The nodes of --nodelist.  Raises UsageError for one that there is not."""
    known = {node["name"] for node in inquiry.query("nodes")}
    names = hostlist.expand(inquiry.asked["nodelist"])
    for name in names:
        if name not in known:
            raise UsageError(f"Invalid node name {name}", hint="sinfo -N lists them")
    return set(names)


def _licenses(view: View) -> set[str]:
    return {each.partition(":")[0] for each in str(view["licenses"]).split(",")}


def _one_of(name: str, wanted: list[str]) -> Test:
    return Of(name, lambda value: value in wanted)


def _in_states(text: str) -> Test:
    return _one_of("state", [_state(part) for part in _parts(text)])


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _state(text: str) -> str:
    upper = text.upper()
    for state, letters in words.STATES.items():
        if upper in (state, letters):
            return state
    raise UsageError(
        f"Invalid job state specified: {text}",
        hint=f"Valid job states include: {','.join(words.STATES)}",
    )


def _uids(text: str) -> set[int]:
    """The numbers of users given by name or number; Slurm goes on without those it cannot find."""
    import pwd

    uids = set()
    for user in _parts(text):
        if user.isascii() and user.isdigit():
            uids.add(int(user))
            continue
        try:
            uids.add(pwd.getpwnam(user).pw_uid)
        except KeyError:
            report.warn(COMMAND, f"Invalid user: {user}")
    return uids


def _order_asked(asked: dict[str, str]) -> list[tuple[Column, bool]]:
    """The columns of the letters of --sort, the first one strongest; ``-`` before one turns it
    round."""
    steps = "steps" in asked and "json" not in asked and "yaml" not in asked
    standard = "P,i" if steps else "S" if "start" in asked else _SORT
    fields = asked.get("sort") or standard
    columns = {column.letter: column for column in (STEPS if steps else JOBS) if column.letter}
    order: list[tuple[Column, bool]] = []
    sign = ""
    for char in fields:
        if char in "+-":
            sign = char
        elif char in columns:
            order.append((columns[char], sign == "-"))
            sign = ""
        elif char not in ", ":
            raise UsageError(f"Invalid sort specification: {fields}")
    return order


def _sort(
    views: list[View], order: list[tuple[Column, bool]], clock: Clock, *, by_step: bool
) -> None:
    views.sort(key=table.Key("job_id").get)
    if by_step:
        views.sort(key=words.step_order)
    for column, turned in reversed(order):
        views.sort(key=_key(column, clock), reverse=turned)


def _key(column: Column, clock: Clock) -> Callable[[View], Any]:
    if isinstance(column.order, table.Key):
        return column.order.get
    return lambda view: column.order(view, clock)
