"""The supervisor of one step on one node: from its first file to the record of its end.

Forked by the spawner, in a session of its own, so that it outlives the controller.  It is a child
subreaper: whatever its tasks leave behind becomes its child, and it does not end before all of
that has ended.  It waits in one place, the loop, for the ends of processes, for deadlines, for
bytes to relay and for messages of the controller; it polls nothing.

The order at the end is the promise: all tasks have ended, all their processes are gone, all output
has been delivered, the runtime's state and the directories are removed, the exit record is a file;
only then is the controller told.
"""

from __future__ import annotations

import logging
import os
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from roadstead.core.model import ExitRecord, TaskExit, to_json
from roadstead.errors import LaunchError, RoadsteadError
from roadstead.host import linux, paths, process, removal, terminal
from roadstead.host.loop import Loop, Timer
from roadstead.step import broadcast, meeting, mpi, named, record, scripts, shared, sweep, usage
from roadstead.step import plan as plans
from roadstead.step.around import Around
from roadstead.step.arrival import Arrival
from roadstead.step.conversation import Conversation
from roadstead.step.layout import task_specs
from roadstead.step.life import Lives
from roadstead.step.limits import Limits
from roadstead.step.orphans import Orphans
from roadstead.step.plugged import failed
from roadstead.step.save import Saving
from roadstead.step.streams import Streams
from roadstead.step.task import Task, look_up

if TYPE_CHECKING:
    from roadstead.core.model import Reason, StepSpec
    from roadstead.host import wire
    from roadstead.step.plan import Plan

_PATIENCE: Final = 10.0  # seconds, with what was told to end
_STREAMS: Final = 3  # the user's; what comes after them is for plugins (plugged.py)
_ROUNDS: Final = 20  # of looking for processes that are not stopped yet
_HIGHEST_SIGNAL: Final = 64
_LARGEST_TERMINAL: Final = 0xFFFF  # tty_ioctl(4), struct winsize

log = logging.getLogger(__name__)


def main(
    spec: StepSpec,
    ctl: wire.Connection,
    fds: list[int],
    settled: Callable[[], None] = lambda: None,
) -> bool:
    """Run one step to its end.  ``fds`` are the user's 0, 1 and 2, or empty; ``settled`` is called
    once the step has its directory and its tasks are on their way, or cannot be.  Returns when all
    is done: whether this process can supervise another step, as nothing went amiss and it has not
    left its namespaces.  A failure of the step is told to the controller, never raised."""
    linux.set_process_name("roadstead-step")
    linux.set_child_subreaper()
    return Supervisor(spec, ctl, fds).run(settled)


