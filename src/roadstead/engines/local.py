"""The local engine, seen from a command: find this user's controller, or start it, and talk to it.

Nothing to configure: the first command starts the controller and waits, on a pipe, until it
listens. Two commands that find none race for a lock; the one that loses waits for it (flock
blocks, nothing polls) and then finds the controller that the other has started.  The controller has
the lock too, and unlocks it: who has started it may be stopped by then, with its job.

A controller that goes idle closes its socket before it ends.  A caller that it has not accepted
sees the connection fail, and starts another; a request is only acted on once, because each carries
a key.
"""

from __future__ import annotations

import os
import sys

from roadstead.errors import EngineError, from_kind
from roadstead.host import paths, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

# What the controller inherits of the environment of the command that happens to start it.  All
# else (secrets, module systems' settings) stays with the job it belongs to.
_KEPT = (
    "HOME", "USER", "LOGNAME", "PATH", "LANG", "LC_ALL", "TMPDIR", "TZ",
    "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME",
)  # fmt: skip


_STARTS = 3
_STOPPED_SECONDS = 5.0  # with the lock and no controller: more than a start takes


def connect(environ: Mapping[str, str]) -> wire.Connection:
    """A connection to the controller, which is started if there is none.  Raises EngineError."""
    found = _try_connect(environ)
    return found if found is not None else _start(environ)


def _try_connect(environ: Mapping[str, str]) -> wire.Connection | None:
    runtime = paths.runtime_directory(environ)
    try:
        return wire.connect(paths.socket_path(runtime))
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except PermissionError:
        paths.check_private(runtime)
        raise EngineError(f"{paths.socket_path(runtime)}: permission denied") from None
    except OSError as error:
        raise EngineError(f"{paths.socket_path(runtime)}: {error.strerror}") from None


def is_running(environ: Mapping[str, str]) -> bool:
    """Whether a controller listens now."""
    found = _try_connect(environ)
    if found is not None:
        found.close()
    return found is not None


def _start(environ: Mapping[str, str]) -> wire.Connection:
    state = paths.state_directory(environ)
    paths.make_private(state)
    name = f"{state}/start.lock"
    try:
        lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise EngineError(
            f"cannot make {name}: {error.strerror}", hint="set XDG_STATE_HOME"
        ) from None
    try:
        found = None
        for _ in range(_STARTS):  # it may be killed in this very moment
            _take(lock)
            found = _try_connect(environ)
            if found is None:
                _start_controller(environ, lock=lock)
                found = _try_connect(environ)
            if found is not None:
                break
    finally:
        os.close(lock)
    if found is None:
        raise EngineError(
            "the controller ended as soon as it had started",
            hint=f"see {state}/controller.log",
        )
    return found


def _take(lock: int) -> None:
    """Take the lock, once whoever starts a controller has done so.

    A command that was stopped (a job that is suspended, ^Z) between its lock and its start may
    never go on: then we do, as of two controllers one ends.  flock(2) knows no time limit.
    """
    import _thread
    import fcntl

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pass
    else:
        return
    taken = _thread.allocate_lock()
    taken.acquire()

    def wait() -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        finally:
            taken.release()

    _thread.start_new_thread(wait, ())
    taken.acquire(timeout=_STOPPED_SECONDS)


