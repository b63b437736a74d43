"""With whom a supervisor talks: the controller that has launched it, those that come after it, and
who attaches to the step.

Who connects to the step's socket is the user, or root (host.wire).  Nobody is waited for: one who
does not listen finds the exit record.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from roadstead.errors import RequestError, RoadsteadError
from roadstead.host import wire
from roadstead.step.attached import Reader, wish

if TYPE_CHECKING:
    from roadstead.core.model import StepSpec
    from roadstead.host.loop import Loop
    from roadstead.step.streams import Streams

# What to do about a message; ValueError for one that holds what none of a controller's does.
Heed = Callable[[wire.Connection, dict[str, object]], None]

log = logging.getLogger(__name__)


class Conversation:
    """The connections of one step's supervisor."""

    def __init__(self, loop: Loop, spec: StepSpec, streams: Streams, heed: Heed) -> None:
        self._loop = loop
        self._spec = spec
        self._streams = streams
        self._heed = heed
        self._connections: list[wire.Connection] = []
        self._readers: dict[wire.Connection, Reader] = {}
        self._listener: wire.Listener | None = None

    def add(self, connection: wire.Connection) -> None:
        """Hear what this one says from now on."""
        self._connections.append(connection)
        self._loop.watch(connection, lambda: self._hear(connection))

    def listen(self, path: str) -> None:
        """Be there for the next controller, should this one go.  Raises OSError."""
        self._listener = wire.Listener(path)
        self._loop.watch(self._listener, self._accept)

    def stop_listening(self) -> None:
        """Nobody else, from now on."""
        if self._listener is not None:
            self._loop.unwatch(self._listener)
            self._listener.close()
            self._listener = None

    def tell(self, message: dict[str, object]) -> None:
        """Tell everybody."""
        for connection in list(self._connections):
            self.answer(connection, message)

    @staticmethod
    def answer(
        connection: wire.Connection, message: dict[str, object], fds: tuple[int, ...] = ()
    ) -> None:
        """Tell one of them."""
        try:
            connection.send(message, fds, wait=False)
        except (BrokenPipeError, ConnectionResetError, BlockingIOError):
            return

    def tell_end(self, message: dict[str, object]) -> None:
        """Tell everybody the last thing; those who attached get the rest of the output with it."""
        for connection in list(self._connections):
            reader = self._readers.get(connection)
            rest = [] if reader is None else reader.finish()
            self.answer(connection, message, tuple(rest))
            for fd in rest:
                os.close(fd)

    def close(self) -> None:
        """Part with everybody."""
        for connection in list(self._connections):
            self._part(connection)

    # -- what is heard ----------------------------------------------------------------------------

    def _accept(self) -> None:
        assert self._listener is not None
        connection = self._listener.accept()
        if connection is not None:
            self.add(connection)

    def _hear(self, connection: wire.Connection) -> None:
        try:
            received = connection.receive()
        except ValueError:
            received = None
        if received is None:
            self._part(connection)
            return
        message, fds = received
        if message.get("op") == "attach" and len(fds) == 3 and connection not in self._readers:
            self._attach(connection, message, fds.take_all())
        fds.close()
        try:
            self._heed(connection, message)
        except ValueError as error:  # whoever that is, it is no controller of ours
            log.warning("message not understood error=%r", str(error))

    def _part(self, connection: wire.Connection) -> None:
        self._loop.unwatch(connection)
        self._connections.remove(connection)
        self._detach(connection)
        connection.close()

    def _attach(self, connection: wire.Connection, message: dict[str, Any], fds: list[int]) -> None:
        """Somebody wants to hear the tasks (sattach)."""
        spec = self._spec

        def tell(sentence: str) -> None:
            self.answer(connection, {"event": "notice", "sentence": sentence})

        digits = len(str(spec.ntasks - 1))
        reader = self._readers[connection] = Reader(self._loop, wish(message), fds, digits, tell)
        try:
            if message.get("pty") is True and spec.terminal is None:
                raise RequestError(
                    f"StepId={spec.job_id}.{spec.step_id} has no pseudo-terminal",
                    hint="srun --pty makes one; or leave out --pty",
                )
            lost = self._streams.attach(reader, types=message.get("types") is True)
        except RoadsteadError as error:
            told = {"kind": error.kind, "sentence": str(error), "hint": error.hint}
            self.answer(connection, {"event": "error", **told})
            self._detach(connection)
            return
        self.answer(connection, {"event": "attached", "lost": lost})

    def _detach(self, connection: wire.Connection) -> None:
        reader = self._readers.pop(connection, None)
        if reader is not None:
            self._streams.detach(reader)
            reader.close()
