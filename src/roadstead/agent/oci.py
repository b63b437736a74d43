"""roadstead oci: an OCI runtime's command line, made for slurmstepd to call.

A site's oci.conf names it, and plain Slurm's own ``srun --container BUNDLE`` then has what Slurm
lacks: the exact exit code and signal, in both forms; ids of the user who runs it; hooks and orders
of strange bundles left out; hybrid cgroups; the variables that Slurm 22.05 leaves out; and nothing
that stays.  ``roadstead engine oci-conf`` prints the file.

    RunTimeRun   one process is the task: slurmstepd executes it in the task's place
    RunTimeCreate, RunTimeStart   see created.py
    RunTimeQuery, RunTimeKill, RunTimeDelete   by the claim in the container's directory

slurmstepd calls the last three as root once the step is over; they become ``--user`` first.  From
Slurm 23.11.5 on it then names task -1 (its own error, all releases to 26.05): that is taken for
all tasks of the step on this node, so that even what a killed runtime has left is found.

The environment here is slurmd's, not the job's: nothing in it is taken for the user's.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from roadstead.errors import LaunchError, RoadsteadError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from roadstead.agent.lone import Lone

COMMAND: Final = "roadstead oci"
USAGE: Final = """\
Usage: roadstead oci run|create --bundle DIR [OPTIONS] ID
       roadstead oci start|state ID
       roadstead oci kill ID [SIGNAL]
       roadstead oci delete [--force] ID

For oci.conf: `roadstead engine oci-conf` prints one.  ID ends with .JOB.STEP.TASK

  --bundle DIR          the bundle that Slurm has made (%b)
  --user USER           whose container it is (%u); root becomes that user
  --root DIR            where containers are kept track of (default /tmp)
  --slurm VERSION       the Slurm that calls: before 23.02 task variables are computed
  --runtime PROGRAM     crun or runc, a name or a path (default: the first on PATH)
  --container-system NAME   have a container system run it (docs/systems.md)
  --writable private    each container has a writable layer of its own
  --hooks drop|run|refuse   hooks that came with the bundle (default drop)
  --workdir DIR         start there, where that is a directory in the container
  --output FILE         for create: where the output of a srun step goes
"""
_OPTIONS: Final = (
    *("bundle", "user", "root", "slurm", "runtime", "writable", "hooks", "workdir", "output"),
    "container-system",
)
_CHOICES: Final = {"writable": ("bundle", "private"), "hooks": ("drop", "run", "refuse")}
_VERBS: Final = ("run", "create", "start", "state", "kill", "delete")
_ALL_TASKS: Final = ("-1", "4294967295")
_MAKING_SECONDS: Final = 300.0
_LONGEST: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What was asked for.  ``cleans_up``: by root for a user, as at the end of a step."""

    verb: str
    name: str
    options: dict[str, str]
    signal: str = "TERM"
    force: bool = False
    cleans_up: bool = False

    @property
    def numbers(self) -> tuple[int, int, int] | None:
        """Job, step and task; None where the name does not end with them."""
        words = self.name.split(".")[-3:]
        if len(words) < 3 or not all(word.isascii() and word.isdigit() for word in words):
            return None
        return int(words[0]), int(words[1]), int(words[2])

    @property
    def directories(self) -> str:
        """Where this user's containers are kept track of."""
        return f"{self.options.get('root', '/tmp')}/roadstead-{os.getuid()}/oci"

    @property
    def directory(self) -> str:
        return f"{self.directories}/{self.name}"


def main(argv: Sequence[str]) -> int:
    """Run ``roadstead oci ARGV``; the exit code.  For ``run`` this process ends as the task."""
    try:
        call = parse(argv)
        if call is None:
            sys.stdout.write(USAGE)
            return 0
        if user := call.options.get("user"):
            from roadstead.host import identity

            call = replace(call, cleans_up=identity.become(user))
        return _CALLED[call.verb](call)
    except RoadsteadError as error:
        say(f"error: {error}" + (f"; {error.hint}" if error.hint else ""))
        return error.exit_code


