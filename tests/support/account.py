"""A user that commands are run as.

As root the tests know two: root itself, and the account that script/setup made.  As anybody else
they know one, the user who started them.  Either way a command starts from an environment built
from nothing, with /dev/null for its standard input, in a session of its own, so that what passes
here does not pass thanks to the shell that pytest was started from.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from tests.support.components import SYSTEM_PATH

Argv = Sequence[str | os.PathLike[str]]
# A variable with the value None is taken away.
Variables = Mapping[str, "str | None"]


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that has ended."""

    argv: list[str]
    returncode: int
    stdout: str
    stderr: str

    def check(self, returncode: int = 0) -> Completed:
        """Itself, if it ended with this status; else the test fails and shows what was printed."""
        assert self.returncode == returncode, str(self)
        return self

    def __str__(self) -> str:
        return (
            f"{' '.join(self.argv)}\nended with {self.returncode}"
            f"\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"
        )


@dataclass(frozen=True, slots=True)
class Account:
    """Who; and how to run something as them."""

    name: str
    uid: int
    gid: int
    home: Path

    @classmethod
    def named(cls, name: str) -> Account:
        """The account of this name in the user database."""
        entry = pwd.getpwnam(name)
        return cls(entry.pw_name, entry.pw_uid, entry.pw_gid, Path(entry.pw_dir))

    @classmethod
    def current(cls) -> Account:
        """Whoever runs the tests."""
        return cls.named(pwd.getpwuid(os.geteuid()).pw_name)

    @property
    def is_current(self) -> bool:
        return self.uid == os.geteuid()

    @property
    def environment(self) -> dict[str, str]:
        """What a command of this account starts with."""
        return {
            "HOME": os.fspath(self.home),
            "LANG": "C.UTF-8",
            "LOGNAME": self.name,
            "PATH": SYSTEM_PATH,
            "SHELL": "/bin/sh",
            "USER": self.name,
        }

    def popen(
        self,
        argv: Argv,
        *,
        env: Variables | None = None,
        cwd: str | os.PathLike[str] | None = None,
        stdin: int | IO[Any] | None = subprocess.DEVNULL,
        stdout: int | IO[Any] | None = subprocess.PIPE,
        stderr: int | IO[Any] | None = subprocess.PIPE,
        **options: Any,
    ) -> subprocess.Popen[str]:
        """Start a command; the rest of the options are Popen's."""
        if not self.is_current:
            groups = os.getgrouplist(self.name, self.gid)
            options |= {"user": self.uid, "group": self.gid, "extra_groups": groups}
        variables = {**self.environment, **(env or {})}
        return subprocess.Popen(
            [os.fspath(word) for word in argv],
            env={name: value for name, value in variables.items() if value is not None},
            cwd=cwd or "/",
            stdin=stdin, stdout=stdout, stderr=stderr,
            encoding="utf-8", errors="surrogateescape",
            start_new_session=options.pop("start_new_session", True),
            umask=0o022,
            **options,
        )  # fmt: skip

    def run(
        self,
        argv: Argv,
        *,
        env: Variables | None = None,
        cwd: str | os.PathLike[str] | None = None,
        stdin: str | int | IO[Any] | None = None,
        timeout: float = 60,
    ) -> Completed:
        """Run a command to its end: until it exited and nobody holds its output any more."""
        typed = stdin if isinstance(stdin, str) else None
        source = subprocess.DEVNULL if stdin is None else stdin
        process = self.popen(
            argv, env=env, cwd=cwd, stdin=subprocess.PIPE if isinstance(source, str) else source
        )
        return finish(process, typed=typed, timeout=timeout)

    def own(self, path: Path) -> Path:
        """Give a path, and what is below it, to this account."""
        if not self.is_current:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)
            for top, folders, files in os.walk(path):
                for name in (*folders, *files):
                    os.chown(os.path.join(top, name), self.uid, self.gid, follow_symlinks=False)
        return path

    def mkdir(self, path: Path, mode: int = 0o755) -> Path:
        """Make a directory of this account's."""
        path.mkdir()
        path.chmod(mode)
        return self.own(path)

    def write(self, path: Path, text: str, mode: int = 0o644) -> Path:
        """Write a file of this account's."""
        path.write_text(text)
        path.chmod(mode)
        return self.own(path)


def finish(
    process: subprocess.Popen[str], *, typed: str | None = None, timeout: float = 60
) -> Completed:
    """Wait for what `popen` started; a command that takes too long is killed and fails the test."""
    argv = cast("list[str]", process.args)
    try:
        stdout, stderr = process.communicate(typed, timeout=timeout)
    except subprocess.TimeoutExpired:
        ended = process.poll()
        _kill_group(process.pid)
        process.kill()
        state = "still ran" if ended is None else f"had exited with {ended}, its output still held"
        said = "\n--- ".join(("", *_rest(process)))
        raise AssertionError(f"{' '.join(argv)}: {state} after {timeout:g} s{said}") from None
    return Completed(argv, process.returncode, stdout or "", stderr or "")


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _rest(process: subprocess.Popen[str]) -> list[str]:
    """What was printed so far, even if a process of another session still holds the pipes."""
    try:
        rest: tuple[str | bytes | None, ...] = process.communicate(timeout=0.1)
    except subprocess.TimeoutExpired as late:
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe:
                pipe.close()
        rest = (late.stdout, late.stderr)
    return [part.decode() if isinstance(part, bytes) else part or "" for part in rest]
