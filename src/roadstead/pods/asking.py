"""Probes and hooks: what is asked of a container, or done to it, from outside.

A question is a process: a command that the runtime executes in the container, or a child of ours
that connects, which is in the pod's network as we are.  So each has an end that can be waited for
and a time limit, and no question holds up another.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from roadstead.errors import RoadsteadError
from roadstead.host import fork, network, process
from roadstead.pods.model import Handler, Probe
from roadstead.step.life import Life, Until

if TYPE_CHECKING:
    from roadstead.host.loop import Loop, Timer
    from roadstead.pods.unit import Unit
    from roadstead.step.life import Lives

_LOCAL: Final = "127.0.0.1"
_SAID: Final = 200  # bytes of an answer that are told


def ask(unit: Unit, handler: Handler, seconds: float) -> Life[str]:
    """Do it once; "" where it has succeeded, or why it has not."""
    memory = os.memfd_create("roadstead-probe", os.MFD_CLOEXEC)
    try:
        child = _start(unit, handler, seconds, memory)
        status = yield Until(child, seconds)
        if status is None:
            for pid in process.descendants(child.pid):
                process.send(pid, process.KILL)
            child.signal(process.KILL)
            yield Until(child)
            return f"no answer in {seconds:g} s"
        if status == 0:
            return ""
        said = os.pread(memory, _SAID, 0).decode(errors="replace").strip()
        return said or f"exit code {status if status >= 0 else 128 - status}"
    except OSError as error:
        return error.strerror or str(error)
    finally:
        os.close(memory)


def _start(unit: Unit, handler: Handler, seconds: float, memory: int) -> process.Child:
    if handler.kind == "exec":
        return unit.execute(handler.command, memory)
    port, host = int(handler.port or 0), handler.host or _LOCAL

    def body() -> None:
        os.dup2(memory, 1)
        why = ""
        if handler.kind == "tcp":
            why = network.accepts(host, port, seconds)
        elif handler.kind == "http":
            headers = [(each.name, each.value) for each in handler.headers]
            why = network.answers(handler.scheme, host, port, handler.path, headers, seconds)
        os.write(1, why.encode(errors="replace"))
        os._exit(1 if why else 0)

    return process.adopt(fork.run_in_child(body))


class Prober:
    """Asks one probe's question of one run of a container, from its start to its end.

    ``changed`` is called with whether the probe now counts as succeeded, and why not, whenever that
    changes; a liveness or startup probe that has failed calls it once, and is over.
    """

    def __init__(
        self,
        loop: Loop,
        lives: Lives,
        unit: Unit,
        probe: Probe,
        changed: Callable[[bool, str], None],
    ) -> None:
        self._loop, self._lives, self._unit, self._probe = loop, lives, unit, probe
        self._changed = changed
        self._good = self._bad = 0
        self._stopped = False
        self._state: bool | None = None
        self._timer: Timer = loop.call_later(probe.delay, self._ask)

    def stop(self) -> None:
        """Ask no more."""
        self._stopped = True
        self._timer.cancel()

    def _ask(self) -> None:
        life = ask(self._unit, self._probe.handler, self._probe.timeout)
        self._lives.start(life, self._answered, self._failed)

    def _failed(self, error: RoadsteadError) -> None:
        self._answered(str(error))

    def _answered(self, why: str) -> None:
        if self._stopped:
            return
        self._good, self._bad = (0, self._bad + 1) if why else (self._good + 1, 0)
        self._timer = self._loop.call_later(self._probe.period, self._ask)
        if self._good >= self._probe.successes and self._state is not True:
            self._state = True
            self._changed(True, "")
        elif self._bad >= self._probe.failures and self._state is not False:
            self._state = False
            self._changed(False, why)
