"""A process beside a task's agent that outlives it: if the agent is killed, it ends and removes
what that leaves.  If all of us are killed, as Slurm does at the end of a step, there is nothing
left to remove (plan.py, enclosed).

It is also a *witness*.  Slurm signals every process of a step, the container's among them; somebody
else may signal the agent alone, and means the program.  The guard gets what everybody gets, so a
signal that it has not seen was for the agent, which then passes it on; one that it has seen has
reached the container already, and must not come twice.

It is there for every task and has to do something for next to none.  So it is a shell that waits,
with all those signals blocked: what has come to it stays pending, for the agent to read, and at the
end of the agent, when its pipe hangs up, it executes the agent's ``guard``.  A fork of the agent's
interpreter would cost 3 ms of CPU time, copies of pages for the most part; the shell costs 0.6.

It holds no descriptor of the task's: slurmstepd waits until they are closed.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Final

from roadstead.host import process, watching

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME: Final = "roadstead-guard"
_END_MILLISECONDS: Final = 10_000
# Its name is for ps, and for who ends it by name; "read" returns when the pipe hangs up.
_SHELL: Final = f'echo {NAME} >/proc/self/comm; read -r nothing; exec "$@"'
# Who signals us both does it one after the other.
_LATE_SECONDS: Final = 0.2


class Guard:
    """The agent's side of it."""

    def __init__(
        self, directory: str, signals: list[int], environ: Mapping[str, str] = os.environ
    ) -> None:
        """Start it, for the step whose ``directory`` this is, as a witness of ``signals``."""
        own = own_command("guard")
        self._argv = [NAME, "-c", _SHELL, NAME, *own, directory, str(os.getpid())]
        self._signals = signals
        self._environ = dict(environ)
        # Those of our children that are yet to become a program hold the pipe as well: it hangs up
        # when no more can come.
        self._read, self._life = os.pipe2(os.O_CLOEXEC)
        self._recent: frozenset[int] = frozenset()
        self._recent_until = 0.0
        self.process = self._started()

    def _started(self) -> process.Child:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            return process.spawn(
                self._argv,
                program="/bin/sh",
                env=self._environ,
                stdio=(self._read, null, null),
                closed=process.inherited(),
                blocked=self._signals,
            )
        finally:
            os.close(null)

    def has_seen(self, signo: int) -> bool:
        """Whether a signal that has come to us has come to the guard too.  It is asked once about
        each: another guard takes over from one that has seen something, as that stays pending."""
        if signo not in watching.pending(self.process.pid):
            return signo in self._recent and time.monotonic() < self._recent_until
        before, self.process = self.process, self._started()
        self._recent = watching.pending(before.pid)  # there was no moment without a witness
        self._recent_until = time.monotonic() + _LATE_SECONDS
        _end(before)
        return True

    def close(self) -> None:
        """End it."""
        _end(self.process)
        os.close(self._read)
        os.close(self._life)


def _end(guard: process.Child) -> None:
    guard.signal(process.KILL)
    guard.reap()


def own_command(verb: str) -> list[str]:
    """What starts ``verb`` of the agent that this is: of the package, or of the one file that we
    came from (boot.py), be it a snapshot, whose modules have no files, or the archive."""
    ours = globals().get("__file__", "")
    if not os.path.isfile(ours):
        return [sys.executable, "-IS", os.path.abspath(sys.argv[0]), verb]
    return [sys.executable, "-IS", os.path.join(os.path.dirname(ours), "__main__.py"), verb]


def main(words: list[str]) -> int:
    """``guard DIRECTORY AGENT``: what is left to do when that agent has ended."""
    from roadstead.host import linux
    from roadstead.step import sweep

    directory, agent = words
    linux.set_process_name(NAME)
    watching.ignore(watching.MESSAGES)
    # A process that ends has closed its files a moment before it is gone, and nobody sweeps while
    # the agent is there.
    process.ends_within(int(agent), _END_MILLISECONDS)
    sweep.sweep(directory)
    return 0
