"""Which OCI runtime, and how it is called: oci.conf's command lines, or built-in ones.

Five operations and ``run``; each gives an argv.  What oci.conf says goes through ``/bin/sh -c``, as
in Slurm; the built-in commands are argv already, name a runtime directory of the user's own, and
have the runtime write its complaints to a log of its own, so that they can be told from the
program's output.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from roadstead.errors import RuntimeFailure

if TYPE_CHECKING:
    from roadstead.oci.conf import OciConf
    from roadstead.oci.patterns import Substitutions

Operation = Literal["run", "create", "start", "query", "kill", "delete"]
# "detach" is run mode without a runtime that waits: the container's first process becomes a child
# of whoever is the subreaper, so that there is nobody who would pass on a signal a second time.
Mode = Literal["run", "detach", "create"]
KNOWN: Final = ("crun", "runc")
# Looked at after PATH: Debian has runc where a user's PATH does not look.
ALSO: Final = "/usr/local/bin:/usr/bin:/usr/sbin"
_CLONED: Final = "_cloned"
_CLONES: Final = tuple(f"/memfd:{name}{_CLONED}" for name in KNOWN)


class Commands(Protocol):
    """How the runtime is called for one container."""

    @property
    def mode(self) -> Mode: ...

    @property
    def program(self) -> str:
        """The runtime's name, for messages and for what we know of its quirks."""

    @property
    def log(self) -> str:
        """The file that holds the runtime's own complaints, or "" where they go to stderr."""

    @property
    def state(self) -> str:
        """The directory in which the runtime keeps the container's state, "" if it is not ours."""

    @property
    def removes_itself(self) -> bool:
        """Whether a ``run`` that has ended has surely left no state behind."""

    @property
    def pid_file(self) -> str: ...

    def command(self, operation: Operation, pid: int = 0) -> list[str] | None:
        """The argv of an operation; None where there is none."""


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """crun or runc in run mode, found on PATH."""

    path: str
    container_id: str
    bundle: str
    root: str
    log: str
    mode: Mode = "run"
    descriptors: int = 0  # beyond 2 that the container gets
    own_groups: bool = True  # whether the runtime makes control groups where it may
    console: str = ""  # the socket to which it hands the container's terminal

    @property
    def hands_over_terminals(self) -> bool:
        """Whether a ``run`` that is waited for takes --console-socket: runc refuses it then."""
        return self.program == "crun" and self.mode == "run"

    @property
    def program(self) -> str:
        return os.path.basename(self.path)

    @property
    def copy_name(self) -> str:
        """What a copy is called that saves the runtime making one (host/sealed.py); "" where it is
        its own affair: runc is twenty times crun's size."""
        return f"{self.program}{_CLONED}" if self.program == "crun" else ""

    @property
    def state(self) -> str:
        return f"{self.root}/{self.container_id}"

    @property
    def pid_file(self) -> str:
        """Where the runtime writes the container's first process, if it does not wait for it."""
        return f"{self.bundle}/pid"

    @property
    def removes_itself(self) -> bool:
        return not os.path.lexists(self.state)

    def joining(self, process: str, *, pid_file: str = "") -> list[str]:
        """The argv that starts one more process in the container that is there: the one that the
        file ``process`` describes, as config.json's ``process`` does.  It ends as that does; with a
        ``pid_file`` once that has been started, when its number is there."""
        more = [f"--preserve-fds={self.descriptors}"] if self.descriptors else []
        more += ["--detach", f"--pid-file={pid_file}"] if pid_file else []
        return [*self._base(), "exec", *more, f"--process={process}", self.container_id]

    def _base(self) -> list[str]:
        # For crun what is before a colon is the kind of log.
        log = f"file:{self.log}" if self.program == "crun" else self.log
        base = [self.path, f"--root={self.root}", f"--log={log}", "--log-format=json"]
        if not self.own_groups and self.program == "crun":
            base.append("--cgroup-manager=disabled")
        return base

    def command(self, operation: Operation, pid: int = 0) -> list[str] | None:
        base = self._base()
        match operation:
            case "run" | "create":
                more = [f"--preserve-fds={self.descriptors}"] if self.descriptors else []
                if self.mode == "detach":
                    more += ["--detach", f"--pid-file={self.pid_file}"]
                if self.console:
                    more.append(f"--console-socket={self.console}")
                return [*base, operation, *more, f"--bundle={self.bundle}", self.container_id]
            case "start":
                return [*base, "start", self.container_id]
            case "query":
                return [*base, "state", self.container_id]
            case "kill":
                return [*base, "kill", self.container_id, "KILL"]
            case "delete":
                return [*base, "delete", "--force", self.container_id]