class Supervisor:
    """One step in progress."""

    def __init__(self, spec: StepSpec, ctl: wire.Connection, fds: list[int]) -> None:
        self.spec = spec
        self.loop = Loop()
        self.lives = Lives(self.loop)
        self.limits = Limits(spec, self.loop, self._notice, self._over_memory)
        user, command = fds[:_STREAMS], fds[_STREAMS:]
        self.streams = Streams(self.loop, spec, user, lambda: self.signal(process.HUP))
        self.mpi = mpi.Server(self.loop, spec, self._mpi_abort, self._notice)
        self.saving = Saving(self.loop, spec)
        self.around = Around.of(
            spec, self.loop, self.lives, self._notice, command,
            named.directory(paths.state_directory(os.environ), spec.job_id),
        )  # fmt: skip
        self.orphans = Orphans(
            self.loop, self.lives, spec.directory, lambda: self.around.plugged.pid
        )
        self._plugin_failure = ""
        self.plan: Plan | None = None
        self.tasks: list[Task] = []
        self.exits: list[TaskExit] = []
        self.started_at = time.time()
        self._usage = resource.getrusage(resource.RUSAGE_CHILDREN)  # of steps that we had before
        self.ending: Reason | None = None
        self._unchanged = True
        self._ends_at = spec.deadline
        self._stopped_at: float | None = None
        self._hold = -1
        self._timers: dict[str, Timer] = {}
        self.conversation = Conversation(self.loop, spec, self.streams, self._heed)
        self.conversation.add(ctl)

    # -- start --------------------------------------------------------------------------------

    def run(self, settled: Callable[[], None]) -> bool:
        """Start the step, and serve it until it has ended; whether the process is as it was."""
        self._attempt(self._begin)
        try:
            self.conversation.listen(f"{self.spec.directory}/{record.SOCKET}")
        except OSError as error:
            if not self.exits:  # else it has failed, and said so
                self._notice(f"warning: cannot be adopted by another controller: {error.strerror}")
        settled()
        self.loop.run()
        self.conversation.close()
        self.streams.close()
        self.loop.close()
        if self._hold >= 0:
            os.close(self._hold)
        return self._unchanged

    def _attempt(self, part: Callable[[], None]) -> None:
        """A part of the start; the step fails if that does."""
        try:
            part()
        except RoadsteadError as error:
            if self.ending is not None and not self.tasks:
                self._cancelled()
            else:
                self._fail(error)
        except OSError as error:
            where = f" {error.filename}" if error.filename else ""
            self._fail(LaunchError(f"cannot set up the step:{where} {error.strerror}"))

    def _begin(self) -> None:
        self._check_place()
        # Until we have settled no other controller can begin (spawner.py): a directory is
        # enough to be found by.
        if os.path.lexists(self.spec.directory):
            sweep.sweep(self.spec.directory)  # of a journal that was moved away
        os.makedirs(self.spec.directory, mode=0o700)
        self._hold = record.hold(self.spec.directory)
        self.around.plugged.begin()
        made = self._prepare()
        self.plan = made[0] if len(made) == 1 else None
        self._make_tasks(made)
        if self.spec.kind == "batch" and self.streams.missing_directory():
            missing = self.streams.missing_directory
            Arrival(self.loop, missing, lambda: self._attempt(self._start_tasks))
        else:
            self._start_tasks()

    def _check_place(self) -> None:
        """A run-time directory in /tmp may be gone by now (tmpfiles.d(5) removes what is old), and
        another one there that somebody else has made."""
        steps = os.path.dirname(self.spec.directory)
        paths.make_private(os.path.dirname(steps))
        paths.make_private(steps)

    def _claim(self, containers: list[dict[str, object]]) -> None:
        """Write down who we are and what could be left of us, before a task is started."""
        record.write_claim(
            self.spec.directory,
            record.claim_of_ours(
                self.spec.directory,
                containers=containers,
                groups=self.limits.groups,
                files=self.saving.files,
            ),
        )

    def _prepare(self) -> list[Plan | None]:
        """Make ready what the tasks share; the plan of each of the step's parts."""
        spec = self.spec
        if spec.cpus:
            os.sched_setaffinity(0, spec.cpus)
        self.limits.decide()
        os.umask(spec.umask)
        if spec.container is not None:
            self.saving.check()
        made = plans.prepare(spec, self._notice)
        if spec.script:
            scripts.write_startup(spec)
        self._change_directory()
        return made

    def _change_directory(self) -> None:
        try:
            os.chdir(self.spec.cwd)
        except OSError as error:
            if self.spec.container is None:
                self._notice(
                    f"error: couldn't chdir to `{self.spec.cwd}': {error.strerror}: "
                    "going to /tmp instead"
                )
            os.chdir("/tmp")

    def _make_tasks(self, made: list[Plan | None]) -> None:
        wanted = broadcast.of_program(self.spec, task_specs(self.spec), look_up)
        if (found := meeting.of(self.spec, wanted)) is not None:
            self.around = replace(self.around, meeting=found)
        specs = self.around.prepared(self.mpi.prepared(wanted))
        supervised = [(made[each.part], each, self.limits.inside(each.procid)) for each in specs]
        containers = shared.of_tasks(supervised, self._notice, self.around)
        self.tasks = [Task(self, *each) for each in zip(specs, containers, strict=True)]
        self._claim([task.claim() for task in self.tasks])
        self.limits.apply()

    def _start_tasks(self) -> None:
        if self.ending is not None:
            self._cancelled()
            return
        # Every task is made before the first one starts: a step does not begin half.
        connected = [
            (
                task,
                self.streams.for_task(
                    task.spec.procid, task.spec.node, task.spec.nodeid, task.hand_over_terminal()
                ),
            )
            for task in self.tasks
        ]
        more = self.mpi.open([task.spec for task in self.tasks])
        for (task, stdio), extra in zip(connected, more, strict=True):
            task.start((*stdio, *extra))
        self.streams.started()
        self.mpi.started()
        self.conversation.tell({"event": "started", "pid": os.getpid(), "at": self.started_at})
        self._arm_limit()

    def _cancelled(self) -> None:
        """The step was ended before it had begun."""
        assert self.ending is not None
        code = 128 + process.TERM
        ended = TaskExit(procid=0, code=code, signal=process.TERM, reason=self.ending)
        self.exits.append(ended)
        self.loop.call_later(0, self._all_ended)

    def _fail(self, error: RoadsteadError) -> None:
        """The step cannot start: no task of it has run, or those that have are ended."""
        self._unchanged = False  # it may have got as far as a namespace
        reason: Reason = "runtime" if error.kind == "runtime" else "launch"
        self.exits.append(
            TaskExit(
                procid=0, code=error.exit_code, reason=reason, message=str(error), hint=error.hint
            )
        )
        self._say_failure(str(error), error.hint)
        self._kill_everything()
        if not any(task.running for task in self.tasks):
            self.loop.call_later(0, self._all_ended)

    def _say_failure(self, sentence: str, hint: str) -> None:
        if self.spec.kind == "batch":
            self.streams.say(f"slurmstepd: error: {sentence}{'; ' + hint if hint else ''}")

    # -- the controller -----------------------------------------------------------------------

    def _heed(self, connection: wire.Connection, message: dict[str, object]) -> None:
        match message.get("op"):
            case "adopt":
                answer = {"event": "adopted", "pid": os.getpid(), "started_at": self.started_at}
                self.conversation.answer(connection, answer)
            case "signal":
                signo = _number(message, "signal", _HIGHEST_SIGNAL)
                self.signal(signo, batch_only=bool(message.get("batch_only")))
            case "terminate":
                reason: Reason = "timeout" if message.get("reason") == "timeout" else "cancelled"
                signo = _number({"signal": process.TERM, **message}, "signal", _HIGHEST_SIGNAL)
                self.terminate(reason, signo)
            case "suspend":
                self.suspend()
            case "resume":
                self.resume()
            case "limit":
                deadline = message.get("deadline")
                if deadline is not None and not isinstance(deadline, (int, float)):
                    raise ValueError(f"deadline is {deadline!r:.40}")
                self._ends_at = deadline
                self._arm_limit()
            case "resize":
                rows = _number(message, "rows", _LARGEST_TERMINAL)
                self._resize(rows, _number(message, "columns", _LARGEST_TERMINAL))
            case "usage":
                tasks = usage.measure(self.tasks, self.spec.node)
                self.conversation.answer(connection, {"event": "usage", "tasks": tasks})
            case "notify":
                self._notify(str(message.get("sentence", "")))
            case "layout":
                self.conversation.answer(connection, {"event": "layout", "nodes": self._layout()})
            case _:
                pass  # a newer controller may ask more than we understand

    def _layout(self) -> list[dict[str, object]]:
        """The step's nodes, each with its tasks."""
        nodes: dict[str, list[int]] = {}
        for task in self.tasks:
            nodes.setdefault(task.spec.node or self.spec.node, []).append(task.spec.procid)
        return [{"name": name, "tasks": tasks} for name, tasks in nodes.items()]

    def _resize(self, rows: int, columns: int) -> None:
        """The user's window has changed: our pty, and the container's own behind it.

        runc passes the size on by itself when SIGWINCH tells it; crun 1.8 does not.
        """
        self.streams.resize(rows, columns)
        if self.spec.container is not None:
            for pid in self.tasks[0].processes()[:1]:
                terminal.resize_of_process(pid, rows, columns)

    def _notice(self, sentence: str) -> None:
        self.conversation.tell({"event": "notice", "sentence": sentence})
        if self.spec.kind == "batch" and sentence.startswith(("error:", "warning:")):
            self.streams.say(f"slurmstepd: {sentence}")

    def _notify(self, sentence: str) -> None:
        """What scontrol notify says to a batch job: a line in its standard error."""
        self.streams.say(f"slurmstepd: error: {sentence}")

    def _notice_of_end(self, why: str) -> None:
        """The line that tells a script's reader, or srun's, why it all ended (as slurmstepd's)."""
        spec = self.spec
        what = (
            f"JOB {spec.job_id}" if spec.kind == "batch" else f"STEP {spec.job_id}.{spec.step_id}"
        )
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S")
        self._notice(f"error: *** {what} ON {spec.node} CANCELLED AT {stamp}{why} ***")

    # -- signals and ends ---------------------------------------------------------------------

    def signal(self, signo: int, *, batch_only: bool = False) -> None:
        """Send ``signo`` to every process of every task (``batch_only``: to the first of each).

        A container's first process gets no signal that it has no handler for: the kernel throws it
        away.  Where the default of such a signal is to end the process, it is ended as by SIGKILL,
        and its task's exit says ``signo``: that is what the sender meant.  So is the runtime that
        has not made its container yet, as no program has a handler for anything before it runs.
        """
        for task in self.tasks:
            pids = task.processes()
            if signo in process.ENDING and task.stop_setup(pids):
                task.ended_by = task.ended_by or signo
                continue
            for pid in pids[:1] if batch_only else pids:
                state = process.signal_state(pid) if signo in process.ENDING else None
                if state is not None and state.drops(signo):
                    task.ended_by = task.ended_by or signo
                    process.send(pid, process.KILL)
                else:
                    task.sent = signo if signo in process.ENDING else task.sent
                    process.send(pid, signo)

    def terminate(self, reason: Reason, signo: int) -> None:
        """End the step: ``signo`` now, SIGKILL after KillWait."""
        if self.ending is not None and signo != process.KILL:
            return
        if self.ending is None:
            self.ending = reason
            self._stopped_at = None  # SIGCONT follows
            if not any(task.running for task in self.tasks):
                self._drain_in_time()
            self.around.plugged.stop_waiting()
            self._notice_of_end(" DUE TO TIME LIMIT" if reason == "timeout" else "")
        self.saving.stop()
        for task in self.tasks:
            task.stop_setup(task.processes())
        self.signal(process.CONT)
        self.signal(signo)
        if signo != process.KILL:
            self._timers["kill"] = self.loop.call_later(self.spec.kill_wait, self._kill)

    def _kill(self) -> None:
        """SIGKILL to the tasks' processes; their runtimes tell how they ended, if they can."""
        for task in self.tasks:
            task.stop_setup(task.processes())
            task.kill()
        self._timers["kill"] = self.loop.call_later(_PATIENCE, self._kill_everything)

    def _kill_everything(self) -> None:
        for task in self.tasks:
            task.kill()
        for pid in self.orphans.pids():
            process.send(pid, process.KILL)

    def _over_memory(self, sentence: str) -> None:
        """The tasks have more memory than they may, and no kernel to stop them."""
        if self.ending is None:
            self.ending = "memory"
            self._notice(f"error: {sentence}")
            self._notice("error: Exceeded job memory limit")
            self._notice_of_end("")
        self._kill()

    def _mpi_abort(self, procid: int, code: int, words: str) -> None:
        """A task has called MPI_Abort: the step ends, as in Slurm by SIGKILL."""
        if self.ending is None:
            said = f": {words.strip()}" if words.strip() else ""
            self._notice(f"error: task {procid} called MPI_Abort({code}){said}")
            self.terminate("cancelled", process.KILL)

    def suspend(self) -> None:
        """Stop every process of every task, and the clock of the time limit.

        What a process forks before the signal reaches it is found in the next round.
        """
        if self._stopped_at is None and self.ending is None:
            self._stopped_at = time.time()
            self._arm_limit()
        for _ in range(_ROUNDS):
            found = [pid for task in self.tasks for pid in task.processes()]
            running = [pid for pid in found if not process.is_stopped(pid)]
            if not running:
                break
            for pid in running:
                process.send(pid, process.STOP)

    def resume(self) -> None:
        """Let them go on; the time limit is as much later as they stood still."""
        if self._stopped_at is None:
            return
        if self._ends_at is not None:
            self._ends_at += max(0.0, time.time() - self._stopped_at)
        self._stopped_at = None
        self.signal(process.CONT)
        self._arm_limit()

    def _arm_limit(self) -> None:
        timer = self._timers.pop("deadline", None)
        if timer is not None:
            timer.cancel()
        if self._ends_at is not None and self._stopped_at is None:
            left = max(0.0, self._ends_at - time.time())
            self._timers["deadline"] = self.loop.call_later(left, self._out_of_time)

    def _out_of_time(self) -> None:
        self.terminate("timeout", process.TERM)

    def task_ended(self, ended: TaskExit) -> None:
        """A task is over; the step is when all are."""
        ended = self.limits.ended(ended)
        if self.ending is not None and ended.reason == "program":
            ended = replace(ended, reason=self.ending)
        self.exits.append(ended)
        if ended.message and self.spec.kind == "batch" and self.ending != "memory":
            self._say_failure(ended.message, ended.hint)
        left = [task for task in self.tasks if task.running]
        if not left:
            self._all_ended()
            return
        if self.spec.kill_on_bad_exit and ended.code and self.ending is None:
            self._notice(f"error: task {ended.procid} failed: ending the step")
            self.terminate("cancelled", process.TERM)
        elif self.spec.wait and "wait" not in self._timers:
            self._timers["wait"] = self.loop.call_later(self.spec.wait, self._waited_enough)

    def _waited_enough(self) -> None:
        self._notice(
            f"error: a task ended {self.spec.wait:.0f}s ago and others have not: ending the step"
        )
        self.terminate("cancelled", process.TERM)

    # -- the end ------------------------------------------------------------------------------

    def _all_ended(self) -> None:
        self.around.close_network()
        for timer in self._timers.values():
            timer.cancel()
        if self.ending is not None:
            self._drain_in_time()
        self.orphans.end(self._save, self._give_up)

    def _save(self) -> None:
        """--container-save: of a step that has come to its own end, whatever its exit code."""
        itself = self.ending is None and all(ended.reason == "program" for ended in self.exits)
        if self.plan is None or not itself:
            self.streams.finish(self._drained)
            return

        def saved(error: str) -> None:
            if error:
                self._has_failed(error)
            self.streams.finish(self._drained)

        self.saving.start(self.plan, saved)

    def _drain_in_time(self) -> None:
        """A step that was told to end does not wait for ever for a reader that has stopped."""
        self.loop.call_later(_PATIENCE, self.streams.abandon)

    def _give_up(self, pids: list[int]) -> None:
        """A process that SIGKILL does not end is stuck in the kernel; say so and go on."""
        self._unchanged = False
        self._notice(f"error: processes {pids} do not end (blocked in the kernel)")
        self.streams.finish(self._drained)

    def _drained(self, error: str) -> None:
        if error:
            self._output_was_lost(error)
        if not self.around.plugged.has("exit"):
            self._end()
            return

        def told(failure: RoadsteadError | None) -> None:
            if failure is not None:
                self.plugin_failed(failure)
            self._end()

        self.lives.start(failed(self.around.plugged.call("exit", None, {})), told, told)

    def _end_plugins(self) -> None:
        """End the process that plugins were called in, and see what they have started end."""
        was_there = self.around.plugged.pid
        self.around.close()
        if was_there:
            self.orphans.end_now()

    def plugin_failed(self, error: RoadsteadError) -> None:
        """A required plugin has failed once tasks ran: so has the step."""
        self._plugin_failure = self._plugin_failure or str(error)

    def _end(self) -> None:
        if self._plugin_failure:
            self._has_failed(self._plugin_failure)
        self._end_plugins()
        for task in self.tasks:
            task.close()
        if self.plan is not None:
            self.plan.close()
        self.mpi.close()
        self.exits = self.limits.close(self.exits)
        self.conversation.stop_listening()
        result = self._record()
        try:
            record.write_exit(self.spec.directory, result)
        except OSError as failure:  # a controller that listens is told all the same
            log.error("exit record not written error=%r", failure.strerror)
            self._unchanged = False
        os.chdir("/")
        try:
            if self.plan is not None and self.plan.system is not None and self.plan.system.litter:
                sweep.remove_litter(self.plan.system.litter, self.started_at)
            sweep.sweep_inner(self.spec.directory)
            removal.remove_tree(self.spec.directory)
        except OSError as failure:  # whoever waits is told how the step ended all the same
            self._unchanged = False  # while we live, our claim is not swept
            self._notice(f"warning: {self.spec.directory} cannot be removed: {failure.strerror}")
        self.conversation.tell_end({"event": "exit", "record": to_json(result)})
        self.loop.stop()

    def _output_was_lost(self, error: str) -> None:
        """A step whose output is not where it was to be has not succeeded, whatever it says."""
        self._has_failed(f"output was lost: {error}")

    def _has_failed(self, message: str) -> None:
        if all(ended.code for ended in self.exits):
            self._notice(f"error: {message}")
        self.exits = [
            ended if ended.code else replace(ended, code=1, reason="launch", message=message)
            for ended in self.exits
        ]

    def _record(self) -> ExitRecord:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return ExitRecord(
            job_id=self.spec.job_id,
            step_id=self.spec.step_id,
            tasks=tuple(sorted(self.exits, key=lambda ended: ended.procid)),
            started_at=self.started_at,
            ended_at=time.time(),
            user_seconds=used.ru_utime - self._usage.ru_utime,
            system_seconds=used.ru_stime - self._usage.ru_stime,
            max_rss_kib=self.lives.peak,
        )


def _number(message: dict[str, object], name: str, most: int) -> int:
    value = message.get(name)
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{name} is {value!r:.40}")
    return value
