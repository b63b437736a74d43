"""A task's directory: its config.json, its environment file, and what it sees of the step's files.

All of it is made before the runtime is called, so that a bad request fails before anything runs.
"""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from roadstead.errors import BundleError, LaunchError, RuntimeFailure
from roadstead.host import cgroup, files, namespaces, overlay, paths, process, removal
from roadstead.oci import bundle as bundles
from roadstead.oci import config, environment, idmap, lookup, pause
from roadstead.oci.edits import Edits
from roadstead.step import devices, gate, limits, wanted

if TYPE_CHECKING:
    from roadstead.core.model import EnvPolicy, TaskSpec
    from roadstead.oci.patterns import Substitutions
    from roadstead.step.around import Around
    from roadstead.step.plan import Plan

# Where the step's own files are seen inside: on the container's own tmpfs, so that nothing has to
# be made in a root file system that may be read-only or shared (Slurm 22.05 uses /tmp/slurm).
_NO_EDITS: Final = Edits()
_SPOOL_INSIDE: Final = "slurm"
_PAUSE_INSIDE: Final = ".roadstead-pause"
_RLIMITS: Final = {
    f"RLIMIT_{name}": getattr(resource, f"RLIMIT_{name}")
    for name in ("AS", "CORE", "CPU", "DATA", "FSIZE", "MEMLOCK", "NOFILE", "NPROC", "STACK")
}


