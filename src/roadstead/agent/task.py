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
import json
import os
import pwd
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from roadstead.agent import accounting, cache
from roadstead.agent import request as requests
from roadstead.agent.guard import Guard
from roadstead.agent.place import Place, node_name
from roadstead.agent.signals import Signals
from roadstead.core import container, multiprog
from roadstead.core.model import (
    BATCH_STEP,
    Launch,
    StepSpec,
    TaskSpec,
    Terminal,
)
from roadstead.errors import EngineError, LaunchError, RoadsteadError
from roadstead.host import linux, paths, process, removal, terminal, watching
from roadstead.host.loop import Loop
from roadstead.oci import runtime, search
from roadstead.step import plan as plans
from roadstead.step import processes, record, scripts, sweep
from roadstead.step.around import Around
from roadstead.step.container import Container
from roadstead.step.life import Life, Lives
from roadstead.step.plugged import failed

if TYPE_CHECKING:
    from collections.abc import Callable

    from roadstead.agent.screen import Screen
    from roadstead.step.meeting import Meeting
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
        self._container: Container | None = None
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
        self._held = -1  # what keeps here what was sent
        self._parent = os.getppid()
        for signo in watching.MESSAGES:
            self._loop.on_signal(signo, partial(self._signalled, signo))
        told, self._argv, self._script = _what_we_are_told(verb, argv, environ)
        self._environ = environ
        self._node = node_name(environ)
        self._account = accounting.Task(told, environ, verb)
        self._told_meeting = told.get("meeting") or {}
        self._place = Place(environ, self._node)
        try:
            self._spec, self._task = self._specify(told)
            self._place.sweep()
        except BaseException as error:
            if isinstance(error, RoadsteadError):
                self._account.failed(error)
            self._place.close()
            raise
        self._guard = Guard(self._spec.directory, watching.MESSAGES, environ)

    # -- what is to be run --------------------------------------------------------------------

    def _specify(self, told: dict[str, Any]) -> tuple[StepSpec, TaskSpec]:
        environ = self._environ
        number = _Numbers(environ)
        cwd = os.getcwd()
        options = told["options"]
        submitted = told["cwd"]
        directory = os.path.normpath(os.path.join(submitted, options.get("chdir", "")))
        request = container.of(told, options, submitted, directory)
        if request is None:
            raise EngineError("no container is named")
        procid = number.of("SLURM_PROCID", 0)
        step_id = BATCH_STEP if self._verb == "batch" else number.of("SLURM_STEP_ID", 0)
        path = f"{self._place.path}/steps/{number.of('SLURM_JOB_ID', 0)}.{step_id}.{procid}"
        pmi = "PMI_FD" in environ
        argv = self._argv
        if "programs" in told:
            source = told["programs"]
            programs = multiprog.parse(
                source["text"], source["source"], number.of("SLURM_NTASKS", 1), tuple(argv[1:])
            )
            argv = list(multiprog.argv_of(programs, procid))
        env = {
            **environ,
            record.MARK: path,
            "SLURM_CONTAINER": request.bundle,
            **({"SLURM_CONTAINER_ID": request.id} if request.id else {}),
            **({"PMI_FD": "3"} if pmi else {}),
        }
        if "see" in told:
            from roadstead.agent import found

            told = found.settle(told, self._node)
        if "staged" in told:
            request, self._held = cache.container(request, told["staged"])
            cwd = directory  # which may be in the container though it is not on this node
        spec = StepSpec(
            job_id=number.of("SLURM_JOB_ID", 0),
            step_id=step_id,
            kind="batch" if self._verb == "batch" else "run",
            name=environ.get("SLURM_JOB_NAME", ""),
            user=_user(environ),
            uid=os.getuid(),
            gid=os.getgid(),
            node=self._node,
            cwd=cwd,
            argv=tuple(argv),
            env=env,
            script=self._script,
            ntasks=number.of("SLURM_NTASKS", 1),
            container=request,
            oci_conf=search.find(environ, slurms=False) or "",
            terminal=_terminal(told, procid),
            umask=paths.umask(),
            launch=Launch(mpi="pmi2" if pmi else "pmix" if "PMIX_RANK" in environ else "none"),
            directory=path,
        )
        task = TaskSpec(
            procid=procid,
            localid=number.of("SLURM_LOCALID", 0),
            argv=tuple(argv),
            env=env,
            node=self._node,
            nodeid=number.of("SLURM_NODEID", 0),
        )
        return spec, task

    @property
    def _leaves(self) -> bool:
        """Whether what runs the container may leave something outside a namespace of ours."""
        request = self._spec.container
        assert request is not None
        elsewhere = bool(self._spec.oci_conf) or not plans.nests(request, self._spec)
        return elsewhere or bool(request.save)

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
        enclosed = "" if self._leaves else self._place.path
        self._around = Around.of(
            spec, self._loop, self._lives, self._hear_of_plugins, meeting=self._come()
        )
        self._around.plugged.begin()
        if spec.container is not None and spec.container.save:
            self._saving = self._check_save()
        (plan,) = plans.prepare(spec, self._notice, enclosed=enclosed)
        assert plan is not None
        if spec.script:
            scripts.write_startup(spec)
        (self._task,) = self._around.prepared([self._task])
        made = Container(plan, self._task, self._notice, around=self._around)
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
        stdio: tuple[int, ...] = (0, 1, 2)
        if spec.launch.mpi == "pmi2":
            stdio = (0, 1, 2, int(self._environ["PMI_FD"]))
        if spec.terminal is not None:
            self._open_screen(made)
            self._loop.on_signal(watching.WINCH, self._resized)
        self._lives.start(self._life(made, stdio), self._ended, self._failed)

    def _come(self) -> Meeting | None:
        """To where the step's tasks wait for each other, if they do: early, as they are waited for
        there."""
        # Not SLURM_NTASKS, which may still be the job's.
        ntasks = _Numbers(self._environ).of("SLURM_STEP_NUM_TASKS", self._spec.ntasks)
        if not self._told_meeting or ntasks == 1:
            return None
        from roadstead.agent.meeting import There

        return There(self._told_meeting, self._environ, ntasks)

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

    def _life(self, made: Container, stdio: tuple[int, ...]) -> Life[int]:
        """The container's, and what plugins hear of afterwards: it is all of a step that there is
        here."""
        assert self._around is not None
        plugged = self._around.plugged
        life = made.life(stdio, "")
        status = yield from plugged.followed(life, self._task, made.items, self._plugin_failed)
        error = yield from failed(plugged.call("exit", None, {}))
        if error is not None:
            self._plugin_failed(error)
        return status

    def _plugin_failed(self, error: RoadsteadError) -> None:
        """A required plugin, once the program ran: so has the task, if it has not anyway."""
        self._late_failure = self._late_failure or error

    def _hear_of_plugins(self, sentence: str) -> None:
        wanted = self._spec.container is not None and self._spec.container.verbose
        if wanted or sentence.startswith(("error:", "warning:")):
            self._notice(sentence)

    def _notice(self, sentence: str) -> None:
        _say(self._verb, sentence)

    def _ended(self, status: int) -> None:
        def told() -> None:
            self._status = status
            if status == 0:
                self._error = self._late_failure
            self._loop.stop()

        def saved(error: str) -> None:
            if error and status == 0:
                self._late_failure = self._late_failure or LaunchError(error)
            elif error:
                self._notice(f"error: {error}")
            told()

        def drained() -> None:
            if self._saving is None or self._signals.ended_by:
                told()
                return
            assert self._container is not None
            self._saving.start(self._container.plan, saved)

        def heard() -> None:
            nonlocal status
            if forgets and self._heard:
                status, self._signals.ended_by = -process.KILL, self._heard  # see _outcome
            if self._screen is None:
                drained()
            else:
                self._screen.finish(drained)

        forgets = status == 0 and self._system is not None and self._system.forgets
        self._when_heard(heard, unsure=forgets)

    def _failed(self, error: RoadsteadError) -> None:
        meets = self._around is not None and self._around.meeting is not None
        unsure = (meets or self._system is not None) and error.kind == "runtime"

        def told() -> None:
            self._error = error
            if unsure:
                self._signals.ended_by = self._signals.ended_by or self._heard
            self._loop.stop()

        self._when_heard(told, unsure=unsure)

    def _when_heard(self, then: Callable[[], None], *, unsure: bool) -> None:
        """A container system's own processes are sent what is for the whole step too (signals.py),
        and so are those whom we wait for (meeting.py).  That they ended of it is not their failure;
        and we may hear of it a moment after them."""
        if unsure and not self._heard:
            self._loop.call_later(_SIGNAL_SECONDS, then)
        else:
            then()

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
        return self._container.plan.system if self._container is not None else None

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
            self._container.plan.close()
        if self._system is not None and self._system.litter:
            sweep.remove_litter(self._system.litter, self._started)
        if hold >= 0:
            os.close(hold)
            os.chdir("/")
            removal.remove_tree(self._spec.directory)
        self._guard.close()
        self._place.close()


