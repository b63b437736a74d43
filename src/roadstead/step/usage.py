"""What the tasks of a running step use now: their processes, CPU time and memory (sstat, listpids).

It is read from /proc when somebody asks, and never otherwise.  CPU time is that of the processes
that are there and of children that they have waited for; the memory of a task is what its processes
have together now, which is not the most that it ever had.
"""

from __future__ import annotations

from roadstead.host import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from roadstead.step.task import Task


def measure(tasks: Iterable[Task], node: str) -> list[dict[str, object]]:
    """Each task that runs: its numbers, its processes (the first one first) and what they use."""
    found: list[dict[str, object]] = []
    for task in tasks:
        if not task.running:
            continue
        pids = task.processes()
        found.append(
            {
                "procid": task.spec.procid,
                "localid": task.spec.localid,
                "node": task.spec.node or node,
                "pids": pids,
                "cpu_seconds": sum(process.cpu_seconds(pid) for pid in pids),
                "rss": sum(process.resident(pid) for pid in pids),
                "virtual": sum(process.virtual(pid) for pid in pids),
            }
        )
    return found
