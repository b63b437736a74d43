"""What a client asks for, checked and completed: raw messages become JobSpec and StepRequest.

Commands send options as strings, as typed; here is the only place that gives them a meaning, a
default and a limit.  What nodes a job needs is in needs.py.  Facts of the machine and of the
account come in as a ``Site``.

A message is a program's work, not a person's: when its shape is wrong, the sentence says only that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from roadstead.core import (
    arrays,
    binding,
    container,
    distribution,
    environment,
    gpus,
    hostlist,
    mail,
    multiprog,
    names,
    needs,
    values,
)
from roadstead.core import dependency as dependencies
from roadstead.core.model import (
    Binding,
    Dependency,
    Gres,
    JobKind,
    JobSpec,
    Launch,
    Mpi,
    Program,
    Stdio,
    StepRequest,
    Terminal,
)
from roadstead.core.site import Site
from roadstead.errors import EngineError, RequestError, UsageError

BATCH_OUTPUT = "slurm-%j.out"
ARRAY_OUTPUT = "slurm-%A_%a.out"
_IMMEDIATELY = 1  # srun(1): --immediate without a value

# Those of setrlimit(2) that --propagate knows (srun(1)).
LIMITS = ("AS", "CORE", "CPU", "DATA", "FSIZE", "MEMLOCK", "NOFILE", "NPROC", "RSS", "STACK")
_LONGEST_KEY = 64
_LARGEST_TERMINAL = 0xFFFF  # tty_ioctl(4), struct winsize

Message = Mapping[str, Any]
# Whether they were given matters, beside what they say: the environment tells only then.
_ASKED = (
    *("ntasks", "cpus-per-task", "ntasks-per-node", "mem", "mem-per-cpu", "wrap"),
    *("gpus-per-task", "gpu-bind"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """What the controller found out about a message: its group's name, the oci.conf in force, and
    the process that sent it."""

    group: str = ""
    oci_conf: str = ""
    client_pid: int = 0
    client_start: str = ""
    limits: Mapping[str, int] = field(default_factory=dict)


def job(kind: JobKind, message: Message, site: Site, extra: Extra) -> JobSpec:
    """The job that a ``run``, ``submit`` or ``allocate`` message asks for."""
    options = _options(message)
    if kind == "run":
        options = distribution.resolve(message, options)
    options = gpus.spread(options, 1)
    cwd = _cwd(message)
    argv = _argv(message)
    needed = needs.of_job(kind, options, site)
    env = _environment(kind, message, options, site)
    spec = JobSpec(
        kind=kind,
        name=options.get("job-name") or _default_name(kind, argv),
        user=_user(message),
        uid=site.uid,
        gid=_number(message, "gid"),
        group=extra.group,
        cwd=_directory(options, cwd),
        submit_dir=cwd,
        submit_host=site.host,
        argv=argv,
        script=_script(message) if kind == "batch" else "",
        env=env,
        plugged=names.PLUGSTACK in env,
        umask=_umask(message),
        container=container.of(message, options, cwd, _directory(options, cwd)),
        stdio=_stdio(kind, options),
        terminal=_terminal(message) if kind == "run" else None,
        immediate=_immediate(options),
        kill_on_bad_exit=_kill_on_bad_exit(kind, options),
        wait=_wait(kind, options),
        comment=options.get("comment", ""),
        account=options.get("account", ""),
        qos=options.get("qos", ""),
        wckey=options.get("wckey", ""),
        dependency=dependency(message, kind),
        kill_on_invalid_dep=_yes(options, "kill-on-invalid-dep"),
        asked=tuple(name for name in _ASKED if name in options),
        oci_conf=extra.oci_conf,
        client_pid=0 if kind == "batch" else extra.client_pid,
        client_start="" if kind == "batch" else extra.client_start,
        key=_key(message),
        launch=_launch(kind, message, options, argv, needed["ntasks"]),
        limits=propagated(options, extra.limits),
        mail=mail.parse(options, _text(message, "mailer", ""), _user(message)),
        **needed,
    )
    needs.check(kind, spec, site)
    return spec


def array(message: Message) -> arrays.Numbers | None:
    """The job array that a ``submit`` message asks for."""
    text = _options(message).get("array")
    return None if text is None else arrays.parse(text)


def dependency(message: Message, kind: JobKind, task_id: int | None = None) -> Dependency | None:
    """What the job (or this element of the array) waits for."""
    try:
        return dependencies.parse(_options(message).get("dependency", ""), task_id)
    except RequestError as error:
        raise RequestError(f"{needs.REFUSED[kind]}: {error}", hint=error.hint) from None


def _yes(options: Mapping[str, str], name: str) -> bool:
    word = options.get(name, "no").lower()
    if word not in ("yes", "no"):
        raise UsageError(f"Invalid --{name} specification", hint="yes or no")
    return word == "yes"


def is_test(message: Message) -> bool:
    """Whether only the time is asked for at which the job would start."""
    return "test-only" in _options(message)


def is_for_step(message: Message) -> bool:
    """Whether a ``run`` message names an allocation."""
    return bool(_options(message).get("jobid"))


def job_of_step(message: Message) -> int:
    """The job that a ``run`` message inside an allocation names."""
    return values.count(_options(message).get("jobid", ""), "--jobid")


def het_group(message: Message) -> str | None:
    """--het-group: for which components of a heterogeneous job the step, or a part of it, is."""
    return _options(message).get("het-group")


def step(message: Message, site: Site, extra: Extra, allocated: int = 1) -> StepRequest:
    """The step that a ``run`` message inside an allocation of so many nodes asks for."""
    options = gpus.spread(distribution.resolve(message, _options(message)), allocated)
    job_id = job_of_step(message)
    argv = _argv(message)
    cwd = _cwd(message)
    nodes = values.node_count(options["nodes"])[0] if "nodes" in options else 0
    ntasks = needs.tasks(options, nodes or allocated)
    inside = message.get("in_job") == job_id
    return StepRequest(
        name=options.get("job-name") or _base_name(argv[0]),
        argv=argv,
        cwd=_directory(options, cwd),
        env=_environment("run", message, options, site),
        umask=_umask(message),
        ntasks=ntasks,
        cpus_per_task=needs.cpus_per_task(options),
        ntasks_per_node=_per_node(options),
        nodes=nodes,
        nodelist=_hosts(options, "nodelist"),
        exclude=_hosts(options, "exclude"),
        relative=values.seconds(options["relative"], "--relative") if "relative" in options else 0,
        memory=_step_memory(options),
        gres=_step_gres(options, nodes or allocated),
        # 22.05: --cpus-per-task implies --exact (srun(1)).
        exact=bool({"exact", "exclusive", "cpus-per-task"} & options.keys()),
        overlap="overlap" in options,
        overcommit="overcommit" in options,
        immediate=_immediate(options),
        parent_step=_optional_number(message, "in_step") if inside else None,
        time_limit=_time(options),
        container=container.of(message, options, cwd, _directory(options, cwd)),
        stdio=_stdio("run", options),
        terminal=_terminal(message),
        interactive=message.get("interactive") is True,
        kill_on_bad_exit=_kill_on_bad_exit("run", options),
        wait=_wait("run", options),
        launch=_launch("run", message, options, argv, ntasks),
        asked=tuple(name for name in _ASKED if name in options),
        oci_conf=extra.oci_conf,
        limits=propagated(options, extra.limits),
    )


def main_step(spec: JobSpec, env: dict[str, str]) -> StepRequest:
    """The step that a job starts with: its command, or its batch script (which shares its CPUs)."""
    return StepRequest(
        name="batch" if spec.kind == "batch" else spec.name,
        argv=spec.argv,
        cwd=spec.cwd,
        env=env,
        umask=spec.umask,
        ntasks=1 if spec.kind == "batch" else spec.ntasks,
        cpus_per_task=spec.cpus_per_task,
        ntasks_per_node=spec.ntasks_per_node,
        overlap=spec.kind == "batch",
        overcommit=spec.overcommit,
        time_limit=spec.time_limit,
        container=spec.container,
        stdio=spec.stdio,
        terminal=spec.terminal,
        kill_on_bad_exit=spec.kill_on_bad_exit,
        wait=spec.wait,
        launch=spec.launch,
        asked=spec.asked,
        oci_conf=spec.oci_conf,
        limits=spec.limits,
    )


def propagated(options: Mapping[str, str], limits: Mapping[str, int]) -> dict[str, int]:
    """--propagate: those of the soft limits of who asks that the job or step gets; all of them by
    default (slurm.conf(5), PropagateResourceLimits)."""
    given = options.get("propagate", "").upper().split(",")
    words = [word.removeprefix("RLIMIT_") for word in given]
    for word in words:
        if word not in ("", "ALL", "NONE", *LIMITS):
            raise RequestError(
                f"--propagate={options['propagate']} is not valid.",
                hint=f"one of: ALL, NONE, {', '.join(LIMITS)}",
            )
    every = "ALL" in words or words == [""]
    return {name: soft for name, soft in limits.items() if every or name in words}


# -- the job -----------------------------------------------------------------------------------


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


def _per_node(options: Mapping[str, str]) -> int:
    value = options.get("ntasks-per-node")
    return 0 if value is None else values.count(value, "--ntasks-per-node")


def _step_gres(options: Mapping[str, str], nodes: int) -> tuple[Gres, ...] | None:
    """What the step has of its job's devices on each node; None for all of them, shared."""
    if not {"gres", "gpus", "gpus-per-node", "gpus-per-task"} & options.keys():
        return None
    ntasks = needs.tasks(options, nodes)
    return needs.job_gres(options, ntasks, min(nodes, ntasks))


