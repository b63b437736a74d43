"""What a client asks for, checked and completed: raw messages become JobSpec and StepRequest.

Commands send options as strings, as typed; here is the only place that gives them a meaning, a
default and a limit.  What the machine can never satisfy is refused now, in Slurm's words, so that
no job waits for ever.  Facts of the machine and of the account come in as a ``Site``.

A message is a program's work, not a person's: when its shape is wrong, the sentence says only that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast, get_args

from roadstead.core import environment, values
from roadstead.core.model import (
    ContainerRequest,
    EnvPolicy,
    HookPolicy,
    JobKind,
    JobSpec,
    Stdio,
    StepRequest,
    Terminal,
    Writable,
)
from roadstead.core.schedule import Node, cpus_needed
from roadstead.errors import EngineError, RequestError, UsageError

PARTITION = "local"
BATCH_OUTPUT = "slurm-%j.out"
_IMMEDIATELY = 1  # srun(1): --immediate without a value

_LONGEST_KEY = 64
_MOST_TASKS = 512  # slurm.conf(5), MaxTasksPerNode; without --overcommit CPUs are the limit

Message = Mapping[str, Any]
REFUSED = {
    "run": "Unable to allocate resources",
    "batch": "Batch job submission failed",
    "alloc": "Job submit/allocate failed",
}
_CONTAINER_DETAILS = (
    "container-id",
    "container-writable",
    "container-readonly",
    "container-env-policy",
    "container-hooks",
)
# What --container-writable is given → what that means; "": the option alone.
_WRITABLE: Final[dict[str | None, Writable]] = {
    None: "bundle",
    "": "direct",
    "private": "private",
}
# Whether they were given matters, beside what they say: the environment tells only then.
_ASKED = ("ntasks", "cpus-per-task", "ntasks-per-node", "mem", "mem-per-cpu", "wrap")


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What a request is judged by.  ``login``: the variables that a login would set."""

    node: Node
    uid: int
    login: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """What the controller found out about a message: its group's name, the oci.conf in force, and
    the process that sent it."""

    group: str = ""
    oci_conf: str = ""
    client_pid: int = 0


def job(kind: JobKind, message: Message, site: Site, extra: Extra) -> JobSpec:
    """The job that a ``run``, ``submit`` or ``allocate`` message asks for."""
    options = _options(message)
    ntasks, per_task = _tasks(options), _cpus_per_task(options)
    cwd = _text(message, "cwd")
    argv = _argv(message)
    if kind == "run":
        _mpi(options)
    spec = JobSpec(
        kind=kind,
        name=options.get("job-name") or _default_name(kind, argv),
        user=_text(message, "user"),
        uid=site.uid,
        gid=_number(message, "gid"),
        group=extra.group,
        cwd=_directory(options, cwd),
        submit_dir=cwd,
        argv=argv,
        script=_script(message) if kind == "batch" else "",
        env=_environment(kind, message, options, site),
        umask=_number(message, "umask"),
        ntasks=ntasks,
        cpus_per_task=per_task,
        time_limit=_time(options),
        partition=_partition(kind, options),
        container=_container(options, cwd),
        stdio=_stdio(kind, options),
        terminal=_terminal(message),
        hold="hold" in options,
        exclusive="exclusive" in options,
        overcommit="overcommit" in options,
        immediate=_immediate(options),
        kill_on_bad_exit=_kill_on_bad_exit(kind, options),
        wait=_wait(kind, options),
        comment=options.get("comment", ""),
        asked=tuple(name for name in _ASKED if name in options),
        oci_conf=extra.oci_conf,
        client_pid=0 if kind == "batch" else extra.client_pid,
        key=_key(message),
    )
    return _fitted(spec, options, site.node)


def is_for_step(message: Message) -> bool:
    """Whether a ``run`` message names an allocation."""
    return bool(_options(message).get("jobid"))