_KEYS: Final[dict[Operation, str]] = {
    "run": "runtime_run",
    "create": "runtime_create",
    "start": "runtime_start",
    "query": "runtime_query",
    "kill": "runtime_kill",
    "delete": "runtime_delete",
}


@dataclass(frozen=True, slots=True)
class Configured:
    """The command lines of an oci.conf, expanded for one container."""

    conf: OciConf
    values: Substitutions
    log: str = ""
    state: str = ""
    pid_file: str = ""
    removes_itself: bool = False

    @property
    def mode(self) -> Mode:
        return "run" if self.conf.mode == "run" else "create"

    @property
    def program(self) -> str:
        return program_name(self.conf)

    def command(self, operation: Operation, pid: int = 0) -> list[str] | None:
        pattern = getattr(self.conf, _KEYS[operation])
        if not pattern or (not pid and "%p" in pattern.replace("%%", "")):
            return None  # not given, or it signals a process that is not there (any more)
        from roadstead.oci.patterns import expand  # where there is no oci.conf nobody waits for it

        values = replace(self.values, pid=pid) if pid else self.values
        return ["/bin/sh", "-c", expand(pattern, values)]


def program_name(conf: OciConf) -> str:
    """The name of the program that an oci.conf starts containers with: a runtime that we know if
    its command line names one, else the line's first word."""
    words = [
        os.path.basename(word) for word in (conf.runtime_run or conf.runtime_create or "").split()
    ]
    return next((word for word in words if word in KNOWN), words[0] if words else "")


def executes(executable: str) -> bool:
    """Whether that is a runtime we know: a container's first process until it becomes the program.

    Both execute a copy of themselves, out of reach of the container (CVE-2019-5736): in a memfd, or
    on a detached mount, whose root the kernel calls "/" as it calls every root.
    """
    name = os.path.basename(executable)  # "" for "/"
    return name in ("", *KNOWN) or executable.startswith(_CLONES)


def find(env: dict[str, str], which: Callable[[str, str], str | None]) -> str:
    """The path of the runtime to use: $ROADSTEAD_RUNTIME, else the first known one on PATH.

    Raises RuntimeFailure where there is none: a task that asked for a container never runs outside.
    """
    path = ":".join(filter(None, (env.get("PATH"), ALSO)))
    asked = env.get("ROADSTEAD_RUNTIME", "")
    for name in (asked,) if asked else KNOWN:
        found = which(name, path)
        if found:
            return os.path.abspath(found)
    if asked:
        raise RuntimeFailure(
            f"ROADSTEAD_RUNTIME={asked}: no such program",
            hint=f"unset it, or name one that is there ({' or '.join(KNOWN)})",
        )
    raise RuntimeFailure(
        f"no OCI runtime found on PATH (looked for {', '.join(KNOWN)})",
        hint="install one (apt install crun), or name yours in an oci.conf",
    )


def complaint(log: str) -> str:
    """The runtime's last error in its JSON log, or ""."""
    try:
        with open(log, encoding="utf-8", errors="replace") as file:
            lines = file.read(1 << 20).splitlines()
    except OSError:
        return ""
    for line in reversed(lines):
        try:
            entry: Any = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict) and entry.get("level") in ("error", "fatal"):
            return str(entry.get("msg", "")).strip()
    return ""
