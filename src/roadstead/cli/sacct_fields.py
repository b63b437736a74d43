"""The fields of sacct: what each says of a job, and of a step.

A row is ``{"job": view, "step": None}`` for a job, with a step's view for one of its steps.  Widths
and what stands where nothing is known are Slurm 22.05's, recorded from it.  What the engine does
not keep (accounts, shares, energy, page faults) is empty, or what Slurm shows without the plugin
that would measure it.
"""

from __future__ import annotations

from roadstead.cli import words
from roadstead.cli.fields import Field
from roadstead.cli.table import Fixed, fixed
from roadstead.core import hostlist, names, values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final, TypeAlias

    from roadstead.cli.fields import Value
    from roadstead.cli.words import View

    Row: TypeAlias = dict[str, Any]
    OfView: TypeAlias = Callable[[View, Any], str]

_BRIEF: Final = "jobid,state,exitcode"
DEFAULT: Final = "jobid,jobname,partition,account,alloccpus,state,exitcode"
BRIEF: Final = _BRIEF
LONG: Final = (
    "jobid,jobidraw,jobname,partition,maxvmsize,maxvmsizenode,maxvmsizetask,avevmsize,maxrss,"
    "maxrssnode,maxrsstask,averss,maxpages,maxpagesnode,maxpagestask,avepages,mincpu,mincpunode,"
    "mincputask,avecpu,ntasks,alloccpus,elapsed,state,exitcode,avecpufreq,reqcpufreqmin,"
    "reqcpufreqmax,reqcpufreqgov,reqmem,consumedenergy,maxdiskread,maxdiskreadnode,"
    "maxdiskreadtask,avediskread,maxdiskwrite,maxdiskwritenode,maxdiskwritetask,avediskwrite,"
    "reqtres,alloctres,tresusageinave,tresusageinmax,tresusageinmaxn,tresusageinmaxt,"
    "tresusageinmin,tresusageinminn,tresusageinmint,tresusageintot,tresusageoutmax,"
    "tresusageoutmaxn,tresusageoutmaxt,tresusageoutave,tresusageouttot"
)


class Scene:
    """What texts depend on besides the row: the clock, the unit of memory, the window of -T."""

    __slots__ = ("clock", "since", "unit", "until")

    def __init__(
        self, clock: words.Clock, unit: str = "", since: float = 0.0, until: float | None = None
    ) -> None:
        self.clock, self.unit, self.since, self.until = clock, unit, since, until


# -- what several fields share ---------------------------------------------------------------------


def either(job: OfView | None, step: OfView | None) -> Value:
    """A field that says one thing of a job and another of a step; None: nothing."""
    if isinstance(job, Fixed) and isinstance(step, Fixed) and job.text == step.text:
        return job

    def value(row: Row, scene: Any) -> str:
        of = job if row["step"] is None else step
        return "" if of is None else of(row["job"] if row["step"] is None else row["step"], scene)

    return value


def both(of: OfView) -> Value:
    return either(of, of)


def key(name: str) -> OfView:
    return lambda view, scene: str(view[name])


def amount(kib: float, scene: Scene, least: str = "K") -> str:
    """Memory or the like, in the largest unit that shows it to two digits, or the one asked for;
    unconverted in the one that it is kept in."""
    return convert(kib * 1024, scene, least)


_UNITS: Final = "KMGTP"


def convert(number: float, scene: Scene, least: str = "K") -> str:
    """A number of bytes as Slurm's convert_num_unit shows one: 3184K, 1.50G, 0."""
    number /= 1024
    unit = 0
    wanted = scene.unit or ("" if scene.clock.convert else least)
    if wanted:
        while _UNITS[unit] != wanted:
            number, unit = number / 1024, unit + 1
    else:
        while number >= 1024 and unit < len(_UNITS) - 1 and int(number) % 512 == 0:
            number, unit = number / 1024, unit + 1
    if not number:
        return "0"
    text = f"{number:.0f}" if number == int(number) else f"{number:.2f}"
    return text + _UNITS[unit]


def span(view: View, scene: Scene) -> tuple[float | None, float | None]:
    """When a job or a step began and ended, as it is to be shown."""
    start, end = began(view), ended(view)
    if scene.until is not None and start is not None:
        start = max(start, scene.since)
        end = min(scene.until if end is None else end, scene.until)
    return start, end


def began(view: View) -> float | None:
    start: float | None = view["start_time"]
    return ended(view) if start is None else start


def ended(view: View) -> float | None:
    """When it ended; the time at which its limit will end a running job is not that."""
    over = view["state"] in words.FINISHED
    end: float | None = view["end_time"] if over else None
    return end


def elapsed(view: View, scene: Scene) -> int:
    start, end = span(view, scene)
    if start is None:
        return 0
    last = scene.clock.now if end is None else end
    return max(int(last) - int(start) - int(view.get("suspended", 0)), 0)


