"""What squeue, sinfo and scontrol are told: objects of plain values, every key always there.

The commands lay them out; here is only what is true.  Times are seconds since the epoch or None,
memory is MiB, states and reasons are Slurm's words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from roadstead.core import (
    arrays,
    dependency,
    filenames,
    het,
    hostlist,
    names,
    queue,
    schedule,
    values,
)
from roadstead.core import lifecycle as life
from roadstead.core.events import Facts
from roadstead.core.lifecycle import Job, Outcome, Step
from roadstead.core.model import INTERACTIVE_STEP, Gres, JobSpec, Share
from roadstead.core.site import Node, Partition
from roadstead.core.state import State

View = dict[str, Any]


def job(state: State, job: Job, at: float) -> View:
    """A job, as scontrol show job needs it."""
    spec = job.spec
    granted = _allocation(job)
    outcome = _outcome(job)
    held = outcome.reason == "JobHeldUser" or (
        isinstance(job.state, life.JobPending) and job.state.held
    )
    shares = () if granted is None else granted.shares
    return {
        "job_id": job.id,
        "array_job_id": None if spec.array is None else spec.array.job_id,
        "array_task_id": None if spec.array is None else spec.array.task_id,
        "array_throttle": 0 if spec.array is None else spec.array.throttle,
        "het_job_id": None if spec.het is None else spec.het.job_id,
        "het_offset": None if spec.het is None else spec.het.offset,
        "het_size": 0 if spec.het is None else spec.het.size,
        "name": spec.name,
        "user": spec.user,
        "uid": spec.uid,
        "gid": spec.gid,
        "group": spec.group,
        "partition": spec.partition if granted is None else granted.partition or spec.partition,
        "state": job.state.word.value,
        "reason": reason(state, job, at),
        "submit_time": job.submitted_at,
        "start_time": _start_time(job, at),
        "begin_time": spec.begin,
        "eligible_time": _eligible_time(job),
        "deadline": spec.deadline,
        "time_min": spec.least_time,
        "dependency": dependency.text(spec.dependency, state.arrays),
        "kill_on_invalid_dep": spec.kill_on_invalid_dep,
        "min_cpus": spec.least_cpus,
        "end_time": _end_time(job),
        "suspend_time": job.state.at if isinstance(job.state, life.JobSuspended) else None,
        "suspended": _suspended(job, at),
        "time_limit": spec.time_limit,
        "node": hostlist.fold([share.node for share in shares]),
        "batch_host": shares[0].node if shares and spec.kind == "batch" else "",
        "cpus": cpus_wanted(state, spec) if granted is None else granted.cpu_count,
        "cpu_ids": [] if granted is None else list(granted.shares[0].cpus),
        "shares": [_share(share) for share in shares],
        "ntasks": spec.ntasks,
        "cpus_per_task": spec.cpus_per_task,
        "ntasks_per_node": spec.ntasks_per_node,
        "nodes": spec.nodes if granted is None else len(shares),
        "memory": spec.memory,
        "memory_per_cpu": spec.memory_per_cpu,
        "gres": _gres(spec.gres),
        "licenses": _gres(spec.licenses),
        "features": "&".join(spec.features),
        "nodelist": ",".join(spec.nodelist),
        "exclude": ",".join(spec.exclude),
        "command": _command(job),
        "work_dir": spec.cwd,
        "stdin": _file(state, job, spec.stdio.input or "none"),
        "stdout": _file(state, job, spec.stdio.output),
        "stderr": _file(state, job, spec.stdio.error or spec.stdio.output),
        "container": "" if spec.container is None else spec.container.bundle,
        "container_id": "" if spec.container is None else spec.container.id,
        "exit_code": outcome.code,
        "exit_signal": outcome.signal,
        "priority": 0 if held else queue.priority(spec, job.submitted_at, state.site, at),
        "nice": spec.nice,
        "requeue": spec.requeue,
        "restarts": job.restarts,
        "comment": spec.comment,
        "account": spec.account,
        "qos": spec.qos,
        "wckey": spec.wckey,
        "exclusive": spec.exclusive,
        "batch": spec.kind == "batch",
    }


def _share(share: Share) -> View:
    return {
        "node": share.node,
        "cpus": list(share.cpus),
        "memory": share.memory,
        "gres": _gres(share.gres, indexes=True),
    }


def _gres(found: Iterable[Gres], *, indexes: bool = False) -> str:
    """As Slurm writes them: ``gpu:a100:2``, with the units of an allocation ``(IDX:0-1)``."""
    words = []
    for each in found:
        kind = f":{each.type}" if each.type else ""
        units = f"(IDX:{','.join(map(str, each.indexes))})" if indexes and each.indexes else ""
        words.append(f"{each.name}{kind}:{each.count}{units}")
    return ",".join(words)


def cpus_wanted(state: State, spec: JobSpec) -> int:
    """The CPUs of a job that has none yet."""
    if spec.exclusive:
        return min(len(node.cpus) for node in state.site.nodes) * spec.nodes
    return spec.cpus_per_task * (spec.nodes if spec.overcommit else spec.ntasks)


def _suspended(job: Job, at: float) -> float:
    """Seconds that the job has stood still."""
    if isinstance(job.state, life.JobSuspended):
        return life.paused(job.state, at).suspended
    granted = _allocation(job)
    return 0.0 if granted is None else float(granted.suspended)


def _start_time(job: Job, at: float) -> float | None:
    """When it started, or what it waits for (squeue(1), START_TIME)."""
    granted = _allocation(job)
    if granted is not None:
        return float(granted.started_at)
    if isinstance(job.state, life.JobEnded):
        return job.state.ended_at
    begin = job.spec.begin
    return begin if begin is not None and begin > at else None


def _eligible_time(job: Job) -> float | None:
    """From when on it could have started; None while it waits for other jobs."""
    if job.spec.dependency is not None:
        return None
    return max(job.submitted_at, job.spec.begin or 0.0)


def reason(state: State, job: Job, at: float) -> str:
    """Why it waits or how it ended, in squeue's words.  Who waits behind the first in line waits
    because of its Priority, whatever it needs."""
    if not isinstance(job.state, life.JobPending):
        return _outcome(job).reason
    if job.state.held:
        return "JobHeldUser"
    if het.is_led(job.spec):
        first = state.jobs.get(het.leader(job.spec, job.id), job)
        if first is not job and isinstance(first.state, life.JobPending):
            return reason(state, first, at)
    if job.spec.dependency is not None:
        never = dependency.is_never(job.spec.dependency)
        return "DependencyNeverSatisfied" if never else "Dependency"
    if job.spec.begin is not None and job.spec.begin > at:
        return "BeginTime"
    partitions = schedule.partitions_of(job.spec, state.site)
    if not partitions:
        return "PartitionDown"
    if not any(schedule.usable(each, state.conditions) for each in partitions):
        missing = [name for each in partitions for name in each.nodes]
        return f"ReqNodeNotAvail, UnavailableNodes:{hostlist.fold(missing)}"
    if job.id not in state.queue:
        return "JobArrayTaskLimit"
    if state.queue.head != job.id:
        return "Priority"
    return "Resources" if state.pool.has_licenses(job.spec) else "Licenses"


def step(state: State, step: Step) -> View:
    """A step, as scontrol show step needs it."""
    spec = state.jobs[step.job_id].spec
    running = isinstance(step.state, (life.StepRunning, life.StepCompleting))
    wanted = step.request
    shares = step.state.place.shares if running else ()  # type: ignore[union-attr]
    return {
        "job_id": step.job_id,
        "step_id": step.id,
        "name": wanted.name,
        "state": step.state.word.value,
        "user": spec.user,
        "uid": spec.uid,
        "partition": spec.partition,
        "start_time": step.state.started_at if running else None,  # type: ignore[union-attr]
        # A batch script's own step has what its job has, and Slurm counts nothing of that twice.
        "time_limit": None if step.id >= INTERACTIVE_STEP else wanted.time_limit,
        "node": hostlist.fold([share.node for share in shares]),
        "nodes": len(shares),
        "ntasks": wanted.ntasks,
        "cpus": 0 if step.id >= INTERACTIVE_STEP else sum([len(each.cpus) for each in shares]),
        "memory": sum([share.memory for share in shares]),
        "container": "" if wanted.container is None else wanted.container.bundle,
        "container_id": "" if wanted.container is None else wanted.container.id,
        "command": " ".join(wanted.argv),
        "pids": [step.state.pid] if running and step.state.pid else [],  # type: ignore[union-attr]
    }


def node(state: State, node: Node, facts: Facts) -> View:
    """A node, as scontrol show node and sinfo need it."""
    free = state.pool.nodes[node.name]
    condition = state.condition(node.name)
    allocated = len(node.cpus) - free.cpu_count
    return {
        "name": node.name,
        "state": _node_state(condition.word, allocated, len(node.cpus)),
        "reason": condition.reason,
        "reason_user": condition.user,
        "reason_uid": state.site.uid,
        "reason_time": condition.since or None,
        "cpus": len(node.cpus),
        "cpus_alloc": allocated,
        "memory": node.memory,
        "memory_alloc": node.memory - free.memory,
        "memory_free": facts.memory_free,
        "gres": _gres(node.gres),
        "gres_used": _gres_used(node, free.free().gres),
        "features": ",".join(node.features),
        "weight": node.weight,
        "boot_time": node.boot_time,
        "os": node.os,
        "arch": node.arch,
        "version": state.settings.version,
        "sockets": node.sockets,
        "cores": node.cores_per_socket,
        "threads": node.threads_per_core,
        "load": facts.load,
    }


def _gres_used(node: Node, free: Mapping[tuple[str, str], int]) -> str:
    used = [
        replace(each, count=each.count - free.get((each.name, each.type), 0)) for each in node.gres
    ]
    return _gres(used)


def _node_state(word: str, allocated: int, total: int) -> str:
    """Slurm's word: what it does, and what is to become of it."""
    if word == "DOWN":
        return "DOWN"
    doing = "IDLE" if not allocated else "ALLOCATED" if allocated >= total else "MIXED"
    return f"{doing}+DRAIN" if word == "DRAIN" else doing