def _hosts(options: Mapping[str, str], name: str) -> tuple[str, ...]:
    """A step's own --nodelist or --exclude."""
    return tuple(dict.fromkeys(hostlist.expand(options.get(name, ""))))


def _step_memory(options: Mapping[str, str]) -> int:
    return values.memory(options["mem"]) if "mem" in options else 0


def _time(options: Mapping[str, str]) -> int | None:
    """A step's own limit."""
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


def _launch(
    kind: JobKind, message: Message, options: Mapping[str, str], argv: tuple[str, ...], ntasks: int
) -> Launch:
    """How srun's tasks are made of its command; of an allocation, only what its steps inherit."""
    words, plane = "", 0
    hosts: tuple[str, ...] = ()
    programs: tuple[Program, ...] = ()
    if "distribution" in options:
        words, plane = distribution.parse(options["distribution"])
        if words.startswith("arbitrary"):
            hosts = tuple(hostlist.expand(options["nodelist"])) if kind == "run" else ()
    if kind != "run":
        return Launch(distribution=words, plane=plane, gpus=gpus.binding(options))
    if "multi-prog" in options:
        text = _text(message, "programs")
        programs = multiprog.parse(text, argv[0], ntasks, argv[1:])
    return Launch(
        mpi=_mpi(options),
        binding=binding.parse(options.get("cpu-bind", ""))
        if options.get("cpu-bind")
        else Binding(),
        distribution=words,
        plane=plane,
        hosts=hosts,
        programs=programs,
        prolog=_script_of(message, options, "task-prolog"),
        epilog=_script_of(message, options, "task-epilog"),
        bcast=_bcast(message, options),
        gpus=gpus.binding(options),
    )