def step(message: Message, site: Site, extra: Extra) -> tuple[int, StepRequest]:
    """The job id and the step that a ``run`` message inside an allocation asks for."""
    options = _options(message)
    job_id = values.count(options.get("jobid", ""), "--jobid")
    argv = _argv(message)
    cwd = _text(message, "cwd")
    least, _ = values.node_count(options.get("nodes", "1"))
    if least > 1:
        raise RequestError(f"Only allocated 1 nodes asked for {least}")
    _mpi(options)
    inside = message.get("in_job") == job_id
    return job_id, StepRequest(
        name=options.get("job-name") or _base_name(argv[0]),
        argv=argv,
        cwd=_directory(options, cwd),
        env=_environment("run", message, options, site),
        umask=_number(message, "umask"),
        ntasks=_tasks(options),
        cpus_per_task=_cpus_per_task(options),
        memory=_step_memory(options),
        # 22.05: --cpus-per-task implies --exact (srun(1)).
        exact=bool({"exact", "exclusive", "cpus-per-task"} & options.keys()),
        overlap="overlap" in options,
        overcommit="overcommit" in options,
        immediate=_immediate(options),
        parent_step=_optional_number(message, "in_step") if inside else None,
        time_limit=_time(options),
        container=_container(options, cwd),
        stdio=_stdio("run", options),
        terminal=_terminal(message),
        interactive=message.get("interactive") is True,
        kill_on_bad_exit=_kill_on_bad_exit("run", options),
        wait=_wait("run", options),
        asked=tuple(name for name in _ASKED if name in options),
        oci_conf=extra.oci_conf,
    )


def main_step(spec: JobSpec, env: dict[str, str]) -> StepRequest:
    """The step that a job starts with: its command, or its batch script (which shares its CPUs)."""
    return StepRequest(
        name="batch" if spec.kind == "batch" else _base_name(spec.argv[0]),
        argv=spec.argv,
        cwd=spec.cwd,
        env=env,
        umask=spec.umask,
        ntasks=1 if spec.kind == "batch" else spec.ntasks,
        cpus_per_task=spec.cpus_per_task,
        memory=spec.memory,
        overlap=spec.kind == "batch",
        overcommit=spec.overcommit,
        time_limit=spec.time_limit,
        container=spec.container,
        stdio=spec.stdio,
        terminal=spec.terminal,
        kill_on_bad_exit=spec.kill_on_bad_exit,
        wait=spec.wait,
        asked=spec.asked,
        oci_conf=spec.oci_conf,
    )


# -- the job -----------------------------------------------------------------------------------


def _fitted(spec: JobSpec, options: Mapping[str, str], node: Node) -> JobSpec:
    """The specification with its memory; refused if the node can never satisfy it."""
    refused = REFUSED[spec.kind]
    cpus = cpus_needed(spec, node)
    memory = _job_memory(options, cpus, node)
    least, _ = values.node_count(options.get("nodes", "1"))
    if "ntasks" in options:
        least = min(least, spec.ntasks)  # srun(1), --nodes: never more nodes than tasks
    if least != 1:
        raise RequestError(
            f"{refused}: Node count specification invalid", hint="the local engine has one node"
        )
    per_node = options.get("ntasks-per-node")
    if cpus > len(node.cpus) or (per_node is not None and spec.ntasks > int(per_node)):
        raise RequestError(
            f"{refused}: More processors requested than permitted",
            hint=f"{node.name} has {len(node.cpus)} CPUs; --overcommit puts several tasks on one",
        )
    if memory > node.memory:
        raise RequestError(
            f"{refused}: Requested node configuration is not available",
            hint=f"Memory specification can not be satisfied: {node.name} has {node.memory} MiB",
        )
    return replace(spec, memory=memory)


def _job_memory(options: Mapping[str, str], cpus: int, node: Node) -> int:
    if "mem" in options and "mem-per-cpu" in options:
        raise RequestError("--mem and --mem-per-cpu are mutually exclusive", hint="leave one out")
    if "mem-per-cpu" in options:
        return values.memory(options["mem-per-cpu"], "--mem-per-cpu") * cpus
    if "mem" in options:
        return values.memory(options["mem"]) or node.memory  # srun(1): 0 is all of the node's
    return 0


