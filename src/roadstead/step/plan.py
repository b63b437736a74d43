"""What the containers of a step share, found out once: oci.conf, the bundle, the id mapping, and
whether the runtime has to be called in a namespace of the step's own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from roadstead import systems
from roadstead.errors import LaunchError, RuntimeFailure
from roadstead.host import mounts, namespaces, overlay, process
from roadstead.oci import cdi, hooks, idmap, runtime, search
from roadstead.step import contents, devices, record, taskdir

if TYPE_CHECKING:
    from roadstead.core.model import ContainerRequest, StepSpec, TaskSpec
    from roadstead.oci import bundle as bundles
    from roadstead.oci.conf import OciConf
    from roadstead.oci.edits import Edits
    from roadstead.oci.hooks import Hook
    from roadstead.step.contents import Contents
    from roadstead.step.named import Named
    from roadstead.systems import System


@dataclass(frozen=True, slots=True)
class Plan:
    """What the containers of a step share."""

    spec: StepSpec
    request: ContainerRequest
    conf: OciConf | None
    program: str
    contents: Contents | None
    uids: idmap.IdMap | None
    gids: idmap.IdMap | None
    runtime_root: str
    runtime_env: dict[str, str]
    named: Named | None = None
    devices: dict[str, Edits] = field(default_factory=dict)  # by node
    hooks: tuple[Hook, ...] = ()
    shared: str = ""  # the root that all tasks have, if it is neither the bundle's nor each its own
    hide: bool = False  # a hybrid machine's cgroup2 tree is to be kept from the runtime
    system: System | None = None  # which is called, and not an OCI runtime
    mounting: bool = False  # something is to be mounted for the system beforehand
    user_namespace: str = ""  # the path of the containers' user namespace, if it is there already
    adapt: Callable[[dict[str, Any]], None] | None = None  # what config.json is to be beyond that
    # A directory that lies in memory, in a namespace of the step's own, or "": all that is made
    # there is gone when the step's last process is, however that ended.
    enclosed: str = ""

    @property
    def ranged(self) -> bool:
        """Whether the container has more ids than the user's own."""
        return self.uids is not None and len(self.uids.entries) > 1

    @property
    def privileged(self) -> bool:
        """Root, and no user namespace: the runtime may use the host's cgroups and devices."""
        return self.spec.uid == 0 and self.uids is None

    @property
    def bundle(self) -> bundles.Bundle | None:
        """The bundle, or what an image is as one; None where only the runtime reads it."""
        return self.contents.bundle if self.contents is not None else None

    @property
    def rootfs(self) -> str:
        return self.bundle.rootfs if self.bundle else self.request.bundle

    @property
    def private(self) -> bool:
        """Whether each task has a writable layer of its own."""
        if self.shared or self.contents is None:
            return False
        return _is_private(self.request, self.contents, self.devices, self.system)

    @property
    def copied(self) -> bool:
        """Whether each task has a copy of the image's root: for a system that can be called in no
        namespace of ours, and so would see no layer that was mounted there."""
        contents = self.contents
        if contents is None or self.system is None or self.system.nests or contents.own_name:
            return False
        if self.system.overlays and len(contents.lowers) == 1:
            return False
        return contents.is_image or self.request.writable == "private"

    @property
    def overlaid(self) -> bool:
        """Whether the system itself is to have what is written go elsewhere than to the root."""
        contents = self.contents
        if contents is None or self.system is None or self.system.nests or self.copied:
            return False
        return contents.is_image or self.request.writable == "private"

    @property
    def apart(self) -> bool:
        """Whether the containers need a namespace of the step's own: for mounts, or because a door
        of theirs is to be opened before their programs run (network.py), when whoever is not root
        of the namespace that the runtime is in may not look into them (ptrace(2), dumpable)."""
        asked = self.request.network == "private"
        return bool(self.private or self.hide or self.mounting or self.enclosed or asked)

    @property
    def keeps_readonly(self) -> bool:
        """Whether the layer is there for mount points alone: the root is as config.json says."""
        contents = self.contents
        if contents is None or contents.is_image or self.named is not None:
            return False
        return self.request.writable != "private"

    @property
    def user(self) -> tuple[int, int] | None:
        """Who the process is, in a container that has no user namespace, if an option says."""
        if self.request.ids:
            return self.request.ids[0], self.request.ids[1]
        if self.request.remap_root is None:
            return None
        return (0, 0) if self.request.remap_root else (self.spec.uid, self.spec.gid)

    def close(self) -> None:
        """Let go of what the tasks have shared.  None of them runs."""
        if self.named is not None:
            self.named.leave()
        elif self.shared:
            overlay.unmount_layer(f"{self.spec.directory}/private")