class _Numbers:
    """The numbers in the environment."""

    def __init__(self, environ: dict[str, str]) -> None:
        self._environ = environ

    def of(self, name: str, usual: int) -> int:
        text = self._environ.get(name, "")
        return int(text) if text.isascii() and text.isdigit() else usual


def _what_we_are_told(
    verb: str, argv: list[str], environ: dict[str, str]
) -> tuple[dict[str, Any], list[str], str]:
    """The request, the program's argv and the batch script; what tells us goes no further."""
    if verb == "batch":
        with open(argv[0], encoding="utf-8", errors="surrogateescape") as file:
            text, body = requests.taken_apart(file.read())
        return _component(text, 0), ["startup", *argv[1:]], body
    text = environ.pop(requests.VARIABLE, "")
    at, *command = argv
    return _component(text, int(at)), command, ""


def _component(text: str, at: int) -> dict[str, Any]:
    try:
        told = json.loads(text)
    except ValueError:
        told = None
    return requests.component(told, at)


def _user(environ: dict[str, str]) -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return environ.get("USER", str(os.getuid()))


def _terminal(told: dict[str, Any], procid: int) -> Terminal | None:
    if not told.get("terminal") or procid or not os.isatty(0):
        return None
    columns, rows = os.get_terminal_size(0)
    return Terminal(rows=rows, columns=columns)
