"""``check``: what this node has and lacks, as one line of JSON, before any task starts.

Asked is a Question, as JSON in a variable, told an Answer, on standard output.  Nothing is decided
here: which lack matters is the submitter's to say (engines/slurm/preflight.py), who sees all nodes.
With ``install`` the agent that runs this settles here, so that tasks start from it.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from dataclasses import dataclass, field
from typing import Any, Final

from roadstead.agent import accounting, cache, install, tell
from roadstead.agent.place import node_name
from roadstead.core.model import from_json, to_json
from roadstead.errors import RoadsteadError
from roadstead.host import paths, wire

VARIABLE: Final = "SLURM_ROADSTEAD_ASKED"
# Of doctor/checks.py: what a container needs of a node, and costs little to look at.
CHECKS: Final = (
    "kernel",
    "user-namespaces",
    "subordinate-ids",
    "cgroups",
    "cgroup-hybrid",
    "overlay",
    "oci.conf",
    "oci-runtime",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A file or directory as the submitter sees it; it is the same one where all of this is."""

    path: str
    inode: int
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """``digest`` is the agent's, ``archive`` its file here ("": the one that runs this); ``see``
    are paths of the submitter's; ``keys`` what was staged perhaps; ``checks`` names of doctor's;
    ``copied`` how much the submitter has of the nodes' records (accounting.py)."""

    digest: str = ""
    archive: str = ""
    install: bool = False
    see: tuple[Seen, ...] = ()
    keys: tuple[str, ...] = ()
    checks: tuple[str, ...] = CHECKS
    copied: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """``sees``: for each path whether it is the submitter's; ``staged`` those of the keys that are
    here; ``agent`` what starts the agent on this node; ``findings`` doctor's, as JSON; ``room``:
    bytes that can be received; ``records``: more of those it has; ``error``: why that is all."""

    node: str
    host: str = ""
    machine: str = ""
    python: str = ""
    agent: str = ""
    place: str = ""
    sees: tuple[bool, ...] = ()
    staged: tuple[str, ...] = ()
    room: int = 0
    findings: Any = ()
    records: dict[str, str] = field(default_factory=dict)
    error: str = ""


def seen(path: str) -> Seen:
    """How this host sees ``path``.  Raises OSError."""
    found = os.stat(path)
    return Seen(path=path, inode=found.st_ino, size=found.st_size, mtime_ns=found.st_mtime_ns)


def _sees(wanted: Seen) -> bool:
    try:
        return seen(wanted.path) == wanted
    except OSError:
        return False


def answer(question: Question, environ: dict[str, str]) -> Answer:
    """Look at this node."""
    top = paths.node_cache(environ)
    script = install.own_script()
    if question.install or question.keys:
        cache.prepare(top)
    if question.install:
        script = install.settle(question.archive or sys.argv[0], f"{top}/agent", question.digest)
    cache.sweep(top)
    limit = cache.quota(environ)
    return Answer(
        node=node_name(environ),
        host=os.uname().nodename,
        machine=platform.machine(),
        python=f"{platform.python_version()} ({sys.executable})",
        agent=script,
        place=top,
        sees=tuple([_sees(each) for each in question.see]),
        staged=tuple([key for key in question.keys if cache.find(top, key) is not None]),
        room=min(limit, cache.free(top)),
        findings=_findings(question.checks, environ),
        records=accounting.answer(question.copied, node_name(environ), environ),
    )


def _findings(names: tuple[str, ...], environ: dict[str, str]) -> list[Any]:
    if not names:
        return []
    from roadstead.doctor import checks
    from roadstead.oci import search

    # As task.py calls runtimes: Slurm's own oci.conf is for slurmstepd.
    environ = {**environ, search.VARIABLE: search.find(environ, slurms=False) or search.NONE}
    wanted = tuple([each for each in checks.CHECKS if each.name in names])
    return [to_json(each) for each in checks.examine(environ, wanted)]


def main() -> int:
    """Answer the question, on standard output; 0 if there is an answer at all."""
    environ = dict(os.environ)
    try:
        told = _answered(environ)
        tell.tell(told.node, told)
    finally:
        _tidy()
    return 0


def _answered(environ: dict[str, str]) -> Answer:
    try:
        return answer(from_json(Question, wire.loads(environ.pop(VARIABLE))), environ)
    except RoadsteadError as error:
        return Answer(
            node=node_name(environ), error=f"{error}{f'; {error.hint}' if error.hint else ''}"
        )
    except OSError as error:
        return Answer(node=node_name(environ), error=f"{error.filename}: {error.strerror}")


def _tidy() -> None:
    """Remove what srun has brought us as, if it was that: once nothing is imported from it any
    more."""
    own = sys.argv[0]
    if os.path.basename(own).startswith(cache.TRAVELLING):
        with contextlib.suppress(OSError):
            os.unlink(own)
