"""Starting, watching and signalling processes: the only fork and exec in the product.

A child is started by posix_spawn (vfork underneath: 0.8 ms from a 25 MiB parent, where fork
takes 1.4 to 2.1) and watched through a pidfd, which becomes readable when it ends: no SIGCHLD, no
polling, and no signal can hit a recycled pid.  What posix_spawn inherits and cannot set (working
directory, umask, affinity, limits) the caller sets on itself first.

Signals are blocked nowhere (but in a witness: agent/guard.py) and reset to their defaults in
children: Python ignores SIGPIPE and SIGXFSZ, programs must not inherit that.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # no enums: 4 ms
import contextlib
import fcntl
import os
import resource
import select
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from roadstead.host import clone
from roadstead.host.loop import HasFileno

Argv = list[str]

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")

HUP: Final = int(signal.SIGHUP)
_EXECUTION_TRIES: Final = 1000  # a millisecond each
KILL: Final = int(signal.SIGKILL)
TERM: Final = int(signal.SIGTERM)
CONT: Final = int(signal.SIGCONT)
STOP: Final = int(signal.SIGSTOP)
# Signals whose default action ends a process (signal(7)); SIGKILL needs no look at handlers.
ENDING: Final = frozenset(range(1, 32)) - {
    signal.SIGCHLD,
    signal.SIGCONT,
    signal.SIGKILL,
    signal.SIGSTOP,
    signal.SIGTSTP,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGURG,
    signal.SIGWINCH,
}

_DEFAULT_SIGNALS = [signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@dataclass(slots=True)
class Child:
    """A process that we started or inherited: its pid, and a pidfd that is readable at its end."""

    pid: int
    pidfd: int
    status: int | None = None
    comm: str = ""  # the name of the program that it was in the end; once it is reaped
    peak: int = 0  # KiB of memory, of it and of those it had waited for; once it is reaped

    def fileno(self) -> int:
        return self.pidfd

    def signal(self, signo: int) -> None:
        """Send ``signo`` if the process is still there."""
        if self.status is None:
            try:
                signal.pidfd_send_signal(self.pidfd, signo)
            except ProcessLookupError:
                return

    def ends_within(self, seconds: float) -> bool:
        """Wait for its end, for ``seconds`` at the most; blocks."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def reap(self) -> int:
        """Its wait status, once it has ended (blocks until then); closes the pidfd.

        Raises ChildProcessError for a process that is not our child.
        """
        if self.status is None:
            # waitid(2) knows usage, os.waitid does not; until it is reaped the pid is its own.
            found = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOWAIT)
            assert found is not None
            self.comm = name(self.pid)
            self.peak = os.wait4(self.pid, 0)[2].ru_maxrss
            os.close(self.pidfd)
            killed = found.si_code in (os.CLD_KILLED, os.CLD_DUMPED)
            self.status = -found.si_status if killed else found.si_status
        return self.status

    def reap_if_ended(self) -> int | None:
        """As ``reap``, and None where the process has not ended."""
        if self.status is None:
            found = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None:
                return None
        return self.reap()


