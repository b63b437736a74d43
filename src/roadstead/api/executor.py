"""Executor: a ``concurrent.futures.Executor`` whose calls are jobs, in containers or without.

A call is a job of its own: it is queued, limited, accounted and cancelled like any other, with
``sbatch``'s options for its needs.  The call goes in as the job's standard input and its result
comes out as its standard output, which are files that the engine opens outside the container: so
nothing has to be mounted, a read-only root file system will do, and a cluster needs only a
directory that its nodes share.

Functions are pickled by cloudpickle: what people send to executors are functions of ``__main__``,
of notebooks, lambdas and closures, none of which pickle can carry.  It need not be in the
container: its source travels with the call.  Bytecode travels too, so the container's Python has
to be of the same minor version, and a job with another one says so.
"""

from __future__ import annotations

import concurrent.futures
import importlib.util
import inspect
import os
import pickle
import queue
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import ModuleType
from typing import Any, Final, ParamSpec, TypeVar

from roadstead.api import worker
from roadstead.api.client import Client, Job, Option
from roadstead.engines.session import End
from roadstead.errors import RoadsteadError, UsageError

P = ParamSpec("P")
T = TypeVar("T")

_BOOT: Final = "import sys; f = sys.stdin.buffer; exec(f.read(int(f.readline()))); main(f)"
_LAST_LINES: Final = 20
_OURS: Final = ("input", "output", "error", "array", "open_mode")


class JobFailed(RoadsteadError):
    """The job of a call ended without a result: it was killed, ran out of time or memory, or its
    Python could not start.  ``log`` is what it has said."""

    def __init__(self, sentence: str, *, job_id: int, state: str, log: str) -> None:
        super().__init__(sentence)
        self.job_id = job_id
        self.state = state
        self.log = log

    def __str__(self) -> str:
        lines = self.log.strip().splitlines()[-_LAST_LINES:]
        return "\n  ".join([super().__str__(), *lines])

    def __reduce__(self) -> tuple[Any, ...]:
        return _job_failed, (self.args[0], self.job_id, self.state, self.log)


def _job_failed(sentence: str, job_id: int, state: str, log: str) -> JobFailed:
    return JobFailed(sentence, job_id=job_id, state=state, log=log)


class RemoteTraceback(Exception):
    """The cause of an exception that a call raised: where, in the job."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class _Call(Future[Any]):
    """A call's future.  ``cancel`` ends its job, also one that runs: a job can be ended."""

    def __init__(self, folder: Path, number: int) -> None:
        super().__init__()
        self.input = folder / f"{number}.call"
        self.output = folder / f"{number}.result"
        self.log = folder / f"{number}.log"
        self.job: Job | None = None

    def cancel(self) -> bool:
        cancelled = super().cancel()
        if cancelled and self.job is not None:
            _forget_answer(self.job)
        return cancelled


def _forget_answer(job: Job) -> None:
    try:
        job.request_cancel()
    except RoadsteadError:
        return  # the client is closed: nobody waits for this job any more