class TaskDirectory:
    """The directory of one task's container, made and filled."""

    def __init__(
        self, plan: Plan, task: TaskSpec, notice: Callable[[str], None], kind: str = "task"
    ) -> None:
        """``kind`` is "node" for a container that tasks share."""
        self.plan = plan
        self.task = task
        self._notice = notice
        self._kind = kind
        self._host: TaskDirectory | None = None  # of the container that the task is in
        self.path = self._make_directory()
        self.report = f"{self.path}/state.json"
        self.rootfs = plan.rootfs  # a private layer's, once it is there
        self.gate: gate.Gate | None = None
        self.has_last_hooks = False

    def substitutions(self) -> Substitutions:
        """What oci.conf's patterns stand for, for this task."""
        return self._substitutions(self.path)

    def _substitutions(self, directory: str) -> Substitutions:
        return _substitutions(self.plan, self.task, directory)

    def _make_directory(self) -> str:
        """The task's directory: oci.conf's ContainerPath, or our own below the step's."""
        conf = self.plan.conf
        own = _own_directory(self.plan, self.task.procid, self._kind)
        if conf is None or conf.container_path is None:
            os.mkdir(own, 0o700)
            return own
        path = _expanded(conf.container_path, self._substitutions(own)).rstrip("/")
        try:
            os.makedirs(path, mode=0o700)
        except OSError as error:
            raise RuntimeFailure(
                f"{conf.source}: ContainerPath: cannot make {path}: {error.strerror}",
                hint="give each task its own path: add %j, %s and %t to ContainerPath",
            ) from None
        return path

    @property
    def items(self) -> dict[str, Any]:
        """What plugins may ask of the container."""
        return {
            "S_CONTAINER_ID": self.container_id,
            "S_CONTAINER_BUNDLE": self.path,
            "S_CONTAINER_ROOTFS": self.rootfs,
        }

    def fill(self, around: Around | None = None, *, waits: bool = False) -> None:
        """Write what the runtime reads; ``waits``: its first process is one that only waits.

        Raises BundleError, and CommandNotFound for a program that is not in the container.
        """
        plan, conf = self.plan, self.plan.conf
        env = self._environment()
        if conf is not None and conf.create_env_file.separator:
            end = conf.create_env_file.separator
            kept = [f"{n}={v}" for n, v in env.items() if end == "\0" or "\n" not in v]
            files.write_atomically(
                f"{self.path}/environment", "".join(entry + end for entry in kept)
            )
        if plan.bundle is None:
            return
        written, notes = config.rewrite(plan.bundle, self._change(plan.bundle, env))
        for note in notes if self.task.procid == 0 else ():
            if plan.request.verbose or note.startswith("warning:"):
                self._notice(note)
        if plan.adapt is not None:
            plan.adapt(written)
        if not waits:  # else each task's own program is looked for
            self._check_command(written, env)
        if around is not None:
            written = around.plugged.edited(self.task, written, self.items)
            if waits:
                self._let_it_wait(written)
            # A container system has no such point; its containers wait before they are made.
            if around.stops(self.task) or (plan.system is None and around.waits(self.task)):
                self.gate = gate.Gate(self.path)
                self.gate.add_to(written)
        self.has_last_hooks = bool((written.get("hooks") or {}).get("poststop"))
        files.write_atomically(f"{self.path}/config.json", self._as_json(written))

    def fill_process(self, host: TaskDirectory) -> None:
        """Write what the runtime reads to start the task in a container that is there.

        Raises BundleError, LaunchError and CommandNotFound, as ``fill``.
        """
        bundle = self.plan.bundle
        assert bundle is not None
        self._host = host
        env = self._environment()
        written, _ = config.rewrite(bundle, self._change(bundle, env))
        self._check_command(written, env)
        self._as_json(written)
        text = json.dumps(written["process"], ensure_ascii=False)
        files.write_atomically(f"{self.path}/process.json", text)

    def _let_it_wait(self, written: dict[str, Any]) -> None:
        """Have the container's first process be one that waits (oci/pause.py)."""
        program = pause.program()
        if program is None:
            raise LaunchError(f"--container-per=node: not on {os.uname().machine}")
        assert self.plan.bundle is not None
        inside = f"{_own_tmpfs(self.plan.bundle)}/{_PAUSE_INSIDE}"
        fd = os.open(
            f"{self.path}/pause", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o755
        )
        with open(fd, "wb") as file:
            os.fchmod(fd, 0o755)
            file.write(program)
        options = ["bind", "ro", "nosuid", "nodev"]
        mount = {"destination": inside, "type": "none", "options": options}
        written["mounts"] = [*written["mounts"], {**mount, "source": f"{self.path}/pause"}]
        written["process"] |= {"args": [inside], "cwd": "/", "terminal": False}

    def _as_json(self, written: dict[str, Any]) -> str:
        """config.json's text.  Raises LaunchError for what JSON has no words for.

        Bytes that are not UTF-8 are lone surrogates in Python, as JSON escapes crun makes other
        bytes of them and runc question marks: no argument and no path may be changed so.
        """
        text = json.dumps(written, ensure_ascii=False)
        if not _is_text(text):
            wrong = [repr(word) for word in written["process"]["args"] if not _is_text(word)]
            what = f"argument {wrong[0]}" if wrong else f"{self.plan.request.bundle!r}"
            raise LaunchError(f"{what} is not UTF-8, which is all that a config.json can hold")
        return text

    def origins(self) -> dict[str, tuple[str, str]]:
        """The task's variables, each with its value and where that is from."""
        found = self._environment()
        policy, job, image, excluded, wishes = self._sources()
        whence = environment.origins(policy, job, image, excluded=excluded, wishes=wishes)
        return {name: (value, whence[name]) for name, value in found.items()}

    def _environment(self) -> dict[str, str]:
        policy, job, image, excluded, wishes = self._sources()
        env = environment.compose(policy, job, image, excluded=excluded, wishes=wishes)
        if self.plan.bundle is None:
            return env
        wrong = [name for name, value in env.items() if not _is_text(name + value)]
        if wrong and self.task.procid == 0:
            names = ", ".join(map(ascii, wrong))
            self._notice(f"warning: not UTF-8, and so left out of the container: {names}")
        return {name: value for name, value in env.items() if name not in wrong}

    def _sources(
        self,
    ) -> tuple[
        EnvPolicy,
        dict[str, str],
        list[str],
        Callable[[str], object] | None,
        environment.Wishes,
    ]:
        """What the task's variables are made of."""
        plan = self.plan
        image: list[str] = []
        if plan.bundle is not None:
            image = (plan.bundle.config.get("process") or {}).get("env") or []
        excluded = plan.conf.env_exclude.search if plan.conf and plan.conf.env_exclude else None
        wishes = environment.Wishes(
            kept=plan.request.keep_env,
            devices=devices.variables(self._edits, self.task.gpus) if self._edits else (),
            own=plan.request.set_env,
        )
        return plan.request.env_policy, self.task.env, image, excluded, wishes

    def _change(self, bundle: bundles.Bundle, env: dict[str, str]) -> config.Change:
        plan, request, conf = self.plan, self.plan.request, self.plan.conf
        readonly = True if request.readonly else False if request.writable == "direct" else None
        if plan.copied:
            self._make_copy()
        elif plan.private or plan.shared:
            if plan.shared:
                self.rootfs = plan.shared
            elif self._host is not None:
                self.rootfs = self._host.rootfs
            else:
                self._make_layer()
            readonly = True if request.readonly else None if plan.keeps_readonly else False
        asked = wanted.mounts(request, plan.spec, self._notice if self.task.procid == 0 else None)
        brought = devices.mounts(self._edits) if self._edits else []
        names = wanted.names(request, plan.spec, self.task.procid)
        args = self.task.argv
        mounts = [*brought, *names, *asked, *self._spool_mounts(bundle)]
        if plan.spec.script:
            inside = mounts[-1]["destination"]
            args = (f"{inside}/startup", *args[1:])
        args = (*wanted.entrypoint(request, plan.contents), *args)
        reports = conf is not None and conf.mode == "run"
        return config.Change(
            rootfs=self.rootfs,
            args=args,
            env=env,
            cwd=self._working_directory(bundle, asked),
            terminal=self._terminal(),
            readonly=readonly,
            uids=plan.uids,
            gids=plan.gids,
            user_namespace=plan.user_namespace,
            privileged=plan.privileged,
            cgroup=self._cgroup if plan.spec.uid == 0 and not plan.enclosed else "",
            mounts=tuple(mounts),
            unmounted=wanted.unmounted(request),
            user=plan.user,
            annotations=request.annotations,
            hooks=request.hooks,
            disabled_hooks=conf.disable_hooks if conf else (),
            added_hooks=(*self._edits.hooks, *self._wanted_hooks(bundle, args, mounts)),
            device_rules=tuple(devices.rules(self._edits))
            if plan.privileged and self._edits
            else (),
            report=self.report if reports else "",
            limits={name: resource.getrlimit(number)[1] for name, number in _RLIMITS.items()},
            propagated={f"RLIMIT_{name}": soft for name, soft in plan.spec.limits.items()},
            network="host" if plan.spec.launch.mpi != "none" else request.network,
            oom_score_adj=_oom_score_adj(),
        )

    @property
    def _edits(self) -> Edits:
        return self.plan.devices.get(self.task.node or self.plan.spec.node, _NO_EDITS)

    def _wanted_hooks(
        self, bundle: bundles.Bundle, args: tuple[str, ...], added: list[dict[str, Any]]
    ) -> list[tuple[str, dict[str, Any]]]:
        """Those of the hooks' directories that are for a container like this."""
        own = bundle.config.get("annotations") or {}
        annotations = {**own, **self.plan.request.annotations}
        return [
            (stage, each.entry)
            for each in self.plan.hooks
            if each.is_wanted(annotations, args[0], bind_mounts=bool(added))
            for stage in each.stages
        ]

    def _make_copy(self) -> None:
        contents = self.plan.contents
        assert contents is not None
        place = f"{self.plan.spec.directory}/private/{self.task.procid}"
        self.rootfs = overlay.copy_in(contents.lowers, place, "no container system sees one here")

    def _make_layer(self) -> None:
        contents = self.plan.contents
        assert contents is not None
        scratch = f"{self.plan.spec.directory}/private/{self.task.procid}"
        os.mkdir(scratch, 0o700)
        self.rootfs, copied = overlay.private_layer(contents.lowers, scratch)
        if copied and self.task.procid == 0:
            self._notice(f"warning: no overlay here ({copied}): the container's root was copied")

    @property
    def container_id(self) -> str:
        spec = self.plan.spec
        node = self.task.node or spec.node
        return f"{node}.{spec.user}.{spec.job_id}.{spec.step_id}.{self.task.localid}"

    @property
    def _cgroup(self) -> str:
        """Where a runtime that root has called makes its group: below the step's (limits.py)."""
        return f"{limits.group_name(self.plan.spec)}/{self.task.procid}"

    @property
    def cgroups(self) -> list[str]:
        """The groups that a runtime which root has called may leave: ours and the step's above it,
        or one by its own name where it reads no config.json of ours."""
        if self.plan.spec.uid != 0 or self.plan.enclosed:
            return []
        names = [self._cgroup, limits.group_name(self.plan.spec), self.container_id]
        return [*names, *(f"{path}/{name}" for path in cgroup.own_paths() for name in names)]

    def _terminal(self) -> tuple[int, int] | None:
        size = self.plan.spec.terminal
        return (size.rows, size.columns) if size is not None and self.task.procid == 0 else None

    def _working_directory(self, bundle: bundles.Bundle, added: list[dict[str, Any]]) -> str:
        """``--container-workdir``; ``--chdir`` where that directory exists inside; else the
        bundle's own.  Raises LaunchError where the first is not there."""
        request = self.plan.request
        asked = request.inner_workdir or request.workdir
        if not asked or (self.plan.contents is not None and self.plan.contents.own_name):
            return asked
        mounts = [*(bundle.config.get("mounts") or []), *added]
        view = lookup.View.of(self.rootfs, bundle.path, mounts)
        if request.inner_workdir:
            # Mount points are made, with what leads to them, when the container is.
            if any(f"{asked}/".startswith(f"{each['destination']}/") for each in added):
                return asked
            if view.is_directory(asked) is False:
                raise LaunchError(
                    f"--container-workdir={asked}: not a directory in the container",
                    hint="name one that is there, or mount one there with --container-mounts",
                )
            return asked
        if view.is_directory(asked) is False:
            self._notice(f"warning: --chdir={asked}: not a directory in the container; not used")
            return ""
        return asked

    def _spool_mounts(self, bundle: bundles.Bundle) -> list[dict[str, Any]]:
        """The step's files inside: where oci.conf says, and for a batch script in any case."""
        conf, spec = self.plan.conf, self.plan.spec
        destination = ""
        if conf is not None and conf.mount_spool_dir:
            values = self._substitutions(self.path)
            destination = _expanded(conf.mount_spool_dir, values).rstrip("/")
        elif spec.script:
            # Container systems may show the host's /dev and /tmp: theirs is a place in the root.
            above = "/run" if self.plan.system is not None else _own_tmpfs(bundle)
            destination = f"{above}/{_SPOOL_INSIDE}"
        if not destination:
            return []
        spool = f"{spec.directory}/spool"
        os.makedirs(spool, mode=0o700, exist_ok=True)
        options = (
            ["rbind", "ro", "nosuid", "nodev"] if spec.script else ["rbind", "nosuid", "nodev"]
        )
        return [{"destination": destination, "type": "bind", "source": spool, "options": options}]

    def _check_command(self, written: dict[str, Any], env: dict[str, str]) -> None:
        if self.plan.spec.script or (self.plan.contents and self.plan.contents.own_name):
            return
        assert self.plan.bundle is not None
        view = lookup.View.of(self.rootfs, self.plan.bundle.path, written["mounts"])
        lookup.check_command(
            view, self.task.argv[0], path=env["PATH"], cwd=written["process"]["cwd"]
        )

    def remove(self) -> None:
        """Remove it all, unless oci.conf says that it is to be kept."""
        plan = self.plan
        if plan.private and self._host is None:
            overlay.unmount_layer(f"{plan.spec.directory}/private/{self.task.procid}")
        for name in self.cgroups:
            cgroup.remove_empty(name)
        own = self.path.startswith(f"{plan.spec.directory}/")  # goes with the step's
        if not own and not (plan.conf and plan.conf.disable_cleanup):
            removal.remove_tree(self.path)


