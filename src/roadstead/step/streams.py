"""Connecting the tasks of a step with what the user asked for: files, the user's own descriptors,
or relays between them (stdio.py).

``Streams`` is made once for a step, gives each task its three descriptors, and at the end waits
until everything that the tasks wrote has gone where it was to go.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from roadstead.core import filenames
from roadstead.core.model import BATCH_STEP, INTERACTIVE_STEP
from roadstead.core.printable import printable
from roadstead.errors import LaunchError
from roadstead.host import terminal
from roadstead.step.stdio import Input, Output, Sink, open_input, open_output

if TYPE_CHECKING:
    from roadstead.core.model import StepSpec
    from roadstead.host.loop import Loop


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
        self._outputs: list[Output] = []
        self._inputs: list[int] = []
        self._input: Input | None = None
        self._master = -1
        self.terminal = ""
        self._opened: list[int] = []
        self._begun = False  # whether the output files have been opened

    # -- names --------------------------------------------------------------------------------

    def _file(self, pattern: str, procid: int) -> str:
        """The path that a filename pattern means for a task; "" for the user's own descriptor."""
        spec = self._spec
        if not pattern or pattern.isdigit():
            return ""
        special = {BATCH_STEP: "batch", INTERACTIVE_STEP: "interactive"}
        name = filenames.expand(
            pattern,
            filenames.Names(
                job_id=spec.job_id,
                step_id=special.get(spec.step_id, str(spec.step_id)),
                task_id=procid,
                node=spec.node,
                node_id=0,
                user=spec.user,
                job_name=spec.env.get("SLURM_JOB_NAME", spec.name),
            ),
        )
        return os.path.join(spec.cwd, name)

    # -- tasks --------------------------------------------------------------------------------

    def for_task(self, procid: int) -> tuple[int, int, int]:
        """Descriptors 0, 1 and 2 for a task.  Raises LaunchError for a file that cannot be opened.

        They are closed by ``started`` once the task has them.
        """
        self._begun = True
        if self._spec.terminal is not None and procid == 0 and self._user:
            return self._open_terminal()
        out = self._output(1, self._spec.stdio.output, procid)
        same = not self._spec.stdio.error and self._spec.stdio.output
        err = os.dup(out) if same else self._output(2, self._spec.stdio.error, procid)
        if same:
            self._opened.append(err)
        return self._input_for(procid), out, err

    def started(self) -> None:
        """The tasks have been started: our copies of their ends go."""
        for fd in self._opened:
            os.close(fd)
        self._opened.clear()
        if self._inputs:
            self._input = Input(self._loop, os.dup(self._user[0]), self._inputs)
        self._close_unused()

    def _close_unused(self) -> None:
        """The user's descriptors that no relay needs: a pipe's other end must see our end close."""
        wanted = {sink.fd for sink in self._sinks.values()}
        for fd in self._user:
            if fd not in wanted:
                os.close(fd)
        self._user = []

    def _input_for(self, procid: int) -> int:
        wanted = self._spec.stdio.input
        if wanted == "none" or (not wanted and not self._user):
            return self._keep(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        if wanted and not wanted.isdigit() and wanted != "all":
            path = self._file(wanted, procid)
            try:
                return self._keep(open_input(path))
            except OSError as error:
                raise LaunchError(f"cannot open --input={path}: {error.strerror}") from None
        if wanted.isdigit() and int(wanted) != procid:
            return self._keep(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        if self._spec.ntasks == 1 or not self._user:
            return self._user[0] if self._user else self._keep(os.open(os.devnull, os.O_RDONLY))
        read, write = os.pipe2(os.O_CLOEXEC)
        self._inputs.append(write)
        return self._keep(read)

    def _output(self, stream: int, pattern: str, procid: int) -> int:
        stdio = self._spec.stdio
        if (pattern.isdigit() and int(pattern) != procid) or pattern == "none":
            return self._keep(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC))
        path = self._file(pattern, procid)
        if not path and not self._user:  # of an srun that was killed before we got them
            return self._keep(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC))
        shared = self._spec.ntasks > 1 and not filenames.per_task(pattern)
        if path and not shared and not stdio.label:
            return self._keep(self._open_file(path))
        if not path and not shared and not stdio.label and not os.isatty(self._user[stream]):
            return self._user[stream]
        return self._relay((path, 0 if path else stream), path, stream, procid)

    def _open_file(self, path: str) -> int:
        try:
            return open_output(path, append=self._spec.stdio.append)
        except OSError as error:
            raise LaunchError(f"cannot open {path} for output: {error.strerror}") from None

    def _relay(self, key: tuple[str, int], path: str, stream: int, procid: int) -> int:
        sink = self._sinks.get(key)
        if sink is None:
            fd = self._open_file(path) if path else self._user[stream]
            sink = self._sinks[key] = Sink(self._loop, fd)
        read, write = os.pipe2(os.O_CLOEXEC)
        stdio = self._spec.stdio
        digits = len(str(self._spec.ntasks - 1))
        prefix = f"{procid:>{digits}}: ".encode() if stdio.label else b""
        whole = stdio.label or (self._spec.ntasks > 1 and not stdio.unbuffered)
        self._outputs.append(Output(self._loop, read, sink, prefix=prefix, whole_lines=whole))
        return self._keep(write)

    def _keep(self, fd: int) -> int:
        self._opened.append(fd)
        return fd

    # -- the pty ------------------------------------------------------------------------------

    def _open_terminal(self) -> tuple[int, int, int]:
        size = self._spec.terminal
        assert size is not None
        self._master, slave, self.terminal = terminal.open_pty(size.rows, size.columns)
        self._opened.append(slave)
        sink = self._sinks[("", 1)] = Sink(self._loop, self._user[1])
        screen = Output(self._loop, os.dup(self._master), sink, whole_lines=False)
        self._outputs.append(screen)
        typed, keys = os.dup(self._user[0]), os.dup(self._master)
        self._input = Input(self._loop, typed, [keys], self._hung_up)
        return slave, slave, slave

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
        self._begun = True
        with open(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(f"{printable(sentence)}\n")

    # -- the end ------------------------------------------------------------------------------

    def finish(self, done: Callable[[str], None]) -> None:
        """Call ``done`` when all output is where it belongs, with the first error or ""."""
        if self._input is not None:
            self._input.close()
        waiting = len(self._outputs) + 1

        def one_less() -> None:
            nonlocal waiting
            waiting -= 1
            if waiting == 0:
                done(next((sink.error for sink in self._sinks.values() if sink.error), ""))

        for output in self._outputs:
            output.when_closed(lambda sink=output.sink: sink.when_empty(one_less))  # type: ignore[misc]
        one_less()
