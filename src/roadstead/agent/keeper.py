"""The process that keeps the container which a step's tasks on a node share (--container-per=node).

The agent that comes first starts it, and each says here what its task is (joined.py has what is
spoken).  It is no task: what its end is does not matter, so it may wait until all tasks of the node
have come and gone, which none of them could without putting off the end that Slurm hears of.  The
last one waits for its end: so nothing of it is left to Slurm, which would kill it.

It makes the container as the local engine's supervisor does (step/shared.py), in namespaces of its
own, and writes there what each task joins it by.  Its first process, and every task, end with it.
"""

from __future__ import annotations

import contextlib
import os
import traceback
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from roadstead.agent import given, joined
from roadstead.agent.guard import Guard
from roadstead.agent.place import Place, node_name
from roadstead.core.model import TaskSpec
from roadstead.errors import LaunchError, RoadsteadError
from roadstead.host import linux, process, watching, wire
from roadstead.host.door import Door
from roadstead.host.loop import Loop
from roadstead.step import plan as plans
from roadstead.step import processes
from roadstead.step.around import Around
from roadstead.step.life import Life, Lives
from roadstead.step.shared import Member, Shared

if TYPE_CHECKING:
    from roadstead.core.model import StepSpec
    from roadstead.step.plan import Plan

NAME: Final = "roadstead-keep"
_ORPHAN_SECONDS: Final = 10.0
_NOTHING: Final[contextlib.AbstractContextManager[int | None]] = contextlib.nullcontext()


def main(words: list[str]) -> int:
    """``keep COMPONENT DOOR SLURMSTEPD ARGV…``: the socket that tasks come to, and who starts them;
    all else is as for the task of the agent that has started us."""
    at, door, stepd, *argv = words
    environ = dict(os.environ)
    linux.set_process_name(NAME)
    linux.set_child_subreaper()
    keeper = _Keeper(Door(int(door)), given.tasks_here(environ))
    try:
        keeper.watch(int(stepd))
        keeper.make([at, *argv], environ)
        keeper.run()
    finally:
        keeper.close()
    return 0