class Executor(concurrent.futures.Executor):
    """Runs Python functions in jobs.

    ``container`` is whatever ``--container`` takes, with a ``python`` of this Python's minor
    version in it; without one, calls run on the host.  ``directory`` is where calls and results are
    kept until they are read, ``~/.cache/roadstead/executor`` if not given: on a cluster, all nodes
    must see it.  ``by_value`` names modules that the container lacks: their functions travel whole.
    ``options`` are sbatch's, for every job: ``cpus_per_task=2``, ``time="10:00"``, ``mem="2G"``.
    """

    def __init__(
        self,
        container: str | os.PathLike[str] | None = None,
        *,
        client: Client | None = None,
        python: str | None = None,
        directory: str | os.PathLike[str] | None = None,
        by_value: Sequence[ModuleType] = (),
        **options: Option,
    ) -> None:
        self._cloudpickle = _cloudpickle()
        for name in _OURS:
            if name in options:
                raise UsageError(f"{name}: not an option of Executor, which needs it itself")
        for module in by_value:
            self._cloudpickle.register_pickle_by_value(module)
        self._container = container
        self._own_client = client is None
        self._client = Client() if client is None else client
        self._python = python or ("python3" if container else sys.executable)
        self._options = {"job_name": "executor", **options}
        parent = Path(directory) if directory else _default_directory()
        parent.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix="calls-", dir=parent))
        self._sources = _sources() if container else {}
        self._count = 0
        self._open: set[_Call] = set()
        self._lock = threading.Lock()
        self._shut = False
        self._ended: queue.SimpleQueue[tuple[_Call, End | BaseException] | None] = (
            queue.SimpleQueue()
        )
        self._finisher = threading.Thread(
            target=self._finish_calls, name="roadstead-executor", daemon=True
        )
        self._finisher.start()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """A job that calls ``fn(*args, **kwargs)``; the future of its result.

        The function's exceptions are the future's, with the job's traceback as their cause; a job
        that ends without a result is a ``JobFailed`` with its log.
        """
        letter = self._letter(fn, args, kwargs)
        with self._lock:
            if self._shut:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._count += 1
            call = _Call(self._folder, self._count)
            self._open.add(call)
        try:
            call.input.write_bytes(letter)
            started = self._client.start(
                [self._python, "-c", _BOOT],
                container=self._container,
                input=os.fspath(call.input),
                output=os.fspath(call.output),
                error=os.fspath(call.log),
                **self._options,  # type: ignore[arg-type]
            )
        except BaseException:
            self._close(call)
            raise
        started.add_done_callback(lambda done: self._on_started(call, done))
        return call

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """No more calls; with ``wait``, return when all have ended.  ``cancel_futures`` ends those
        that have not."""
        with self._lock:
            self._shut = True
            left = list(self._open)
            idle = not left
        if cancel_futures:
            for call in left:
                call.cancel()
        if idle:
            self._ended.put(None)
        if wait:
            self._finisher.join()

    # -- a call's life --------------------------------------------------------------------------

    def _letter(self, fn: object, args: object, kwargs: object) -> bytes:
        source = inspect.getsource(worker).encode()
        letter = {
            "version": sys.version_info[:2],
            "path": [] if self._container else [os.path.abspath(each) for each in sys.path],
            "sources": self._sources,
            "call": self._cloudpickle.dumps((fn, args, kwargs)),
        }
        return b"%d\n" % len(source) + source + pickle.dumps(letter)

    def _on_started(self, call: _Call, started: Future[Job]) -> None:
        error = started.exception()
        if error is not None:
            self._ended.put((call, error))
            return
        call.job = started.result()
        if call.cancelled():  # before we knew which job it is
            _forget_answer(call.job)
        try:
            end = call.job.end()
        except RoadsteadError as closed:
            self._ended.put((call, closed))
            return
        end.add_done_callback(lambda done: self._ended.put((call, _outcome(done))))

    def _finish_calls(self) -> None:
        """The finishing thread: results are read, and unpickled, here and not where answers are
        awaited."""
        while (item := self._ended.get()) is not None:
            call, outcome = item
            if call.set_running_or_notify_cancel():
                self._settle(call, outcome)
            if self._close(call):
                break
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._own_client:
            self._client.close()

    def _settle(self, call: _Call, outcome: End | BaseException) -> None:
        if isinstance(outcome, BaseException):
            call.set_exception(outcome)
            return
        try:
            kind, *values = _answer(call.output)
        except Exception as error:  # unpickling runs code of the value's
            call.set_exception(_failure(call, outcome, error))
            return
        if kind == "result":
            call.set_result(values[0])
        elif kind == "raised":
            raised, text = values
            raised.__cause__ = RemoteTraceback(text)
            call.set_exception(raised)
        else:
            call.set_exception(_failed(call, outcome, values[0]))

    def _close(self, call: _Call) -> bool:
        """Forget a call; whether it was the last that there will be."""
        for path in (call.input, call.output, call.log):
            path.unlink(missing_ok=True)
        with self._lock:
            self._open.discard(call)
            return self._shut and not self._open


def _cloudpickle() -> ModuleType:
    try:
        import cloudpickle  # type: ignore[import-untyped]
    except ImportError:
        raise UsageError(
            "Executor needs cloudpickle", hint="pip install 'roadstead[executor]'"
        ) from None
    found: ModuleType = cloudpickle
    return found


def _sources() -> dict[str, str]:
    """cloudpickle's own source, for containers that lack it: three modules of plain Python."""
    found = {}
    for name in ("cloudpickle", "cloudpickle.cloudpickle", "cloudpickle.cloudpickle_fast"):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            found[name] = Path(spec.origin).read_text(encoding="utf-8")
    return found


def _default_directory() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(cache) if cache.startswith("/") else Path.home() / ".cache"
    return base / "roadstead" / "executor"


def _outcome(done: Future[End]) -> End | BaseException:
    return done.exception() or done.result()


def _answer(path: Path) -> Any:
    data = path.read_bytes()
    size = len(worker.MAGIC) + 8
    if not data.startswith(worker.MAGIC) or len(data) < size:
        raise EOFError
    body = data[size:]
    if len(body) != int.from_bytes(data[len(worker.MAGIC) : size], "big"):
        raise EOFError
    return pickle.loads(body)


def _failure(call: _Call, end: End, error: Exception) -> JobFailed:
    if isinstance(error, (EOFError, FileNotFoundError)):
        how = f"signal {end.signal}" if end.signal else f"exit code {end.code}"
        return _failed(call, end, f"no result: {end.state}, {how}")
    return _failed(call, end, f"its result cannot be unpickled here: {error!r}")


def _failed(call: _Call, end: End, sentence: str) -> JobFailed:
    try:
        log = call.log.read_text(errors="replace")
    except FileNotFoundError:
        log = ""
    return JobFailed(f"job {end.job_id}: {sentence}", job_id=end.job_id, state=end.state, log=log)
