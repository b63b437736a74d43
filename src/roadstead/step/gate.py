"""A stop between a container that is there and its program: for plugins that are told of it.

Runtimes that are called in one go (``run``) make a container and start its program in the same
moment.  What they do in between is to run the createRuntime hooks and to wait for them, on the
host, with the container's state as their input (runtime-spec, config.md).  So ours is a hook of a
line of shell: it passes the state on through a pipe with a name, and waits for a word in another.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from roadstead.host.loop import Loop

_STAGE: Final = "createRuntime"
_SCRIPT: Final = 'cat >"$0/created" && read -r word <"$0/go" && test "$word" = go'
_MOST: Final = 1 << 20


class Gate:
    """The gate of one container; its pipes are in the task's directory, and go with it."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        for name in ("created", "go"):
            os.mkfifo(f"{directory}/{name}", 0o600)
        self._created = os.open(f"{directory}/created", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        # For writing too: who opens it for reading later finds a writer, and its word.
        self._go = os.open(f"{directory}/go", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._said = b""
        self._loop: Loop | None = None

    def add_to(self, config: dict[str, Any]) -> None:
        """Put the hook into a config.json, after all others of its stage."""
        hooks = config["hooks"] = dict(config.get("hooks") or {})
        entry = {"path": "/bin/sh", "args": ["sh", "-c", _SCRIPT, self._directory]}
        hooks[_STAGE] = [*(hooks.get(_STAGE) or []), entry]

    def watch(self, loop: Loop, created: Callable[[dict[str, Any]], None]) -> None:
        """Call ``created`` with the container's state once it is there."""
        self._loop = loop

        def readable() -> None:
            with contextlib.suppress(BlockingIOError):
                data = os.read(self._created, _MOST)
                self._said += data
                if data and len(self._said) < _MOST:
                    return
                loop.unwatch(self._created)
                self._loop = None
                created(_state(self._said))

        loop.watch(self._created, readable)

    def open(self, go: bool = True) -> None:
        """Let the program start, or have the runtime fail."""
        if self._go >= 0:  # else the container has ended meanwhile
            with contextlib.suppress(BlockingIOError):
                os.write(self._go, b"go\n" if go else b"no\n")

    def close(self) -> None:
        """Whatever has become of the container, nobody waits here any more."""
        if self._created < 0:
            return
        if self._loop is not None:
            self._loop.unwatch(self._created)
        os.close(self._created)
        os.close(self._go)
        self._created = self._go = -1


def _state(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
