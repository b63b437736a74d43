"""One container of a trial (trial.py), from its first command to its last.

The commands are those of a step's container; the order is the Containers Guide's, with a look at
the state in between.  Each method yields what was done, and ``close`` leaves nothing, however far
it came.
"""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Final, Literal

from roadstead.errors import RuntimeFailure
from roadstead.host import namespaces, process
from roadstead.oci import runtime
from roadstead.step.container import Container

Mode = Literal["run", "create"]
Verdict = Literal["ok", "note", "warning", "failure"]

_STARTING: Final = 2.0  # for a program of the bundle's own to say something, or to end
_ENDING: Final = 2.0
READY: Final = b"ready\n"

# A program that says when it is there, ends when it is told to, and ends when we are gone.
SHELL: Final = 'trap "exit 143" TERM; echo ready; while read line; do :; done'


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """One step of the trial.  ``argv`` is empty for what is no command; ``status`` None: it did
    not end, and need not have (``run`` lasts as long as the container) or took too long."""

    mode: str
    operation: str
    verdict: Verdict
    found: str
    argv: tuple[str, ...] = ()
    status: int | None = None
    output: str = ""
    hint: str = ""
    seconds: float = 0.0


Steps = Generator[Done, None, None]


class Stopped(Exception):
    """The lifeline has hung up."""


