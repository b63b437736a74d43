"""Judging a machine: facts in, a finding out, every cause once."""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Callable
from typing import Any

import pytest

from roadstead.doctor import devices, facts, judge
from roadstead.doctor.checks import CHECKS
from roadstead.doctor.facts import Finding
from roadstead.step.limits import Enforcement

CLONE, LIMIT, APPARMOR = (
    "kernel.unprivileged_userns_clone",
    "user.max_user_namespaces",
    "kernel.apparmor_restrict_unprivileged_userns",
)
OPEN = {CLONE: "1", LIMIT: "95000", APPARMOR: "0"}
MAPPERS = tuple(
    facts.Mapper(name=name, path=f"/usr/bin/{name}", privileged=True)
    for name in ("newuidmap", "newgidmap")
)
RANGE = (100000, 65536)
GIB = 1 << 30
ALL = frozenset({"cpu", "memory", "pids", "io"})


def namespaces(stage: str, number: int, uid: int = 1000, **more: Any) -> facts.UserNamespaces:
    settings = {**OPEN, **more.pop("settings", {})}
    return facts.UserNamespaces(uid=uid, stage=stage, errno=number, settings=settings, **more)


def ids(**changes: Any) -> facts.SubordinateIds:
    usual = facts.SubordinateIds(
        user="ann", uid=1000, uids=RANGE, gids=RANGE, mappers=MAPPERS, error=""
    )
    return dataclasses.replace(usual, **changes)


def cgroups(layout: str, **more: Any) -> facts.Cgroups:
    return facts.Cgroups(**{"layout": layout, "uid": 1000, "user": "ann", **more})


def disk(**changes: Any) -> facts.Disk:
    usual = facts.Disk(what="state", path="/s", kind="ext4", free=9 * GIB, inodes=1000)
    return dataclasses.replace(usual, **changes)


def directory(**changes: Any) -> facts.RuntimeDirectory:
    usual = facts.RuntimeDirectory(
        uid=1000, xdg="/run/user/1000", exists=True, owner=1000, mode=0o700, path="/run/user/1000/r"
    )
    return dataclasses.replace(usual, **changes)


def fallback(**changes: Any) -> facts.RuntimeDirectory:
    usual = directory(xdg="", exists=False, owner=-1, mode=0, path="/tmp/r-1000", above="/tmp")
    return dataclasses.replace(usual, **changes)


def mapper(**changes: Any) -> tuple[facts.Mapper, ...]:
    return (dataclasses.replace(MAPPERS[0], **changes), MAPPERS[1])


def runtime(version: str, name: str = "crun", **more: Any) -> facts.Runtime:
    return facts.Runtime(path=f"/usr/bin/{name}", source="on PATH", version=version, **more)


def step(verdict: str, **more: Any) -> dict[str, Any]:
    return {
        **{"operation": "run", "verdict": verdict, "found": "it said no", "argv": ["x"]},
        **{"hint": "", "seconds": 0.02, **more},
    }


def lingering(**more: Any) -> facts.Lingering:
    return facts.Lingering(**{"systemd": True, "uid": 1000, "user": "ann", **more})


DEVICES = devices.Devices(directories=("/e",), kinds=(), errors=(), gpus=())
OVERLAY = facts.Overlay(place="/home", kind="ext4", layer="", upper="")

_CPUS = Enforcement("cpus", "affinity", "a program may change it")
HELD = (_CPUS, Enforcement("memory", "cgroup v2", "delegated"))
WATCHED = (_CPUS, Enforcement("memory", "watched", "every second", "systemd-run …"))


