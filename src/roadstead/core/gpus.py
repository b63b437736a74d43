"""--gpu-bind: which of its node's GPUs each task sees, and GPUs as a measure of other things.

GPUs are counted here from 0 among those that the step has on the node, whatever their numbers are
(srun(1): relative to those allocated).  With --gpus-per-task each task has its own, in turn, as
from Slurm 21.08 on.  How close a GPU is to a CPU is not known, so all are closest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from roadstead.core import values
from roadstead.core.model import GpuBinding
from roadstead.errors import RequestError

_LISTS: Final = ("map_gpu", "mask_gpu")
_KINDS: Final = "closest, none, single:TASKS, per_task:GPUS, map_gpu:LIST, mask_gpu:LIST"


def binding(options: Mapping[str, str]) -> GpuBinding:
    """What --gpu-bind says, or --gpus-per-task.  Raises RequestError."""
    text = options.get("gpu-bind", "")
    if not text:
        number = options.get("gpus-per-task", "").rpartition(":")[2]
        return GpuBinding(kind="per_task", values=(number,)) if number.isdecimal() else GpuBinding()
    words = [word for word in text.split(",") if word.lower() not in ("v", "verbose")]
    name, colon, first = words[0].partition(":") if words else ("", "", "")
    kind = name.lower()
    found = [each for each in (first, *words[1:]) if each]
    if kind in ("closest", "none") and not colon and len(words) == 1:
        return GpuBinding()
    if kind in ("single", "per_task") and len(found) == 1 and values.is_number(first):
        return GpuBinding(kind=kind, values=(str(max(1, int(first))),))
    if kind in _LISTS and found and all(_is_id(kind, each) for each in found):
        return GpuBinding(kind=kind, values=tuple(_repeated(found)))
    raise RequestError(f"Invalid --gpu-bind argument: {text}", hint=f"one of: {_KINDS}")


def _is_id(kind: str, text: str) -> bool:
    number, star, times = text.partition("*")
    if star and not values.is_number(times):
        return False
    if kind == "map_gpu":
        return values.is_number(number)
    digits = number.lower().removeprefix("0x")
    return bool(digits) and all(char in "0123456789abcdef" for char in digits)


def _repeated(found: list[str]) -> list[str]:
    """``0*2,1`` is 0, 0 and 1."""
    listed: list[str] = []
    for each in found:
        number, _, times = each.partition("*")
        listed += [number] * min(int(times or "1"), _MOST)
    return listed


_MOST: Final = 4096


def of_task(bound: GpuBinding, count: int, localid: int) -> tuple[int, ...] | None:
    """Which of the ``count`` GPUs of its node a task sees; None for all of them.

    Raises RequestError for a list that names none of them.
    """
    if not bound.kind or not count:
        return None
    value = bound.values[localid % len(bound.values)]
    if bound.kind == "single":
        return (localid // int(value) % count,)
    if bound.kind == "per_task":
        number = min(int(value), count)
        return tuple(sorted((localid * number + each) % count for each in range(number)))
    if bound.kind == "map_gpu":
        wanted = {int(value)}
    else:
        mask = int(value, 16)
        wanted = {bit for bit in range(mask.bit_length()) if mask >> bit & 1}
    found = tuple(number for number in range(count) if number in wanted)
    if not found:
        raise RequestError(
            f"--gpu-bind={bound.kind}:{value}: the step has no such GPU",
            hint=f"it has {count} on the node, from 0 on",
        )
    return found


# -- GPUs as a measure -----------------------------------------------------------------------------


def spread(options: Mapping[str, str], nodes: int) -> dict[str, str]:
    """The options with what --ntasks-per-gpu, --cpus-per-gpu and --mem-per-gpu come to, on so many
    nodes where none are named.  Raises RequestError."""
    asked = [name for name in _MEASURED if name in options]
    found = dict(options)
    if not asked:
        return found
    for name in asked:
        rivals = [each for each in _MEASURED[name] if each in options]
        if rivals:
            raise RequestError(
                f"--{name} and --{rivals[0]} are mutually exclusive", hint="leave one out"
            )
    if "nodes" in options:
        nodes = values.node_count(options["nodes"])[0] or 1
    per_task = values.count(options.get("ntasks-per-tres", "1"), "--ntasks-per-gpu")
    if "ntasks-per-tres" in options and "ntasks" in options and not _count(options, nodes):
        found["gpus"] = str(-(-values.count(options["ntasks"], "--ntasks") // per_task))
    total = _count(found, nodes)
    if not total:
        raise RequestError(f"--{asked[0]}: no GPUs are asked for", hint="add --gpus=NUMBER")
    if "ntasks-per-tres" in options and "ntasks" not in options:
        found["ntasks"] = str(total * per_task)
    ntasks = values.count(found.get("ntasks", str(nodes)), "--ntasks")
    if "cpus-per-gpu" in options:
        cpus = total * values.count(options["cpus-per-gpu"], "--cpus-per-gpu")
        found["cpus-per-task"] = str(-(-cpus // ntasks))
    if "mem-per-gpu" in options:
        memory = values.memory(options["mem-per-gpu"], "--mem-per-gpu")
        found["mem"] = str(memory * -(-total // nodes))
    return found


# option → what says the same in another way
_MEASURED: Final[dict[str, tuple[str, ...]]] = {
    "ntasks-per-tres": ("ntasks-per-node",),
    "cpus-per-gpu": ("cpus-per-task",),
    "mem-per-gpu": ("mem", "mem-per-cpu"),
}


def _count(options: Mapping[str, str], nodes: int) -> int:
    """How many GPUs a job asks for."""
    if options.get("gpus"):
        return _sum(options["gpus"])
    if options.get("gpus-per-node"):
        return _sum(options["gpus-per-node"]) * nodes
    if options.get("gpus-per-task"):
        tasks = values.count(options.get("ntasks", str(nodes)), "--ntasks")
        return _sum(options["gpus-per-task"]) * tasks
    words = [word.removeprefix("gres:") for word in options.get("gres", "").split(",")]
    return sum(_sum(word) for word in words if word.partition(":")[0] == "gpu") * nodes


def _sum(text: str) -> int:
    numbers = [word.rpartition(":")[2] for word in text.split(",")]
    return sum(int(number) if values.is_number(number) else 1 for number in numbers)
