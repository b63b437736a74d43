"""One task of a step: a plain process or a container, with one way to start, signal and end it."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from roadstead.core import binding
from roadstead.core.model import TaskExit, TaskSpec
from roadstead.errors import CommandNotFound, CommandNotRunnable, RoadsteadError
from roadstead.host import process
from roadstead.step import processes, scripts
from roadstead.step.life import Life, Until
from roadstead.step.plugged import failed

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from roadstead.core.model import Reason
    from roadstead.step.container import Container
    from roadstead.step.supervisor import Supervisor


class Task:
    """A task, from before it starts until its exit is known."""

    def __init__(self, supervisor: Supervisor, spec: TaskSpec, container: Container | None) -> None:
        self.spec = spec
        self.running = False
        self.ended_by = 0
        self.sent = 0  # the last signal that may have ended it
        self._supervisor = supervisor
        self.child: process.Child | None = None
        self._refusal: RoadsteadError | None = None
        self._container = container

    def hand_over_terminal(self) -> str:
        """The path of the socket to which its container's terminal will be sent, or ""."""
        supervised = self._supervisor.spec.terminal is not None and self.spec.procid == 0
        if not supervised or self._container is None:
            return ""
        return self._container.hand_over_terminal()

    def start(self, stdio: tuple[int, ...]) -> None:
        """Start the task.  Its end, or its failure to start, is told to the supervisor."""
        self.running = True
        terminal = self._supervisor.streams.terminal if self.spec.procid == 0 else ""
        launch = self._supervisor.spec.launch
        if launch.prolog or launch.epilog:
            life = self._between_scripts(stdio, terminal)
        else:
            life = self._own_life(stdio, terminal)
        items = self._container.items if self._container is not None else None
        life = self._supervisor.around.plugged.followed(
            life, self.spec, items, self._supervisor.plugin_failed
        )
        self._supervisor.lives.start(life, self._ended, self._failed)
        self._report_binding()

    def _own_life(self, stdio: tuple[int, ...], terminal: str) -> Life[int]:
        if self._container is None:
            return self._life(stdio, terminal)
        return self._container.life(stdio, terminal)

    def _between_scripts(self, stdio: tuple[int, ...], terminal: str) -> Life[int]:
        """The task, after its prolog and before its epilog.  Its descriptors are closed once all
        tasks have been started, so these are ours."""
        launch = self._supervisor.spec.launch
        mine = tuple([os.dup(fd) for fd in stdio])
        try:
            if launch.prolog and not (yield from scripts.prolog(self, launch.prolog, mine)):
                return 1
            status = yield from self._own_life(mine, terminal)
            if launch.epilog and self._supervisor.ending is None:
                yield from scripts.epilog(self, launch.epilog, mine[:3])
        finally:
            for fd in mine:
                os.close(fd)
        return status

    def on_cpus(self) -> AbstractContextManager[None]:
        """What is started within has the task's CPUs; each node of the step has its own."""
        return process.on_cpus(self.spec.cpus, self._supervisor.spec.cpus)

    @property
    def directory(self) -> str:
        """The step's."""
        return self._supervisor.spec.directory

    def complain(self, sentence: str) -> None:
        """Tell the user of something that went wrong around the task."""
        self._supervisor._notice(f"error: task {self.spec.procid}: {sentence}")

    def _report_binding(self) -> None:
        bound = self._supervisor.spec.launch.binding
        child = self._container.child if self._container is not None else self.child
        if bound.verbose and child is not None:
            spec = self.spec
            self._supervisor._notice(
                binding.report(bound, spec.node, spec.procid, spec.localid, child.pid, spec.cpus)
            )

    def _life(self, stdio: tuple[int, ...], terminal: str) -> Life[int]:
        """A plain process: what a step without a container runs."""
        argv = list(self.spec.argv)
        if self._supervisor.spec.script:
            argv[0] = f"{self._supervisor.spec.directory}/spool/startup"
        program = look_up(argv[0], self.spec.env.get("PATH", os.defpath))
        try:
            inside = self._supervisor.limits.inside(self.spec.procid)
            with self.on_cpus(), inside as group:
                self.child = process.spawn(
                    [program, *argv[1:]],
                    env=self.spec.env,
                    stdio=stdio,
                    terminal=terminal,
                    group=group,
                    pid_variable="SLURM_TASK_PID",
                    limits=scripts.limits(self._supervisor.spec.limits),
                )
        except FileNotFoundError:
            raise CommandNotFound(f"{argv[0]}: its interpreter does not exist") from None
        except OSError as error:
            raise CommandNotRunnable(f"{argv[0]}: {error.strerror}") from None
        yield from self._tell_forked(self.child)
        status = yield Until(self.child)
        assert status is not None
        return status

    def _tell_forked(self, child: process.Child) -> Life[None]:
        told = self._supervisor.around.plugged.call(
            "task_post_fork", self.spec, {"S_TASK_PID": child.pid}
        )
        error = yield from failed(told)
        if error is not None:
            self._refusal = error
            self.kill()

    def claim(self) -> dict[str, object]:
        """What could be left of this task if its supervisor were killed."""
        return self._container.claim() if self._container is not None else {}

    def processes(self) -> list[int]:
        """The task's processes, its first one first."""
        if self._container is not None:
            found = self._container.processes()
            if self.child is not None and self.child.status is None:  # its epilog
                found += self._with_those_below(self.child.pid)
            return found
        if self.child is None or not self.running:
            return []
        return self._with_those_below(self.child.pid)

    def _with_those_below(self, pid: int) -> list[int]:
        return [pid, *processes.below(pid, self._supervisor.spec.directory)]

    def stop_setup(self, processes: list[int]) -> bool:
        """End a runtime that has not made its container yet; whether there was one."""
        if self._container is None or not self.running:
            return False
        return self._container.stop_setup(processes)

    def kill(self) -> None:
        """SIGKILL to all of it; a runtime that waits for it sees its end."""
        self.sent = process.KILL
        for pid in self.processes():
            process.send(pid, process.KILL)

    def _ended(self, status: int) -> None:
        if self._refusal is not None:
            self._failed(self._refusal)
            return
        signo = -status if status < 0 else 0
        if self.ended_by and (signo == 9 or status == 137):
            signo = self.ended_by
        if self._container is not None and self.sent and status == self._container.signal_status:
            signo = self.sent
        code = 128 + signo if signo else status
        self._finish(TaskExit(procid=self.spec.procid, code=code, signal=signo))

    def _failed(self, error: RoadsteadError) -> None:
        ending = self._supervisor.ending
        error = self._refusal or error
        reason: Reason = "runtime" if error.kind == "runtime" else "launch"
        signo = self.ended_by or (process.TERM if ending is not None else 0)
        if signo and error.kind == "runtime":
            # We ended the container while the runtime was at work: that is not its failure.
            self._finish(
                TaskExit(
                    procid=self.spec.procid,
                    code=128 + signo,
                    signal=signo,
                    reason=ending or "program",
                )
            )
            return
        self._finish(
            TaskExit(
                procid=self.spec.procid,
                code=error.exit_code,
                reason=reason,
                message=str(error),
                hint=error.hint,
            )
        )

    def _finish(self, ended: TaskExit) -> None:
        self.running = False
        self._supervisor.around.left(self.spec)
        self._supervisor.task_ended(replace(ended, node=self.spec.node))

    def close(self) -> None:
        """Remove what the task had on disk."""
        if self._container is not None:
            self._container.close()


def look_up(command: str, path: str) -> str:
    """The program to execute.  Raises CommandNotFound (127) or CommandNotRunnable (126)."""
    if not command:
        raise CommandNotFound("the command is an empty string")
    found = process.which(command, path)
    if found is not None:
        return found
    candidates = [command] if "/" in command else [f"{d or '.'}/{command}" for d in path.split(":")]
    for candidate in candidates:
        if os.path.exists(candidate):
            raise CommandNotRunnable(f"{candidate}: not an executable file", hint="chmod +x it")
    raise CommandNotFound(f"{command}: not found", hint="check its name and PATH")
