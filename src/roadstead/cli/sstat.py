"""sstat: what the tasks of running steps use now, as their supervisors measure it when asked.

A job stands for its numbered steps, with --allsteps for all of them.  What nobody measures here
(disk, pages, energy, frequencies) is empty; the most is the most of what the tasks have now.
"""

from __future__ import annotations

import os

from roadstead.cli import fields, inquiry, processes, report, words
from roadstead.cli.fields import Field
from roadstead.cli.sacct_fields import Scene, amount
from roadstead.cli.table import fixed
from roadstead.core import hostlist, values
from roadstead.engines import local
from roadstead.errors import RequestError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Final, TypeAlias

    from roadstead.cli.fields import Value
    from roadstead.cli.inquiry import Inquiry
    from roadstead.cli.words import Ask, View

    Row: TypeAlias = dict[str, Any]  # {"step": the step's view, "tasks": what each of them uses}

COMMAND: Final = "sstat"

_DEFAULT: Final = (
    "jobid,maxvmsize,maxvmsizenode,maxvmsizetask,avevmsize,maxrss,maxrssnode,maxrsstask,averss,"
    "maxpages,maxpagesnode,maxpagestask,avepages,mincpu,mincpunode,mincputask,avecpu,ntasks,"
    "avecpufreq,reqcpufreqmin,reqcpufreqmax,reqcpufreqgov,consumedenergy,maxdiskread,"
    "maxdiskreadnode,maxdiskreadtask,avediskread,maxdiskwrite,maxdiskwritenode,maxdiskwritetask,"
    "avediskwrite"
)
_PIDS: Final = "jobid,nodelist,pids"


def _of_task(name: str, which: Callable[..., Any], key: str) -> Value:
    """Something about the task that has the most, or the least, of what ``key`` names."""

    def value(row: Row, scene: Scene) -> str:
        found = which(row["tasks"], key=lambda task: task[key], default=None)
        return "" if found is None else str(found[name])

    return value


def _memory(key: str, of: Callable[[list[float]], float]) -> Value:
    def value(row: Row, scene: Scene) -> str:
        found = [task[key] / 1024 for task in row["tasks"]]
        return amount(of(found), scene) if found else ""

    return value


def _cpu(of: Callable[[list[float]], float]) -> Value:
    def value(row: Row, scene: Scene) -> str:
        found = [task["cpu_seconds"] for task in row["tasks"]]
        return values.format_time(int(of(found))) if found else ""

    return value


def _mean(found: list[float]) -> float:
    return sum(found) / len(found)


def _pids(row: Row, scene: Scene) -> str:
    return ",".join(str(pid) for task in row["tasks"] for pid in task["pids"])


def _usage(of: Callable[[list[float]], float]) -> Value:
    memory, cpu = _memory("rss", of), _cpu(of)
    return lambda row, scene: f"cpu={cpu(row, scene)},mem={memory(row, scene)}"


_nothing = fixed("")


