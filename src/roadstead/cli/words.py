"""What the controller says of jobs, steps and nodes, in Slurm's words: values into short texts.

Shared by the tables (squeue, sinfo) and the records (scontrol show).  Nothing here decides or asks;
a ``Clock`` carries what the texts depend on besides the value: the time now, SLURM_TIME_FORMAT,
and whether amounts of memory may change their unit.
"""

from __future__ import annotations

import time

from roadstead.core import hostlist, values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any, Final, TypeAlias

    View: TypeAlias = dict[str, Any]
    Ask: TypeAlias = Callable[[View], View]  # one request to the controller, its answer

NULL: Final = "(null)"

# Job states and the letters for them, as squeue(1) lists them.
STATES: Final[dict[str, str]] = {
    "PENDING": "PD",
    "RUNNING": "R",
    "SUSPENDED": "S",
    "COMPLETED": "CD",
    "CANCELLED": "CA",
    "FAILED": "F",
    "TIMEOUT": "TO",
    "NODE_FAIL": "NF",
    "PREEMPTED": "PR",
    "BOOT_FAIL": "BF",
    "DEADLINE": "DL",
    "OUT_OF_MEMORY": "OOM",
    "COMPLETING": "CG",
    "CONFIGURING": "CF",
    "RESIZING": "RS",
    "RESV_DEL_HOLD": "RD",
    "REQUEUED": "RQ",
    "REQUEUE_FED": "RF",
    "REQUEUE_HOLD": "RH",
    "REVOKED": "RV",
    "SIGNALING": "SI",
    "SPECIAL_EXIT": "SE",
    "STAGE_OUT": "SO",
    "STOPPED": "ST",
}
FINISHED: Final = (
    *("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED"),
    *("BOOT_FAIL", "DEADLINE", "OUT_OF_MEMORY", "REVOKED"),
)

# The steps that have a name for a number (core/model.py has them for the controller's side).
_NAMED_STEPS: Final[dict[int, str]] = {
    0xFFFFFFFB: "batch",
    0xFFFFFFFA: "interactive",
    0xFFFFFFFC: "extern",
}
STEP_NAMES: Final = tuple(_NAMED_STEPS.values())

_DAY: Final = 86400
_UNITS: Final = "MGTPE"


class Clock:
    """What a text depends on besides the value."""

    __slots__ = ("convert", "now", "style")

    def __init__(self, now: float, style: str = "", *, convert: bool = True) -> None:
        self.now, self.style, self.convert = now, style, convert

    def moment(self, seconds: float | None, missing: str) -> str:
        """A point in time as SLURM_TIME_FORMAT wants it: standard, relative, or for strftime(3)."""
        if seconds is None:
            return missing
        there = time.localtime(seconds)
        if self.style in ("", "standard"):
            return time.strftime("%Y-%m-%dT%H:%M:%S", there)
        if self.style == "relative":
            return self._relative(there)
        return time.strftime(self.style, there)

    def _relative(self, there: time.struct_time) -> str:
        here = time.localtime(self.now)
        days = round((_noon(there) - _noon(here)) / _DAY)
        if days == 0:
            return time.strftime("%H:%M:%S", there)
        if abs(days) == 1:
            return ("Tomorr" if days > 0 else "Ystday") + time.strftime(" %H:%M", there)
        if abs(days) < 7:
            return time.strftime("%a %H:%M", there)
        year = "%Y" if there.tm_year != here.tm_year else "%H:%M"
        return f"{there.tm_mday} {time.strftime(f'%b {year}', there)}"

    def date(self) -> str:
        """The time now, as the first line of a long listing has it."""
        return time.strftime("%a %b %d %H:%M:%S %Y", time.localtime(self.now))

    def elapsed(self, view: View) -> int:
        """How long a job or step has run, or ran: the difference of the times that are shown."""
        if view["start_time"] is None:
            return 0
        end = view["end_time"] if view["state"] in FINISHED else self.now
        return max(int(end) - int(view["start_time"]) - int(view.get("suspended", 0)), 0)

    def left(self, view: View) -> str:
        """The time that a job has left."""
        if view["time_limit"] is None:
            return "UNLIMITED"
        left = view["time_limit"] - self.elapsed(view)
        return values.format_time_short(left) if left >= 0 else "INVALID"

    def memory(self, mebibytes: int) -> str:
        """An amount of memory in the largest unit that shows it to a half: 100M, 1.50G, 2G."""
        amount, unit = float(mebibytes), 0
        while self.convert and amount >= 1024 and int(amount) % 512 == 0 and unit < len(_UNITS) - 1:
            amount, unit = amount / 1024, unit + 1
        if not amount:
            return "0"
        number = f"{amount:.0f}" if amount == int(amount) else f"{amount:.2f}"
        return number + _UNITS[unit]


def _noon(day: time.struct_time) -> float:
    return time.mktime((day.tm_year, day.tm_mon, day.tm_mday, 12, 0, 0, 0, 0, -1))