class Case:
    """One container, from its first command to its last; each method yields what was done."""

    def __init__(
        self,
        container: Container,
        typed: bytes,
        wait: Callable[[list[int], float], list[int]],
        patience: float,
    ) -> None:
        self._container = container
        self._commands = container.commands
        self._typed = typed
        self._wait = wait
        self._patience = patience
        self._stdin, self._keyboard = os.pipe2(os.O_CLOEXEC)
        self._screen, self._stdout = os.pipe2(os.O_CLOEXEC)
        self._stderr = os.memfd_create("roadstead-trial", os.MFD_CLOEXEC)
        self._first: process.Child | None = None
        self._made = False  # whether there may be a container that has to be deleted
        os.set_blocking(self._screen, False)

    # -- the two ways -------------------------------------------------------------------------

    def run_mode(self) -> Steps:
        began = time.monotonic()
        argv = self._argv("run")
        assert argv is not None
        self._made = True
        child = self._first = self._container.child = self._spawn(argv, container=True)
        heard = self._until_ready(child)
        took = time.monotonic() - began
        shown = (self._printed() + heard.decode(errors="replace")).strip()
        if child.status is not None:
            status = child.status
            failure = self._container._run_failure(status) if status else None
            if failure is not None or (heard == b"" and status):
                sentence = str(failure or f"the program ended with status {status}")
                hint = failure.hint if failure else ""
                yield self._done("run", argv, sentence, status, shown, took, "failure", hint)
            else:
                yield self._done(
                    "run", argv, f"the program ended by itself ({status})", status, shown, took
                )
        else:
            yield self._done("run", argv, "the container runs", None, shown, took)
            yield self._query("running")
            yield from self._kill(child)
        yield from self._delete()

    def create_mode(self) -> Steps:
        began = time.monotonic()
        argv = self._argv("create")
        assert argv is not None
        self._made = True
        status, _ = self._ended(self._spawn(argv, container=True))
        took = time.monotonic() - began
        said = self._printed().strip()
        if status != 0:
            yield self._not_zero("create", argv, status, said, took)
            yield from self._delete()
            return
        yield self._done("create", argv, "the container is made", status, said, took)
        query = self._query("created")
        yield query
        pid = _pid(query.output)
        if pid in process.children(os.getpid()):
            self._first = self._container.child = process.adopt(pid)
        elif query.verdict == "ok":
            yield replace(
                query,
                verdict="failure",
                found=f"process {pid} of the container is not ours",
                hint="a runtime that asks a daemon to start containers needs RunTimeRun",
            )
        yield from self._start()
        if self._first is not None and self._first.status is None:
            yield self._query("running")
            yield from self._kill(self._first)
        yield from self._delete()

    def _start(self) -> Steps:
        done = self._simple("start", "the program is started")
        heard = b""
        if done.verdict == "ok" and self._first is not None:
            heard = self._until_ready(self._first)
            if self._first.status is not None:
                done = replace(done, found=f"the program ended by itself ({self._first.status})")
        text = heard.decode(errors="replace").strip()
        yield replace(done, output="\n".join(filter(None, (done.output, text))))

    # -- one command --------------------------------------------------------------------------

    def _argv(self, operation: runtime.Operation) -> list[str] | None:
        pid = self._first.pid if self._first is not None and self._first.status is None else 0
        inside = self._container.processes() if self._first is not None else []
        return self._commands.command(operation, inside[0] if inside else pid)

    def _spawn(self, argv: list[str], *, container: bool, memory: int = -1) -> process.Child:
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        stdio = (self._stdin, self._stdout, self._stderr) if container else (null, memory, memory)
        try:
            return process.spawn(argv, env=self._container.plan.runtime_env, stdio=stdio)
        except OSError as error:
            raise RuntimeFailure(f"cannot execute {argv[0]}: {error.strerror}") from None
        finally:
            os.close(null)

    def _call(
        self, operation: runtime.Operation
    ) -> tuple[list[str] | None, int | None, str, float]:
        argv = self._argv(operation)
        if argv is None:
            return None, 0, "", 0.0
        memory = os.memfd_create("roadstead-trial", os.MFD_CLOEXEC)
        began = time.monotonic()
        try:
            status, _ = self._ended(self._spawn(argv, container=False, memory=memory))
            said = os.pread(memory, 1 << 20, 0).decode(errors="replace").strip()
        finally:
            os.close(memory)
        return argv, status, said, time.monotonic() - began

    def _ended(self, child: process.Child) -> tuple[int | None, bool]:
        """Its status; None when it took too long, and was killed."""
        try:
            if self._wait([child.pidfd], self._patience):
                return child.reap(), True
        except Stopped:
            self._end(child)
            raise
        self._end(child)
        return None, False

    @staticmethod
    def _end(child: process.Child) -> None:
        for pid in process.descendants(child.pid):
            process.send(pid, process.KILL)
        child.signal(process.KILL)
        child.reap()

    def _simple(self, operation: runtime.Operation, found: str) -> Done:
        argv, status, said, took = self._call(operation)
        if argv is None:
            return self._done(operation, [], "no command is configured for it", None, "", 0, "note")
        if status != 0:
            return self._not_zero(operation, argv, status, said, took)
        return self._done(operation, argv, found, status, said, took)

    def _not_zero(
        self, operation: str, argv: list[str], status: int | None, said: str, took: float
    ) -> Done:
        complaint = runtime.complaint(self._commands.log) if self._commands.log else ""
        how = (
            f"did not answer in {self._patience:.0f} seconds"
            if status is None
            else f"failed with status {status}"
        )
        last = complaint or (said.splitlines() or [""])[-1]
        sentence = f"{self._commands.program}: {operation} {how}{': ' + last if last else ''}"
        hint = namespaces.blocking_setting() if self._container.plan.uids is not None else ""
        return self._done(operation, argv, sentence, status, said, took, "failure", hint)

    def _query(self, expected: str) -> Done:
        done = self._simple("query", f"the state is {expected}")
        if done.verdict == "ok":
            state = _state(done.output)
            if state != expected:
                return replace(
                    done, verdict="failure", found=f"the state is {state!r}, not {expected!r}"
                )
        return done

    def _kill(self, first: process.Child) -> Steps:
        """A step ends its processes itself if need be, so that a kill which fails stops nobody."""
        done = self._simple("kill", "the container has been ended")
        if done.verdict == "note":
            yield done
            return
        if self._wait([first.pidfd], _ENDING if done.verdict == "ok" else 0.0):
            status = first.reap()
            self._container.child = None
            how = f"by signal {-status}" if status < 0 else f"with status {status}"
            if done.verdict == "ok":
                done = replace(done, found=f"the container has ended, {how}")
        elif done.verdict == "ok":
            found = f"kill succeeded, and the container still runs after {_ENDING:.0f} seconds"
            done = replace(done, verdict="failure", found=found)
        if done.verdict == "failure":
            hint = _without_all(done.argv, self._container.plan.spec.uid) or done.hint
            done = replace(done, verdict="warning", hint=hint)
        yield done

    def _delete(self) -> Steps:
        """As a step does: ``delete`` may complain of a container that is gone already."""
        done = self._simple("delete", "the container is deleted")
        gone, status, said, took = self._call("query")
        self._made = gone is not None and status == 0
        if done.verdict == "failure" and not self._made:
            done = replace(done, verdict="ok", found="nothing was left to delete", hint="")
        yield done
        if gone is None:
            return
        if self._made:
            yield self._done(
                "query", gone, "there still is a container", status, said, took, "failure"
            )
        else:
            yield self._done("query", gone, "gone, as it should be", status, said, took)

    def _done(
        self,
        operation: str,
        argv: list[str],
        found: str,
        status: int | None,
        output: str,
        seconds: float,
        verdict: Verdict = "ok",
        hint: str = "",
    ) -> Done:
        return Done(
            mode=self._commands.mode,
            operation=operation,
            verdict=verdict,
            found=found,
            argv=tuple(argv),
            status=status,
            output=output,
            hint=hint,
            seconds=round(seconds, 3),
        )

    # -- the program --------------------------------------------------------------------------

    def _until_ready(self, child: process.Child) -> bytes:
        """Wait until the program says something, or has ended; what it said."""
        if self._typed:
            os.write(self._keyboard, self._typed)
        known = self._typed or self._container.task.argv[-1] == SHELL
        ready = self._wait([child.pidfd, self._screen], self._patience if known else _STARTING)
        heard = b""
        if self._screen in ready:
            heard = os.read(self._screen, 1 << 16)
        if child.pidfd in ready:
            child.reap()
            self._container.child = None
        return heard

    def _printed(self) -> str:
        return os.pread(self._stderr, 1 << 16, 0).decode(errors="replace")

    def close(self) -> None:
        """End and delete what is still there, however we came here."""
        self._wait = _patiently
        if self._made:
            self._call("kill")
            self._call("delete")
        if self._first is not None and self._first.status is None:
            self._end(self._first)
            self._call("delete")
        for pid in process.descendants(os.getpid()):
            process.send(pid, process.KILL)
        for fd in (self._stdin, self._keyboard, self._screen, self._stdout, self._stderr):
            os.close(fd)


def _patiently(sources: list[int], seconds: float) -> list[int]:
    """For the end: nothing interrupts it, but its time limit."""
    poll = select.poll()
    for source in sources:
        poll.register(source, select.POLLIN)
    return [fd for fd, _ in poll.poll(int(min(seconds, _ENDING) * 1000))]


def _without_all(argv: tuple[str, ...], uid: int) -> str:
    """``kill --all`` finds a container's processes by its control group, and an unprivileged
    container has none: runc 1.1 fails then, crun 1.8 does nothing and says that it went well."""
    if uid and {"-a", "--all"} & set(" ".join(argv).split()):
        return (
            "remove -a from RunTimeKill: it needs a control group, which your containers do not "
            "have here; srun ends them by itself"
        )
    return ""


def _pid(state: str) -> int:
    try:
        return int(json.loads(state)["pid"])
    except (ValueError, TypeError, KeyError):
        return 0


def _state(state: str) -> str:
    try:
        return str(json.loads(state)["status"])
    except (ValueError, TypeError, KeyError):
        return "not JSON with a status"
