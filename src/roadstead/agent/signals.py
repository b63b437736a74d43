"""Signals that come to an agent, and what they mean for its container.

slurmstepd signals all processes of a step, the container's among them: of those an agent takes care
of the two that would get lost.  One for which the container's first process has no handler never
reaches it, as the first of a pid namespace (pid_namespaces(7)); and one that was sent to the agent
alone, which the guard has not seen, is passed on (guard.py).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from roadstead.host import process

if TYPE_CHECKING:
    from roadstead.agent.guard import Guard
    from roadstead.agent.joined import Joined
    from roadstead.host.loop import Loop
    from roadstead.step.container import Container

# How long a signal may take from the agent to the guard, of two processes that are sent it one
# after the other.
_WITNESS_SECONDS: Final = 0.1


class Signals:
    """What has come, and what of it the container has not got.

    ``ended_by`` is the signal by which we have ended it for that, or 0.
    """

    def __init__(self, loop: Loop) -> None:
        self.container: Container | Joined | None = None
        self.ended_by = 0
        self._loop = loop
        self._guard: Guard | None = None
        self._unseen: set[int] = set()

    def watch(self, guard: Guard) -> None:
        """This is the witness."""
        self._guard = guard

    def hear(self, signo: int, *, alone: bool = False) -> None:
        """A signal has come; ``alone``: to us, and the container has not got it."""
        made = self.container
        if made is None:
            return
        pids = made.processes()
        if signo in process.ENDING and made.stop_setup(pids):
            self.ended_by = self.ended_by or signo
            return
        for pid in pids:
            state = process.signal_state(pid) if signo in process.ENDING else None
            if state is not None and state.drops(signo):
                self.ended_by = self.ended_by or signo
                process.send(pid, process.KILL)
        if alone:
            self._pass_on(signo)
        elif signo not in self._unseen:
            self._unseen.add(signo)
            self._loop.call_later(_WITNESS_SECONDS, partial(self._pass_on_unless_seen, signo))

    def heard_lately(self, signo: int) -> bool:
        """Whether a signal has come to us in the last moment."""
        return signo in self._unseen

    def kill(self) -> None:
        """SIGKILL to the container, or to the runtime that is about to make it."""
        if self.container is not None:
            pids = self.container.processes()
            if not self.container.stop_setup(pids):
                for pid in pids:
                    process.send(pid, process.KILL)

    def _pass_on_unless_seen(self, signo: int) -> None:
        self._unseen.discard(signo)
        if self._guard is not None and not self._guard.has_seen(signo):
            self._pass_on(signo)

    def _pass_on(self, signo: int) -> None:
        for pid in self.container.processes()[:1] if self.container is not None else ():
            process.send(pid, signo)
