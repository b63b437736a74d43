"""Create and start: the form of oci.conf in which slurmstepd has the runtime do a thing at a time.

slurmstepd's process for the task (it runs as the user) calls RunTimeCreate, polls RunTimeQuery
until that says "created", calls RunTimeStart, polls until it says anything but "running", and ends
with ``_exit(status)``, where ``status`` is what waitpid(2) said of RunTimeStart (all releases from
21.08 to 26.05).  Seen on 22.05: each command has /dev/null and a pipe that is read until nobody
holds it, is killed with its process group once it has ended, and that process cannot be looked into
(it was root's and is not dumpable: neither its descriptors nor its memory are the user's).

So ``create`` leaves a process of its own behind, which has the container to itself: it alone is
waited for by nobody.  ``start`` tells it to go on, and waits for the end, by an event.  Then how
``start`` ends is how the task ends, within what its wait status can say:

* exit code 0 as it is;
* a signal: slurmstepd's process for the task gets that signal;
* exit code N as ``start``'s own death by signal N, because ``_exit`` takes the lower eight bits;
* what no signal can say (17 to 23, 28, and all above 64) as 1.  RunTimeRun has no such limits.

The streams of a task are slurmstepd's own and out of reach: a batch script's are files, by their
names in config.json; a step's output goes to a file (``--output``, else
slurm-JOB.STEP.NODE.out in the directory that the job was submitted from), which goes if it is
empty.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, Final

from roadstead.agent import bundled, lone, opened
from roadstead.agent.oci_call import say
from roadstead.errors import LaunchError, RoadsteadError, from_kind
from roadstead.host import fork, linux, process, watching, wire
from roadstead.host.loop import Loop
from roadstead.step import record

if TYPE_CHECKING:
    from roadstead.agent.oci_call import Call

_NAME: Final = "slurmstepd"
_GENERATIONS: Final = 3  # slurmstepd, perhaps a shell, and we
_HIGHEST_SIGNAL: Final = 64
# Exit codes whose signals do not end a process by default.
_HARMLESS: Final = frozenset(range(1, 32)) - process.ENDING - {process.KILL}


def create(call: Call) -> int:
    """Make ready, and leave a process that waits for ``start``.  Raises RoadsteadError."""
    ours, theirs = wire.pair()
    caller = _caller()
    stdio = streams(call)
    child = fork.run_in_child(lambda: _keep(call, theirs, ours, caller, stdio), session=True)
    theirs.close()
    for fd in stdio[:2]:
        os.close(fd)
    received = ours.receive()
    if received is None:
        os.waitpid(child, 0)
        raise LaunchError("the container's process has ended before the container was made")
    answer, _ = received
    if "kind" in answer and not os.path.isdir(call.directory):
        raise from_kind(answer["kind"], answer["sentence"], answer["hint"])
    return 0


def start(call: Call) -> int:
    """Have the container run, and end as it has ended.  Raises RoadsteadError."""
    try:
        connection = wire.connect(f"{call.directory}/{record.SOCKET}")
    except OSError:
        raise LaunchError(f"container {call.name} does not exist, or has ended") from None
    loop = Loop()
    for number in watching.MESSAGES:
        loop.on_signal(number, lambda number=number: _pass_on(connection, number))  # type: ignore[misc]
    loop.watch(connection, loop.stop)
    connection.send({"op": "start"})
    loop.run()
    received = connection.receive()
    if received is None:
        raise LaunchError(f"the process of container {call.name} was killed")
    status = int(received[0]["status"])
    if status < 0 and (caller := _caller()):
        process.send(caller, -status)
        return 128 - status
    return lone.end_as(-carrier(status) if status > 0 else status)


def _pass_on(connection: wire.Connection, number: int) -> None:
    with contextlib.suppress(OSError):
        connection.send({"op": "signal", "number": number})


def carrier(code: int) -> int:
    """The signal by which ``start`` tells slurmstepd of an exit code; of code 1 where there is
    none."""
    return 1 if code > _HIGHEST_SIGNAL or code in _HARMLESS else code


def _caller() -> int:
    """slurmstepd's process for the task, above us; 0 where somebody else has called."""
    pid = os.getpid()
    for _ in range(_GENERATIONS):
        pid = process.parent(pid)
        if pid and process.name(pid) == _NAME and os.stat(f"/proc/{pid}").st_uid == os.getuid():
            return pid
    return 0


# -- the process that stays ------------------------------------------------------------------------


def _keep(
    call: Call, ours: wire.Connection, theirs: wire.Connection, caller: int, stdio: tuple[int, ...]
) -> None:
    linux.set_process_name("roadstead-oci")
    theirs.close()
    for target, fd in enumerate(stdio):
        os.dup2(fd, target)
    for fd in {each for each in stdio if each > 2}:
        os.close(fd)
    try:
        keeper = Keeper(call, caller)
    except RoadsteadError as error:
        ours.send({"kind": error.kind, "sentence": str(error), "hint": error.hint})
        return
    ours.send({})
    ours.close()
    keeper.run()


