"""sacct: jobs and steps, those that have ended too, and what they used; from the engine's journal.

Without times it shows today's jobs, with --jobs those of any time; with --state a job must have
been in one of the states in the window, which without --starttime is this very moment.  The engine
finds the jobs of the window or of the list, everything else is chosen here.  Order, states, exit
codes and times are those of Slurm 22.05's accounting.
"""

from __future__ import annotations

import os
import time

from roadstead.cli import fields, inquiry, moments, report, sacct_fields, words
from roadstead.cli.sacct_fields import Scene
from roadstead.cli.words import Clock
from roadstead.core import hostlist, names, values
from roadstead.engines import local
from roadstead.errors import RequestError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Final, TypeAlias

    from roadstead.cli.fields import Field
    from roadstead.cli.inquiry import Inquiry
    from roadstead.cli.sacct_fields import Row
    from roadstead.cli.words import Ask, View

    Test: TypeAlias = Callable[[View], bool]

COMMAND: Final = "sacct"

_STATES: Final = {
    **{word: letters for word, letters in words.STATES.items() if word in words.FINISHED},
    "PENDING": "PD", "RUNNING": "R", "SUSPENDED": "S", "REQUEUED": "RQ", "RESIZING": "RS",
    "REVOKED": "RV",
}  # fmt: skip


class Window:
    """The time that is looked at.  ``until`` None: now, and what comes."""

    __slots__ = ("since", "until")

    def __init__(self, since: float | None, until: float | None) -> None:
        self.since, self.until = since, until


def main(
    argv: list[str] | None = None,
    ask: Ask = local.ask,
    *,
    environ: Mapping[str, str] = os.environ,
    now: float | None = None,
) -> int:
    """Run sacct with ``argv`` (without the program's name); its exit code."""
    return inquiry.run(COMMAND, argv, _answer, ask, environ, now)


def _answer(inquiry: Inquiry) -> int:
    asked, clock, moment = inquiry.asked, inquiry.clock, inquiry.clock.now
    if "helpformat" in asked:
        report.write_out(fields.names(sacct_fields.FIELDS))
        return 0
    if inquiry.operands:
        report.write_line(f"{COMMAND}: error: Unknown arguments:")
        raise UsageError(f" {' '.join(inquiry.operands)}")
    shown = _fields(asked)
    steps = _named(asked)
    window = _window(asked, moment)
    tests = _tests(asked, window)
    query: dict[str, Any] = {
        "op": "query",
        "what": "history",
        "since": window.since,
        "until": window.until,
    }
    if "name" in asked:
        query["names"] = _parts(asked["name"])
    if steps is not None:
        query["jobs"] = sorted({number for each in steps for number in each.jobs})
    jobs = [] if steps == [] else inquiry.ask(query)["jobs"]
    jobs = [job for job in jobs if all(test(job) for test in tests)]
    if steps is not None:
        jobs = [job for job in jobs if any(each.names(job) for each in steps)]
    if "array" not in asked:
        jobs = words.together(jobs)
    if "batch-script" in asked:
        return _scripts(asked, jobs, inquiry.ask)
    scene = Scene(clock, _unit(asked))
    if "truncate" in asked and window.since is not None:
        scene = Scene(clock, scene.unit, window.since, window.until or moment)
    jobs.sort(key=_order)
    if "json" in asked or "yaml" in asked:
        from roadstead.cli import openapi, openapi_accounting

        found = [openapi_accounting.job(job, clock) for job in jobs]
        told = openapi.document(openapi.ACCOUNTING, "jobs", found)
        report.write_out(openapi.text(told, yaml="yaml" in asked))
        return 0
    rows = _rows(jobs, asked, steps)
    report.write_out(fields.table(shown, rows, scene, fields.style(asked)))
    return 0


def _order(job: View) -> tuple[int, int]:
    """By number, an array's elements by theirs."""
    if job["array_job_id"] is None:
        return job["job_id"], 0
    return job["array_job_id"], job["array_task_id"]


def _rows(jobs: list[View], asked: dict[str, str], steps: list[Named] | None) -> list[Row]:
    rows: list[Row] = []
    for job in jobs:
        whole = steps is None or any(each.names(job) and not each.step for each in steps)
        if whole:
            rows.append({"job": job, "step": None})
        if "allocations" in asked:
            continue
        for step in job["steps"]:
            if step["start_time"] is None:
                continue  # it waited in its job
            row = {"job": job, "step": step}
            name = sacct_fields.job_id_raw(row, None).partition(".")[2]
            if whole or any(each.names(job) and each.step == name for each in steps or ()):
                rows.append(row)
    return rows


