"""Signals of a command, as bytes in a pipe that it can poll.

``signal`` turns every name into an enum at import (4 ms); the commands use its C half.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os

from roadstead.errors import UsageError

SIGINT: int = _signal.SIGINT
SIGQUIT: int = _signal.SIGQUIT
SIGTSTP: int = _signal.SIGTSTP
SIGWINCH: int = _signal.SIGWINCH

# What the terminal driver sends to the foreground, and Python may have changed.
TERMINAL_SIGNALS: list[int] = [_signal.SIGINT, _signal.SIGQUIT, _signal.SIGTSTP, _signal.SIGPIPE]

# Forwarded by srun to its tasks (srun(1), SIGNALS); SIGINT is special and SIGTSTP stays here.
FORWARDED: list[int] = [
    _signal.SIGHUP,
    _signal.SIGQUIT,
    _signal.SIGTERM,
    _signal.SIGUSR1,
    _signal.SIGUSR2,
    _signal.SIGCONT,
    _signal.SIGALRM,
]

_NAMES = {
    1: "Hangup",
    2: "Interrupt",
    3: "Quit",
    4: "Illegal instruction",
    5: "Trace/breakpoint trap",
    6: "Aborted",
    7: "Bus error",
    8: "Floating point exception",
    9: "Killed",
    10: "User defined signal 1",
    11: "Segmentation fault",
    12: "User defined signal 2",
    13: "Broken pipe",
    14: "Alarm clock",
    15: "Terminated",
    16: "Stack fault",
    24: "CPU time limit exceeded",
    25: "File size limit exceeded",
    31: "Bad system call",
}


def describe(signo: int) -> str:
    """The words of strsignal(3), as srun prints them."""
    return _NAMES.get(signo, f"Real-time signal {signo - 34}" if signo >= 34 else f"Signal {signo}")


def number(name: str) -> int:
    """The number of a signal that a user named: 15, TERM or SIGTERM.  Raises UsageError."""
    if name.isdigit() and 0 < int(name) <= 64:
        return int(name)
    found = getattr(_signal, f"SIG{name.upper().removeprefix('SIG')}", None)
    if not isinstance(found, int):
        raise UsageError(f"unknown signal {name}", hint="kill -l lists them")
    return found


def watch(signals: list[int]) -> int:
    """Turn ``signals`` into bytes; returns the descriptor to read their numbers from.

    What was ignored when we were started (``nohup srun …``) stays so, except for SIGINT: shells
    without job control ignore that for what they start with ``&``, and it is for us all the same.
    """
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    _signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for signo in signals:
        if signo == SIGINT or _signal.getsignal(signo) != _signal.SIG_IGN:
            _signal.signal(signo, _noted)
    return read


def ignore(signals: list[int]) -> None:
    for signo in signals:
        _signal.signal(signo, _signal.SIG_IGN)


def hold(signals: list[int]) -> None:
    """Have these wait, for us and for what we start, until they are let go."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, signals)


def let_go(signals: list[int]) -> None:
    """End ``hold``: what has come meanwhile comes now."""
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, signals)


def waiting(signals: list[int]) -> list[int]:
    """Those that have come to us and are held."""
    found = _signal.sigpending()
    return [signo for signo in signals if signo in found]


def restore_pipe() -> None:
    """End quietly on SIGPIPE, as other commands do."""
    _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)


def _noted(signo: int, frame: object) -> None:
    """Nothing to do: the wake-up descriptor has the number."""