def _script_of(message: Message, options: Mapping[str, str], name: str) -> str:
    """--task-prolog or --task-epilog, as an absolute path."""
    path = options.get(name, "")
    if not path or path.lower() == "none":
        return ""
    if name == "task-prolog" and _is_contained(options):
        raise RequestError(
            "--task-prolog runs outside of the container, whose variables are made before",
            hint="do it in the container's command, or set variables by --export",
        )
    return path if path.startswith("/") else f"{_cwd(message).rstrip('/')}/{path}"


def _bcast(message: Message, options: Mapping[str, str]) -> str | None:
    """--bcast: where the copy of the program goes; a name made up in the working directory."""
    if "bcast" not in options:
        return None
    if _is_contained(options) or "multi-prog" in options:
        other = "--multi-prog" if "multi-prog" in options else "--container"
        raise RequestError(f"--bcast copies the program of a step; it makes no sense with {other}")
    path = options["bcast"]
    return path if not path or path.startswith("/") else f"{_cwd(message).rstrip('/')}/{path}"


def _is_contained(options: Mapping[str, str]) -> bool:
    return any(options.get(name) for name in ("container", "container-image", "container-name"))


def _mpi(options: Mapping[str, str]) -> Mpi:
    kind = options.get("mpi") or "none"
    if kind in ("none", "pmi2", "pmix"):
        return cast("Mpi", kind)
    if kind.startswith("pmix_v"):  # the library decides which versions it speaks
        return "pmix"
    raise RequestError(
        f"Invalid MPI type '{kind}', --mpi=list for acceptable types",
        hint="MPICH, Intel MPI and MVAPICH2 speak pmi2, Open MPI pmix",
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
    if not all(name and "=" not in name for name in env):
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
            output=output or (ARRAY_OUTPUT if "array" in options else BATCH_OUTPUT),
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


def _base_name(program: str) -> str:
    return program.rpartition("/")[2]


# -- the shape of a message --------------------------------------------------------------------


def _malformed(name: str) -> EngineError:
    return EngineError(f"malformed request: {name}")


def _options(message: Message) -> dict[str, str]:
    options = message.get("options")
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


def _text(message: Message, name: str, usual: str | None = None) -> str:
    value = message.get(name, usual)
    if not isinstance(value, str):
        raise _malformed(name)
    return value


def _user(message: Message) -> str:
    """The user's name: a part of the names of containers, and so of directories."""
    name = _text(message, "user")
    if "/" in name or not name.strip("."):
        raise _malformed("user")
    return name


def _cwd(message: Message) -> str:
    path = _text(message, "cwd")
    if not path.startswith("/"):
        raise _malformed("cwd")
    return path


def _umask(message: Message) -> int:
    return _number(message, "umask") & 0o777


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
    rows, columns = _number(size, "rows"), _number(size, "columns")
    if max(rows, columns) > _LARGEST_TERMINAL:
        raise _malformed("terminal")
    return Terminal(rows=rows, columns=columns)
