"""What the facts mean: ok, a warning, or a failure with its cause and what to type.

Pure: facts in, a finding out; the tests are a table of facts and findings.  A failure is what keeps
containers or jobs from running; a warning what takes something away, or will hurt one day.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
from typing import Final

from roadstead.doctor import facts
from roadstead.doctor.facts import Finding
from roadstead.host import namespaces
from roadstead.step.limits import Enforcement

_MIB: Final = 1 << 20
_OLDEST_PYTHON: Final = (3, 11)
# pidfd_open(2) 5.3 and P_PIDFD 5.4; an overlay in a user namespace 5.11 (mount_namespaces(7)).
_OLDEST_KERNEL: Final = (5, 4)
_OVERLAY_KERNEL: Final = (5, 11)
# The first releases that know cgroup v2 and rootless containers in full.
_OLDEST_RUNTIME: Final = {"crun": (1, 0), "runc": (1, 0)}
_NETWORK: Final = frozenset(
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "lustre",
        "gpfs",
        "beegfs",
        "ceph",
        "afs",
        "9p",
        "orangefs",
        "panfs",
        "pvfs2",
        "fuse.sshfs",
        "fuse.glusterfs",
        "fuse.cephfs",
    ]
)


def ok(found: str, *details: str) -> Finding:
    return Finding(status="ok", found=found, details=details)


def warning(found: str, cause: str, fix: str, *details: str) -> Finding:
    return Finding(status="warning", found=found, cause=cause, fix=fix, details=details)


def failure(found: str, cause: str, fix: str, *details: str) -> Finding:
    return Finding(status="failure", found=found, cause=cause, fix=fix, details=details)


def not_applicable(found: str, cause: str = "", fix: str = "") -> Finding:
    return Finding(status="not applicable", found=found, cause=cause, fix=fix)


def _numbers(text: str) -> tuple[int, ...]:
    """The first dotted number in a text: (6, 1) of "6.1.0-18-amd64", () where there is none."""
    found = re.search(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else ()


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


# -- the interpreter and the kernel ---------------------------------------------------------------


def python(seen: facts.Python) -> Finding:
    found = f"{_dotted(seen.version)}, {seen.executable}"
    if seen.version < _OLDEST_PYTHON:
        oldest = _dotted(_OLDEST_PYTHON)
        return failure(found, f"older than {oldest}", f"sudo apt install python{oldest}")
    return ok(found)


def bytecode(seen: facts.Bytecode) -> Finding:
    if not seen.directory:
        return not_applicable("the package is not a directory of files")
    wrong = [
        f"{number} {how}"
        for number, how in ((seen.missing, "not compiled"), (seen.stale, "out of date"))
        if number
    ]
    if not wrong:
        return ok(f"{seen.modules} modules compiled in {seen.directory}")
    sudo = "" if seen.writable else "sudo "
    return warning(
        f"of {seen.modules} modules {' and '.join(wrong)}",
        "each command compiles them again, which takes longer than all that it does",
        f"{sudo}{shlex.quote(seen.python)} -m compileall -q {shlex.quote(seen.directory)}",
    )


def kernel(seen: facts.Kernel) -> Finding:
    version = _numbers(seen.release)
    if version < _OLDEST_KERNEL:
        return failure(
            seen.release,
            f"older than {_dotted(_OLDEST_KERNEL)}: it cannot wait for processes by descriptor",
            "ask an administrator for a newer kernel",
        )
    if version < _OVERLAY_KERNEL:
        return warning(
            seen.release,
            f"before {_dotted(_OVERLAY_KERNEL)} users cannot mount an overlay: a private writable "
            "layer is a copy of the whole root",
            "ask an administrator for a newer kernel",
        )
    return ok(seen.release)


# -- user namespaces and ids ----------------------------------------------------------------------

_STAGES: Final = {
    "unshare": "cannot be made",
    "map": "can be made, but no id can be mapped in one",
    "mount": "can be made, but nothing can be mounted in one",
}


def user_namespaces(seen: facts.UserNamespaces) -> Finding:
    if not seen.stage:
        return ok("made one, mapped ids and mounted in it")
    said = os.strerror(seen.errno)
    found = f"{_STAGES[seen.stage]}: {said}"
    name, right = namespaces.blocked_by(seen.settings)
    if seen.uid == 0 and name != "user.max_user_namespaces":
        name = ""  # the others are for users only
    if name:
        value = seen.settings[name]
        keep = f"echo {name}={right} | sudo tee /etc/sysctl.d/90-userns.conf"
        who = "AppArmor forbids it" if "apparmor" in name else "the kernel's setting forbids it"
        return failure(
            found, f"{who}: {name} is {value}", f"sudo sysctl -w {name}={right} && {keep}"
        )
    if seen.errno in (errno.ENOSYS, errno.EINVAL):
        cause = "the kernel was built without user namespaces (CONFIG_USER_NS)"
        return failure(found, cause, "ask an administrator for a kernel that has them")
    if seen.errno == errno.ENOSPC:
        limit = seen.settings.get("user.max_user_namespaces", "?")
        return failure(
            found,
            f"there are as many as user.max_user_namespaces allows ({limit}), or they are nested "
            "too deeply",
            "sudo sysctl -w user.max_user_namespaces=65536",
        )
    if seen.container:
        filtered = ": its seccomp filter refuses the call" if seen.seccomp else ""
        return failure(
            found,
            f"this is a container that does not allow it{filtered}",
            "start it with --security-opt seccomp=unconfined --security-opt apparmor=unconfined",
        )
    if seen.seccomp:
        cause = "a seccomp filter of this session or service refuses the call"
        return failure(found, cause, "for a service of systemd's: RestrictNamespaces=no")
    return failure(
        found,
        "no setting was found that forbids it; SELinux or another security module may, and so does "
        "a chroot",
        "ask an administrator to look into: sudo dmesg | tail; sudo ausearch -m avc -ts recent",
    )


def subordinate_ids(seen: facts.SubordinateIds) -> Finding:
    if seen.uid == 0:
        return not_applicable("root may map any id")
    absent = [mapper.name for mapper in seen.mappers if not mapper.path]
    degraded = "a container has one id only, yours: programs that change to another user fail"
    if absent:
        return warning(f"{' and '.join(absent)} not installed", degraded, "sudo apt install uidmap")
    lacking = [
        name
        for name, given in (("/etc/subuid", seen.uids), ("/etc/subgid", seen.gids))
        if given is None
    ]
    if lacking:
        user = shlex.quote(seen.user)
        span = f"{seen.free}-{seen.free + 65535}"
        return warning(
            f"no range for you in {' and '.join(lacking)}",
            degraded,
            f"sudo usermod --add-subuids {span} --add-subgids {span} {user}",
        )
    ranges = f"uids {_range(seen.uids)}, gids {_range(seen.gids)}"
    if seen.error == "":
        return ok(f"{ranges}; mapped them in a namespace")
    if seen.no_new_privileges:
        cause = "no_new_privs is set for this session: setuid programs have no effect"
        fix = "start from a login, not from a service with NoNewPrivileges=yes or from a container"
        return failure(ranges, cause, fix)
    for mapper in seen.mappers:
        path = shlex.quote(mapper.path)
        if not mapper.privileged:
            cause = f"{mapper.path} is neither setuid root nor has it the capability"
            return failure(ranges, cause, f"sudo chmod u+s {path}")
        if mapper.nosuid:
            cause = f"{mapper.path} lies on a file system that is mounted nosuid"
            return failure(
                ranges, cause, f"sudo mount -o remount,suid $(findmnt -no TARGET -T {path})"
            )
    if seen.error is None:
        return warning(ranges, "not tried: user namespaces do not work here", "see user-namespaces")
    return failure(
        ranges,
        f"mapping them failed: {seen.error}",
        "ask an administrator to check your lines in /etc/subuid and /etc/subgid",
    )


def _range(given: tuple[int, int] | None) -> str:
    return f"{given[0]}-{given[0] + given[1] - 1}" if given else "none"


# -- control groups --------------------------------------------------------------------------------

_WANTED: Final = frozenset({"cpu", "memory", "pids"})


def cgroups(seen: facts.Cgroups) -> Finding:
    if not seen.layout:
        return warning(
            "none are mounted at /sys/fs/cgroup",
            "memory, CPU and process limits cannot be enforced by the kernel",
            "ask an administrator to mount them: sudo mount -t cgroup2 none /sys/fs/cgroup",
        )
    if seen.uid == 0:
        return ok(f"{seen.layout}; root may make groups")
    unified = "boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line"
    if seen.layout != "v2":
        if seen.delegated:
            return ok(f"{seen.layout}, delegated to you: {', '.join(sorted(seen.delegated))}")
        return warning(
            f"{seen.layout}, nothing delegated to you",
            "a user's groups need control groups v2: limits of memory and processes are not "
            "enforced by the kernel",
            f"ask an administrator to {unified}",
        )
    if seen.delegated is None:
        fix = (
            f"log in over systemd (ssh, not su), or: systemd-run --user --scope -p Delegate=yes "
            f"$SHELL; for services: sudo loginctl enable-linger {shlex.quote(seen.user)}"
            if seen.systemd
            else _by_hand(f"/sys/fs/cgroup/{seen.uid}", seen.uid)
        )
        cause = f"{seen.path or 'your group'} is not yours to divide: limits are not enforced"
        return warning("v2, nothing delegated to you", cause, fix)
    lacking = sorted(_WANTED - seen.delegated)
    held = ", ".join(sorted(seen.delegated)) or "no controller"
    if lacking:
        unit = "/etc/systemd/system/user@.service.d/delegate.conf"
        return warning(
            f"v2, delegated to you: {held}",
            f"without {', '.join(lacking)} those limits are not enforced",
            f"sudo mkdir -p {os.path.dirname(unit)} && printf '[Service]\\nDelegate=cpu cpuset io "
            f"memory pids\\n' | sudo tee {unit} && sudo systemctl daemon-reload, then log in again",
        )
    return ok(f"v2, delegated to you: {held}", seen.path)


def _by_hand(group: str, uid: int) -> str:
    """Delegation to a user without systemd, of this shell (cgroups(7), "Cgroups delegation")."""
    files = " ".join(f"{group}/cgroup.{name}" for name in ("procs", "subtree_control", "threads"))
    return (
        f"sudo mkdir {group} && sudo chown {uid} {group} {files} && "
        f"echo $$ | sudo tee {group}/cgroup.procs"
    )


def cgroup_hybrid(seen: facts.Hybrid) -> Finding:
    if not seen.hybrid:
        return not_applicable("control groups v1 and v2 are not mixed here")
    if seen.runtime != "crun":
        return ok(f"v1 and v2 are mixed; {seen.runtime or 'no runtime'} does not mind")
    if seen.error == "":
        return ok("v1 and v2 are mixed; crun is called in a namespace that shows it v1 only")
    return failure(
        "v1 and v2 are mixed",
        "crun refuses such a host, and a namespace that shows it v1 only cannot be made: "
        f"{seen.error or 'not tried'}",
        "export ROADSTEAD_RUNTIME=runc, or boot with systemd.unified_cgroup_hierarchy=1",
    )


def limits(seen: tuple[Enforcement, ...]) -> Finding:
    """What holds the limits of a step that is started from here; memory that nothing in the kernel
    holds is a warning, the rest is said."""
    lines = tuple(f"{each.kind}: {each.mechanism} ({each.why})" for each in seen)
    by = {each.kind: each for each in seen}
    found = ", ".join(f"{each.kind} by {each.mechanism}" for each in seen)
    memory = by["memory"]
    if memory.mechanism in ("watched", "none"):
        return warning(
            found,
            "a step that uses more memory than it asked for is ended a moment later, "
            "not held at its limit",
            memory.better,
            *lines,
        )
    return ok(found, *lines)


# -- file systems for containers ------------------------------------------------------------------


def overlay(seen: facts.Overlay) -> Finding:
    where = f"{seen.place} ({seen.kind})"
    if seen.namespace:
        return warning(
            f"not tried over {where}",
            f"no mount namespace of your own: {seen.namespace}",
            "see user-namespaces",
        )
    if seen.layer:
        return warning(
            f"none over {where}: {seen.layer}",
            "--container-writable=private copies the whole root instead",
            "keep bundles on a local file system (ext4, xfs), on Linux 5.11 or newer",
        )
    if seen.layer is None:
        return not_applicable(f"not tried: {seen.place} cannot be written to")
    if seen.upper:
        return ok(f"over {where}, with the writable layer in memory", f"on disk: {seen.upper}")
    return ok(f"over {where}, with the writable layer in memory or on disk")


def fuse(seen: facts.Fuse) -> Finding:
    if not seen.device:
        return ok("/dev/fuse can be opened")
    if not seen.programs:
        found = f"/dev/fuse: {seen.device}; no program here uses it"
        return not_applicable(found, "only fuse-overlayfs and squashfuse need it", _FUSE_FIX)
    cause = f"{' and '.join(seen.programs)} cannot work without it"
    return warning(f"/dev/fuse: {seen.device}", cause, _FUSE_FIX)


_FUSE_FIX: Final = "sudo modprobe fuse && sudo chmod 666 /dev/fuse"


def tool(seen: facts.Tool) -> Finding:
    if seen.path:
        return ok(seen.path)
    return not_applicable("not installed", seen.purpose, f"sudo apt install {seen.package}")


# -- runtimes --------------------------------------------------------------------------------------


def runtimes(seen: facts.Runtimes) -> Finding:
    if not seen.found:
        return failure("none found", "a container needs an OCI runtime", "sudo apt install crun")
    return ok(", ".join(name for name, _ in seen.found), *(path for _, path in seen.found))


def runtime(seen: facts.Runtime) -> Finding:
    if seen.untried:
        return not_applicable(f"not looked for: {seen.untried}")
    if seen.error:
        return failure("none", seen.error, seen.hint or "sudo apt install crun")
    name = os.path.basename(seen.path)
    found = f"{seen.path} ({seen.source}): {seen.version or 'no version'}"
    if seen.complaint:
        return failure(
            found,
            f"it cannot be executed: {seen.complaint}",
            f"sudo apt install --reinstall {name}",
        )
    oldest = _OLDEST_RUNTIME.get(name)
    if oldest and () < _numbers(seen.version) < oldest:
        return warning(
            found,
            f"older than {_dotted(oldest)}, the first that runs containers without root in full",
            f"sudo apt install {name} from a newer release",
            *seen.features,
        )
    return ok(found, *seen.features)


def oci_conf(seen: facts.OciConf) -> Finding:
    if seen.error:
        return failure(seen.path or "unusable", seen.error, seen.hint or "man oci.conf")
    if not seen.path:
        return ok("there is none: the built-in commands are used")
    found = f"{seen.path}: {seen.mode} mode"
    if not seen.starts:
        return failure(
            seen.path, "it names no RunTimeRun: no container can be started", "man oci.conf"
        )
    if seen.missing:
        key, program = seen.missing[0]
        return failure(
            found,
            "; ".join(f"{key}: {program} is not there" for key, program in seen.missing),
            f"install {program}, or correct {key} in {seen.path}",
        )
    if seen.warnings:
        return warning(found, seen.warnings[0], "correct the lines named", *seen.warnings[1:])
    return ok(found)


def container(seen: facts.Container) -> Finding:
    if seen.untried:
        return not_applicable(f"not tried: {seen.untried}", fix=seen.fix)
    commands = [f"{step['operation']}: {step['found']}" for step in seen.steps if step["argv"]]
    for verdict, judged in (("failure", failure), ("warning", warning)):
        for step in seen.steps:
            if step["verdict"] == verdict:
                found = (
                    f"{step['operation']} {'failed' if verdict == 'failure' else 'is not right'}"
                )
                fix = step["hint"] or "roadstead runtime test BUNDLE shows each command"
                return judged(found, step["found"], fix, *commands)
    if seen.unfinished:
        cause = "it was killed, or took too long"
        return failure("no result", cause, "roadstead runtime test BUNDLE", *commands)
    seconds = sum(step["seconds"] for step in seen.steps)
    return ok(f"ran one and removed it, {seconds * 1000:.0f} ms", *commands)


# -- places ----------------------------------------------------------------------------------------


def disk(seen: facts.Disk) -> Finding:
    variable = "XDG_STATE_HOME" if seen.what == "state" else "XDG_RUNTIME_DIR"
    elsewhere = f"export {variable}=DIR, a directory of your own on another file system"
    found = f"{seen.path} ({seen.kind}): {_size(seen.free)} free"
    if not seen.writable:
        return failure(found, "you may not write there", elsewhere)
    if seen.what == "runtime" and seen.noexec:
        return failure(
            found, "it is mounted noexec: batch scripts are executed from there", elsewhere
        )
    if seen.inodes == 0:
        return failure(found, "no file can be made: the inodes are used up", elsewhere)
    if seen.free < 16 * _MIB:
        return failure(found, "the file system is full", f"make room, or {elsewhere}")
    if seen.what == "state" and seen.kind in _NETWORK:
        return warning(
            found,
            "the journal is a database that is locked and synced for each job: over the network "
            "that is slow, and locks can be lost",
            f"export {variable}=/var/tmp/$USER-state, in the profile of your shell",
        )
    if seen.free < 256 * _MIB:
        return warning(found, "the file system is nearly full", f"make room, or {elsewhere}")
    return ok(found)


def _size(number: int) -> str:
    return f"{number / (1 << 30):.1f} GiB" if number >= 1 << 30 else f"{number >> 20} MiB"


def runtime_directory(seen: facts.RuntimeDirectory) -> Finding:
    own = "export XDG_RUNTIME_DIR=$(mktemp -d)"
    found = f"{seen.xdg}: owner {seen.owner}, mode {seen.mode:04o}"
    if seen.exists:
        if seen.owner != seen.uid:
            return failure(
                found,
                f"it belongs to uid {seen.owner}, not to you: left over from su or sudo?",
                "unset XDG_RUNTIME_DIR",
            )
        if seen.mode & 0o700 != 0o700 or (seen.mode & 0o022 and not seen.mode & 0o1000):
            return failure(
                found,
                "others could replace what is in it" if seen.mode & 0o022 else "you cannot use it",
                f"chmod 700 {shlex.quote(seen.xdg)}",
            )
    if seen.error:
        return failure(seen.path, seen.error, f"chmod 700 {shlex.quote(seen.path)}, or {own}")
    if seen.exists:
        if seen.mode & 0o077:
            return warning(
                found,
                "others may look into it; the XDG specification wants mode 0700",
                f"chmod 700 {shlex.quote(seen.xdg)}",
            )
        return ok(f"{seen.path}, in XDG_RUNTIME_DIR")
    why = f"XDG_RUNTIME_DIR={seen.xdg} does not exist" if seen.xdg else "XDG_RUNTIME_DIR is not set"
    if not seen.sticky:
        return failure(
            f"{seen.path}: {why}",
            f"everybody can replace what is in {seen.above}, which has no sticky bit",
            f"sudo chmod +t {shlex.quote(seen.above)}, or {own}",
        )
    if seen.xdg:
        return warning(
            f"{seen.path}", f"{why}, so it is not used", "log in over systemd, or unset it"
        )
    return ok(f"{seen.path}: {why}, which is fine")


# -- limits of the session -------------------------------------------------------------------------


def open_files(seen: facts.OpenFiles) -> Finding:
    found = f"soft {_limit(seen.soft)}, hard {_limit(seen.hard)}"
    hard = seen.hard if seen.hard >= 0 else 1 << 30
    if hard < 256:
        return failure(
            found, "a controller needs four for each srun that waits", "ulimit -Hn 4096 (as root)"
        )
    if 0 <= seen.soft < 256 or hard < 1024:
        return warning(
            found,
            "programs with many files, and many steps at a time, will fail",
            f"ulimit -n {min(hard, 1024)}",
        )
    return ok(found)


def processes(seen: facts.Processes) -> Finding:
    if seen.limit < 0 or seen.uid == 0:
        return ok(f"no limit, {seen.used} in use")
    found = f"{seen.used} of {seen.limit} in use"
    fix = "ulimit -u unlimited, or nproc in /etc/security/limits.conf"
    left = seen.limit - seen.used
    if left < 16:
        return failure(found, "no step can be started", fix)
    if left < 128:
        return warning(found, "a step with many tasks cannot be started", fix)
    return ok(found)


def _limit(number: int) -> str:
    return "unlimited" if number < 0 else str(number)


# -- the engine ------------------------------------------------------------------------------------


def controller(seen: facts.Controller) -> Finding:
    end = f"kill {seen.pid}" if seen.pid else "roadstead engine stop"
    if seen.state == "none":
        return ok("not running (the first command starts it)")
    if seen.state == "silent":
        return failure(f"pid {seen.pid}", "it does not answer", end)
    if seen.state == "error":
        return failure("it cannot be asked", seen.error, end)
    found = f"pid {seen.pid}, version {seen.version}"
    if seen.version != seen.ours:
        return warning(
            found,
            f"it is of another version than this command ({seen.ours})",
            "roadstead engine stop (what runs goes on)",
        )
    return ok(found)


def log(seen: facts.Log) -> Finding:
    if seen.error:
        return failure(
            seen.path,
            f"it cannot be written: {seen.error}",
            f"chmod u+rw {shlex.quote(seen.path)}, or export XDG_STATE_HOME=DIR",
        )
    return ok(seen.path if seen.exists else f"{seen.path} (not yet there)")


def lingering(seen: facts.Lingering) -> Finding:
    if not seen.systemd:
        return not_applicable("systemd does not run here")
    if seen.uid == 0:
        return not_applicable("root's processes outlive a session")
    if seen.linger:
        return ok("your processes and files outlive your session")
    fix = f"loginctl enable-linger {shlex.quote(seen.user)}"
    if seen.kill:
        cause = "KillUserProcesses=yes: your jobs are killed when you log out"
        return warning("Linger=no", cause, fix)
    if seen.runtime.startswith("/run/user/"):
        cause = f"{seen.runtime} is removed at your last logout, under jobs that still run"
        return warning("Linger=no", cause, fix)
    return ok("Linger=no; jobs outlive your session all the same")