def prepare(
    spec: StepSpec,
    notice: Callable[[str], None],
    *,
    rehearse: bool = False,
    enclosed: str = "",
) -> list[Plan | None]:
    """Read and check everything the step's containers need; enter a namespace if they need one.
    There is a plan for each part of the step, None for one without a container.

    Raises BundleError, ConfigError and RuntimeFailure.  After this the process may be in another
    user namespace: call it once, before any task exists.  To ``rehearse`` is to make nothing
    outside the step's directory: a container with a name is taken for one without.  ``enclosed`` is
    what Plan says, of a step of one part with the built-in commands.
    """
    parts = spec.parts or (spec,)
    if all(part.container is None for part in parts):
        return [None for _ in parts]
    # Who has neither starts the faster: an agent knows its task.
    tasks = _tasks(spec) if len(parts) > 1 or spec.oci_conf else []
    if len(parts) == 1:
        opened = _opened(
            spec, notice, lambda plan: _enter(plan, notice), tasks, rehearse=rehearse,
            enclosed=enclosed,
        )  # fmt: skip
        return [opened]
    plans: list[Plan | None] = []
    for number, part in enumerate(parts):
        if part.container is None:
            plans.append(None)
            continue
        if part.container.name or part.container.save:
            option = "name" if part.container.name else "save"
            raise LaunchError(f"--container-{option} is for steps of one component")
        mine = [task for task in tasks if task.part == number]
        plans.append(_opened(part, notice, lambda plan: plan, mine))
    return _enter_together(spec, plans)


def _tasks(spec: StepSpec) -> list[TaskSpec]:
    from roadstead.step import layout

    return layout.task_specs(spec)


def _enter_together(spec: StepSpec, plans: list[Plan | None]) -> list[Plan | None]:
    """The namespace that the containers of several components need is one."""
    found = [plan for plan in plans if plan is not None]
    private, hide = any(plan.private for plan in found), any(plan.hide for plan in found)
    apart = any(plan.apart for plan in found)
    if apart and len(found) < len(plans):
        raise LaunchError(
            "the components of a step are all in containers here, or none is",
            hint="start them by two srun commands, with & and wait",
        )
    if apart:
        ranged = any(plan.ranged for plan in found)
        ranges = namespaces.subordinate_ids(spec.user, spec.uid) if ranged else None
        namespaces.enter(ranges=ranges, hide_unified=hide)
        if private:
            os.mkdir(f"{spec.directory}/private", 0o700)
        return plans
    return [None if plan is None else _in_one_that_is_there(plan) for plan in plans]


