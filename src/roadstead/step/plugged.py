"""The plugins of a step, as its supervisor has them called (plugins/ says what they are).

Where the command that has asked for the step found no plugstack.conf nothing here is done.  Else
the step's environment names the file, and plugins are called in a process beside the supervisor.
Before the tasks start, the supervisor waits for them in its loop, so that it hears of a cancel
meanwhile; later on a call is one more thing that a task's life waits for.  One that does not return
in time is killed, with its process, and is treated as one that has failed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from roadstead.core.names import PLUGSTACK
from roadstead.errors import LaunchError, RoadsteadError
from roadstead.host import wire
from roadstead.step import record
from roadstead.step.life import Life, Until

if TYPE_CHECKING:
    from roadstead.core.model import StepSpec, TaskSpec
    from roadstead.host.loop import Loop
    from roadstead.plugins.process import Beside, Call

PATIENCE: Final = "ROADSTEAD_PLUGIN_TIMEOUT"
_SECONDS: Final = 30.0


class Plugged:
    """The plugins of one step; all of it does nothing where there are none."""

    def __init__(
        self,
        spec: StepSpec,
        loop: Loop,
        command: list[int],
        notice: Callable[[str], None],
        records: str = "",
    ) -> None:
        """``command`` is where an srun waits that has plugins, if it does; ``records`` is where the
        job's are, "" where its prolog and epilog are another's."""
        self._records = records
        self._spec, self._loop, self._notice = spec, loop, notice
        self._path = spec.env.get(PLUGSTACK, "")
        self._beside: Beside | None = None
        self._points: frozenset[str] = frozenset()
        self._waiting = False
        self._command = [wire.from_fd(fd) for fd in command]
        self._patience = _seconds(spec.env.get(PATIENCE, ""))

    @property
    def pid(self) -> int:
        """The process that they are called in; 0: there is none."""
        return self._beside.child.pid if self._beside is not None else 0

    def has(self, *points: str) -> bool:
        """Whether any plugin is to be called at any of these points."""
        return self._beside is not None and not self._points.isdisjoint(points)

    # -- before the tasks -------------------------------------------------------------------------

    def begin(self) -> None:
        """Load them, and call what comes first; the step's environment is changed as they wish.

        To be called before the supervisor has entered a namespace.  Raises RoadsteadError.
        """
        while self._command:
            self._ask(self._command.pop())
        if not self._path:
            return
        from roadstead.plugins.process import Beside

        self._beside = Beside(self._path, marks={record.MARK: self._spec.directory})
        items, env = _items(self._spec), self._spec.env
        there = self._outcome(self._wait(self._beside.call("points")))
        self._points = frozenset(there.get("points", ()))
        if self._records and self.has("job_prolog", "job_epilog"):
            from roadstead.plugins import job

            once = job.write(self._records, self._path, items, env)
            prolog = {"items": items, "env": job.variables(env), "once": once}
            self._outcome(self._wait(self._beside.call("job_prolog", **prolog)))
        if self._beside.child.ends_within(0):
            return
        found = self._outcome(self._wait(self._beside.call("begin", items=items, env=env)))
        for part in (self._spec, *self._spec.parts):
            _change(part.env, found)

    def _ask(self, command: wire.Connection) -> None:
        """Tell srun which step this is, and wait until its plugins agree, however long they take:
        the user sees them at it, and can end them."""
        try:
            command.send({"job_id": self._spec.job_id, "step_id": self._spec.step_id})
            self._loop.watch(command, self._loop.stop)
            self._waiting = True
            self._loop.run()
            self._loop.unwatch(command)
            received = command.receive(wait=False)
        except (BrokenPipeError, ConnectionResetError, BlockingIOError, ValueError):
            received = None
        finally:
            self._waiting = False
            command.close()
        answer = received[0] if received is not None else {}
        if "go" not in answer:
            raise LaunchError(
                str(answer.get("failed") or "srun has gone before the step had started"),
                hint=str(answer.get("hint", "")),
            )

    def prepared(self, tasks: list[TaskSpec]) -> list[TaskSpec]:
        """The tasks, as task_init leaves them.  Raises RoadsteadError."""
        if not self.has("task_init"):
            return tasks
        assert self._beside is not None
        calls = [
            self._beside.call("task_init", items=_items_of_task(each, self._spec), env=each.env)
            for each in tasks
        ]
        made = []
        for task, call in zip(tasks, calls, strict=True):
            found = self._outcome(self._wait(call))
            env = dict(task.env)
            _change(env, found)
            prefix = tuple(map(str, found.get("prefix", ())))
            if prefix and self._spec.script:
                raise LaunchError("task_init: nothing can be put before a batch script")
            made.append(replace(task, env=env, argv=(*prefix, *task.argv)))
        return made

    def edited(
        self, task: TaskSpec, config: dict[str, Any], items: Mapping[str, Any]
    ) -> dict[str, Any]:
        """A task's config.json, as bundle_ready leaves it.  Raises RoadsteadError."""
        if not self.has("bundle_ready"):
            return config
        assert self._beside is not None
        known = {**_items_of_task(task, self._spec), **items}
        call = self._beside.call("bundle_ready", items=known, env=task.env, config=config)
        found = self._outcome(self._wait(call)).get("config")
        return found if isinstance(found, dict) else config

    def _wait(self, call: Call) -> Call:
        """Wait in the loop until the call is over, or for as long as is fair."""
        over = []

        def ended() -> None:
            over.append(True)
            self._loop.stop()

        self._loop.watch(call, ended)
        timer = self._loop.call_later(self._patience, self._loop.stop)
        self._waiting = True
        try:
            self._loop.run()
        finally:
            self._waiting = False
            timer.cancel()
            self._loop.unwatch(call)
        if over:
            call.reap()
        else:
            self._give_up(call)
        return call

    def stop_waiting(self) -> None:
        """The step is to end: what is waited for before its start is not to hold it."""
        if self._waiting and self._beside is not None:
            self._beside.kill()
        elif self._waiting:
            self._loop.stop()

    # -- beside the tasks -------------------------------------------------------------------------

    def call(
        self, point: str, task: TaskSpec | None, items: Mapping[str, Any], given: object = None
    ) -> Life[None]:
        """Call a point, in a life of a task's or of the step's.  Raises RoadsteadError."""
        if not self.has(point):
            return
        assert self._beside is not None
        about = _items_of_task(task, self._spec) if task is not None else {}
        fields = {"given": given} if given is not None else {}
        call = self._beside.call(point, items={**about, **items}, **fields)
        status = yield Until(call, self._patience)
        if status is None:
            self._give_up(call)
        self._outcome(call)

    def followed(
        self,
        life: Life[int],
        task: TaskSpec,
        container: Mapping[str, Any] | None,
        failing: Callable[[RoadsteadError], None],
    ) -> Life[int]:
        """A task's life, after whose end plugins hear of it; ``failing`` is told of those that
        fail.  ``container`` are the items of the container, if it has been in one."""
        status = yield from life
        said = -status if status < 0 else status << 8  # as wait(2) has it
        items = {"S_TASK_EXIT_STATUS": said, **(container or {})}
        for point in ("container_exited", "task_exit") if container is not None else ("task_exit",):
            given = said if point == "container_exited" else None
            error = yield from failed(self.call(point, task, items, given))
            if error is not None:
                failing(error)
        return status

    def _give_up(self, call: Call) -> None:
        assert self._beside is not None
        self._beside.kill()
        call.reap()
        seconds = f"{self._patience:.0f} seconds"
        call.failure = LaunchError(
            f"plugin {call.plugin or '?'}: {call.point}: has not returned in {seconds}",
            hint=f"{PATIENCE} is how many it may take",
        )

    def _outcome(self, call: Call) -> dict[str, Any]:
        """What a call has brought.  Raises what a required plugin has failed with."""
        for sentence in call.said:
            self._notice(sentence)
        if call.failure is None and call.result is not None:
            return call.result
        failure = call.failure or LaunchError(
            f"plugin {call.plugin or '?'}: {call.point}: has ended the process it ran in"
        )
        if call.result is not None or call.required:
            raise failure
        self._notice(f"warning: {failure}")
        if self._beside is not None and self._beside.child.ends_within(0):
            # With the process the other plugins have gone, for an optional one's sake.
            self._points = frozenset()
            self._notice("warning: no plugin is called any more in this step")
        return {}

    def close(self) -> None:
        """End the process that they are called in."""
        if self._beside is not None:
            self._beside.close()
            self._beside = None


