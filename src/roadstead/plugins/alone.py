"""Points of plugins that no step calls: job_epilog, and those of slurmd."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Mapping
from typing import Any, Final

from roadstead.host import process, removal
from roadstead.plugins.job import NAME
from roadstead.plugins.process import Beside

_SECONDS: Final = 30.0

log = logging.getLogger(__name__)


def end(records: str) -> None:
    """Call job_epilog for a job that has ended, if it had plugins; blocks.  What goes wrong is in
    the controller's log: nobody waits for it any more.

    Two may be at it, as with the job's containers (step/named.py): the second finds nothing.
    """
    directory = f"{records}/{NAME}"
    try:
        lock = os.open(f"{directory}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _end(directory)
    finally:
        os.close(lock)


def _end(directory: str) -> None:
    try:
        with open(f"{directory}/job.json", encoding="utf-8") as file:
            known = json.load(file)
    except (FileNotFoundError, ValueError):
        known = None
    if known is not None and os.path.exists(f"{directory}/begun"):
        call_alone(known["plugstack"], "job_epilog", known["items"], known["env"])
    with contextlib.suppress(FileNotFoundError):
        removal.remove_tree(directory)


def call_alone(path: str, point: str, items: Mapping[str, Any], env: Mapping[str, str]) -> None:
    """Call a point of all plugins of a plugstack.conf, and wait until they are done; blocks."""
    beside = Beside(path, marks={})
    try:
        call = beside.call(point, items=dict(items), env=dict(env))
        if process.becomes_readable(call, _SECONDS):
            call.reap()
        else:
            call.close()
            call.said.append(f"error: {point}: plugins have not returned in {_SECONDS:.0f} seconds")
        for sentence in call.said:
            log.warning("plugins %s", sentence)
        if call.failure is not None:
            log.error("plugins %s", call.failure)
    finally:
        beside.close()