def _opened(
    spec: StepSpec,
    notice: Callable[[str], None],
    enter: Callable[[Plan], Plan],
    tasks: list[TaskSpec],
    *,
    rehearse: bool = False,
    enclosed: str = "",
) -> Plan:
    request = spec.container
    assert request is not None
    conf = search.load(spec.oci_conf) if spec.oci_conf else None
    for warning in conf.warnings if conf else ():
        notice(f"warning: {warning}")
    if conf is not None and not conf.has_commands:
        raise RuntimeFailure(
            f"{spec.oci_conf} names no RunTimeRun: no container can be started",
            hint='add RunTimeRun="…", or unset ROADSTEAD_OCI_CONF',
        )
    if request.system:
        conf = None
        system = systems.find(request.system, spec.env)
        _check_system(system, request)
        program = systems.locate(system, spec.env)
    else:
        program = "" if conf else runtime.find(spec.env, process.which)
    opaque = conf is not None and conf.ignore_file_config_json
    if opaque and (request.name or request.save):
        option = "name" if request.name else "save"
        raise LaunchError(
            f"--container-{option} needs containers that are made here, and {spec.oci_conf} leaves "
            "them to the runtime (IgnoreFileConfigJson)"
        )
    if rehearse:
        if request.name:
            from roadstead.step.named import Named

            request = replace(Named.look(request, spec), name="")
            spec = replace(spec, container=request)
        if conf is not None and conf.container_path is not None:
            notice(f"ContainerPath={conf.container_path} would be the place of config.json")
            conf = replace(conf, container_path=None)
    named = _open_named(request, spec, notice) if request.name else None
    try:
        enclosed = enclosed if conf is None and nests(request, spec) else ""
        plan = enter(_read(spec, named, conf, program, notice, tasks, enclosed))
        os.makedirs(plan.runtime_root, mode=0o700, exist_ok=True)
        return plan
    except BaseException:
        if named is not None:
            named.close()
        raise


def _open_named(request: ContainerRequest, spec: StepSpec, notice: Callable[[str], None]) -> Named:
    from roadstead.step.named import Named

    return Named.open(request, spec, notice)


def _read(
    spec: StepSpec,
    named: Named | None,
    conf: OciConf | None,
    program: str,
    notice: Callable[[str], None],
    tasks: list[TaskSpec],
    enclosed: str,
) -> Plan:
    request = spec.container if named is None else named.request
    assert request is not None
    opaque = conf is not None and conf.ignore_file_config_json
    found = None if opaque else contents.of(request, spec)
    # Asked only where there is something to ask: an agent imports what it uses.
    edits = devices.of_step(request, spec, notice) if request.devices or spec.shares else {}
    if opaque and edits:
        raise LaunchError(
            f"--device: {spec.oci_conf} leaves containers to the runtime (IgnoreFileConfigJson)"
        )
    dirs = request.hooks_dirs
    wanted_hooks = tuple(hooks.read(dirs, cdi.read_trusted)) if dirs else ()
    called = runtime.program_name(conf) if conf else os.path.basename(program)
    system = systems.find(request.system, spec.env) if request.system else None
    if system is not None:
        called = system.name
    passes = called in runtime.KNOWN or (system is not None and system.passes_descriptors)
    if spec.launch.mpi == "pmi2" and not passes:
        raise LaunchError(
            f"--mpi=pmi2: {called or 'the runtime'} is not known to pass descriptors on, by which "
            "MPI libraries find srun",
            hint=f"let {spec.oci_conf} call {' or '.join(runtime.KNOWN)}"
            if conf
            else f"let {' or '.join(runtime.KNOWN)} run the container",
        )
    if opaque and (request.network or request.per == "node"):
        option = "network" if request.network else "per"
        raise LaunchError(
            f"--container-{option} needs containers that are made here, and {spec.oci_conf} leaves "
            "them to the runtime (IgnoreFileConfigJson)"
        )
    private = found is not None and (
        named is not None or _is_private(request, found, edits, system)
    )
    hide = called == "crun" and namespaces.hybrid_cgroups()
    mounting = system is not None and _needs_mounts(system, request, spec)
    uids = gids = None
    if found is not None:
        own = private or hide or mounting or bool(enclosed) or request.network == "private"
        # A system is told who the process is to be, and maps no ids by what we say.
        uids, gids = _map_ids(spec, found.bundle, "crun" if system else called, own_namespace=own)
    if request.verbose:
        for sentence in _description(spec, called if system is None else program, conf, uids):
            notice(sentence)
    root = os.path.normpath(f"{os.path.dirname(spec.directory)}/../containers")
    env = _runtime_env(spec, conf)
    plan = Plan(
        spec, request, conf, program, found, uids, gids, root, env, named, edits, wanted_hooks,
        hide=hide, system=system, mounting=mounting, enclosed=enclosed,
    )  # fmt: skip
    taskdir.prepare_container_path(plan, tasks)
    return plan


