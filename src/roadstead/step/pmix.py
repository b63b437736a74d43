"""PMIx for the tasks of a step: a process of its own that holds the server (host/pmix.py).

It tells the supervisor, on a socket, the variables of each task, then who calls MPI_Abort.  It ends
with the supervisor, or when the supervisor ends what is left of the step.

Tasks connect to a port on the loopback interface, as libpmix has it.  What keeps others out is the
namespace's name, which ends in 16 random bytes: a connection that does not name it is refused, and
nobody but the user can read it.  Tasks in containers of their own share no memory, and are told so.
"""

from __future__ import annotations

import json
import os
import select
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from roadstead.errors import LaunchError
from roadstead.host import fork, linux, pipes, pmix

if TYPE_CHECKING:
    from roadstead.core.model import StepSpec, TaskSpec
    from roadstead.host.loop import Loop

_SECONDS: Final = 30.0
_MOST_DESCRIPTORS: Final = 1 << 16
_CHUNK: Final = 1 << 16
_HINT: Final = "apt install libpmix2, or an MPI library of MPICH's family with --mpi=pmi2"
# For Open MPI: no shared memory, the loopback interface will do, and its files are where a
# container has a place to write to even if its root is read-only.
_APART: Final = {
    "OMPI_MCA_pml": "ob1",
    "OMPI_MCA_btl": "self,tcp",
    "OMPI_MCA_btl_tcp_if_exclude": "sppp",
    "OMPI_MCA_orte_tmpdir_base": "/dev/shm",
}


class Helper:
    """The process with the server, seen from the supervisor."""

    def __init__(self, loop: Loop, spec: StepSpec, abort: Callable[[int, int, str], None]) -> None:
        self._loop = loop
        self._spec = spec
        self._abort = abort
        self._end = -1
        self._heard = b""

    def prepared(self, tasks: list[TaskSpec]) -> list[TaskSpec]:
        """The tasks, with the variables by which they find the server.  Raises LaunchError."""
        directory = f"{self._spec.directory}/pmix"
        os.mkdir(directory, 0o700)
        apart = any(part.container is not None for part in self._spec.parts or (self._spec,))
        self._end, theirs = pipes.socket_pair()
        name = f"{self._spec.job_id}.{self._spec.step_id}.{os.urandom(16).hex()}"
        fork.run_in_child(lambda: _serve(theirs, name, len(tasks), directory, apart=apart))
        os.close(theirs)
        said = self._first_line()
        if "env" not in said:
            why = said.get("error", "its server has not started")
            raise LaunchError(f"--mpi=pmix: {why}", hint=_HINT)
        self._loop.watch(self._end, self._hear)
        more = _APART if apart else {}
        return [
            replace(task, env={**more, **task.env, **env, "SLURM_MPI_TYPE": "pmix"})
            for task, env in zip(tasks, said["env"], strict=True)
        ]

    def _first_line(self) -> dict[str, Any]:
        """What the process says first; nothing if it has ended or says nothing for long."""
        poll = select.poll()
        poll.register(self._end, select.POLLIN)
        while b"\n" not in self._heard:
            if not poll.poll(_SECONDS * 1000):
                return {}
            data = os.read(self._end, _CHUNK)
            if not data:
                return {}
            self._heard += data
        line, _, self._heard = self._heard.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def _hear(self) -> None:
        data = os.read(self._end, _CHUNK)
        if not data:
            self.close()
            return
        *lines, self._heard = (self._heard + data).split(b"\n")
        for line in lines:
            said = json.loads(line)
            self._abort(said["rank"], said["code"], said["words"])

    def close(self) -> None:
        if self._end >= 0:
            self._loop.unwatch(self._end)
            os.close(self._end)
            self._end = -1


def _serve(end: int, name: str, size: int, directory: str, *, apart: bool) -> None:
    """What the process does: serve until the other end closes."""
    linux.set_process_name("roadstead-pmix")
    os.closerange(3, end)
    os.closerange(end + 1, _MOST_DESCRIPTORS)

    def tell(message: dict[str, object]) -> None:
        os.write(end, json.dumps(message).encode() + b"\n")

    # Without shared memory of the library's own, which containers would not see.
    settings = {"PMIX_MCA_gds": "hash"}
    if apart:  # who is root in a container is not to be refused for that
        settings["PMIX_MCA_psec"] = "none"
    os.environ.update(settings)
    try:
        server = pmix.Server(
            directory, lambda rank, code, words: tell({"rank": rank, "code": code, "words": words})
        )
        tell({"env": server.serve(name, size, "" if apart else directory)})
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        tell({"error": what})
        return
    while os.read(end, 1):
        continue