def _partition(kind: JobKind, options: Mapping[str, str]) -> str:
    for name in options.get("partition", PARTITION).split(","):
        if name != PARTITION:
            raise RequestError(
                f"{REFUSED[kind]}: invalid partition specified: {name}",
                hint=f"the local engine has one, {PARTITION}",
            )
    return PARTITION


def _default_name(kind: JobKind, argv: tuple[str, ...]) -> str:
    return "interactive" if kind == "alloc" else _base_name(argv[0])


def _script(message: Message) -> str:
    script = _text(message, "script")
    if not script.startswith("#!"):
        raise RequestError(
            "This does not look like a batch script: line 1 does not name an interpreter",
            hint="begin it with: #!/bin/sh",
        )
    return script


# -- jobs and steps ----------------------------------------------------------------------------


def _tasks(options: Mapping[str, str]) -> int:
    per_node = options.get("ntasks-per-node")
    number = 1 if per_node is None else values.count(per_node, "--ntasks-per-node")
    if "ntasks" in options:
        number = values.count(options["ntasks"], "--ntasks")
    if "overcommit" in options and number > _MOST_TASKS:
        raise RequestError(f"--ntasks={number}: a node runs at most {_MOST_TASKS} tasks")
    return number


def _cpus_per_task(options: Mapping[str, str]) -> int:
    return values.count(options.get("cpus-per-task", "1"), "--cpus-per-task")


def _step_memory(options: Mapping[str, str]) -> int:
    return values.memory(options["mem"]) if "mem" in options else 0


def _time(options: Mapping[str, str]) -> int | None:
    return values.time_limit(options["time"]) if "time" in options else None


def _immediate(options: Mapping[str, str]) -> float | None:
    if "immediate" not in options:
        return None
    return float(values.seconds(options["immediate"] or str(_IMMEDIATELY), "--immediate"))


def _kill_on_bad_exit(kind: JobKind, options: Mapping[str, str]) -> bool:
    """salloc's -K is another option, --kill-command."""
    if kind != "run" or "kill-on-bad-exit" not in options:
        return False
    return values.seconds(options["kill-on-bad-exit"] or "1", "--kill-on-bad-exit") != 0


def _wait(kind: JobKind, options: Mapping[str, str]) -> float | None:
    """srun's --wait; 0 is for ever (srun(1)).  sbatch's has no value and is the client's."""
    if kind != "run" or "wait" not in options:
        return None
    return float(values.seconds(options["wait"], "--wait")) or None


def _mpi(options: Mapping[str, str]) -> None:
    kind = options.get("mpi", "none")
    if kind not in ("", "none"):
        raise RequestError(
            f"--mpi={kind}: the local engine has no {kind} server", hint="use --mpi=none"
        )


def _directory(options: Mapping[str, str], cwd: str) -> str:
    """The working directory: --chdir, relative to where the command was typed."""
    wanted = options.get("chdir", "")
    if not wanted or wanted.startswith("/"):
        return wanted or cwd
    return f"{cwd.rstrip('/')}/{wanted}"


def _environment(
    kind: JobKind, message: Message, options: Mapping[str, str], site: Site
) -> dict[str, str]:
    env = message.get("env")
    if not isinstance(env, dict) or not all(isinstance(value, str) for value in env.values()):
        raise _malformed("env")
    option = options.get("export")
    passed = environment.exported(
        environment.without_job(env), option, login=site.login, batch=kind == "batch"
    )
    if kind == "batch" and option is not None:
        passed["SLURM_EXPORT_ENV"] = option  # sbatch(1): so that its srun commands do likewise
    return passed


