"""What the probes found, and what is made of it: the types between probes*.py and judge.py.

Facts hold what was seen and no opinion.  Where something was tried, an error is what the system
said: "" when it went well, None when it was not tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["ok", "warning", "failure", "not applicable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The outcome of one check.  ``found`` is always there; ``cause`` and ``fix`` (what can be
    typed, or done) where something is wrong; ``details`` are further lines."""

    name: str = ""
    status: Status
    found: str
    cause: str = ""
    fix: str = ""
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Python:
    version: tuple[int, int, int]
    executable: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bytecode:
    """The package's directory ("": not one of files), and its modules: all, and those whose
    compiled file is not there or is of another source."""

    directory: str
    modules: int = 0
    missing: int = 0
    stale: int = 0
    writable: bool = True
    python: str = "python3"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    release: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UserNamespaces:
    """``stage``: how far it went: "unshare", "map" or "mount" failed with ``errno``; "": all went
    well.  ``container``: whether this seems to be one; ``seccomp``: whether calls are filtered."""

    uid: int
    stage: str = ""
    errno: int = 0
    settings: Mapping[str, str]
    container: bool = False
    seccomp: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapper:
    """newuidmap or newgidmap: its path ("": not there), whether it is setuid or has the capability,
    and whether it lies on a file system that ignores both (nosuid)."""

    name: str
    path: str = ""
    privileged: bool = False
    nosuid: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SubordinateIds:
    """``free``: the first id above everybody's ranges.  ``error``: of mapping them."""

    user: str
    uid: int
    uids: tuple[int, int] | None = None
    gids: tuple[int, int] | None = None
    free: int = 100000
    mappers: tuple[Mapper, ...] = ()
    no_new_privileges: bool = False
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cgroups:
    """``layout``: v1, v2, hybrid, or "" for none.  ``delegated``: the controllers of a group that
    this user may divide; None: no such group."""

    layout: str
    uid: int
    user: str = ""
    path: str = ""
    delegated: frozenset[str] | None = None
    systemd: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Hybrid:
    """``error``: of a namespace in which crun does not see the second tree."""

    hybrid: bool
    runtime: str
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """``layer``: a writable layer in memory over the state directory's file system, as
    --container-writable=private makes it; ``upper``: one on that file system itself."""

    place: str
    kind: str
    namespace: str = ""
    layer: str | None = None
    upper: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fuse:
    """``device``: the error of opening /dev/fuse."""

    device: str
    programs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    name: str
    path: str
    package: str
    purpose: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtimes:
    """Name and path of each runtime on PATH."""

    found: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """The one that would be used.  ``untried``: why it was not looked for; ``error`` and ``hint``:
    there is none, and why; ``source``: oci.conf's path, or how else it was found; ``version``: the
    first line that it prints; ``complaint``: why there is none."""

    untried: str = ""
    path: str = ""
    source: str = ""
    error: str = ""
    hint: str = ""
    version: str = ""
    complaint: str = ""
    features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OciConf:
    """``missing``: (key, program) of the commands whose program is not there."""

    path: str = ""
    error: str = ""
    hint: str = ""
    warnings: tuple[str, ...] = ()
    mode: str = ""
    starts: bool = True
    missing: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A container that was run: what step/trial.py said of each step, or why it was not tried."""

    untried: str = ""
    fix: str = ""
    steps: tuple[Mapping[str, Any], ...] = ()
    unfinished: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """Where ``path`` is, or will be.  Sizes in bytes; ``inodes`` None: not counted there."""

    what: Literal["state", "runtime"]
    path: str
    kind: str
    free: int
    inodes: int | None
    writable: bool = True
    noexec: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeDirectory:
    """``xdg``: the variable's value; ``exists``, ``owner`` and ``mode`` are of that directory.
    ``path``: the one in use; ``error``: why it cannot be trusted; ``sticky``: whether what is above
    it keeps others from replacing it."""

    uid: int
    xdg: str = ""
    exists: bool = False
    owner: int = -1
    mode: int = 0
    path: str
    error: str = ""
    above: str = ""
    sticky: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFiles:
    """-1: no limit."""

    soft: int
    hard: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """``limit`` -1: none; ``used``: threads of this user's now."""

    uid: int
    limit: int
    used: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """``state``: "none", "answers", "silent" or "error"."""

    state: str
    pid: int = 0
    version: str = ""
    ours: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    path: str
    exists: bool
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lingering:
    """``kill``: logind's KillUserProcesses; ``runtime``: the run-time directory."""

    systemd: bool
    uid: int = 0
    user: str = ""
    linger: bool = False
    kill: bool = False
    runtime: str = ""
