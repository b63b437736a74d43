"""Starting the controller: directories, lock, spawner, journal, socket, and then ``ok``.

``engines/local.py`` starts this as a process, with a lock that others wait for (``--lock-fd``), and
reads one line from a pipe (``--ready-fd``):
``ok`` once clients can connect, or a JSON object with the sentence that says why they never will.

The order matters.  The lock is taken first, so that there is one controller; the spawner is forked
before anything else is opened; the socket comes last, when all that the journal holds is known.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import logging
import os
import select
import sys
from collections.abc import Mapping
from typing import Final

from roadstead import SLURM_VERSION, __version__
from roadstead.controller import configuration, machine, spawner
from roadstead.controller.journal import Journal
from roadstead.controller.main import Controller
from roadstead.core import stepspec, values
from roadstead.core.state import Settings, State
from roadstead.errors import EngineError, RoadsteadError
from roadstead.host import fork, linux, paths, process, wire

_NAME: Final = "roadstead-ctl"
_FDS: Final = ("--ready-fd", "--lock-fd", "--listen-fd")
_IDLE_SECONDS: Final = 600.0
# Slurm waits until no node can hold a credential of the run before, two minutes; nothing here has
# one, but a job that is requeued for its exit code must not spin.
_REQUEUE_DELAY: Final = 2.0
_LOG_SIZE: Final = 1 << 20
_SPAWNER_SECONDS: Final = 2.0  # for its last launch, once its controller has gone
_PATIENCE_MS: Final = (100, 400, 1500, 8000)  # with a controller that is about to end

log = logging.getLogger(__name__)


def main(argv: list[str] | None = None, supervise: spawner.Supervise | None = None) -> None:
    """Run the controller to its end.  ``supervise`` stands in for the real supervisor."""
    argv = sys.argv[1:] if argv is None else argv
    told = Told(*[int(argv[argv.index(each) + 1]) if each in argv else -1 for each in _FDS])
    try:
        if "--live" in argv:
            _say_what_lives(os.environ, told)
            return
        listener = _run(os.environ, told, supervise or _real_supervisor())
    except (RoadsteadError, OSError) as failure:
        error = failure if isinstance(failure, RoadsteadError) else _sentence(failure)
        log.error("ended error=%r", str(error))
        line = {"kind": error.kind, "sentence": str(error), "hint": error.hint}
        told.say(wire.dumps(line))
        raise SystemExit(1) from None
    if listener is not None:
        os.set_inheritable(listener, True)
        arguments = [*_arguments_without_descriptors(), "--listen-fd", str(listener)]
        fork.replace_process([sys.executable, *arguments])


def _sentence(error: OSError) -> EngineError:
    """What the system refused us, as a user can act on it: a full disk, most often."""
    where = f"{error.filename}: " if error.filename else ""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    at = "" if trace is None else f"{trace.tb_frame.f_code.co_qualname}:{trace.tb_lineno}"
    log.error("refused error=%r at=%s", str(error), at)
    return EngineError(
        f"the controller cannot run: {where}{error.strerror}",
        hint="XDG_STATE_HOME and XDG_RUNTIME_DIR need room, and must be writable",
    )


class Told:
    """The descriptors that we were given: a pipe on which who started us waits for one line, a
    lock for which others wait, and, of the controller that this process was, the socket at which
    clients wait.  -1: there is none."""

    def __init__(self, fd: int, lock: int = -1, listener: int = -1) -> None:
        self.fd = fd
        self.lock = lock
        self.listener = listener
        for each in (fd, lock, listener):
            if each >= 0:
                os.set_inheritable(each, False)

    def say(self, line: str) -> None:
        """Say it, the first time; who started us may have gone, or been stopped."""
        if self.lock >= 0:
            fcntl.flock(self.lock, fcntl.LOCK_UN)
            os.close(self.lock)
            self.lock = -1
        if self.fd >= 0:
            with contextlib.suppress(BrokenPipeError):
                os.write(self.fd, f"{line}\n".encode())
            os.close(self.fd)
            self.fd = -1


def _real_supervisor() -> spawner.Supervise:
    """Imports all that a supervisor needs: its forks find it there."""
    from roadstead.step import container, supervisor  # noqa: F401

    return supervisor.main


def _arguments_without_descriptors() -> list[str]:
    arguments = list(sys.orig_argv[1:])
    for name in _FDS:
        if name in arguments:
            at = arguments.index(name)
            del arguments[at : at + 2]
    return arguments


def _run(environ: Mapping[str, str], told: Told, supervise: spawner.Supervise) -> int | None:
    os.umask(0o077)
    if "--from-job" in sys.argv:
        machine.leave_job()
    _close_inherited(told)
    state_directory = paths.state_directory(environ)
    paths.make_private(state_directory)
    _detach(f"{state_directory}/controller.log")
    runtime = _runtime_directory(environ, state_directory)
    lock = _lock(f"{state_directory}/controller.lock", paths.socket_path(runtime), told.listener)
    if lock is None:
        told.say("ok")
        return None
    linux.set_process_name(_NAME)
    link, spawning = spawner.start(supervise, lock, told.listener)
    process.raise_descriptor_limit()  # a waiting srun is four; tasks keep the spawner's
    _name_runtime_directory(state_directory, runtime)
    journal = Journal(paths.journal_path(state_directory))
    conf = configuration.load(environ)
    for warning in conf.warnings:
        log.warning("%s", warning)
    usual = Settings(runtime=runtime)
    kill_wait = usual.kill_wait if conf.kill_wait is None else conf.kill_wait
    settings = Settings(
        runtime=runtime,
        version=SLURM_VERSION,
        kill_wait=_seconds(environ, "ROADSTEAD_KILL_WAIT", kill_wait),
        over_time=conf.over_time or usual.over_time,
        min_job_age=usual.min_job_age if conf.min_job_age is None else conf.min_job_age,
        requeue_delay=_REQUEUE_DELAY if conf.requeue_delay is None else conf.requeue_delay,
    )
    controller = Controller(
        State(conf.site, settings),
        journal,
        link,
        same_boot=_same_boot(state_directory),
        idle_seconds=_seconds(environ, "ROADSTEAD_IDLE", _IDLE_SECONDS),
    )
    for name in ("TERM", "INT"):
        controller.loop.on_signal(values.signal_number(name), controller.quit)
    _restore(controller)
    controller.listen(told.listener)
    log.info("ready pid=%d version=%s runtime=%s", os.getpid(), __version__, runtime)
    told.say("ok")
    listener = controller.run()
    journal.close()
    link.close()
    if process.becomes_readable(spawning, _SPAWNER_SECONDS):
        spawning.reap()  # the program that we become would not know that it is its own
    log.info("ended")
    return listener


def _restore(controller: Controller) -> None:
    """Have all jobs of the journal in memory, and let the garbage collector leave them alone: with
    100,000 of them it is nearly half of the time that a start takes, and each of its later rounds
    over all of them would be a pause for everybody.  What becomes garbage here has no cycles."""
    gc.disable()
    controller.restore()
    gc.freeze()
    gc.enable()


def _close_inherited(told: Told) -> None:
    """Close what the command that started us was given beside its standard streams: a lock that
    would stay taken, a pipe that would not end, a file that every job would have open."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in (told.fd, told.lock, told.listener):
            with contextlib.suppress(OSError):  # the one that we have just listed with
                os.close(int(name))