def say(sentence: str) -> None:
    """A line on standard error, whoever reads it."""
    try:
        os.write(2, f"{COMMAND}: {sentence}\n".encode(errors="surrogateescape"))
    except OSError:
        return  # nobody


def parse(argv: Sequence[str]) -> Call | None:
    """The meaning of a command line; None for --help.  Raises UsageError."""
    options: dict[str, str] = {}
    operands: list[str] = []
    force = False
    words = list(argv)
    while words:
        word = words.pop(0)
        if word in ("-h", "--help"):
            return None
        if word in ("-f", "--force"):
            force = True
        elif word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            if name not in _OPTIONS:
                raise UsageError(f"unknown option --{name}", hint="roadstead oci --help")
            if not equals:
                if not words:
                    raise UsageError(f"--{name} needs a value", hint="roadstead oci --help")
                value = words.pop(0)
            if name in _CHOICES and value not in _CHOICES[name]:
                raise UsageError(f"--{name}={value}: one of {', '.join(_CHOICES[name])}")
            options[name] = value
        else:
            operands.append(word)
    return _call(operands, options, force=force)


def _call(operands: list[str], options: dict[str, str], *, force: bool) -> Call:
    verb = operands[0] if operands else ""
    if verb not in _VERBS:
        raise UsageError(
            f"unknown command {verb}" if verb else "no command", hint="roadstead oci --help"
        )
    rest = operands[1:]
    if not rest or len(rest) > 1 + (verb == "kill"):
        raise UsageError(f"{verb} takes the container's ID", hint="roadstead oci --help")
    name = rest[0]
    if not name or name.startswith(".") or len(name) > _LONGEST or not _is_plain(name):
        raise UsageError(f"{name!r:.80} is not a container's ID")
    if verb in ("run", "create") and not options.get("bundle"):
        raise UsageError(f"{verb} needs --bundle", hint="write --bundle %b in oci.conf")
    if not options.get("root", "/").startswith("/"):
        raise UsageError(f"--root={options['root']}: not an absolute path")
    return Call(
        verb=verb, name=name, options=options, signal=(rest[1:] or ["TERM"])[0], force=force
    )


def _is_plain(name: str) -> bool:
    return name.isascii() and all(each.isalnum() or each in "._+-@" for each in name)


# -- run -------------------------------------------------------------------------------------------


def _run(call: Call) -> int:
    from roadstead.agent import bundled, lone

    container = opened(call)
    try:
        container.prepare(*bundled.specs(call))
        container.run((0, 1, 2))
    finally:
        container.close()
    if container.failure is not None:
        raise container.failure
    assert container.status is not None
    return lone.end_as(container.status)


def opened(call: Call) -> Lone:
    """What will be the container: so far its directory."""
    from roadstead.agent import lone

    sweep_others(call)
    container = lone.Lone(call.directory, say)
    container.make_directory()
    return container


def sweep_others(call: Call) -> None:
    """Remove what this user's containers have left whose supervisors are gone: a node that lost its
    power comes back without anybody who remembers them."""
    try:
        names = os.listdir(call.directories)
    except FileNotFoundError:
        return
    for name in names:
        path = f"{call.directories}/{name}"
        if name != call.name and not _is_being_made(path):
            _sweep(path, say_nothing)


def _is_being_made(path: str) -> bool:
    """Whether a directory has no claim yet, as another container of this user's starts."""
    from roadstead.step import record

    if record.read_claim(path) is not None:
        return False
    try:
        return time.time() - os.stat(path).st_mtime < _MAKING_SECONDS
    except FileNotFoundError:
        return True


def say_nothing(sentence: str) -> None:
    """For what nobody asked about."""


