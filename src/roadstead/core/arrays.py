"""Job arrays: ``--array=0-15:4%2`` is one script, submitted once for each of some numbers.

Each element is a job of its own, with a number of its own; the array has that of its first one.
``%2`` lets so many elements be in the queue or run at a time; the others wait beside the queue, in
their order, and whoever leaves makes room for the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from roadstead.core import hostlist, values
from roadstead.core.model import ArrayTask
from roadstead.errors import RequestError, RoadsteadError

MAX_SIZE: Final = 1001  # slurm.conf(5), MaxArraySize: a number is less than this


@dataclass(frozen=True, slots=True)
class Numbers:
    """What ``--array`` says: the elements' numbers, their distance, and how many may be out at a
    time (0: any number)."""

    ids: tuple[int, ...]
    step: int
    throttle: int


def parse(text: str) -> Numbers:
    """Read ``1,3,5-7:2%4``.  Raises RequestError in Slurm's words."""
    listed, percent, limit = text.partition("%")
    found: dict[int, None] = {}
    step = 1
    for word in listed.removeprefix("[").removesuffix("]").split(","):
        span, colon, by = word.partition(":")
        low, dash, high = span.partition("-")
        numbers = [low, high if dash else low, by if colon else "1"]
        if not all(map(values.is_number, numbers)) or (colon and not dash):
            raise _invalid()
        first, last, each = map(int, numbers)
        if last < first or not each or last >= MAX_SIZE:
            raise _invalid()
        step = each if colon else step
        found |= dict.fromkeys(range(first, last + 1, each))
    if percent and (not values.is_number(limit) or not int(limit)):
        raise _invalid()
    return Numbers(tuple(sorted(found)), step, int(limit) if percent else 0)


def _invalid() -> RequestError:
    return RequestError(
        "Batch job submission failed: Invalid job array specification",
        hint=f"write numbers below {MAX_SIZE}, as in 0-15, 1,3,5-7 or 0-15:4%2",
    )


@dataclass(slots=True)
class Array:
    """The elements of an array that have not ended: which job each is, who is out (in the queue, or
    started), and who waits beside the queue."""

    throttle: int
    live: dict[int, int] = field(default_factory=dict)
    out: set[int] = field(default_factory=set)
    parked: list[int] = field(default_factory=list)
    # What letters about it say (mail.py), as far as this controller has seen.
    told_begin: bool = False
    codes: tuple[int, int] | None = None
    failed: str = ""

    @property
    def has_room(self) -> bool:
        return not self.throttle or len(self.out) < self.throttle


def name(job_id: int, task: ArrayTask | None) -> str:
    """What people call a job: ``9``, or ``7_2`` for an element."""
    return str(job_id) if task is None else f"{task.job_id}_{task.task_id}"


def members(text: str, arrays: Mapping[int, Array]) -> list[int] | None:
    """The jobs that ``7``, ``7_3`` or ``7_[1-3,5]`` mean; None where it is no such name.

    The number of an array means all of it; one of an element that has ended, nobody.
    """
    number, underscore, index = text.partition("_")
    if not values.is_number(number):
        return None
    job_id = int(number)
    array = arrays.get(job_id)
    if not underscore:
        return [job_id] if array is None else list(array.live.values())
    found = indexes(index)
    if found is None:
        return None
    return [] if array is None else [array.live[i] for i in found if i in array.live]


def indexes(text: str) -> list[int] | None:
    """The numbers of ``3`` or ``[1-3,5]``; None where it is neither."""
    try:
        words = hostlist.expand(f"x{text}")
    except RoadsteadError:
        return None
    digits = [word[1:] for word in words]
    return [int(each) for each in digits] if all(map(values.is_number, digits)) else None


def environment(task: ArrayTask | None) -> dict[str, str]:
    """The variables of an element (sbatch(1))."""
    if task is None:
        return {}
    return {
        "SLURM_ARRAY_JOB_ID": str(task.job_id),
        "SLURM_ARRAY_TASK_COUNT": str(task.count),
        "SLURM_ARRAY_TASK_ID": str(task.task_id),
        "SLURM_ARRAY_TASK_MAX": str(task.highest),
        "SLURM_ARRAY_TASK_MIN": str(task.lowest),
        "SLURM_ARRAY_TASK_STEP": str(task.step),
    }


def tasks(job_id: int, wanted: Numbers) -> Iterable[ArrayTask]:
    """The elements of an array whose first job is ``job_id``."""
    for number in wanted.ids:
        yield ArrayTask(
            job_id=job_id,
            task_id=number,
            count=len(wanted.ids),
            lowest=wanted.ids[0],
            highest=wanted.ids[-1],
            step=wanted.step,
            throttle=wanted.throttle,
        )
