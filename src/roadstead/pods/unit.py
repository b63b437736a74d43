"""One container of a pod, through all of its runs.

A run is a Container of step/, as srun --container has it, with a root of its own that begins as the
image is.  It is created first and started then, so that it is known when its program runs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from roadstead.core.model import TaskSpec
from roadstead.errors import RoadsteadError, RuntimeFailure
from roadstead.host import process
from roadstead.oci import runtime
from roadstead.pods import asking
from roadstead.pods.asking import Prober
from roadstead.step.container import Container
from roadstead.step.life import Life

if TYPE_CHECKING:
    from roadstead.pods import model
    from roadstead.pods.runner import Runner
    from roadstead.step.plan import Plan

_KILLED: Final = 137
_HOOK_SECONDS: Final = 30.0


class _Run(Container):
    """One run of a container."""

    on_begun: Callable[[], None] = staticmethod(lambda: None)

    def _commands(self) -> runtime.Commands:
        plan, directory = self.plan, self.directory.path
        return runtime.BuiltIn(
            plan.program,
            self.directory.container_id,
            directory,
            plan.runtime_root,
            f"{directory}/runtime.log",
            mode="create",
        )

    def begun(self) -> None:
        self.on_begun()


class Unit:
    """A container of a pod."""

    def __init__(self, runner: Runner, wanted: model.Container, plan: Plan) -> None:
        self.wanted = wanted
        self._runner = runner
        self._plan = plan
        self._run: _Run | None = None
        self._probers: list[Prober] = []
        self._began = 0.0
        self._stopping = False
        self._ended_by = 0
        self._kill_timer: object | None = None
        self._mounts = ""  # the mount namespace of the run

    @property
    def name(self) -> str:
        return self.wanted.name

    # -- a run ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin a run; its end, or its failure to start, is told to the runner."""
        runner = self._runner
        self._began, self._stopping, self._ended_by = time.monotonic(), False, 0
        try:
            made = self._make()
        except RoadsteadError as error:
            failure = error
            runner.loop.call_later(0, lambda: self._failed(failure))
            return
        stdio = runner.output.connect(self.name, stdin=self.wanted.stdin)
        kept = tuple(os.dup(fd) for fd in stdio)

        def life() -> Life[int]:
            try:
                return (yield from made.life(kept, ""))
            finally:
                for fd in kept:
                    os.close(fd)

        runner.output.release(stdio)
        self._run = made
        runner.lives.start(life(), self._ended, self._failed)

    def _make(self) -> _Run:
        runner = self._runner
        number = runner.next_number()
        task = TaskSpec(
            procid=number,
            localid=number,
            argv=runner.arguments(self.wanted, self._plan),
            env=runner.environment(self.wanted),
            node=self._plan.spec.node,
        )
        made = _Run(self._plan, task, runner.notice, runner.limits.inside(self.name))
        made.on_begun = self._begun
        runner.claim(self.name, made.claim())
        return made

    def _begun(self) -> None:
        """The program runs."""
        wanted, runner = self.wanted, self._runner
        if self._run is not None and self._run.child is not None:
            self._mounts = process.namespace(self._run.child.pid, "mnt")
        runner.begun(self)
        if wanted.post_start is not None:
            runner.lives.start(
                asking.ask(self, wanted.post_start, _HOOK_SECONDS + wanted.post_start.seconds),
                self._greeted,
                lambda error: self._greeted(str(error)),
            )
        else:
            self._greeted("")

    def _greeted(self, why: str) -> None:
        """The postStart hook has done its work; probes begin."""
        if self._run is None or self._stopping:
            return
        if why:
            self._runner.complain(f"container {self.name}: postStart has failed: {why}")
            self.stop(process.TERM)
            return
        if self.wanted.startup is not None:
            self._probe(self.wanted.startup, self._startup)
        else:
            self._has_started()

    def _probe(self, probe: model.Probe, changed: Callable[[bool, str], None]) -> None:
        runner = self._runner
        self._probers.append(Prober(runner.loop, runner.lives, self, probe, changed))

    def _startup(self, good: bool, why: str) -> None:
        self._end_probes()
        if good:
            self._has_started()
        else:
            self._unhealthy("startup", self.wanted.startup, why)

    def _has_started(self) -> None:
        wanted = self.wanted
        if wanted.liveness is not None:
            self._probe(wanted.liveness, self._liveness)
        if wanted.readiness is not None:
            self._probe(wanted.readiness, self._readiness)
        self._runner.started(self, ready=wanted.readiness is None)

    def _liveness(self, good: bool, why: str) -> None:
        if not good:
            self._end_probes()
            self._unhealthy("liveness", self.wanted.liveness, why)

    def _readiness(self, good: bool, why: str) -> None:
        self._runner.ready(self, good, why)

    def _unhealthy(self, kind: str, probe: model.Probe | None, why: str) -> None:
        assert probe is not None
        self._runner.complain(f"container {self.name}: {kind} probe has failed: {why}: ending it")
        self.stop(process.TERM, probe.grace)

    def _end_probes(self) -> None:
        for prober in self._probers:
            prober.stop()
        self._probers.clear()

    # -- its end ----------------------------------------------------------------------------------

    def stop(self, signo: int, grace: float | None = None) -> None:
        """Have it end: its preStop hook, ``signo``, and SIGKILL when its time is over."""
        if self._run is None or self._stopping:
            return
        self._stopping = True
        self._end_probes()
        loop = self._runner.loop
        seconds = self._runner.pod.grace if grace is None else grace
        timer = loop.call_later(seconds, self.kill)
        self._kill_timer = timer
        if self.wanted.pre_stop is None:
            self.signal(signo)
            return
        hook = asking.ask(self, self.wanted.pre_stop, seconds)
        done = lambda why: self.signal(signo)  # noqa: E731
        self._runner.lives.start(hook, done, done)

    def signal(self, signo: int) -> None:
        """Send a signal to the container's first process, as supervisor.signal does."""
        run = self._run
        if run is None:
            return
        pids = run.processes()
        if signo in process.ENDING and run.stop_setup(pids):
            self._ended_by = self._ended_by or signo
            return
        for pid in pids[:1]:
            state = process.signal_state(pid) if signo in process.ENDING else None
            if state is not None and state.drops(signo):
                self._ended_by = self._ended_by or signo
                process.send(pid, process.KILL)
            else:
                process.send(pid, signo)

    def kill(self) -> None:
        """SIGKILL to all of it."""
        run = self._run
        if run is None:
            return
        pids = run.processes()
        run.stop_setup(pids)
        for pid in pids:
            process.send(pid, process.KILL)

    def _ended(self, status: int) -> None:
        signo = -status if status < 0 else 0
        if self._ended_by and signo == process.KILL:
            signo = self._ended_by
        self._over(128 + signo if signo else status, "")

    def _failed(self, error: RoadsteadError) -> None:
        if self._stopping and isinstance(error, RuntimeFailure):
            self._over(128 + (self._ended_by or process.TERM), "")
            return
        hint = f"; {error.hint}" if error.hint else ""
        self._over(error.exit_code, f"{error}{hint}")

    def _over(self, code: int, sentence: str) -> None:
        self._end_probes()
        if self._kill_timer is not None:
            self._kill_timer.cancel()  # type: ignore[attr-defined]
            self._kill_timer = None
        run, self._run = self._run, None
        if self._mounts:
            for pid in self._runner.sandbox.left_of(self._mounts):
                process.send(pid, process.KILL)
            self._mounts = ""
        if run is not None:
            run.close()
        self._runner.ended(self, code, time.monotonic() - self._began, sentence)

    # -- what runs in it --------------------------------------------------------------------------

    def execute(self, command: tuple[str, ...], output: int) -> process.Child:
        """Execute a command in the container.  Raises OSError."""
        assert self._run is not None
        plan = self._plan
        argv = [
            plan.program,
            f"--root={plan.runtime_root}",
            "exec",
            self._run.directory.container_id,
            *command,
        ]
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return process.spawn(argv, env=plan.runtime_env, stdio=(null, output, output))
        finally:
            os.close(null)
