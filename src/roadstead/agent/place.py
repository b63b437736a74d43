"""Where agents keep what they make, one directory a user and node:

    $XDG_RUNTIME_DIR/roadstead/nodes/NODE/      else $TMPDIR/roadstead-UID/nodes/NODE/, or in /tmp
        steps/JOB.STEP.TASK/                    a task's files, and its claim
        containers/                             the runtime's state

With the built-in command lines both are in memory, in the agent's own mount namespace.  With an
oci.conf they are on disk, as the runtime may keep more elsewhere: an agent that was killed with its
guard is swept by the next one here.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping

from roadstead.errors import EngineError
from roadstead.host import paths
from roadstead.step import sweep


def of_node(environ: Mapping[str, str], node: str) -> str:
    """The directory of this user on this node, made and looked at.  Raises EngineError."""
    known = dict(environ)
    if not os.path.isdir(known.get("TMPDIR", "")):
        known.pop("TMPDIR", None)  # that of the host where the job was submitted
    top = paths.default_runtime_directory(known)
    if top.startswith(known.get("XDG_RUNTIME_DIR") or "\0") and not _is_ours(known):
        known.pop("XDG_RUNTIME_DIR")
        top = paths.default_runtime_directory(known)
    if "/" in node or node in ("", ".", ".."):
        raise EngineError(f"{node!r} is not the name of a node")
    for path in (top, f"{top}/nodes", f"{top}/nodes/{node}"):
        paths.make_private(path)
    return f"{top}/nodes/{node}"


def _is_ours(environ: Mapping[str, str]) -> bool:
    """XDG_RUNTIME_DIR may be that of a login elsewhere, or of another user (su)."""
    with contextlib.suppress(OSError):
        return os.stat(environ["XDG_RUNTIME_DIR"]).st_uid == os.getuid()
    return False


def sweep_dead(directory: str) -> None:
    """Remove what agents that are no more have left in the directory of a node."""
    try:
        names = os.listdir(f"{directory}/steps")
    except FileNotFoundError:
        return
    for name in names:
        sweep.sweep(f"{directory}/steps/{name}")
