"""What the reactor wants done, as values, in order.

The controller does them once the events of a loop turn are handled: first everything that goes into
the journal, in one commit, then the rest.  So nobody is told what is not on disk yet.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from roadstead.core.events import Client, TimerName
from roadstead.core.lifecycle import FINAL, Job, Step, StepKey
from roadstead.core.model import StepSpec
from roadstead.core.site import NodeCondition, Partition
from roadstead.errors import RoadsteadError


@dataclass(frozen=True, slots=True)
class Save:
    job: Job


@dataclass(frozen=True, slots=True)
class SaveStep:
    step: Step


@dataclass(frozen=True, slots=True)
class SavePayload:
    """Keep what only the batch script's supervisor needs, until the job ends."""

    job_id: int
    env: dict[str, str] = field(repr=False)
    script: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class DropPayload:
    """Nobody will start that job again."""

    job_id: int


@dataclass(frozen=True, slots=True)
class SaveNode:
    """Keep what was said of a node."""

    node: str
    condition: NodeCondition


@dataclass(frozen=True, slots=True)
class Launch:
    """Start a supervisor.  ``client``: whose descriptors it gets; ``payload``: the job whose kept
    environment and script go beneath the specification's."""

    spec: StepSpec
    client: Client | None = None
    payload: int | None = None


@dataclass(frozen=True, slots=True)
class Adopt:
    """Find out what became of a step that an earlier controller started."""

    step: StepKey


@dataclass(frozen=True, slots=True)
class WatchOwner:
    """Say when the process that a job ends with is gone."""

    job_id: int
    pid: int
    start: str


@dataclass(frozen=True, slots=True)
class Reply:
    client: Client
    message: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Close:
    """End the conversation, once all replies are out."""

    client: Client


@dataclass(frozen=True, slots=True)
class Signal:
    """``batch_only``: to the script's own process and none that it started."""

    step: StepKey
    signal: int
    batch_only: bool = False


@dataclass(frozen=True, slots=True)
class Notify:
    """Write a line to a batch script's standard error."""

    step: StepKey
    sentence: str


@dataclass(frozen=True, slots=True)
class SavePartition:
    """Keep what a partition has become; None: it is deleted."""

    name: str
    partition: Partition | None


@dataclass(frozen=True, slots=True)
class Terminate:
    """``asker``: who asked for it, perhaps from inside of the step, and is to have its answer."""

    step: StepKey
    reason: str
    signal: int
    asker: Client | None = None


@dataclass(frozen=True, slots=True)
class Suspend:
    """Stop the step's processes, and its time limit."""

    step: StepKey


@dataclass(frozen=True, slots=True)
class Resume:
    """Let them go on; the step's time limit is as much later."""

    step: StepKey


@dataclass(frozen=True, slots=True)
class Limit:
    """The step's time limit is another now; None: there is none."""

    step: StepKey
    deadline: float | None


@dataclass(frozen=True, slots=True)
class Resize:
    step: StepKey
    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class Forget:
    """The exit record of the step in this directory is in the journal: its file can go."""

    directory: str


@dataclass(frozen=True, slots=True)
class ClearNamed:
    """Remove the containers of a job that have a name, and say so (``on.Cleared``)."""

    job_id: int


@dataclass(frozen=True, slots=True)
class SetTimer:
    """``at`` is wall-clock time, which survives a restart."""

    timer: TimerName
    at: float


@dataclass(frozen=True, slots=True)
class CancelTimer:
    timer: TimerName


@dataclass(frozen=True, slots=True)
class Mail:
    """Give a letter to the program that takes letters."""

    program: str
    to: str
    subject: str


@dataclass(frozen=True, slots=True)
class Quit:
    """End the controller; supervisors go on."""


Effect = (
    Save | SaveStep | SavePayload | DropPayload | SaveNode | SavePartition | Launch | Adopt
    | WatchOwner | Reply | Close | Signal | Notify | Terminate | Suspend | Resume
    | Limit | Resize | Forget | ClearNamed | SetTimer | CancelTimer | Mail | Quit
)  # fmt: skip


class Effects:
    """Records effects; ``take`` hands them over."""

    def __init__(self) -> None:
        self._recorded: list[Effect] = []

    def __call__(self, effect: Effect) -> None:
        self._recorded.append(effect)

    def reply(self, client: Client | None, event: str, **fields: Any) -> None:
        """Reply, if there is anyone to reply to."""
        if client is not None:
            self(Reply(client, {"event": event, **fields}))

    def error(self, client: Client | None, error: RoadsteadError) -> None:
        """The final answer to a request that came to nothing."""
        self.reply(client, "error", kind=error.kind, sentence=str(error), hint=error.hint)

    @property
    def end_a_job(self) -> bool:
        """Whether the state has forgotten a job that the journal does not know to be over."""
        return any(
            isinstance(each, Save) and each.job.state.word in FINAL for each in self._recorded
        )

    def take(self) -> list[Effect]:
        taken, self._recorded = self._recorded, []
        return taken
