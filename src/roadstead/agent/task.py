"""The agent of one task: slurmstepd executes it in place of the user's command, which it runs in a
container, and then ends as that did.

Standard streams, working directory, environment, PMI and limits are those that slurmstepd has made:
the container gets them as they are, so that everything about them is Slurm's.  So is every signal:
it comes to all processes of the step, and the kernel takes it to the container's.  Left to the
agent are the two that would get lost: a signal for which the container's first process has no
handler, and one that was sent to the agent alone (guard.py).

The end is exact: the exit code of the program, or the signal that ended it, by which the agent ends
too.  What is ours to fail is 125, 126 or 127, with a sentence on standard error.
"""

from __future__ import annotations

import gc
import os
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from roadstead.agent import accounting, given
from roadstead.agent.guard import Guard
from roadstead.agent.place import Place, node_name
from roadstead.agent.signals import Signals
from roadstead.errors import LaunchError, RoadsteadError
from roadstead.host import linux, process, removal, terminal, watching
from roadstead.host.loop import Loop
from roadstead.oci import runtime
from roadstead.step import plan as plans
from roadstead.step import processes, record, scripts, sweep
from roadstead.step.around import Around
from roadstead.step.container import Container
from roadstead.step.life import Life, Lives
from roadstead.step.plugged import failed

if TYPE_CHECKING:
    from collections.abc import Callable

    from roadstead.agent.joined import Joined
    from roadstead.agent.screen import Screen
    from roadstead.step.meeting import Meeting
    from roadstead.step.plan import Plan
    from roadstead.step.save import Saving
    from roadstead.systems import System

NAME: Final = "roadstead-agent"
_ORPHAN_SECONDS: Final = 10.0
_SIGNAL_SECONDS: Final = 0.05  # from the first process of a step to the last


def main(verb: str, argv: list[str]) -> int:
    """Run a task, or with ``batch`` a batch script; the exit code.  Does not return where the
    program was ended by a signal."""
    try:
        status = _Agent(verb, argv, dict(os.environ)).run()
    except RoadsteadError as error:
        return _fail(verb, error)
    if status < 0:
        watching.die_by(-status)
    return status


def _fail(verb: str, error: RoadsteadError) -> int:
    _say(verb, f"error: {error}{f'; {error.hint}' if error.hint else ''}")
    return error.exit_code


def _say(verb: str, sentence: str) -> None:
    """A line on the task's standard error, as of Slurm's programs."""
    node, task = os.environ.get("SLURMD_NODENAME", ""), os.environ.get("SLURM_PROCID", "0")
    who = "slurmstepd" if verb == "batch" else "srun"
    kind, colon, rest = sentence.partition(": ")
    if colon and kind in ("error", "warning"):
        where = f"{node}: " if verb == "batch" else f"{node}: task {task}: "
        sentence = f"{kind}: {where}{rest}"
    with open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False) as stderr:
        stderr.write(f"{who}: {sentence}\n")


