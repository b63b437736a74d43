"""A batch script's file; and --task-prolog and --task-epilog: what runs before and after each task,
on the host, as the user.

A prolog changes its task's environment by what it prints (srun(1)): ``export NAME=VALUE``,
``unset NAME``, and ``print TEXT``, which appears in the task's output.  One that fails keeps its
task from starting; how an epilog ends is only told.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from roadstead.host import process
from roadstead.step.life import Life, Until

if TYPE_CHECKING:
    from roadstead.core.model import StepSpec
    from roadstead.step.task import Task

_MOST_PRINTED: Final = 1 << 20


def write_startup(spec: StepSpec) -> None:
    """Make the file of the batch script, in the step's spool."""
    spool = f"{spec.directory}/spool"
    os.makedirs(spool, mode=0o700, exist_ok=True)
    fd = os.open(f"{spool}/startup", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o700)
    with open(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
        os.fchmod(fd, 0o700)
        file.write(spec.script)


def prolog(task: Task, program: str, stdio: tuple[int, ...]) -> Life[bool]:
    """Run the prolog and do what it prints; whether the task is to start."""
    path = f"{task.directory}/prolog-{task.spec.procid}"
    said = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        status = yield from _run(task, program, "prolog", (stdio[0], said, stdio[2]))
        if status:
            task.complain(f"--task-prolog failed status={status}")
            return False
        os.lseek(said, 0, os.SEEK_SET)
        text = os.read(said, _MOST_PRINTED).decode("utf-8", "surrogateescape")
    finally:
        os.close(said)
        os.unlink(path)
    printed = apply(text, task.spec.env)
    if printed:
        os.write(stdio[1], printed.encode("utf-8", "surrogateescape"))
    return True


def epilog(task: Task, program: str, stdio: tuple[int, ...]) -> Life[None]:
    """Run the epilog."""
    status = yield from _run(task, program, "epilog", stdio)
    if status:
        task.complain(f"--task-epilog failed status={status}")


def _run(task: Task, program: str, what: str, stdio: tuple[int, ...]) -> Life[int]:
    try:
        with task.on_cpus():
            child = task.child = process.spawn([program], env=task.spec.env, stdio=stdio)
    except OSError as error:
        task.complain(f"--task-{what}: cannot execute {program}: {error.strerror}")
        return 1
    status = yield Until(child)
    assert status is not None
    return status


def apply(text: str, env: dict[str, str]) -> str:
    """Change ``env`` as a prolog's lines say; what is to be printed."""
    printed = []
    for line in text.splitlines():
        word, _, rest = line.strip().partition(" ")
        name, equals, value = rest.partition("=")
        if word == "print":
            printed.append(f"{rest}\n")
        elif word == "export" and equals and name.strip() and "\0" not in rest:
            env[name.strip()] = value
        elif word == "unset":
            env.pop(rest.strip(), None)
    return "".join(printed)


def limits(named: Mapping[str, int]) -> dict[int, int]:
    """Soft limits by the numbers of setrlimit(2)."""
    return {getattr(resource, f"RLIMIT_{name}"): soft for name, soft in named.items()}
