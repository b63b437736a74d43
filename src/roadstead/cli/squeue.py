"""squeue: the jobs that wait or run, or their steps, a line each.

The controller is asked once and says all it knows; choosing, sorting and printing happen here.
The columns are the two tables below.  What Slurm knows and a single machine's engine does not
(accounts, features, sockets …) is shown as Slurm shows it where nobody has asked for any: programs
count columns.

A lone unknown job id is an error, several are not: batch systems' pollers depend on both.
"""

from __future__ import annotations

import os
import sys
import time

from roadstead.cli import options, report, table, words
from roadstead.cli.table import Column, fixed, key
from roadstead.cli.words import Clock
from roadstead.core import hostlist, values
from roadstead.engines import local
from roadstead.errors import RoadsteadError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Final, TypeAlias

    from roadstead.cli.table import Layout, Order, Value
    from roadstead.cli.words import Ask, View

    Test: TypeAlias = Callable[[View], bool]

COMMAND: Final = "squeue"

_DEFAULT: Final = "%.18i %.9P %.8j %.8u %.2t %.10M %.6D %R"
_LONG: Final = "%.18i %.9P %.8j %.8u %.8T %.10M %.9l %.6D %R"
_START: Final = "%.18i %.9P %.8j %.8u %.2t %.19S %.6D %20Y %R"
_STEPS: Final = "%.15i %.8j %.9P %.8u %.9M %N"
_MAX_PRIORITY: Final = 0xFFFFFFFF


def _text(name: str) -> Value:
    return lambda view, clock: words.or_null(view[name])


def _number(name: str) -> Order:
    return lambda view, clock: view[name]


def _time(name: str) -> Value:
    return lambda view, clock: clock.moment(view[name], "N/A")


def _or_0(name: str) -> Order:
    return lambda view, clock: view[name] or 0


def _task_id(view: View) -> str:
    if view["array_job_id"] is None:
        return "N/A"
    return str(view.get("array_tasks", view["array_task_id"]))


def _per_node(view: View) -> str:
    return f"gres:{view['gres']}" if view["gres"] else "N/A"


_NULL = fixed(words.NULL)
_NA = fixed("N/A")
_ZERO = fixed("0")
_ANY = fixed("*")