def or_null(text: str | None) -> str:
    return text or NULL


def job_id(view: View) -> str:
    """``9``, an element's ``7_2``, or ``7_[0-3%2]`` for those that wait, in one line; ``7+1`` is a
    component of a heterogeneous job."""
    if view.get("het_job_id") is not None:
        return f"{view['het_job_id']}+{view['het_offset']}"
    if view["array_job_id"] is None:
        return str(view["job_id"])
    tasks = view.get("array_tasks")
    return f"{view['array_job_id']}_{view['array_task_id'] if tasks is None else f'[{tasks}]'}"


def het_set(view: View) -> str:
    """The numbers of all components of a heterogeneous job."""
    first = view["het_job_id"]
    return f"{first}-{first + view['het_size'] - 1}"


def step_id(view: View) -> str:
    """``7.0``, or ``7.batch``."""
    number = view["step_id"]
    return f"{view['job_id']}.{_NAMED_STEPS.get(number, number)}"


def step_number(text: str) -> int | None:
    """The number of ``0`` or ``batch``; None for what is no step."""
    for number, name in _NAMED_STEPS.items():
        if text == name:
            return number
    return int(text) if text.isascii() and text.isdigit() and len(text) < 11 else None


def is_named_step(view: View) -> bool:
    """Whether a step is a batch script's or an allocation's own, and not one of srun's."""
    return view["step_id"] in _NAMED_STEPS


def step_order(view: View) -> tuple[int, int]:
    """What puts steps into the order of their numbers, those without one last."""
    return view["job_id"], view["step_id"]


def start_time(view: View) -> float | None:
    """When a job started; one that ended before it could start did both at once."""
    ended = view["state"] in FINISHED and view["start_time"] is None
    moment: float | None = view["end_time" if ended else "start_time"]
    return moment


def state_letters(view: View) -> str:
    """The one to three letters of a job's state."""
    return STATES.get(view["state"], str(view["state"]))


def exit_code(view: View) -> str:
    """``code:signal``; a program that a signal ended has no code of its own."""
    return f"0:{view['exit_signal']}" if view["exit_signal"] else f"{view['exit_code']}:0"


def wait_status(view: View) -> int:
    """How a job ended, as wait(2) tells it: the code in the second byte, or the signal."""
    return int(view["exit_signal"] or view["exit_code"] << 8)


def least_cpus(view: View) -> int:
    """CPUs that each of a job's nodes has to have."""
    return int(max(view["cpus_per_task"], view["min_cpus"]))


def node_or_reason(view: View) -> str:
    """Where a job is, or why it is not there: (Resources), (TimeLimit), (NonZeroExitCode)."""
    if view["state"] in ("PENDING", "TIMEOUT", "OUT_OF_MEMORY", "DEADLINE", "FAILED"):
        return f"({reason(view)})"
    return str(view["node"])


def reason(view: View) -> str:
    return str(view["reason"] or "None")


def tres(view: View, clock: Clock) -> str:
    """What a job has or asks for, as trackable resources."""
    amount = view["memory"] * view["nodes"] or view["memory_per_cpu"] * view["cpus"]
    memory = f",mem={clock.memory(amount)}" if amount else ""
    gres = "".join(f",gres/{each}" for each in counted(view["gres"], view["nodes"]))
    return f"cpu={view['cpus']}{memory},node={view['nodes']},billing={view['cpus']}{gres}"


def counted(gres: str, nodes: int) -> list[str]:
    """``gpu:a100:2`` of each node as ``gpu:a100=4`` of two."""
    found = []
    for each in gres.split(",") if gres else ():
        name, _, count = each.rpartition(":")
        found.append(f"{name}={int(count) * nodes}")
    return found


def together(jobs: list[View], alone: Collection[str] = ()) -> list[View]:
    """The elements of an array that wait for the same reason as one, as Slurm lists them; those of
    these names by themselves."""
    if not [1 for view in jobs if view["array_job_id"] is not None]:
        return jobs
    shown: list[View] = []
    groups: dict[tuple[int, str], list[int]] = {}
    for view in jobs:
        lone = view["array_job_id"] is None or view["state"] != "PENDING"
        if lone or (alone and job_id(view) in alone):
            shown.append(view)
            continue
        held = view["reason"] if view["reason"].startswith("JobHeld") else ""
        tasks = groups.setdefault((view["array_job_id"], held), [])
        if not tasks:
            shown.append(view | {"tasks": tasks})
        tasks.append(view["array_task_id"])
    for view in shown:
        if tasks := view.pop("tasks", None):
            text = hostlist.fold([str(number) for number in sorted(tasks)]).strip("[]")
            throttle = f"%{view['array_throttle']}" if view["array_throttle"] else ""
            view["array_tasks"] = text + throttle
    return shown


def natural(name: str) -> tuple[str, int]:
    """What puts n2 before n10."""
    stem = name.rstrip("0123456789")
    return stem, int(name[len(stem) :][:18] or "0")