def waited(view: View, scene: Scene) -> int:
    """Seconds between the time at which a job could have started and its start."""
    if is_held(view):
        return 0
    start = began(view)
    since = view.get("eligible_time") or view["submit_time"]
    return max(int(scene.clock.now if start is None else start) - int(since), 0)


def is_held(view: View) -> bool:
    """Whether it never was eligible: it is held, or was cancelled while it was."""
    return view["start_time"] is None and (
        str(view["reason"]).startswith("JobHeld") or view.get("eligible_time", 0) is None
    )


def precise(seconds: float) -> str:
    """CPU time: ``[D-]HH:MM:SS``, and below an hour ``MM:SS.mmm`` where there are milliseconds."""
    whole, thousandths = int(seconds), int(seconds * 1000) % 1000
    if whole < 3600 and thousandths:
        return f"{whole // 60:02}:{whole % 60:02}.{thousandths:03}"
    return values.format_time(whole)


def used(row: Row, *names: str) -> float:
    """CPU seconds of a step, or of all the steps of a job."""
    steps = row["job"]["steps"] if row["step"] is None else [row["step"]]
    return float(sum(step[name] for step in steps for name in names))


def state(row: Row, scene: Any) -> str:
    job = row["job"]
    word = word_of(job) if row["step"] is None else str(row["step"]["state"])
    own = row["step"] is None and word == "CANCELLED"
    return f"CANCELLED by {job['uid']}" if own else word


def word_of(job: View) -> str:
    """The state that accounting has for a job: what completes has not ended yet."""
    return "RUNNING" if job["state"] == "COMPLETING" else str(job["state"])


def exit_code(view: View, scene: Any) -> str:
    """``code:signal``.  How a job's script took its end by scancel or a limit is its step's."""
    if "steps" in view and view["state"] in ("CANCELLED", "TIMEOUT", "COMPLETING"):
        return "0:0"
    return words.exit_code(view)


def derived(view: View, scene: Any) -> str:
    """The highest exit code of a job's steps but the batch script."""
    own = [step for step in view["steps"] if not words.is_named_step(step)]
    worst = max(own, key=lambda s: (s["exit_code"], s["exit_signal"]), default=None)
    return "0:0" if worst is None else words.exit_code(worst)


def job_id(row: Row, scene: Any) -> str:
    name = words.job_id(row["job"])
    return name if row["step"] is None else f"{name}.{_step_name(row)}"


def job_id_raw(row: Row, scene: Any) -> str:
    number = str(row["job"]["job_id"])
    return number if row["step"] is None else f"{number}.{_step_name(row)}"


def _step_name(row: Row) -> str:
    return words.step_id({"job_id": 0, **row["step"]}).partition(".")[2]


def required_memory(job: View) -> int:
    """MiB that a job asked for, on all its nodes."""
    return int(job["memory"] * job["nodes"] or job["memory_per_cpu"] * job["cpus"])


def tres(job: View, scene: Scene) -> str:
    """What a job has, or wants, in the order of the names."""
    found = {"billing": str(job["cpus"]), "cpu": str(job["cpus"]), "node": str(job["nodes"])}
    memory = required_memory(job)
    if memory:
        found["mem"] = amount(memory * 1024, scene, "M")
    for each in words.counted(job["gres"], job["nodes"]):
        name, _, count = each.partition("=")
        found[f"gres/{name}"] = count
    return ",".join(f"{name}={found[name]}" for name in sorted(found))


def _allocated(job: View, scene: Scene) -> str:
    return "" if job["start_time"] is None else tres(job, scene)


def _step_tres(step: View, scene: Scene) -> str:
    if not step["cpus"]:
        return ""
    memory = f",mem={amount(step['memory'] * 1024, scene, 'M')}" if step["memory"] else ""
    return f"cpu={step['cpus']}{memory},node={step['nodes']}"


def _moment(which: int, missing: str = "Unknown") -> OfView:
    return lambda view, scene: scene.clock.moment(span(view, scene)[which], missing)


def _measured(of: OfView) -> Value:
    """A figure of a step that has ended: before that there is none."""
    return either(None, lambda step, scene: of(step, scene) if step["measured"] else "")


def _of_lone_task(of: OfView) -> Value:
    """A figure that is known of a task, where there is only one."""
    return _measured(lambda step, scene: of(step, scene) if step["ntasks"] == 1 else "")


def _cpu_time(step: View, tasks: int) -> str:
    return values.format_time((step["user_seconds"] + step["system_seconds"]) / tasks)


def _total(step: View, scene: Scene) -> str:
    return f"cpu={_cpu_time(step, 1)},mem={amount(step['max_rss_kib'], scene)}"


def _nodes(view: View, scene: Any) -> str:
    return str(view["node"] or "None assigned")