# fmt: off
JOBS: tuple[Column, ...] = (
    Column("i", "jobarrayid", "JOBID", lambda v, c: words.job_id(v), _number("job_id")),
    Column("A", "jobid", "JOBID", key("job_id"), _number("job_id")),
    Column("F", "arrayjobid", "ARRAY_JOB_ID", lambda v, c: str(v["array_job_id"] or v["job_id"]),
           _number("job_id")),
    Column("K", "arraytaskid", "ARRAY_TASK_ID", lambda v, c: _task_id(v)),
    Column("j", "name", "NAME", key("name")),
    Column("P", "partition", "PARTITION", key("partition")),
    Column("u", "username", "USER", key("user")),
    Column("U", "userid", "UID", key("uid"), _number("uid")),
    Column("g", "groupname", "GROUP", key("group")),
    Column("G", "groupid", "GROUP", key("gid"), _number("gid")),
    Column("t", "statecompact", "ST", lambda v, c: words.state_letters(v)),
    Column("T", "state", "STATE", key("state")),
    Column("r", "reason", "REASON", lambda v, c: words.reason(v)),
    Column("R", "reasonlist", "NODELIST(REASON)", lambda v, c: words.node_or_reason(v)),
    Column("N", "nodelist", "NODELIST", key("node")),
    Column("B", "batchhost", "EXEC_HOST", lambda v, c: str(v["batch_host"] or v["node"] or "n/a")),
    Column("Y", "schednodes", "SCHEDNODES", _NULL),
    Column("n", "reqnodes", "REQ_NODES", key("nodelist")),
    Column("x", "", "EXC_NODES", key("exclude")),
    Column("D", "numnodes", "NODES", key("nodes"), _number("nodes")),
    Column("C", "numcpus", "CPUS", key("cpus"), _number("cpus")),
    Column("c", "mincpus", "MIN_CPUS", key("cpus_per_task"), _number("cpus_per_task")),
    Column("", "maxcpus", "MAX_CPUS", key("cpus")),
    Column("", "maxnodes", "MAX_NODES", key("nodes")),
    Column("", "numtasks", "TASKS", key("ntasks")),
    Column("", "cpus-per-task cpuspertask", "CPUS_PER_TASK", key("cpus_per_task")),
    Column("m", "minmemory", "MIN_MEMORY", lambda v, c: c.memory(v["memory"]), _number("memory")),
    Column("", "tres-alloc", "TRES_ALLOC", words.tres),
    Column("d", "mintmpdisk", "MIN_TMP_DISK", _ZERO),
    Column("M", "timeused", "TIME", lambda v, c: values.format_time_short(c.elapsed(v)),
           lambda v, c: c.elapsed(v), duration=True),
    Column("l", "timelimit", "TIME_LIMIT", lambda v, c: values.format_time_short(v["time_limit"]),
           _or_0("time_limit"), duration=True),
    Column("L", "timeleft", "TIME_LEFT", lambda v, c: c.left(v),
           lambda v, c: (v["time_limit"] or 0) - c.elapsed(v), duration=True),
    Column("", "mintime", "TIME_MIN", fixed("0:00")),
    Column("S", "starttime", "START_TIME", lambda v, c: c.moment(words.start_time(v), "N/A"),
           lambda v, c: words.start_time(v) or 0),
    Column("e", "endtime", "END_TIME", _time("end_time"), _or_0("end_time")),
    Column("V", "submittime", "SUBMIT_TIME", _time("submit_time"), _or_0("submit_time")),
    Column("", "eligibletime", "ELIGIBLE_TIME", _time("submit_time")),
    Column("", "accruetime", "ACCRUE_TIME", _time("submit_time")),
    Column("", "pendingtime", "PENDING_TIME", lambda v, c: str(int(
        (words.start_time(v) or c.now) - v["submit_time"]))),
    Column("p", "priority", "PRIORITY", lambda v, c: f"{v['priority'] / _MAX_PRIORITY:.14f}",
           _number("priority")),
    Column("Q", "prioritylong", "PRIORITY", key("priority"), _number("priority")),
    Column("y", "nice", "NICE", key("nice"), _number("nice")),
    Column("o", "command", "COMMAND", _text("command")),
    Column("Z", "workdir", "WORK_DIR", key("work_dir")),
    Column("", "stdin", "STDIN", _text("stdin")),
    Column("", "stdout", "STDOUT", _text("stdout")),
    Column("", "stderr", "STDERR", _text("stderr")),
    Column("k", "comment", "COMMENT", _text("comment")),
    Column("", "container", "CONTAINER", _text("container")),
    Column("", "containerid", "CONTAINER_ID", _text("container_id")),
    Column("", "batchflag", "BATCH_FLAG", lambda v, c: str(int(v["batch"]))),
    Column("", "exit_code exitcode", "EXIT_CODE", lambda v, c: words.exit_code(v).split(":")[0]),
    Column("", "derivedec", "DERIVED_EC", _ZERO),
    Column("", "requeue", "REQUEUE", lambda v, c: str(int(v["requeue"]))),
    Column("", "restartcnt", "RESTART_COUNT", key("restarts")),
    Column("a", "account", "ACCOUNT", _NULL),
    Column("q", "qos", "QOS", _NULL),
    Column("v", "reservation", "RESERVATION", _NULL),
    Column("w", "wckey", "WCKEY", _NULL),
    Column("f", "feature", "FEATURES", _text("features")),
    Column("E", "dependency", "DEPENDENCY", _NULL),
    Column("W", "licenses", "LICENSES", _text("licenses")),
    Column("b", "tres-per-node gres", "TRES_PER_NODE", lambda v, c: _per_node(v)),
    Column("", "tres-per-job", "TRES_PER_JOB", _NA),
    Column("", "tres-per-task", "TRES_PER_TASK", _NA),
    Column("h", "oversubscribe shared", "OVER_SUBSCRIBE", fixed("OK")),
    Column("O", "contiguous", "CONTIGUOUS", _ZERO),
    Column("z", "sct", "S:C:T", fixed("*:*:*")),
    Column("H", "sockets", "SOCKETS_PER_NODE", _ANY),
    Column("I", "cores", "CORES_PER_SOCKET", _ANY),
    Column("J", "threads", "THREADS_PER_CORE", _ANY),
    Column("X", "corespec", "CORE_SPEC", _NA),
    Column("", "deadline", "DEADLINE", _NA),
    Column("", "network", "NETWORK", _NULL),
    Column("", "hetjobid packjobid", "HET_JOB_ID", _NA),
    Column("", "hetjoboffset packjoboffset", "HET_JOB_OFFSET", _NA),
    Column("", "hetjobidset packjobidset", "HET_JOB_ID_SET", _NA),
)

