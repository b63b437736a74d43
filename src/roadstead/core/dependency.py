"""Dependencies: ``--dependency=afterok:12:13_4,singleton``, what is left of them, and when.

A job's dependency is a list of needs, joined by ``,`` (all of them) or ``?`` (any of them).  A need
that is met leaves the list, as in Slurm, so what squeue shows is what is still missing; one that
can never be met stays, ``failed``.  Whoever starts or ends is told to ``after_start`` and
``after_end``, which give a need as it is then.  Nothing is looked for: state.py knows by
``targets`` which jobs wait for which.

A job that nobody knows is no reason to wait: so it is in Slurm, where jobs are forgotten.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from roadstead.core import arrays, values
from roadstead.core import lifecycle as life
from roadstead.core.lifecycle import Job
from roadstead.core.model import Dependency, Need
from roadstead.errors import RequestError

Target = tuple[int, int]  # a job or array, and the number of an element or WHOLE
WHOLE: Final = -1
_MINUTE: Final = 60.0
_KINDS: Final = ("after", "afterany", "afterok", "afternotok", "aftercorr")
_WORDS: Final = f"write {', '.join(_KINDS)} with :JOB[:JOB…], or singleton; , is and, ? is or"
INVALID: Final = "Job dependency problem"


def problem(hint: str) -> RequestError:
    return RequestError(INVALID, hint=hint)


def parse(text: str, task_id: int | None = None) -> Dependency | None:
    """Read what ``--dependency`` says; ``task_id``: for which element of an array (aftercorr).

    None where it asks for nothing.  Raises RequestError in Slurm's words.
    """
    if not text:
        return None
    either = "?" in text
    needs: list[Need] = []
    for part in text.replace("?", ",").split(","):
        needs += _needs(part, task_id)
    return Dependency(needs=tuple(dict.fromkeys(needs)), either=either)


def _needs(part: str, task_id: int | None) -> list[Need]:
    kind, *targets = part.split(":")
    kind = kind.lower()
    if kind == "singleton" and not targets:
        return [Need(kind="singleton")]
    if kind == "expand":
        raise RequestError("Requested operation not supported on this system", hint=_WORDS)
    if kind == "afterburstbuffer":
        raise RequestError(INVALID, hint="there are no burst buffers here: write afterany")
    if not targets and values.is_number(kind.partition("_")[0]):  # sbatch(1): an old form
        kind, targets = "afterany", [kind]
    if kind not in _KINDS or not targets:
        raise RequestError(INVALID, hint=_WORDS)
    return [need for target in targets for need in _of_target(kind, target, task_id)]


def _of_target(kind: str, target: str, task_id: int | None) -> list[Need]:
    name, plus, minutes = target.partition("+")
    if plus and (kind != "after" or not values.is_number(minutes)):
        raise RequestError(INVALID, hint="+MINUTES is for after: after:JOB+5")
    number, underscore, element = name.partition("_")
    if not values.is_number(number) or not 0 < int(number) <= values.MAX_COUNT:
        raise RequestError(INVALID, hint=_WORDS)
    need = Need(kind=kind, job_id=int(number), minutes=int(minutes) if plus else 0)
    if kind == "aftercorr":
        return [replace(need, task_id=task_id)]
    if not underscore or element == "*":
        return [need]
    elements = arrays.indexes(element)
    if not elements:
        raise RequestError(INVALID, hint="an element of an array is JOB_NUMBER")
    return [replace(need, task_id=each) for each in elements]


def text(dependency: Dependency | None, is_array: Iterable[int] = ()) -> str:
    """As squeue and scontrol show it; the arrays among its jobs have ``_*``."""
    if dependency is None:
        return ""
    return ("?" if dependency.either else ",").join(
        _need_text(need, is_array) for need in dependency.needs
    )


def _need_text(need: Need, is_array: Iterable[int]) -> str:
    word = "failed" if need.failed else "unfulfilled"
    if need.kind == "singleton":
        return f"singleton({word})"
    name = str(need.job_id)
    if need.task_id is not None and need.kind != "aftercorr":
        name += f"_{need.task_id}"
    elif need.job_id in is_array:
        name += "_*"
    delay = f"+{need.minutes}" if need.minutes else ""
    return f"{need.kind}:{name}{delay}({word})"


def targets(dependency: Dependency | None) -> list[Target]:
    """Whose start or end changes something; a singleton's rivals are found by their name."""
    if dependency is None:
        return []
    return [target(need) for need in dependency.needs if need.kind != "singleton"]


def target(need: Need) -> Target:
    return need.job_id, WHOLE if need.task_id is None else need.task_id


def names(job: Job) -> list[Target]:
    """The targets that a job is, or is a part of."""
    found = [(job.id, WHOLE)]
    task = job.spec.array
    if task is not None:
        found += [(task.job_id, task.task_id)]
        if task.job_id != job.id:
            found.append((task.job_id, WHOLE))
    return found


