"""What an engine left behind, found without asking the engine.

Everything a test starts carries two marks that its descendants inherit.  One is a variable in the
environment; it is lost where a container gets an environment of its own.  The other is a soft
RLIMIT_RTTIME that no one else has: it means nothing to a process that is not scheduled in real
time, survives fork, exec, setuid, setns and the OCI runtimes, and everybody can read it in
/proc/PID/limits.
What carries neither, and still has the test's directory in its arguments or its mount table, counts
as well.  The test's directory has a random name, so other runs on the machine are not mistaken for
ours, save where a comment says otherwise.

A `Watch` is taken before anything starts; `Watch.find` compares.  Processes, mounts, directories,
containers (as crun and runc list them: a directory with a state file) and cgroups.
"""

from __future__ import annotations

import contextlib
import os
import resource
import secrets
import signal
import subprocess
import time
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.support.account import Account

VARIABLE = "ROADSTEAD_TEST_ID"
# Directories of tests begin like this, so that one run does not report those of another.
PREFIX = "rs-"
_SHARED = ("/tmp", "/var/tmp", "/dev/shm")
_STATE_FILES = ("status", "state.json")


class Leak(NamedTuple):
    """One thing that should be gone."""

    kind: str
    what: str
    detail: str


def as_table(leaks: list[Leak]) -> str:
    """For people, one leak a line."""
    kind_width = max((len(leak.kind) for leak in leaks), default=0)
    what_width = max((len(leak.what) for leak in leaks), default=0)
    return "\n".join(
        f"  {leak.kind:<{kind_width}}  {leak.what:<{what_width}}  {leak.detail}" for leak in leaks
    )


@dataclass(frozen=True, slots=True)
class Mark:
    """What the descendants of a test carry."""

    token: str = field(default_factory=lambda: secrets.token_hex(8))
    # In microseconds; no machine runs for this long without a rest, so it never bites.
    rttime: int = field(default_factory=lambda: 10**15 + secrets.randbits(48))

    @contextlib.contextmanager
    def inherited(self) -> Iterator[dict[str, str]]:
        """While this lasts, children of this process get the limit; yields the variables to add."""
        soft, hard = resource.getrlimit(resource.RLIMIT_RTTIME)
        allowed = hard == resource.RLIM_INFINITY or hard >= self.rttime
        if allowed:
            resource.setrlimit(resource.RLIMIT_RTTIME, (self.rttime, hard))
        try:
            yield {VARIABLE: self.token}
        finally:
            if allowed:
                resource.setrlimit(resource.RLIMIT_RTTIME, (soft, hard))


@dataclass(frozen=True, slots=True)
class Process:
    """A process as /proc shows it."""

    pid: int
    parent: int
    state: str
    user: int
    command: str

    @property
    def is_zombie(self) -> bool:
        return self.state == "Z"


def _read(path: str) -> bytes:
    """A file of /proc; empty where the process has gone, or does not let us look."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _process(pid: int) -> Process | None:
    stat = _read(f"/proc/{pid}/stat").decode(errors="replace")
    if not stat:
        return None
    name, _, rest = stat.partition("(")[2].rpartition(")")
    state, parent = rest.split()[:2]
    command = _read(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode(errors="replace").strip()
    try:
        user = os.stat(f"/proc/{pid}").st_uid
    except FileNotFoundError:
        return None
    return Process(pid, int(parent), state, user, command or f"[{name}]")


def _carries(pid: int, mark: Mark, places: list[bytes]) -> bool:
    """Whether it descends from the test, or speaks of the test's directories."""
    limits = _read(f"/proc/{pid}/limits")
    if any(
        line.startswith(b"Max realtime timeout") and line.split()[3] == b"%d" % mark.rttime
        for line in limits.splitlines()
    ):
        return True
    if f"{VARIABLE}={mark.token}".encode() in _read(f"/proc/{pid}/environ").split(b"\0"):
        return True
    arguments = _read(f"/proc/{pid}/cmdline")
    return any(place in arguments for place in places)


def _ancestors() -> set[int]:
    """This process and those above it: pytest's own command line may name anything."""
    found, pid = set(), os.getpid()
    while pid > 0 and pid not in found:
        found.add(pid)
        process = _process(pid)
        pid = process.parent if process else 0
    return found


def processes(mark: Mark, places: list[Path] | None = None) -> list[Process]:
    """The living descendants of a test, and zombies whose parent is one of them."""
    needles = [os.fsencode(place) for place in places or []]
    ours = _ancestors()
    marked = [pid for pid in _pids() if pid not in ours and _carries(pid, mark, needles)]
    found = [process for pid in marked if (process := _process(pid))]
    return [each for each in found if not each.is_zombie or each.parent in marked]


def kill(mark: Mark, places: list[Path] | None = None, *, timeout: float = 5.0) -> None:
    """Kill whatever carries the mark, again until nothing does."""
    deadline = time.monotonic() + timeout
    while left := [each for each in processes(mark, places) if not each.is_zombie]:
        assert time.monotonic() < deadline, f"cannot be killed: {left}"
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        time.sleep(0.01)


def _mounts(pid: int | str) -> list[str]:
    """`/proc/PID/mountinfo`, a mount a line."""
    try:
        return _read(f"/proc/{pid}/mountinfo").decode(errors="replace").splitlines()
    except OSError:  # EINVAL: the process has left its mount namespace, that is, it ended
        return []


def mount_points(below: Path) -> list[str]:
    """Mount points of our own namespace at or below a directory, the deepest first."""
    points = [line.split()[4] for line in _mounts("self")]
    return sorted(
        (each for each in points if Path(each).is_relative_to(below)), key=len, reverse=True
    )


