"""Client: submit batch jobs and hear of their ends, from a program.

A job is what ``sbatch`` would submit: the options are its options, checked by its table, and the
script's ``#SBATCH`` lines count.  Variables like SBATCH_PARTITION do not: what a program submits
should not hang on who calls it.

All methods are thin: the work is the session's, where each request is a future.  So one client can
be used from many threads, and the asynchronous one is the same with other waiting.
"""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Final, Self

from roadstead.cli import attend, components
from roadstead.cli import script as scripts
from roadstead.core import values
from roadstead.engines.session import End, JobRecord, LocalSession, Session, Submission, new_key
from roadstead.errors import RequestError, UsageError

Option = str | int | float | bool | Sequence[str | int] | None

_ANOTHER_WAY: Final = {
    "wrap": "give the command: submit(['sh', '-c', 'a | b'])",
    "wait": "use Job.wait()",
    "parsable": "use Job.id",
    "test-only": "there is no answer to it but sbatch's",
    "export-file": "give the variables themselves: submit(…, env=…)",
    "help": "",
    "usage": "",
    "version": "",
}


class _Submitting:
    """What the two clients have in common: from a call's arguments to a Submission."""

    def __init__(
        self, session: Session | None = None, *, environ: Mapping[str, str] | None = None
    ) -> None:
        self._environ = environ
        self._session = session or LocalSession(
            os.environ if environ is None else environ,
            attend.base_message("sbatch", "submit", {}, []),
            new_key,
        )

    def close(self) -> None:
        """Let go of the engine.  Jobs go on."""
        self._session.close()

    def _submission(
        self,
        command: Sequence[str | os.PathLike[str]] | None,
        script: str | None,
        arguments: Sequence[str],
        env: Mapping[str, str] | None,
        asked: Mapping[str, Option],
    ) -> Submission:
        if (command is None) == (script is None):
            raise UsageError("submit wants a command or a script, one of them")
        if isinstance(command, str):
            raise UsageError("submit wants a command's words", hint=f"submit([{command!r}])")
        if script is None:
            assert command is not None
            text, found = scripts.wrap(shlex.join([os.fspath(each) for each in command])), []
            operands = ["wrap"]
        else:
            text, found = script, scripts.directives(script)
            operands = ["sbatch", *arguments]
        argv = list(_argv(asked))
        understood, *others = components.gather("sbatch", [argv], {}, components.of_script(found))
        understood.setdefault("job-name", _name(command))
        message: dict[str, Any] = {"cwd": os.getcwd()}
        attend.add_components("sbatch", message, [(each, operands) for each in others])
        cwd = message.pop("cwd")
        container = attend.settle("sbatch", understood, cwd) | message
        if "mail-type" in understood:
            container["mailer"] = attend.mailer("sbatch")
        if env is None:
            env = os.environ if self._environ is None else self._environ
        return Submission(
            options=understood,
            operands=operands,
            script=text,
            container=container,
            environ={name: value for name, value in env.items() if name},
        )


def _name(command: Sequence[str | os.PathLike[str]] | None) -> str:
    return os.path.basename(os.fspath(command[0])) if command else "sbatch"


def _argv(asked: Mapping[str, Option]) -> Iterable[str]:
    """Options as sbatch takes them: ``cpus_per_task=2`` is ``--cpus-per-task=2``."""
    for name, value in asked.items():
        word = name.rstrip("_").replace("_", "-")
        if word in _ANOTHER_WAY:
            raise UsageError(f"{name}: not an option of submit", hint=_ANOTHER_WAY[word])
        if value is None or value is False:
            continue
        if value is True:
            yield f"--{word}"
        elif isinstance(value, (str, int, float)):
            yield f"--{word}={value}"
        else:
            yield f"--{word}={','.join(map(str, value))}"


def _worst(ends: Sequence[End]) -> End:
    return max(ends, key=lambda end: end.code)


def _signal(signal: int | str | None) -> int | None:
    return values.signal_number(signal) if isinstance(signal, str) else signal


def _read(path: str) -> str:
    if not path:
        return ""
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def _log_path(records: Sequence[JobRecord], stream: str) -> str:
    if stream not in ("stdout", "stderr"):
        raise UsageError(f"no stream {stream!r}", hint="stdout or stderr")
    found: str = getattr(_known(records), stream)
    return found


def _known(records: Sequence[JobRecord]) -> JobRecord:
    if not records:
        raise RequestError("Invalid job id specified")
    return records[0]


class _AnyJob:
    """What ``Job`` and ``AsyncJob`` are alike in."""

    def __init__(self, session: Session, ids: range) -> None:
        self._session = session
        self.ids = ids

    @property
    def id(self) -> int:
        return self.ids[0]

    def __repr__(self) -> str:
        return f"<roadstead.{type(self).__name__} {self.id}>"


