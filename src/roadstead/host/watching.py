"""Signals that mean something: which there are, who has been sent them, how one ends by them."""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # no enums: 4 ms
import os
from typing import Final

from roadstead.host import process

WINCH: Final = int(signal.SIGWINCH)
# What the kernel sends for what a process did itself is no message.
_OWN_FAULTS: Final = frozenset((signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL))
# Signals by which somebody may mean a program.
MESSAGES: Final[list[int]] = [
    *sorted(int(signo) for signo in process.ENDING - _OWN_FAULTS),
    int(signal.SIGCONT),
    *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
]


def ignore(signals: list[int]) -> None:
    """Let each of ``signals`` come, those that were blocked too, and do nothing: programs that are
    executed from here get them again."""
    for signo in signals:
        signal.signal(signo, _noted)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)


def pending(pid: int) -> frozenset[int]:
    """The signals that wait to be taken by ``pid`` (proc(5), SigPnd and ShdPnd)."""
    bits = 0
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name in ("SigPnd", "ShdPnd"):
                    bits |= int(value, 16)
    except (FileNotFoundError, ProcessLookupError):
        return frozenset()
    return frozenset([signo for signo in range(1, 65) if bits >> (signo - 1) & 1])


def die_by(signo: int) -> None:
    """End this process by a signal, without a core: that is the task's, not ours."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if signo not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(signo, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signo])
    os.kill(os.getpid(), signo)


def _noted(signo: int, frame: object) -> None:
    """That is all."""
