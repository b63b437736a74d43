"""A process that watches another: what it holds, and which signals it sees."""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # no enums: 4 ms
import os
from typing import Final

from roadstead.host import process

_MOST: Final = 1 << 16
WINCH: Final = int(signal.SIGWINCH)
# What the kernel sends for what a process did itself is no message.
_OWN_FAULTS: Final = frozenset((signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL))
# Signals by which somebody may mean a program.
MESSAGES: Final[list[int]] = [
    *sorted(int(signo) for signo in process.ENDING - _OWN_FAULTS),
    int(signal.SIGCONT),
    *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
]


def keep_only(*descriptors: int) -> None:
    """Close all descriptors but these; 0, 1 and 2 become /dev/null."""
    null = os.open(os.devnull, os.O_RDWR)
    for target in (0, 1, 2):
        os.dup2(null, target)
    last = 2
    for fd in sorted(descriptors):
        os.closerange(last + 1, fd)
        last = fd
    os.closerange(last + 1, _MOST)


def witness(signals: list[int], fd: int) -> None:
    """Write the number of each of ``signals`` that comes to ``fd``, as a byte; do nothing else."""
    signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
    for signo in signals:
        signal.signal(signo, _noted)


def is_pending(pid: int, signo: int) -> bool:
    """Whether a signal waits to be taken by ``pid`` (proc(5), SigPnd and ShdPnd)."""
    bit = 1 << (signo - 1)
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name in ("SigPnd", "ShdPnd") and int(value, 16) & bit:
                    return True
    except (FileNotFoundError, ProcessLookupError):
        return False
    return False


def die_by(signo: int) -> None:
    """End this process by a signal, without a core: that is the task's, not ours."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if signo not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(signo, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signo])
    os.kill(os.getpid(), signo)


def _noted(signo: int, frame: object) -> None:
    """The wake-up descriptor has the number."""
