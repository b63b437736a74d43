"""Starting a program from a command: what ``host.process`` does for the node side, without its
imports.

The commands' start-up path counts in milliseconds; here are only ``os`` calls.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import NoReturn


def start_daemon(argv: list[str], env: Mapping[str, str], keep: Iterable[int]) -> int:
    """Start ``argv`` in a session of its own on /dev/null, with what is in ``keep`` open; its
    pid."""
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_DUP2, 1, 2),
        *((os.POSIX_SPAWN_DUP2, each, each) for each in keep),
    ]
    return os.posix_spawn(argv[0], argv, env, file_actions=actions, setsid=True, setsigmask=[])


def start_foreground(argv: list[str], env: Mapping[str, str]) -> tuple[int, int]:
    """Start ``argv`` (looked up on env's PATH) on our own terminal; its pid and a pidfd.

    Raises OSError as execvp(3).
    """
    from roadstead.host.signals import TERMINAL_SIGNALS

    path = env.get("PATH", os.defpath)
    candidates = [argv[0]] if "/" in argv[0] else [f"{d or '.'}/{argv[0]}" for d in path.split(":")]
    program = next((c for c in candidates if os.access(c, os.X_OK)), candidates[0])
    pid = os.posix_spawn(program, argv, env, setsigdef=TERMINAL_SIGNALS)
    return pid, os.pidfd_open(pid)


def reap(pid: int) -> int:
    """Wait for a child; its exit status as a shell gives it (128 + signal)."""
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def signal(pidfd: int, signo: int) -> None:
    """Signal a child, if it is still there."""
    import _signal  # type: ignore[import-not-found]

    try:
        _signal.pidfd_send_signal(pidfd, signo)
    except ProcessLookupError:
        return


def become(path: str, argv: list[str], env: Mapping[str, str]) -> NoReturn:
    """Become the program at ``path``, with the signals that Python has changed as they were.

    Raises OSError as execve(2).
    """
    import _signal

    for signo in (_signal.SIGPIPE, _signal.SIGXFSZ):
        _signal.signal(signo, _signal.SIG_DFL)
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    os.execve(path, argv, env)