def partition(state: State, partition: Partition) -> View:
    """A partition, as scontrol show partition and sinfo need it."""
    nodes = [node for node in state.site.nodes if node.name in partition.nodes]
    total = sum(len(node.cpus) for node in nodes)
    free = sum(state.pool.nodes[node.name].cpu_count for node in nodes)
    return {
        "name": partition.name,
        "state": partition.state,
        "default": partition.default,
        "nodes": hostlist.fold([node.name for node in nodes]),
        "total_cpus": total,
        "total_nodes": len(nodes),
        "total_memory": sum(node.memory for node in nodes),
        "max_time": partition.max_time,
        "default_time": partition.default_time,
        "min_nodes": partition.min_nodes,
        "max_nodes": partition.max_nodes,
        "memory_per_node": partition.default_memory_per_node,
        "memory_per_cpu": partition.default_memory_per_cpu,
        "tier": partition.tier,
        "job_factor": partition.job_factor,
        "oversubscribe": "EXCLUSIVE" if partition.exclusive else "NO",
        "alloc_cpus": total - free,
    }


def priorities(state: State, at: float) -> Iterator[View]:
    """The points of all jobs that wait and are not held, as sprio needs them."""
    for each in state.jobs.values():
        if not isinstance(each.state, life.JobPending) or each.state.held:
            continue
        spec = each.spec
        yield {
            "job_id": each.id,
            "array_job_id": None if spec.array is None else spec.array.job_id,
            "array_task_id": None if spec.array is None else spec.array.task_id,
            "user": spec.user,
            "uid": spec.uid,
            "partition_name": spec.partition,
            "priority": queue.priority(spec, each.submitted_at, state.site, at),
            **queue.factors(spec, each.submitted_at, state.site, at),
        }