STEPS: tuple[Column, ...] = (
    Column("i", "stepid", "STEPID", lambda v, c: words.step_id(v),
           lambda v, c: words.step_order(v)),
    Column("", "jobid", "JOB_ID", key("job_id")),
    Column("j", "stepname", "NAME", key("name")),
    Column("P", "partition", "PARTITION", key("partition")),
    Column("u", "username", "USER", key("user")),
    Column("U", "userid", "UID", key("uid"), _number("uid")),
    Column("M", "timeused", "TIME", lambda v, c: values.format_time_short(c.elapsed(v)),
           lambda v, c: c.elapsed(v), duration=True),
    Column("l", "timelimit", "TIME_LIMIT", lambda v, c: values.format_time_short(v["time_limit"]),
           _or_0("time_limit"), duration=True),
    Column("S", "starttime", "START_TIME", _time("start_time"), _or_0("start_time")),
    Column("N", "nodelist", "NODELIST", key("node")),
    Column("A", "numtasks", "TASKS", key("ntasks"), _number("ntasks")),
    Column("", "numcpus", "NUM_CPUS", key("cpus")),
    Column("", "stepstate", "STATE", key("state")),
    Column("", "container", "CONTAINER", _text("container")),
    Column("", "containerid", "CONTAINER_ID", _text("container_id")),
    Column("b", "tres-per-job gres", "TRES_PER_JOB", _NULL),
    Column("", "arrayjobid", "ARRAY_JOB_ID", _ZERO),
    Column("", "arraytaskid", "ARRAY_TASK_ID", _NA),
    Column("", "network", "NETWORK", _NULL),
)
# fmt: on


def main(
    argv: list[str] | None = None,
    ask: Ask = local.ask,
    *,
    environ: Mapping[str, str] = os.environ,
    now: float | None = None,
) -> int:
    """Run squeue with ``argv`` (without the program's name); its exit code."""
    given = sys.argv[1:] if argv is None else argv
    return report.run(COMMAND, lambda: _run(given, ask, environ, now))


def _run(argv: list[str], ask: Ask, environ: Mapping[str, str], now: float | None) -> int:
    asked, operands = options.gather(COMMAND, argv, environ)
    if report.informational(COMMAND, asked):
        return 0
    report.explain(COMMAND, asked)
    _take_operands(asked, operands)
    clock = Clock(
        time.time() if now is None else now,
        environ.get("SLURM_TIME_FORMAT", ""),
        convert="noconvert" not in asked,
    )
    layout = _layout(asked, argv)
    tests = _tests(asked)
    views = _steps(ask) if "steps" in asked else _jobs(asked, ask)
    if views is None:
        report.write_line("slurm_load_jobs error: Invalid job id specified")
        return 1
    chosen = [view for view in views if all(test(view) for test in tests)]
    if "array" not in asked and "steps" not in asked:
        chosen = words.together(chosen)
    _sort(chosen, asked, clock)
    headings = "noheader" not in asked
    date = f"{clock.date()}\n" if headings and "long" in asked else ""
    report.write_out(date + layout.table(chosen, clock, headings=headings))
    return 0


def _take_operands(asked: dict[str, str], operands: list[str]) -> None:
    """Give ``-j 7`` and ``-s 7.0`` the values that getopt_long(3) leaves among the operands."""
    for name in ("jobs", "steps"):
        if operands and asked.get(name) == "":
            asked[name] = operands.pop(0) or ","  # "," is a list, of nothing
    if operands:
        raise UsageError(
            f"Unrecognized option: {operands[0]}", hint='Try "squeue --help" for more information'
        )


