"""A private user and mount namespace for a step, where the OCI runtime is then called.

Needed when something has to be mounted for the runtime without being root: an overlay as the
container's writable layer, or an empty directory over a cgroup tree that the runtime cannot cope
with.  What is mounted here is seen by nobody else and goes when the last process of the step goes,
however it goes: nothing to clean up.

In it the user is uid 0 (host: the user), and ids 1… are the user's subordinate ids, when asked for
and when newuidmap(1) grants them.  User namespaces of containers nest inside; oci/idmap.py writes
their mappings in the ids of this one.  The caller must be single-threaded (unshare(2),
CLONE_NEWUSER).
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # no enums: 4 ms
import errno
import os
import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from roadstead.errors import RuntimeFailure
from roadstead.host import fork, linux, process

CGROUP_UNIFIED = "/sys/fs/cgroup/unified"


@dataclass(frozen=True, slots=True)
class SubordinateIds:
    """A user's first range in /etc/subuid and in /etc/subgid: (start, count); None: no range."""

    uids: tuple[int, int] | None
    gids: tuple[int, int] | None

    @property
    def usable(self) -> bool:
        return self.uids is not None and self.gids is not None


def subordinate_ids(user: str, uid: int) -> SubordinateIds:
    """The ranges that /etc/subuid and /etc/subgid give this user, where newuidmap is installed."""
    path = os.environ.get("PATH", os.defpath)
    if not (process.which("newuidmap", path) and process.which("newgidmap", path)):
        return SubordinateIds(None, None)
    return SubordinateIds(*given_ranges(user, uid))


def given_ranges(user: str, uid: int) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    """The first range of this user in /etc/subuid and in /etc/subgid, usable or not."""
    return _first_range("/etc/subuid", user, uid), _first_range("/etc/subgid", user, uid)


def first_free_id(lowest: int = 100000) -> int:
    """The first id that is above every range of /etc/subuid and /etc/subgid, and not below
    ``lowest`` (login.defs(5), SUB_UID_MIN)."""
    ranges = [*_ranges("/etc/subuid"), *_ranges("/etc/subgid")]
    return max([lowest, *(start + count for _, start, count in ranges)])


def _first_range(path: str, user: str, uid: int) -> tuple[int, int] | None:
    own = [(start, count) for name, start, count in _ranges(path) if name in (user, str(uid))]
    return own[0] if own else None


def _ranges(path: str) -> list[tuple[str, int, int]]:
    """The lines of a file as subuid(5) describes it; none where there is no file."""
    found = []
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, numbers = line.strip().partition(":")
                start, _, count = numbers.partition(":")
                if start.isdigit() and count.isdigit():
                    found.append((name, int(start), int(count)))
    except FileNotFoundError:
        return []
    return found


def hybrid_cgroups() -> bool:
    """True on a host that has cgroup v1 and a cgroup2 tree with controllers beside it.

    crun refuses such a host: "cgroups in hybrid mode not supported" (1.8 and 1.21 do).
    """
    try:
        with open(f"{CGROUP_UNIFIED}/cgroup.controllers", encoding="utf-8") as file:
            return bool(file.read().split())
    except OSError:
        return False


def enter(*, ranges: SubordinateIds | None, hide_unified: bool) -> None:
    """Move this process into its own mount namespace and, unless root, its own user namespace.

    Raises RuntimeFailure when the kernel or newuidmap does not allow it, with what to change.
    """
    root = os.geteuid() == 0
    if root:
        linux.unshare(linux.CLONE_NEWNS)
        linux.mount("none", "/", "none", linux.MS_REC | linux.MS_PRIVATE)
    else:
        _enter_user_namespace(ranges)
    if hide_unified:
        _hide_unified()


def join(pidfd: int, *, hide_unified: bool) -> None:
    """Move this process into the namespaces that another process of this user's has entered.

    Raises OSError where that has ended meanwhile (ESRCH).
    """
    own_user = os.geteuid() != 0
    linux.set_namespaces(pidfd, linux.CLONE_NEWNS | (linux.CLONE_NEWUSER if own_user else 0))
    if hide_unified and hybrid_cgroups():
        _hide_unified()


def _hide_unified() -> None:
    if os.getuid() == 0 and not _in_user_namespace():
        linux.unmount(CGROUP_UNIFIED, linux.MNT_DETACH)
    else:
        # Not ours to unmount, in a user namespace (mount_namespaces(7), locked mounts): cover it.
        linux.mount("tmpfs", CGROUP_UNIFIED, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "size=64k")


def _enter_user_namespace(ranges: SubordinateIds | None) -> None:
    uid, gid = os.getuid(), os.getgid()
    try:
        if ranges is not None and ranges.uids and ranges.gids:
            _map_ranges(uid, gid, ranges.uids, ranges.gids)
        else:
            linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS)
            _write("/proc/self/setgroups", "deny")
            _write("/proc/self/uid_map", f"0 {uid} 1")
            _write("/proc/self/gid_map", f"0 {gid} 1")
    except OSError as error:
        raise RuntimeFailure(
            f"this host does not allow user namespaces: {error.strerror}",
            hint=user_namespace_hint(),
        ) from None


def _in_user_namespace() -> bool:
    with open("/proc/self/uid_map", encoding="utf-8") as file:
        return file.read().split() != ["0", "0", "4294967295"]


_held: dict[tuple[int, int], int] = {}


def held() -> frozenset[int]:
    """The descriptors of the namespaces that this process keeps."""
    return frozenset(_held.values())


