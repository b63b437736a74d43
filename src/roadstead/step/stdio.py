"""Where each task's bytes go.

A lone task that is neither labelled nor on a terminal gets the user's own descriptors, and nobody
touches its bytes.  Everything else is relayed here, by the supervisor:

* several tasks writing to one place: line by line, so that lines do not mix (``--label`` puts the
  task's number before each; ``--unbuffered`` passes bytes on as they come);
* a terminal as destination: srun's tasks have never had the user's terminal, and must not be able
  to change its modes or read from it;
* standard input for several tasks: each gets a copy, and the slowest sets the pace.

Nothing here blocks on a slow reader: a destination is written to through a non-blocking description
of our own where there can be one (host/pipes.py), else in pieces that cannot block, and while too
much waits for it nothing more is read.  The destination's own flags are never changed: it is shared
with the user's shell.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from roadstead.host import pipes
from roadstead.host.loop import Loop
from roadstead.step.lines import Lines, Shape, Verbatim

if TYPE_CHECKING:
    from roadstead.step.attached import Ear

CHUNK: Final = 1 << 18  # what is read at once; pipes that are ours hold as much, if they may
HIGH_WATER: Final = 1 << 20
_SCREENFUL: Final = CHUNK // 4096


def _read(fd: int) -> bytes | None:
    """Up to a chunk; b"" at the end, None where there is nothing now (somebody else took it).

    Every failure is the end: a pty whose last slave was closed says EIO, and the user may have
    given us a directory, or what is open for writing only.
    """
    try:
        return os.read(fd, CHUNK)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def _read_screen(fd: int) -> bytes | None:
    """The same of a pty's master, which gives 4 KiB at a time: as much as there is, in one go."""
    pieces: list[bytes] = []
    for _ in range(_SCREENFUL):
        data = _read(fd)
        if not data:
            return b"".join(pieces) or data  # an end that was seen is seen again
        pieces.append(data)
    return b"".join(pieces)


