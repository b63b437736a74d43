"""--container-sync, for an agent: the meeting of a step's tasks is beside srun (engines/slurm/
meeting.py says what is spoken there)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from roadstead.errors import RuntimeFailure
from roadstead.host import lines
from roadstead.step.life import Life, Until
from roadstead.step.meeting import broken

if TYPE_CHECKING:
    from collections.abc import Mapping

    from roadstead.core.model import TaskSpec

_SECONDS: Final = 20.0  # to come there, and for what is said there to arrive
_ADDRESS: Final = "SLURM_LAUNCH_NODE_IPADDR"  # srun's node (srun(1), OUTPUT ENVIRONMENT VARIABLES)


class There:
    """A task's way to it; an ending (life.py), once it is known whether all are there."""

    peak = 0

    def __init__(self, told: Mapping[str, Any], environ: Mapping[str, str], ntasks: int) -> None:
        """Come there.  Raises RuntimeFailure where it is not to be reached."""
        address = environ.get(_ADDRESS, "")
        self._where = f"{address}:{told['port']}"
        try:
            self._link = lines.connect(address, told["port"], _SECONDS)
        except OSError as error:
            raise RuntimeFailure(
                f"--container-sync: srun's node cannot be reached at {self._where}: "
                f"{error.strerror or error}",
                hint="nodes connect to a port that is free there, as to srun itself",
            ) from None
        self._link.say(f"{told['token']} {environ.get('SLURM_PROCID', '0')} {ntasks}")
        self._answer: list[str] = []

    def fileno(self) -> int:
        return self._link.fileno()

    def reap(self) -> int:
        """Hear it."""
        said: list[str] | None = []
        while said == []:
            said = self._link.hear()
        self._answer = said[0].split() if said else []
        return 0 if self._answer == ["go"] else 1

    def wants(self, task: TaskSpec) -> bool:
        return True

    def stand(self, task: TaskSpec) -> Life[None]:
        self._link.say("stand")
        if (yield Until(self)) == 0:
            return
        if self._answer[:1] == ["gone"]:
            raise broken(int(self._answer[1]))
        raise RuntimeFailure(f"--container-sync: nobody is at {self._where} any more")

    def left(self, task: TaskSpec) -> None:
        self.close()

    def close(self) -> None:
        self._link.close()
