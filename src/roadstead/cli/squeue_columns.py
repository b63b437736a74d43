"""The columns of squeue: of jobs, and of steps.

What Slurm knows and a single machine's engine does not (sockets, sites, burst buffers …) is shown
as Slurm shows it where nobody has asked for any: programs count columns.
"""

from __future__ import annotations

from roadstead.cli import words
from roadstead.cli.table import Column, Key, Unless, fixed, key
from roadstead.core import names, values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from roadstead.cli.table import Order, Value
    from roadstead.cli.words import Clock, View

_MAX_PRIORITY: Final = 0xFFFFFFFF


def _text(name: str) -> Value:
    return lambda view, clock: words.or_null(view[name])


def _number(name: str) -> Order:
    return Key(name)


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


def _het(name: str) -> Value:
    """What a heterogeneous job's components have, and other jobs have not."""
    return lambda view, clock: "N/A" if view.get(name) is None else str(view[name])


_NULL = fixed(words.NULL)
_NA = fixed("N/A")
_ZERO = fixed("0")
_LETTERS = words.STATES
_ANY = fixed("*")
_NO_SITE = fixed("NA")


def _eligible(view: View, clock: Clock) -> str:
    held = view["reason"].startswith("JobHeld")
    return clock.moment(None if held else view["eligible_time"], "N/A")


def _used(view: View, clock: Clock) -> str:
    if view["start_time"] is None:  # nearly all of a long list
        return "0:00"
    return values.format_time_short(clock.elapsed(view))


def _evaluated(view: View, clock: Clock) -> str:
    started = words.start_time(view)
    return clock.moment(view["submit_time"] if started is None else started, "N/A")


