"""Where each task's bytes go.

A lone task that is neither labelled nor on a terminal gets the user's own descriptors, and nobody
touches its bytes.  Everything else is relayed here, by the supervisor:

* several tasks writing to one place: line by line, so that lines do not mix (``--label`` puts the
  task's number before each; ``--unbuffered`` passes bytes on as they come);
* a terminal as destination: srun's tasks have never had the user's terminal, and must not be able
  to change its modes or read from it;
* standard input for several tasks: each gets a copy, and the slowest sets the pace.

Nothing here blocks on a slow reader: a destination is written to when epoll says that it has room
(for a pipe that is at least PIPE_BUF bytes, so a write of no more cannot block, pipe(7)), and while
too much waits for it nothing more is read.  The destination's own flags are never changed: it is
shared with the user's shell.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from roadstead.host.loop import Loop

_CHUNK = 65536
_PIPE_BUF = 4096
_HIGH_WATER = 1 << 20


def _read(fd: int) -> bytes | None:
    """Up to a chunk; b"" at the end, None where there is nothing now (somebody else took it).

    Every failure is the end: a pty whose last slave was closed says EIO, and the user may have
    given us a directory, or what is open for writing only.
    """
    try:
        return os.read(fd, _CHUNK)
    except BlockingIOError:
        return None
    except OSError:
        return b""


class Sink:
    """A destination that several sources write to; keeps what it has not taken yet."""

    def __init__(self, loop: Loop, fd: int) -> None:
        self.fd = fd
        self.broken = False
        self.reader_gone = False
        self._loop = loop
        self._pending = bytearray()
        self._waiting: list[Callable[[], None]] = []
        # epoll refuses regular files, which are always ready; a full disk shows as ENOSPC.
        self._direct = stat.S_ISREG(os.fstat(fd).st_mode) or not _can_poll(fd)
        self._gone = (errno.EPIPE, errno.EIO) if os.isatty(fd) else (errno.EPIPE,)
        self.error = ""

    @property
    def full(self) -> bool:
        return len(self._pending) > _HIGH_WATER

    @property
    def empty(self) -> bool:
        return not self._pending

    def write(self, data: bytes) -> None:
        if self.broken or not data:
            return
        was_empty = not self._pending
        self._pending += data
        if self._direct:
            self._drain_all()
        elif was_empty:
            self._loop.watch_writable(self.fd, self._drain)

    def when_empty(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once everything has been written (or never can be)."""
        if self.empty or self.broken:
            callback()
        else:
            self._waiting.append(callback)

    def _drain_all(self) -> None:
        while self._pending and not self.broken:
            self._write_some(len(self._pending))
        self._settle()

    def _drain(self) -> None:
        self._write_some(_PIPE_BUF)
        if not self._pending or self.broken:
            self._loop.unwatch_writable(self.fd)
            self._settle()

    def _write_some(self, size: int) -> None:
        try:
            done = os.write(self.fd, memoryview(self._pending)[:size])
        except BlockingIOError:
            return
        except OSError as error:
            self.broken = True
            self.reader_gone = error.errno in self._gone  # which is no loss: nobody wants it
            self.error = "" if self.reader_gone else error.strerror or str(error)
            self._pending.clear()
            return
        del self._pending[:done]

    def _settle(self) -> None:
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback()


def _can_poll(fd: int) -> bool:
    import select

    probe = select.epoll()
    try:
        probe.register(fd, 0)
    except PermissionError:
        return False
    finally:
        probe.close()
    return True


