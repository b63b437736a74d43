"""sdiag: what the controller does, as far as it is counted: jobs since midnight, and the queue.

Jobs are counted from the journal, so that a controller that was started again forgets none.  How
long turns of the scheduler take is not measured all the time (bench/ does), and calls are not
counted.
"""

from __future__ import annotations

import os
import time

from roadstead.cli import inquiry, report
from roadstead.engines import local

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

    from roadstead.cli.inquiry import Inquiry
    from roadstead.cli.words import Ask, View

COMMAND: Final = "sdiag"

_LINE: Final = "*" * 55
_FAILED: Final = ("NODE_FAIL", "BOOT_FAIL")
_CANCELLED: Final = ("CANCELLED", "DEADLINE")
_OVER: Final = ("COMPLETED", "FAILED", "TIMEOUT", "OUT_OF_MEMORY")


def main(
    argv: list[str] | None = None,
    ask: Ask = local.ask,
    *,
    environ: Mapping[str, str] = os.environ,
    now: float | None = None,
) -> int:
    """Run sdiag with ``argv`` (without the program's name); its exit code."""
    return inquiry.run(COMMAND, argv, _answer, ask, environ, now)


def _answer(inquiry: Inquiry) -> int:
    inquiry.no_operands()
    now = inquiry.clock.now
    here = time.localtime(now)
    since = time.mktime((here.tm_year, here.tm_mon, here.tm_mday, 0, 0, 0, 0, 0, -1))
    query = {"op": "query", "what": "history", "since": since, "until": None}
    jobs: list[View] = inquiry.ask(query)["jobs"]
    answer = inquiry.ask({"op": "query", "what": "config", "job_id": None, "all": False})
    ended = [job for job in jobs if (job["end_time"] or 0) >= since]

    def count(*words: str) -> int:
        return sum(job["state"] in words for job in ended)

    report.write_out(
        f"{_LINE}\n"
        f"sdiag output at {_moment(now)}\n"
        f"Data since      {_moment(since)}\n"
        f"{_LINE}\n"
        "Server thread count:  1\n"
        "Agent queue size:     0\n"
        "Agent count:          0\n"
        "Agent thread count:   0\n"
        "DBD Agent queue size: 0\n"
        "\n"
        f"Jobs submitted: {sum(job['submit_time'] >= since for job in jobs)}\n"
        f"Jobs started:   {sum(_started(job, since) for job in jobs)}\n"
        f"Jobs completed: {count(*_OVER)}\n"
        f"Jobs canceled:  {count(*_CANCELLED)}\n"
        f"Jobs failed:    {count(*_FAILED)}\n"
        "\n"
        f"Job states ts:  {_moment(now)}\n"
        f"Jobs pending:   {sum(job['state'] == 'PENDING' for job in jobs)}\n"
        f"Jobs running:   {sum(job['state'] == 'RUNNING' for job in jobs)}\n"
        "\n"
        "Main schedule statistics (microseconds):\n"
        f"\tLast queue length: {answer['pending']}\n"
    )
    return 0


def _started(job: View, since: float) -> bool:
    return bool(job["node"]) and job["start_time"] is not None and job["start_time"] >= since


def _moment(seconds: float) -> str:
    return f"{time.strftime('%a %b %d %H:%M:%S %Y', time.localtime(seconds))} ({int(seconds)})"
