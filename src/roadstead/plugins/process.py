"""The process beside a step's supervisor that its plugins run in, and the supervisor's end of it.

Plugins are other people's code: they may raise, exit, hang, leak descriptors and start threads. The
supervisor must be there at the step's end whatever they do, so it never imports them. It forks a
child (2 ms, and only where there is a plugstack.conf), which gives up everything that is the
supervisor's and then waits for calls. It dies with the supervisor (prctl(2), PR_SET_PDEATHSIG);
what plugins start carries the step's mark, by which it is found and ended.

A call is a message with two descriptors. The answer comes on the one, the end of the other's pipe
tells that it is there, or that nobody is left who could answer: so a call can be watched as a child
can (step/life.py). What is called apart is called in a child of this process.
"""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from roadstead.errors import RoadsteadError, from_kind
from roadstead.host import fork, linux, process, wire
from roadstead.plugins import APART, JOB_SCRIPT, REMOTE, SLURMD, TASK_POINTS, Option, Spank, stack

_NAME: Final = "roadstead-plug"
_MOST_SAID: Final = 100  # sentences of a call, which wait in a socket's buffer
_LONGEST: Final = 500
_OF_JOB: Final = {
    **{"job_prolog": JOB_SCRIPT, "job_epilog": JOB_SCRIPT},
    **{"slurmd_init": SLURMD, "slurmd_exit": SLURMD},
}


class Call:
    """A call that is under way.  ``fileno()`` is readable once it is over."""

    peak = 0  # as host.process.Child has it: nothing of the step's

    def __init__(self, point: str, answer: wire.Connection, over: int) -> None:
        self.point = point
        self.said: list[str] = []
        self.result: dict[str, Any] | None = None
        self.failure: RoadsteadError | None = None
        self.plugin, self.required = "", True  # the one that is being called
        self._answer, self._over = answer, over

    def fileno(self) -> int:
        return self._over

    def reap(self) -> int:
        """Read what was answered; 0 if it was."""
        with contextlib.suppress(BlockingIOError, ValueError):
            while (received := self._answer.receive(wait=False)) is not None:
                received[1].close()
                self._hear(received[0])
        self.close()
        return 0 if self.result is not None else 1

    def close(self) -> None:
        """Hear no more of it."""
        if self._over >= 0:
            self._answer.close()
            os.close(self._over)
            self._over = -1

    def _hear(self, message: dict[str, Any]) -> None:
        if "say" in message:
            self.said.append(str(message["say"]))
        elif "calling" in message:
            self.plugin, self.required = str(message["calling"]), message["required"] is True
        elif "failed" in message:
            self.failure = from_kind(
                str(message["kind"]), str(message["failed"]), str(message.get("hint", ""))
            )
            self.result = {}
        else:
            self.result = message


class Beside:
    """The process with the plugins of one plugstack.conf, seen from who has started it."""

    def __init__(self, path: str, *, marks: dict[str, str]) -> None:
        """Start it.  ``marks`` are variables of what plugins start.  Raises OSError."""
        self._link, theirs = wire.pair()
        self.child = process.adopt(
            fork.run_in_child(partial(_serve, theirs, path, marks, os.getpid()), session=True)
        )
        theirs.close()

    def call(self, point: str, **fields: Any) -> Call:
        """Have a point called on all plugins that have it."""
        answer, theirs = wire.pair()
        over, write = os.pipe2(os.O_CLOEXEC)
        found = Call(point, answer, over)
        try:
            message = {"point": point, **fields}
            self._link.send(message, (theirs.fileno(), write))
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has gone: that is the call's end
        finally:
            theirs.close()
            os.close(write)
        return found

    def kill(self) -> None:
        """End it, and what it has started that is still below it."""
        for pid in process.descendants(self.child.pid):
            process.send(pid, process.KILL)
        self.child.signal(process.KILL)

    def close(self) -> None:
        """Kill and reap it."""
        self._link.close()
        if self.child.status is None:
            self.kill()
            self.child.reap()


# -- in that process ------------------------------------------------------------------------------


def _serve(link: wire.Connection, path: str, marks: dict[str, str], parent: int) -> None:
    linux.set_parent_death_signal(process.KILL)
    if os.getppid() != parent:
        return
    linux.set_process_name(_NAME)
    linux.set_child_subreaper(False)
    process.keep_only(link.fileno())
    os.environ.update(marks)
    os.chdir("/")
    server = _Server(path)
    while (received := link.receive()) is not None:
        message, fds = received
        answer, over = wire.from_fd(fds.take(0)), fds.take(1)
        server.reap()
        if message["point"] in APART:
            server.apart(partial(server.answer, message, answer))
        else:
            server.answer(message, answer)
        answer.close()
        os.close(over)