class _Agent:
    """One task, from what slurmstepd has given us to its end."""

    def __init__(self, verb: str, argv: list[str], environ: dict[str, str]) -> None:
        linux.set_process_name(NAME)
        linux.set_child_subreaper()
        self._verb = verb
        self._loop = Loop()
        self._lives = Lives(self._loop)
        self._container: Container | Joined | None = None
        self._plan: Plan | None = None
        self._around: Around | None = None
        self._screen: Screen | None = None
        self._late_failure: RoadsteadError | None = None
        self._saving: Saving | None = None
        self._signals = Signals(self._loop)
        self._status: int | None = None
        self._error: RoadsteadError | None = None
        self._alone = False
        self._heard = 0  # the first signal that was to end us all
        self._started = time.time()
        self._parent = os.getppid()
        for signo in watching.MESSAGES:
            self._loop.on_signal(signo, partial(self._signalled, signo))
        self._given = given.read(verb, argv, environ)
        self._environ = environ
        self._account = accounting.Task(self._given.told, environ, verb)
        self._place = Place(environ, node_name(environ))
        try:
            self._spec, self._task, self._held = given.specify(
                self._given, verb, environ, self._place
            )
            self._place.sweep()
        except BaseException as error:
            if isinstance(error, RoadsteadError):
                self._account.failed(error)
            self._place.close()
            raise
        self._guard = Guard(self._spec.directory, watching.MESSAGES, environ)

    @property
    def _leaves(self) -> bool:
        """Whether what runs the container may leave something outside a namespace of ours."""
        request = self._spec.container
        assert request is not None
        elsewhere = bool(self._spec.oci_conf) or not plans.nests(request, self._spec)
        return not self._shares and (elsewhere or bool(request.save))

    @property
    def _shares(self) -> bool:
        """Whether the task's container is the node's: nothing of it is ours, and on what it needs
        the keeper decides (keeper.py)."""
        return self._spec.container is not None and self._spec.container.per == "node"

    # -- the life -----------------------------------------------------------------------------

    def run(self) -> int:
        """Run it to its end; its wait status: minus the number of the signal that ended it.

        Raises RoadsteadError where it could not be run.
        """
        hold = -1
        try:
            self._watch()
            if self._leaves:
                os.makedirs(self._spec.directory, mode=0o700)
                hold = record.hold(self._spec.directory)
            self._start()
            gc.freeze()  # what is there now stays: it is not looked through
            gc.enable()
            while self._status is None and self._error is None:
                self._loop.run()
        except RoadsteadError as error:
            self._error = error
        except OSError as error:
            where = f" {error.filename}" if error.filename else ""
            self._error = LaunchError(f"cannot set up the task:{where} {error.strerror}")
        finally:
            self._end(hold)
        if self._error is not None and not self._signals.ended_by:
            self._account.failed(self._error)
            raise self._error
        status = self._outcome()
        self._account.exited(status)
        return status

    def _watch(self) -> None:
        try:
            stepd = process.adopt(self._parent)
        except ProcessLookupError:
            raise LaunchError("slurmstepd has ended") from None
        self._loop.watch(stepd, lambda: self._orphaned(stepd))
        self._signals.watch(self._guard)

    def _start(self) -> None:
        spec = self._spec
        assert spec.container is not None
        # A network of a shared container is the keeper's to make.
        if self._shares:
            around_spec = replace(spec, container=replace(spec.container, network=""))
        else:
            around_spec = spec
        self._around = Around.of(
            around_spec,
            self._loop,
            self._lives,
            self._hear_of_plugins,
            meeting=self._come(),
        )
        self._around.plugged.begin()
        if spec.container.save:
            self._saving = self._check_save()
        made = self._join() if self._shares else self._make()
        stdio: tuple[int, ...] = (0, 1, 2)
        if spec.launch.mpi == "pmi2":
            stdio = (0, 1, 2, int(self._environ["PMI_FD"]))
        if spec.terminal is not None:
            assert isinstance(made, Container)
            self._open_screen(made)
            self._loop.on_signal(watching.WINCH, self._resized)
        self._lives.start(self._life(made, stdio), self._ended, self._failed)

    def _make(self) -> Container:
        """A container of the task's own."""
        spec, around = self._spec, self._around
        assert around is not None
        enclosed = "" if self._leaves else self._place.path
        (plan,) = plans.prepare(spec, self._notice, enclosed=enclosed)
        assert plan is not None
        self._plan = plan
        if spec.script:
            scripts.write_startup(spec)
        (self._task,) = around.prepared([self._task])
        made = Container(plan, self._task, self._notice, around=around)
        if isinstance(made.commands, runtime.BuiltIn):
            attached = spec.terminal is not None
            made.commands = replace(
                made.commands, mode="run" if attached else "detach", own_groups=False
            )
            made.session = not attached  # the terminal is this session's
        self._container = self._signals.container = made
        if self._leaves:
            claim = record.claim_of_ours(
                spec.directory,
                containers=[made.claim()],
                files=[] if self._saving is None else self._saving.files,
            )
            record.write_claim(spec.directory, claim)
        return made

    def _join(self) -> Joined:
        """The one that the tasks of this node share."""
        from roadstead.agent import joined

        assert self._around is not None
        joined.check(self._spec)
        (self._task,) = self._around.prepared([self._task])
        made = joined.Joined(
            self._given, self._task, self._environ, self._around, self._notice, self._parent
        )
        self._container = self._signals.container = made
        return made

    def _come(self) -> Meeting | None:
        """To where the step's tasks wait for each other, if they do: early, as they are waited for
        there."""
        # Not SLURM_NTASKS, which may still be the job's.
        ntasks = given.Numbers(self._environ).of("SLURM_STEP_NUM_TASKS", self._spec.ntasks)
        meeting = self._given.told.get("meeting")
        if not meeting or ntasks == 1:
            return None
        from roadstead.agent.meeting import There

        return There(meeting, self._environ, ntasks)

    def _check_save(self) -> Saving:
        """--container-save, before anything runs.  Raises LaunchError."""
        from roadstead.step.save import Saving

        if self._spec.ntasks > 1 and self._spec.kind != "batch":
            raise LaunchError(
                "--container-save on a Slurm cluster is for a step of one task",
                hint="each task has a container of its own there: add -n1",
            )
        saving = Saving(self._loop, self._spec)
        saving.check()
        return saving

    def _open_screen(self, made: Container) -> None:
        path = made.hand_over_terminal()
        if path:
            from roadstead.agent import screen  # of --pty alone

            self._screen = screen.Screen(self._loop, path)

    def _life(self, made: Container | Joined, stdio: tuple[int, ...]) -> Life[int]:
        """The container's, and what plugins hear of afterwards: it is all of a step that there is
        here."""
        assert self._around is not None
        plugged = self._around.plugged
        life = made.life(stdio, "")
        status = yield from plugged.followed(life, self._task, made.items, self._plugin_failed)
        error = yield from failed(plugged.call("exit", None, {}))
        if error is not None:
            self._plugin_failed(error)
        if self._screen is None and self._saving is None and self._system is None:
            return status
        return (yield from self._rest(status))

    def _plugin_failed(self, error: RoadsteadError) -> None:
        """A required plugin, once the program ran: so has the task, if it has not anyway."""
        self._late_failure = self._late_failure or error

    def _hear_of_plugins(self, sentence: str) -> None:
        if given.is_wanted(sentence, self._spec):
            self._notice(sentence)

    def _notice(self, sentence: str) -> None:
        _say(self._verb, sentence)

    def _rest(self, status: int) -> Life[int]:
        """What is left to do when the program has ended; what its wait status is then."""
        from roadstead.step import moment  # for these alone

        if status == 0 and self._system is not None and self._system.forgets:
            if not self._heard:
                yield from moment.passing(_SIGNAL_SECONDS)
            if self._heard:
                status, self._signals.ended_by = -process.KILL, self._heard  # see _outcome
        if self._screen is not None:
            yield from moment.called_back(self._screen.finish)
        if self._saving is not None and not self._signals.ended_by:
            yield from self._save(self._saving, status)
        return status

    def _save(self, saving: Saving, status: int) -> Life[None]:
        from roadstead.step import moment

        plan, said = self._plan, [""]
        assert plan is not None

        def begin(done: Callable[[], None]) -> None:
            def saved(error: str) -> None:
                said[0] = error
                done()

            saving.start(plan, saved)

        yield from moment.called_back(begin)
        error = said[0]
        if error and status == 0:
            self._late_failure = self._late_failure or LaunchError(error)
        elif error:
            self._notice(f"error: {error}")

    def _ended(self, status: int) -> None:
        self._status = status
        if status == 0:
            self._error = self._late_failure
        self._loop.stop()

    def _failed(self, error: RoadsteadError) -> None:
        meets = self._around is not None and self._around.meeting is not None
        unsure = (meets or self._system is not None) and error.kind == "runtime"

        def told() -> None:
            self._error = error
            if unsure:
                self._signals.ended_by = self._signals.ended_by or self._heard
            self._loop.stop()

        # A container system's own processes are sent what is for the whole step too (signals.py),
        # and so are those whom we wait for (meeting.py).  That they ended of it is not their
        # failure; and we may hear of it a moment after them.
        if unsure and not self._heard:
            self._loop.call_later(_SIGNAL_SECONDS, told)
        else:
            told()

    def _outcome(self) -> int:
        if self._alone:
            return -process.KILL
        status = self._status
        if self._signals.ended_by and status in (None, -process.KILL, 128 + process.KILL):
            return -self._signals.ended_by
        assert status is not None
        return status

    # -- signals ------------------------------------------------------------------------------

    @property
    def _system(self) -> System | None:
        """The container system that runs the container, if one does."""
        return self._plan.system if self._plan is not None else None

    def _signalled(self, signo: int) -> None:
        if signo in process.ENDING:
            self._heard = self._heard or signo
        if self._container is None:
            if signo in process.ENDING:
                self._signals.ended_by = self._signals.ended_by or signo
                self._failed(LaunchError("ended before it had begun"))
            return
        self._signals.hear(signo)

    def _orphaned(self, stepd: process.Child) -> None:
        """slurmstepd has been killed: nobody waits for this task, or could end it, any more."""
        self._loop.unwatch(stepd)
        self._alone = True
        self._signals.kill()
        if self._container is None:
            self._failed(LaunchError("slurmstepd was killed"))

    def _resized(self) -> None:
        if self._screen is not None:
            self._screen.resize()
            return
        rows, columns = os.get_terminal_size(0)[::-1]
        for pid in self._container.processes()[:1] if self._container else ():
            terminal.resize_of_process(pid, rows, columns)

    # -- the end ------------------------------------------------------------------------------

    def _end(self, hold: int) -> None:
        """End what is left of the task, and remove what was made for it."""
        if self._around is not None:
            self._around.close()
        guard = self._guard.process.pid
        if left := processes.end_below(self._spec.directory, _ORPHAN_SECONDS, without=guard):
            self._notice(f"error: processes {left} do not end (blocked in the kernel)")
        if self._container is not None:
            self._container.close()
        if self._plan is not None:
            self._plan.close()
        if self._system is not None and self._system.litter:
            sweep.remove_litter(self._system.litter, self._started)
        if hold >= 0:
            os.close(hold)
            os.chdir("/")
            removal.remove_tree(self._spec.directory)
        self._guard.close()
        self._place.close()
