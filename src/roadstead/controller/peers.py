"""The other ends of the controller's conversations: clients and supervisors.

A peer that does not read must not stop the controller: what its queue does not take waits here,
and is sent when there is room.

A program that has much to ask (api/client.py) does not connect for each request: its messages have
a ``tag`` each, and each is a conversation of its own.  To the reactor a conversation is a client
like any other, with a number, what it owns and what it waits for; its answers have the tag.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from roadstead.host import process, wire
from roadstead.host.loop import Loop

_IN_A_TURN: Final = 32  # messages of one peer: the others' turn comes a few milliseconds later
_ENDED_SECONDS: Final = 1.0
_MORE_FOLLOWS: Final = ("pending", "granted", "started", "notice")


class Peer:
    """A connection that is watched.  ``hear`` gets each message with its descriptors, ``gone`` is
    called once, when the connection has ended (not when we close it)."""

    def __init__(
        self,
        loop: Loop,
        connection: wire.Connection,
        hear: Callable[[dict[str, Any], wire.FdSet], None],
        gone: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._connection = connection
        self._hear = hear
        self._gone = gone
        self._unsent: deque[dict[str, Any]] = deque()
        self._closing = False
        self._open = True
        loop.watch(connection, self._readable)

    def send(self, message: dict[str, Any]) -> None:
        """Send now or when the peer reads; a peer that has gone is heard of otherwise."""
        if self._open:
            self._unsent.append(message)
            self._flush()

    def close(self) -> None:
        """End the conversation once everything has been sent."""
        self._closing = True
        if self._open and not self._unsent:
            self._end()

    def _flush(self) -> None:
        while self._unsent:
            try:
                self._connection.send(self._unsent[0], wait=False)
            except BlockingIOError:
                self._loop.watch_writable(self._connection, self._flush)
                return
            except (BrokenPipeError, ConnectionResetError):
                self._unsent.clear()  # the reading side hears of it
                break
            self._unsent.popleft()
        self._loop.unwatch_writable(self._connection)
        if self._closing:
            self._end()

    def _readable(self) -> None:
        """Hear what is there: what is heard in one turn is committed at once."""
        for _ in range(_IN_A_TURN):
            if not self._open or not self._hear_one():
                return

    def _hear_one(self) -> bool:
        try:
            received = self._connection.receive(wait=False)
        except BlockingIOError:
            return False
        except ValueError:
            received = None  # not our protocol: no conversation
        if received is None:
            self._end()
            self._gone()
            return False
        message, fds = received
        self._hear(message, fds)
        return True

    def _end(self) -> None:
        if self._open:
            self._open = False
            self._loop.unwatch(self._connection)
            self._connection.close()


class Client(Peer):
    """A command.  ``fds`` are its standard streams, until a supervisor gets them."""

    def __init__(
        self,
        number: int,
        loop: Loop,
        connection: wire.Connection,
        hear: Callable[[Client, dict[str, Any], wire.FdSet], None],
        gone: Callable[[Client], None],
    ) -> None:
        super().__init__(
            loop,
            connection,
            lambda message, fds: hear(self, message, fds),
            lambda: gone(self),
        )
        self.number = number
        self.pid = connection.peer_pid()
        self.greeted = False
        self.fds: list[int] = []
        self.conversations: dict[int, Conversation] = {}  # by tag

    def take_fds(self) -> tuple[int, ...]:
        taken, self.fds = tuple(self.fds), []
        return taken

    def close_fds(self) -> None:
        for fd in self.take_fds():
            os.close(fd)

    def once_ended(self, then: Callable[[], None]) -> None:
        """Call ``then`` when the command has ended, or has had the time to: it may be in the job
        that it asked to have ended, and is to tell its caller that this was done."""
        try:
            command = process.adopt(self.pid)
        except OSError:  # it has ended, or is where we see no processes
            then()
            return

        def ended() -> None:
            timer.cancel()
            self._loop.unwatch(command)
            os.close(command.pidfd)
            then()

        timer = self._loop.call_later(_ENDED_SECONDS, ended)
        self._loop.watch(command, ended)


class Conversation:
    """One request of several on a connection, until its last answer."""

    __slots__ = ("_over", "client", "fds", "number", "pid", "tag")

    def __init__(
        self, number: int, client: Client, tag: int, over: Callable[[Conversation], None]
    ) -> None:
        self.number = number
        self.client = client
        self.tag = tag
        self.pid = client.pid
        self.fds: list[int] = []
        self._over = over
        client.conversations[tag] = self

    def send(self, message: dict[str, Any]) -> None:
        if message["event"] not in _MORE_FOLLOWS:
            self.close()
        self.client.send({**message, "tag": self.tag})

    def close(self) -> None:
        """It is over; the connection stays."""
        if self.client.conversations.pop(self.tag, None) is not None:
            self.close_fds()
            self._over(self)

    def take_fds(self) -> tuple[int, ...]:
        taken, self.fds = tuple(self.fds), []
        return taken

    def close_fds(self) -> None:
        for fd in self.take_fds():
            os.close(fd)
