"""The jobs of tests/data/slurm-22.05/accounting.sh as the engine's journal would tell of them.

``ask`` answers sacct as a controller with these jobs does; ``commands`` gives what a real Slurm's
sacct printed of them (accounting.txt, which says how it was recorded).
"""

from __future__ import annotations

import calendar
import re
import shlex
import time
from typing import Any, NamedTuple

from tests.support import recorded

TRANSCRIPT = recorded.TRANSCRIPT.parent / "accounting.txt"
BATCH = 0xFFFFFFFB


def at(clock: str) -> float:
    """A time of the recording's day, UTC; minutes and seconds after 15 o'clock will do."""
    whole = clock if clock.count(":") == 2 else f"15:{clock}"
    return calendar.timegm(time.strptime(f"2026-11-25T{whole}", "%Y-%m-%dT%H:%M:%S"))


class Recorded(NamedTuple):
    """One command, its variables, when it was run, what it printed and how it ended."""

    argv: list[str]
    environ: dict[str, str]
    now: float
    output: str
    code: int


def commands() -> list[Recorded]:
    """What was recorded of sacct."""
    found = []
    text = "\n" + TRANSCRIPT.read_text()
    for before, line, body in re.findall(
        r"(?:^@ (.*)\n)?^\$ (.*)\n((?:(?![$@] ).*\n)*)", text, re.MULTILINE
    ):
        code = 0
        if body.startswith("? "):
            number, _, body = body[2:].partition("\n")
            code = int(number)
        words = shlex.split(line)
        environ = {}
        while "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            environ[name] = value
        found.append(Recorded(words[1:], environ, at(before or "15:04:30"), body, code))
    return found


def job(job_id: int, name: str, times: str, *steps: dict[str, Any], **changes: Any) -> Any:
    """A job; ``times``: when it was submitted, started and ended, in seconds after 15:04."""
    submit, start, end = (None if each == "-" else at(f"04:{each}") for each in times.split())
    view = recorded.job(
        job_id, name, user="roadstead-test", group="roadstead-test", uid=1001, gid=1001,
        partition="local", account="science", qos="normal", requeue=True, submit_time=submit,
        start_time=start, end_time=end, state="COMPLETED", node="n1" if start else "", priority=1,
        steps=list(steps),
    )  # fmt: skip
    return view | changes


def step(number: int, name: str, times: str, **changes: Any) -> dict[str, Any]:
    """A step; ``times``: when it started and ended."""
    start, end = (None if each == "-" else at(f"04:{each}") for each in times.split())
    view = {
        "step_id": number, "name": name, "state": "COMPLETED", "submit_time": start,
        "start_time": start, "end_time": end, "exit_code": 0, "exit_signal": 0, "nodes": 1,
        "node": "n1", "cpus": 1, "memory": 100, "ntasks": 1, "pid": 0, "container": "", "argv": [],
        "user_seconds": 0.0011, "system_seconds": 0.0, "max_rss_kib": 0, "measured": False,
    }  # fmt: skip
    return view | changes


def element(job_id: int, task: int, start: str) -> Any:
    failed = {"state": "FAILED", "exit_code": task}
    batch = step(BATCH, "batch", f"{start} {start}", memory=50, **failed)
    array = {"array_job_id": 6, "array_task_id": task}
    return job(
        job_id, "arr", f"19 {start} {start}", batch, memory=50, time_limit=300,
        reason="NonZeroExitCode", **failed, **array,
    )  # fmt: skip


_TWO = {"cpus": 2, "memory": 200}
JOBS: list[Any] = [
    job(
        1, "ok", "08 11 12",
        step(BATCH, "batch", "11 12", user_seconds=0.0021, system_seconds=0.001,
             max_rss_kib=3076, measured=True),
        comment="my comment",
    ),
    job(
        2, "steps", "08 14 14",
        step(BATCH, "batch", "14 14", state="FAILED", exit_code=4, user_seconds=0.0159,
             system_seconds=0.0039, **_TWO),
        step(0, "first", "14 14", user_seconds=0.2919, **_TWO),
        step(1, "second", "14 14", state="FAILED", exit_code=3, ntasks=2, user_seconds=0.0,
             system_seconds=0.0029, measured=True, **_TWO),
        state="FAILED", exit_code=4, reason="NonZeroExitCode", ntasks=2, **_TWO,
    ),
    job(
        3, "cancelled", "14 17 19",
        step(BATCH, "batch", "17 19", state="CANCELLED", exit_signal=15, user_seconds=0.0,
             system_seconds=0.0011, max_rss_kib=3224, measured=True),
        state="CANCELLED", exit_signal=15, time_limit=86400,
    ),
    job(4, "pended", "19 - 19", state="CANCELLED", reason="JobHeldUser", time_limit=300),
    job(
        5, "direct", "19 19 19",
        step(0, "direct", "19 19", state="CANCELLED", exit_signal=9, memory=50),
        state="FAILED", exit_signal=9, memory=0, memory_per_cpu=50, time_limit=180, batch=False,
    ),
    element(6, 3, "23"),
    element(7, 1, "20"),
    element(8, 2, "20"),
    job(9, "alloc", "22 22 22", step(0, "true", "22 22", memory=50), memory=50, time_limit=300,
        batch=False),
    job(10, "waits", "22 - -", state="PENDING", reason="JobHeldUser", cpus=2, ntasks=2,
        memory=1536, time_limit=300, nice=5),
    job(
        11, "runs", "22 23 -",
        step(BATCH, "batch", "23 -", state="RUNNING", user_seconds=0.0),
        step(0, "busy", "23 -", state="RUNNING", user_seconds=0.0),
        state="RUNNING", time_limit=5400,
    ),
    job(12, "waits2", "22 - -", state="PENDING", reason="Resources", cpus=2, ntasks=2,
        memory=1536, time_limit=300),
]  # fmt: skip


def ask(request: dict[str, Any]) -> dict[str, Any]:
    """What a controller with these jobs answers (controller/journal.sql, history)."""
    assert request["what"] == "history"
    wanted, since, until = request.get("jobs"), request["since"], request["until"]

    def there(view: Any) -> bool:
        ended = view["end_time"] if view["state"] not in ("PENDING", "RUNNING") else None
        named = wanted is None or view["job_id"] in wanted or view["array_job_id"] in wanted
        after = since is None or ended is None or ended >= since
        return bool(named and after and (until is None or view["submit_time"] <= until))

    return {"jobs": [{**view} for view in JOBS if there(view)]}