def _stdio(kind: JobKind, options: Mapping[str, str]) -> Stdio:
    mode = options.get("open-mode", "").lower()
    if mode and mode not in ("a", "append", "t", "truncate"):
        raise UsageError("Invalid --open-mode specification", hint="write append or truncate")
    output = options.get("output", "")
    if kind == "batch":
        return Stdio(
            input=options.get("input", "") or "none",
            output=output or BATCH_OUTPUT,
            error=options.get("error", ""),
            append=mode.startswith("a"),
        )
    return Stdio(
        input=_stream(options.get("input", "")),
        output=_stream(output),
        error=_stream(options.get("error", "")),
        append=mode.startswith("a"),
        label="label" in options,
        unbuffered="unbuffered" in options,
    )


def _stream(pattern: str) -> str:
    """srun(1), IO Redirection: "all" is what happens anyway; words in any case, as in Slurm."""
    word = pattern.lower()
    return "" if word == "all" else word if word == "none" else pattern


def _container(options: Mapping[str, str], cwd: str) -> ContainerRequest | None:
    bundle = options.get("container", "")
    if not bundle:
        for name in _CONTAINER_DETAILS:
            if name in options and name != "container-id":
                raise RequestError(f"--{name} needs --container", hint="add --container=BUNDLE")
        return None
    if not bundle.startswith("/") and "://" not in bundle:
        raise RequestError(f"--container={bundle}: not an absolute path")
    writable = options.get("container-writable")
    readonly = "container-readonly" in options
    if readonly and writable is not None:
        raise RequestError(
            "--container-readonly and --container-writable contradict each other",
            hint="leave one out",
        )
    if writable not in _WRITABLE:
        raise UsageError("Invalid --container-writable specification", hint="the word is: private")
    return ContainerRequest(
        bundle=bundle,
        id=options.get("container-id", ""),
        writable=_WRITABLE[writable],
        readonly=readonly,
        env_policy=cast("EnvPolicy", _choice(options, "container-env-policy", EnvPolicy, "merge")),
        hooks=cast("HookPolicy", _choice(options, "container-hooks", HookPolicy, "drop")),
        workdir=_directory(options, cwd) if "chdir" in options else "",
        verbose="verbose" in options,
    )


def _choice(options: Mapping[str, str], name: str, literal: Any, default: str) -> str:
    value = options.get(name) or default
    words = get_args(literal)
    if value not in words:
        raise UsageError(f"Invalid --{name} specification", hint=f"one of: {', '.join(words)}")
    return value


def _base_name(program: str) -> str:
    return program.rpartition("/")[2]


# -- the shape of a message --------------------------------------------------------------------


def _malformed(name: str) -> EngineError:
    return EngineError(f"malformed request: {name}")


def _options(message: Message) -> dict[str, str]:
    options = message.get("options")
    if isinstance(options, dict) and "test-only" in options:
        raise RequestError("--test-only: not supported yet on the local engine")
    if not isinstance(options, dict) or not all(isinstance(v, str) for v in options.values()):
        raise _malformed("options")
    return options


def _argv(message: Message) -> tuple[str, ...]:
    argv = message.get("argv")
    if not isinstance(argv, list) or not all(isinstance(word, str) for word in argv):
        raise _malformed("argv")
    if not argv and message.get("op") != "allocate":
        raise RequestError("No command given to execute")
    return tuple(argv)


def _text(message: Message, name: str) -> str:
    value = message.get(name)
    if not isinstance(value, str):
        raise _malformed(name)
    return value


def _key(message: Message) -> str:
    key = message.get("key", "")
    if not isinstance(key, str) or len(key) > _LONGEST_KEY or not key.isascii():
        raise _malformed("key")
    return key


def _number(message: Message, name: str) -> int:
    value = message.get(name)
    if type(value) is not int or value < 0:
        raise _malformed(name)
    return value


def _optional_number(message: Message, name: str) -> int | None:
    return None if message.get(name) is None else _number(message, name)


def _terminal(message: Message) -> Terminal | None:
    size = message.get("terminal")
    if size is None:
        return None
    if not isinstance(size, dict):
        raise _malformed("terminal")
    return Terminal(rows=_number(size, "rows"), columns=_number(size, "columns"))