def spawn(
    argv: Argv,
    *,
    env: dict[str, str],
    program: str = "",
    executed: int = -1,
    stdio: tuple[int, ...] | None = None,
    keep: tuple[int, ...] = (),
    terminal: str = "",
    session: bool = True,
    group: int | None = None,
    pid_variable: str = "",
    limits: Mapping[int, int] | None = None,
    closed: Sequence[int] = (),
    blocked: Sequence[int] = (),
) -> Child:
    """Start ``argv``, of ``program`` if that is not its first word; or of what is open as
    ``executed``, a number that is none of the child's.

    ``stdio`` are our descriptors for its 0, 1 and 2 (default: /dev/null, and ours for 1 and 2), and
    for 3 and on if there are more;
    ``keep`` stay open under their own numbers.  With ``terminal``, the path of a pty, the child
    leads a session whose controlling terminal that is.  ``env`` is all of its environment.
    ``group`` is the open directory of a control group of version 2 to be born in (host.clone).
    ``pid_variable`` names a variable that is to hold the child's pid; it costs a fork.  So do
    ``limits``, soft limits by the numbers of setrlimit(2), as far as the hard ones let them be.
    ``closed`` are descriptors that it is not to inherit, ``blocked`` signals that it starts with
    blocked; both for what has neither a group nor the two that cost a fork.

    Raises FileNotFoundError, PermissionError and the like for a program that cannot be executed.
    """
    program = program or argv[0] if executed < 0 else f"/proc/self/fd/{executed}"
    if group is not None or pid_variable or limits:

        def body() -> None:
            for number, soft in (limits or {}).items():
                hard = resource.getrlimit(number)[1]
                resource.setrlimit(number, (lower(soft, hard), hard))
            if pid_variable:
                env[pid_variable] = str(os.getpid())
            _execute(program, argv, env, stdio, keep, terminal, session)

        return Child(*clone.start(group, body))
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = []
    actions += [(os.POSIX_SPAWN_CLOSE, fd) for fd in closed]
    if terminal:
        # A session leader without a terminal gets the one that it opens (tty_ioctl(4)).
        actions += [(os.POSIX_SPAWN_OPEN, 0, terminal, os.O_RDWR, 0)]
        actions += [(os.POSIX_SPAWN_DUP2, 0, 1), (os.POSIX_SPAWN_DUP2, 0, 2)]
        # The lowest free numbers are ours already: what comes after 2 is above them (spawn's
        # callers open it after the pty).
        actions += [(os.POSIX_SPAWN_DUP2, fd, 3 + n) for n, fd in enumerate((stdio or ())[3:])]
    elif stdio is None:
        actions += [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
    else:
        actions += _place(stdio, above=max(2, executed, *stdio, *keep) + 1)
    actions += [(os.POSIX_SPAWN_DUP2, fd, fd) for fd in keep]
    pid = os.posix_spawn(
        program,
        argv,
        env,
        file_actions=actions,
        setsid=session,
        setsigmask=blocked,
        setsigdef=_DEFAULT_SIGNALS,
    )
    return Child(pid, os.pidfd_open(pid))


def lower(one: int, other: int) -> int:
    """The lower of two limits, of which -1 is none."""
    return max(one, other) if min(one, other) < 0 else min(one, other)


def _place(stdio: tuple[int, ...], *, above: int) -> list[tuple[int, ...]]:
    """dup2 actions that cannot overwrite a source before it is used.

    The sources are moved to ``above`` and on first, where none of them is.  glibc clears
    close-on-exec when source and target of a dup2 action are the same descriptor
    (posix_spawn_file_actions_adddup2(3)).
    """
    if all(fd == target or fd >= len(stdio) for target, fd in enumerate(stdio)):
        return [(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(stdio)]
    first = [(os.POSIX_SPAWN_DUP2, fd, above + target) for target, fd in enumerate(stdio)]
    then = [(os.POSIX_SPAWN_DUP2, above + target, target) for target in range(len(stdio))]
    last = [(os.POSIX_SPAWN_CLOSE, above + target) for target in range(len(stdio))]
    return [*first, *then, *last]


def _execute(
    program: str,
    argv: Argv,
    env: dict[str, str],
    stdio: tuple[int, ...] | None,
    keep: tuple[int, ...],
    terminal: str,
    session: bool,
) -> None:
    """In a forked child: do what ``spawn`` has posix_spawn do, and become ``argv``."""
    if session:
        os.setsid()
    if terminal:
        fd = os.open(terminal, os.O_RDWR)
        more = (stdio or ())[3:]
        placed = [fd, fd, fd, *(fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 8) for each in more)]
    elif stdio is None:
        placed = [os.open(os.devnull, os.O_RDONLY)]
    else:
        above = max(2, *stdio, *keep) + 1
        placed = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for fd in stdio]
    for target, fd in enumerate(placed):
        os.dup2(fd, target)
    for fd in keep:
        os.set_inheritable(fd, True)
    for signo in _DEFAULT_SIGNALS:
        signal.signal(signo, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.execve(program, argv, env)


def adopt(pid: int) -> Child:
    """A process that somebody else forked, to be watched.  Raises ProcessLookupError."""
    return Child(pid, os.pidfd_open(pid))


def was_killed(status: int | None) -> bool:
    """Whether a command has not said how it went: it was killed, in time (None) or by a signal, or
    the shell says that it was (POSIX, sh: 128 and the signal)."""
    return status is None or status < 0 or status > 128


def wait_for_ends(watched: list[Child], seconds: float) -> None:
    """Wait until these have ended, for ``seconds`` at the most, and close their pidfds; blocks."""
    poll = select.poll()
    for child in watched:
        poll.register(child.pidfd, select.POLLIN)
    deadline = time.monotonic() + seconds
    left = {child.pidfd for child in watched}
    while left and (patience := deadline - time.monotonic()) > 0:
        for fd, _ in poll.poll(patience * 1000):
            poll.unregister(fd)
            left.discard(fd)
    for child in watched:
        os.close(child.pidfd)


def resident(pid: int) -> int:
    """The bytes of memory that a process has, its share of what it shares with others included in
    full; 0 where it is gone (proc(5), statm)."""
    try:
        with open(f"/proc/{pid}/statm", encoding="utf-8") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def virtual(pid: int) -> int:
    """The bytes of address space that a process has; 0 where it is gone (proc(5), statm)."""
    try:
        with open(f"/proc/{pid}/statm", encoding="utf-8") as file:
            return int(file.read().split()[0]) * _PAGE
    except (OSError, IndexError):
        return 0


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and of the children that it has waited for."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def proportional(pid: int) -> int:
    """As ``resident``, with pages that several processes map divided between them (PSS).

    Takes the kernel milliseconds for a large process; of another user's there is only the former.
    """
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        return resident(pid)
    return 0


def which(program: str, path: str) -> str | None:
    """The file that execvp(3) would run for ``program``, or None."""
    if "/" in program:
        return program if _runnable(program) else None
    for directory in path.split(":"):
        candidate = f"{directory or '.'}/{program}"
        if _runnable(candidate):
            return candidate
    return None


def _runnable(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def arguments(pid: int) -> list[str]:
    """The words that a process was started with (proc(5), cmdline); none where it has ended."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return [os.fsdecode(word) for word in file.read().split(b"\0")[:-1]]
    except (FileNotFoundError, ProcessLookupError):
        return []


def children(pid: int) -> list[int]:
    """The children of a process, of all its threads (proc(5), CONFIG_PROC_CHILDREN)."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", encoding="utf-8") as file:
                found += [int(child) for child in file.read().split()]
    except (FileNotFoundError, ProcessLookupError):
        return found
    return found


def has_ended(pidfd: int) -> bool:
    """Whether the process behind a pidfd has ended."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def becomes_readable(source: HasFileno, seconds: float) -> bool:
    """Wait until there is something to read, for ``seconds`` at the most; blocks."""
    poll = select.poll()
    poll.register(source, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def keep_only(*kept: int) -> None:
    """Close all descriptors but these, and put /dev/null in place of the standard streams: for a
    forked child that is to have nothing else of its parent's."""
    start = 3
    for each in sorted(kept):
        os.closerange(start, each)
        start = each + 1
    os.closerange(start, os.sysconf("SC_OPEN_MAX"))
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    if null > 2:
        os.close(null)


@contextlib.contextmanager
def on_cpus(cpus: Collection[int], otherwise: Collection[int]) -> Iterator[None]:
    """Children that are started within it have ``cpus``, if there are any: a child has those of
    who starts it, which has ``otherwise`` (sched_setaffinity(2))."""
    if not cpus:
        yield
        return
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, otherwise)


