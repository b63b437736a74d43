"""What containers print: as it comes where the pod has one, else line by line with its name.

The containers of a pod write to pipes that end here; whole lines go on, ``NAME: `` before each, as
srun --label does with the numbers of tasks.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from roadstead.host.loop import Loop
from roadstead.step.lines import Lines

_CHUNK: Final = 65536


class Output:
    """The output of a pod.  ``labelled`` False: containers have our own descriptors; ``prefix``
    comes before a container's name."""

    def __init__(self, loop: Loop, *, labelled: bool, prefix: str = "") -> None:
        self._prefix = prefix
        self._loop = loop
        self._labelled = labelled
        self._pipes: dict[int, tuple[int, Lines]] = {}
        self._drained: list[Callable[[], None]] = []
        self._null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def connect(self, name: str, *, stdin: bool) -> tuple[int, int, int]:
        """Descriptors for a container's 0, 1 and 2; ``release`` them once it has them."""
        given = 0 if stdin else self._null
        if not self._labelled:
            return given, 1, 2
        return given, self._pipe(name, 1), self._pipe(name, 2)

    def label(self, name: str) -> str:
        """What is before each line of a container's, "" where it has our own descriptors."""
        return f"{self._prefix}{name}: " if self._labelled else ""

    def release(self, stdio: tuple[int, int, int]) -> None:
        """The container has them: ours are not needed."""
        for fd in stdio[1:]:
            if fd > 2:
                os.close(fd)

    def _pipe(self, name: str, target: int) -> int:
        read, write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(read, False)
        self._pipes[read] = target, Lines(self.label(name).encode())
        self._loop.watch(read, lambda: self._carry(read))
        return write

    def _carry(self, read: int) -> None:
        target, lines = self._pipes[read]
        try:
            data = os.read(read, _CHUNK)
        except BlockingIOError:
            return
        write(target, lines.feed(data) if data else lines.end())
        if not data:
            self._loop.unwatch(read)
            os.close(read)
            del self._pipes[read]
            self._tell()

    def when_drained(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once all that was printed has been passed on."""
        self._drained.append(callback)
        self._tell()

    def _tell(self) -> None:
        if not self._pipes:
            waiting, self._drained = self._drained, []
            for each in waiting:
                self._loop.call_later(0, each)


def write(fd: int, data: bytes) -> None:
    """Write all of it; to a reader that has gone, nothing."""
    while data:
        try:
            data = data[os.write(fd, data) :]
        except (BrokenPipeError, BlockingIOError):
            return


def say(sentence: str) -> None:
    """Tell the user something of the pod, on standard error."""
    write(2, f"{sentence}\n".encode(errors="surrogateescape"))
