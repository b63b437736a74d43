"""--cpu-bind: the CPUs of each task, its variables and its report (srun(1), task/affinity).

What is not said binds nobody: a task may use all CPUs that its step has on its node.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

from roadstead.core.model import Binding, BindKind
from roadstead.errors import RequestError

# Sockets, cores and threads are not told apart, and a node has one bank of memory.
_AUTO: Final = ("sockets", "cores", "threads")
_WHOLE: Final = ("ldoms", "rank_ldom", "boards")
_LISTS: Final = ("map_cpu", "mask_cpu")
_REPORTED: Final = {"rank": "RANK", "map_cpu": "MAP ", "mask_cpu": "MASK", "auto": "MASK"}

HELP: Final = """\
CPU bind options:
    --cpu-bind=         Bind tasks to CPUs
        q[uiet]         quietly bind before task runs (default)
        v[erbose]       verbosely report binding before task runs
        no[ne]          don't bind tasks to CPUs (default)
        rank            bind by task rank
        map_cpu:<list>  specify a CPU ID binding for each task
                        where <list> is <cpuid1>,<cpuid2>,...<cpuidN>
        mask_cpu:<list> specify a CPU ID binding mask for each task
                        where <list> is <mask1>,<mask2>,...<maskN>
        sockets         auto-generated masks bind to sockets
        cores           auto-generated masks bind to cores
        threads         auto-generated masks bind to threads
        ldoms           all CPUs of the node: it is one locality domain
        help            show this help message"""


def parse(value: str) -> Binding:
    """What --cpu-bind was given.  Raises RequestError."""
    kind: BindKind = ""
    values: list[str] = []
    verbose = False
    words = value.split(",")
    for number, word in enumerate(words):
        name, colon, first = word.partition(":")
        lower = name.lower()
        if lower in _LISTS:
            kind = cast("BindKind", lower)
            values = [each for each in [first, *words[number + 1 :]] if each]
            if not colon or not values or not all(_is_number(kind, each) for each in values):
                raise RequestError(
                    f'unrecognized --cpu-bind argument "{",".join(words[number:])}"',
                    hint=f"{lower}: takes a list of {_WHAT[lower]}, one for each task of a node",
                )
            break
        if lower in ("q", "quiet"):
            verbose = False
        elif lower in ("v", "verbose"):
            verbose = True
        elif lower in ("no", "none"):
            kind = "none"
        elif lower == "rank":
            kind = "rank"
        elif lower in _AUTO:
            kind = "auto"
        elif lower in _WHOLE:
            kind = "none"
        elif lower in ("map_ldom", "mask_ldom"):
            raise RequestError(
                f"--cpu-bind={lower}: a node has one locality domain", hint="use map_cpu or none"
            )
        else:
            raise RequestError(
                f'unrecognized --cpu-bind argument "{word}"', hint="--cpu-bind=help lists them"
            )
    return Binding(kind=kind, values=tuple(values), verbose=verbose)


_WHAT: Final = {"map_cpu": "CPUs", "mask_cpu": "masks"}


def _is_number(kind: str, text: str) -> bool:
    number, star, times = text.partition("*")
    if star and not times.isdecimal():
        return False
    if kind == "map_cpu":
        return number.isdecimal()
    digits = number.lower().removeprefix("0x")
    return bool(digits) and all(char in "0123456789abcdef" for char in digits)


def cpus(binding: Binding, share: Sequence[int], localid: int, ntasks: int) -> tuple[int, ...]:
    """The CPUs of the task that is ``localid`` of ``ntasks`` on a node with the CPUs ``share``.

    The numbers of map_cpu and mask_cpu are the machine's, as Slurm's are the node's.  Raises
    RequestError where the step does not have such a CPU.
    """
    own = sorted(set(share))
    if not own or binding.kind in ("", "none"):
        return tuple(own)
    if binding.kind == "rank":
        return (own[localid % len(own)],)
    if binding.kind == "auto":
        each = max(1, len(own) // ntasks)
        first = localid * each % len(own)
        return tuple(own[first : first + each])
    values = _repeated(binding.values)
    value = values[localid % len(values)]
    if binding.kind == "map_cpu":
        wanted = {int(value)}
    else:
        mask = int(value, 16)
        wanted = {bit for bit in range(mask.bit_length()) if mask >> bit & 1}
    found = [cpu for cpu in own if cpu in wanted]
    if not found:
        raise RequestError(
            "Unable to satisfy cpu bind request",
            hint=f"the step has the CPUs {','.join(map(str, own))}",
        )
    return tuple(found)


def _repeated(values: Sequence[str]) -> list[str]:
    """0x3*2 stands for 0x3,0x3."""
    found: list[str] = []
    for value in values:
        number, _, times = value.partition("*")
        found += [number] * int(times or 1)
    return found


def mask(numbers: Sequence[int]) -> str:
    """A set of CPUs as Slurm writes it: 0x5."""
    return hex(sum([1 << cpu for cpu in numbers]))


def environment(binding: Binding, masks: Sequence[str]) -> dict[str, str]:
    """The variables of a step that was given --cpu-bind; ``masks`` are of its node's tasks."""
    if not binding.kind and not binding.verbose:
        return {}
    said = "verbose" if binding.verbose else "quiet"
    kind: str = binding.kind or "none"
    values = list(binding.values)
    if kind == "auto":
        kind, values = "mask_cpu", list(masks)
    if kind in _LISTS:
        kind += ":"
    listed = ",".join(values)
    return {
        "SLURM_CPU_BIND": f"{said},{kind}{listed}",
        "SLURM_CPU_BIND_LIST": listed,
        "SLURM_CPU_BIND_TYPE": kind,
        "SLURM_CPU_BIND_VERBOSE": said,
    }


def report(
    binding: Binding, node: str, procid: int, localid: int, pid: int, numbers: Sequence[int]
) -> str:
    """The line that slurmstepd prints for a task with verbose."""
    where = f"{node}, task {procid:2} {localid:2} [{pid}]"
    if binding.kind in ("", "none"):
        return f"cpu-bind=NONE - {where}: mask 0x0"
    return f"cpu-bind={_REPORTED[binding.kind]} - {where}: mask {mask(numbers)} set"