def _say_what_lives(environ: Mapping[str, str], told: Told) -> None:
    """For an audit while no controller runs: say which steps have not ended, and end."""
    state_directory = paths.state_directory(environ)
    paths.make_private(state_directory)
    _detach(f"{state_directory}/controller.log")
    runtime = _runtime_directory(environ, state_directory)
    if _lock(f"{state_directory}/controller.lock", paths.socket_path(runtime)) is None:
        told.say("ok")
        return
    journal = Journal(paths.journal_path(state_directory))
    found = journal.load()
    journal.close()
    restarts = {job.id: job.restarts for job in found.jobs}
    steps = [
        stepspec.directory_of(runtime, step.key, restarts[step.job_id]) for step in found.steps
    ]
    told.say(wire.dumps({"steps": steps}))


def _detach(log_path: str) -> None:
    """Leave the session, the directory and the streams of whoever started us."""
    if os.getsid(0) != os.getpid():
        # A process group's leader, as one started from a shell is, may not.
        with contextlib.suppress(PermissionError):
            os.setsid()
    os.chdir("/")
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    with contextlib.suppress(FileNotFoundError):
        if os.path.getsize(log_path) > _LOG_SIZE:
            os.replace(log_path, f"{log_path}.old")
    fd = os.open(log_path, flags, 0o600)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)
    os.close(null)
    logging.basicConfig(
        level=logging.INFO, format="time=%(asctime)s level=%(levelname)s msg=%(message)r"
    )


