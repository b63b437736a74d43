"""A program's way to an engine: many requests at a time, and an answer to each when there is one.

``Session`` is what ``roadstead.Client`` needs of an engine, and all that it knows of one.
``LocalSession`` is the local engine's: one connection to the controller, on which each request has
a tag (controller/peers.py), and one thread that reads.  Nothing polls: a request is a future, and
whoever waits for it sleeps.

The controller may be killed at any time.  What has not been answered is then sent again, to the
next one: a submission has a key, by which it is accepted once; a wait, a question and a cancel may
be repeated.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from roadstead.engines import local
from roadstead.errors import EngineError, RoadsteadError, from_kind
from roadstead.host import wire

T = TypeVar("T")
_MORE_FOLLOWS = ("pending", "granted", "started", "notice")
_RESTARTS = 3  # of the controller without an answer in between


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A batch job to be: what sbatch would be given.

    ``options`` are sbatch's by their long names, as ``cli.options.gather`` returns them;
    ``operands`` the script's name and its arguments; ``environ`` the job's environment;
    ``container`` what ``cli.attend.settle`` found out about the container.
    """

    options: dict[str, str]
    operands: list[str]
    script: str
    environ: Mapping[str, str] = field(repr=False)
    container: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a job ended.

    ``state`` is Slurm's word (COMPLETED, FAILED, CANCELLED, TIMEOUT, OUT_OF_MEMORY, NODE_FAIL …).
    ``code`` is 0 for COMPLETED only: it is what ``sbatch --wait`` exits with.  ``signal`` is the
    one that ended the job, or 0.
    """

    job_id: int
    state: str
    code: int
    signal: int = 0
    node: str = ""

    @property
    def ok(self) -> bool:
        """Whether it is COMPLETED."""
        return self.state == "COMPLETED"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """What ``scontrol show job`` says of a job.  Times are seconds since the epoch, or None."""

    job_id: int
    name: str
    state: str
    reason: str
    code: int
    signal: int
    node: str
    submitted: float | None
    started: float | None
    ended: float | None
    stdout: str
    stderr: str
    container: str


class Session(Protocol):
    """An engine, as a program talks to it.  Every method returns at once, and may be called from
    any thread.  Futures fail with a RoadsteadError."""

    def submit(self, submission: Submission) -> Future[range]:
        """The job's id, as a range: of an array, those of its elements."""

    def wait(self, job_id: int) -> Future[End]:
        """How the job ends, once it has."""

    def cancel(self, job_ids: Sequence[int], signal: int | None) -> Future[list[str]]:
        """End jobs, or send them a signal; the sentences about those that could not be."""

    def show(self, job_id: int) -> Future[list[JobRecord]]:
        """The job, or the elements of the array."""

    def close(self) -> None:
        """Let go of the engine; futures that are not done fail.  Jobs go on."""


class _Request:
    __slots__ = ("body", "done", "read")

    def __init__(self, body: dict[str, Any], read: Callable[[dict[str, Any]], Any]) -> None:
        self.body = body
        self.read = read
        self.done: Future[Any] = Future()
        self.done.set_running_or_notify_cancel()  # it is sent: there is no calling it back


