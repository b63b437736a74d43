"""--container-per=node, for an agent: its task's container is the one that the step's tasks on this
node share, and a process of its own keeps (keeper.py).

The tasks of a node come in any order, and any of them may be the first: that one starts the keeper,
at a door (host/door.py) whose name and secret travel with the request.

    keeper → agent    {"secret": …}                   it is the keeper, and nobody else
    agent → keeper    {"task": …, "descriptors": N}   a task of this node
    keeper → agent    {"runtime": …, "process": …}    the container stands: how to join it
                      {"error": …}                    it will not; with both, what there is to say
    agent → keeper    {"left": 1}                     the task has ended
    keeper → agent    {"bye": 1}                      others are there; or its end, which the last
                                                      one waits for

The keeper's user and mount namespaces are entered by a pidfd, and the program is started by this
agent's own runtime command: so it has the descriptors, the CPUs, the limits and the control group
that slurmstepd has given to this task, and its wait status is the true one.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, Final

from roadstead.agent import request as requests
from roadstead.errors import LaunchError, RuntimeFailure, from_kind
from roadstead.host import door, linux, namespaces, process, wire
from roadstead.oci import runtime
from roadstead.step import shared
from roadstead.step.container import STREAMS, patience, start_runtime
from roadstead.step.life import Life, Until, until_ours

if TYPE_CHECKING:
    from collections.abc import Callable

    from roadstead.agent.given import Given
    from roadstead.core.model import StepSpec, TaskSpec
    from roadstead.step.around import Around
    from roadstead.step.container import Stdio

_GONE: Final = "--container-per=node: the process that keeps the container has ended"


def check(spec: StepSpec) -> None:
    """Raise LaunchError for what cannot share a container."""
    assert spec.container is not None
    if spec.script:
        raise LaunchError(shared.NOT_FOR_SCRIPTS)
    if spec.terminal is not None:
        raise LaunchError(shared.NOT_WITH_A_TERMINAL)


class Joined:
    """A task's part of it.  It takes the place of a Container (step/container.py)."""

    def __init__(
        self,
        given: Given,
        task: TaskSpec,
        environ: dict[str, str],
        around: Around,
        notice: Callable[[str], None],
        stepd: int,
    ) -> None:
        """Come there, and have it kept if nobody does yet, for as long as slurmstepd is there.

        Raises RuntimeFailure.
        """
        self._task, self._around, self._notice = task, around, notice
        self.items: dict[str, Any] = {}
        self.child: process.Child | None = None
        self._setup: process.Child | None = None
        name, self._secret = where(given, task.node)
        self._link = _Link(_come(name, given, environ, stepd))

    def life(self, stdio: Stdio, terminal: str) -> Life[int]:
        """Join the container and run the task to its end; its wait status."""
        try:
            told = yield from self._admitted(len(stdio))
            yield from self._around.stand(self._task)
            child = yield from self._start(told, stdio)
            items = {"S_TASK_PID": child.pid, **self.items}
            yield from self._around.plugged.call("task_post_fork", self._task, items)
            yield from until_ours(child)
            status = yield Until(child)
            assert status is not None
            self.child = None
            return status
        finally:
            self._end()
            yield from self._leave()

    def _admitted(self, descriptors: int) -> Life[dict[str, Any]]:
        """How to join it, once it stands.  Raises what it has failed with."""
        yield Until(self._link)
        if not door.trusted(self._link.heard, self._secret):
            raise RuntimeFailure(_GONE)  # or it is somebody else's, who is told nothing
        task = self._task
        about = {"procid": task.procid, "localid": task.localid, "argv": task.argv, "env": task.env}
        self._link.say({"task": about, "descriptors": descriptors - STREAMS})
        yield Until(self._link)
        told = self._link.heard
        if told is None:
            raise RuntimeFailure(_GONE)
        self._pass_on(told)
        if "error" in told:
            raise from_kind(told["kind"], told["error"], told["hint"])
        self.items = told["items"]
        return told

    def _start(self, told: dict[str, Any], stdio: Stdio) -> Life[process.Child]:
        pidfd = os.pidfd_open(told["pid"])
        try:
            # The keeper has its end of our connection still: the number was its.
            if self._link.has_ended:
                raise RuntimeFailure(_GONE)
            namespaces.join(pidfd, hide_unified=False)
        except OSError as error:
            raise RuntimeFailure(
                f"--container-per=node: cannot enter the node's container: {error.strerror}"
            ) from None
        finally:
            os.close(pidfd)
        commands = runtime.BuiltIn(**told["runtime"])
        argv = commands.joining(told["process"], pid_file=commands.pid_file)
        self._setup = start_runtime(commands, argv, stdio=stdio, env=told["env"])
        status = yield Until(self._setup, patience())
        if status != 0:
            self._end()
            said = runtime.complaint(commands.log)
            how = "has not answered" if status is None else f"has ended with status {status}"
            raise RuntimeFailure(f"{commands.program}: {said or f'exec {how}'}")
        with open(commands.pid_file, encoding="ascii") as file:
            self.child = process.adopt(int(file.read()))
        self._setup = None
        return self.child

    def _leave(self) -> Life[None]:
        self._link.say({"left": 1})
        yield Until(self._link)
        self._pass_on(self._link.heard or {})
        self._link.close()

    def _pass_on(self, told: dict[str, Any]) -> None:
        for sentence in told.get("said", ()):
            self._notice(sentence)

    def _end(self) -> None:
        for child in (self._setup, self.child):
            if child is not None and child.status is None:
                child.signal(process.KILL)
                child.reap()
        self._setup = self.child = None

    # -- what an agent asks of a container -----------------------------------------------------

    def processes(self) -> list[int]:
        """The task's processes, its first one first."""
        if self.child is None or self.child.status is not None:
            return []
        return [self.child.pid, *process.descendants(self.child.pid)]

    def stop_setup(self, processes: list[int]) -> bool:
        """End what is to become the task; whether there was anything."""
        if self.child is not None:
            return False
        if self._setup is not None:
            self._setup.signal(process.KILL)
        else:
            self._link.part()
        return True

    def close(self) -> None:
        """Let go of it."""
        self._link.close()


