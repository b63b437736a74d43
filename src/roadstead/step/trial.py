"""The Containers Guide's "Testing OCI runtime outside of Slurm", step by step.

The commands are those that a step would use: the same oci.conf, patterns, rewritten config.json,
id mapping and private namespace, from the same code.  So what passes here passes in srun.  What
differs is who goes through them: each is called on its own, and told with its status and output.

The work is done in a child (host/apart.py).  Everything that it makes is below one directory in
the run-time directory, ``trials/PID.STARTTIME`` of the process that wants to know, and is named in
a claim there (record.py).  The name is a record by itself: ``sweep`` finds the directories whose
process is no more.  If all of us are killed the container ends by itself: its program reads a pipe
of which the other end was ours.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import select
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any, Final

from roadstead.core.model import ContainerRequest, StepSpec, TaskSpec
from roadstead.errors import CommandNotFound, RoadsteadError
from roadstead.host import apart, files, linux, namespaces, paths, process
from roadstead.oci import environment, lookup, runtime, search
from roadstead.step import plan as plans
from roadstead.step import record, sweep
from roadstead.step.container import Container
from roadstead.step.trial_case import READY, SHELL, Case, Done, Mode, Stopped

# Beyond Slurm's largest job id (slurm.conf(5), MaxJobId), so that no job's container has the name.
_FIRST_JOB: Final = 1_000_000_000
_PATIENCE: Final = 60.0
# What the child may take to kill and delete the container when it is to end, in seconds.
CLEANING: Final = 30.0
_ALL: Final = 600.0


# -- who wants to know -----------------------------------------------------------------------------


@contextlib.contextmanager
def place(environ: Mapping[str, str]) -> Iterator[str]:
    """A directory of this process's in the run-time directory, while it lasts.

    Raises EngineError where there cannot be one.  Removes what trials that were killed have left.
    """
    top = paths.runtime_directory(environ)
    if not os.path.isdir(top):
        top = paths.default_runtime_directory(environ)
    made = not os.path.isdir(top)
    paths.make_private(top)
    paths.make_private(f"{top}/trials")
    clean(top)
    path = f"{top}/trials/{os.getpid()}.{record.start_time(os.getpid())}"
    try:
        os.mkdir(path, 0o700)
        yield path
    finally:
        sweep.sweep(path)
        _remove_empty(f"{top}/trials")
        if made:
            _remove_empty(top)


def clean(runtime_directory: str) -> list[str]:
    """Remove what trials whose process is no more have left; a line for each thing found."""
    found = []
    top = f"{runtime_directory}/trials"
    for name in os.listdir(top) if os.path.isdir(top) else ():
        pid, _, started = name.partition(".")
        if pid.isdigit() and record.start_time(int(pid)) != started:
            found += [f"directory {top}/{name}", *sweep.sweep(f"{top}/{name}")]
    return found


def _remove_empty(directory: str) -> None:
    with contextlib.suppress(OSError):  # another trial, or a controller, is there now
        os.rmdir(directory)


def attempt(
    bundle: str,
    environ: Mapping[str, str],
    at: str,
    *,
    keep_going: bool = False,
    modes: int = 2,
    hear: Callable[[Done], None] | None = None,
    lifeline: int = -1,
) -> apart.Ending:
    """Try ``bundle`` in the directory ``at`` of ``place``; ``hear`` is told each step as it ends.

    ``modes``: how many of run mode and create/start mode are tried, where the commands know both;
    ``lifeline``: as for apart.run.
    """
    env = dict(environ)
    caller = os.getpid()

    def body(say: apart.Say, ours: int) -> None:
        linux.set_process_name("roadstead-trial")
        linux.set_child_subreaper()
        trial = _Trial(bundle, env, at, lambda done: say(asdict(done)), ours)
        trial.run(keep_going=keep_going, modes=modes)
        if os.getppid() != caller:  # who would remove it has been killed
            files.remove_tree(at)
            _remove_empty(os.path.dirname(at))

    return apart.run(
        body,
        seconds=_ALL,
        grace=CLEANING,
        lifeline=lifeline,
        hear=None if hear is None else lambda heard: hear(from_json(heard)),
    )


def from_json(heard: dict[str, Any]) -> Done:
    return Done(**{**heard, "argv": tuple(heard["argv"])})


# -- the child -------------------------------------------------------------------------------------


class _Trial:
    def __init__(
        self,
        bundle: str,
        environ: dict[str, str],
        at: str,
        say: Callable[[Done], None],
        lifeline: int,
    ) -> None:
        self._say = say
        self._at = at
        self._lifeline = lifeline
        self._environ = environ
        self._mode = ""
        self._failures = 0
        self._claims: list[dict[str, object]] = []
        self._patience = float(environ.get("ROADSTEAD_RUNTIME_TIMEOUT") or _PATIENCE)
        self._bundle = bundle

    def run(self, *, keep_going: bool, modes: int) -> None:
        try:
            plan = self._prepare()
            for number, mode in enumerate(_modes(plan)[:modes]):
                self._mode = mode
                try:
                    self._try_mode(plan, number, mode, keep_going=keep_going)
                except RoadsteadError as error:
                    self._fail("prepare", str(error), error.hint)
                if self._failures and not keep_going:
                    return
        except RoadsteadError as error:
            self._fail("prepare", str(error), error.hint)
        except Stopped:
            return  # all has been removed on the way here

    def _fail(self, operation: str, found: str, hint: str = "", **more: Any) -> None:
        self._failures += 1
        fix = hint or remedy(f"{found}\n{more.get('output', '')}")
        self._say(
            Done(
                mode=self._mode,
                operation=operation,
                verdict="failure",
                found=found,
                hint=fix,
                **more,
            )
        )

    def _prepare(self) -> plans.Plan:
        """What a supervisor does before its first task; this process may change namespaces."""
        directory = f"{self._at}/steps/0"
        os.makedirs(directory, mode=0o700)
        conf = search.find(self._environ) or ""
        uname = os.uname()
        spec = StepSpec(
            job_id=_FIRST_JOB + os.getpid(),
            step_id=0,
            kind="run",
            name="trial",
            user=_user(self._environ),
            uid=os.getuid(),
            gid=os.getgid(),
            node=uname.nodename.partition(".")[0],
            cwd="/",
            argv=("true",),
            env=self._environ,
            container=ContainerRequest(bundle=self._bundle, verbose=True),
            oci_conf=conf,
            directory=directory,
        )
        before = process.namespace("self", "mnt")
        self._notice(f"oci.conf: {conf or 'none, so the built-in commands'}")
        (plan,) = plans.prepare(spec, self._notice)
        assert plan is not None
        if process.namespace("self", "mnt") != before:
            self._notice(_NAMESPACE)
        return plan

    def _notice(self, sentence: str) -> None:
        self._say(Done(mode=self._mode, operation="prepare", verdict="note", found=sentence))

    def _container(self, plan: plans.Plan, number: int, mode: Mode) -> tuple[Container, bytes]:
        """The container, made as a task's is, and what its program answers to when it is typed."""
        argv, typed = program(plan)
        env = {**plan.spec.env, "ROADSTEAD_STEP": f"{plan.spec.job_id}.0"}
        task = TaskSpec(procid=number, localid=number, argv=argv, env=env)
        container = Container(plan, task, self._notice)
        if isinstance(container.commands, runtime.BuiltIn):
            container.commands = replace(container.commands, mode=mode)
        self._claims.append(container.claim())
        mark = f"{plan.spec.job_id}.0"
        record.write_claim(self._at, record.claim_of_ours(mark, containers=self._claims))
        if container.directory.path != plan.rootfs:
            self._notice(f"config.json rewritten for you: {container.directory.path}/config.json")
        return container, typed

    def _try_mode(self, plan: plans.Plan, number: int, mode: Mode, *, keep_going: bool) -> None:
        container, typed = self._container(plan, number, mode)
        case = Case(container, typed, self._wait, self._patience)
        steps = case.run_mode() if mode == "run" else case.create_mode()
        try:
            for done in steps:
                if done.verdict == "failure":
                    more = asdict(done)
                    for name in ("mode", "verdict", "operation", "found", "hint"):
                        more.pop(name)
                    self._fail(done.operation, done.found, done.hint, **more)
                    if not keep_going:
                        return
                else:
                    self._say(replace(done, mode=mode))
        finally:
            steps.close()
            case.close()
            container.close()

    def _wait(self, sources: list[int], seconds: float) -> list[int]:
        """Those of ``sources`` that can be read within ``seconds``; raises Stopped."""
        poll = select.poll()
        for source in (*sources, self._lifeline):
            poll.register(source, select.POLLIN)
        ready = [fd for fd, _ in poll.poll(int(seconds * 1000))]
        if self._lifeline in ready:
            raise Stopped
        return ready


