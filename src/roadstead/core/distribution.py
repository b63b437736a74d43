"""--distribution: which task of a step is on which of its nodes (srun(1)).

How many tasks a node has is decided before (placement.py, seats.py), except with "arbitrary", where
a list of hosts says it.  The second and third part of the word (sockets, cores) are about sockets
and cores, which are not told apart here; they are kept, as SLURM_DISTRIBUTION shows them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from roadstead.core import hostlist, values
from roadstead.core.model import Launch, Share
from roadstead.errors import RequestError, UsageError

_NODES = ("block", "cyclic", "arbitrary", "*")
_BELOW = ("block", "cyclic", "fcyclic", "*")
_LONGEST_HOST_FILE = 1 << 20


def parse(value: str) -> tuple[str, int]:
    """What --distribution was given and the plane size, 0 for none.  Raises UsageError."""
    whole = value.lower()
    word, _, packed = whole.partition(",")
    if packed not in ("", "pack", "nopack"):
        raise _invalid()
    first, *below = word.split(":")
    if first.startswith("plane"):
        size = first.partition("=")[2]
        if not size.isdecimal() or not int(size):
            raise UsageError("Invalid plane size or size not specified", hint="-m plane=4")
        if below:
            raise _invalid()
        return "plane", int(size)
    if first not in _NODES or len(below) > 2 or not all(each in _BELOW for each in below):
        raise _invalid()
    return whole, 0


def _invalid() -> UsageError:
    return UsageError(
        "Invalid --distribution specification",
        hint="one of: block, cyclic, plane=SIZE, arbitrary; then :block, :cyclic or :fcyclic",
    )


def resolve(message: Mapping[str, object], options: Mapping[str, str]) -> dict[str, str]:
    """The options with what "arbitrary" makes of them: the node of each task is in ``nodelist``, by
    --nodelist or by the file that SLURM_HOSTFILE names, which came with the message.

    Raises RequestError.
    """
    if not options.get("distribution", "").lower().startswith("arbitrary"):
        return dict(options)
    text = message.get("hosts")
    if isinstance(text, str) and len(text) <= _LONGEST_HOST_FILE:
        lines = [line.partition("#")[0].strip() for line in text.splitlines()]
        found = [name for line in lines if line for name in hostlist.expand(line)]
    else:
        found = hostlist.expand(options.get("nodelist", ""))
    if not found:
        raise RequestError(
            "With Arbitrary distribution you need to specify a nodelist or hostfile with the -w "
            "option",
            hint="export SLURM_HOSTFILE=FILE, with a line for each task",
        )
    ntasks = values.count(options["ntasks"], "--ntasks") if "ntasks" in options else len(found)
    if len(found) < ntasks:
        raise RequestError(
            f"{len(found)} hosts are named for {ntasks} tasks", hint="add a line for each task"
        )
    found = found[:ntasks]
    return {
        **options,
        "ntasks": str(ntasks),
        "nodes": str(len(set(found))),
        "nodelist": ",".join(found),
    }


def arranged(shares: Sequence[Share], launch: Launch) -> tuple[Share, ...]:
    """The shares with the numbers of tasks that a list of hosts says."""
    if not launch.hosts:
        return tuple(shares)
    listed = [replace(each, ntasks=launch.hosts.count(each.node)) for each in shares]
    return tuple([each for each in listed if each.ntasks])


def nodes_of_tasks(shares: Sequence[Share], launch: Launch) -> list[int]:
    """The number of the node of each task, in the order of the tasks."""
    if launch.hosts:
        number = {share.node: index for index, share in enumerate(shares)}
        return [number[name] for name in launch.hosts]
    left = [share.ntasks for share in shares]
    kind = launch.distribution.partition(":")[0].partition(",")[0]
    width = {"cyclic": 1, "plane": launch.plane}.get(kind, 0) or max(left, default=1) or 1
    order: list[int] = []
    while any(left):
        for node, count in enumerate(left):
            taken = min(width, count)
            order += [node] * taken
            left[node] -= taken
    return order
