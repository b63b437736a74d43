"""The course of a pod: who starts when, who starts again, and how it ends.

Pure: events come in, orders go out, and the runner (runner.py) carries them out.  The rules are
those of "Pod Lifecycle" and "Init Containers" of Kubernetes' documentation:

* init containers run one by one, each to its success; a sidecar is passed once it has started;
* the main containers start together then;
* who ends starts again as its policy says, the first time at once, then after 10 s, 20 s, 40 s …
* when the last main container has ended, the sidecars are told to end, the last one first;
* a pod that is told to end tells its main containers first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from roadstead.pods.model import Container, Pod

State = Literal["waiting", "running", "ended"]
_FIRST_DELAY: Final = 10.0
_LONGEST_DELAY: Final = 300.0
_LONG_ENOUGH: Final = 600.0  # a run of that length forgets the failures before it


@dataclass(slots=True)
class Status:
    """How far one container is.  ``code`` is that of its last end."""

    container: Container
    state: State = "waiting"
    started: bool = False
    ready: bool = False
    code: int | None = None
    runs: int = 0
    fast: int = 0  # ends that came soon, one after the other
    due: bool = False  # it will start again

    @property
    def name(self) -> str:
        return self.container.name


@dataclass(frozen=True, slots=True)
class Start:
    """Start a container, after so many seconds."""

    name: str
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Stop:
    """Tell a container to end."""

    name: str


@dataclass(frozen=True, slots=True)
class Done:
    """The pod has ended."""

    code: int


Order = Start | Stop | Done


class Course:
    """The state of one pod.  Each method is an event and returns what is to be done.  ``restarts``:
    how often its containers may start again, if that is limited."""

    def __init__(self, pod: Pod, restarts: int | None = None) -> None:
        self.pod = pod
        self._restarts = restarts
        self.statuses = {each.name: Status(each) for each in pod.containers}
        self.ending = ""  # why it is told to end, if it is
        self._finishing = False  # the main containers have ended
        self._done = False

    def begin(self) -> list[Order]:
        """The pod is there."""
        return self._next()

    def started(self, name: str) -> list[Order]:
        """A container runs, and its startup probe, if it has one, has succeeded."""
        self.statuses[name].started = True
        return self._next()

    def ended(self, name: str, code: int, seconds: float) -> list[Order]:
        """A container has ended, after so many seconds."""
        status = self.statuses[name]
        status.state, status.started, status.ready, status.code = "ended", False, False, code
        status.fast = 1 if seconds >= _LONG_ENOUGH else status.fast + 1
        status.due = self._starts_again(status)
        if not status.due:
            return self._next()
        return [Start(name, _delay(status.fast)), *self._next()]

    def starts(self, name: str) -> bool:
        """A container's time has come; whether it is still to start."""
        status = self.statuses[name]
        if status.state == "running" or not status.due or self.ending:
            return False
        if self._finishing and status.container.role == "sidecar":
            return False
        status.due = False
        status.state = "running"
        status.runs += 1
        return True

    def stop(self, why: str) -> list[Order]:
        """The pod is told to end."""
        self.ending = self.ending or why
        for status in self.statuses.values():
            status.due = False
        return self._next()

    # -- what follows -----------------------------------------------------------------------------

    def _starts_again(self, status: Status) -> bool:
        if self.ending or (self._finishing and status.container.role == "sidecar"):
            return False
        policy = status.container.restart
        if status.container.role == "init" and status.code == 0:
            return False
        if policy == "Always":
            return True
        if self._restarts is not None:
            made = sum(max(0, each.runs - 1) for each in self.statuses.values())
            if made >= self._restarts:
                return False
        return policy == "OnFailure" and status.code != 0

    def _next(self) -> list[Order]:
        if self._done:
            return []
        if self.ending or self._has_failed_at_its_beginning():
            self._finishing = True
        elif not self._finishing:
            orders = self._starting()
            if orders:
                return orders
            mains = self._of("main")
            self._finishing = all(each.state == "ended" and not each.due for each in mains)
        if not self._finishing:
            return []
        return self._ends()

    def _has_failed_at_its_beginning(self) -> bool:
        return any(
            each.state == "ended" and each.code and not each.due for each in self._of("init")
        )

    def _starting(self) -> list[Order]:
        """The next one of those that begin one by one, or all main ones."""
        for status in self.statuses.values():
            role = status.container.role
            if role == "main":
                continue
            if status.state == "waiting":
                return [] if status.due else self._start(status)
            passed = status.started if role == "sidecar" else status.code == 0
            # A sidecar that has started once does not hold up the pod when it starts again.
            if not passed and not (role == "sidecar" and self._have_begun()):
                return []
        fresh = [each for each in self._of("main") if each.state == "waiting" and not each.due]
        return [order for each in fresh for order in self._start(each)]

    def _start(self, status: Status) -> list[Order]:
        status.due = True
        return [Start(status.name)]

    def _have_begun(self) -> bool:
        return any(each.state != "waiting" for each in self._of("main"))

    def _ends(self) -> list[Order]:
        """Tell those to end that still run: first all that are no sidecars, then these, the last
        one first."""
        others = [each for each in self.statuses.values() if each.container.role != "sidecar"]
        running = [each for each in others if each.state == "running"]
        if running:
            return [Stop(each.name) for each in running]
        for status in reversed(self._of("sidecar")):
            if status.state == "running":
                return [Stop(status.name)]
        self._done = True
        return [Done(self.code)]

    def _of(self, role: str) -> list[Status]:
        return [each for each in self.statuses.values() if each.container.role == role]

    @property
    def code(self) -> int:
        """The pod's exit code: the highest of its main containers', or the init container's that
        has failed; of a pod that was told to end before it had done its work at least 1."""
        codes = list(self._codes())
        most = max(codes, default=0)
        return most or (1 if self.ending else 0)

    def _codes(self) -> Iterator[int]:
        for each in self.statuses.values():
            if each.container.role == "main" or (each.container.role == "init" and each.code):
                yield each.code or 0


def _delay(fast: int) -> float:
    """How long a container waits after so many ends that came soon."""
    return 0.0 if fast <= 1 else float(min(_FIRST_DELAY * 2 ** (fast - 2), _LONGEST_DELAY))