class LocalSession:
    """The local engine's session.  Raises EngineError where no controller can be started."""

    def __init__(
        self, environ: Mapping[str, str], base: Mapping[str, Any], key: Callable[[], str]
    ) -> None:
        """``base`` is what every submission says of this process; ``key`` makes a new key."""
        self._environ = dict(environ)
        self._base = base
        self._key = key
        self._tags = itertools.count(1)
        self._requests: dict[int, _Request] = {}
        # Held while sending.  The controller reads whatever else it does, so that this ends.
        self._lock = threading.Lock()
        self._connection: wire.Connection | None = None
        self._closed = False

    # -- requests -------------------------------------------------------------------------------

    def submit(self, submission: Submission) -> Future[range]:
        body = {
            **self._base,
            **submission.container,
            "key": self._key(),
            "options": submission.options,
            "argv": submission.operands,
            "script": submission.script,
            "env": submission.environ,
        }
        return self._ask(body, _job_ids)

    def wait(self, job_id: int) -> Future[End]:
        return self._ask({"op": "wait", "job_id": job_id, "step_id": None}, _end)

    def cancel(self, job_ids: Sequence[int], signal: int | None) -> Future[list[str]]:
        body = {"op": "cancel", "jobs": [str(each) for each in job_ids], "signal": signal}
        return self._ask(body, _complaints)

    def show(self, job_id: int) -> Future[list[JobRecord]]:
        return self._ask({"op": "query", "what": "jobs", "job_id": job_id}, _records)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._connection is not None:
                self._connection.shut_down()
        self._fail(EngineError("the client was closed before the answer came"))

    # -- the connection -------------------------------------------------------------------------

    def _ask(self, body: dict[str, Any], read: Callable[[dict[str, Any]], T]) -> Future[T]:
        tag = next(self._tags)
        request = _Request({"v": wire.VERSION, "tag": tag, **body}, read)
        with self._lock:
            if self._closed:
                raise EngineError("the client has been closed")
            if self._connection is None:
                self._connect()
            assert self._connection is not None
            self._requests[tag] = request
            _send(self._connection, request)
        return request.done

    def _connect(self) -> None:
        self._connection = local.connect(self._environ)
        thread = threading.Thread(
            target=self._read, args=(self._connection,), name="roadstead-client", daemon=True
        )
        thread.start()

    def _read(self, connection: wire.Connection) -> None:
        """The reading thread: every answer to its future."""
        fruitless = 0
        while True:
            try:
                received = connection.receive()
            except ValueError as error:
                self._fail(EngineError(f"the controller's answer is not understood: {error}"))
                received = None
            if received is not None:
                answer, fds = received
                fds.close()
                fruitless = 0
                self._on_answer(answer)
                continue
            fruitless += 1
            following = self._after_the_end(connection, fruitless)
            if following is None:
                return
            connection = following

    def _after_the_end(self, ended: wire.Connection, fruitless: int) -> wire.Connection | None:
        """The connection has ended.  Where answers are missing the next controller gives them."""
        failure = EngineError("the controller ends as soon as it is asked")
        with self._lock:
            ended.close()
            self._connection = None
            if self._closed or not self._requests:
                return None
            if fruitless <= _RESTARTS:
                try:
                    self._connection = local.connect(self._environ)
                except EngineError as error:
                    failure = error
                else:
                    for tag in sorted(self._requests):
                        _send(self._connection, self._requests[tag])
                    return self._connection
        self._fail(failure)
        return None

    def _on_answer(self, answer: dict[str, Any]) -> None:
        if answer["event"] in _MORE_FOLLOWS:
            return
        error = None
        if answer["event"] == "error":
            error = from_kind(answer.get("kind", ""), answer["sentence"], answer.get("hint", ""))
        if "tag" not in answer:  # of another version, it cannot serve any
            self._fail(error or EngineError(f"unexpected answer: {answer['event']}"))
            return
        request = self._requests.pop(answer["tag"], None)
        if request is None:  # it has failed already
            return
        if error is not None:
            request.done.set_exception(error)
        else:
            request.done.set_result(request.read(answer))

    def _fail(self, error: RoadsteadError) -> None:
        while self._requests:
            _, request = self._requests.popitem()
            request.done.set_exception(error)


def _send(connection: wire.Connection, request: _Request) -> None:
    try:
        connection.send(request.body)
    except (BrokenPipeError, ConnectionResetError):
        return  # the reading thread sees it too, and sends it again


def _job_ids(answer: dict[str, Any]) -> range:
    first = int(answer["job_id"])
    return range(first, int(answer.get("last", first)) + 1)


def _end(answer: dict[str, Any]) -> End:
    return End(
        job_id=answer["job_id"],
        state=answer["state"],
        code=answer["code"],
        signal=answer.get("signal", 0),
        node=answer.get("node", ""),
    )


def _complaints(answer: dict[str, Any]) -> list[str]:
    return [each["sentence"] for each in answer["errors"] if not each["quiet"]]


def _records(answer: dict[str, Any]) -> list[JobRecord]:
    return [
        JobRecord(
            job_id=each["job_id"],
            name=each["name"],
            state=each["state"],
            reason=each["reason"],
            code=each["exit_code"],
            signal=each["exit_signal"],
            node=each["node"],
            submitted=each["submit_time"],
            started=each["start_time"],
            ended=each["end_time"],
            stdout=each["stdout"],
            stderr=each["stderr"],
            container=each["container"],
        )
        for each in answer["jobs"]
    ]


def new_key() -> str:
    """What a submission is known by, however often it is sent."""
    return os.urandom(8).hex()
