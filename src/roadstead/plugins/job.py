"""What is written down of a job with plugins, for what they do once for it: job_prolog before its
first step, job_epilog after its last.

    RECORDS/.plugins/job.json    made first: whose job it is, and what the epilog is to know
    RECORDS/.plugins/lock        held (flock) by whoever runs the prolog: other first steps wait
    RECORDS/.plugins/begun       the prolog has run

The prolog is called from the step that comes first, the epilog (alone.py) by the controller's child
that also removes the job's named containers (step/named.py): the job counts as ended after that.
Either can be killed at any moment. A prolog that was is run again by the next step, an epilog by
the next controller, while the record is there.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from roadstead.host import files
from roadstead.plugins import IN_SCRIPTS, ON_THE_WAY

NAME: Final = ".plugins"


def write(records: str, path: str, items: Mapping[str, Any], env: Mapping[str, str]) -> str:
    """Write down that the job has plugins, unless that is there; the record's directory."""
    directory = f"{records}/{NAME}"
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
