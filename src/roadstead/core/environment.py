"""The SLURM_* variables of jobs, steps and tasks, and which of the user's variables go with them.

The names are those that srun(1), sbatch(1) and salloc(1) list as OUTPUT ENVIRONMENT VARIABLES and
that a real Slurm 22.05 sets.  Left out is what has no meaning on one node: SLURM_CONF, the address
of a slurmctld (SLURM_WORKING_CLUSTER), TMPDIR.  srun's ports are there and 0: nobody listens.

Variables of the job that a command was typed in never reach a new job: it would take itself for a
step of the old one.  Where the manual and Slurm's --export disagree, this does as Slurm does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from roadstead.core import arrays, hostlist
from roadstead.core.model import Allocation, Share, StepRequest
from roadstead.core.names import CLUSTER

if TYPE_CHECKING:  # agents need names of variables, and no states
    from roadstead.core.lifecycle import Job

_LOOPBACK = "127.0.0.1"
_DEFAULT_DEBUG = 3  # srun(1), SRUN_DEBUG: "info"

# By these GPU libraries know what is theirs.
GPU_VARIABLES = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL")
# What only a job, step or task of ours sets.
_OF_JOBS = (
    "ENVIRONMENT", "SLURMD_NODENAME", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_COUNT",
    "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MAX", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP",
    "SLURM_CLUSTER_NAME", "SLURM_CONTAINER", "SLURM_CONTAINER_ID", "SLURM_CPUS_ON_NODE",
    "SLURM_CPUS_PER_TASK", "SLURM_DISTRIBUTION", "SLURM_GTIDS", "SLURM_JOBID",
    "SLURM_JOB_CPUS_PER_NODE", "SLURM_JOB_CPUS_PER_NODE_PACK_GROUP_0", "SLURM_JOB_GID",
    "SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_JOB_NODELIST", "SLURM_JOB_NUM_NODES",
    "SLURM_JOB_PARTITION", "SLURM_JOB_UID", "SLURM_JOB_USER", "SLURM_LAUNCH_NODE_IPADDR",
    "SLURM_LOCALID", "SLURM_MEM_PER_CPU", "SLURM_MEM_PER_NODE", "SLURM_NNODES", "SLURM_NODEID",
    "SLURM_NODELIST", "SLURM_NODE_ALIASES", "SLURM_NPROCS", "SLURM_NTASKS", "SLURM_NTASKS_PER_NODE",
    "SLURM_OVERCOMMIT", "SLURM_PRIO_PROCESS", "SLURM_PROCID", "SLURM_SRUN_COMM_HOST",
    "SLURM_SRUN_COMM_PORT", "SLURM_STEPID", "SLURM_STEP_ID", "SLURM_STEP_LAUNCHER_PORT",
    "SLURM_STEP_NODELIST", "SLURM_STEP_NUM_NODES", "SLURM_STEP_NUM_TASKS",
    "SLURM_STEP_TASKS_PER_NODE", "SLURM_SUBMIT_DIR", "SLURM_SUBMIT_HOST", "SLURM_TASKS_PER_NODE",
    "SLURM_CPU_BIND", "SLURM_CPU_BIND_LIST", "SLURM_CPU_BIND_TYPE", "SLURM_CPU_BIND_VERBOSE",
    "SLURM_DIST_PLANESIZE", "SLURM_MPI_TYPE", "PMI_FD", "PMI_JOBID", "PMI_RANK", "PMI_SIZE",
    "SLURM_TASK_PID", "SLURM_TOPOLOGY_ADDR", "SLURM_TOPOLOGY_ADDR_PATTERN", "SLURM_UMASK",
    "SRUN_DEBUG", "SLURM_GPUS_ON_NODE", "SLURM_JOB_GPUS", "SLURM_RESTART_COUNT", "SLURM_STEP_GPUS",
    "SLURM_GPUS_PER_TASK", "SLURM_GPU_BIND", "ROADSTEAD_STEP", "ROADSTEAD_STEP_DIR",
)  # fmt: skip


def without_job(env: Mapping[str, str]) -> dict[str, str]:
    """The environment less the variables of the job that it comes from."""
    left = dict(env)
    for name in _OF_JOBS:
        left.pop(name, None)
    if "SLURM_HET_SIZE" in left:
        left = {name: value for name, value in left.items() if not _is_of_component(name)}
    return left


def _is_of_component(name: str) -> bool:
    marks = ("_HET_GROUP_", "_PACK_GROUP_", "_HET_SIZE", "_PACK_SIZE")
    return name.startswith("SLURM_") and any(mark in name for mark in marks)


def exported(
    env: Mapping[str, str], option: str | None, *, login: Mapping[str, str], batch: bool
) -> dict[str, str]:
    """What ``--export=option`` lets through of ``env``.

    SLURM_* variables always pass.  A batch job that does not get everything starts from ``login``,
    the variables that a login would set; a step starts from nothing.  With ALL, a value given in
    the option overrides the user's for sbatch, and yields to it for srun.
    """
    if option is None or option.upper() == "ALL":
        return dict(env)
    words = _split(option)
    whole = any(word.upper() == "ALL" for word in words)
    result = {name: value for name, value in env.items() if name.startswith("SLURM_")}
    if whole:
        result = dict(env)
    elif batch:
        result = {**login, **result}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or name.upper() in ("ALL", "NONE", "NIL"):
            continue
        if not equals:
            if name in env:
                result[name] = env[name]
        elif batch or not whole or name not in env:
            result[name] = value
    return result


def _split(option: str) -> list[str]:
    """The words between the commas that are outside quotes."""
    words, word, quote = [], "", ""
    for char in option:
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char == ",":
            words.append(word)
            word = ""
            continue
        word += char
    return [*words, word]


def allocation(job: Job, granted: Allocation) -> dict[str, str]:
    """The variables of salloc's local command: the job's, for whoever is not one of its tasks."""
    spec, nodes = job.spec, hostlist.fold(list(granted.nodes))
    env = {
        "SLURM_CLUSTER_NAME": CLUSTER,
        "SLURM_JOBID": str(job.id),
        "SLURM_JOB_CPUS_PER_NODE": repeated([len(share.cpus) for share in granted.shares]),
        "SLURM_JOB_ID": str(job.id),
        "SLURM_JOB_NAME": spec.name,
        "SLURM_JOB_NODELIST": nodes,
        "SLURM_JOB_NUM_NODES": str(len(granted.shares)),
        "SLURM_JOB_PARTITION": granted.partition or spec.partition,
        "SLURM_NNODES": str(len(granted.shares)),
        "SLURM_NODELIST": nodes,
        "SLURM_NODE_ALIASES": "(null)",
        "SLURM_SUBMIT_DIR": spec.submit_dir,
        "SLURM_SUBMIT_HOST": spec.submit_host or granted.node,
        "SLURM_TASKS_PER_NODE": repeated([share.ntasks for share in granted.shares]),
    }
    if "ntasks" in spec.asked:
        env["SLURM_NTASKS"] = env["SLURM_NPROCS"] = str(spec.ntasks)
    if "cpus-per-task" in spec.asked:
        env["SLURM_CPUS_PER_TASK"] = str(spec.cpus_per_task)
    if "ntasks-per-node" in spec.asked:
        env["SLURM_NTASKS_PER_NODE"] = str(spec.ntasks_per_node)
    if "mem" in spec.asked:
        env["SLURM_MEM_PER_NODE"] = str(spec.memory)
    if "mem-per-cpu" in spec.asked:
        env["SLURM_MEM_PER_CPU"] = str(spec.memory_per_cpu)
    if spec.launch.distribution:
        env["SLURM_DISTRIBUTION"] = spec.launch.distribution
        if spec.launch.plane:
            env["SLURM_DISTRIBUTION"] = f"plane={spec.launch.plane}"
    if spec.overcommit:
        env["SLURM_OVERCOMMIT"] = "1"
    bound = spec.launch.gpus
    if "gpu-bind" in spec.asked and bound.kind:
        env["SLURM_GPU_BIND"] = f"{bound.kind}:{','.join(bound.values)}"
    elif "gpus-per-task" in spec.asked and bound.kind:
        env["SLURM_GPUS_PER_TASK"] = bound.values[0]
    env |= arrays.environment(spec.array)
    if job.restarts:
        env["SLURM_RESTART_COUNT"] = str(job.restarts)
    if spec.container is not None:
        env["SLURM_CONTAINER"] = spec.container.bundle
        if spec.container.id:
            env["SLURM_CONTAINER_ID"] = spec.container.id
    return env


def node(job: Job, granted: Allocation) -> dict[str, str]:
    """What every process of a job on its first node has over its allocation's variables."""
    share = granted.shares[0]
    env = {
        **allocation(job, granted),
        "SLURMD_NODENAME": share.node,
        "SLURM_CPUS_ON_NODE": str(len(share.cpus)),
        "SLURM_JOB_GID": str(job.spec.gid),
        "SLURM_JOB_UID": str(job.spec.uid),
        "SLURM_JOB_USER": job.spec.user,
        "SLURM_PRIO_PROCESS": "0",
        "SLURM_TOPOLOGY_ADDR": share.node,
        "SLURM_TOPOLOGY_ADDR_PATTERN": "node",
    }
    gpus = _gpus(share)
    if gpus:
        env["SLURM_JOB_GPUS"] = gpus
        env |= visible(share)
    return env


