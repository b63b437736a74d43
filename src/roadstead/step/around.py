"""What stands around the containers of a step: plugins that hear of them, and their networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from roadstead.step.life import Life, Lives
from roadstead.step.network import Network
from roadstead.step.plugged import Plugged

if TYPE_CHECKING:
    from collections.abc import Mapping

    from roadstead.core.model import StepSpec, TaskSpec
    from roadstead.host.loop import Loop


@dataclass(frozen=True, slots=True)
class Around:
    """It, and the loop that all of it waits in."""

    loop: Loop
    lives: Lives
    plugged: Plugged
    network: Network

    @classmethod
    def of(
        cls,
        spec: StepSpec,
        loop: Loop,
        lives: Lives,
        notice: Callable[[str], None],
        command: list[int] | None = None,
        records: str = "",
    ) -> Around:
        """``command`` is where an srun with plugins waits (plugged.py), if one does; ``records``
        where the job's are, if it is ours to begin and to end."""
        plugged = Plugged(spec, loop, command or [], notice, records)
        return cls(loop, lives, plugged, Network(spec, notice))

    def prepared(self, tasks: list[TaskSpec]) -> list[TaskSpec]:
        """The tasks, as plugins and networks will have them.  Raises RoadsteadError."""
        return self.plugged.prepared(self.network.prepared(tasks))

    def stops(self, task: TaskSpec) -> bool:
        """Whether the task's container is to wait at a gate before its program starts."""
        return self.network.is_private(task) or self.plugged.has(
            "container_created", "task_post_fork"
        )

    def created(
        self, task: TaskSpec, items: Mapping[str, object], state: Mapping[str, object]
    ) -> Life[None]:
        """The container waits there.  Raises RoadsteadError where it is not to go on."""
        pid = state.get("pid")
        yield from self.network.admit(task, pid if isinstance(pid, int) else 0)
        known = {"S_TASK_PID": pid, **items}
        yield from self.plugged.call("task_post_fork", task, known)
        yield from self.plugged.call("container_created", task, known, state)

    def close(self) -> None:
        """The step has ended."""
        self.network.close()
        self.plugged.close()
