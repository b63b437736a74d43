"""What happens to the controller, as values: messages, ends of connections, supervisors, time.

An event carries all that its handler may know of the world, so that the reactor never asks: when
it happened, and, for a message, the ``Facts`` that the controller looked up beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from roadstead.core.lifecycle import Job, Step, StepKey
from roadstead.core.model import ExitRecord
from roadstead.core.request import Extra
from roadstead.core.site import NodeCondition, Partition

Client = int  # a connection's number, never used twice
TimerName = tuple[str, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was looked up for a message: in the journal, in /proc, in the file system."""

    extra: Extra = field(default_factory=Extra)
    known: Job | None = None  # the job of the message's key
    ended_jobs: tuple[Job, ...] = ()
    ended_step: Step | None = None
    records: tuple[tuple[Job, tuple[Step, ...]], ...] = ()  # for sacct
    named: Mapping[int, tuple[Job, ...]] = field(default_factory=dict)  # that are over, by number
    script: str | None = None
    load: float = 0.0
    memory_free: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A client said something."""

    at: float
    client: Client
    body: Mapping[str, Any] = field(repr=False)
    facts: Facts = field(default_factory=Facts)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientGone:
    """A client's connection has ended."""

    at: float
    client: Client


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerGone:
    """The process that a job ends with, a client of an earlier controller, has ended."""

    at: float
    job_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A supervisor says that the tasks of its step have started, or (``adopted``) that they had
    when this controller began."""

    at: float
    step: StepKey
    pid: int
    adopted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Noticed:
    """A supervisor has a sentence for the user."""

    step: StepKey
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """A supervisor is done."""

    at: float
    step: StepKey
    record: ExitRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Vanished:
    """A supervisor is gone without a record.  ``begun``: it had made something already."""

    at: float
    step: StepKey
    begun: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleared:
    """The containers of a job that have a name are removed."""

    at: float
    job_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A timer has run out."""

    at: float
    timer: TimerName


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """The controller starts with what its journal holds: unfinished jobs, and steps of them."""

    at: float
    jobs: tuple[Job, ...]
    steps: tuple[Step, ...]
    next_job_id: int
    next_step_ids: Mapping[int, int]
    conditions: Mapping[str, NodeCondition] = field(default_factory=dict)
    partitions: Mapping[str, Partition | None] = field(default_factory=dict)  # None: deleted
    kept: Mapping[int, float] = field(default_factory=dict)  # payloads of jobs that have ended


Event = (
    Message | ClientGone | OwnerGone | Started | Noticed | Exited | Vanished | Cleared | Due
    | Restored
)  # fmt: skip