def batch(job: Job, granted: Allocation) -> dict[str, str]:
    """The variables of a batch script."""
    return {**node(job, granted), "ENVIRONMENT": "BATCH"}


def step(
    job: Job,
    step_id: int,
    granted: Allocation,
    request: StepRequest,
    shares: Sequence[Share],
) -> dict[str, str]:
    """The variables of a step that srun started, common to its tasks."""
    spec, tasks = job.spec, str(request.ntasks)
    nodes = hostlist.fold([share.node for share in shares])
    per_node = repeated([share.ntasks for share in shares])
    env = node(job, granted)
    for name in (*visible(granted.shares[0]), "SLURM_JOB_GPUS"):
        env.pop(name, None)  # each task's node has its own
    env |= {
        "SLURM_LAUNCH_NODE_IPADDR": _LOOPBACK,
        "SLURM_NPROCS": tasks,
        "SLURM_NTASKS": tasks,
        "SLURM_SRUN_COMM_HOST": _LOOPBACK,
        "SLURM_SRUN_COMM_PORT": "0",
        "SLURM_STEPID": str(step_id),
        "SLURM_STEP_ID": str(step_id),
        "SLURM_STEP_LAUNCHER_PORT": "0",
        "SLURM_STEP_NODELIST": nodes,
        "SLURM_STEP_NUM_NODES": str(len(shares)),
        "SLURM_STEP_NUM_TASKS": tasks,
        "SLURM_STEP_TASKS_PER_NODE": per_node,
        "SLURM_TASKS_PER_NODE": per_node,
        "SLURM_UMASK": f"{request.umask:04o}",
        "SRUN_DEBUG": str(_DEFAULT_DEBUG),
    }
    if request.launch.distribution or spec.kind != "run":
        env["SLURM_DISTRIBUTION"] = request.launch.distribution or "block"
    if request.launch.plane:
        env["SLURM_DIST_PLANESIZE"] = str(request.launch.plane)
    if spec.kind != "run":
        env["SLURM_JOB_CPUS_PER_NODE_PACK_GROUP_0"] = env["SLURM_JOB_CPUS_PER_NODE"]
    if "cpus-per-task" in request.asked:
        env["SLURM_CPUS_PER_TASK"] = str(request.cpus_per_task)
    for name in ("SLURM_CONTAINER", "SLURM_CONTAINER_ID"):  # the job's is not its steps'
        env.pop(name, None)
    if request.container is not None:
        env["SLURM_CONTAINER"] = request.container.bundle
        if request.container.id:
            env["SLURM_CONTAINER_ID"] = request.container.id
    return env