# -- fields ----------------------------------------------------------------------------------------


def _fields(asked: dict[str, str]) -> list[Field]:
    if "long" in asked and "format" in asked:
        raise UsageError(
            "Options -o(--format) and -l(--long) are mutually exclusive. "
            "Please remove one and retry."
        )
    text = asked.get("format") or sacct_fields.DEFAULT
    if "long" in asked:
        text = sacct_fields.LONG
    elif "brief" in asked:
        text = (
            f"{asked['format']},{sacct_fields.BRIEF}" if "format" in asked else sacct_fields.BRIEF
        )
    if text.lower() == "all":
        return list(sacct_fields.FIELDS)
    for word in text.lower().split(","):
        name = word.strip().partition("%")[0]
        if name in sacct_fields.REMOVED:
            raise RequestError(sacct_fields.REMOVED[name])
    return fields.chosen(text, sacct_fields.FIELDS)


def _unit(asked: dict[str, str]) -> str:
    unit = asked.get("units", "").upper()
    if unit and (len(unit) > 1 or unit not in "KMGTP"):
        raise UsageError(f"Invalid unit type: {asked['units']}", hint="write K, M, G, T or P")
    return unit


# -- which jobs ------------------------------------------------------------------------------------


class Named:
    """One word of --jobs: ``7``, ``7_2``, ``7_[0-3]``, ``7+1``, ``7.0``, ``7.batch``."""

    __slots__ = ("jobs", "offset", "step", "tasks")

    def __init__(self, text: str) -> None:
        head, dot, self.step = text.partition(".")
        job, underscore, tasks = head.partition("_")
        job, plus, offset = job.partition("+")
        self.offset = int(offset) if plus and values.is_number(offset) else None
        if plus and self.offset is None:
            raise RequestError(f"Bad job/step specified: {text}")
        if not values.is_number(job) or (dot and not _is_step(self.step)):
            raise RequestError(f"Bad job/step specified: {text}")
        self.jobs = (int(job),)
        self.tasks: set[int] | None = None
        if underscore:
            numbers = hostlist.expand(tasks) if tasks.startswith("[") else [tasks]
            if not numbers or not all(map(values.is_number, numbers)):
                raise RequestError(f"Bad job array element specified: {text}")
            self.tasks = {int(number) for number in numbers}

    def names(self, job: View) -> bool:
        """Whether a job is meant, or has the step that is."""
        if self.tasks is not None:
            return job["array_job_id"] in self.jobs and job["array_task_id"] in self.tasks
        numbers = job["job_id"], job["array_job_id"], job.get("het_job_id")
        if self.offset is not None:
            return job.get("het_offset") == self.offset and job["het_job_id"] in self.jobs
        return any(number in self.jobs for number in numbers)


def _is_step(text: str) -> bool:
    return values.is_number(text) or text in words.STEP_NAMES


def _named(asked: dict[str, str]) -> list[Named] | None:
    """The jobs and steps of --jobs; None without it."""
    if "jobs" not in asked:
        return None
    return [Named(word.strip()) for word in hostlist.split(asked["jobs"]) if word.strip()]


def _window(asked: dict[str, str], now: float) -> Window:
    since = _moment(asked, "starttime", now)
    until = _moment(asked, "endtime", now)
    if since is None and "jobs" not in asked:
        here = time.localtime(now)
        midnight = (here.tm_year, here.tm_mon, here.tm_mday, 0, 0, 0, 0, 0, -1)
        since = now if "state" in asked else time.mktime(midnight)
    if until is None and "state" in asked and since is not None:
        # Of a state without an end of the window Slurm looks at its beginning alone.
        until = since
    last = now if until is None else until
    if since is not None and since > last:
        clock = Clock(now)
        raise UsageError(
            f"Start time ({clock.moment(since, '')}) requested is after end time "
            f"({clock.moment(last, '')})."
        )
    return Window(since, until)


def _moment(asked: dict[str, str], name: str, now: float) -> float | None:
    if name not in asked:
        return None
    try:
        return moments.parse(asked[name], now, past=True)
    except moments.NotAMoment as error:
        report.write_line(str(error))
        raise SystemExit(1) from None