class Output:
    """One task's output stream on its way to a sink."""

    def __init__(
        self, loop: Loop, fd: int, sink: Sink, *, prefix: bytes = b"", whole_lines: bool = True
    ) -> None:
        self._loop = loop
        self._fd = fd
        self.sink = sink
        self._prefix = prefix
        self._whole_lines = whole_lines
        self._partial = b""
        self.open = True
        self._closed: list[Callable[[], None]] = []
        loop.watch(fd, self._read)

    def when_closed(self, callback: Callable[[], None]) -> None:
        if self.open:
            self._closed.append(callback)
        else:
            callback()

    def _read(self) -> None:
        data = _read(self._fd)
        if data is None:
            return
        if not data or self.sink.reader_gone:
            self.close()  # with its reader gone the task gets SIGPIPE, as without us
            return
        self.sink.write(self._shape(data))
        if self.sink.full:
            self._loop.unwatch(self._fd)
            self.sink.when_empty(self._resume)

    def _resume(self) -> None:
        if self.open:
            self._loop.watch(self._fd, self._read)

    def _shape(self, data: bytes) -> bytes:
        if not self._whole_lines:
            return data
        data = self._partial + data
        lines, newline, self._partial = data.rpartition(b"\n")
        if len(self._partial) > _HIGH_WATER:  # a line without an end must not eat all memory
            lines, newline, self._partial = data, b"\n" if self._prefix else b"", b""
        if not newline and not lines:
            return b""
        if not self._prefix:
            return lines + newline
        return b"".join(self._prefix + line + b"\n" for line in lines.split(b"\n"))

    def close(self) -> None:
        """End of the stream: what is left of a last line goes out as it is."""
        if not self.open:
            return
        self.open = False
        self._loop.unwatch(self._fd)
        os.close(self._fd)
        if self._partial:
            self.sink.write(self._prefix + self._partial + (b"\n" if self._prefix else b""))
        for callback in self._closed:
            callback()


class Input:
    """The user's standard input, copied to every task that wants it.

    ``ended`` is called at the end of what the user sends, not when the tasks are through.
    """

    def __init__(
        self, loop: Loop, fd: int, tasks: list[int], ended: Callable[[], None] = lambda: None
    ) -> None:
        self._loop = loop
        self._fd = fd
        self._ended = ended
        self._sinks = [Sink(loop, task) for task in tasks]
        self.open = True
        self._regular = stat.S_ISREG(os.fstat(fd).st_mode) or not _can_poll(fd)
        if self._regular:
            loop.call_later(0, self._read)
        else:
            loop.watch(fd, self._read)

    def _read(self) -> None:
        if not self.open:
            return
        data = _read(self._fd)
        if not data:
            # Ctrl-D typed before the terminal was raw is nothing; a hung-up one is no terminal.
            if data is not None and not os.isatty(self._fd):
                self.close()
                self._ended()
            return
        for sink in self._sinks:
            sink.write(data)
        if all(sink.broken for sink in self._sinks):
            self.close()
        elif any(sink.full for sink in self._sinks):
            self._loop.unwatch(self._fd)
            next(sink for sink in self._sinks if sink.full).when_empty(self._resume)
        elif self._regular:
            self._loop.call_later(0, self._read)

    def _resume(self) -> None:
        if not self.open:
            return
        if self._regular:
            self._loop.call_later(0, self._read)
        elif not any(sink.full for sink in self._sinks):
            self._loop.watch(self._fd, self._read)
        else:
            next(sink for sink in self._sinks if sink.full).when_empty(self._resume)

    def close(self) -> None:
        """End of input: each task sees it once it has taken what was sent before."""
        if not self.open:
            return
        self.open = False
        self._loop.unwatch(self._fd)
        os.close(self._fd)
        for sink in self._sinks:
            sink.when_empty(lambda fd=sink.fd: self._finish(fd))  # type: ignore[misc]

    def _finish(self, fd: int) -> None:
        self._loop.unwatch(fd)
        os.close(fd)


def open_output(path: str, *, append: bool) -> int:
    """Open a file that the user named for output.  Raises OSError."""
    mode = os.O_APPEND if append else os.O_TRUNC
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | mode, 0o666)


def open_input(path: str) -> int:
    """Open a file that the user named for input.  Raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
