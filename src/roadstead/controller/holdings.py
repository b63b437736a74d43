"""Which images the jobs of this engine need, as records in the stores (images/holds.py).

One hold for an image, whatever the number of jobs.  It is taken before the first of them is
accepted, and let go when the last of those that had a step of it has ended: a container with a name
outlives the step that began it.  What an earlier controller had taken is in STATE/holds/, a link
for each file; it is ours from the start, for all jobs that live then.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterable, Mapping
from typing import Any, Final

from roadstead.core import effects as do
from roadstead.core.lifecycle import FINAL, Job, Step
from roadstead.core.model import ContainerRequest
from roadstead.errors import ImageError
from roadstead.images import holds
from roadstead.images.store import Store

log = logging.getLogger(__name__)


class Holdings:
    """The holds of the engine whose state is in this directory; each is known by its file."""

    def __init__(self, state_directory: str) -> None:
        self._links: Final = f"{state_directory}/holds"
        place = f"{os.uname().nodename}:{os.path.realpath(state_directory)}"
        self._who: Final = f"{os.getuid()}-{hashlib.sha256(place.encode()).hexdigest()[:16]}"
        self._told: Final = f"jobs of uid {os.getuid()} on {os.uname().nodename}"
        self._jobs: dict[str, set[int]] = {}  # file → the jobs that need it
        self._of_job: dict[int, set[str]] = {}
        self._unused: set[str] = set()
        self._known: dict[tuple[str, str], tuple[str, ...]] = {}  # stores, digest → files

    def restore(self, jobs: Iterable[Job], steps: Iterable[Step]) -> None:
        """Take over what an earlier controller held, all of it until the jobs of now have ended."""
        jobs = list(jobs)
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self._links):
                path = os.readlink(f"{self._links}/{name}")
                self._jobs[path] = set()
                self._unused.add(path)
                for job in jobs:
                    self._need(job.id, (path,))
        for job in jobs:
            self._uses(job.id, job.spec.container)
        for step in steps:
            self._uses(step.job_id, step.request.container)
        self._settle()

    def take(self, body: Mapping[str, Any]) -> None:
        """Hold the images that a message names, if it does.  Raises ImageError for one that is not
        there."""
        for name, key in (("image", "digest"), ("mounted", "digests")):
            image = body.get(name)
            if not isinstance(image, dict):
                continue
            stores, found = image.get("store"), image.get(key)
            digests = list(found.values()) if isinstance(found, dict) else [found]
            for digest in digests:
                if isinstance(stores, str) and isinstance(digest, str) and stores.startswith("/"):
                    self._hold(stores, digest)

    def note(self, recorded: Iterable[do.Effect]) -> None:
        """Learn from what has been committed which jobs need what; let go what none needs."""
        for effect in recorded:
            if isinstance(effect, do.Save):
                if effect.job.state.word in FINAL:
                    self._ended(effect.job.id)
                else:
                    self._uses(effect.job.id, effect.job.spec.container)
            elif isinstance(effect, do.SaveStep) and effect.step.state.word not in FINAL:
                self._uses(effect.step.job_id, effect.step.request.container)
        if self._unused:
            self._settle()

    def _hold(self, stores: str, digest: str) -> tuple[str, ...]:
        """The files that hold an image, made if they are not there."""
        known = self._known.get((stores, digest))
        if known is not None:
            return known
        path, *others = stores.split(":")
        store = Store(path, others=tuple(others))
        made = holds.paths(store, digest, self._who)
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._links, 0o700)
        for each in made:  # written down before it is made
            with contextlib.suppress(FileExistsError):
                os.symlink(each, self._link(each))
            self._jobs.setdefault(each, set())
            self._unused.add(each)  # until a job of it is committed
        self._known[stores, digest] = made = holds.take(store, digest, self._who, self._told)
        return made

    def _link(self, path: str) -> str:
        return f"{self._links}/{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}"

    def _uses(self, number: int, container: ContainerRequest | None) -> None:
        if container is None or not container.store:
            return
        for digest in filter(None, [container.image, *[m.digest for m in container.mounts]]):
            try:
                self._need(number, self._hold(container.store, digest))
            except ImageError as error:  # the step will say so
                log.warning("not held image=%s error=%r", digest, str(error))

    def _need(self, number: int, made: tuple[str, ...]) -> None:
        for path in made:
            self._jobs[path].add(number)
            self._of_job.setdefault(number, set()).add(path)

    def _ended(self, number: int) -> None:
        for path in self._of_job.pop(number, ()):
            self._jobs[path].discard(number)
            self._unused.add(path)

    def _settle(self) -> None:
        """Let go what no job needs."""
        gone = {path for path in self._unused if not self._jobs[path]}
        self._unused.clear()
        if not gone:
            return
        self._known = {k: made for k, made in self._known.items() if gone.isdisjoint(made)}
        for path in gone:
            del self._jobs[path]
            holds.release((path,))
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._link(path))