def _tests(asked: dict[str, str], window: Window) -> list[Test]:
    """What a job has to be to be shown."""
    tests: list[Test] = []
    for option, name in (("name", "name"), ("partition", "partition"), ("gid", "group")):
        if option in asked:
            tests.append(_one_of(name, _parts(asked[option])))
    if "user" in asked:
        tests.append(_of_users(_parts(asked["user"])))
    for option, name in (("accounts", "account"), ("qos", "qos"), ("wckeys", "wckey")):
        if option in asked:
            tests.append(_one_of(name, _parts(asked[option])))
    if "associations" in asked:
        tests.append(lambda job: False)  # nobody has any
    if "clusters" in asked:
        named = {"all", names.CLUSTER}
        here = not named.isdisjoint(_parts(asked["clusters"]))
        tests.append(lambda job: here)
    if "nodelist" in asked:
        nodes = set(hostlist.expand(asked["nodelist"]))
        tests.append(lambda job: not nodes.isdisjoint(sacct_fields.node_names(job)))
    if "constraints" in asked:
        features = set(_parts(asked["constraints"]))
        tests.append(lambda job: features <= set(job["features"].replace("&", ",").split(",")))
    for option, name in (("nnodes", "nodes"), ("ncpus", "cpus")):
        if option in asked:
            tests.append(_between(name, asked[option]))
    if "timelimit-min" in asked:
        tests.append(_of_limit(asked))
    if "jobs" not in asked and window.since is not None and "state" not in asked:
        tests.append(lambda job: not sacct_fields.is_held(job))  # it was not eligible
    if "state" in asked:
        tests.append(_in_states(asked["state"], window))
    return tests


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _one_of(name: str, wanted: list[str]) -> Test:
    return lambda job: str(job[name]) in wanted


def _of_users(wanted: list[str]) -> Test:
    return lambda job: job["user"] in wanted or str(job["uid"]) in wanted


def _between(name: str, text: str) -> Test:
    least, dash, most = text.partition("-")
    if not values.is_number(least) or (dash and not values.is_number(most)):
        raise UsageError(f"Invalid count: {text}", hint="write N or N-M")
    low, high = int(least), int(most) if dash else int(least)
    # Only what has, or had, an allocation counts.
    return lambda job: job["start_time"] is not None and low <= job[name] <= high


def _of_limit(asked: dict[str, str]) -> Test:
    least = values.time_limit(asked["timelimit-min"], "time limit")
    text = asked.get("timelimit-max", asked["timelimit-min"])
    most = values.time_limit(text, "time limit")
    low, high = least or 0, most
    return lambda job: (
        job["time_limit"] is not None
        and low <= job["time_limit"]
        and (high is None or job["time_limit"] <= high)
    )


def _in_states(text: str, window: Window) -> Test:
    wanted = {_state(part) for part in _parts(text)}
    since, until = window.since, window.until

    def test(job: View) -> bool:
        if since is None:
            return sacct_fields.word_of(job) in wanted
        last = since if until is None else until
        start, end = sacct_fields.began(job), sacct_fields.ended(job)
        if sacct_fields.word_of(job) in wanted and job["state"] in words.FINISHED:
            return end is not None and since <= end <= last
        ran = job["start_time"] is not None and job["start_time"] <= last
        if "RUNNING" in wanted and ran and (end is None or end >= since):
            return True
        waited = job["submit_time"] <= last and (start is None or start >= since)
        if "PENDING" in wanted and waited and not sacct_fields.is_held(job):
            return True
        return "SUSPENDED" in wanted and job["state"] == "SUSPENDED"

    return test


def _state(text: str) -> str:
    upper = text.upper()
    for state, letters in _STATES.items():
        if upper in (state, letters):
            return state
    raise RequestError(f"unrecognized job state value '{text}'")


def _scripts(asked: dict[str, str], jobs: list[View], ask: Ask) -> int:
    """--batch-script: what is kept of one, as long as the job has not ended."""
    if "jobs" not in asked:
        raise UsageError(
            "When requesting --batch-script you must also request specific jobs "
            "with the '-j' option."
        )
    for job in jobs:
        answer = ask({"op": "query", "what": "jobs", "job_id": job["job_id"], "details": True})
        script = next((each.get("script") for each in answer["jobs"]), None)
        title = f"Batch Script for {words.job_id(job)}\n{'-' * 80}\n"
        report.write_out(f"{title}{script or 'NONE'}\n\n")
    return 0