def _own_directory(plan: Plan, procid: int, kind: str = "task") -> str:
    return f"{plan.spec.directory}/{kind}-{procid}"


# What oci.conf's patterns are is imported where there is an oci.conf: an agent of a cluster's node
# that has none starts the faster (the local engine's supervisors have it from their spawner).


def _expanded(pattern: str, values: Substitutions) -> str:
    """A path that a pattern stands for."""
    from roadstead.oci.patterns import expand

    return expand(pattern, values, quote=False)


def _substitutions(plan: Plan, task: TaskSpec, directory: str) -> Substitutions:
    spec, conf = plan.spec, plan.conf
    opaque = conf is not None and conf.ignore_file_config_json
    from roadstead.oci.patterns import Substitutions

    return Substitutions(
        arguments=task.argv,
        bundle=plan.request.bundle if opaque else directory,
        environment_file=f"{directory}/environment",
        job_id=spec.job_id,
        spool_dir=spec.directory,
        node_name=task.node or spec.node,
        rootfs=plan.rootfs,
        step_id=spec.step_id,
        task_id=task.localid,
        user=spec.user,
        uid=spec.uid,
        work_dir=spec.cwd,
    )


def prepare_container_path(plan: Plan, tasks: list[TaskSpec]) -> None:
    """Make what is above each task's ContainerPath.  Raises RuntimeFailure if it cannot be made, or
    if somebody else could exchange it, and so what the runtime is told to run.

    To be called before the step has a user namespace of its own (host/paths.py, exchangeable).
    """
    conf = plan.conf
    if conf is None or conf.container_path is None:
        return
    for task in tasks:
        values = _substitutions(plan, task, _own_directory(plan, task.procid))
        path = _expanded(conf.container_path, values).rstrip("/")
        why = paths.exchangeable(path, by_owners=True)
        try:
            if not why:
                os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
                why = paths.exchangeable(path, by_owners=True)  # somebody was faster
        except OSError as error:
            raise RuntimeFailure(
                f"{conf.source}: ContainerPath: cannot make {path}: {error.strerror}"
            ) from None
        if why:
            raise RuntimeFailure(
                f"{conf.source}: ContainerPath: {path} is not safe: {why}",
                hint="leave ContainerPath out, or name a place below a directory of yours",
            )


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _own_tmpfs(bundle: bundles.Bundle) -> str:
    """A directory inside that is the container's own memory: its /tmp or its /dev.

    Raises BundleError when config.json mounts neither, because then there is no place for a batch
    script that is not the bundle's own root.
    """
    for mount in bundle.config.get("mounts") or []:
        if mount.get("type") == "tmpfs" and mount["destination"].rstrip("/") in ("/tmp", "/dev"):
            return str(mount["destination"].rstrip("/"))
    raise BundleError(
        f"{bundle.path}/config.json mounts no tmpfs at /dev or /tmp: no place for the batch script",
        hint="add the mounts that `runc spec --rootless` writes",
    )