def task(
    procid: int, localid: int, nodeid: int, share: Share, gtids: Sequence[int]
) -> dict[str, str]:
    """The variables that tell the tasks of a step apart; ``gtids`` are those of its node.

    SLURM_TASK_PID is not among them: only who starts the task knows it.
    """
    env = {
        "SLURMD_NODENAME": share.node,
        "SLURM_CPUS_ON_NODE": str(len(share.cpus)),
        "SLURM_GTIDS": ",".join(str(each) for each in gtids),
        "SLURM_LOCALID": str(localid),
        "SLURM_NODEID": str(nodeid),
        "SLURM_PROCID": str(procid),
        "SLURM_TOPOLOGY_ADDR": share.node,
    }
    gpus = _gpus(share)
    if gpus:
        env["SLURM_STEP_GPUS"] = gpus
        env |= visible(share)
    return env


def visible(share: Share) -> dict[str, str]:
    """The variables by which GPU libraries know what is theirs (slurm.conf: gres/gpu)."""
    gpus = _gpus(share)
    if not gpus:
        return {}
    number = str(len(gpus.split(",")))
    return {**dict.fromkeys(GPU_VARIABLES, gpus), "SLURM_GPUS_ON_NODE": number}


def seen(share: Share, positions: Sequence[int]) -> dict[str, str]:
    """The variables of a task that sees some of its node's GPUs (--gpu-bind)."""
    numbers = gpu_numbers(share)
    return dict.fromkeys(GPU_VARIABLES, ",".join([str(numbers[each]) for each in positions]))


def gpu_numbers(share: Share) -> list[int]:
    """The GPUs of a node by their numbers."""
    return sorted([n for each in share.gres if each.name == "gpu" for n in each.indexes])


def _gpus(share: Share) -> str:
    return ",".join(map(str, gpu_numbers(share)))


def repeated(numbers: Sequence[int]) -> str:
    """Numbers for one node after the other, as Slurm writes them: ``2(x3),1``."""
    words: list[str] = []
    at = 0
    while at < len(numbers):
        end = at
        while end < len(numbers) and numbers[end] == numbers[at]:
            end += 1
        times = f"(x{end - at})" if end - at > 1 else ""
        words.append(f"{numbers[at]}{times}")
        at = end
    return ",".join(words)