class Job(_AnyJob):
    """A job that was submitted; of an array, all of its elements.

    ``id`` is the job's, or the array's: that of its first element.
    """

    def end(self) -> Future[End]:
        """A future of the job's end, for ``concurrent.futures.wait`` and ``as_completed``; of an
        array, of its first element's."""
        return self._session.wait(self.id)

    def elements(self) -> list[Job]:
        """The elements of an array, each as a job; the job itself where it is none."""
        return [Job(self._session, range(each, each + 1)) for each in self.ids]

    def wait(self, timeout: float | None = None) -> End:
        """Sleep until the job has ended; of an array, until all have: the end with the highest
        code.

        Raises TimeoutError after ``timeout`` seconds, each element's at the latest.
        """
        ends = [self._session.wait(each) for each in self.ids]
        return _worst([end.result(timeout) for end in ends])

    def cancel(self, signal: int | str | None = None) -> None:
        """End the job, or send its steps a signal ("USR1", 10).  One that is over is no error,
        unless it was to get a signal: RequestError."""
        complaints = self.request_cancel(signal).result()
        if complaints:
            raise RequestError(complaints[0])

    def request_cancel(self, signal: int | str | None = None) -> Future[list[str]]:
        """The same, without waiting for the answer: the sentences about what could not be done."""
        return self._session.cancel([self.id], _signal(signal))

    def record(self) -> JobRecord:
        """What is known of it now.  Raises RequestError for a job that is forgotten."""
        return _known(self._session.show(self.id).result())

    def logs(self, stream: str = "stdout") -> str:
        """What it has written to its output ("stdout") or error file ("stderr") so far.

        Both are the same file, unless ``error=`` names one.  Raises FileNotFoundError for a job
        that has not started.
        """
        return _read(_log_path(self._session.show(self.id).result(), stream))


class Client(_Submitting):
    """A connection to the engine of this user; the local engine is started if there is none.

    ``environ`` stands in for ``os.environ``: it says where the engine is, and is what jobs inherit.
    """

    def submit(
        self,
        command: Sequence[str | os.PathLike[str]] | None = None,
        *,
        script: str | None = None,
        arguments: Sequence[str] = (),
        container: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        **options: Option,
    ) -> Job:
        """Submit a command, or a batch script's text, and return once it is on disk.

        ``options`` are sbatch's, with underscores: ``ntasks=2``, ``time="10:00"``, ``array="0-9"``,
        ``exclusive=True``, ``job_name="fit"``.  ``env`` is the job's whole environment; this
        process's, if not given.  Raises UsageError for an option that is none or has an odd value,
        RequestError for what no node has.
        """
        return self.start(
            command, script=script, arguments=arguments, container=container, env=env, **options
        ).result()

    def start(
        self,
        command: Sequence[str | os.PathLike[str]] | None = None,
        *,
        script: str | None = None,
        arguments: Sequence[str] = (),
        container: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        **options: Option,
    ) -> Future[Job]:
        """The same, without waiting for the answer: thousands a second."""
        if container is not None:
            options["container"] = os.fspath(container)
        submission = self._submission(command, script, arguments, env, options)
        return _then(self._session.submit(submission), lambda ids: Job(self._session, ids))

    def job(self, job_id: int) -> Job:
        """A job by its id, whoever has submitted it."""
        return Job(self._session, range(job_id, job_id + 1))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _then(before: Future[range], make: Any) -> Future[Job]:
    after: Future[Job] = Future()
    after.set_running_or_notify_cancel()

    def done(finished: Future[range]) -> None:
        error = finished.exception()
        if error is not None:
            after.set_exception(error)
        else:
            after.set_result(make(finished.result()))

    before.add_done_callback(done)
    return after


class AsyncJob(_AnyJob):
    """``Job``, for ``await``."""

    async def wait(self) -> End:
        """See ``Job.wait``; for a time limit, ``asyncio.timeout``."""
        ends = [asyncio.wrap_future(self._session.wait(each)) for each in self.ids]
        return _worst(await asyncio.gather(*ends))

    async def cancel(self, signal: int | str | None = None) -> None:
        """See ``Job.cancel``."""
        complaints = await asyncio.wrap_future(self._session.cancel([self.id], _signal(signal)))
        if complaints:
            raise RequestError(complaints[0])

    async def record(self) -> JobRecord:
        """See ``Job.record``."""
        records = await asyncio.wrap_future(self._session.show(self.id))
        return _known(records)

    async def logs(self, stream: str = "stdout") -> str:
        """See ``Job.logs``."""
        records = await asyncio.wrap_future(self._session.show(self.id))
        return await asyncio.to_thread(_read, _log_path(records, stream))


class AsyncClient(_Submitting):
    """``Client``, for ``async with`` and ``await``."""

    async def submit(
        self,
        command: Sequence[str | os.PathLike[str]] | None = None,
        *,
        script: str | None = None,
        arguments: Sequence[str] = (),
        container: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        **options: Option,
    ) -> AsyncJob:
        """See ``Client.submit``."""
        if container is not None:
            options["container"] = os.fspath(container)
        submission = self._submission(command, script, arguments, env, options)
        ids = await asyncio.wrap_future(self._session.submit(submission))
        return AsyncJob(self._session, ids)

    def job(self, job_id: int) -> AsyncJob:
        """See ``Client.job``."""
        return AsyncJob(self._session, range(job_id, job_id + 1))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