def _runtime_directory(environ: Mapping[str, str], state_directory: str) -> str:
    """Where sockets go: where the last controller had them, as long as that is there: its
    supervisors' are there too."""
    runtime = paths.runtime_directory(environ)
    if not os.path.isdir(runtime):
        runtime = paths.default_runtime_directory(environ)
    paths.make_private(runtime)
    os.makedirs(f"{runtime}/steps", mode=0o700, exist_ok=True)
    return runtime


def _name_runtime_directory(state_directory: str, runtime: str) -> None:
    """Leave word for commands with another environment."""
    link = f"{state_directory}/run"
    temporary = f"{link}.new"  # of a controller that was killed, if it is there: we have the lock
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    os.symlink(runtime, temporary)
    os.rename(temporary, link)


def _lock(path: str, socket: str, listener: int = -1) -> int | None:
    """The lock, held until we end; None when a controller is there and answers at ``socket``.

    Who has the ``listener`` is the controller, however long its old spawner takes to end.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    if not _take(lock):
        answered = listener < 0 and _answers(socket)
        if answered or not _wait_for_lock(lock, socket, listener):
            os.close(lock)
            return None
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    return lock


def _take(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _answers(socket: str) -> bool:
    try:
        wire.connect(socket).close()
    except OSError:
        return False
    return True


def _wait_for_lock(lock: int, socket: str, listener: int) -> bool:
    """Wait for the lock; False if a controller answers now: it was starting, or restarting.

    Its holder may be a controller that ends, or the spawner of one that has ended, until it has
    launched what it was asked to; and another who waits may get it before us.  So a child waits for
    it, whose lock is ours too (flock(2): the lock is of the open file), and we look at the socket.
    Raises EngineError if nothing of this comes true.
    """

    def wait() -> None:
        if listener >= 0:
            os.close(listener)
        fcntl.flock(lock, fcntl.LOCK_EX)

    waiter = process.adopt(fork.run_in_child(wait))
    poll = select.poll()
    poll.register(waiter.fileno(), select.POLLIN)
    try:
        for milliseconds in _PATIENCE_MS:
            if poll.poll(milliseconds):
                return True
            if listener < 0 and _answers(socket):
                return False
    finally:
        waiter.signal(process.KILL)
        waiter.reap()
    holder = os.pread(lock, 32, 0)
    if holder.isdigit() and process.name(int(holder)) == _NAME:
        raise EngineError(
            f"the controller (pid {int(holder)}) is there and does not answer",
            hint=f"kill {int(holder)}",
        )
    raise EngineError(
        "processes of a controller that has ended are there and do not end",
        hint="roadstead audit --clean",
    )


def _same_boot(state_directory: str) -> bool:
    """Whether the last controller ran since the machine was started; notes that this one has."""
    path = f"{state_directory}/boot"
    now = machine.boot_id()
    try:
        with open(path, encoding="ascii") as file:
            last = file.read()
    except FileNotFoundError:
        last = ""
    if last != now:
        with open(path, "w", encoding="ascii") as file:
            file.write(now)
    return last == now


def _seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name, "")
    if not text:
        return default
    try:
        return max(0.0, float(text))
    except ValueError:
        raise EngineError(f"{name}={text}: not a number of seconds") from None


if __name__ == "__main__":
    main()