class Keeper:
    """Has a container that was created to itself, until it has ended or its task's process has."""

    def __init__(self, call: Call, caller: int) -> None:
        self._container = opened.opened(call)
        self._loop = self._container.loop
        try:
            self._container.prepare(*bundled.specs(call))
            self._listener = wire.Listener(f"{call.directory}/{record.SOCKET}")
            self._loop.watch(self._listener, self._accept)
            self._container.note(status="created")
        except RoadsteadError as error:
            # slurmstepd would ask for it eleven times, and tell nobody why it is not there.  A
            # state that it does not know it does tell.
            hint = f"; {error.hint}" if error.hint else ""
            self._container.note(failure=f"roadstead oci: {error}{hint}")
            self._container.close(keep=True)
            raise
        except BaseException:
            self._container.close()
            raise
        self._starter: wire.Connection | None = None
        self._caller: process.Child | None = None
        if caller:
            try:
                self._caller = process.adopt(caller)
                self._loop.watch(self._caller, self._abandoned)
            except ProcessLookupError:
                self._loop.call_later(0, self._abandoned)

    def run(self) -> None:
        """Serve until the end.  What is left then is a claim for ``state``, until ``delete``."""
        self._loop.run()
        self._listener.close()
        container, starter = self._container, self._starter
        status = container.status
        if container.failure is not None:
            status = container.failure.exit_code
            say(f"error: {container.failure}")
        elif status is None:
            status = -process.KILL
        if status > 0 and carrier(status) != status:
            say(f"exit code {status} is told to Slurm as {carrier(status)}")
        container.close(keep=starter is not None)
        _remove_if_empty(1)
        if starter is not None:
            with contextlib.suppress(OSError):
                starter.send({"status": status})

    def _accept(self) -> None:
        connection = self._listener.accept()
        if connection is not None:
            self._loop.watch(connection, lambda: self._hear(connection))

    def _hear(self, connection: wire.Connection) -> None:
        received = connection.receive()
        match received[0] if received is not None else None:
            case {"op": "start"} if self._starter is None:
                self._starter = connection
                self._container.note(status="running")
                self._container.start((0, 1, 2), self._loop.stop)
            case {"op": "signal", "number": int(number)} if connection is self._starter:
                self._forward(number)
            case _:
                self._loop.unwatch(connection)
                if connection is self._starter:  # RunTimeStart was killed: so is the task, then
                    self._container.kill()
                else:
                    connection.close()

    def _forward(self, number: int) -> None:
        """A signal that RunTimeStart was sent: where processes are found by their parents, neither
        we nor the container are among those that it is for."""
        if not self._container.heard_lately(number):
            self._container.hear(number, alone=True)

    def _abandoned(self) -> None:
        """The task's process is gone: Slurm has ended the task."""
        if self._caller is not None:
            self._loop.unwatch(self._caller)
        self._container.kill()
        if self._starter is None:
            self._loop.stop()


# -- streams ---------------------------------------------------------------------------------------


def streams(call: Call) -> tuple[int, int, int]:
    """Descriptors for the container: input, output and errors.  Raises RoadsteadError."""
    _, config = bundled.read(call)
    files = bundled.files(config)
    try:
        given = os.open(files.get("stdin", os.devnull), os.O_RDONLY | os.O_CLOEXEC)
        output = files.get("stdout") or (os.devnull if files else _output(call, config))
        out = _appending(output)
        errors = files.get("stderr") or output
        return given, out, out if errors == output else _appending(errors)
    except OSError as error:
        raise LaunchError(f"{error.filename}: {error.strerror}") from None


def _appending(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)


def _output(call: Call, config: dict[str, Any]) -> str:
    """The file for a step's output; /dev/null where there is no place for one."""
    if path := call.options.get("output"):
        return path
    env = bundled.variables(config)
    directory = env.get("SLURM_SUBMIT_DIR", "")
    if not os.access(directory, os.W_OK | os.X_OK) or call.numbers is None:
        return os.devnull
    job, step, task = call.numbers
    node = os.environ.get("SLURMD_NODENAME") or os.uname().nodename
    return f"{directory}/slurm-{job}.{step}.{node}{f'.{task}' if task else ''}.out"


def _remove_if_empty(fd: int) -> None:
    """Remove the file that a descriptor is of, if nothing was written to it."""
    path = os.readlink(f"/proc/self/fd/{fd}")
    found = os.fstat(fd)
    if os.path.isfile(path) and os.path.basename(path).startswith("slurm-") and not found.st_size:
        os.unlink(path)
