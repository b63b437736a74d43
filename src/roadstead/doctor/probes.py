"""Looking at the machine, and trying things on it: facts for judge.py.

Every probe runs in a child of its own (checks.py), in which it may change namespaces and which may
be killed at any moment.  What a probe mounts is in a namespace of that child's; what it makes on
disk is named by ``Context.scratch`` or below trial.place.

This file has what concerns the kernel and the ids; probes_runtime.py the runtimes, probes_places.py
directories and the engine.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from roadstead.doctor import facts
from roadstead.errors import RoadsteadError, RuntimeFailure
from roadstead.host import apart, files, linux, namespaces, paths, process
from roadstead.host import overlay as overlay_of
from roadstead.oci import runtime, search
from roadstead.step.limits import Enforcement, in_force

_MAPPERS = ("newuidmap", "newgidmap")
_CGROUPS = "/sys/fs/cgroup"


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """For whom the machine is looked at.  ``tag`` names this run's process for ever; ``lifeline``
    is the probe's own (host/apart.py)."""

    environ: Mapping[str, str]
    user: str
    uid: int
    gid: int
    tag: str
    lifeline: int = -1

    @property
    def path(self) -> str:
        return self.environ.get("PATH", os.defpath)

    @property
    def state(self) -> str:
        return paths.state_directory(self.environ)

    @property
    def runtime(self) -> str:
        """The run-time directory in use, or the one that a controller would take now."""
        found = paths.runtime_directory(self.environ)
        return found if os.path.isdir(found) else paths.default_runtime_directory(self.environ)

    def scratch(self) -> str:
        """The name of a directory for this run, on the file system of the state directory."""
        return f"{nearest(self.state)}/{SCRATCH}{self.tag}"


SCRATCH = ".roadstead-doctor."