def _sweep(directory: str, tell: Callable[[str], None]) -> None:
    from roadstead.step import sweep

    try:
        for line in sweep.sweep(directory):
            tell(line)
    except OSError as error:
        tell(f"warning: {directory} cannot be removed: {error.strerror}")


# -- state, kill, delete ---------------------------------------------------------------------------


def _found(call: Call) -> list[str]:
    """The directories that a name stands for."""
    stem, _, task = call.name.rpartition(".")
    if task not in _ALL_TASKS:
        return [call.directory] if os.path.isdir(call.directory) else []
    try:
        names = sorted(os.listdir(call.directories))
    except FileNotFoundError:
        return []
    return [f"{call.directories}/{name}" for name in names if name.rpartition(".")[0] == stem]


def state_of(directory: str) -> dict[str, Any]:
    """A container's state, as the runtime-spec has it ("State")."""
    from roadstead.step import processes, record

    claim = record.read_claim(directory) or {}
    lives = record.is_running(claim)
    status = claim.get("status") or ("running" if "containers" in claim else "creating")
    if "failure" in claim:  # it was never made, and this is why
        status = str(claim["failure"])
    elif not lives:
        left = processes.of_claim(claim, str(claim.get("mark") or directory))
        status = "running" if left else "stopped"
    found = {
        "ociVersion": "1.0.2",
        "id": os.path.basename(directory),
        "status": status,
        "bundle": str(claim.get("bundle") or directory),
    }
    if status != "stopped" and isinstance(claim.get("pid"), int):
        found["pid"] = claim["pid"]
    return found


def _state(call: Call) -> int:
    found = [state_of(directory) for directory in _found(call)]
    if not found and call.cleans_up:
        # As it should be.  To fail would put a complaint of slurmstepd's into the job's output.
        found = [{"ociVersion": "1.0.2", "status": "stopped", "bundle": "/"}]
    if not found:
        raise LaunchError(f"container {call.name} does not exist")
    worst = next((each for each in found if each["status"] == "running"), found[0])
    sys.stdout.write(json.dumps({**worst, "id": call.name}) + "\n")
    return 0


def _kill(call: Call) -> int:
    from roadstead.host import process, signals
    from roadstead.step import processes, record

    number = signals.number(call.signal)
    directories = _found(call)
    if not directories:
        raise LaunchError(f"container {call.name} does not exist")
    for directory in directories:
        claim = record.read_claim(directory) or {}
        pids = processes.of_claim(claim, str(claim.get("mark") or directory))
        if number == process.KILL:
            process.kill_all(pids, _DEATH_SECONDS)
            continue
        for pid in pids:
            process.send(pid, number)
    return 0


_DEATH_SECONDS: Final = 5.0


def _delete(call: Call) -> int:
    from roadstead.agent import lone
    from roadstead.host import process
    from roadstead.step import record

    directories = _found(call)
    if not directories and not call.force:
        raise LaunchError(f"container {call.name} does not exist")
    for directory in directories:
        claim = record.read_claim(directory) or {}
        if record.is_running(claim):
            if not call.force:
                raise LaunchError(
                    f"container {os.path.basename(directory)} is running",
                    hint="delete --force ends it",
                )
            process.kill_all([int(claim["pid"])], _DEATH_SECONDS)
        _sweep(directory, say_nothing)
        lone.remove_if_last(directory)
    return 0


def _create(call: Call) -> int:
    from roadstead.agent import created

    return created.create(call)


def _start(call: Call) -> int:
    from roadstead.agent import created, lone

    try:
        return created.start(call)
    except BaseException as error:  # Slurm takes any exit code of this command for success
        if isinstance(error, RoadsteadError):
            say(f"error: {error}")
        else:
            sys.excepthook(type(error), error, error.__traceback__)
        return lone.end_as(-1)


_CALLED: Final[dict[str, Callable[[Call], int]]] = {
    "run": _run,
    "create": _create,
    "start": _start,
    "state": _state,
    "kill": _kill,
    "delete": _delete,
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
