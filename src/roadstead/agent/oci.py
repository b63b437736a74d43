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
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from roadstead.agent import opened
from roadstead.agent.oci_call import USAGE, Call, parse, say
from roadstead.errors import LaunchError, RoadsteadError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_ALL_TASKS: Final = ("-1", "4294967295")


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


# -- run -------------------------------------------------------------------------------------------


def _run(call: Call) -> int:
    from roadstead.agent import bundled, lone

    container = opened.opened(call)
    try:
        container.prepare(*bundled.specs(call))
        container.run((0, 1, 2))
    finally:
        container.close()
    if container.failure is not None:
        raise container.failure
    assert container.status is not None
    return lone.end_as(container.status)


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
        opened.sweep(directory, opened.say_nothing)
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