def _seconds(text: str) -> float:
    return float(text) if text.isdecimal() and int(text) else _SECONDS


def failed(life: Life[None]) -> Life[RoadsteadError | None]:
    """The error that a call has ended with, if it has."""
    try:
        yield from life
    except RoadsteadError as error:
        return error
    return None


def _change(env: dict[str, str], found: Mapping[str, Any]) -> None:
    for name in found.get("unset", ()):
        env.pop(name, None)
    env.update(found.get("set", {}))


def _items(spec: StepSpec) -> dict[str, Any]:
    """What plugins may ask of a step, by SPANK's names (plugins/__init__.py)."""
    env = spec.env
    numbers = {str(n): n for n in range(spec.ntasks)}
    found: dict[str, Any] = {
        "S_JOB_UID": spec.uid,
        "S_JOB_GID": spec.gid,
        "S_JOB_ID": spec.job_id,
        "S_JOB_STEPID": spec.step_id,
        "S_JOB_NNODES": max(1, len({share.node for share in spec.shares})),
        "S_JOB_NODEID": 0,
        "S_JOB_LOCAL_TASK_COUNT": spec.ntasks,
        "S_JOB_TOTAL_TASK_COUNT": spec.ntasks,
        "S_JOB_NCPUS": len(spec.cpus) or spec.ntasks * spec.cpus_per_task,
        "S_JOB_ARGV": list(spec.argv),
        "S_JOB_ALLOC_MEM": spec.memory,
        "S_STEP_CPUS_PER_TASK": spec.cpus_per_task,
        "S_SLURM_RESTART_COUNT": int(env.get("SLURM_RESTART_COUNT") or 0),
        "S_NODE_NAME": spec.node,
        "S_STEP_DIRECTORY": spec.directory,
        "S_CONTAINER": spec.container.bundle if spec.container is not None else "",
        "S_JOB_LOCAL_TO_GLOBAL_ID": numbers,
        "S_JOB_GLOBAL_TO_LOCAL_ID": numbers,
    }
    for item, variable in (
        ("S_JOB_ARRAY_ID", "SLURM_ARRAY_JOB_ID"),
        ("S_JOB_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_ID"),
    ):
        if env.get(variable, "").isdecimal():
            found[item] = int(env[variable])
    return found


def _items_of_task(task: TaskSpec, spec: StepSpec) -> dict[str, Any]:
    """What differs for a task; nodes of the local engine are parts of one machine."""
    return {
        "S_TASK_ID": task.localid,
        "S_TASK_GLOBAL_ID": task.procid,
        "S_JOB_NODEID": task.nodeid,
        "S_NODE_NAME": task.node or spec.node,
    }