class _Keeper:
    """It, from the first task's coming to the last one's end."""

    def __init__(self, door: Door, expected: int) -> None:
        self._door = door
        self._expected = expected
        self._visitors: set[_Visitor] = set()
        self._gone = 0
        self._loop = Loop()
        self._lives = Lives(self._loop)
        self._place: Place | None = None
        self._guard: Guard | None = None
        self._around: Around | None = None
        self._plan: Plan | None = None
        self._shared: Shared | None = None
        self._failure: RoadsteadError | None = None
        self._task: TaskSpec | None = None
        self._stepd: process.Child | None = None
        self._directory = self._secret = ""
        self._variables: dict[str, str] = {}  # what tells of the container's network
        self._said: list[str] = []  # for the next task that hears from us

    def watch(self, stepd: int) -> None:
        """Without slurmstepd there are no tasks.  What it sends is for them, and not for us."""
        for signo in watching.MESSAGES:
            self._loop.on_signal(signo, _nothing)
        with contextlib.suppress(ProcessLookupError):
            self._stepd = process.adopt(stepd)

    def make(self, argv: list[str], environ: dict[str, str]) -> None:
        """Make the container, or know why not."""
        asked, node = given.read("task", argv, environ), node_name(environ)
        _, self._secret = joined.where(asked, node)
        try:
            self._place = Place(environ, node)
            spec, task, _ = given.specify(asked, "task", environ, self._place, of_node=True)
            self._directory, self._task = spec.directory, task
            self._guard = Guard(spec.directory, watching.MESSAGES, environ)
            notice = self._said.append
            hear = partial(self._hear_of_plugins, spec)
            self._around = Around.of(spec, self._loop, self._lives, hear)
            self._around.plugged.begin()
            (self._plan,) = plans.prepare(spec, notice, enclosed=self._place.path)
            assert self._plan is not None
            if self._around.network is not None:
                (told,) = self._around.network.prepared([task])
                self._variables = dict(told.env.items() - task.env.items())
            made = Shared(self._plan, task, notice, _NOTHING, self._around)
            made.commands = replace(made.commands, own_groups=False)
            made.members = 1  # ourselves
            self._shared = made
        except RoadsteadError as error:
            self._failure = error
        except OSError as error:
            where = f" {error.filename}" if error.filename else ""
            self._failure = LaunchError(f"cannot set up the container:{where} {error.strerror}")

    def _hear_of_plugins(self, spec: StepSpec, sentence: str) -> None:
        if given.is_wanted(sentence, spec):
            self._said.append(sentence)

    def run(self) -> None:
        """Serve until the last task has left.

        slurmstepd waits until nobody has what the tasks write to, so we let go of that.  Who has
        come meanwhile is at the door still: plugins, as they begin, are waited for in this loop.
        """
        if self._stepd is None:
            return
        self._loop.watch(self._stepd, self._loop.stop)
        self._loop.watch(self._door, self._let_in)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, 2)
        os.close(null)
        try:
            self._loop.run()
        except Exception:
            self._said.append(traceback.format_exc())
            for visitor in self._visitors:
                visitor.refuse(
                    LaunchError("the process that keeps the node's container has failed")
                )
            raise

    # -- tasks ----------------------------------------------------------------------------------

    def _let_in(self) -> None:
        connection = self._door.accept(self._secret)
        if connection is not None:
            self._visitors.add(_Visitor(self, self._loop, connection))

    def admit(self, visitor: _Visitor, message: dict[str, Any]) -> None:
        """A task has said what it is."""
        if self._failure is not None:
            visitor.refuse(self._failure)
            return
        life = self._admission(message["task"], message["descriptors"])
        self._lives.start(life, visitor.send, visitor.refuse)

    def _admission(self, about: dict[str, Any], descriptors: int) -> Life[dict[str, Any]]:
        shared, first = self._shared, self._task
        assert shared is not None
        assert self._plan is not None
        assert self._around is not None
        assert first is not None
        task = replace(
            first,
            procid=about["procid"],
            localid=about["localid"],
            argv=tuple(about["argv"]),
            env={**about["env"], **self._variables},
        )
        member = Member(shared, task, self._said.append, _NOTHING, self._around)
        yield from shared.join()
        commands = replace(
            shared.commands,
            bundle=member.directory.path,
            log=f"{member.directory.path}/runtime.log",
            descriptors=descriptors,
        )
        return {
            "pid": os.getpid(),
            "runtime": asdict(commands),
            "process": f"{member.directory.path}/process.json",
            "env": self._plan.runtime_env,
            "items": shared.items,
        }

    def unsaid(self) -> list[str]:
        """What is to be said, by whoever is told first."""
        said, self._said[:] = [*self._said], []
        return said

    def left(self, visitor: _Visitor) -> None:
        """A task has ended.  The last one hears of our end only."""
        self._gone += 1
        self._visitors.discard(visitor)
        if self._gone < self._expected:
            visitor.part()
            return
        self._lives.start(self._end(), lambda _: self._loop.stop(), lambda _: self._loop.stop())

    def _end(self) -> Life[None]:
        if self._shared is not None:
            yield from self._shared.leave()

    def close(self) -> None:
        """End what is left, and remove what was made."""
        if self._around is not None:
            self._around.close()
        guard = self._guard.process.pid if self._guard is not None else 0
        processes.end_below(self._directory, _ORPHAN_SECONDS, without=guard)
        if self._shared is not None:
            self._shared.close()
        if self._plan is not None:
            self._plan.close()
        if self._guard is not None:
            self._guard.close()
        if self._place is not None:
            self._place.close()


class _Visitor:
    """A task, as it is seen here."""

    def __init__(self, keeper: _Keeper, loop: Loop, connection: wire.Connection) -> None:
        self._keeper, self._loop, self._connection = keeper, loop, connection
        self._has_left = False
        loop.watch(connection, self._hear)

    def _hear(self) -> None:
        found = self._connection.receive()
        if found is None:  # it was killed, or has given up
            self._loop.unwatch(self._connection)
            self._leave()
        elif "task" in found[0]:
            self._keeper.admit(self, found[0])
        else:
            self._leave()

    def _leave(self) -> None:
        if not self._has_left:
            self._has_left = True
            self._keeper.left(self)

    def send(self, message: dict[str, Any]) -> None:
        """Answer it; who is not there any more will be seen to have left."""
        with contextlib.suppress(OSError):
            self._connection.send({"said": self._keeper.unsaid(), **message})

    def refuse(self, error: RoadsteadError) -> None:
        """Tell it why there is nothing to join."""
        self.send({"error": str(error), "kind": error.kind, "hint": error.hint})

    def part(self) -> None:
        """It need not wait for us."""
        self.send({"bye": 1})


def _nothing() -> None:
    pass
