"""The containers of a step: prepared once, then one life for each task.

``prepare`` reads what all tasks share (oci.conf, the bundle, the id mapping), decides whether the
runtime has to be called in a namespace of the step's own, and enters it.  A ``Container`` then has
a directory with its own config.json, and a ``life``: run mode is one command whose exit status is
the container's; create/start mode is create, query, start, and a wait for the container's first
process, which the kernel gives to this process when ``create`` ends (we are a subreaper), so that
its true exit status is ours to reap.  Slurm polls ``state`` instead and loses the status.

Whatever happens in between, the life ends with ``delete``.
"""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from roadstead.errors import BundleError, RuntimeFailure
from roadstead.host import files, namespaces, process
from roadstead.oci import bundle as bundles
from roadstead.oci import config, environment, idmap, lookup, runtime, search
from roadstead.oci.patterns import Substitutions, expand
from roadstead.step.life import Life, Until

if TYPE_CHECKING:
    from roadstead.core.model import ContainerRequest, StepSpec, TaskSpec
    from roadstead.oci.conf import OciConf

Stdio = tuple[int, int, int]

# No runtime needs a minute to answer; one that hangs must not hold the step for ever.
_COMMAND_SECONDS: Final = 60.0
_BEFORE_THE_START: Final = ("run", "create", "query", "start")
# Where the step's own files are seen inside: on the container's own tmpfs, so that nothing has to
# be made in a root file system that may be read-only or shared (Slurm 22.05 uses /tmp/slurm).
_SPOOL_INSIDE: Final = "slurm"
_RLIMITS: Final = {
    f"RLIMIT_{name}": getattr(resource, f"RLIMIT_{name}")
    for name in ("AS", "CORE", "CPU", "DATA", "FSIZE", "MEMLOCK", "NOFILE", "NPROC", "STACK")
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What the containers of a step share."""

    spec: StepSpec
    request: ContainerRequest
    conf: OciConf | None
    program: str
    bundle: bundles.Bundle | None
    uids: idmap.IdMap | None
    gids: idmap.IdMap | None
    runtime_root: str
    runtime_env: dict[str, str]
    notes: tuple[str, ...]

    @property
    def rootfs(self) -> str:
        return self.bundle.rootfs if self.bundle else self.request.bundle


def prepare(spec: StepSpec, notice: Callable[[str], None]) -> Plan:
    """Read and check everything the step's containers need; enter a namespace if they need one.

    Raises BundleError, ConfigError and RuntimeFailure.  After this the process may be in another
    user namespace: call it once, before any task exists.
    """
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
    program = "" if conf else runtime.find(spec.env, process.which)
    opaque = conf is not None and conf.ignore_file_config_json
    bundle = None if opaque else bundles.read(request.bundle)
    called = runtime.program_name(conf) if conf else os.path.basename(program)
    private = request.writable == "private"
    hide = called == "crun" and namespaces.hybrid_cgroups()
    uids = gids = None
    if bundle is not None:
        uids, gids = _map_ids(spec, bundle, called, own_namespace=private or hide)
    if private or hide:
        ranged = uids is not None and len(uids.entries) > 1
        ranges = namespaces.subordinate_ids(spec.user, spec.uid) if ranged else None
        namespaces.enter(ranges=ranges, hide_unified=hide)
    if bundle is not None and private:
        scratch = f"{spec.directory}/private"
        os.mkdir(scratch, 0o700)
    root = f"{os.path.dirname(spec.directory)}/../containers"
    root = os.path.normpath(root)
    os.makedirs(root, mode=0o700, exist_ok=True)
    return Plan(
        spec, request, conf, program, bundle, uids, gids, root, _runtime_env(spec, conf), ()
    )


def _map_ids(
    spec: StepSpec, bundle: bundles.Bundle, program: str, *, own_namespace: bool
) -> tuple[idmap.IdMap | None, idmap.IdMap | None]:
    linux = bundle.config.get("linux") or {}
    user = (bundle.config.get("process") or {}).get("user") or {}
    if spec.uid == 0 and not linux.get("uidMappings"):
        return None, None
    several = _several(linux.get("uidMappings")) or _several(linux.get("gidMappings"))
    if spec.uid != 0 and (several or not linux.get("uidMappings")):
        ranges = namespaces.subordinate_ids(spec.user, spec.uid)
    else:
        ranges = namespaces.SubordinateIds(None, None)
    if not ranges.usable:
        ranges = namespaces.SubordinateIds(None, None)
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
    return env


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


class Container:
    """One task's container."""

    def __init__(self, plan: Plan, task: TaskSpec, notice: Callable[[str], None]) -> None:
        self.plan = plan
        self.task = task
        self._notice = notice
        self.directory = self._make_directory()
        self.report = f"{self.directory}/state.json"
        self.commands = self._commands()
        self.child: process.Child | None = None
        self._setup: process.Child | None = None
        self._patience = float(os.environ.get("ROADSTEAD_RUNTIME_TIMEOUT") or _COMMAND_SECONDS)
        self._write_files()

    def _substitutions(self, directory: str) -> Substitutions:
        spec, conf = self.plan.spec, self.plan.conf
        opaque = conf is not None and conf.ignore_file_config_json
        return Substitutions(
            arguments=self.task.argv,
            bundle=self.plan.request.bundle if opaque else directory,
            environment_file=f"{directory}/environment",
            job_id=spec.job_id,
            spool_dir=spec.directory,
            node_name=spec.node,
            rootfs=self.plan.rootfs,
            step_id=spec.step_id,
            task_id=self.task.localid,
            user=spec.user,
            uid=spec.uid,
            work_dir=spec.cwd,
        )

    def _make_directory(self) -> str:
        """The task's directory: oci.conf's ContainerPath, or our own below the step's."""
        conf = self.plan.conf
        own = f"{self.plan.spec.directory}/task-{self.task.localid}"
        if conf is None or conf.container_path is None:
            os.mkdir(own, 0o700)
            return own
        path = expand(conf.container_path, self._substitutions(own), quote=False).rstrip("/")
        try:
            os.makedirs(path, mode=0o700)
        except OSError as error:
            raise RuntimeFailure(
                f"{conf.source}: ContainerPath: cannot make {path}: {error.strerror}",
                hint="give each task its own path: add %j, %s and %t to ContainerPath",
            ) from None
        return path

    def _commands(self) -> runtime.Commands:
        spec, plan = self.plan.spec, self.plan
        if plan.conf is not None:
            return runtime.Configured(plan.conf, self._substitutions(self.directory))
        name = f"{spec.node}.{spec.user}.{spec.job_id}.{spec.step_id}.{self.task.localid}"
        log = f"{self.directory}/runtime.log"
        return runtime.BuiltIn(plan.program, name, self.directory, plan.runtime_root, log)

    def _write_files(self) -> None:
        plan, conf = self.plan, self.plan.conf
        env = self._environment()
        if conf is not None and conf.create_env_file.separator:
            end = conf.create_env_file.separator
            kept = [f"{n}={v}" for n, v in env.items() if end == "\0" or "\n" not in v]
            files.write_atomically(
                f"{self.directory}/environment", "".join(entry + end for entry in kept)
            )
        if plan.bundle is None:
            return
        written, notes = config.rewrite(plan.bundle, self._change(plan.bundle, env))
        for note in notes if self.task.localid == 0 else ():
            self._notice(note)
        self._check_command(written, env)
        files.write_atomically(f"{self.directory}/config.json", json.dumps(written))

    def _environment(self) -> dict[str, str]:
        plan = self.plan
        image: list[str] = []
        if plan.bundle is not None:
            image = (plan.bundle.config.get("process") or {}).get("env") or []
        excluded = plan.conf.env_exclude.search if plan.conf and plan.conf.env_exclude else None
        return environment.compose(plan.request.env_policy, self.task.env, image, excluded=excluded)

    def _change(self, bundle: bundles.Bundle, env: dict[str, str]) -> config.Change:
        plan, request, conf = self.plan, self.plan.request, self.plan.conf
        rootfs = bundle.rootfs
        readonly = True if request.readonly else False if request.writable == "direct" else None
        if request.writable == "private":
            scratch = f"{plan.spec.directory}/private/{self.task.localid}"
            os.mkdir(scratch, 0o700)
            rootfs, readonly = namespaces.mount_overlay(rootfs, scratch), False
        args, mounts = self.task.argv, self._spool_mounts(bundle)
        if plan.spec.script:
            inside = mounts[-1]["destination"]
            args = (f"{inside}/startup", *args[1:])
        reports = conf is not None and conf.mode == "run"
        return config.Change(
            rootfs=rootfs,
            args=args,
            env=env,
            cwd=self._working_directory(bundle),
            terminal=self._terminal(),
            readonly=readonly,
            uids=plan.uids,
            gids=plan.gids,
            privileged=plan.spec.uid == 0 and plan.uids is None,
            mounts=tuple(mounts),
            hooks=request.hooks,
            disabled_hooks=conf.disable_hooks if conf else (),
            report=self.report if reports else "",
            limits={name: resource.getrlimit(number)[1] for name, number in _RLIMITS.items()},
            oom_score_adj=_oom_score_adj(),
        )

    def _terminal(self) -> tuple[int, int] | None:
        size = self.plan.spec.terminal
        return (size.rows, size.columns) if size is not None and self.task.procid == 0 else None

    def _working_directory(self, bundle: bundles.Bundle) -> str:
        """``--chdir`` where that directory exists inside; else the bundle's own."""
        asked = self.plan.request.workdir
        if not asked:
            return ""
        mounts = bundle.config.get("mounts") or []
        view = lookup.View.of(bundle.rootfs, bundle.path, mounts)
        if view.is_directory(asked) is False:
            self._notice(f"warning: --chdir={asked}: not a directory in the container; not used")
            return ""
        return asked

    def _spool_mounts(self, bundle: bundles.Bundle) -> list[dict[str, Any]]:
        """The step's files inside: where oci.conf says, and for a batch script in any case."""
        conf, spec = self.plan.conf, self.plan.spec
        destination = ""
        if conf is not None and conf.mount_spool_dir:
            values = self._substitutions(self.directory)
            destination = expand(conf.mount_spool_dir, values, quote=False).rstrip("/")
        elif spec.script:
            destination = f"{_own_tmpfs(bundle)}/{_SPOOL_INSIDE}"
        if not destination:
            return []
        spool = f"{spec.directory}/spool"
        os.makedirs(spool, mode=0o700, exist_ok=True)
        options = (
            ["rbind", "ro", "nosuid", "nodev"] if spec.script else ["rbind", "nosuid", "nodev"]
        )
        return [{"destination": destination, "type": "bind", "source": spool, "options": options}]

    def _check_command(self, written: dict[str, Any], env: dict[str, str]) -> None:
        if self.plan.spec.script:
            return
        assert self.plan.bundle is not None
        view = lookup.View.of(self.plan.bundle.rootfs, self.plan.bundle.path, written["mounts"])
        lookup.check_command(
            view, self.task.argv[0], path=env["PATH"], cwd=written["process"]["cwd"]
        )

    # -- the life -----------------------------------------------------------------------------

    def life(self, stdio: Stdio, terminal: str) -> Life[int]:
        """Run the container to its end; returns its wait status (negative: killed by a signal).

        Raises RuntimeFailure when it was the runtime that failed.
        """
        try:
            if self.commands.mode == "run":
                return (yield from self._run(stdio, terminal))
            if terminal:
                raise RuntimeFailure(
                    "--pty needs a runtime that is called in one go",
                    hint="give oci.conf a RunTimeRun instead of RunTimeCreate and RunTimeStart",
                )
            return (yield from self._create_and_start(stdio))
        finally:
            self.child = None

    def _run(self, stdio: Stdio, terminal: str) -> Life[int]:
        argv = self._argv("run")
        assert argv is not None
        child = self.child = self._spawn("run", argv, stdio, terminal)
        status = yield Until(child, self._patience)
        if status is None:
            if not self.processes():
                yield from self._remove(kill=True)
                self._kill(child)
                yield Until(child)
                raise RuntimeFailure(
                    f"{self.commands.program} has not started the container in "
                    f"{self._patience:.0f} seconds"
                )
            status = yield Until(child)
        assert status is not None
        failure = self._run_failure(status) if status else None
        if status < 0 or not self.commands.removes_itself:
            yield from self._remove(kill=status < 0)
        if failure is not None:
            raise failure
        return status

    def _run_failure(self, status: int) -> RuntimeFailure | None:
        """What the runtime has to say of itself, if it was not the program that failed."""
        name = self.commands.program
        if self.commands.log:
            said = runtime.complaint(self.commands.log)
            return RuntimeFailure(f"{name}: {said}") if said else None
        if self.plan.bundle is None or os.path.exists(self.report):
            return None
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        return RuntimeFailure(
            f"{name} {how} before the container had started (its own message is on stderr)"
        )

    def _create_and_start(self, stdio: Stdio) -> Life[int]:
        try:
            yield from self._must("create", stdio)
            pid = yield from self._first_pid()
            init = self.child = process.adopt(pid)
            yield from self._must("start", None)
            status = yield Until(init)
            self.child = None
        finally:
            yield from self._remove(kill=self.child is not None)
        assert status is not None
        return status

    def _first_pid(self) -> Life[int]:
        text = yield from self._must("query", None)
        try:
            state = json.loads(text)
            pid = int(state["pid"])
        except (ValueError, TypeError, KeyError):
            raise RuntimeFailure(
                f"{self.commands.program}: RunTimeQuery printed no state with a pid: {text[:200]!r}"
            ) from None
        if pid not in process.children(os.getpid()):
            raise RuntimeFailure(
                f"{self.commands.program}: process {pid} of the container is not of this step",
                hint="a runtime that asks a daemon to start containers needs RunTimeRun",
            )
        return pid

    def _must(self, operation: runtime.Operation, stdio: Stdio | None) -> Life[str]:
        """Run one operation; raise RuntimeFailure if it fails or takes too long."""
        status, said = yield from self._call(operation, stdio)
        if status == 0:
            return said
        if self.commands.log:
            said = runtime.complaint(self.commands.log)
        how = "did not answer in time" if status is None else f"failed with status {status}"
        tail = f": {said.strip().splitlines()[-1]}" if said.strip() else ""
        if stdio is not None and not tail:
            tail = " (its own message is on stderr)"
        raise RuntimeFailure(f"{self.commands.program}: {operation} {how}{tail}")

    def _call(
        self, operation: runtime.Operation, stdio: Stdio | None = None
    ) -> Life[tuple[int | None, str]]:
        """Run one operation; its status (None: it took too long and was killed) and its output.

        An operation that has no command succeeds: there is nothing to do.

        Its output goes to a memfd, not a pipe: ``create`` leaves a process behind that would hold a
        pipe open for as long as the container lives.
        """
        argv = self._argv(operation)
        if argv is None:
            return 0, ""
        memory = os.memfd_create("roadstead-runtime", os.MFD_CLOEXEC)
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            child = self._spawn(operation, argv, stdio or (null, memory, memory), "")
            status = yield Until(child, self._patience)
            if status is None:
                self._kill(child)
                yield Until(child)
            return status, os.pread(memory, 1 << 20, 0).decode(errors="replace")
        finally:
            os.close(null)
            os.close(memory)

    def _spawn(
        self, operation: runtime.Operation, argv: list[str], stdio: Stdio, terminal: str
    ) -> process.Child:
        try:
            child = process.spawn(argv, env=self.plan.runtime_env, stdio=stdio, terminal=terminal)
        except OSError as error:
            raise RuntimeFailure(f"cannot execute {argv[0]}: {error.strerror}") from None
        self._setup = child if operation in _BEFORE_THE_START else None
        return child

    def stop_setup(self) -> None:
        """End the runtime while it is still making the container: no signal can reach that yet."""
        if self._setup is not None and not self.processes():
            self._kill(self._setup)

    @staticmethod
    def _kill(child: process.Child) -> None:
        for pid in process.descendants(child.pid):
            process.send(pid, process.KILL)
        child.signal(process.KILL)

    def _argv(self, operation: runtime.Operation) -> list[str] | None:
        """The command of an operation; %p is the container's first process, or the runtime's."""
        first = self.processes()[:1]
        if not first and self.child is not None and self.child.status is None:
            first = [self.child.pid]
        return self.commands.command(operation, *first)

    def _remove(self, *, kill: bool = False) -> Life[None]:
        """Delete the container; ``kill``: end first what still runs in it (RunTimeKill)."""
        if kill:
            yield from self._call("kill")
        status, _ = yield from self._call("delete")
        if status == 0 or self.commands.command("query") is None:
            return
        status, _ = yield from self._call("query")
        if status != 0:
            return
        for pid in self.processes():
            process.send(pid, process.KILL)
        status, said = yield from self._call("delete")
        if status != 0:
            self._notice(f"warning: {self.commands.program} could not delete the container: {said}")

    def processes(self) -> list[int]:
        """The container's processes, the first one first: what runs in another mount namespace."""
        if self.child is None:
            return []
        own = process.namespace("self", "mnt")
        below = [self.child.pid, *process.descendants(self.child.pid)]
        return [pid for pid in below if process.namespace(pid, "mnt") not in ("", own)]

    def claim(self) -> dict[str, object]:
        """How to remove what the runtime may leave, for somebody who finds us gone."""
        return {
            "delete": self.commands.command("delete"),
            "state": self.commands.state,
            "directory": self.directory,
        }

    def close(self) -> None:
        """Remove the task's directory, unless oci.conf says that it is to be kept."""
        if self.plan.bundle is not None and self.plan.request.writable == "private":
            namespaces.unmount_overlay(f"{self.plan.spec.directory}/private/{self.task.localid}")
        own = self.directory.startswith(f"{self.plan.spec.directory}/")  # goes with the step's
        if not own and not (self.plan.conf and self.plan.conf.disable_cleanup):
            files.remove_tree(self.directory)


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
    with open("/proc/self/oom_score_adj", encoding="ascii") as file:
        return int(file.read())