class Sink:
    """A destination that several sources write to; keeps what it has not taken yet.

    ``own``: the descriptor is ours alone, and may be made non-blocking.
    """

    def __init__(self, loop: Loop, fd: int, *, own: bool = False) -> None:
        self.fd = fd
        self.broken = False
        self.reader_gone = False
        self.error = ""
        self._loop = loop
        self._pending = bytearray()
        self._waiting: list[Callable[[], None]] = []
        self._direct = self._blocking = False
        self._out = -1  # what is written to, once it is open
        if fd >= 0:
            self._open(own)

    def _open(self, own: bool) -> None:
        # epoll refuses regular files, which are always ready; a full disk shows as ENOSPC.
        self._direct = stat.S_ISREG(os.fstat(self.fd).st_mode) or not pipes.can_poll(self.fd)
        self._gone = (errno.EPIPE, errno.EIO) if os.isatty(self.fd) else (errno.EPIPE,)
        writer = None
        if own and not self._direct:
            os.set_blocking(self.fd, False)
        elif not self._direct:
            writer = pipes.own_writer(self.fd)
        self._out = self.fd if writer is None else writer
        self._blocking = not own and writer is None

    @property
    def full(self) -> bool:
        return len(self._pending) > HIGH_WATER

    @property
    def empty(self) -> bool:
        return not self._pending

    @property
    def pending(self) -> int:
        return len(self._pending)

    def write(self, data: bytes) -> None:
        if self.broken or not data:
            return
        if self._out >= 0 and not self._pending and (self._direct or not self._blocking):
            data = self._write_now(data)
            if not data:
                return
        was_empty = not self._pending
        self._pending += data
        if was_empty and self._out >= 0:
            self._loop.watch_writable(self._out, self._drain)

    def when_empty(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once everything has been written (or never can be)."""
        if self.empty or self.broken:
            callback()
        else:
            self._waiting.append(callback)

    def take(self) -> bytes:
        """What has not been written, and now never will be."""
        rest = bytes(self._pending)
        self.fail("")
        return rest

    def fail(self, error: str) -> None:
        """Give up: nothing more goes there, and nobody waits for it."""
        if not self.broken:
            self.broken = True
            self.error = error
        if self._pending:
            self._pending.clear()
            self._loop.unwatch_writable(self._out)
        self._settle()

    def close(self) -> None:
        """Give the descriptors back; whoever reads sees the end."""
        self.broken = True
        if self._out >= 0:
            self._loop.unwatch(self._out)
        for fd in {self.fd, self._out} - {-1}:
            os.close(fd)
        self.fd = self._out = -1

    def _write_now(self, data: bytes) -> bytes:
        """What is left of ``data``: of a regular file nothing."""
        done = self._try_write(data)
        while self._direct and not self.broken and done < len(data):
            data = data[done:]
            done = self._try_write(data)
        return b"" if self.broken else data[done:] if done else data

    def _drain(self) -> None:
        size = pipes.PIPE_BUF if self._blocking else len(self._pending)
        with memoryview(self._pending) as view:
            done = self._try_write(view[:size])
        del self._pending[:done]
        if self.broken:
            self._pending.clear()
        if not self._pending:
            self._loop.unwatch_writable(self._out)
            self._settle()

    def _try_write(self, data: bytes | memoryview) -> int:
        try:
            return os.write(self._out, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            self.broken = True
            self.reader_gone = error.errno in self._gone  # which is no loss: nobody wants it
            self.error = "" if self.reader_gone else error.strerror or str(error)
            return 0

    def _settle(self) -> None:
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback()


class FifoSink(Sink):
    """A FIFO that nobody reads yet: what is written waits for a reader, as a shell would."""

    def __init__(self, loop: Loop, path: str) -> None:
        super().__init__(loop, -1)
        self._news = pipes.await_fifo_writer(path)
        loop.watch(self._news, self._opened)

    def _opened(self) -> None:
        said = os.read(self._news, 16)
        self._loop.unwatch(self._news)
        os.close(self._news)
        if not said:
            self.fail("the FIFO was removed before anybody read it")
            return
        self.fd = int(said)
        if self.broken:
            self.close()
            return
        self._open(own=True)
        if self._pending:
            self._loop.watch_writable(self._out, self._drain)


class Output:
    """One task's output stream on its way to a sink.  ``listeners`` hear it too, unshaped."""

    def __init__(
        self, loop: Loop, fd: int, sink: Sink, *, prefix: bytes = b"", whole_lines: bool = True
    ) -> None:
        self._loop = loop
        self._fd = fd
        self.sink = sink
        self._shape: Shape = Lines(prefix) if whole_lines else Verbatim()
        self.open = True
        self.listeners: list[Ear] = []
        self._closed: list[Callable[[], None]] = []
        self._take = _read
        if os.isatty(fd):
            os.set_blocking(fd, False)
            self._take = _read_screen
        loop.watch(fd, self._read)

    def when_closed(self, callback: Callable[[], None]) -> None:
        if self.open:
            self._closed.append(callback)
        else:
            callback()

    def _read(self) -> None:
        data = self._take(self._fd)
        if data is None:
            return
        if not data or self.sink.reader_gone:
            self.close()  # with its reader gone the task gets SIGPIPE, as without us
            return
        self.sink.write(self._shape.feed(data))
        for listener in self.listeners:
            listener.feed(data)
        if self.sink.full:
            self._loop.unwatch(self._fd)
            self.sink.when_empty(self._resume)

    def _resume(self) -> None:
        if self.open:
            self._loop.watch(self._fd, self._read)

    def close(self) -> None:
        """End of the stream: what is left of a last line goes out as it is."""
        if not self.open:
            return
        self.open = False
        self._loop.unwatch(self._fd)
        os.close(self._fd)
        self.sink.write(self._shape.end())
        for listener in self.listeners:
            listener.end()
        for callback in self._closed:
            callback()


class Source:
    """What somebody types or sends, copied to the tasks' standard input; the slowest sets the pace.

    ``ended`` is called at the end of what is sent, not when the tasks are through.
    """

    def __init__(
        self, loop: Loop, fd: int, sinks: list[Sink], ended: Callable[[], None] = lambda: None
    ) -> None:
        self._loop = loop
        self._fd = fd
        self._ended = ended
        self.sinks = sinks
        self.open = True
        self._regular = stat.S_ISREG(os.fstat(fd).st_mode) or not pipes.can_poll(fd)
        self._read_on()

    def _read_on(self) -> None:
        if self._regular:
            self._loop.call_later(0, self._read)
        else:
            self._loop.watch(self._fd, self._read)

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
        for sink in self.sinks:
            sink.write(data)
        if all(sink.broken for sink in self.sinks):
            self.close()
        elif any(sink.full for sink in self.sinks):
            self._loop.unwatch(self._fd)
            self._resume()
        elif self._regular:
            self._read_on()

    def _resume(self) -> None:
        """Read on when no task's share is too large any more."""
        if not self.open:
            return
        full = next((sink for sink in self.sinks if sink.full), None)
        if full is None:
            self._read_on()
        else:
            full.when_empty(self._resume)

    def close(self) -> None:
        """Read no more."""
        if not self.open:
            return
        self.open = False
        self._loop.unwatch(self._fd)
        os.close(self._fd)


class Input(Source):
    """The user's standard input, for every task that wants it; its end is their end of file."""

    def __init__(
        self, loop: Loop, fd: int, tasks: list[int], ended: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(loop, fd, [Sink(loop, task, own=True) for task in tasks], ended)

    def close(self) -> None:
        """End of input: each task sees it once it has taken what was sent before."""
        if not self.open:
            return
        super().close()
        for sink in self.sinks:
            sink.when_empty(sink.close)


def open_output(path: str, *, append: bool) -> int | None:
    """Open a file that the user named for output; None for a FIFO that nobody reads yet.

    Raises OSError.
    """
    try:
        if stat.S_ISFIFO(os.stat(path).st_mode):
            return pipes.open_fifo_writer(path)
    except FileNotFoundError:
        pass  # it is made now
    mode = os.O_APPEND if append else os.O_TRUNC
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | mode, 0o666)


def open_input(path: str) -> int:
    """Open a file that the user named for input; a FIFO's writer is not waited for, and the
    descriptor is then non-blocking.  Raises OSError."""
    fifo = stat.S_ISFIFO(os.stat(path).st_mode)
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | (os.O_NONBLOCK if fifo else 0))
