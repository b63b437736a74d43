"""Connecting the tasks of a step with what the user asked for: files, the user's own descriptors,
or relays between them (stdio.py).

``Streams`` is made once for a step, gives each task its three descriptors, and at the end waits
until everything that the tasks wrote has gone where it was to go.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING

from roadstead.core import filenames
from roadstead.core.model import BATCH_STEP, INTERACTIVE_STEP
from roadstead.core.printable import printable
from roadstead.errors import LaunchError, RequestError
from roadstead.host import pipes, terminal
from roadstead.host.console import ConsoleSocket
from roadstead.step.stdio import CHUNK, FifoSink, Input, Output, Sink, open_input, open_output

if TYPE_CHECKING:
    from roadstead.core.model import StepSpec
    from roadstead.host.loop import Loop
    from roadstead.step.attached import Reader

# A user's pipes may hold 64 MiB together before new ones get small (pipe(7)): a few may be wide.
_FEW = 8
# What the user has given us, where a task has it for itself and nobody can listen.
_KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


class Streams:
    """All the descriptors of a step's tasks; ``hung_up``: the user's terminal has gone."""

    def __init__(
        self, loop: Loop, spec: StepSpec, user_fds: list[int], hung_up: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._hung_up = hung_up
        self._spec = spec
        self._user = user_fds
        self._sinks: dict[tuple[str, int], Sink] = {}
        self._outputs: dict[tuple[int, int], Output] = {}  # by stream and task
        self._files: dict[tuple[int, int], str] = {}  # what tasks write to by themselves
        self._beyond: dict[int, str] = {}  # streams that nobody but the task has, and what they are
        self._inputs: dict[int, int] = {}  # by task, the writing ends
        self._feeds: dict[str, list[int]] = {}  # the same of tasks that read from a FIFO
        self._input: Input | None = None
        self._feeding: list[Input] = []
        self._master = -1
        self._typed = -1  # the user's keyboard, until there is a terminal to type into
        self._console: ConsoleSocket | None = None
        self.terminal = ""
        self._opened: list[int] = []
        self._begun = False  # whether the output files have been opened

    # -- names --------------------------------------------------------------------------------

    def _only(self, pattern: str) -> int | None:
        """The task that a number stands for.  It is a file's name where there is no such task, and
        always in a batch script (seen on Slurm 22.05)."""
        if self._spec.step_id == BATCH_STEP or not (pattern.isascii() and pattern.isdigit()):
            return None
        if len(pattern) > 9:  # more tasks than there can be; int() refuses thousands of digits
            return None
        return int(pattern) if int(pattern) < self._spec.ntasks else None

    def _file(self, pattern: str, procid: int, node: str = "", node_id: int = 0) -> str:
        """The path that a filename pattern means for a task; "" for the user's own descriptor."""
        spec = self._spec
        if not pattern or self._only(pattern) is not None:
            return ""
        special = {BATCH_STEP: "batch", INTERACTIVE_STEP: "interactive"}
        name = filenames.expand(
            pattern,
            filenames.Names(
                job_id=spec.job_id,
                step_id=special.get(spec.step_id, str(spec.step_id)),
                task_id=procid,
                node=node or spec.node,
                node_id=node_id,
                user=spec.user,
                job_name=spec.env.get("SLURM_JOB_NAME", spec.name),
                array_job_id=_number(spec.env.get("SLURM_ARRAY_JOB_ID")),
                array_task_id=_number(spec.env.get("SLURM_ARRAY_TASK_ID")),
            ),
        )
        return os.path.join(spec.cwd, name)

    def missing_directory(self) -> str:
        """A directory that the output of the first task needs and that is not there; or ""."""
        paths = [self._file(each, 0) for each in (self._spec.stdio.output, self._spec.stdio.error)]
        folders = [os.path.dirname(path) for path in paths if path]
        return next((folder for folder in folders if not os.path.exists(folder)), "")

    # -- tasks --------------------------------------------------------------------------------

    def for_task(
        self, procid: int, node: str = "", node_id: int = 0, console: str = ""
    ) -> tuple[int, int, int]:
        """Descriptors 0, 1 and 2 for a task.  Raises LaunchError for a file that cannot be opened.

        ``console`` is the socket to which its container's terminal is sent, if it is.
        They are closed by ``started`` once the task has them.
        """
        self._begun = True
        if self._spec.terminal is not None and procid == 0 and self._user:
            return self._open_terminal(console)
        stdio = self._spec.stdio
        path = self._file(stdio.output, procid, node, node_id)
        out = self._output(1, stdio.output, path, procid)
        same = not stdio.error and stdio.output
        if not same:
            errors = self._file(stdio.error, procid, node, node_id)
            err = self._output(2, stdio.error, errors, procid)
        elif stdio.unbuffered and (1, procid) in self._outputs:
            err = self._relay((path, 0 if path else 1), path, 2, procid)  # no terminal, as in Slurm
        else:
            err = self._keep(os.dup(out))
        read = self._input_for(procid, self._file(stdio.input, procid, node, node_id))
        return read, out, err

    def started(self) -> None:
        """The tasks have been started: our copies of their ends go."""
        for fd in self._opened:
            os.close(fd)
        self._opened.clear()
        if self._inputs:
            self._input = Input(self._loop, os.dup(self._user[0]), list(self._inputs.values()))
        for path, tasks in self._feeds.items():
            self._feeding.append(Input(self._loop, open_input(path), tasks))
        self._close_unused()

    def _close_unused(self) -> None:
        """The user's descriptors that no relay needs: a pipe's other end must see our end close."""
        wanted = {sink.fd for sink in self._sinks.values()}
        for fd in self._user:
            if fd not in wanted:
                os.close(fd)
        self._user = []

    def _input_for(self, procid: int, path: str) -> int:
        wanted = self._spec.stdio.input
        if wanted == "none" or (not wanted and not self._user):
            return self._keep(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        if path:
            return self._input_file(path)
        only = self._only(wanted)
        if only not in (None, procid):
            return self._keep(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        if self._spec.ntasks == 1 or not self._user:
            return self._user[0] if self._user else self._keep(os.open(os.devnull, os.O_RDONLY))
        read, self._inputs[procid] = self._pipe()
        return read

    def _input_file(self, path: str) -> int:
        """A file is each task's own.  A FIFO is relayed: its writer may come later, and every task
        is to get all of it."""
        try:
            fd = open_input(path)
        except OSError as error:
            raise LaunchError(f"cannot open --input={path}: {error.strerror}") from None
        if os.get_blocking(fd):
            return self._keep(fd)
        os.close(fd)
        read, write = self._pipe()
        self._feeds.setdefault(path, []).append(write)
        return read

    def _pipe(self) -> tuple[int, int]:
        """A pipe to or from a task: (the task's reading end, our writing end)."""
        read, write = os.pipe2(os.O_CLOEXEC)
        if self._spec.ntasks <= _FEW:
            pipes.widen(write, CHUNK)
        return self._keep(read), write

    def _output(self, stream: int, pattern: str, path: str, procid: int) -> int:
        stdio = self._spec.stdio
        only = self._only(pattern)
        if pattern == "none" or path == os.devnull or only not in (None, procid):
            return self._keep(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC))
        if not path and not self._user:  # of an srun that was killed before we got them
            return self._keep(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC))
        shared = self._spec.ntasks > 1 and not filenames.unique(pattern)
        relayed = shared or stdio.label or (stdio.unbuffered and stream == 1)
        if path and not relayed:
            fd = self._open_file(path)
            if fd is not None:
                self._files[stream, procid] = path
                return self._keep(fd)
        elif not relayed and not os.isatty(self._user[stream]):
            self._note_beyond(stream, self._user[stream])
            return self._user[stream]
        return self._relay((path, 0 if path else stream), path, stream, procid)

    def _note_beyond(self, stream: int, fd: int) -> None:
        """What the lone task gets of the user's, for those who attach."""
        mode = os.fstat(fd).st_mode
        if stat.S_ISREG(mode):
            self._files[stream, 0] = os.readlink(f"/proc/self/fd/{fd}")
        elif stat.S_IFMT(mode) in _KINDS:
            self._beyond[stream] = _KINDS[stat.S_IFMT(mode)]

    def _open_file(self, path: str) -> int | None:
        try:
            return open_output(path, append=self._spec.stdio.append)
        except OSError as error:
            raise LaunchError(f"cannot open {path} for output: {error.strerror}") from None

    def _relay(self, key: tuple[str, int], path: str, stream: int, procid: int) -> int:
        sink = self._sinks.get(key)
        if sink is None:
            fd = self._open_file(path) if path else self._user[stream]
            sink = FifoSink(self._loop, path) if fd is None else Sink(self._loop, fd)
            self._sinks[key] = sink
        stdio = self._spec.stdio
        if stdio.unbuffered and stream == 1:
            # What srun(1) means by it: on a terminal a program's stdio does not buffer.
            read, write = terminal.open_raw()
        else:
            read, write = os.pipe2(os.O_CLOEXEC)
            if self._spec.ntasks <= _FEW:
                pipes.widen(write, CHUNK)
        prefix = f"{procid:>{self._digits}}: ".encode() if stdio.label else b""
        whole = stdio.label or self._whole_lines
        output = Output(self._loop, read, sink, prefix=prefix, whole_lines=whole)
        self._outputs[stream, procid] = output
        return self._keep(write)

    @property
    def _digits(self) -> int:
        return len(str(self._spec.ntasks - 1))

    @property
    def _whole_lines(self) -> bool:
        return self._spec.ntasks > 1 and not self._spec.stdio.unbuffered

    def _keep(self, fd: int) -> int:
        self._opened.append(fd)
        return fd

    # -- the pty ------------------------------------------------------------------------------

    def _open_terminal(self, console: str) -> tuple[int, int, int]:
        """A pty of ours for the task.  With ``console``, it is the runtime's alone, and what its
        container has comes through the socket of that name."""
        size = self._spec.terminal
        assert size is not None
        self._master, slave, self.terminal = terminal.open_pty(size.rows, size.columns)
        self._opened.append(slave)
        sink = self._sinks[("", 1)] = Sink(self._loop, self._user[1])
        screen = Output(self._loop, os.dup(self._master), sink, whole_lines=False)
        self._outputs[1, 0] = screen
        self._typed = os.dup(self._user[0])
        if console:
            self._console = ConsoleSocket(self._loop, console, self._take_console)
        else:
            self._type_into(self._master)
        return slave, slave, slave

    def _take_console(self, master: int) -> None:
        """The container's own terminal has come: it is the one that is on the user's screen."""
        first = self._outputs[1, 0]
        self._outputs[2, 0] = first  # whatever the runtime itself may say
        self._outputs[1, 0] = Output(self._loop, os.dup(master), first.sink, whole_lines=False)
        first.listeners, self._outputs[1, 0].listeners = [], first.listeners
        os.close(self._master)
        self._master = master
        self._type_into(master)

    def _type_into(self, master: int) -> None:
        typed, self._typed = self._typed, -1
        self._input = Input(self._loop, typed, [os.dup(master)], self._hung_up)

    def resize(self, rows: int, columns: int) -> None:
        if self._master >= 0:
            terminal.resize(self._master, rows, columns)

    def say(self, sentence: str) -> None:
        """Tell whoever reads the output of a step that nobody attends: a line in its error file."""
        stdio = self._spec.stdio
        path = self._file(stdio.error or stdio.output, 0)
        if not path:
            return
        fresh = not self._begun and not stdio.append
        try:
            fd = open_output(path, append=not fresh)
        except OSError:
            return  # that it cannot be opened is what is to be said; the record has it
        if fd is None:
            return  # a FIFO that nobody reads
        self._begun = True
        with open(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(f"{printable(sentence)}\n")

    # -- those who attach -----------------------------------------------------------------------

    def attach(self, reader: Reader, *, types: bool) -> list[str]:
        """Let an attached reader hear the tasks, and send them input if it ``types`` any.

        Returns what it cannot have, a sentence each.  Raises RequestError where it would hear
        nothing at all.
        """
        lost = []
        heard = False
        for (stream, procid), output in self._outputs.items():
            if reader.wants(stream, procid) and output.open:
                whole = self._whole_lines and self._spec.terminal is None
                output.listeners.append(reader.ear(stream, procid, whole_lines=whole))
                heard = True
        followed = set()
        for (stream, procid), path in self._files.items():
            if reader.wants(stream, procid) and (procid, path) not in followed:
                followed.add((procid, path))  # once, where both streams go there
                try:
                    reader.follow(stream, procid, path, whole_lines=self._whole_lines)
                    heard = True
                except OSError as error:
                    lost.append(f"{path} cannot be followed: {error.strerror}")
        names = {1: "standard output", 2: "standard error"}
        lost += [
            f"{names[stream]} of the task goes directly to {kind} that srun was given"
            for stream, kind in self._beyond.items()
            if reader.wants(stream, 0)
        ]
        if lost and not heard:
            raise RequestError(
                lost[0], hint="start the step with srun --label or --unbuffered to attach to it"
            )
        if types:
            sinks = self._typing_sinks(reader)
            if sinks:
                reader.send_to(sinks)
            else:
                lost.append("the tasks' standard input is not relayed, nothing can be sent to it")
        return lost

    def _typing_sinks(self, reader: Reader) -> list[Sink]:
        if self._input is None or not self._input.open:
            return []
        tasks = list(self._inputs) or [0]  # a pty is task 0's
        pairs = zip(tasks, self._input.sinks, strict=True)
        return [sink for procid, sink in pairs if reader.wants(0, procid)]

    def detach(self, reader: Reader) -> None:
        """The reader has gone."""
        for output in self._outputs.values():
            output.listeners = [each for each in output.listeners if each.reader is not reader]

    # -- the end ------------------------------------------------------------------------------

    def finish(self, done: Callable[[str], None]) -> None:
        """Call ``done`` when all output is where it belongs, with the first error or ""."""
        if self._console is not None:
            self._console.finish()
        for source in [*self._feeding, *([self._input] if self._input else [])]:
            source.close()
        waiting = len(self._outputs) + 1

        def one_less() -> None:
            nonlocal waiting
            waiting -= 1
            if waiting == 0:
                done(next((sink.error for sink in self._sinks.values() if sink.error), ""))

        for output in list(self._outputs.values()):
            output.when_closed(lambda sink=output.sink: sink.when_empty(one_less))  # type: ignore[misc]
        one_less()

    def abandon(self) -> None:
        """Wait no longer for those who do not take the output."""
        for sink in self._sinks.values():
            if not sink.empty:
                sink.fail("nobody reads it")

    def close(self) -> None:
        """All has been written: give back what was the user's, and what we opened."""
        for sink in self._sinks.values():
            sink.close()
        if self._master >= 0:
            os.close(self._master)
            self._master = -1
        if self._typed >= 0:
            os.close(self._typed)
            self._typed = -1