def _layout(asked: dict[str, str], argv: list[str]) -> Layout:
    """The layout asked for.  Letters and names that mean nothing are complained of."""
    columns, kind = (STEPS, "job step") if "steps" in asked else (JOBS, "job")
    given = [name for name, _ in options.parse(COMMAND, argv)[0] if name in ("format", "Format")]
    if "format" in given and "Format" in given:
        first, last = ("-o (--format)", "-O (--Format)")[:: 1 if given[-1] == "Format" else -1]
        raise UsageError(f"{last} is incompatible with {first}")
    if "long" in asked and given:
        short = "o" if given[0] == "format" else "O"
        raise UsageError(
            f"Options -{short}(--{given[0]}) and -l(--long) are mutually exclusive",
            hint="remove one and retry",
        )
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


def _jobs(asked: dict[str, str], ask: Ask) -> list[View] | None:
    """Every job that might be wanted; None when one was asked for that there never was."""
    ids = _parts(asked.get("jobs", ""))
    numbers = [_job_number(part) for part in ids]
    lone = numbers[0] if len(numbers) == 1 else None
    ended = bool(ids) or "states" in asked
    answer = ask({"op": "query", "what": "jobs", "job_id": lone, "all": ended})
    jobs: list[View] = answer["jobs"]
    return None if lone is not None and not jobs else jobs


def _steps(ask: Ask) -> list[View]:
    """The steps that run; Slurm does not list those that wait in their job."""
    answer = ask({"op": "query", "what": "steps", "job_id": None, "all": False})
    return [view for view in answer["steps"] if view["start_time"] is not None]


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
    if view.get("array_job_id") is None:
        return names
    return names | {words.job_id(view), str(view["array_job_id"])}


def _tests(asked: dict[str, str]) -> list[Test]:
    """What a job or step has to pass to be shown."""
    tests: list[Test] = []
    if asked.get("jobs"):
        listed = {part.partition(".")[0] for part in _parts(asked["jobs"])}
        tests.append(lambda view: not listed.isdisjoint(_names(view)))
    if asked.get("steps"):
        labels = set(_parts(asked["steps"]))
        tests.append(lambda view: not labels.isdisjoint((words.step_id(view), str(view["job_id"]))))
    if "me" in asked:
        own = os.getuid()
        tests.append(lambda view: view["uid"] == own)
    if "users" in asked:
        uids = _uids(asked["users"])
        tests.append(lambda view: view["uid"] in uids)
    if "nodelist" in asked:
        nodes = set(hostlist.expand(asked["nodelist"]))
        tests.append(lambda view: not nodes.isdisjoint(hostlist.expand(view["node"])))
    if "name" in asked:
        tests.append(_one_of("name", _parts(asked["name"])))
    if "partition" in asked:
        tests.append(_one_of("partition", _parts(asked["partition"])))
    return tests + _state_tests(asked)


def _one_of(name: str, wanted: list[str]) -> Test:
    return lambda view: view[name] in wanted


def _state_tests(asked: dict[str, str]) -> list[Test]:
    if "start" in asked:
        return [_one_of("state", ["PENDING"])]
    if "states" not in asked:
        return [] if "steps" in asked else [lambda view: view["state"] not in words.FINISHED]
    if asked["states"].lower() == "all":
        return []
    return [_one_of("state", [_state(part) for part in _parts(asked["states"])])]


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


def _sort(views: list[View], asked: dict[str, str], clock: Clock) -> None:
    """Sort by the letters of --sort, the first one strongest; ``-`` before one turns it round."""
    steps = "steps" in asked
    standard = "P,i" if steps else "S" if "start" in asked else "P,t,-p"
    fields = asked.get("sort") or standard
    columns = {column.letter: column for column in (STEPS if steps else JOBS) if column.letter}
    keys: list[tuple[Column, bool]] = []
    sign = ""
    for char in fields:
        if char in "+-":
            sign = char
        elif char in columns:
            keys.append((columns[char], sign == "-"))
            sign = ""
        elif char not in ", ":
            raise UsageError(f"Invalid sort specification: {fields}")
    views.sort(key=lambda view: (view["job_id"], view.get("step_id", 0)))
    for column, turned in reversed(keys):
        views.sort(key=_order(column, clock), reverse=turned)


def _order(column: Column, clock: Clock) -> Callable[[View], Any]:
    return lambda view: column.order(view, clock)