def _enter(plan: Plan, notice: Callable[[str], None]) -> Plan:
    """Enter the namespace that the containers of a step need, if they need one."""
    spec, named, hide = plan.spec, plan.named, plan.hide
    if named is not None:
        assert plan.contents is not None
        why = named.enter(plan.contents, hide=hide, spec=spec)
        _say_copied(why, notice)
        return replace(plan, shared=named.root)
    if plan.apart:
        ranges = namespaces.subordinate_ids(spec.user, spec.uid) if plan.ranged else None
        namespaces.enter(ranges=ranges, hide_unified=hide)
    if plan.enclosed:
        mounts.in_memory(plan.enclosed)
        os.makedirs(spec.directory, mode=0o700)
    if plan.copied:
        os.mkdir(f"{spec.directory}/private", 0o700)
    if plan.private:
        scratch = f"{spec.directory}/private"
        os.mkdir(scratch, 0o700)
        if plan.request.save:
            assert plan.contents is not None
            shared, why = overlay.private_layer(plan.contents.lowers, scratch)
            _say_copied(why, notice)
            return replace(plan, shared=shared)
    if plan.apart:
        return plan
    return _in_one_that_is_there(plan)


def _in_one_that_is_there(plan: Plan) -> Plan:
    """Where one id is all that the containers have, and the runtime is crun, which is known to take
    it: in a user namespace that this process holds."""
    called = runtime.program_name(plan.conf) if plan.conf else os.path.basename(plan.program)
    if plan.system is not None:
        return plan
    if called != "crun" or plan.spec.uid == 0 or plan.uids is None or plan.gids is None:
        return plan
    if any(len(ids.entries) > 1 or ids.entries[0][2] > 1 for ids in (plan.uids, plan.gids)):
        return plan
    path = namespaces.of_one_id(plan.uids.entries[0][0], plan.gids.entries[0][0])
    return replace(plan, user_namespace=path)


def _say_copied(why: str, notice: Callable[[str], None]) -> None:
    if why:
        notice(f"warning: no overlay here ({why}): the container's root was copied")


def nests(request: ContainerRequest, spec: StepSpec) -> bool:
    """Whether what runs the containers can be called in a namespace of the step's own."""
    return not request.system or systems.find(request.system, spec.env).nests


def _check_system(system: System, request: ContainerRequest) -> None:
    """Raise LaunchError for what the system cannot do."""
    option = "name" if request.name else "save" if request.save else ""
    if option and not system.nests:
        raise LaunchError(
            f"--container-{option}: {system.name} makes its containers where nothing of ours is",
            hint="leave out --container-system",
        )
    option = "network" if request.network not in ("", "host") else ""
    option = option or ("per" if request.per == "node" else "")
    if option:
        raise LaunchError(
            f"--container-{option} is for OCI runtimes, and {system.name} is to run the container",
            hint="leave out --container-system",
        )
    if not system.takes_root and request.bundle.partition(":")[0] not in system.own:
        raise LaunchError(
            f"--container-system={system.name} runs images of its own alone",
            hint=f"name one as {' or '.join(f'{each}:NAME' for each in system.own)}",
        )


def _needs_mounts(system: System, request: ContainerRequest, spec: StepSpec) -> bool:
    """Whether something has to be mounted read-only for a system that cannot do it."""
    if system.mounts_readonly or not system.nests:
        return False
    return bool(spec.script) or any("ro" in mount.options for mount in request.mounts)


def _is_private(
    request: ContainerRequest, contents: Contents, edits: object, system: System | None = None
) -> bool:
    """Images are never written to.  Nor is a bundle for the sake of a mount point that it lacks,
    where its own root is read-only."""
    if system is not None and (not system.nests or contents.own_name):
        return False
    if contents.is_image or request.writable == "private":
        return True
    adds = bool(request.mounts or request.mount_home or request.network or edits)
    return (
        adds
        and request.writable == "bundle"
        and bool(contents.bundle.config["root"].get("readonly"))
    )


