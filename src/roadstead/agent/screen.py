"""slurmstepd's terminal (srun --pty), joined to that of the container.

The runtime hands the container's over (host/console.py), as it does to the local engine's
supervisor: a runtime that stands between the two and copies may lose what was said last.
"""

from __future__ import annotations

import os
import termios
import tty
from collections.abc import Callable
from typing import Final

from roadstead.host import terminal
from roadstead.host.console import ConsoleSocket
from roadstead.host.loop import Loop
from roadstead.step.stdio import Input, Output, Sink

# For what a program has written to come through the kernel, and for a process that has outlived it
# to let go of the terminal.
_DRAIN_SECONDS: Final = 2.0


class Screen:
    """Standard input and output of this process, for the terminal that comes to ``path``.

    Raises OSError.
    """

    def __init__(self, loop: Loop, path: str) -> None:
        self._loop = loop
        self._master = -1
        self._output: Output | None = None
        self._input: Input | None = None
        self._console = ConsoleSocket(loop, path, self._join)

    def _join(self, master: int) -> None:
        self._master = master
        self._modes = termios.tcgetattr(0)
        tty.setraw(0)  # the container's terminal does what one does: echo, ^C, newlines
        self.resize()
        sink = Sink(self._loop, os.dup(1))
        self._output = Output(self._loop, os.dup(master), sink, whole_lines=False)
        self._input = Input(self._loop, os.dup(0), [os.dup(master)])

    def resize(self) -> None:
        """Ours has another size: the container's has it too."""
        if self._master >= 0:
            terminal.resize(self._master, *terminal.size(0))

    def finish(self, done: Callable[[], None]) -> None:
        """The program has ended: call ``done`` when all that it said has been passed on."""
        self._console.finish()
        if self._input is not None:
            self._input.close()
        output = self._output
        if output is None:
            done()
            return

        def passed_on() -> None:
            termios.tcsetattr(0, termios.TCSADRAIN, self._modes)
            done()

        output.when_closed(lambda: output.sink.when_empty(passed_on))
        self._loop.call_later(_DRAIN_SECONDS, output.close)