# fmt: off
JOBS: tuple[Column, ...] = (
    Column("i", "jobarrayid", "JOBID",
           Unless("job_id", "array_job_id het_job_id", lambda v, c: words.job_id(v)),
           _number("job_id")),
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
    Column("t", "statecompact", "ST",
           lambda v, c: _LETTERS.get(v["state"]) or str(v["state"])),
    Column("T", "state", "STATE", key("state")),
    Column("r", "reason", "REASON", lambda v, c: words.reason(v)),
    Column("R", "reasonlist", "NODELIST(REASON)", lambda v, c: words.node_or_reason(v)),
    Column("N", "nodelist", "NODELIST", key("node")),
    Column("B", "batchhost", "EXEC_HOST", lambda v, c: str(v["batch_host"] or v["node"] or "n/a")),
    Column("Y", "schednodes", "SCHEDNODES", lambda v, c: words.or_null(v.get("planned_nodes"))),
    Column("n", "reqnodes", "REQ_NODES", key("nodelist")),
    Column("x", "", "EXC_NODES", key("exclude")),
    Column("D", "numnodes", "NODES", key("nodes"), _number("nodes")),
    Column("C", "numcpus", "CPUS", key("cpus"), _number("cpus")),
    Column("c", "mincpus", "MIN_CPUS",
           lambda v, c: str(words.least_cpus(v)), lambda v, c: words.least_cpus(v)),
    Column("", "maxcpus", "MAX_CPUS", key("cpus")),
    Column("", "maxnodes", "MAX_NODES", key("nodes")),
    Column("", "numtasks", "TASKS", key("ntasks")),
    Column("", "cpus-per-task cpuspertask", "CPUS_PER_TASK", key("cpus_per_task")),
    Column("m", "minmemory", "MIN_MEMORY", lambda v, c: c.memory(v["memory"]), _number("memory")),
    Column("", "tres-alloc tres", "TRES_ALLOC", words.tres),
    Column("d", "mintmpdisk", "MIN_TMP_DISK", _ZERO),
    Column("M", "timeused", "TIME", _used,
           lambda v, c: c.elapsed(v), duration=True),
    Column("l", "timelimit", "TIME_LIMIT", lambda v, c: values.format_time_short(v["time_limit"]),
           _or_0("time_limit"), duration=True),
    Column("L", "timeleft", "TIME_LEFT", lambda v, c: c.left(v),
           lambda v, c: (v["time_limit"] or 0) - c.elapsed(v), duration=True),
    Column("", "mintime", "TIME_MIN",
           lambda v, c: values.format_time_short(v["time_min"] or 0)),
    Column("S", "starttime", "START_TIME", lambda v, c: c.moment(words.start_time(v), "N/A"),
           lambda v, c: words.start_time(v) or 0),
    Column("e", "endtime", "END_TIME", _time("end_time"), _or_0("end_time")),
    Column("V", "submittime", "SUBMIT_TIME", _time("submit_time"), _or_0("submit_time")),
    Column("", "eligibletime", "ELIGIBLE_TIME", _eligible),
    Column("", "accruetime", "ACCRUE_TIME", _eligible),
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
    Column("", "exit_code exitcode", "EXIT_CODE", lambda v, c: str(words.wait_status(v))),
    Column("", "derivedec", "DERIVED_EC", _ZERO),
    Column("", "requeue", "REQUEUE", lambda v, c: str(int(v["requeue"]))),
    Column("", "restartcnt", "RESTART_COUNT", key("restarts")),
    Column("a", "account", "ACCOUNT", _text("account")),
    Column("q", "qos", "QOS", _text("qos")),
    Column("v", "reservation", "RESERVATION", _NULL),
    Column("w", "wckey", "WCKEY", _text("wckey")),
    Column("f", "feature", "FEATURES", _text("features")),
    Column("E", "dependency", "DEPENDENCY", _text("dependency")),
    Column("W", "licenses", "LICENSES", _text("licenses")),
    Column("b", "tres-per-node gres", "TRES_PER_NODE", lambda v, c: _per_node(v)),
    Column("", "tres-per-job", "TRES_PER_JOB", _NA),
    Column("", "tres-per-task", "TRES_PER_TASK", _NA),
    Column("h", "oversubscribe shared", "OVER_SUBSCRIBE",
           lambda v, c: "NO" if v["exclusive"] else "OK"),
    Column("O", "contiguous", "CONTIGUOUS", _ZERO),
    Column("z", "sct", "S:C:T", fixed("*:*:*")),
    Column("H", "sockets", "SOCKETS_PER_NODE", _ANY),
    Column("I", "cores", "CORES_PER_SOCKET", _ANY),
    Column("J", "threads", "THREADS_PER_CORE", _ANY),
    Column("X", "corespec", "CORE_SPEC", _NA),
    Column("", "deadline", "DEADLINE", _time("deadline")),
    Column("", "network", "NETWORK", _NULL),
    Column("", "lastschedeval", "LAST_SCHED_EVAL", _evaluated),
    Column("", "cluster", "CLUSTER", fixed(names.CLUSTER)),
    Column("", "admin_comment", "ADMIN_COMMENT", _NULL),
    Column("", "system_comment", "SYSTEM_COMMENT", _NULL),
    Column("", "allocnodes", "ALLOC_NODES", fixed("localhost")),
    Column("", "allocsid", "ALLOC_SID", _ZERO),
    Column("", "associd", "ASSOC_ID", _ZERO),
    Column("", "boardspernode", "BOARDS_PER_NODE", _ZERO),
    Column("", "burstbuffer", "BURST_BUFFER", _NULL),
    Column("", "burstbufferstate", "BURST_BUFFER_STATE", _NULL),
    Column("", "clusterfeature", "CLUSTER_FEATURES", _NULL),
    Column("", "prefer", "PREFER", _NULL),
    Column("", "cpus-per-tres", "CPUS_PER_TRES", _NA),
    Column("", "mem-per-tres", "MEM_PER_TRES", _NA),
    Column("", "tres-bind", "TRES_BIND", _NA),
    Column("", "tres-freq", "TRES_FREQ", _NA),
    Column("", "tres-per-socket", "TRES_PER_SOCKET", _NA),
    Column("", "delayboot", "DELAY_BOOT", fixed("0:00")),
    Column("", "mcslabel", "MCSLABEL", _NULL),
    Column("", "ntpernode", "NTASKS_PER_NODE", key("ntasks_per_node")),
    Column("", "ntpercore", "NTASKS_PER_CORE", _NA),
    Column("", "ntpersocket", "NTASKS_PER_SOCKET", _NA),
    Column("", "ntperboard", "NTASKS_PER_BOARD", _ZERO),
    Column("", "sperboard", "SOCKETS_PER_BOARD", _ZERO),
    Column("", "origin", "ORIGIN", _NO_SITE),
    Column("", "originraw", "ORIGIN_RAW", _NO_SITE),
    Column("", "siblingsactive", "ACTIVE_SIBLINGS", _NO_SITE),
    Column("", "siblingsactiveraw", "ACTIVE_SIBLINGS_RAW", _NO_SITE),
    Column("", "siblingsviable", "VIABLE_SIBLINGS", _NO_SITE),
    Column("", "siblingsviableraw", "VIALBLE_SIBLINGS_RAW", _NO_SITE),  # sic
    Column("", "preempttime", "PREEMPT_TIME", _NA),
    Column("", "profile", "PROFILE", fixed("NotSet")),
    Column("", "reboot", "REBOOT", _ZERO),
    Column("", "reqswitch", "REQ_SWITCH", _ZERO),
    Column("", "wait4switch", "WAIT4SWITCH", fixed("0:00")),
    Column("", "resizetime", "RESIZE_TIME", _NA),
    Column("s", "selectjobinfo", "", fixed("")),
    Column("", "hetjobid packjobid", "HET_JOB_ID", _het("het_job_id")),
    Column("", "hetjoboffset packjoboffset", "HET_JOB_OFFSET", _het("het_offset")),
    Column("", "hetjobidset packjobidset", "HET_JOB_ID_SET",
           lambda v, c: words.het_set(v) if v.get("het_size") else "N/A"),
)