def raise_descriptor_limit() -> None:
    """Be able to have as many descriptors as the hard limit allows (getrlimit(2))."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def descriptors() -> frozenset[int]:
    """The descriptors that are open here."""
    found = set()
    for name in os.listdir("/proc/self/fd"):  # the one to look with is among them, and closed now
        with contextlib.suppress(OSError):
            os.fstat(int(name))
            found.add(int(name))
    return frozenset(found)


def inherited() -> list[int]:
    """The descriptors above the standard streams that a program executed here would have too."""
    return [fd for fd in descriptors() if fd > 2 and os.get_inheritable(fd)]


def parent(pid: int) -> int:
    """The parent of a process; 0 where it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def descendants(pid: int, *, apart: Callable[[int], bool] = lambda pid: False) -> list[int]:
    """All processes below ``pid``, parents before their children; without those that are ``apart``,
    and what is below them."""
    found: list[int] = []
    pending = [pid]
    while pending:
        below = [child for child in children(pending.pop()) if not apart(child)]
        found += below
        pending += below
    return found


def name(pid: int) -> str:
    """What ps calls ``pid``; "" where it is gone."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def environment(pid: int) -> bytes:
    """The environment that ``pid`` was started with, as execve(2) has it; empty where it is gone or
    not ours.

    For a moment in execve(2) there is a new memory without an environment: that is waited for.
    """
    try:
        for _ in range(_EXECUTION_TRIES):
            with open(f"/proc/{pid}/environ", "rb") as file:
                if (environ := file.read()) or not _is_in_execve(pid):
                    return environ
            time.sleep(0.001)  # nobody tells
    except OSError:
        pass
    return b""


def _is_in_execve(pid: int) -> bool:
    """Whether ``pid`` has memory (kernel threads have none), and no environment in it yet."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    env_end = fields[48]  # proc(5); an environment without entries has an address as well
    return env_end == "0" and fields[0] not in "ZX" and bool(executable(pid))


