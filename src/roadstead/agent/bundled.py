"""The bundle that slurmstepd has made of the user's, mended, and the step and the task it is for.

What slurmstepd writes differs from release to release; what is mended here:

* 22.05 names ``BUNDLE/rootfs`` whatever the user's config.json says: that one is looked up then.
* The sources of bind mounts that are relative count from the user's bundle, not from the spool's.
* The batch script and its files are mounted below /tmp/slurm, which a read-only root file system
  may not have: they go to a file system of the container's own.
* The environment of 22.05 is that of the step before its tasks: a task's place in it is computed.
  There is one task a node then.
"""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING, Any, Final, cast

from roadstead.core import hostlist
from roadstead.core.model import BATCH_STEP, ContainerRequest, Launch, StepSpec, TaskSpec, Terminal
from roadstead.errors import BundleError, RoadsteadError
from roadstead.host import identity, process, terminal
from roadstead.oci import bundle as bundles

if TYPE_CHECKING:
    from roadstead.agent.oci_call import Call
    from roadstead.core.model import HookPolicy, Writable

_FINAL_ENVIRONMENT: Final = (23, 2)  # from that release on it is written when the task starts
_DEPTH: Final = 4  # of a root file system in its bundle
_OF_SLURM: Final = "/tmp/slurm"
_OF_STEP: Final = ("SLURM_", "SLURMD_", "PMI_", "PMIX_")


def specs(call: Call) -> tuple[StepSpec, TaskSpec, int]:
    """What the container is for, and our descriptor for its PMI.  Raises BundleError."""
    directory = call.directory
    made, config = read(call)
    bundle = f"{directory}/bundle"
    os.mkdir(bundle, 0o700)
    with open(f"{bundle}/config.json", "w", encoding="utf-8") as file:
        file.write(json.dumps(config))
    argv = tuple((config.get("process") or {}).get("args") or ())
    if not argv:
        raise BundleError(f"{made}/config.json names no command", hint="process.args is empty")
    node = os.environ.get("SLURMD_NODENAME") or os.uname().nodename
    job, step, local = call.numbers or (0, 0, 0)
    known = variables(config)
    own = placed(known, node, step) if lacks_place(call, known) else {}
    procid = _number({**known, **own}.get("SLURM_PROCID", ""), local)
    pmi = pmi_descriptor(known)
    if pmi:
        own |= _pmi({**known, **own}, job, step)
    container = ContainerRequest(
        bundle=bundle,
        env_policy="image",
        hooks=cast("HookPolicy", call.options.get("hooks", "drop")),
        writable=cast("Writable", call.options.get("writable", "bundle")),
        workdir=call.options.get("workdir", ""),
        system=call.options.get("container-system", ""),
    )
    spec = StepSpec(
        job_id=job,
        step_id=step,
        kind="run",
        name=call.name,
        user=identity.name(),
        uid=os.getuid(),
        gid=os.getgid(),
        node=node if call.numbers else call.name,
        cwd="/",
        argv=argv,
        env=_environment(call),
        directory=directory,
        container=container,
        terminal=_terminal(),
        launch=Launch(mpi="pmi2" if pmi else "none"),
    )
    task = TaskSpec(
        procid=procid,
        localid=local,
        argv=argv,
        env={**own, "ROADSTEAD_STEP_DIR": directory},
        node=spec.node,
    )
    return spec, task, pmi


def _environment(call: Call) -> dict[str, str]:
    """By which the runtime is chosen: the administrator's word, and slurmd's PATH."""
    found = {"PATH": os.environ.get("PATH", os.defpath)}
    if runtime := call.options.get("runtime"):
        found["ROADSTEAD_RUNTIME"] = runtime
    return found


def _terminal() -> Terminal | None:
    """srun --pty: slurmstepd has given us a terminal, whatever config.json says."""
    if not (os.isatty(0) and os.isatty(1)):
        return None
    rows, columns = terminal.size(0)
    return Terminal(rows=rows, columns=columns)


def read(call: Call) -> tuple[str, dict[str, Any]]:
    """The directory that slurmstepd has made, and its config.json, mended.  Raises BundleError."""
    made = call.options["bundle"].rstrip("/") or "/"
    return made, mended(made, _read(made))


def _read(path: str) -> dict[str, Any]:
    return bundles.check(f"{path}/config.json", bundles.text(path))


def mended(made: str, config: dict[str, Any]) -> dict[str, Any]:
    """``config``, that slurmstepd has written to the directory ``made``, as it should be."""
    root = os.path.join(made, config["root"]["path"])
    users = _bundle_around(os.path.normpath(root))
    if not os.path.isdir(root):
        root = _root_of(users, root)
    process = config.setdefault("process", {})
    config["root"]["path"] = root
    process["env"] = _first_of_each(process.get("env") or [])
    own = _own_tmpfs(config)
    for mount in config.get("mounts") or []:
        options = mount.get("options") or []
        if mount.get("type") == "bind" or "bind" in options or "rbind" in options:
            mount["source"] = os.path.join(users, mount.get("source") or "")
        if own and f"{mount['destination']}/".startswith(f"{_OF_SLURM}/"):
            mount["destination"] = own + mount["destination"][len("/tmp") :]
    args = process.get("args") or []
    if own and args and args[0].startswith(f"{_OF_SLURM}/"):
        args[0] = own + args[0][len("/tmp") :]
    return config