def _namespaces() -> dict[str, int]:
    """Each mount namespace that is in use -> a process in it."""
    found: dict[str, int] = {}
    for pid in _pids():
        with contextlib.suppress(OSError):
            found.setdefault(os.readlink(f"/proc/{pid}/ns/mnt"), pid)
    return found


def _cgroups() -> set[str]:
    return {top for top, _, _ in os.walk("/sys/fs/cgroup")}


def _names(folder: str) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()


class Watch:
    """The machine before the test, to compare with."""

    def __init__(self, account: Account, mark: Mark, base: Path) -> None:
        self.account = account
        self.mark = mark
        self.base = base
        self._shared = {folder: _names(folder) for folder in _SHARED}
        self._cgroups = _cgroups()

    def settled(self, *, timeout: float = 3.0, known: Container[str] = ()) -> list[Leak]:
        """`find`, giving what is on its way out the time to leave; without what is ``known``."""
        deadline = time.monotonic() + timeout
        while leaks := [each for each in self.find() if each.what not in known]:
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        return leaks

    def find(self) -> list[Leak]:
        """Everything that is there now, and should not be."""
        return [
            *self._find_processes(),
            *self._find_mounts(),
            *self._find_directories(),
            *self._find_containers(),
            *self._find_cgroups(),
        ]

    def _find_processes(self) -> Iterator[Leak]:
        for each in processes(self.mark, [self.base]):
            what = f"{each.pid} ({each.state}, uid {each.user}, parent {each.parent})"
            yield Leak("process", what, each.command[:200])

    def _find_mounts(self) -> Iterator[Leak]:
        place = os.fspath(self.base)
        mine = os.readlink("/proc/self/ns/mnt")
        for namespace, pid in _namespaces().items():
            owner = "" if namespace == mine else f" in {namespace} of process {pid}"
            for line in _mounts(pid):
                if place in line:
                    fields = line.split()
                    kind = fields[fields.index("-") + 1]
                    yield Leak("mount", fields[4], f"{kind} of {fields[3]}{owner}")

    def _find_directories(self) -> Iterator[Leak]:
        for top, folders, files in os.walk(self.base):
            if os.path.basename(top) == "steps" and f"{os.sep}roadstead" in top:
                for name in (*folders, *files):
                    yield Leak("directory", os.path.join(top, name), "a step's, at run time")
        # What was made for a while and ignores the rule that a container system's own directory
        # under $TMPDIR begins with "roadstead".
        for name in _names(os.fspath(self.base / "tmp")):
            if not name.startswith("roadstead"):
                yield Leak("directory", os.fspath(self.base / "tmp" / name), "in $TMPDIR")
        for folder, before in self._shared.items():
            for name in _names(folder) - before:
                if self._is_foreign(folder, name):
                    yield Leak("directory", f"{folder}/{name}", f"outside {self.base}")

    def _is_foreign(self, folder: str, name: str) -> bool:
        """New, in a place that everybody shares, and this account's: if that only runs tests, by
        its owner (two runs at the same time could blame each other); otherwise by the name."""
        if name.startswith(PREFIX):
            return False
        if self.account.is_current:
            return "roadstead" in name
        try:
            return os.lstat(f"{folder}/{name}").st_uid == self.account.uid
        except FileNotFoundError:
            return False

    def _find_containers(self) -> Iterator[Leak]:
        run = f"/run/user/{self.account.uid}"
        roots = ["/tmp", run, f"{run}/crun", f"{run}/runc", "/run/crun", "/run/runc", "/run"]
        below = [top for top, _, _ in os.walk(self.base)]
        needle = os.fsencode(self.base)
        for root in roots:
            for name in _names(root):
                for state in _STATE_FILES:
                    if needle in _read_state(f"{root}/{name}/{state}"):
                        yield Leak("container", f"{root}/{name}", f"has a {state} file")
        for top in below:
            for state in _STATE_FILES:
                if (
                    b'"pid"' in (text := _read_state(f"{top}/{state}"))
                    or b"init_process_pid" in text
                ):
                    yield Leak("container", top, f"has a {state} file")

    def remove_cgroups(self) -> None:
        """Delete new cgroups that are empty, so that nobody after us is blamed for them."""
        for path in sorted(_cgroups() - self._cgroups, reverse=True):
            with contextlib.suppress(OSError):
                os.rmdir(path)

    def _find_cgroups(self) -> Iterator[Leak]:
        # Another run's cgroup is never empty for as long as `settled` looks.
        for path in sorted(_cgroups() - self._cgroups):
            if not _read(f"{path}/cgroup.procs"):
                yield Leak("cgroup", path, "new and empty")


def _read_state(path: str) -> bytes:
    try:
        return _read(path) if os.path.isfile(path) else b""
    except OSError:
        return b""


def remove(base: Path) -> None:
    """Delete a test's directory, never what is mounted in it."""
    for point in mount_points(base):
        subprocess.run(["umount", "--lazy", point], check=False)
    left = mount_points(base)
    assert not left, f"still mounted, so {base} stays: {left}"
    argv = ["rm", "-rf", "--one-file-system", os.fspath(base)]
    subprocess.run(["chmod", "-R", "u+rwX", os.fspath(base)], check=False, capture_output=True)
    if subprocess.run(argv, check=False, capture_output=True).returncode != 0:
        # Files of the account's subordinate ids: its user namespace may delete them.
        subprocess.run(["unshare", "--map-auto", "--map-root-user", *argv], check=True)
