"""Bringing an image's layers into the store: as many at a time as there are CPUs.

Each layer has a process of its own: Python's threads share one lock, and making files is mostly
Python.  The largest is begun first, so that it is not the one that is waited for at the end.  A
process that brings a layer dies with the one that wants it, and what it had made goes with the next
import (store.py).
"""

from __future__ import annotations

import json
import os
import select
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from roadstead.errors import ImageError
from roadstead.host import fork, linux, process
from roadstead.images import inventory
from roadstead.images.model import Layer
from roadstead.images.store import Store
from roadstead.images.streams import Blob
from roadstead.images.unpack import unpack

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Source:
    """A layer that can be fetched: its diff_id, the digest and size of the blob ("" and -1: not
    known), and how to open it.  ``open`` gives a descriptor that is ours from then on; ``close`` is
    called with whether the layer was read to its end, and may raise ImageError."""

    diff_id: str
    digest: str
    size: int
    open: Callable[[], int]
    close: Callable[[bool], None] = lambda read: None

    @property
    def what(self) -> str:
        return f"layer {(self.digest or self.diff_id)[7:19]}"


class _Worker:
    """A process that unpacks one layer, and the pipe on which it tells how it goes."""

    def __init__(self, source: Source, store: Store) -> None:
        self.source = source
        self.ended = False
        self.was_there = False
        self._line = b""
        fd = source.open()
        self.pipe, told = os.pipe2(os.O_CLOEXEC)
        try:
            self.pid = fork.run_in_child(lambda: _bring(source, store, fd, told))
        finally:
            os.close(told)
            os.close(fd)

    def told(self) -> int:
        """Bytes read since the last time.  Raises ImageError if it failed."""
        data = os.read(self.pipe, 65536)
        if not data:
            self._end()
            return 0
        *lines, self._line = (self._line + data).split(b"\n")
        done = 0
        for line in lines:
            if line.startswith(b"{"):
                answer = json.loads(line)
                if "sentence" in answer:
                    raise ImageError(answer["sentence"], hint=answer["hint"])
                self.was_there = answer["was_there"]
            else:
                done += int(line)
        return done

    def _end(self) -> None:
        os.close(self.pipe)
        self.ended = True
        _, status = os.waitpid(self.pid, 0)
        if status:
            raise ImageError(
                f"{self.source.what}: the process that unpacks it has ended with status "
                f"{os.waitstatus_to_exitcode(status)}",
                hint="try again",
            )

    def stop(self) -> None:
        if not self.ended:
            process.send(self.pid, process.TERM)
            os.close(self.pipe)
            os.waitpid(self.pid, 0)
            self.ended = True


def bring(sources: Sequence[Source], store: Store, tell: Tell) -> None:
    """Have all these layers in the store.  Raises ImageError."""
    missing = {each.diff_id: each for each in sources if not store.has_layer(each.diff_id)}
    pending = sorted(missing.values(), key=lambda each: each.size)
    total, done = sum(max(0, each.size) for each in pending), 0
    store.prepare()
    store.sweep()
    poll = select.poll()
    running: dict[int, _Worker] = {}
    try:
        while pending or running:
            while pending and len(running) < len(os.sched_getaffinity(0)):
                worker = _Worker(pending.pop(), store)
                running[worker.pipe] = worker
                poll.register(worker.pipe, select.POLLIN)
            for fd, _ in poll.poll():
                worker = running[fd]
                done += worker.told()
                tell("unpacking", done, max(total, done))
                if worker.ended:
                    poll.unregister(fd)
                    del running[fd]
                    worker.source.close(not worker.was_there)
    finally:
        for worker in running.values():
            worker.stop()


def _bring(source: Source, store: Store, fd: int, told: int) -> None:
    """In a process of its own: unpack one layer, and tell of it."""
    linux.set_parent_death_signal(process.KILL)
    was_there = True

    def tell(count: int) -> None:
        os.write(told, b"%d\n" % count)

    def fill(directory: str) -> Layer:
        nonlocal was_there
        was_there = False
        blob = Blob(
            fd,
            source.what,
            size=source.size,
            digest=source.digest,
            diff_id=source.diff_id,
            tell=tell,
        )
        return unpack(
            blob,
            directory,
            source.diff_id,
            readable=store.shared,
            listed=f"{os.path.dirname(directory)}/{inventory.NAME}",
        )

    try:
        store.ensure_layer(source.diff_id, fill)
        answer: dict[str, object] = {"was_there": was_there}
    except ImageError as error:
        answer = {"sentence": str(error), "hint": error.hint}
    except KeyboardInterrupt:
        os._exit(1)
    os.write(told, json.dumps(answer).encode() + b"\n")