def nearest(path: str) -> str:
    """The directory at or above ``path`` that exists."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


# -- the interpreter and the kernel ----------------------------------------------------------------


def python(context: Context) -> facts.Python:
    major, minor, micro = sys.version_info[:3]
    return facts.Python(version=(major, minor, micro), executable=sys.executable)


def bytecode(context: Context) -> facts.Bytecode:
    top = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if not os.path.isdir(top):
        return facts.Bytecode(directory="")
    states = [
        _compiled(os.path.join(folder, name))
        for folder, _, names in os.walk(top)
        for name in names
        if name.endswith(".py")
    ]
    return facts.Bytecode(
        directory=top,
        modules=len(states),
        missing=states.count("missing"),
        stale=states.count("stale"),
        writable=os.access(top, os.W_OK),
        python=sys.executable,
    )


def _compiled(source: str) -> str:
    """Whether the import system would use the compiled file (importlib, PEP 552)."""
    try:
        with open(importlib.util.cache_from_source(source), "rb") as file:
            head = file.read(16)
    except OSError:
        return "missing"
    if head[:4] != importlib.util.MAGIC_NUMBER:
        return "stale"
    if int.from_bytes(head[4:8], "little"):
        return "fresh"  # by the source's hash, not its time
    found = os.stat(source)
    written = (int(found.st_mtime) & 0xFFFFFFFF, found.st_size & 0xFFFFFFFF)
    seen = (int.from_bytes(head[8:12], "little"), int.from_bytes(head[12:16], "little"))
    return "fresh" if written == seen else "stale"


def kernel(context: Context) -> facts.Kernel:
    return facts.Kernel(release=os.uname().release)


# -- user namespaces and ids -----------------------------------------------------------------------


def user_namespaces(context: Context) -> facts.UserNamespaces:
    stage, number = _try_namespace(context)
    return facts.UserNamespaces(
        uid=context.uid,
        stage=stage,
        errno=number,
        settings=namespaces.settings(),
        container=_in_container(),
        seccomp=_status("Seccomp") not in ("", "0"),
    )


def _try_namespace(context: Context) -> tuple[str, int]:
    """What a container needs, one after the other: the first that fails, and its errno."""
    stage = "unshare"
    try:
        linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS)
        stage = "map"
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"0 {context.uid} 1"),
            ("gid_map", f"0 {context.gid} 1"),
        ):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
        stage = "mount"
        linux.mount("none", "/", "none", linux.MS_REC | linux.MS_PRIVATE)
        linux.mount("tmpfs", "/tmp", "tmpfs", linux.MS_NOSUID | linux.MS_NODEV)
    except OSError as error:
        return stage, error.errno or 0
    return "", 0


def _in_container() -> bool:
    if any(map(os.path.exists, ("/.dockerenv", "/run/.containerenv", "/run/systemd/container"))):
        return True
    return _environment_of_init().startswith(b"container=")


def _environment_of_init() -> bytes:
    """The variable that container systems set for their first process, where we may look."""
    try:
        with open("/proc/1/environ", "rb") as file:
            found = file.read().split(b"\0")
    except OSError:
        return b""
    return next((each for each in found if each.startswith(b"container=")), b"")


def _status(name: str) -> str:
    """A line of /proc/self/status, "" where the kernel does not write it."""
    with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key == name:
                return value.strip()
    return ""


def subordinate_ids(context: Context) -> facts.SubordinateIds:
    uids, gids = namespaces.given_ranges(context.user, context.uid)
    mappers = tuple(_mapper(name, context.path) for name in _MAPPERS)
    error = None
    if context.uid and uids and gids and all(mapper.path for mapper in mappers):
        error = _try_mapping(namespaces.SubordinateIds(uids, gids))
    return facts.SubordinateIds(
        user=context.user,
        uid=context.uid,
        uids=uids,
        gids=gids,
        free=namespaces.first_free_id(),
        mappers=mappers,
        no_new_privileges=_status("NoNewPrivs") == "1",
        error=error,
    )


def _mapper(name: str, path: str) -> facts.Mapper:
    found = process.which(name, path)
    if found is None:
        return facts.Mapper(name=name)
    state = os.stat(found)
    privileged = bool(state.st_mode & 0o4000 and state.st_uid == 0)
    with contextlib.suppress(OSError):  # it has none, or the file system knows none
        privileged = privileged or bool(os.getxattr(found, "security.capability"))
    nosuid = bool(os.statvfs(found).f_flag & os.ST_NOSUID)
    return facts.Mapper(name=name, path=found, privileged=privileged, nosuid=nosuid)


def _try_mapping(ranges: namespaces.SubordinateIds) -> str | None:
    """Map the ranges as a step does; what newuidmap said, or None where there is no namespace."""
    try:
        namespaces.enter(ranges=ranges, hide_unified=False)
    except RuntimeFailure as error:
        if "does not allow user namespaces" in str(error):
            return None
        said = apart.printed().strip().splitlines()
        return said[-1] if said else str(error)
    return ""


# -- control groups --------------------------------------------------------------------------------


def cgroups(context: Context) -> facts.Cgroups:
    mounted = [kind for point, kind, _ in mounts() if f"{point}/".startswith(f"{_CGROUPS}/")]
    unified = any(point == _CGROUPS and kind == "cgroup2" for point, kind, _ in mounts())
    layout = ""
    if unified:
        layout = "v2"
    elif "cgroup" in mounted:
        layout = "hybrid" if "cgroup2" in mounted else "v1"
    top = _CGROUPS if unified else namespaces.CGROUP_UNIFIED
    path, delegated = _delegated(top) if layout in ("v2", "hybrid") else ("", None)
    return facts.Cgroups(
        layout=layout,
        uid=context.uid,
        user=context.user,
        path=path,
        delegated=delegated,
        systemd=os.path.isdir("/run/systemd/system"),
    )


def _delegated(top: str) -> tuple[str, frozenset[str] | None]:
    """Our group in the unified tree and, where we may divide it, its controllers (cgroups(7),
    "Cgroups delegation": its directory, cgroup.procs and cgroup.subtree_control)."""
    with open("/proc/self/cgroup", encoding="utf-8", errors="replace") as file:
        name = next((line[3:].strip() for line in file if line.startswith("0::")), "")
    path = os.path.normpath(f"{top}/{name}")
    needed = (path, f"{path}/cgroup.procs", f"{path}/cgroup.subtree_control")
    if not name or not all(os.access(each, os.W_OK) for each in needed):
        return path, None
    with open(f"{path}/cgroup.controllers", encoding="ascii") as file:
        return path, frozenset(file.read().split())


def limits(context: Context) -> tuple[Enforcement, ...]:
    return in_force()


def cgroup_hybrid(context: Context) -> facts.Hybrid:
    try:
        conf = search.configured(context.environ)
        called = runtime.program_name(conf) if conf else ""
        called = called or os.path.basename(runtime.find(dict(context.environ), process.which))
    except RoadsteadError:
        called = ""  # another check says so
    hybrid = namespaces.hybrid_cgroups()
    error = None
    if hybrid and called == "crun":
        try:
            namespaces.enter(ranges=None, hide_unified=True)
            error = "" if not namespaces.hybrid_cgroups() else "it is still seen there"
        except (RoadsteadError, OSError) as failed:
            error = str(failed)
    return facts.Hybrid(hybrid=hybrid, runtime=called, error=error)


def mounts() -> list[tuple[str, str, str]]:
    """Mount point, kind and options of each mount that we see (proc(5), mountinfo)."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields = line.split(" ")
            after = fields.index("-")
            point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
            found.append((point, fields[after + 1], fields[5]))
    return found