def _bundle_around(root: str) -> str:
    """The user's bundle, to which a root file system belongs: mostly what it is right in."""
    parent = above = os.path.dirname(root)
    for _ in range(_DEPTH):
        if os.path.exists(f"{above}/config.json"):
            return above
        above = os.path.dirname(above)
    return parent


def _root_of(users: str, named: str) -> str:
    """The root file system that the user's own config.json names."""
    try:
        root = str(_read(users)["root"]["path"])
    except RoadsteadError:
        return named
    return os.path.join(users, root)


def _first_of_each(env: list[str]) -> list[str]:
    """Each variable once: the first that has the name, which is the bundle's, as getenv(3) finds
    it; of the step's own the last, which Slurm has added."""
    found: dict[str, str] = {}
    for entry in env:
        name, equals, _ = entry.partition("=")
        if equals and (name not in found or name.startswith(_OF_STEP)):
            found[name] = entry
    return list(found.values())


def _own_tmpfs(config: dict[str, Any]) -> str:
    """Where Slurm's own mounts go in place of /tmp: nowhere else, if that is the container's own
    memory; else below its /dev."""
    memory = {
        mount["destination"].rstrip("/")
        for mount in config.get("mounts") or []
        if mount.get("type") == "tmpfs"
    }
    return "/dev" if "/dev" in memory and "/tmp" not in memory else ""


def files(config: dict[str, Any]) -> dict[str, str]:
    """The files that a batch job has for its streams, by their names: stdin, stdout, stderr."""
    found = {}
    for mount in config.get("mounts") or []:
        directory, name = os.path.split(mount["destination"])
        if name in ("stdin", "stdout", "stderr") and directory.endswith("/slurm"):
            found[name] = str(mount.get("source") or "")
    return found


def variables(config: dict[str, Any]) -> dict[str, str]:
    """The environment of a config.json."""
    return dict(entry.partition("=")[::2] for entry in config["process"]["env"])


def lacks_place(call: Call, env: dict[str, str]) -> bool:
    """Whether the variables that tell tasks apart are not there, or are those of the batch script
    from which the step was started."""
    version = call.options.get("slurm", "")
    if version:
        return tuple(int(word) for word in version.split(".")[:2]) < _FINAL_ENVIRONMENT
    return "SLURM_PROCID" not in env


def placed(env: dict[str, str], node: str, step: int) -> dict[str, str]:
    """A task's place in a step of one task a node, the only kind that Slurm 22.05 allows."""
    number = 0
    if step != BATCH_STEP:
        names = env.get("SLURM_STEP_NODELIST") or env.get("SLURM_JOB_NODELIST") or node
        try:
            nodes = hostlist.expand(names)
        except RoadsteadError:
            nodes = []
        number = nodes.index(node) if node in nodes else 0
    return {
        "SLURM_PROCID": str(number),
        "SLURM_NODEID": str(number),
        "SLURM_GTIDS": str(number),
        "SLURM_LOCALID": "0",
        "SLURMD_NODENAME": node,
        "SLURM_TASK_PID": str(os.getpid()),
    }


def pmi_descriptor(env: dict[str, str]) -> int:
    """The descriptor by which an MPI library finds srun (--mpi=pmi2); 0 for none.

    Before 23.02 the variable that names it is not in config.json: it is the socket that slurmstepd
    has left open for us, and what kind it is we are told in our own environment.
    """
    named = _number(env.get("PMI_FD", ""), 0)
    if named in process.descriptors() and _is_left_open(named):
        return named
    if os.environ.get("SLURM_MPI_TYPE") != "pmi2":
        return 0
    found = [fd for fd in process.descriptors() if fd > 2 and _is_left_open(fd)]
    return found[0] if len(found) == 1 else 0


def _is_left_open(fd: int) -> bool:
    return os.get_inheritable(fd) and stat.S_ISSOCK(os.fstat(fd).st_mode)


def _pmi(env: dict[str, str], job: int, step: int) -> dict[str, str]:
    """What Slurm's mpi/pmi2 says to a task, of which ours is the descriptor's number."""
    size = env.get("SLURM_STEP_NUM_TASKS") or env.get("SLURM_NTASKS") or "1"
    computed = {
        "PMI_RANK": env.get("SLURM_PROCID", "0"), "PMI_SIZE": size, "PMI_JOBID": f"{job}.{step}",
    }  # fmt: skip
    return {name: env.get(name, value) for name, value in computed.items()} | {"PMI_FD": "3"}


def _number(text: str, otherwise: int) -> int:
    return int(text) if text.isascii() and text.isdigit() else otherwise
