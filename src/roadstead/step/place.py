"""What a supervisor's process has of its own, so that it can be as it was for its next step.

What a step changes in its supervisor is known: the CPUs, the umask, the working directory,
descriptors, and sometimes the namespaces.  The first three are set back.  There is no way back from
a namespace; a descriptor that is still open, or a child that is still there, is a fault of ours
somewhere, or a controller that the step has started: no step may inherit it.  Then the process
ends, which closes everything, and the spawner forks another one.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

from roadstead.host import namespaces, paths, process

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """A process as it was before its first step."""

    cpus: frozenset[int]
    umask: int
    descriptors: frozenset[int]
    namespaces: tuple[str, ...]

    @classmethod
    def of_this_process(cls) -> Place:
        return cls(
            frozenset(os.sched_getaffinity(0)), paths.umask(), process.descriptors(), _namespaces()
        )

    def restored(self) -> bool:
        """Make the process what it was; False where it cannot be."""
        left = process.descriptors() - self.descriptors - namespaces.held()
        children = process.children(os.getpid())
        if left or children:
            log.info("supervisor not used again descriptors=%s children=%s", left, children)
            return False
        if _namespaces() != self.namespaces:
            return False
        try:
            os.sched_setaffinity(0, self.cpus)
        except OSError:  # the machine, or our cpuset, has other CPUs now
            return False
        os.umask(self.umask)
        os.chdir("/")
        return True


def _namespaces() -> tuple[str, ...]:
    return tuple(process.namespace("self", kind) for kind in ("user", "mnt", "pid", "net"))
