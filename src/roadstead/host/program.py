"""A program of somebody else's that works for a command of ours: debootstrap, docker, tar.

It dies with us, however we end.  What it says is seen on a terminal; otherwise it is kept, and its
last lines are there to be told when it has failed.  Whoever starts one must be single-threaded.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from typing import Final

from roadstead.host import fork, linux, process

_SYSTEM: Final = "/usr/local/sbin:/usr/sbin:/sbin"  # where an ordinary user's PATH does not look
_TAIL: Final = 5


def find(name: str) -> str | None:
    """The file of the program ``name``, on PATH or where the system keeps root's."""
    return process.which(name, f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM}")


class Program:
    """One that was started.  ``output`` is the reading end of its standard output, which becomes
    the caller's to close, or -1."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        show: bool = False,
        piped: bool = False,
        env: Mapping[str, str] | None = None,
        only: Mapping[str, str] | None = None,
    ) -> None:
        """Start ``argv``, whose first is a path; ``env`` is added to ours, ``only`` is all that
        there is.

        With ``show`` it says what it says on our standard error.
        """
        self._status: int | None = None
        self._said = 2 if show else os.memfd_create("said", os.MFD_CLOEXEC)
        self.output, written = os.pipe2(os.O_CLOEXEC) if piped else (-1, self._said)
        self._pid = fork.run_in_child(
            lambda: _become(list(argv), written, self._said, env or {}, only)
        )
        if piped:
            os.close(written)

    def wait(self) -> int:
        """Its exit status, once it has ended; minus the number of the signal that killed it."""
        if self._status is None:
            _, status = os.waitpid(self._pid, 0)
            self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def stop(self) -> None:
        """See that it is gone."""
        if self._status is None:
            process.send(self._pid, process.KILL)
            self.wait()

    def said(self) -> list[str]:
        """The last lines that it has said; none where they were shown."""
        if self._said == 2:
            return []
        size = os.fstat(self._said).st_size
        text = os.pread(self._said, 4096, max(0, size - 4096)).decode(errors="replace")
        return [line.strip() for line in text.splitlines() if line.strip()][-_TAIL:]

    def close(self) -> None:
        """Let go of what it has said."""
        self.stop()
        if self._said != 2:
            os.close(self._said)
            self._said = 2


def answer(
    argv: Sequence[str],
    env: Mapping[str, str] | None = None,
    *,
    only: Mapping[str, str] | None = None,
) -> tuple[int, bytes, list[str]]:
    """Run ``argv`` to its end: status, standard output, and the last lines of the other."""
    program = Program(argv, piped=True, env=env, only=only)
    try:
        with open(program.output, "rb") as output:
            data = output.read()
        return program.wait(), data, program.said()
    finally:
        program.close()


def _become(
    argv: list[str],
    output: int,
    said: int,
    env: Mapping[str, str],
    only: Mapping[str, str] | None,
) -> None:
    linux.set_parent_death_signal(process.KILL)
    for signo in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them; programs expect to die
        signal.signal(signo, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(said, 2)
    if only is not None:
        os.environ.clear()
        os.environ.update(only)
    os.environ.update(env)
    fork.replace_process(argv)