Row = tuple[Callable[[Any], Finding], Any, str, str, str]
# judgement, facts, status, words of what was found or of the cause, words of the fix
TABLE: list[Row] = [
    (judge.python, facts.Python(version=(3, 11, 2), executable="/p"), "ok", "3.11.2, /p", ""),
    (judge.python, facts.Python(version=(3, 9, 1), executable="/p"), "failure", "older", "python3"),
    (judge.bytecode, facts.Bytecode(directory=""), "not applicable", "not a directory", ""),
    (judge.bytecode, facts.Bytecode(directory="/d", modules=9), "ok", "9 modules", ""),
    (
        judge.bytecode,
        facts.Bytecode(directory="/a b", modules=9, missing=2, stale=1, writable=False),
        "warning",
        "2 not compiled and 1 out of date",
        "sudo python3 -m compileall -q '/a b'",
    ),
    (judge.kernel, facts.Kernel(release="6.1.0-18-amd64"), "ok", "6.1.0", ""),
    (judge.kernel, facts.Kernel(release="5.10.1"), "warning", "before 5.11", "newer kernel"),
    (judge.kernel, facts.Kernel(release="4.18.0-500.el8"), "failure", "5.4", "newer kernel"),
    (judge.user_namespaces, namespaces("", 0), "ok", "mounted in it", ""),
    (
        judge.user_namespaces,
        namespaces("unshare", errno.EPERM, settings={CLONE: "0"}),
        "failure",
        f"{CLONE} is 0",
        f"sudo sysctl -w {CLONE}=1",
    ),
    (
        judge.user_namespaces,
        namespaces("unshare", errno.ENOSPC, settings={LIMIT: "0"}),
        "failure",
        f"{LIMIT} is 0",
        f"sudo sysctl -w {LIMIT}=65536",
    ),
    (
        judge.user_namespaces,
        namespaces("unshare", errno.ENOSPC, settings={LIMIT: "3"}),
        "failure",
        "allows (3)",
        LIMIT,
    ),
    (
        judge.user_namespaces,
        namespaces("mount", errno.EACCES, settings={APPARMOR: "1"}),
        "failure",
        f"AppArmor forbids it: {APPARMOR} is 1",
        f"sudo sysctl -w {APPARMOR}=0",
    ),
    (
        judge.user_namespaces,
        namespaces("map", errno.EPERM, uid=0, settings={CLONE: "0"}),
        "failure",
        "no setting was found",
        "dmesg",
    ),
    (
        judge.user_namespaces,
        namespaces("unshare", errno.EINVAL),
        "failure",
        "CONFIG_USER_NS",
        "kernel",
    ),
    (
        judge.user_namespaces,
        namespaces("unshare", errno.EPERM, container=True, seccomp=True),
        "failure",
        "a container that does not allow it: its seccomp filter",
        "--security-opt seccomp=unconfined",
    ),
    (
        judge.user_namespaces,
        namespaces("unshare", errno.EPERM, seccomp=True),
        "failure",
        "seccomp filter of this session",
        "RestrictNamespaces=no",
    ),
    (judge.user_namespaces, namespaces("unshare", errno.EPERM), "failure", "SELinux", "ausearch"),
    (judge.subordinate_ids, ids(), "ok", "uids 100000-165535", ""),
    (judge.subordinate_ids, ids(uid=0), "not applicable", "root", ""),
    (
        judge.subordinate_ids,
        ids(mappers=(facts.Mapper(name="newuidmap"), MAPPERS[1]), error=None),
        "warning",
        "newuidmap not installed",
        "apt install uidmap",
    ),
    (
        judge.subordinate_ids,
        ids(uids=None, gids=None, error=None),
        "warning",
        "no range for you in /etc/subuid and /etc/subgid",
        "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ann",
    ),
    (
        judge.subordinate_ids,
        ids(gids=None, error=None, free=7),
        "warning",
        "in /etc/subgid",
        "subgids 7-65542 ann",
    ),
    (
        judge.subordinate_ids,
        ids(mappers=mapper(privileged=False), error="Operation not permitted"),
        "failure",
        "neither setuid",
        "sudo chmod u+s /usr/bin/newuidmap",
    ),
    (
        judge.subordinate_ids,
        ids(mappers=mapper(nosuid=True), error="x"),
        "failure",
        "nosuid",
        "suid",
    ),
    (
        judge.subordinate_ids,
        ids(no_new_privileges=True, error="x"),
        "failure",
        "no_new_privs",
        "login",
    ),
    (judge.subordinate_ids, ids(error="write failed"), "failure", "write failed", "/etc/subuid"),
    (judge.subordinate_ids, ids(error=None), "warning", "not tried", "user-namespaces"),
    (judge.cgroups, cgroups(""), "warning", "none are mounted", "mount -t cgroup2"),
    (judge.cgroups, cgroups("v1", uid=0), "ok", "root may", ""),
    (
        judge.cgroups,
        cgroups("v1"),
        "warning",
        "v1, nothing delegated",
        "unified_cgroup_hierarchy=1",
    ),
    (judge.cgroups, cgroups("hybrid"), "warning", "hybrid, nothing", "unified_cgroup_hierarchy=1"),
    (judge.cgroups, cgroups("hybrid", delegated=ALL), "ok", "delegated to you: cpu", ""),
    (judge.cgroups, cgroups("v2", systemd=True), "warning", "v2, nothing", "systemd-run --user"),
    (
        judge.cgroups,
        cgroups("v2", path="/sys/x"),
        "warning",
        "/sys/x is not yours",
        "chown 1000 /sys",
    ),
    (judge.cgroups, cgroups("v2", delegated=ALL), "ok", "io, memory, pids", ""),
    (
        judge.cgroups,
        cgroups("v2", delegated=frozenset({"memory", "pids"})),
        "warning",
        "without cpu",
        "Delegate=cpu",
    ),
    (judge.cgroup_hybrid, facts.Hybrid(hybrid=False, runtime="crun"), "not applicable", "", ""),
    (
        judge.cgroup_hybrid,
        facts.Hybrid(hybrid=True, runtime="runc"),
        "ok",
        "runc does not mind",
        "",
    ),
    (judge.cgroup_hybrid, facts.Hybrid(hybrid=True, runtime="crun", error=""), "ok", "v1 only", ""),
    (
        judge.cgroup_hybrid,
        facts.Hybrid(hybrid=True, runtime="crun", error="no namespaces"),
        "failure",
        "no namespaces",
        "ROADSTEAD_RUNTIME=runc",
    ),
    (judge.overlay, OVERLAY, "ok", "in memory or on disk", ""),
    (judge.overlay, dataclasses.replace(OVERLAY, upper="no"), "ok", "layer in memory", ""),
    (judge.overlay, dataclasses.replace(OVERLAY, layer="no"), "warning", "copies", "ext4"),
    (judge.overlay, dataclasses.replace(OVERLAY, namespace="n"), "warning", "not tried", "user-"),
    (judge.overlay, dataclasses.replace(OVERLAY, layer=None), "not applicable", "not tried", ""),
    (judge.fuse, facts.Fuse(device="", programs=()), "ok", "can be opened", ""),
    (
        judge.fuse,
        facts.Fuse(device="No such file", programs=()),
        "not applicable",
        "No such",
        "modp",
    ),
    (
        judge.fuse,
        facts.Fuse(device="Permission denied", programs=("squashfuse",)),
        "warning",
        "squashfuse cannot work",
        "chmod 666 /dev/fuse",
    ),
    (judge.tool, facts.Tool(name="t", path="/t", package="t", purpose="p"), "ok", "/t", ""),
    (
        judge.tool,
        facts.Tool(name="t", path="", package="t", purpose="p"),
        "not applicable",
        "p",
        "t",
    ),
    (devices.judge, DEVICES, "not applicable", "no CDI specification in /e", ""),
    (
        devices.judge,
        dataclasses.replace(DEVICES, gpus=("/dev/nvidia0",)),
        "warning",
        "there are GPUs",
        "nvidia-ctk cdi generate --output=/e/gpu.yaml",
    ),
    (
        devices.judge,
        dataclasses.replace(DEVICES, gpus=("/dev/nvidia0",), kinds=(("n.com/gpu", 2),)),
        "ok",
        "n.com/gpu (2)",
        "",
    ),
    (
        devices.judge,
        dataclasses.replace(DEVICES, errors=("/e/x.json:1: wrong",)),
        "warning",
        "/e/x.json:1: wrong",
        "generate it again",
    ),
    (judge.runtimes, facts.Runtimes(found=()), "failure", "none found", "apt install crun"),
    (
        judge.runtimes,
        facts.Runtimes(found=(("crun", "/c"), ("runc", "/r"))),
        "ok",
        "crun, runc",
        "",
    ),
    (
        judge.runtime,
        runtime("crun version 1.8.1"),
        "ok",
        "/usr/bin/crun (on PATH): crun version",
        "",
    ),
    (judge.runtime, runtime("crun version 0.17"), "warning", "older than 1.0", "newer release"),
    (judge.runtime, runtime("runc version 1.0.0-rc93", "runc"), "ok", "1.0.0-rc93", ""),
    (judge.runtime, runtime("spam", "youki"), "ok", "youki", ""),
    (
        judge.runtime,
        runtime("", complaint="Exec format error"),
        "failure",
        "Exec format",
        "reinstall",
    ),
    (
        judge.runtime,
        facts.Runtime(error="no runtime", hint="do it"),
        "failure",
        "no runtime",
        "do it",
    ),
    (judge.runtime, facts.Runtime(untried="why"), "not applicable", "why", ""),
    (judge.oci_conf, facts.OciConf(), "ok", "built-in", ""),
    (judge.oci_conf, facts.OciConf(path="/o", mode="run"), "ok", "/o: run mode", ""),
    (judge.oci_conf, facts.OciConf(path="/o", error="bad", hint="fix"), "failure", "bad", "fix"),
    (judge.oci_conf, facts.OciConf(path="/o", starts=False), "failure", "RunTimeRun", "man"),
    (
        judge.oci_conf,
        facts.OciConf(path="/o", warnings=("/o:1: w",)),
        "warning",
        "/o:1: w",
        "lines",
    ),
    (
        judge.oci_conf,
        facts.OciConf(path="/o", missing=(("RunTimeRun", "youki"),)),
        "failure",
        "RunTimeRun: youki is not there",
        "install youki",
    ),
    (
        judge.container,
        facts.Container(untried="why", fix="f"),
        "not applicable",
        "not tried: why",
        "f",
    ),
    (judge.container, facts.Container(steps=(step("ok"),)), "ok", "20 ms", ""),
    (
        judge.container,
        facts.Container(steps=(step("ok"), step("failure"))),
        "failure",
        "no",
        "test",
    ),
    (
        judge.container,
        facts.Container(steps=(step("warning", hint="h"),)),
        "warning",
        "it said",
        "h",
    ),
    (
        judge.container,
        facts.Container(steps=(step("ok"),), unfinished=True),
        "failure",
        "long",
        "test",
    ),
    (judge.disk, disk(), "ok", "9.0 GiB free", ""),
    (judge.disk, disk(writable=False), "failure", "may not write", "XDG_STATE_HOME"),
    (judge.disk, disk(free=1 << 20), "failure", "full", "make room"),
    (judge.disk, disk(inodes=0), "failure", "inodes", "XDG_STATE_HOME"),
    (judge.disk, disk(inodes=None), "ok", "ext4", ""),
    (judge.disk, disk(free=100 << 20), "warning", "nearly full", "make room"),
    (judge.disk, disk(kind="nfs4"), "warning", "journal", "XDG_STATE_HOME=/var/tmp"),
    (judge.disk, disk(what="runtime", kind="nfs4"), "ok", "nfs4", ""),
    (judge.disk, disk(noexec=True), "ok", "ext4", ""),
    (judge.disk, disk(what="runtime", noexec=True), "failure", "noexec", "XDG_RUNTIME_DIR"),
    (judge.runtime_directory, directory(), "ok", "in XDG_RUNTIME_DIR", ""),
    (
        judge.runtime_directory,
        directory(owner=0),
        "failure",
        "uid 0, not to you",
        "unset XDG_RUNTIME",
    ),
    (
        judge.runtime_directory,
        directory(mode=0o777),
        "failure",
        "others could",
        "chmod 700 /run/user",
    ),
    (judge.runtime_directory, directory(mode=0o500), "failure", "cannot use", "chmod 700"),
    (judge.runtime_directory, directory(mode=0o755), "warning", "look into", "chmod 700"),
    (judge.runtime_directory, directory(mode=0o1777), "warning", "look into", "chmod 700"),
    (
        judge.runtime_directory,
        directory(error="is open to others"),
        "failure",
        "is open",
        "chmod 700",
    ),
    (judge.runtime_directory, fallback(), "ok", "not set, which is fine", ""),
    (judge.runtime_directory, fallback(xdg="/gone"), "warning", "/gone does not exist", "unset"),
    (judge.runtime_directory, fallback(sticky=False), "failure", "no sticky bit", "chmod +t /tmp"),
    (judge.open_files, facts.OpenFiles(soft=1024, hard=4096), "ok", "1024", ""),
    (judge.open_files, facts.OpenFiles(soft=-1, hard=-1), "ok", "unlimited", ""),
    (judge.open_files, facts.OpenFiles(soft=64, hard=512), "warning", "steps", "ulimit -n 512"),
    (judge.open_files, facts.OpenFiles(soft=64, hard=64), "failure", "four", "ulimit"),
    (judge.processes, facts.Processes(uid=1000, limit=-1, used=5), "ok", "no limit", ""),
    (judge.processes, facts.Processes(uid=0, limit=5, used=5), "ok", "no limit", ""),
    (judge.processes, facts.Processes(uid=1000, limit=500, used=5), "ok", "5 of 500", ""),
    (
        judge.processes,
        facts.Processes(uid=1000, limit=100, used=5),
        "warning",
        "many",
        "limits.conf",
    ),
    (
        judge.processes,
        facts.Processes(uid=1000, limit=100, used=95),
        "failure",
        "no step",
        "ulimit",
    ),
    (judge.controller, facts.Controller(state="none"), "ok", "not running", ""),
    (judge.controller, facts.Controller(state="silent", pid=7), "failure", "not answer", "kill 7"),
    (judge.controller, facts.Controller(state="error", error="eh"), "failure", "eh", "engine stop"),
    (
        judge.controller,
        facts.Controller(state="answers", pid=7, version="1", ours="1"),
        "ok",
        "pid 7, version 1",
        "",
    ),
    (
        judge.controller,
        facts.Controller(state="answers", pid=7, version="0.9", ours="1"),
        "warning",
        "another version",
        "roadstead engine stop",
    ),
    (judge.log, facts.Log(path="/l", exists=True), "ok", "/l", ""),
    (judge.log, facts.Log(path="/l", exists=False), "ok", "not yet", ""),
    (judge.log, facts.Log(path="/l", exists=True, error="denied"), "failure", "denied", "chmod"),
    (judge.lingering, lingering(systemd=False), "not applicable", "systemd", ""),
    (judge.lingering, lingering(uid=0), "not applicable", "root", ""),
    (judge.lingering, lingering(linger=True, kill=True), "ok", "outlive", ""),
    (judge.lingering, lingering(kill=True), "warning", "KillUser", "loginctl enable-linger ann"),
    (judge.lingering, lingering(runtime="/run/user/1/r"), "warning", "last logout", "loginctl"),
    (judge.lingering, lingering(runtime="/tmp/r"), "ok", "outlive", ""),
    (judge.limits, HELD, "ok", "cpus by affinity, memory by cgroup v2", ""),
    (judge.limits, WATCHED, "warning", "ended a moment later", "systemd-run …"),
]


@pytest.mark.parametrize(("judgement", "seen", "status", "said", "fix"), TABLE)
def test_judgement(
    judgement: Callable[[Any], Finding], seen: Any, status: str, said: str, fix: str
) -> None:
    finding = judgement(seen)
    assert finding.status == status
    assert said in f"{finding.found}\n{finding.cause}"
    assert fix in finding.fix
    assert bool(finding.fix) or status in ("ok", "not applicable")
    assert finding.found


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_every_check_is_judged_in_the_table(check: Any) -> None:
    assert {row[2] for row in TABLE if row[0] is check.judge} >= {"ok"}
    assert len({row[2] for row in TABLE if row[0] is check.judge}) > 1


def test_what_holds_each_limit_is_in_the_details() -> None:
    assert "memory: watched (every second)" in judge.limits(WATCHED).details