def _oom_score_adj() -> int:
    with open("/proc/self/oom_score_adj", encoding="utf-8") as file:
        return int(file.read())


def rehearse() -> None:
    """Go through the motions of a task's container, for nothing.

    The first run of any code in a freshly forked process copies every page that it touches; a
    supervisor that waits for its step does that while nobody waits for it (2 ms).
    """
    sample: dict[str, Any] = {
        "process": {"args": ["true"], "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}},
        "root": {"path": "rootfs"},
        "mounts": [{"destination": "/dev", "type": "tmpfs", "options": ["mode=755", "gid=5"]}],
        "linux": {"namespaces": [{"type": "user"}], "uidMappings": [{"size": 1}]},
    }
    bundle = bundles.Bundle("/", bundles.check("/", json.dumps(sample)), "/")
    ids = idmap.nested(idmap.plan([{"size": 1}], process=0, me=1, subordinate=None), 1, None)
    env = environment.compose("merge", {"A": "1"}, ["PATH=/bin"])
    change = config.Change(
        rootfs="/", args=("true",), env=env, uids=ids, gids=ids,
        limits={name: resource.getrlimit(number)[1] for name, number in _RLIMITS.items()},
    )  # fmt: skip
    written, _ = config.rewrite(bundle, change)
    lookup.check_command(
        lookup.View.of("/", "/", written["mounts"]), "sh", path=env["PATH"] + ":/usr/bin", cwd="/"
    )
    json.dumps(written)
    process.descendants(os.getpid())
    process.namespace("self", "mnt")
    namespaces.hybrid_cgroups()
