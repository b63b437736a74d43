"""The life of one task's container.

Run mode is one command whose exit status is the container's.  Create/start mode is create, query,
start, and a wait for the container's first process, which the kernel gives to this process when
``create`` ends (we are a subreaper), so that its true exit status is ours to reap.  Slurm polls
``state`` instead and loses the status.

Whatever happens in between, the life ends with ``delete``.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from roadstead.errors import LaunchError, RoadsteadError, RuntimeFailure
from roadstead.host import console, namespaces, process, removal, sealed
from roadstead.oci import runtime
from roadstead.step import processes, scripts
from roadstead.step.life import Life, Until, until_ours
from roadstead.step.taskdir import TaskDirectory
from roadstead.systems import commands as told

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from roadstead.core.model import TaskSpec
    from roadstead.step.around import Around
    from roadstead.step.gate import Gate
    from roadstead.step.plan import Plan
    from roadstead.systems import System
    from roadstead.systems.commands import Told

Stdio = tuple[int, ...]

# No runtime needs a minute to answer; one that hangs must not hold the step for ever.
_COMMAND_SECONDS: Final = 60.0
_DELETIONS: Final = 3  # tries: the runtime may be killed at this as at all else
_BEFORE_THE_START: Final = ("run", "create", "query", "start")
STREAMS: Final = 3  # standard input, output and error


# What Podman and Docker raise where they are told nothing, as far as a user can.
_ULIMITS: Final = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}
_NO_LIMITS: Final[AbstractContextManager[int | None]] = nullcontext()


class Container:
    """One task's container.  ``inside`` puts what is started meanwhile under the step's limits."""

    def __init__(
        self,
        plan: Plan,
        task: TaskSpec,
        notice: Callable[[str], None],
        inside: AbstractContextManager[int | None] = _NO_LIMITS,
        around: Around | None = None,
        *,
        per_node: bool = False,
        host: Container | None = None,
    ) -> None:
        """``per_node``: it is one that tasks share; ``host`` is the one that this task is in."""
        if plan.request.per == "node" and not per_node and host is None:
            raise LaunchError("--container-per=node: tasks are started one by one here")
        if plan.request.network and around is None:
            raise LaunchError("--container-network: there are no networks of containers here")
        self.plan = plan
        self._inside = inside
        self.task = task
        self._notice = notice
        self.directory = TaskDirectory(plan, task, notice, "node" if per_node else "task")
        self.commands = self._commands()
        self.child: process.Child | None = None
        self.session = True  # whether the runtime leads a session of its own
        self._setup: process.Child | None = None
        self._patience = patience()
        self._around = around
        self._refusal: RoadsteadError | None = None
        self._is_held = False  # at its gate, by those around: no failure of the runtime's
        if host is not None:
            self.directory.fill_process(host.directory)
        else:
            self.directory.fill(around, waits=per_node)

    @property
    def gate(self) -> Gate | None:
        """Where the container waits for plugins, if there are any that want that."""
        return self.directory.gate

    @property
    def items(self) -> dict[str, Any]:
        """What plugins may ask of it."""
        return self.directory.items

    def _commands(self) -> runtime.Commands:
        plan = self.plan
        if plan.system is not None:
            return self._told(plan.system)
        if plan.conf is not None:
            return runtime.Configured(plan.conf, self.directory.substitutions())
        name = self.directory.container_id
        directory = self.directory.path
        log = f"{directory}/runtime.log"
        return runtime.BuiltIn(
            plan.program,
            name,
            directory,
            plan.runtime_root,
            log,
            descriptors=int(plan.spec.launch.mpi == "pmi2"),
        )

    @property
    def _system_commands(self) -> Told | None:
        """The commands, where a container system is told them."""
        if self.plan.system is None:
            return None
        assert isinstance(self.commands, told.Told)
        return self.commands

    def hand_over_terminal(self) -> str:
        """The path of a socket to which the runtime will send the container's terminal; "" if it
        will not: then it copies between that and the terminal it was given."""
        path = f"{self.plan.spec.directory}/console"
        commands = self.commands
        if not isinstance(commands, runtime.BuiltIn) or not commands.hands_over_terminals:
            return ""
        if len(os.fsencode(path)) > console.LONGEST:
            return ""
        self.commands = replace(commands, console=path)
        return path

    @property
    def keeps_state(self) -> bool:
        """Whether what the runtime keeps of a container that has ended is for it to remove: not
        where it goes with the step's own file system, and no hook waits for that."""
        return not self.plan.enclosed or self.plan.spec.uid == 0 or self.directory.has_last_hooks

    @property
    def signal_status(self) -> int:
        """The exit status that stands for an end by a signal, whichever; -1: none does."""
        system = self.plan.system
        return system.signal_status if system is not None and system.signal_status else -1

    def _told(self, system: System) -> Told:
        plan, spec = self.plan, self.plan.spec
        contents = plan.contents
        assert contents is not None
        share = next((each for each in spec.shares if each.node == self.task.node), None)
        return told.Told(
            system,
            plan.program,
            self.directory.container_id,
            self.directory.path,
            contents.own_name,
            env=plan.runtime_env,
            job=self.task.env,
            root=plan.request.remap_root,
            overlaid=plan.overlaid,
            cpus=self.task.cpus or spec.cpus,
            limits={
                name: (min(soft, hard) if hard >= 0 else soft, hard)
                for name, number in _ULIMITS.items()
                for soft, hard in (resource.getrlimit(number),)
            },
            memory=share.memory if share is not None else spec.memory,
        )

    # -- the life -----------------------------------------------------------------------------

    def life(self, stdio: Stdio, terminal: str) -> Life[int]:
        """Run the container to its end; returns its wait status (negative: killed by a signal).

        Raises RuntimeFailure when it was the runtime that failed, and what plugins or its network
        have refused it with.
        """
        if self.gate is not None and self._around is not None:
            self.gate.watch(self._around.loop, self._created)
        try:
            if self.gate is None and self._around is not None and self._around.waits(self.task):
                status = yield from self._life_after_meeting(stdio, terminal)
            else:
                status = yield from self._life_by_mode(stdio, terminal)
        except RuntimeFailure as failure:
            raise self._refusal or failure from None
        finally:
            self.child = None
            if self.gate is not None:
                self.gate.close()
        if self._refusal is not None:
            raise self._refusal
        return status

    def _life_after_meeting(self, stdio: Stdio, terminal: str) -> Life[int]:
        """Without a gate, to be able to start is all that it can tell the others."""
        assert self._around is not None
        mine = tuple([os.dup(fd) for fd in stdio])  # the step's are closed once all are started
        try:
            yield from self._around.stand(self.task)
            return (yield from self._life_by_mode(mine, terminal))
        finally:
            for fd in mine:
                os.close(fd)

    def _created(self, state: dict[str, Any]) -> None:
        """It is there, and waits at its gate."""
        assert self._around is not None
        assert self.gate is not None
        gate = self.gate
        self._is_held = True

        def refuse(error: RoadsteadError) -> None:
            self._is_held = False
            self._refusal = error
            gate.open(go=False)

        def admit(_: None) -> None:
            self._is_held = False
            gate.open()

        self._around.lives.start(self._around.created(self.task, self.items, state), admit, refuse)

    def _life_by_mode(self, stdio: Stdio, terminal: str) -> Life[int]:
        if self.commands.mode == "run":
            return (yield from self._run(stdio, terminal))
        if self.commands.mode == "detach":
            return (yield from self._run_detached(stdio))
        if terminal:
            raise RuntimeFailure(
                "--pty needs a runtime that is called in one go",
                hint="give oci.conf a RunTimeRun instead of RunTimeCreate and RunTimeStart",
            )
        return (yield from self._create_and_start(stdio))

    def _run(self, stdio: Stdio, terminal: str) -> Life[int]:
        argv = self._argv("run")
        assert argv is not None
        child = self.child = self._spawn("run", argv, stdio, terminal)
        status = yield Until(child, self._patience)
        if status is None:
            if not self.processes():
                yield from self._remove(kill=True)
                self._kill(child)
                yield Until(child)
                raise RuntimeFailure(
                    f"{self.commands.program} has not started the container in "
                    f"{self._patience:.0f} seconds"
                )
            status = yield Until(child)
        assert status is not None
        if process.was_killed(status):
            yield from self._end_calls()
        failure = self._run_failure(status) if status else None
        if status < 0 or not self.commands.removes_itself:
            yield from self._remove(kill=status < 0)
        if failure is not None:
            raise failure
        return status

    def _run_failure(self, status: int) -> RoadsteadError | None:
        """What the runtime has to say of itself, if it was not the program that failed."""
        name = self.commands.program
        if self._system_commands is not None:
            assert self.child is not None
            return self._system_commands.failure(status, self.child.comm)
        if status < 0:  # a container's end by a signal is 128 + signal here
            return RuntimeFailure(f"{name} was killed by signal {-status}")
        if self.commands.log:
            said = runtime.complaint(self.commands.log)
            if said:
                return self._failure(f"{name}: {said}")
            begun = self.commands.log  # crun makes it once it has understood config.json
        else:
            begun = self.directory.report
        if self.plan.bundle is None or os.path.exists(begun):
            return None
        return self._failure(
            f"{name} ended with status {status} before the container had started "
            "(its own message is on stderr)"
        )

    def _failure(self, sentence: str) -> RuntimeFailure:
        """The runtime's failure; with the setting that forbids user namespaces, if one does."""
        hint = namespaces.blocking_setting() if self.plan.uids is not None else ""
        return RuntimeFailure(sentence, hint=hint)

    def _run_detached(self, stdio: Stdio) -> Life[int]:
        """The runtime ends once the container has started, whose first process is then our child:
        its status is the true one, and no signal comes twice."""
        try:
            yield from self._must("run", stdio)
            with open(self.commands.pid_file, encoding="utf-8") as file:
                init = self.child = process.adopt(int(file.read()))
            self._setup = None
            yield from until_ours(init)
            status = yield Until(init)
            self.child = None
        finally:
            if self.child is not None or self.keeps_state:
                yield from self._remove(kill=self.child is not None)
        assert status is not None
        return status

    def _create_and_start(self, stdio: Stdio) -> Life[int]:
        try:
            yield from self._must("create", stdio)
            pid = yield from self._first_pid()
            init = self.child = process.adopt(pid)
            yield from self._must("start", None)
            self.begun()
            status = yield Until(init)
            self.child = None
        finally:
            yield from self._remove(kill=self.child is not None)
        assert status is not None
        return status

    def begun(self) -> None:
        """The program has been started; for those who want to know."""

    def _first_pid(self) -> Life[int]:
        text = yield from self._must("query", None)
        try:
            state = json.loads(text)
            pid = int(state["pid"])
        except (ValueError, TypeError, KeyError):
            raise RuntimeFailure(
                f"{self.commands.program}: RunTimeQuery printed no state with a pid: {text[:200]!r}"
            ) from None
        if pid not in process.children(os.getpid()):
            raise RuntimeFailure(
                f"{self.commands.program}: process {pid} of the container is not of this step",
                hint="a runtime that asks a daemon to start containers needs RunTimeRun",
            )
        return pid

    def _must(self, operation: runtime.Operation, stdio: Stdio | None) -> Life[str]:
        """Run one operation; raise RuntimeFailure if it fails or takes too long."""
        status, said = yield from self._call(operation, stdio)
        if status == 0:
            return said
        if self.commands.log:
            said = runtime.complaint(self.commands.log)
        how = "did not answer in time" if status is None else f"failed with status {status}"
        tail = f": {said.strip().splitlines()[-1]}" if said.strip() else ""
        if stdio is not None and not tail:
            tail = " (its own message is on stderr)"
        raise self._failure(f"{self.commands.program}: {operation} {how}{tail}")

    def _call(
        self, operation: runtime.Operation, stdio: Stdio | None = None
    ) -> Life[tuple[int | None, str]]:
        """Run one operation; its status (None: it took too long and was killed) and its output.

        An operation that has no command succeeds: there is nothing to do.

        Its output goes to a memfd, not a pipe: ``create`` leaves a process behind that would hold a
        pipe open for as long as the container lives.
        """
        argv = self._argv(operation)
        if argv is None:
            return 0, ""
        memory = os.memfd_create("roadstead-runtime", os.MFD_CLOEXEC)
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            child = self._spawn(operation, argv, stdio or (null, memory, memory), "")
            status = yield Until(child, self._patience)
            while status is None and self._is_held:
                status = yield Until(child, self._patience)
            if status is None:
                self._kill(child)
                yield Until(child)
            if process.was_killed(status):
                yield from self._end_calls()
            return status, os.pread(memory, 1 << 20, 0).decode(errors="replace")
        finally:
            os.close(null)
            os.close(memory)

    def _spawn(
        self, operation: runtime.Operation, argv: list[str], stdio: Stdio, terminal: str
    ) -> process.Child:
        env = self.plan.runtime_env
        soft: dict[int, int] = {}
        if (its := self._system_commands) is not None:
            env = its.environment if operation == "run" else its.base
            soft = scripts.limits(self.plan.spec.limits) if operation == "run" else {}
        if operation in ("run", "create") and len(stdio) > STREAMS and self.plan.conf is not None:
            # What crun and runc take for --preserve-fds where they are not told (sd_listen_fds(3)).
            env = {**env, "LISTEN_FDS": str(len(stdio) - STREAMS)}
        makes = operation in ("run", "create")
        born = self._inside if makes else nullcontext()
        cpus = self.task.cpus if makes else ()
        try:
            with process.on_cpus(cpus, self.plan.spec.cpus), born as group:
                child = start_runtime(
                    self.commands,
                    argv,
                    env=env,
                    stdio=stdio,
                    terminal=terminal,
                    session=self.session,
                    group=group,
                    limits=soft,
                )
        except OSError as error:
            raise RuntimeFailure(f"cannot execute {argv[0]}: {error.strerror}") from None
        self._setup = child if operation in _BEFORE_THE_START else None
        return child

    def _end_calls(self) -> Life[None]:
        """End the runtime that a shell which was killed has left at work, and which is our child
        now: it would go on to make what is about to be deleted.  The container's name is in its
        command line; no other task's has that."""
        named = re.compile(rf"(?<![\w.-]){re.escape(self.directory.container_id)}(?![\w.-])")
        for pid in process.children(os.getpid()):
            if not named.search(" ".join(process.arguments(pid))):
                continue
            with contextlib.suppress(ProcessLookupError):
                orphan = process.adopt(pid)
                self._kill(orphan)
                yield Until(orphan)

    def stop_setup(self, processes: list[int]) -> bool:
        """End the runtime while it is still making the container: no signal can reach that yet.

        ``processes`` are the container's, as seen by who has a signal for them.
        """
        if self._setup is None or not all(map(_is_runtime, processes)):
            return False
        self._kill(self._setup)
        return True

    @staticmethod
    def _kill(child: process.Child) -> None:
        for pid in process.descendants(child.pid):
            process.send(pid, process.KILL)
        child.signal(process.KILL)

    def _argv(self, operation: runtime.Operation) -> list[str] | None:
        """The command of an operation; %p is the container's first process, or the runtime's."""
        first = self.processes()[:1]
        if not first and self.child is not None and self.child.status is None:
            first = [self.child.pid]
        return self.commands.command(operation, *first)

    def _remove(self, *, kill: bool = False) -> Life[None]:
        """Delete the container; ``kill``: end first what still runs in it (RunTimeKill)."""
        if kill:
            yield from self._call("kill")
        said = ""
        for _ in range(_DELETIONS):
            status, said = yield from self._call("delete")
            if status == 0:
                return
            if self.commands.command("query") is not None:
                there, _ = yield from self._call("query")
                if not process.was_killed(there) and there != 0:
                    return
            elif not process.was_killed(status):
                return
            for pid in self.processes():
                process.send(pid, process.KILL)
        self._notice(f"warning: {self.commands.program} could not delete the container: {said}")

    def processes(self) -> list[int]:
        """The container's processes, the first one first: what runs in another mount namespace."""
        if self.child is None:
            return []
        below = [self.child.pid, *processes.below(self.child.pid, self.plan.spec.directory)]
        if self._system_commands is not None:
            found = self._system_commands.processes(self.child, below)
            self._setup = None if found else self._setup
            return found
        own = process.namespace("self", "mnt")
        found = [pid for pid in below if process.namespace(pid, "mnt") not in ("", own)]
        if self._setup is not None and not all(map(_is_runtime, found)):
            self._setup = None  # the program is there: its runtime only waits now
        return found

    def claim(self) -> dict[str, object]:
        """How to remove what the runtime may leave, for somebody who finds us gone."""
        return {
            "delete": self.commands.command("delete"),
            "path": self.plan.runtime_env.get("PATH", ""),
            "litter": self.plan.system.litter if self.plan.system is not None else "",
            "env": self._system_commands.base if self._system_commands is not None else {},
            "state": self.commands.state,
            "directory": self.directory.path,
            "cgroups": self.directory.cgroups,
        }

    def close(self) -> None:
        """Remove the task's directory, and what a runtime that was killed has left of its state."""
        if self._system_commands is not None:
            self._system_commands.close()
        self.directory.remove()
        if self.commands.state and os.path.lexists(self.commands.state):
            removal.remove_tree(self.commands.state)


def patience() -> float:
    """How many seconds a call of a runtime may take."""
    return float(os.environ.get("ROADSTEAD_RUNTIME_TIMEOUT") or _COMMAND_SECONDS)


def start_runtime(
    commands: runtime.Commands, argv: list[str], *, stdio: Stdio, **how: Any
) -> process.Child:
    """Start one of the runtime's commands, of a copy of the runtime where that is better.  What
    else there is to it is process.spawn's, and so is what it raises."""
    name = commands.copy_name if isinstance(commands, runtime.BuiltIn) else ""
    copied = sealed.copy(argv[0], name, least=len(stdio)) if name else -1
    if copied >= 0:
        try:
            return process.spawn(argv, stdio=stdio, executed=copied, **how)
        except PermissionError:  # somebody has a list of what may be executed here (fapolicyd)
            pass
        finally:
            os.close(copied)
    return process.spawn(argv, stdio=stdio, **how)


def _is_runtime(pid: int) -> bool:
    """Whether a container's process is still its runtime, on the way to becoming the program."""
    executable = process.executable(pid)
    return not executable or runtime.executes(executable)
