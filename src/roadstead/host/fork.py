"""Forking without executing: how the spawner comes from the controller, supervisors from it, and
what apart.py runs from a command.

Only for single-threaded processes, and only these places: everything that is already imported
is the child's for nothing (2 ms from a warm spawner, where a new interpreter takes 20).  Programs
are started by host.process.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def run_in_child(body: Callable[[], object], *, session: bool = False) -> int:
    """Fork; the child runs ``body`` and exits, 1 if it raises (after a traceback); the child's pid.

    With ``session`` the child leads a session of its own.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        if session:
            os.setsid()
        body()
        code = 0
    except BaseException:  # nothing may unwind into the parent's stack frames
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def freeze() -> None:
    """Take what is loaded now out of the collector's sight, so that children share its pages."""
    gc.collect()
    gc.freeze()


def replace_process(argv: list[str]) -> NoReturn:
    """Become ``argv``, with the same environment, pid, standard streams and working directory."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(argv[0], argv)