def of_one_id(uid: int, gid: int) -> str:
    """A user namespace in which the user is ``uid`` and ``gid`` and there is nobody else: a path
    that names it for as long as this process lives.  "" where none can be made.

    crun has newuidmap and newgidmap map even one id, two programs with the rights of root (2.4 ms
    of CPU a container); what the kernel lets a user do herself is done here, once: one id, the
    caller's own, and no setgroups (user_namespaces(7)).  The caller is not moved into it.
    """
    if (uid, gid) not in _held:
        try:
            _held[uid, gid] = _make_of_one_id(uid, gid)
        except OSError:
            return ""  # the runtime tries itself, and says what is in the way
    return f"/proc/{os.getpid()}/fd/{_held[uid, gid]}"


def _make_of_one_id(uid: int, gid: int) -> int:
    """The descriptor of such a namespace, which a child makes and leaves.  Raises OSError."""
    outside_uid, outside_gid = os.getuid(), os.getgid()
    made_read, made_write = os.pipe2(os.O_CLOEXEC)
    go_read, go_write = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            os.close(go_write)
            linux.unshare(linux.CLONE_NEWUSER)
            _write("/proc/self/setgroups", "deny")
            _write("/proc/self/uid_map", f"{uid} {outside_uid} 1")
            _write("/proc/self/gid_map", f"{gid} {outside_gid} 1")
            os.write(made_write, b"+")
            os.read(go_read, 1)
        finally:
            os._exit(0)
    os.close(made_write)
    os.close(go_read)
    try:
        if not os.read(made_read, 1):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(made_read)
        os.close(go_write)
        os.waitpid(child, 0)


def first_process(prepare: Callable[[], object]) -> int:
    """A process that does nothing but be the first of a PID namespace (pid_namespaces(7)): its pid.
    It has called ``prepare`` when this returns.  It is, or becomes, a child of a subreaper's like
    ours; what ends in there without a parent it lets go.  Raises OSError.
    """
    read, write = os.pipe2(os.O_CLOEXEC)

    def first() -> None:
        prepare()
        # SIGCHLD ignored is the kernel's order to reap (waitpid(2)); all others would only be
        # dropped, as for the first process of any such namespace, which a sender cannot know.
        for signo in {*process.ENDING, signal.SIGCHLD}:
            signal.signal(signo, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        linux.set_process_name("roadstead-pause")
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.write(write, b"+")
        os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        while True:
            signal.pause()

    def between() -> None:
        linux.unshare(linux.CLONE_NEWPID)
        os.write(write, b"%d " % fork.run_in_child(first))

    child = fork.run_in_child(between)
    os.close(write)
    os.waitpid(child, 0)
    said = b""
    while not said.endswith(b"+") and (data := os.read(read, 64)):
        said += data
    os.close(read)
    number = said.replace(b"+", b"").strip()
    if not number or b"+" not in said:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))
    return int(number)


def user_namespace_hint() -> str:
    """Which setting forbids user namespaces and what changes it; a guess where none is seen."""
    found = blocking_setting()
    return found or "inside another container, it must be started with user namespaces allowed"


def blocking_setting() -> str:
    """The command that changes the setting that forbids user namespaces; "" where none does."""
    name, right = blocked_by(settings())
    return f"sudo sysctl -w {name}={right}" if name else ""


# setting → the value that forbids user namespaces to users, and one that allows them: Debian's own
# switch, the kernel's limit (user_namespaces(7)), and Ubuntu's since 23.10, with which a namespace
# can be made in which nothing can be done.
_SETTINGS: Final = {
    "kernel.unprivileged_userns_clone": ("0", "1"),
    "user.max_user_namespaces": ("0", "65536"),
    "kernel.apparmor_restrict_unprivileged_userns": ("1", "0"),
}


def settings() -> dict[str, str]:
    """The values of those settings that this kernel has."""
    found = {}
    for name in _SETTINGS:
        try:
            with open(f"/proc/sys/{name.replace('.', '/')}", encoding="utf-8") as file:
                found[name] = file.read().strip()
        except OSError:
            continue
    return found


def blocked_by(values: Mapping[str, str]) -> tuple[str, str]:
    """The first setting of ``values`` that forbids user namespaces and a value that does not; or
    two empty strings."""
    for name, (wrong, right) in _SETTINGS.items():
        if values.get(name) == wrong:
            return name, right
    return "", ""


def _map_ranges(uid: int, gid: int, uids: tuple[int, int], gids: tuple[int, int]) -> None:
    """newuidmap(1) must be called from outside the new namespace, once it is there.

    A forked child waits for our unshare and calls it for us; its exit status says how it went.
    """
    me = str(os.getpid())
    go_read, go_write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(go_write)
            os.read(go_read, 1)
            status = _call_mappers(me, uid, gid, uids, gids)
        finally:
            os._exit(status)
    os.close(go_read)
    try:
        linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS)
    finally:
        os.close(go_write)
        _, status = os.waitpid(child, 0)
    if status:
        raise RuntimeFailure(
            "newuidmap or newgidmap refused the user's range of /etc/subuid or /etc/subgid",
            hint="ask an administrator to check those two files, or remove the user's lines",
        )


def _call_mappers(me: str, uid: int, gid: int, uids: tuple[int, int], gids: tuple[int, int]) -> int:
    path = os.environ.get("PATH", os.defpath)
    mappers = []
    for program, own, (start, count) in (("newuidmap", uid, uids), ("newgidmap", gid, gids)):
        found = process.which(program, path)
        if found is None:
            return 1
        argv = [found, me, "0", str(own), "1", "1", str(start), str(count)]
        mappers.append(process.spawn(argv, env={"PATH": path}))
    statuses = [mapper.reap() for mapper in mappers]
    return 1 if any(statuses) else 0


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
