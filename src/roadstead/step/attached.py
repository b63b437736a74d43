"""Those who attach to a step that runs: sattach.  (docs/decisions/0016)

An attached reader hears what the tasks write from now on, and may send them input.  It must not be
able to slow the step down or to keep it from ending.  So nobody waits for it: what it has not taken
when too much waits is dropped, and it is told how much; and at the end of the step it gets what
waits as a descriptor, to be read in its own time.

Output that goes past us into a regular file (``sbatch``, ``srun >file``) is followed in the file,
by inotify, from where the file ends now.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from roadstead.host import linux
from roadstead.host.loop import Loop
from roadstead.step.lines import Lines, Shape, Verbatim
from roadstead.step.stdio import CHUNK, HIGH_WATER, Sink, Source


@dataclass(frozen=True, slots=True)
class Wish:
    """What an attached reader wants: labels, and of each stream one task's or every one's."""

    label: bool = False
    input: int | None = None
    output: int | None = None
    error: int | None = None

    def of(self, stream: int) -> int | None:
        return (self.input, self.output, self.error)[stream]


class Ear:
    """One task's stream as one attached reader hears it."""

    def __init__(self, reader: Reader, stream: int, shape: Shape) -> None:
        self.reader = reader
        self._stream = stream
        self._shape = shape

    def feed(self, data: bytes) -> None:
        self.reader.hear(self._stream, self._shape.feed(data))

    def end(self) -> None:
        self.reader.hear(self._stream, self._shape.end())


class Follower:
    """A file that a task writes to by itself, read for one attached reader as it grows."""

    def __init__(self, loop: Loop, path: str, ear: Ear, sink: Sink) -> None:
        self._loop = loop
        self._ear = ear
        self._sink = sink
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self._at = os.fstat(self._fd).st_size
            self._watch = linux.FileWatch(path)
        except OSError:
            os.close(self._fd)
            raise
        loop.watch(self._watch, self._changed)

    def _changed(self) -> None:
        self._watch.drain()
        self._read(HIGH_WATER)

    def _read(self, limit: int) -> None:
        """What is new; a reader that takes its time gets the rest when it has taken this."""
        self._at = min(self._at, os.fstat(self._fd).st_size)  # somebody may have emptied the file
        while self._fd >= 0 and not self._sink.broken:
            if self._sink.pending > limit:
                self._sink.when_empty(lambda: self._read(limit))
                return
            data = os.pread(self._fd, CHUNK, self._at)
            if not data:
                return
            self._at += len(data)
            self._ear.feed(data)

    def finish(self) -> None:
        """The step is over: what is still new, as far as may wait for anybody."""
        while self._sink.pending <= HIGH_WATER and not self._sink.broken:
            data = os.pread(self._fd, CHUNK, self._at)
            if not data:
                break
            self._at += len(data)
            self._ear.feed(data)
        self._ear.end()

    def close(self) -> None:
        self._loop.unwatch(self._watch)
        self._watch.close()
        os.close(self._fd)
        self._fd = -1


def wish(message: dict[str, Any]) -> Wish:
    """The wish of an ``attach`` message."""
    numbers = {name: message.get(name) for name in ("input", "output", "error")}
    chosen = {name: value for name, value in numbers.items() if type(value) is int}
    return Wish(label=message.get("label") is True, **chosen)


class Reader:
    """One sattach.  ``fds`` are its 0, 1 and 2, ours to close; ``tell`` reaches it."""

    def __init__(
        self, loop: Loop, wish: Wish, fds: list[int], digits: int, tell: Callable[[str], None]
    ) -> None:
        self._loop = loop
        self._wish = wish
        self._digits = digits
        self._tell = tell
        self._stdin = fds[0]
        self._sinks = {stream: Sink(loop, fds[stream]) for stream in (1, 2)}
        self._dropped = 0
        self._followers: list[Follower] = []
        self._source: Source | None = None

    def wants(self, stream: int, procid: int) -> bool:
        return self._wish.of(stream) in (None, procid)

    def ear(self, stream: int, procid: int, *, whole_lines: bool) -> Ear:
        """What hears one task's stream for this reader."""
        label = f"{procid:>{self._digits}}: ".encode() if self._wish.label else b""
        shape: Shape = Lines(label) if whole_lines or label else Verbatim()
        return Ear(self, stream, shape)

    def follow(self, stream: int, procid: int, path: str, *, whole_lines: bool) -> None:
        """Hear what a task writes to a file.  Raises OSError."""
        ear = self.ear(stream, procid, whole_lines=whole_lines)
        self._followers.append(Follower(self._loop, path, ear, self._sinks[stream]))

    def send_to(self, sinks: list[Sink]) -> None:
        """Pass this reader's own input on.  Its end is not the end of the tasks' input."""
        fd, self._stdin = self._stdin, -1
        self._source = Source(self._loop, fd, sinks)

    def hear(self, stream: int, data: bytes) -> None:
        sink = self._sinks[stream]
        if sink.pending + len(data) > HIGH_WATER + CHUNK:
            if not self._dropped:
                sink.when_empty(self._own_up)
            self._dropped += len(data)
        elif not self._dropped:
            sink.write(data)
        else:
            self._dropped += len(data)  # one gap, not several

    def _own_up(self) -> None:
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            self._tell(
                f"warning: {dropped} bytes of output were left out: they are read too slowly"
            )

    def finish(self) -> list[int]:
        """The step is over: two files with what this reader has not taken of the two streams."""
        for follower in self._followers:
            follower.finish()
        files = []
        for sink in self._sinks.values():
            files.append(os.memfd_create("roadstead-rest", os.MFD_CLOEXEC))
            with open(files[-1], "wb", closefd=False) as file:
                file.write(sink.take())
        self._own_up()
        return files

    def close(self) -> None:
        """The reader has gone, or has got all."""
        for follower in self._followers:
            follower.close()
        if self._source is not None:
            self._source.close()
        if self._stdin >= 0:
            os.close(self._stdin)
        for sink in self._sinks.values():
            sink.close()