# fmt: off
FIELDS: Final[tuple[Field, ...]] = (
    Field("AveCPU", 10, _cpu(_mean)),
    Field("AveCPUFreq", 10, _nothing),
    Field("AveDiskRead", 12, _nothing),
    Field("AveDiskWrite", 12, _nothing),
    Field("AvePages", 10, _nothing),
    Field("AveRSS", 10, _memory("rss", _mean)),
    Field("AveVMSize", 10, _memory("virtual", _mean)),
    Field("ConsumedEnergy", 14, _nothing),
    Field("ConsumedEnergyRaw", 17, _nothing),
    Field("JobID", -12, lambda row, scene: words.step_id(row["step"])),
    Field("MaxDiskRead", 12, _nothing),
    Field("MaxDiskReadNode", 15, _nothing),
    Field("MaxDiskReadTask", 15, _nothing),
    Field("MaxDiskWrite", 12, _nothing),
    Field("MaxDiskWriteNode", 16, _nothing),
    Field("MaxDiskWriteTask", 16, _nothing),
    Field("MaxPages", 8, _nothing),
    Field("MaxPagesNode", 12, _nothing),
    Field("MaxPagesTask", 14, _nothing),
    Field("MaxRSS", 10, _memory("rss", max)),
    Field("MaxRSSNode", 10, _of_task("node", max, "rss")),
    Field("MaxRSSTask", 10, _of_task("procid", max, "rss")),
    Field("MaxVMSize", 10, _memory("virtual", max)),
    Field("MaxVMSizeNode", 14, _of_task("node", max, "virtual")),
    Field("MaxVMSizeTask", 14, _of_task("procid", max, "virtual")),
    Field("MinCPU", 10, _cpu(min)),
    Field("MinCPUNode", 10, _of_task("node", min, "cpu_seconds")),
    Field("MinCPUTask", 10, _of_task("procid", min, "cpu_seconds")),
    Field("Nodelist", 20, lambda row, scene: str(row["step"]["node"])),
    Field("NTasks", 8, lambda row, scene: str(row["step"]["ntasks"]), cut=False),
    Field("Pids", 20, _pids),
    Field("ReqCPUFreq", 10, _nothing),
    Field("ReqCPUFreqMin", 13, _nothing),
    Field("ReqCPUFreqMax", 13, _nothing),
    Field("ReqCPUFreqGov", 13, _nothing),
    Field("TRESUsageInAve", 14, _usage(_mean)),
    Field("TRESUsageInMax", 14, _usage(max)),
    Field("TRESUsageInMaxNode", 18, _nothing),
    Field("TRESUsageInMaxTask", 18, _nothing),
    Field("TRESUsageInMin", 14, _usage(min)),
    Field("TRESUsageInMinNode", 18, _nothing),
    Field("TRESUsageInMinTask", 18, _nothing),
    Field("TRESUsageInTot", 14, _usage(sum)),
    Field("TRESUsageOutAve", 15, _nothing),
    Field("TRESUsageOutMax", 15, _nothing),
    Field("TRESUsageOutMaxNode", 19, _nothing),
    Field("TRESUsageOutMaxTask", 19, _nothing),
    Field("TRESUsageOutMin", 15, _nothing),
    Field("TRESUsageOutMinNode", 19, _nothing),
    Field("TRESUsageOutMinTask", 19, _nothing),
    Field("TRESUsageOutTot", 15, _nothing),
)
# fmt: on


def main(
    argv: list[str] | None = None,
    ask: Ask = local.ask,
    *,
    environ: Mapping[str, str] = os.environ,
    now: float | None = None,
) -> int:
    """Run sstat with ``argv`` (without the program's name); its exit code."""
    return inquiry.run(COMMAND, argv, _answer, ask, environ, now)


def _answer(inquiry: Inquiry) -> int:
    asked = inquiry.asked
    if "helpformat" in asked:
        report.write_out(fields.names(FIELDS))
        return 0
    text = asked.get("format") or (_PIDS if "pidformat" in asked else _DEFAULT)
    shown = fields.chosen(text, FIELDS)
    ids = [*hostlist.split(asked.get("jobs", "")), *inquiry.operands]
    if not ids:
        raise UsageError("You didn't give me any jobs to stat.", hint="sstat -j JOB[.STEP]")
    wanted = [_named(word) for word in ids]
    steps: list[View] = [s for s in inquiry.query("steps") if s["start_time"] is not None]
    rows, missing = [], []
    for job, step in wanted:
        found = [view for view in steps if view["job_id"] == job]
        if step is not None:
            found = [view for view in found if view["step_id"] == step]
        elif "allsteps" not in asked:
            found = [view for view in found if not words.is_named_step(view)]
        found.sort(key=lambda view: (not words.is_named_step(view), view["step_id"]))
        rows += [{"step": view, "tasks": processes.usage(view)} for view in found]
        if not found:
            missing.append(job)
    scene = Scene(inquiry.clock)
    report.write_out(fields.table(shown, rows, scene, fields.style(asked)))
    for job in missing:
        report.warn(COMMAND, f"No steps running for job {job}")
    return 0


def _named(text: str) -> tuple[int, int | None]:
    """``7``, ``7.0`` or ``7.batch``."""
    job, dot, name = text.strip().partition(".")
    step = words.step_number(name) if dot else None
    if not values.is_number(job) or (dot and step is None):
        raise RequestError(f"Bad job/step specified: {text}", hint="JOB, JOB.STEP or JOB.batch")
    return int(job), step