_NAMESPACE: Final = (
    f"the commands run in a mount namespace of their own, without {namespaces.CGROUP_UNIFIED}: "
    "crun refuses a host that has both versions of control groups"
)


def _user(environ: Mapping[str, str]) -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return environ.get("USER", str(os.getuid()))


def _modes(plan: plans.Plan) -> list[Mode]:
    return [plan.conf.mode] if plan.conf is not None else ["run", "create"]


def program(plan: plans.Plan) -> tuple[tuple[str, ...], bytes]:
    """What to run in the bundle, and what to write to it so that it answers: a shell that waits,
    else cat, else what config.json names."""
    if plan.bundle is None:
        return ("sh", "-c", SHELL), b""
    config = plan.bundle.config
    env = environment.compose("merge", {}, (config.get("process") or {}).get("env") or [])
    view = lookup.View.of(plan.bundle.rootfs, plan.bundle.path, config.get("mounts") or [])
    for argv, typed in ((("sh", "-c", SHELL), b""), (("cat",), READY)):
        with contextlib.suppress(RoadsteadError):
            lookup.check_command(view, argv[0], path=env["PATH"], cwd="/")
            return argv, typed
    own = (config.get("process") or {}).get("args") or []
    if not own:
        raise CommandNotFound(
            f"{plan.bundle.path}: neither sh nor cat is in it, and config.json names no program",
            hint="name one in process.args",
        )
    return tuple(own), b""


# What runtimes say, in lower case, and what to do about it.
_REMEDIES: Final = (
    ("on '/sys/fs/cgroup'", "sudo mount -t cgroup2 none /sys/fs/cgroup"),
    ("hybrid mode", "use runc, or boot with systemd.unified_cgroup_hierarchy=1"),
    ("newuidmap", "sudo apt install uidmap, and check /etc/subuid and /etc/subgid"),
    ("newgidmap", "sudo apt install uidmap, and check /etc/subuid and /etc/subgid"),
    ("not found", "check the program's name in oci.conf, and PATH"),
    ("no such file", "check the paths in oci.conf and in config.json"),
    ("no space", "make room in the run-time directory, or set XDG_RUNTIME_DIR"),
    ("permission denied", "give the runtime a --root of your own in oci.conf"),
    ("not permitted", "see what `roadstead doctor` says of user namespaces"),
    ("user namespace", "see what `roadstead doctor` says of user namespaces"),
)  # fmt: skip


def remedy(said: str) -> str:
    """What to do about a runtime's complaint; "" where nothing is known."""
    low = said.lower()
    return next((fix for words, fix in _REMEDIES if words in low), "")