def open_files(pid: int) -> set[str]:
    """The paths of what ``pid`` has open; empty where it is gone or not ours."""
    found = set()
    with contextlib.suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            found.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return found


def namespace(pid: int | str, kind: str) -> str:
    """The identity of a namespace of ``pid``, or "" where the process is gone or not ours."""
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}")
    except OSError:
        return ""


def executable(pid: int) -> str:
    """What ``pid`` executes, as its mount namespace names it; "" where that cannot be known."""
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""


def executed(pid: int) -> tuple[int, int]:
    """The device and the inode of what ``pid`` executes, whatever it is called where it runs; zeros
    where that cannot be known."""
    try:
        found = os.stat(f"/proc/{pid}/exe")
    except OSError:
        return (0, 0)
    return (found.st_dev, found.st_ino)


@dataclass(frozen=True, slots=True)
class SignalState:
    """What a process does with signals, and whether it is the first of a pid namespace."""

    caught: int
    ignored: int
    is_init: bool

    def drops(self, signo: int) -> bool:
        """True where the kernel would throw ``signo`` away although its default is to end.

        The first process of a pid namespace gets no signal that it has no handler for, from
        outside as from inside, save SIGKILL and SIGSTOP (pid_namespaces(7)).
        """
        bit = 1 << (signo - 1)
        return self.is_init and not self.caught & bit and not self.ignored & bit


def signal_state(pid: int) -> SignalState | None:
    """Read a process's SignalState from /proc; None where it is gone."""
    caught = ignored = 0
    is_init = False
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name == "SigCgt":
                    caught = int(value, 16)
                elif name == "SigIgn":
                    ignored = int(value, 16)
                elif name == "NSpid":
                    numbers = value.split()
                    is_init = len(numbers) > 1 and numbers[-1] == "1"
    except (FileNotFoundError, ProcessLookupError):
        return None
    return SignalState(caught, ignored, is_init)


def is_stopped(pid: int) -> bool:
    """Whether a process stands still, or is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] in ("T", "t", "Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return True


def send(pid: int, signo: int) -> bool:
    """Signal one process; False where it is gone or has become somebody else's."""
    try:
        os.kill(pid, signo)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def ends_within(pid: int, milliseconds: int) -> bool:
    """Wait for the end of a process that need not be a child of ours; False: it has not come."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(milliseconds))
    finally:
        os.close(pidfd)


def kill_all(pids: list[int], seconds: float) -> bool:
    """SIGKILL processes that need not be children of ours, and wait for their ends; False where
    one of them has not ended in time."""
    poll, left = select.poll(), {}
    for pid in pids:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        left[pidfd] = pid
        poll.register(pidfd, select.POLLIN)
    deadline = time.monotonic() + seconds
    try:
        for pidfd in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(pidfd, KILL)
        waiting = set(left)
        while waiting and (patience := deadline - time.monotonic()) > 0:
            for pidfd, _ in poll.poll(patience * 1000):
                poll.unregister(pidfd)
                waiting.discard(pidfd)
        return not waiting
    finally:
        for pidfd in left:
            os.close(pidfd)


def output(argv: Argv) -> str:
    """What a program that needs no time prints to its standard output; "" where it cannot be
    started."""
    memory = os.memfd_create("roadstead-output", os.MFD_CLOEXEC)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        spawn(argv, env=dict(os.environ), stdio=(null, memory, null)).reap()
        return os.pread(memory, 1 << 20, 0).decode(errors="replace")
    except OSError:
        return ""
    finally:
        os.close(null)
        os.close(memory)