class _Link:
    """The connection to the keeper; an ending (life.py), once something has come."""

    peak = 0

    def __init__(self, connection: wire.Connection) -> None:
        self._connection: wire.Connection | None = connection
        self.heard: dict[str, Any] | None = None

    def fileno(self) -> int:
        assert self._connection is not None
        return self._connection.fileno()

    def say(self, message: dict[str, Any]) -> None:
        """Say it; that nobody is there is heard, and not said here."""
        assert self._connection is not None
        with contextlib.suppress(OSError):
            self._connection.send(message)

    def reap(self) -> int:
        """Hear it."""
        assert self._connection is not None
        try:
            found = self._connection.receive()
        except ValueError:  # nothing of ours speaks so
            found = None
        self.heard = found[0] if found is not None else None
        return 0

    @property
    def has_ended(self) -> bool:
        """Whether the other end has been closed.  (It says nothing of its own accord.)"""
        return process.becomes_readable(self, 0)

    def part(self) -> None:
        """Hear nothing any more: whoever waits for that goes on."""
        if self._connection is not None:
            self._connection.shut_down()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def where(given: Given, node: str) -> tuple[str, str]:
    """The name of the step's door on a node, and the secret that is shown there.  Raises
    RuntimeFailure for a request that has none."""
    token = given.told.get("token", "")
    if not token:
        raise RuntimeFailure("--container-per=node: the request has no token")
    half = len(token) // 2
    return f"roadstead-{token[:half]}-{node}", token[half:]


def _come(name: str, given: Given, environ: dict[str, str], stepd: int) -> wire.Connection:
    taken = door.Door.taken(name)
    if taken is not None:
        _have_it_kept(taken, given, environ, stepd)
        taken.close()
    try:
        return door.come(name)
    except ConnectionRefusedError:
        raise RuntimeFailure(_GONE) from None


def _have_it_kept(taken: door.Door, given: Given, environ: dict[str, str], stepd: int) -> None:
    """Start the keeper, which is nobody's child here: it outlives us, and at our end we end what is
    below us."""
    from roadstead.agent import guard

    words = [str(given.at), str(taken.fileno()), str(stepd), *given.argv]
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    linux.set_child_subreaper(False)
    try:
        process.spawn(
            ["/bin/sh", "-c", '"$@" &', "sh", *guard.own_command("keep"), *words],
            env={**environ, requests.VARIABLE: given.text},
            stdio=(null, null, 2),
            keep=(taken.fileno(),),
            closed=process.inherited(),
        ).reap()
    finally:
        linux.set_child_subreaper()
        os.close(null)