@dataclass(frozen=True, slots=True)
class _Turn:
    """What is to be called, and to whom its progress is told."""

    message: dict[str, Any]
    plugins: list[stack.Plugin]
    say: Callable[[str], None]
    answer: wire.Connection

    def each(self, call: Callable[[stack.Plugin], None]) -> None:
        """Call one after the other; a required one that fails is the end.  Raises PluginFailure."""
        for plugin in self.plugins:
            self.answer.send({"calling": plugin.name, "required": plugin.required})
            try:
                call(plugin)
            except stack.PluginFailure as failure:
                if failure.required:
                    raise
                self.say(f"warning: {failure}")


class _Server:
    def __init__(self, path: str) -> None:
        self._path = path
        self._plugins: list[stack.Plugin] | None = None
        self._items: dict[str, Any] = {}
        self._env: dict[str, str] = {}
        self._children: list[int] = []

    def apart(self, body: Callable[[], object]) -> None:
        self._children.append(fork.run_in_child(body))

    def reap(self) -> None:
        self._children = [pid for pid in self._children if not os.waitpid(pid, os.WNOHANG)[0]]

    def answer(self, message: dict[str, Any], answer: wire.Connection) -> None:
        said = 0

        def say(sentence: str) -> None:
            nonlocal said
            said += 1
            if said <= _MOST_SAID:
                answer.send({"say": " ".join(str(sentence).split())[:_LONGEST]})

        try:
            turn = _Turn(message, self._load(say), say, answer)
            if message["point"] == "begin":
                result = self._begin(turn)
            elif message["point"] == "points":
                result = {"points": stack.points(turn.plugins)}
            elif "once" in message:
                result = self._once(turn)
            else:
                result = self._call(turn)
        except RoadsteadError as error:
            result = {"failed": str(error), "kind": error.kind, "hint": error.hint}
        answer.send(result)

    def _load(self, say: Callable[[str], None]) -> list[stack.Plugin]:
        if self._plugins is None:
            self._plugins = stack.load(self._path, say)
        return self._plugins

    def _begin(self, turn: _Turn) -> dict[str, Any]:
        """What comes before all tasks: init, options, init_post_opt, user_init."""
        self._items, self._env = turn.message["items"], turn.message["env"]
        before = dict(self._env)

        def initialise(plugin: stack.Plugin) -> None:
            own = self._spank(plugin, REMOTE, turn.say, register=plugin.options.append)
            stack.call(plugin, "init", own, list(plugin.args))
            stack.heed(plugin, self._env, remote=True)

        turn.each(initialise)
        for point in ("init_post_opt", "user_init"):

            def call(plugin: stack.Plugin, point: str = point) -> None:
                stack.call(plugin, point, self._spank(plugin, REMOTE, turn.say), list(plugin.args))

            turn.each(call)
        return _changes(before, self._env)

    def _once(self, turn: _Turn) -> dict[str, Any]:
        """Call something that is done once for a job, unless that has been done."""
        from roadstead.plugins import job

        job.once(turn.message["once"], partial(self._call, turn))
        return {}

    def _call(self, turn: _Turn) -> dict[str, Any]:
        message, point = turn.message, turn.message["point"]
        if _OF_JOB.get(point) == JOB_SCRIPT:  # for the programs that it starts
            os.environ.update(message["env"])
        items = {**self._items, **message.get("items", {})}
        env = message["env"] if "env" in message else dict(self._env)
        before = dict(env)
        prefix: list[str] = []
        config = message.get("config")
        more = [message["given"]] if "given" in message else []

        def call(plugin: stack.Plugin) -> None:
            nonlocal config, prefix
            spank = self._spank(
                plugin,
                _OF_JOB.get(point, REMOTE),
                turn.say,
                items=items,
                env=env,
                in_task=point in TASK_POINTS,
            )
            # A plugin that fails half-way has changed nothing.
            given = [copy.deepcopy(config)] if config is not None else more
            changed = stack.call(plugin, point, spank, list(plugin.args), *given)
            if config is not None:
                config = changed if isinstance(changed, dict) else given[0]
            prefix = [*spank.prefix, *prefix]

        turn.each(call)
        return {"prefix": prefix, "config": config, **_changes(before, env)}

    def _spank(
        self,
        plugin: stack.Plugin,
        context: str,
        say: Callable[[str], None],
        *,
        items: dict[str, Any] | None = None,
        env: dict[str, str] | None = None,
        in_task: bool = False,
        register: Callable[[Option], None] | None = None,
    ) -> Spank:
        variables = self._env if env is None else env
        return Spank(
            context,
            items=self._items if items is None else items,
            env=variables,
            control=stack.Control(variables),
            given=plugin.given(variables),
            say=lambda sentence: say(stack.signed(plugin, sentence)),
            in_task=in_task,
            register=register,
        )


def _changes(before: dict[str, str], after: dict[str, str]) -> dict[str, Any]:
    return {
        "set": {name: value for name, value in after.items() if before.get(name) != value},
        "unset": [name for name in before if name not in after],
    }
