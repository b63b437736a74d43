"""What the controller has done by processes of its own, and whose ends it waits for: by event."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Final

from roadstead.host import fork, process
from roadstead.host.loop import Loop

_TRIES: Final = 5

log = logging.getLogger(__name__)


class Children:
    """The processes that one loop waits for."""

    def __init__(self, loop: Loop, first: Callable[[], None]) -> None:
        """``first`` is what each of them does before all else: let go of what is not its own."""
        self._loop = loop
        self._first = first

    def run(
        self, body: Callable[[], object], then: Callable[[], None], *, tries: int = _TRIES
    ) -> None:
        """Have a process of its own do something that can be begun again, and does nothing where it
        has been done; one that is killed at it is followed by another.  ``then`` comes last."""

        def all_of_it() -> None:
            self._first()
            body()

        child = process.adopt(fork.run_in_child(all_of_it))

        def ended() -> None:
            self._loop.unwatch(child)
            if child.reap() < 0 and tries > 1:
                self.run(body, then, tries=tries - 1)
                return
            if child.status:
                log.error("left undone: %s status=%d", body, child.status)
            then()

        self._loop.watch(child, ended)

    def when_ended(self, pid: int, then: Callable[[], None]) -> bool:
        """Call ``then`` when that process has ended, whose child it may be; False if it has."""
        try:
            child = process.adopt(pid)
        except ProcessLookupError:
            return False

        def ended() -> None:
            self._loop.unwatch(child)
            try:
                child.reap()
            except ChildProcessError:  # somebody else's
                os.close(child.pidfd)
            then()

        self._loop.watch(child, ended)
        return True