def _description(
    spec: StepSpec, program: str, conf: OciConf | None, uids: idmap.IdMap | None
) -> list[str]:
    """For -v: which runtime is called how, and who the user is in the container."""
    whence = conf.source if conf else "found on PATH"
    mode = "create/start" if conf and conf.mode == "create" else "run"
    said = [f"container runtime: {program} in {mode} mode, {whence}"]
    if uids is not None:
        others = sum(size for _, _, size in uids.entries) - 1
        also = f", and {others} subordinate ids" if others else ", and no other id"
        said.append(f"ids in the container: you (uid {spec.uid}) are {uids.process}{also}")
    return said


def _map_ids(
    spec: StepSpec, bundle: bundles.Bundle, program: str, *, own_namespace: bool
) -> tuple[idmap.IdMap | None, idmap.IdMap | None]:
    linux = bundle.config.get("linux") or {}
    user = dict((bundle.config.get("process") or {}).get("user") or {})
    remap = spec.container.remap_root if spec.container is not None else None
    if remap is not None:
        user["uid"], user["gid"] = (0, 0) if remap else (spec.uid, spec.gid)
    if spec.container is not None and spec.container.ids:
        user["uid"], user["gid"] = spec.container.ids
    if spec.uid == 0 and not linux.get("uidMappings"):
        return None, None
    ranges = _ranges(spec, linux)
    maps = []
    for key, number, me, own in (
        ("uidMappings", user.get("uid", 0), spec.uid, ranges.uids),
        ("gidMappings", user.get("gid", 0), spec.gid, ranges.gids),
    ):
        mapping = idmap.plan(
            linux.get(key), process=number, me=me, subordinate=own, root_needed=program != "crun"
        )
        if own_namespace and spec.uid != 0:
            mapping = idmap.nested(mapping, me, own)
        maps.append(mapping)
    return maps[0], maps[1]


def _ranges(spec: StepSpec, linux: dict[str, Any]) -> namespaces.SubordinateIds:
    """The ids beside the user's own that the container gets; none where it asks for one id only."""
    none = namespaces.SubordinateIds(None, None)
    uids, gids = linux.get("uidMappings"), linux.get("gidMappings")
    if uids and not _several(uids) and not _several(gids):
        return none
    if spec.uid == 0:  # root may use any: those that the bundle names
        return namespaces.SubordinateIds(_largest(uids), _largest(gids))
    found = namespaces.subordinate_ids(spec.user, spec.uid)
    return found if found.usable else none


def _largest(mappings: list[dict[str, Any]] | None) -> tuple[int, int] | None:
    ranges = [(int(each.get("hostID", 0)), int(each.get("size", 1))) for each in mappings or []]
    return max(ranges, key=lambda each: each[1], default=None)


def _several(mappings: list[dict[str, Any]] | None) -> bool:
    return sum(int(entry.get("size", 1)) for entry in mappings or []) > 1


def _runtime_env(spec: StepSpec, conf: OciConf | None) -> dict[str, str]:
    """The runtime's own environment: the controller's, never the job's (its LD_PRELOAD or
    PYTHONPATH would act on the runtime); only PATH is the user's, who may have chosen a runtime."""
    env = dict(os.environ)
    if spec.env.get("PATH"):
        env["PATH"] = spec.env["PATH"]
    if conf and conf.runtime_env_exclude:
        pattern = conf.runtime_env_exclude
        env = {name: value for name, value in env.items() if not pattern.search(f"{name}={value}")}
    # A runtime that outlives its supervisor is found by the mark.  The file that crun and runc
    # mount themselves on for a moment is in /tmp unless they are told another place: there it would
    # stay if they were killed in that moment (cloned_binary.c in both).
    return {**env, record.MARK: spec.directory, "_LIBCONTAINER_STATEDIR": spec.directory}
