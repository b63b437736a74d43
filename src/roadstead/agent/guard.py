"""A process beside a task's agent that outlives it: if the agent is killed, it ends and removes
what that leaves.  If all of us are killed, as Slurm does at the end of a step, there is nothing
left to remove (plan.py, enclosed).

It is also a *witness*.  Slurm signals every process of a step, the container's among them; somebody
else may signal the agent alone, and means the program.  The guard gets what everybody gets, so a
signal that it has not seen was for the agent, which then passes it on; one that it has seen has
reached the container already, and must not come twice.

It holds no descriptor of the task's: slurmstepd waits until they are closed.
"""

from __future__ import annotations

import os
from typing import Final

from roadstead.host import fork, linux, process, watching
from roadstead.step import sweep

NAME: Final = "roadstead-guard"
_END_MILLISECONDS: Final = 10_000


class Guard:
    """The agent's side of it."""

    def __init__(self, directory: str, signals: list[int]) -> None:
        """Start it, for the step whose ``directory`` this is, as a witness of ``signals``."""
        # Those of our children that are yet to become a program hold the pipe as well: it hangs up
        # when no more can come.
        life, self._life = os.pipe2(os.O_CLOEXEC)
        self.seen, told = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        agent = os.getpid()
        pid = fork.run_in_child(lambda: _guard(directory, agent, life, told, signals), session=True)
        os.close(life)
        os.close(told)
        self.process = process.adopt(pid)

    def has_pending(self, signo: int) -> bool:
        """Whether a signal has reached the guard, which has not been on a CPU since."""
        return watching.is_pending(self.process.pid, signo)

    def close(self) -> None:
        """End it."""
        self.process.signal(process.KILL)
        self.process.reap()
        os.close(self._life)
        os.close(self.seen)


def _guard(directory: str, agent: int, life: int, told: int, signals: list[int]) -> None:
    linux.set_process_name(NAME)
    watching.keep_only(life, told)
    watching.witness(signals, told)
    while os.read(life, 1):
        pass
    # A process that ends has closed its files a moment before it is gone, and nobody sweeps while
    # the agent is there.
    process.ends_within(agent, _END_MILLISECONDS)
    sweep.sweep(directory)