def is_single(dependency: Dependency | None) -> bool:
    return dependency is not None and any(need.kind == "singleton" for need in dependency.needs)


def is_never(dependency: Dependency | None) -> bool:
    """Whether it can never be met."""
    if dependency is None:
        return False
    failed = [need.failed for need in dependency.needs]
    return all(failed) if dependency.either else any(failed)


def settle(dependency: Dependency, needs: Sequence[Need | None]) -> Dependency | None:
    """The dependency when its needs have become ``needs``, None for one that is met."""
    if dependency.either and None in needs:
        return None
    left = tuple([need for need in needs if need is not None])
    return replace(dependency, needs=left) if left else None


# -- one need --------------------------------------------------------------------------------------


def first_look(need: Need, live: Sequence[Job], ended: Sequence[Job], at: float) -> Need | None:
    """A need when it is new: its target's jobs that have not ended, and those that have."""
    if need.kind == "after":
        if any(isinstance(job.state, life.JobPending) for job in live):
            return need
        starts = [_began(job) for job in (*live, *ended)]
        return _delayed(need, max(starts), at) if starts else None
    bad = any(not _is_ok(job) for job in ended)
    if live:
        return replace(need, spoiled=bad)
    return _judged(need, ok=not bad) if ended else None


def after_start(need: Need, waits: bool, at: float) -> Need | None:
    """A need when its target, or a part of it, has started; ``waits``: another part has not."""
    if need.kind != "after" or waits or need.until is not None:
        return need
    return _delayed(need, at, at)


def after_end(need: Need, job: Job, left: bool, waits: bool, at: float) -> Need | None:
    """A need when a job of its target has ended; ``left``: others of it have not."""
    if need.failed or need.kind == "singleton":
        return need
    if need.kind == "after":
        return after_start(need, waits, at)
    spoiled = need.spoiled or not _is_ok(job)
    return replace(need, spoiled=spoiled) if left else _judged(need, ok=not spoiled)


def after_time(need: Need, at: float) -> Need | None:
    """A need when time has passed."""
    return None if need.until is not None and need.until <= at else need


def _delayed(need: Need, since: float, at: float) -> Need | None:
    until = since + need.minutes * _MINUTE
    return replace(need, until=until) if until > at else None


def _judged(need: Need, *, ok: bool) -> Need | None:
    met = need.kind == "afterany" or ok == (need.kind != "afternotok")
    return None if met else replace(need, failed=True)


def _is_ok(job: Job) -> bool:
    return job.state.word == life.COMPLETED


def _began(job: Job) -> float:
    """When it started, or was cancelled before."""
    granted = None if isinstance(job.state, life.JobPending) else job.state.allocation
    if granted is not None:
        return granted.started_at
    return job.state.ended_at if isinstance(job.state, life.JobEnded) else 0.0


# -- who waits for whom ----------------------------------------------------------------------------


class Namesakes:
    """The unfinished jobs of one name: all of them in order, and those that have started."""

    __slots__ = ("active", "live")

    def __init__(self) -> None:
        self.live: list[int] = []
        self.active: set[int] = set()


class Waiters:
    """Which unfinished jobs wait for which, kept up to date by ``note``."""

    def __init__(self) -> None:
        self.by_target: dict[Target, dict[int, None]] = {}
        self._namesakes: dict[str, Namesakes] = {}

    def note(self, before: Job | None, job: Job) -> None:
        """A job has become what it is now."""
        old = None if before is None else before.spec.dependency
        over = job.state.word in life.FINAL
        new = None if over else job.spec.dependency
        if old is not new:
            self._forget(job.id, old)
            for each in targets(new):
                self.by_target.setdefault(each, {})[job.id] = None
        if before is not None and (over or before.spec.name != job.spec.name):
            self._leave(job.id, before.spec.name)
            before = None
        if over:
            return
        if before is None:
            insort(self._namesakes.setdefault(job.spec.name, Namesakes()).live, job.id)
        active = self._namesakes[job.spec.name].active
        if isinstance(job.state, life.JobPending):
            active.discard(job.id)
        else:
            active.add(job.id)

    def next_single(self, name: str) -> int | None:
        """Who of that name may be the only one to run now."""
        found = self._namesakes.get(name)
        return None if found is None or found.active or not found.live else found.live[0]

    def _forget(self, job_id: int, dependency: Dependency | None) -> None:
        for each in targets(dependency):
            waiting = self.by_target.get(each, {})
            waiting.pop(job_id, None)
            if not waiting:
                self.by_target.pop(each, None)

    def _leave(self, job_id: int, name: str) -> None:
        found = self._namesakes[name]
        del found.live[bisect_left(found.live, job_id)]
        found.active.discard(job_id)
        if not found.live:
            del self._namesakes[name]
