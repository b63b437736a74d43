"""job_prolog and job_epilog: what plugins do once for a job, before its first step and after its
last.

    RECORDS/.plugins/job.json    made first: whose job it is, and what the epilog is to know
    RECORDS/.plugins/lock        held (flock) by whoever runs the prolog: other first steps wait
    RECORDS/.plugins/begun       the prolog has run

The prolog is called from the step that comes first, the epilog by the controller's child that also
removes the job's named containers (step/named.py): the job counts as ended after that. Either can
be killed at any moment. A prolog that was is run again by the next step, an epilog by the next
controller, while the record is there.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from roadstead.host import files, process, removal
from roadstead.plugins import IN_SCRIPTS, ON_THE_WAY
from roadstead.plugins.process import Beside

_NAME: Final = ".plugins"
_SECONDS: Final = 30.0

log = logging.getLogger(__name__)


def write(records: str, path: str, items: Mapping[str, Any], env: Mapping[str, str]) -> str:
    """Write down that the job has plugins, unless that is there; the record's directory."""
    directory = f"{records}/{_NAME}"
    if not os.path.exists(f"{directory}/job.json"):
        os.makedirs(directory, mode=0o700, exist_ok=True)
        known = {"plugstack": path, "items": dict(items), "env": variables(env)}
        files.write_atomically(f"{directory}/job.json", json.dumps(known))
    return directory


def variables(env: Mapping[str, str]) -> dict[str, str]:
    """The environment of a job's prolog and epilog."""
    found = {name: value for name, value in env.items() if name.startswith(ON_THE_WAY)}
    for name, value in list(found.items()):
        if not name.startswith(f"{ON_THE_WAY}_"):
            found[IN_SCRIPTS + name.removeprefix(ON_THE_WAY)] = value
    for name in ("SLURM_JOB_ID", "SLURM_JOB_USER", "SLURM_JOB_UID", "SLURM_JOB_PARTITION", "PATH"):
        if name in env:
            found[name] = env[name]
    return found


def once(directory: str, body: Callable[[], object]) -> None:
    """Do something once for the job; who comes meanwhile waits, and does nothing."""
    lock = os.open(f"{directory}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(f"{directory}/begun"):
            body()
            files.write_atomically(f"{directory}/begun", "")
    finally:
        os.close(lock)


def end(records: str) -> None:
    """Call job_epilog for a job that has ended, if it had plugins; blocks.  What goes wrong is in
    the controller's log: nobody waits for it any more.

    Two may be at it, as with the job's containers (step/named.py): the second finds nothing.
    """
    directory = f"{records}/{_NAME}"
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