def kind_of(path: str) -> str:
    """The kind of the file system that a directory lies on."""
    path = os.path.realpath(path)
    over = [
        (len(point), number, kind)
        for number, (point, kind, _) in enumerate(mounts())
        if point == "/" or f"{path}/".startswith(f"{point}/")
    ]
    return max(over)[2] if over else "unknown"


# -- file systems for containers -------------------------------------------------------------------


def overlay(context: Context) -> facts.Overlay:
    place = nearest(context.state)
    kind = kind_of(place)
    if not os.access(place, os.W_OK | os.X_OK):
        return facts.Overlay(place=place, kind=kind)
    scratch = context.scratch()
    os.mkdir(scratch, 0o700)
    try:
        for name in ("lower", "layer"):
            os.mkdir(f"{scratch}/{name}")
        try:
            namespaces.enter(ranges=None, hide_unified=False)
        except RuntimeFailure as error:
            return facts.Overlay(place=place, kind=kind, namespace=str(error))
        upper = _try_overlay(scratch)
        _, layer = overlay_of.private_layer((f"{scratch}/lower",), f"{scratch}/layer")
        overlay_of.unmount_layer(f"{scratch}/layer")
    finally:
        files.remove_tree(scratch)
    return facts.Overlay(place=place, kind=kind, layer=layer, upper=upper)


def _try_overlay(scratch: str) -> str:
    """One whose writable layer is on disk, written to; the error, or ""."""
    try:
        overlay_of.mount_in((f"{scratch}/lower",), scratch)
        with open(f"{scratch}/merged/written", "w", encoding="ascii") as file:
            file.write("x")
        linux.unmount(f"{scratch}/merged", linux.MNT_DETACH)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def fuse(context: Context) -> facts.Fuse:
    names = ("squashfuse", "fuse-overlayfs")
    programs = tuple(name for name in names if process.which(name, context.path))
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return facts.Fuse(device=error.strerror or str(error), programs=programs)
    return facts.Fuse(device="", programs=programs)


def fuse_overlayfs(context: Context) -> facts.Tool:
    purpose = "only wanted where the kernel mounts no overlay for users"
    return _tool(context, "fuse-overlayfs", purpose)


def squashfuse(context: Context) -> facts.Tool:
    return _tool(context, "squashfuse", "only wanted to mount SIF and squashfs images")


def mksquashfs(context: Context) -> facts.Tool:
    purpose = "only wanted for --container-save to a squashfs"
    found = _tool(context, "mksquashfs", purpose)
    return facts.Tool(
        name=found.name, path=found.path, package="squashfs-tools", purpose=purpose
    )  # fmt: skip


def _tool(context: Context, name: str, purpose: str) -> facts.Tool:
    path = process.which(name, context.path) or ""
    return facts.Tool(name=name, path=path, package=name, purpose=purpose)
