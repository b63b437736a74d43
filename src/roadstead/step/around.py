"""What stands around the containers of a step: plugins that hear of them, their networks, and the
meeting of those that wait for each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from roadstead.step import network
from roadstead.step.life import Life, Lives
from roadstead.step.plugged import Plugged

if TYPE_CHECKING:
    from collections.abc import Mapping

    from roadstead.core.model import StepSpec, TaskSpec
    from roadstead.host.loop import Loop
    from roadstead.step.meeting import Meeting
    from roadstead.step.network import Network


@dataclass(frozen=True, slots=True)
class Around:
    """It, and the loop that all of it waits in."""

    loop: Loop
    lives: Lives
    plugged: Plugged
    network: Network | None
    meeting: Meeting | None = None

    @classmethod
    def of(
        cls,
        spec: StepSpec,
        loop: Loop,
        lives: Lives,
        notice: Callable[[str], None],
        command: list[int] | None = None,
        records: str = "",
        meeting: Meeting | None = None,
    ) -> Around:
        """``command`` is where an srun with plugins waits (plugged.py), if one does; ``records``
        where the job's are, if it is ours to begin and to end."""
        plugged = Plugged(spec, loop, command or [], notice, records)
        asked = [part.container.network for part in spec.parts or (spec,) if part.container]
        found = network.Network(spec, notice) if any(asked) else None
        return cls(loop, lives, plugged, found, meeting)

    def prepared(self, tasks: list[TaskSpec]) -> list[TaskSpec]:
        """The tasks, as plugins and networks will have them.  Raises RoadsteadError."""
        if self.network is not None:
            tasks = self.network.prepared(tasks)
        return self.plugged.prepared(tasks)

    def stops(self, task: TaskSpec) -> bool:
        """Whether something is to be done to the task's container between it and its program."""
        is_private = self.network is not None and self.network.is_private(task)
        return is_private or self.plugged.has("container_created", "task_post_fork")

    def waits(self, task: TaskSpec) -> bool:
        """Whether the task's program is to wait until all others can start, too."""
        return self.meeting is not None and self.meeting.wants(task)

    def stand(self, task: TaskSpec) -> Life[None]:
        """Its container is there: wait for the others.  Raises RuntimeFailure."""
        if self.meeting is not None and self.meeting.wants(task):
            yield from self.meeting.stand(task)

    def left(self, task: TaskSpec) -> None:
        """The task has ended."""
        if self.meeting is not None:
            self.meeting.left(task)

    def created(
        self, task: TaskSpec, items: Mapping[str, object], state: Mapping[str, object]
    ) -> Life[None]:
        """The container waits there.  Raises RoadsteadError where it is not to go on."""
        pid = state.get("pid")
        if self.network is not None:
            yield from self.network.admit(task, pid if isinstance(pid, int) else 0)
        known = {"S_TASK_PID": pid, **items}
        yield from self.plugged.call("task_post_fork", task, known)
        yield from self.plugged.call("container_created", task, known, state)
        yield from self.stand(task)

    def close_network(self) -> None:
        """The step's tasks have ended."""
        if self.network is not None:
            self.network.close()

    def close(self) -> None:
        """The step has ended."""
        self.close_network()
        if self.meeting is not None:
            self.meeting.close()
        self.plugged.close()