def licenses(state: State) -> list[View]:
    """The licences, as scontrol show licenses needs them."""
    free = state.pool.licenses
    return [
        {"name": name, "total": total, "used": total - free.get(name, 0)}
        for name, total in state.site.licenses.items()
    ]


def config(state: State) -> dict[str, str]:
    """What scontrol show config prints, in its order: what scripts ask Slurm for."""
    user, site, weights = _user(state), state.site, state.site.weights
    codes = site.requeue_exit, site.requeue_exit_hold
    exits, holds = (",".join(map(str, sorted(each))) or "(null)" for each in codes)
    found = {
        "AccountingStorageType": "accounting_storage/none",
        "AccountingStorageEnforce": "none",
        "ClusterName": names.CLUSTER,
        "DefMemPerNode": "UNLIMITED",
        "EnforcePartLimits": "ALL",
        "GresTypes": ",".join(sorted({each.name for n in site.nodes for each in n.gres}))
        or "(null)",
        "InactiveLimit": "0 sec",
        "JobAcctGatherType": "jobacct_gather/none",
        "JobRequeue": str(int(site.requeue)),
        "KillWait": f"{state.settings.kill_wait:.0f} sec",
        "LaunchParameters": "use_interactive_step",
        "Licenses": ",".join(f"{name}:{n}" for name, n in site.licenses.items()) or "(null)",
        "MaxArraySize": str(arrays.MAX_SIZE),
        "MinJobAge": f"{state.settings.min_job_age:.0f} sec",
        "MpiDefault": "none",
        "OverTimeLimit": f"{state.settings.over_time / 60:.0f} min",
        "PriorityFavorSmall": "Yes" if weights.favour_small else "No",
        "PriorityMaxAge": values.format_time(weights.max_age),
        "PriorityType": "priority/multifactor",
        "PriorityWeightAge": f"{weights.age:.0f}",
        "PriorityWeightJobSize": f"{weights.size:.0f}",
        "PriorityWeightPartition": f"{weights.partition:.0f}",
        "ProctrackType": "proctrack/roadstead",
        "PropagateResourceLimits": "ALL",
        "SchedulerParameters": f"default_queue_depth={site.depth}",
        "SchedulerType": "sched/backfill" if site.backfill else "sched/builtin",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_CPU_MEMORY",
        "SlurmUser": user,
        "SlurmdUser": user,
        "SLURM_VERSION": state.settings.version,
        "SLURM_CONF": site.source or "(null)",
        "SlurmctldHost[0]": site.host,
        "WaitTime": "0 sec",
        "CompleteWait": "0 sec",
        "Epilog": "(null)",
        "FirstJobId": "1",
        "MaxMemPerNode": "UNLIMITED",
        "MessageTimeout": "10 sec",
        "NEXT_JOB_ID": str(state.next_job_id),
        "PreemptMode": "OFF",
        "PreemptType": "preempt/none",
        "PrivateData": "none",
        "Prolog": "(null)",
        "RequeueExit": exits,
        "RequeueExitHold": holds,
        "SwitchType": "switch/none",
        "TopologyPlugin": "topology/none",
        "TrackWCKey": "No",
    }
    return dict(sorted(found.items(), key=lambda pair: pair[0].lower()))


