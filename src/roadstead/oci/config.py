"""A bundle's config.json made into one task's: who runs it, what, as whom, with what around it.

The bundle's own file is never touched; the result goes to the task's directory with an absolute
``root.path``.  A pure function of the bundle and a ``Change``; what had to give way is returned as
notes for ``-v``, because a container that quietly lacks something it asked for is a riddle.

Unprivileged containers cannot have everything that a config.json may ask for; the rules are those
that ``runc spec --rootless`` applies to its own template: the host's network (the Containers Guide:
"All containers should work with the host network"), no cgroup limits of the bundle's, no device
rules, ids only from the mapping, limits no higher than ours.
"""

from __future__ import annotations

import marshal
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from roadstead.errors import BundleError

if TYPE_CHECKING:
    from roadstead.core.model import HookPolicy, Network
    from roadstead.oci.bundle import Bundle
    from roadstead.oci.idmap import IdMap

# startContainer runs inside the container, with the container's own rights; all others on the host.
_HOST_HOOKS = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
# Orders to the runtime itself, crun(1) "EXTENSIONS" and criu(8): to open files and sockets of the
# host, to load another handler or configuration.  Only what is about the process itself may stay.
_ORDERS = ("run.oci.", "org.criu.", "org.systemd.property.", "module.wasm.")
_HARMLESS_ORDERS = ("run.oci.keep_original_groups", "run.oci.mount_context_type")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What this task needs of its config.json.

    ``uids`` None: no user namespace (root).  ``user_namespace`` is the path of one that is there
    and has these mappings, or "" for the runtime to make it.  ``cwd`` "" keeps the bundle's.
    ``cgroup`` is the group that the runtime is to make, from the top of the hierarchies, or "" for
    none of ours.
    ``report`` is a path that is to hold the container's state once it has started, or "".
    ``terminal`` is the size of the container's own terminal, in rows and columns, if it has one.
    ``limits`` are our own hard limits by name (RLIMIT_NOFILE …), -1 for none; ``propagated`` soft
    ones, which count where the bundle says nothing.  ``network`` is whose it is to have: the host's
    (MPI's ranks in networks of their own would not find each other), or "none" or "private", one of
    its own; "" is what the bundle may have.  ``unmounted`` are
    mount points at and below which nothing of the bundle's is mounted; ``user`` is who the process
    is to be, uid and gid, in a container without a user namespace.  ``added_hooks`` are (stage,
    entry) that run whatever the policy for the bundle's; ``device_rules`` let root's containers use
    devices.
    """

    rootfs: str
    args: tuple[str, ...]
    env: dict[str, str]
    cwd: str = ""
    terminal: tuple[int, int] | None = None
    readonly: bool | None = None
    uids: IdMap | None = None
    gids: IdMap | None = None
    user_namespace: str = ""
    privileged: bool = False
    cgroup: str = ""
    mounts: tuple[dict[str, Any], ...] = ()
    unmounted: tuple[str, ...] = ()
    user: tuple[int, int] | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    hooks: HookPolicy = "drop"
    disabled_hooks: tuple[str, ...] = ()
    added_hooks: tuple[tuple[str, dict[str, Any]], ...] = ()
    device_rules: tuple[dict[str, Any], ...] = ()
    report: str = ""
    limits: dict[str, int] | None = None
    propagated: Mapping[str, int] = field(default_factory=dict)
    network: Network = ""
    oom_score_adj: int = 0


def rewrite(bundle: Bundle, change: Change) -> tuple[dict[str, Any], list[str]]:
    """The task's config.json, and notes on what of the bundle's could not be kept.

    Raises BundleError for a bundle with host hooks, or with orders to the runtime, where the policy
    is to refuse them.
    """
    config: dict[str, Any] = marshal.loads(marshal.dumps(bundle.config))  # a copy, all of it
    notes: list[str] = []
    config.setdefault("ociVersion", "1.0.2")
    config["root"]["path"] = change.rootfs
    if change.readonly is not None:
        config["root"]["readonly"] = change.readonly
    if change.annotations:
        config["annotations"] = {**(config.get("annotations") or {}), **change.annotations}
    _process(config, change, notes)
    _mounts(config, bundle.path, change, notes)
    _hooks(config, bundle.path, change, notes)
    _orders(config, bundle.path, change, notes)
    if not change.privileged:
        _unprivileged(config, change, notes)
    elif change.device_rules:
        linux = config["linux"] = config.get("linux") or {}
        resources = linux["resources"] = linux.get("resources") or {}
        resources["devices"] = [*(resources.get("devices") or []), *change.device_rules]
    if change.cgroup:
        # Below the step's group, whose limits count; by a name that we know if it is left behind.
        config["linux"] = {**(config.get("linux") or {}), "cgroupsPath": f"/{change.cgroup}"}
    if change.uids is not None and change.gids is not None:
        _user_namespace(config, change.uids, change.gids, change.user_namespace, notes)
    else:
        _namespaces(config, without=("user",))
    _mount_namespace(config, notes)
    if change.network == "host":
        _join_network(config, notes)
    elif change.network:
        _namespaces(config, without=("network",))
        config["linux"]["namespaces"].append({"type": "network"})
    return config, notes


def _process(config: dict[str, Any], change: Change, notes: list[str]) -> None:
    process = config["process"] = config.get("process") or {}
    process["args"] = list(change.args)
    process["env"] = [f"{name}={value}" for name, value in change.env.items()]
    process["cwd"] = change.cwd or process.get("cwd") or "/"
    process["terminal"] = change.terminal is not None
    process.pop("consoleSize", None)
    if change.terminal is not None:
        rows, columns = change.terminal
        process["consoleSize"] = {"height": rows, "width": columns}
    user = process["user"] = process.get("user") or {"uid": 0, "gid": 0}
    if change.user is not None:
        user["uid"], user["gid"] = change.user
    if change.uids is not None and change.gids is not None:
        user["uid"], user["gid"] = change.uids.process, change.gids.process
        groups = user.pop("additionalGids", None) or []
        kept = [group for group in groups if change.gids.has(group) and not change.gids.degraded]
        if kept:
            user["additionalGids"] = kept
        if len(kept) < len(groups):
            notes.append("the image's supplementary groups are not mapped and were left out")
    if change.limits is not None and process.get("rlimits"):
        process["rlimits"] = [_limit(entry, change.limits) for entry in process["rlimits"]]
    _propagate(process, change)
    if process.get("oomScoreAdj") is not None:
        # Only root may make a process less likely to be killed than it is (proc(5)).
        process["oomScoreAdj"] = max(process["oomScoreAdj"], change.oom_score_adj)


def _propagate(process: dict[str, Any], change: Change) -> None:
    """The user's soft limits, below our hard ones (runtime-spec, config.md: rlimits)."""
    own = process.get("rlimits") or []
    said = {entry.get("type") for entry in own}
    added = []
    for name, soft in change.propagated.items():
        hard = (change.limits or {}).get(name, -1)
        if soft < 0 or 0 <= hard < soft:
            soft = hard
        if name not in said:
            added.append({"type": name, "soft": _unsigned(soft), "hard": _unsigned(hard)})
    if added:
        process["rlimits"] = [*own, *added]


def _unsigned(limit: int) -> int:
    return limit if limit >= 0 else (1 << 64) - 1  # RLIM_INFINITY


def _limit(entry: dict[str, Any], ours: dict[str, int]) -> dict[str, Any]:
    ceiling = ours.get(entry.get("type", ""), -1)
    if ceiling < 0:
        return entry
    hard = min(int(entry.get("hard", ceiling)), ceiling)
    return {**entry, "hard": hard, "soft": min(int(entry.get("soft", hard)), hard)}


def _mounts(config: dict[str, Any], bundle: str, change: Change, notes: list[str]) -> None:
    mounts = config["mounts"] = [
        mount
        for mount in config.get("mounts") or []
        if not _is_below(mount["destination"], change.unmounted)
    ]
    for mount in mounts:
        options = mount.get("options") or []
        if mount.get("type") == "bind" or "bind" in options or "rbind" in options:
            mount["source"] = os.path.join(bundle, mount.get("source") or "")
        if change.hooks == "run" or not _is_hosts_root(mount):
            continue
        if change.hooks == "refuse":
            raise BundleError(
                f"{bundle}/config.json mounts the host's whole root at {mount['destination']}",
                hint="--container-hooks=drop leaves it out, --container-hooks=run mounts it",
            )
        notes.append(
            f"warning: mount of the host's whole root at {mount['destination']} left out: it came "
            "with the bundle; --container-hooks=run mounts it"
        )
    if change.hooks != "run":
        mounts[:] = [mount for mount in mounts if not _is_hosts_root(mount)]
    mounts.extend(change.mounts)


def _is_hosts_root(mount: dict[str, Any]) -> bool:
    """Whether a bind mount shows all of the host's files, by whatever name."""
    source = mount.get("source") or ""
    return source.startswith("/") and os.path.realpath(source) == "/"


def _is_below(path: str, places: tuple[str, ...]) -> bool:
    path = os.path.normpath(path)
    return any(path == place or path.startswith(f"{place}/") for place in places)


def _hooks(config: dict[str, Any], bundle: str, change: Change, notes: list[str]) -> None:
    hooks = config.get("hooks") or {}
    for name in change.disabled_hooks:
        hooks.pop(name, None)
    found = [name for name in _HOST_HOOKS if hooks.get(name)]
    if found and change.hooks == "refuse":
        raise BundleError(
            f"{bundle}/config.json has hooks that run outside the container: {', '.join(found)}",
            hint="--container-hooks=drop leaves them out, --container-hooks=run runs them",
        )
    if found and change.hooks == "drop":
        for name in found:
            del hooks[name]
        notes.append(
            f"warning: hooks of the bundle left out ({', '.join(found)}): they would run outside "
            "the container; --container-hooks=run allows them"
        )
    for stage, entry in change.added_hooks:
        if stage not in change.disabled_hooks:
            hooks[stage] = [*(hooks.get(stage) or []), entry]
    if change.report:
        hook = {"path": "/bin/cp", "args": ["cp", "/dev/stdin", change.report]}
        hooks["poststart"] = [*(hooks.get("poststart") or []), hook]
    if hooks:
        config["hooks"] = hooks
    else:
        config.pop("hooks", None)


def _orders(config: dict[str, Any], bundle: str, change: Change, notes: list[str]) -> None:
    """What makes the runtime act on the host has the policy of hooks: it is one by another name."""
    annotations = config.get("annotations") or {}
    seccomp = (config.get("linux") or {}).get("seccomp") or {}
    found = [n for n in annotations if n.startswith(_ORDERS) and n not in _HARMLESS_ORDERS]
    listener = [name for name in ("listenerPath", "listenerMetadata") if seccomp.get(name)]
    if change.hooks == "run" or not found + listener:
        return
    names = ", ".join([*found, *(f"linux.seccomp.{name}" for name in listener)])
    if change.hooks == "refuse":
        raise BundleError(
            f"{bundle}/config.json has the runtime act outside the container: {names}",
            hint="--container-hooks=drop leaves them out, --container-hooks=run keeps them",
        )
    for name in found:
        del annotations[name]
    for name in listener:
        del seccomp[name]
    notes.append(
        f"warning: left out of the bundle's config.json: {names}: they would have the runtime act "
        "outside the container; --container-hooks=run keeps them"
    )


def _unprivileged(config: dict[str, Any], change: Change, notes: list[str]) -> None:
    linux = config["linux"] = config.get("linux") or {}
    if linux.pop("resources", None):
        notes.append(
            "the bundle's linux.resources need a cgroup of the user's own and were left out"
        )
    linux.pop("cgroupsPath", None)
    if linux.pop("devices", None):
        notes.append("the bundle's linux.devices cannot be made without root and were left out")
    asks = any(entry.get("type") == "network" for entry in linux.get("namespaces") or [])
    if asks and change.network in ("", "host"):
        notes.append("the container uses the host's network")
    _namespaces(config, without=("network",))
    for mount in config["mounts"]:
        if mount.get("type") == "sysfs":
            # Only the owner of the network namespace may mount sysfs; runc's rootless template
            # binds the host's instead.
            mount.update(type="none", source="/sys")
            mount["options"] = ["rbind", "nosuid", "noexec", "nodev", "ro"]
        elif mount.get("options"):
            mount["options"] = [o for o in mount["options"] if _id_is_mapped(o, change)]


def _id_is_mapped(option: str, change: Change) -> bool:
    name, _, value = option.partition("=")
    ids = {"gid": change.gids, "uid": change.uids}.get(name)
    return ids is None or not value.isdigit() or (ids.has(int(value)) and not ids.degraded)


def _namespaces(config: dict[str, Any], *, without: tuple[str, ...]) -> None:
    linux = config["linux"] = config.get("linux") or {}
    found = linux.get("namespaces") or []
    linux["namespaces"] = [entry for entry in found if entry.get("type") not in without]
    if "user" in without:
        linux.pop("uidMappings", None)
        linux.pop("gidMappings", None)


def _join_network(config: dict[str, Any], notes: list[str]) -> None:
    found = config["linux"]["namespaces"]
    own = [entry for entry in found if entry.get("type") != "network"]
    if len(own) < len(found):
        notes.append("the container is in the host's network")
    config["linux"]["namespaces"] = own


def _mount_namespace(config: dict[str, Any], notes: list[str]) -> None:
    """A mount namespace of its own, always: in its caller's, or in one that is there already, what
    the container mounts and where its root is would be others' too."""
    found = config["linux"]["namespaces"]
    own = [entry for entry in found if entry.get("type") != "mount"]
    if not any(entry.get("type") == "mount" and not entry.get("path") for entry in found):
        notes.append("the container gets a mount namespace of its own")
    config["linux"]["namespaces"] = [*own, {"type": "mount"}]


def _user_namespace(
    config: dict[str, Any], uids: IdMap, gids: IdMap, path: str, notes: list[str]
) -> None:
    linux = config["linux"]
    linux["namespaces"] = [
        {"type": "user", "path": path} if path else {"type": "user"},
        *(entry for entry in linux.get("namespaces") or [] if entry.get("type") != "user"),
    ]
    if path:
        linux.pop("uidMappings", None)
        linux.pop("gidMappings", None)
    else:
        linux["uidMappings"], linux["gidMappings"] = uids.to_config(), gids.to_config()
    if uids.degraded:
        notes.append(
            "no subordinate ids: the container has one id, the user's "
            "(an administrator adds more with: usermod --add-subuids --add-subgids)"
        )