def _limit_minutes(job: View, scene: Any) -> str:
    return "UNLIMITED" if job["time_limit"] is None else str(-(-job["time_limit"] // 60))


def _layout(step: View, scene: Any) -> str:
    return "Unknown" if words.is_named_step(step) else "Block"


def _frequency(step: View, scene: Any) -> str:
    return "0" if words.is_named_step(step) else "Unknown"


_CPUS = key("cpus")
_EMPTY = both(fixed(""))
_CLUSTER = both(fixed(names.CLUSTER))
_FREQUENCY = either(fixed("Unknown"), _frequency)
_RAW_WAIT = either(lambda job, scene: str(waited(job, scene) * job["cpus"]), None)
_NODE = _of_lone_task(key("node"))
_TASK = _of_lone_task(fixed("0"))
_MEAN_CPU = _measured(lambda step, scene: _cpu_time(step, step["ntasks"]))
_LEAST_CPU = _of_lone_task(lambda step, scene: _cpu_time(step, 1))
_PEAK = _measured(lambda step, scene: amount(step["max_rss_kib"], scene))
_MEAN_PEAK = _of_lone_task(lambda step, scene: amount(step["max_rss_kib"], scene))


def _cpu_seconds(view: View, scene: Scene) -> int:
    return elapsed(view, scene) * int(view["cpus"])


# fmt: off
FIELDS: tuple[Field, ...] = (
    Field("Account", 10, lambda row, scene: str(row["job"]["account"])),
    Field("AdminComment", 15, _EMPTY),
    Field("AllocCPUS", 10, both(_CPUS), cut=False),
    Field("AllocNodes", 10, either(
        lambda job, scene: "0" if job["start_time"] is None else str(job["nodes"]), key("nodes")),
        cut=False),
    Field("AllocTRES", 10, either(_allocated, _step_tres)),
    Field("AssocID", 7, both(fixed("0")), cut=False),
    Field("AveCPU", 10, _MEAN_CPU),
    Field("AveCPUFreq", 10, _EMPTY),
    Field("AveDiskRead", 14, _EMPTY),
    Field("AveDiskWrite", 14, _EMPTY),
    Field("AvePages", 10, _EMPTY),
    Field("AveRSS", 10, _MEAN_PEAK),
    Field("AveVMSize", 10, _EMPTY),
    Field("BlockID", 16, _EMPTY),
    Field("Cluster", 10, _CLUSTER),
    Field("Comment", 14, either(key("comment"), None)),
    Field("Constraints", 19, either(key("features"), None)),
    Field("ConsumedEnergy", 14, _measured(fixed("0"))),
    Field("ConsumedEnergyRaw", 17, _measured(fixed("0"))),
    Field("Container", 19, both(key("container"))),
    Field("CPUTime", 10, both(lambda v, s: values.format_time(_cpu_seconds(v, s))), cut=False),
    Field("CPUTimeRAW", 10, both(lambda v, s: str(_cpu_seconds(v, s))), cut=False),
    Field("DBIndex", -10, lambda row, scene: str(row["job"]["job_id"]), cut=False),
    Field("DerivedExitCode", 15, either(derived, None)),
    Field("Elapsed", 10, both(lambda v, s: values.format_time(elapsed(v, s))), cut=False),
    Field("ElapsedRaw", 10, both(lambda v, s: str(elapsed(v, s))), cut=False),
    Field("Eligible", 19, either(
        lambda job, s: s.clock.moment(None if is_held(job) else
                                      job.get("eligible_time") or job["submit_time"], "Unknown"),
        _moment(0)), cut=False),
    Field("End", 19, both(_moment(1)), cut=False),
    Field("ExitCode", 8, both(exit_code)),
    Field("Flags", 19, either(
        lambda job, s: "" if job["start_time"] is None else "SchedMain", None)),
    Field("GID", 6, either(key("gid"), None), cut=False),
    Field("Group", 9, either(key("group"), None)),
    Field("JobID", -12, job_id),
    Field("JobIDRaw", -12, job_id_raw),
    Field("JobName", 10, both(key("name"))),
    Field("Layout", 9, either(None, _layout)),
    Field("MaxDiskRead", 12, _EMPTY),
    Field("MaxDiskReadNode", 15, _EMPTY),
    Field("MaxDiskReadTask", 15, _EMPTY),
    Field("MaxDiskWrite", 12, _EMPTY),
    Field("MaxDiskWriteNode", 16, _EMPTY),
    Field("MaxDiskWriteTask", 16, _EMPTY),
    Field("MaxPages", 8, _EMPTY),
    Field("MaxPagesNode", 12, _EMPTY),
    Field("MaxPagesTask", 14, _EMPTY),
    Field("MaxRSS", 10, _PEAK),
    Field("MaxRSSNode", 10, _NODE),
    Field("MaxRSSTask", 10, _TASK),
    Field("MaxVMSize", 10, _EMPTY),
    Field("MaxVMSizeNode", 14, _EMPTY),
    Field("MaxVMSizeTask", 14, _EMPTY),
    Field("McsLabel", 12, _EMPTY),
    Field("MinCPU", 10, _LEAST_CPU),
    Field("MinCPUNode", 10, _NODE),
    Field("MinCPUTask", 10, _TASK),
    Field("NCPUS", 10, both(_CPUS), cut=False),
    Field("NNodes", 8, both(key("nodes"))),
    Field("NodeList", 15, both(_nodes)),
    Field("NTasks", 8, either(None, key("ntasks")), cut=False),
    Field("Partition", 10, either(key("partition"), None)),
    Field("Priority", 10, either(key("priority"), None), cut=False),
    Field("QOS", 10, either(key("qos"), None)),
    Field("QOSRAW", 6, _EMPTY),
    Field("Reason", 22, either(lambda job, scene: words.reason(job), None)),
    Field("ReqCPUFreq", 10, _FREQUENCY),
    Field("ReqCPUFreqGov", 13, _FREQUENCY),
    Field("ReqCPUFreqMax", 13, _FREQUENCY),
    Field("ReqCPUFreqMin", 13, _FREQUENCY),
    Field("ReqCPUS", 8, both(_CPUS), cut=False),
    Field("ReqMem", 10, either(lambda job, s: amount(required_memory(job) * 1024, s, "M"),
                               None)),
    Field("ReqNodes", 8, both(key("nodes"))),
    Field("ReqTRES", 10, either(tres, None)),
    Field("Reservation", 20, _EMPTY),
    Field("ReservationId", 8, _EMPTY),
    Field("Reserved", 10, either(lambda job, s: values.format_time(waited(job, s)), None),
          cut=False),
    Field("ResvCPU", 10, either(
        lambda job, s: values.format_time(waited(job, s) * job["cpus"]), None), cut=False),
    Field("ResvCPURAW", 10, _RAW_WAIT, cut=False),
    Field("Start", 19, both(_moment(0)), cut=False),
    Field("State", 10, state),
    Field("Submit", 19, both(lambda v, s: s.clock.moment(v["submit_time"], "Unknown")), cut=False),
    Field("SubmitLine", 20, both(lambda v, s: str(v.get("submit_line", "")))),
    Field("Suspended", 10, both(lambda v, s: values.format_time(v.get("suspended", 0))),
          cut=False),
    Field("SystemComment", 15, _EMPTY),
    Field("SystemCPU", 10, lambda row, s: precise(used(row, "system_seconds")), cut=False),
    Field("Timelimit", 10, either(lambda job, s: values.format_time(job["time_limit"]), None)),
    Field("TimelimitRaw", 10, either(_limit_minutes, None)),
    Field("TotalCPU", 10, lambda row, s: precise(used(row, "user_seconds", "system_seconds")),
          cut=False),
    Field("TRESUsageInAve", 14, _of_lone_task(_total)),
    Field("TRESUsageInMax", 14, _of_lone_task(_total)),
    Field("TRESUsageInMaxNode", 18, _EMPTY),
    Field("TRESUsageInMaxTask", 18, _EMPTY),
    Field("TRESUsageInMin", 14, _of_lone_task(_total)),
    Field("TRESUsageInMinNode", 18, _EMPTY),
    Field("TRESUsageInMinTask", 18, _EMPTY),
    Field("TRESUsageInTot", 14, _measured(_total)),
    Field("TRESUsageOutAve", 15, _EMPTY),
    Field("TRESUsageOutMax", 15, _EMPTY),
    Field("TRESUsageOutMaxNode", 19, _EMPTY),
    Field("TRESUsageOutMaxTask", 19, _EMPTY),
    Field("TRESUsageOutMin", 15, _EMPTY),
    Field("TRESUsageOutMinNode", 19, _EMPTY),
    Field("TRESUsageOutMinTask", 19, _EMPTY),
    Field("TRESUsageOutTot", 15, _EMPTY),
    Field("UID", 6, either(key("uid"), None), cut=False),
    Field("User", 9, either(key("user"), None)),
    Field("UserCPU", 10, lambda row, s: precise(used(row, "user_seconds")), cut=False),
    Field("WCKey", 10, either(key("wckey"), None)),
    Field("WCKeyID", 10, both(fixed("0"))),
    Field("WorkDir", 20, either(key("work_dir"), None)),
)
# fmt: on
REMOVED: Final = {
    "allocgres": "AllocGRES has been removed, please use AllocTRES",
    "reqgres": "ReqGRES has been removed, please use ReqTRES",
}


def node_names(view: View) -> set[str]:
    return set(hostlist.expand(view["node"])) if view["node"] else set()