def _start_controller(environ: Mapping[str, str], *options: str, lock: int = -1) -> dict[str, Any]:
    """Start a controller and wait for what it says first: nothing, as a rule.  It unlocks
    ``lock``."""
    import fcntl

    package = os.path.dirname(os.path.dirname(os.path.abspath(wire.__file__)))
    code = (
        f"import sys; sys.path.insert(0, {os.path.dirname(package)!r}); "
        "from roadstead.controller.__main__ import main; main()"
    )
    read, write = os.pipe2(os.O_CLOEXEC)
    env = {name: environ[name] for name in _KEPT if name in environ}
    # Not what marks a step's processes: a controller that a job has started is not of that job.
    env |= {
        name: value
        for name, value in environ.items()
        if name.startswith("ROADSTEAD_") and not name.startswith("ROADSTEAD_STEP")
    }
    if write < 3:  # our own standard streams are closed, the controller's will not be
        low, write = write, fcntl.fcntl(write, fcntl.F_DUPFD_CLOEXEC, 3)
        os.close(low)
    argv = [sys.executable, "-IS", "-c", code, "--ready-fd", str(write), *options]
    if lock >= 0:
        argv += ["--lock-fd", str(lock)]
    if "ROADSTEAD_STEP_DIR" in environ:
        argv.append("--from-job")
    from roadstead.host import child

    try:
        child.start_daemon(argv, env, [write] if lock < 0 else [write, lock])
    finally:
        os.close(write)
    with open(read, encoding="utf-8") as pipe:
        said = pipe.readline()
    if said.startswith("{"):
        answer: dict[str, Any] = wire.loads(said.strip())
        if "kind" not in answer:
            return answer
        raise from_kind(answer["kind"], answer["sentence"], answer.get("hint", ""))
    if said and said != "ok\n":
        raise EngineError(
            "the controller could not start",
            hint=f"see {paths.state_directory(environ)}/controller.log",
        )
    return {}


def live_steps(environ: Mapping[str, str]) -> tuple[int, list[str]]:
    """The controller's pid, and the directories of the steps that have not ended.

    Where no controller runs none is started to stay: the pid is 0, and the journal is read.
    """
    while True:
        if is_running(environ):
            answer = ask({"op": "live"}, environ)
            return answer["pid"], answer["steps"]
        answer = _start_controller(environ, "--live")
        if answer:
            return 0, answer["steps"]


def request(
    message: dict[str, Any], fds: tuple[int, ...] = (), *, environ: Mapping[str, str]
) -> wire.Connection:
    """Send ``message`` to the controller; the connection on which its answers come."""
    message = {"v": wire.VERSION, **message}
    for attempt in (1, 2):
        connection = connect(environ)
        try:
            connection.send(message, fds)
        except (BrokenPipeError, ConnectionResetError):
            connection.close()
            if attempt == 2:
                raise EngineError("the controller closed the connection") from None
            continue
        return connection
    raise AssertionError("unreachable")


def receive(connection: wire.Connection) -> dict[str, Any] | None:
    """The next answer, None when the controller has gone; an "error" answer is raised."""
    answer, fds = receive_with_fds(connection)
    for fd in fds:
        os.close(fd)
    return answer


def receive_with_fds(connection: wire.Connection) -> tuple[dict[str, Any] | None, list[int]]:
    """The same, with the descriptors that came along; they are the caller's."""
    try:
        received = connection.receive()
    except ValueError as error:
        raise EngineError(f"the controller's answer is not understood: {error}") from None
    if received is None:
        return None, []
    answer, fds = received
    if answer.get("event") == "error":
        fds.close()
        raise from_kind(answer.get("kind", ""), answer["sentence"], answer.get("hint", ""))
    return dict(answer), fds.take_all()


def _rest(
    connection: wire.Connection, message: dict[str, Any], answer: dict[str, Any]
) -> dict[str, Any] | None:
    """A long answer comes in pages: all of it, in one; None when the controller has gone."""
    page: dict[str, Any] | None = answer
    while page is not None and "more" in page:
        try:
            connection.send({**message, "after": page["more"]})
        except (BrokenPipeError, ConnectionResetError):
            return None
        page = receive(connection)
        if page is not None:
            name = "groups" if "groups" in answer else "jobs"
            answer[name] += page[name]
    return None if page is None else answer


def ask(message: dict[str, Any], environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """One request, one answer.  Raises the error that the controller answered with."""
    for _ in range(_STARTS):  # of a controller that is killed, the next one has the answer
        connection = request(message, environ=environ)
        answer = receive(connection)
        if answer is not None and "more" in answer:
            answer = _rest(connection, message, answer)
        connection.close()
        if answer is not None:
            return answer
    raise EngineError(
        "the controller closed the connection without an answer",
        hint=f"see {paths.state_directory(environ)}/controller.log",
    )
