"""What the controller finds out about its machine and its user, from /proc and the databases."""

from __future__ import annotations

import functools
import grp
import logging
import os
import pwd
import re
from collections.abc import Mapping
from typing import Final

from roadstead.core.model import Gres
from roadstead.core.site import Node
from roadstead.host import cgroup

# proc(5), /proc/PID/limits → the names of setrlimit(2) that --propagate knows.
_LIMITS: Final = {
    "Max address space": "AS",
    "Max core file size": "CORE",
    "Max cpu time": "CPU",
    "Max data size": "DATA",
    "Max file size": "FSIZE",
    "Max locked memory": "MEMLOCK",
    "Max open files": "NOFILE",
    "Max processes": "NPROC",
    "Max resident set": "RSS",
    "Max stack size": "STACK",
}
_GROUP_OF_A_STEP: Final = re.compile(r"roadstead-\d+\.\d+")  # step/limits.py
_WIDTH: Final = 26  # of the first column
_LOGIN_PATH: Final = "/usr/local/bin:/usr/bin:/bin"

log = logging.getLogger(__name__)


def leave_job() -> None:
    """Give up what a job has set for its processes, for a controller that its srun has started:
    the control group with its limits, and the CPUs."""
    try:
        cgroup.leave(_GROUP_OF_A_STEP)
        os.sched_setaffinity(0, range(os.cpu_count() or 1))  # of these, those of our cpuset
    except OSError as error:
        log.warning("still confined as the job error=%r", str(error))


def node() -> Node:
    """The machine as jobs see it: the CPUs that this process may use, all of the memory."""
    uname = os.uname()
    cpus = tuple(sorted(os.sched_getaffinity(0)))
    sockets, cores = _topology(cpus)
    return Node(
        name=uname.nodename.partition(".")[0],
        cpus=cpus,
        memory=_meminfo("MemTotal"),
        boot_time=_boot_time(),
        os=f"{uname.sysname} {uname.release}",
        arch=uname.machine,
        sockets=sockets,
        cores_per_socket=max(1, cores // sockets),
        threads_per_core=max(1, len(cpus) // cores),
        gres=_gpus(),
    )


def _gpus() -> tuple[Gres, ...]:
    """The GPUs that have a device file: NVIDIA's, or AMD's where its compute driver is there."""
    files = _numbered("/dev", "nvidia")
    if not files and os.path.exists("/dev/kfd"):
        files = _numbered("/dev/dri", "renderD")
    if not files:
        return ()
    number = len(files)
    return (Gres(name="gpu", count=number, indexes=tuple(range(number)), files=files),)


def _numbered(directory: str, prefix: str) -> tuple[str, ...]:
    """``/dev/nvidia0``, ``/dev/nvidia1`` …"""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return ()
    found = [name for name in names if name.removeprefix(prefix).isdigit() and name != prefix]
    found = [name for name in found if name.startswith(prefix)]
    return tuple(f"{directory}/{name}" for name in sorted(found, key=lambda n: (len(n), n)))


def login(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that a login sets, for batch jobs that take none from where they come."""
    uid = os.getuid()
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        user, home, shell = environ.get("USER", str(uid)), environ.get("HOME", "/"), "/bin/sh"
    else:
        user, home, shell = entry.pw_name, entry.pw_dir, entry.pw_shell or "/bin/sh"
    return {"USER": user, "LOGNAME": user, "HOME": home, "SHELL": shell, "PATH": _LOGIN_PATH}


def group_name(gid: object) -> str:
    """The group's name, its number where it has none."""
    try:
        return grp.getgrgid(gid).gr_name if isinstance(gid, int) else ""
    except (KeyError, OverflowError):
        return str(gid)


def load() -> float:
    return os.getloadavg()[0]


def memory_free() -> int:
    return _meminfo("MemFree")


def boot_id() -> str:
    """What names the time since the machine was started."""
    return _read("/proc/sys/kernel/random/boot_id").strip()


def _topology(cpus: tuple[int, ...]) -> tuple[int, int]:
    """The numbers of sockets and of cores behind ``cpus``; one thread a core where unknown."""
    packages, cores = set(), set()
    for cpu in cpus:
        directory = f"/sys/devices/system/cpu/cpu{cpu}/topology"
        try:
            package = _read(f"{directory}/physical_package_id").strip()
            core = _read(f"{directory}/core_id").strip()
        except OSError:
            return 1, len(cpus)
        packages.add(package)
        cores.add((package, core))
    return max(1, len(packages)), max(1, len(cores))


def _meminfo(name: str) -> int:
    """A line of /proc/meminfo, in MiB."""
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) >> 10
    return 0


def _boot_time() -> float:
    for line in _read("/proc/stat").splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    return 0.0


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def other_limits(pid: int) -> dict[str, int]:
    """The soft limits of a process that are not our own, -1 for none; nothing of one that is gone.
    As a rule they are the same: who starts us is who asks."""
    theirs, ours = _limits(pid), _own_limits()
    return {name: soft for name, soft in theirs.items() if ours.get(name) != soft}


@functools.cache
def _own_limits() -> dict[str, int]:
    return _limits(os.getpid())


def _limits(pid: int) -> dict[str, int]:
    try:
        with open(f"/proc/{pid}/limits", encoding="ascii") as file:
            lines = file.readlines()
    except OSError:
        return {}
    found = {}
    for line in lines:
        name = _LIMITS.get(line[:_WIDTH].rstrip())
        if name is not None:
            soft = line[_WIDTH:].split()[0]
            found[name] = -1 if soft == "unlimited" else int(soft)
    return found