def _user(state: State) -> str:
    return f"{state.site.login.get('USER', '')}({state.site.uid})"


def _allocation(job: Job) -> Any:
    return None if isinstance(job.state, life.JobPending) else job.state.allocation


def _outcome(job: Job) -> Outcome:
    if isinstance(job.state, (life.JobCompleting, life.JobEnded)):
        return job.state.outcome
    last = job.state.last if isinstance(job.state, life.JobPending) else None
    return last or Outcome(word=life.COMPLETED)


def _end_time(job: Job) -> float | None:
    """When it ended, or will at the latest."""
    if isinstance(job.state, life.JobEnded):
        return job.state.ended_at
    granted = _allocation(job)
    return None if granted is None else granted.ends_at


def _command(job: Job) -> str:
    """scontrol's Command: a batch job's script by its full path, with its arguments."""
    spec = job.spec
    if spec.kind != "batch" or not spec.argv:
        return spec.argv[0] if spec.argv else ""
    if "wrap" in spec.asked or spec.argv == ("sbatch",):
        return ""
    script, *arguments = spec.argv
    path = script if script.startswith("/") else f"{spec.submit_dir}/{script.removeprefix('./')}"
    return " ".join([path, *arguments])


def _first_node(state: State, job: Job) -> str:
    granted = _allocation(job)
    return state.site.nodes[0].name if granted is None else str(granted.node)


def _file(state: State, job: Job, pattern: str) -> str:
    """A batch job's file by its full path; srun's bytes go to srun."""
    if job.spec.kind != "batch":
        return ""
    names = filenames.Names(
        job_id=job.id,
        step_id="batch",
        node=_first_node(state, job),
        user=job.spec.user,
        job_name=job.spec.name,
        array_job_id=None if job.spec.array is None else job.spec.array.job_id,
        array_task_id=None if job.spec.array is None else job.spec.array.task_id,
    )
    name = filenames.expand(pattern, names)
    return name if name.startswith("/") else f"{job.spec.cwd}/{name}"
