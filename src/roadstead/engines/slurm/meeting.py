"""--container-sync on a cluster: a place beside srun where the agents of a step's tasks meet.

Each task has an agent of its own there, and they know nothing of each other but how many they are.
So srun leaves a process behind, on its own node, to which they connect, as slurmstepds do to srun
itself.  They say who they are, and that their container stands; once all have said so, or one will
not any more, each is told.  The token lets nobody else in: it travels with the request, in the
step's environment, which others cannot read.

    agent → here    TOKEN PROCID NTASKS\\n   as soon as it runs
                    stand\\n                 once its container does
    here → agent    go\\n                    all stand
                    gone PROCID\\n           that one will not

It ends when srun does.
"""

from __future__ import annotations

import hmac
import os
import random

from roadstead.engines import choice
from roadstead.errors import EngineError
from roadstead.host import fork, lines, linux, process
from roadstead.host.loop import Loop, Timer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_NAME = "roadstead-meet"
_COMING_SECONDS = 120.0  # from the first agent to the last
_GREETING_SECONDS = 20.0  # for whoever connects, to say who it is


def begin(environ: Mapping[str, str]) -> dict[str, Any]:
    """Start it; what its agents are told.  It watches this process, which is to become srun.

    Raises EngineError where no port is free for it.
    """
    token = os.urandom(16).hex()
    listener, srun = _listener(environ), os.pidfd_open(os.getpid())

    def body() -> None:
        linux.set_process_name(_NAME)
        process.keep_only(listener.fileno(), srun)
        process.raise_descriptor_limit()  # a task is one of them
        Place(Loop(), listener, token, srun).run()

    # Not a child of srun's: which would have to wait for it.
    child = process.adopt(fork.run_in_child(lambda: fork.run_in_child(body, session=True)))
    child.reap()
    os.close(srun)
    listener.close()
    return {"port": listener.port, "token": token}


def _listener(environ: Mapping[str, str]) -> lines.Listener:
    """At a port that nodes reach: where a firewall is between them and srun, slurm.conf says which
    ports it lets pass (SrunPortRange)."""
    between = choice.slurm_setting("SrunPortRange", environ)
    try:
        return lines.Listener(ports(between))
    except OSError as error:
        where = f", in slurm.conf's SrunPortRange={between}" if between else ""
        raise EngineError(f"--container-sync: no port{where}: {error.strerror}") from None


def ports(between: str) -> list[int]:
    """The ports of a range FIRST-LAST, in an order of their own: several sruns look at once.  [0],
    any, where there is no such range."""
    first, _, last = between.partition("-")
    try:
        found = list(range(int(first), int(last) + 1))
    except ValueError:
        return [0]
    random.shuffle(found)
    return found or [0]


class Place:
    """The place, in its own process."""

    def __init__(self, loop: Loop, listener: lines.Listener, token: str, srun: int) -> None:
        self._loop, self._listener, self._token, self._srun = loop, listener, token, srun
        self._links: set[lines.Lines] = set()
        self._agents: dict[int, _Agent] = {}
        self._ntasks = 0
        self._answer = ""
        self._timer: Timer | None = None

    def run(self) -> None:
        """Serve until srun has ended."""
        self._loop.watch(self._srun, self._loop.stop)
        self._loop.watch(self._listener, self._accept)
        self._loop.run()
        for each in self._links:
            each.close()

    def _accept(self) -> None:
        link = self._listener.accept()
        if link is not None:
            self._links.add(link)
            agent = _Agent(self, self._loop, link)
            self._loop.call_later(_GREETING_SECONDS, agent.part_if_strange)

    def admit(self, agent: _Agent, words: list[str]) -> bool:
        """Who it is; False for nobody of this step."""
        token, *numbers = [*words, ""]
        if not hmac.compare_digest(token.encode(), self._token.encode()):
            return False
        try:
            agent.procid, self._ntasks = int(numbers[0]), int(numbers[1])
        except ValueError:
            return False
        self._agents[agent.procid] = agent
        if self._timer is None:
            self._timer = self._loop.call_later(_COMING_SECONDS, self._overdue)
        if self._answer:
            agent.link.say(self._answer)
        return True

    def look(self) -> None:
        """Whether all are there."""
        if len(self._agents) == self._ntasks and all(each.stands for each in self._agents.values()):
            self._tell("go")

    def left(self, agent: _Agent) -> None:
        """It has closed its end: has ended, in whatever way."""
        self._links.discard(agent.link)
        if self._agents.get(agent.procid) is agent:
            self._tell(f"gone {agent.procid}")

    def _overdue(self) -> None:
        missing = set(range(self._ntasks)) - self._agents.keys()
        if missing:
            self._tell(f"gone {min(missing)}")

    def _tell(self, answer: str) -> None:
        """Once."""
        if self._answer:
            return
        self._answer = answer
        for each in self._agents.values():
            each.link.say(answer)


class _Agent:
    """A task's agent, as it is seen here."""

    def __init__(self, place: Place, loop: Loop, link: lines.Lines) -> None:
        self._place, self._loop, self.link = place, loop, link
        self.procid = -1
        self.stands = False
        self._gone = False
        loop.watch(link, self._hear)

    def _hear(self) -> None:
        said = self.link.hear()
        if said is None or not all(map(self._heed, said)):
            self._part()

    def part_if_strange(self) -> None:
        """It has had the time to say who it is."""
        if self.procid < 0:
            self._part()

    def _part(self) -> None:
        if self._gone:
            return
        self._gone = True
        self._loop.unwatch(self.link)
        self.link.close()
        self._place.left(self)

    def _heed(self, line: str) -> bool:
        if self.procid < 0:
            return self._place.admit(self, line.split())
        if line == "stand":
            self.stands = True
            self._place.look()
        return True