STEPS: tuple[Column, ...] = (
    Column("i", "stepid", "STEPID", lambda v, c: words.step_id(v),
           lambda v, c: words.step_order(v)),
    Column("j", "stepname", "NAME", key("name")),
    Column("P", "partition", "PARTITION", key("partition")),
    Column("u", "username", "USER", key("user")),
    Column("U", "userid", "UID", key("uid"), _number("uid")),
    Column("M", "timeused", "TIME", _used,
           lambda v, c: c.elapsed(v), duration=True),
    Column("l", "timelimit", "TIME_LIMIT", lambda v, c: values.format_time_short(v["time_limit"]),
           _or_0("time_limit"), duration=True),
    Column("S", "starttime", "START_TIME", _time("start_time"), _or_0("start_time")),
    Column("N", "nodelist nodes", "NODELIST", key("node")),
    Column("A", "numtasks", "TASKS", key("ntasks"), _number("ntasks")),
    Column("", "numcpus", "NUM_CPUS", key("cpus")),
    Column("", "stepstate", "STATE", key("state")),
    Column("", "container", "CONTAINER", _text("container")),
    Column("", "containerid", "CONTAINER_ID", _text("container_id")),
    Column("b", "tres-per-node gres", "TRES_PER_JOB", _NULL),  # sic
    Column("", "tres-per-step tres-per-job", "TRES_PER_STEP", _NULL),
    Column("", "tres-per-socket", "TRES_PER_SOCKET", _NULL),
    Column("", "tres-per-task", "TRES_PER_TASK", _NULL),
    Column("", "tres-bind", "TRES_BIND", _NULL),
    Column("", "tres-freq", "TRES_FREQ", _NULL),
    Column("", "cpus-per-tres", "CPUS_PER_TRES", _NULL),
    Column("", "mem-per-tres", "MEM_PER_TRES", _NULL),
    Column("", "cluster", "CLUSTER", fixed(names.CLUSTER)),
    Column("", "cpufreq", "CPU_FREQ", lambda v, c:
           "0-0:0" if words.is_named_step(v) else "Unknown-Unknown:Unknown"),
    Column("", "resvports", "RESERVED_PORTS", _NULL),
    Column("", "jobid", "JOB_ID", key("job_id")),
    Column("", "arrayjobid", "ARRAY_JOB_ID", _ZERO),
    Column("", "arraytaskid", "ARRAY_TASK_ID", _NA),
    Column("", "network", "NETWORK", _NULL),
)
# fmt: on

# The keys of a view that columns read, by their letters: a listing of these alone is asked for with
# no more than that, as are the jobs that --sort and the filters look at.
_ID: Final = "job_id array_job_id array_task_id array_throttle het_job_id het_offset state reason"
READS: Final[dict[str, str]] = {
    "i": _ID, "A": "job_id", "F": "job_id array_job_id", "j": "name", "P": "partition", "u": "user",
    "U": "uid", "t": "state", "T": "state", "r": "reason", "R": "state reason node", "N": "node",
    "B": "batch_host node", "D": "nodes", "C": "cpus", "Q": "priority", "p": "priority",
    "y": "nice", "a": "account", "q": "qos", "V": "submit_time", "l": "time_limit",
    "M": "state start_time end_time suspended", "S": "state start_time end_time", "e": "end_time",
    "L": "state start_time end_time suspended time_limit",
}  # fmt: skip
