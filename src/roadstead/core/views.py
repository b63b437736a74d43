"""What squeue, sinfo and scontrol are told: objects of plain values, every key always there.

The commands lay them out; here is only what is true.  Times are seconds since the epoch or None,
memory is MiB, states and reasons are Slurm's words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from roadstead.core import environment, filenames, request
from roadstead.core import lifecycle as life
from roadstead.core.events import Facts
from roadstead.core.lifecycle import Job, Outcome, Step
from roadstead.core.schedule import cpus_needed
from roadstead.core.state import State
from roadstead.errors import EngineError

View = dict[str, Any]


def answer(state: State, query: Mapping[str, Any], facts: Facts, at: float) -> View:
    """The fields of the "answer" to a ``query`` request."""
    if type(query.get("job_id")) not in (int, type(None)):
        raise EngineError("malformed request: job_id")
    match query.get("what"):
        case "jobs":
            return {"now": at, "jobs": list(_jobs(state, query, facts))}
        case "steps":
            return {"now": at, "steps": list(_steps(state, query))}
        case "nodes":
            return {"now": at, "nodes": [node(state, facts)]}
        case "partitions":
            return {"now": at, "partitions": [partition(state)]}
        case "config":
            return {"now": at, "config": config(state)}
        case what:
            raise EngineError(f"malformed request: what={what}")


def _jobs(state: State, query: Mapping[str, Any], facts: Facts) -> Iterator[View]:
    wanted = query.get("job_id")
    if wanted is not None:
        found = [state.jobs[wanted]] if wanted in state.jobs else facts.ended_jobs
        for each in found:
            script = {} if facts.script is None else {"script": facts.script}
            yield job(state, each) | script
        return
    if query.get("all"):
        for each in facts.ended_jobs:
            yield job(state, each)
    for each in state.jobs.values():
        yield job(state, each)


def _steps(state: State, query: Mapping[str, Any]) -> Iterator[View]:
    wanted = query.get("job_id")
    for each in state.steps.values() if wanted is None else state.steps_of(wanted):
        yield step(state, each)


def job(state: State, job: Job) -> View:
    """A job, as scontrol show job needs it."""
    spec = job.spec
    granted = _allocation(job)
    outcome = _outcome(job)
    return {
        "job_id": job.id,
        "name": spec.name,
        "user": spec.user,
        "uid": spec.uid,
        "gid": spec.gid,
        "group": spec.group,
        "partition": spec.partition,
        "state": job.state.word.value,
        "reason": reason(state, job),
        "submit_time": job.submitted_at,
        "start_time": None if granted is None else granted.started_at,
        "end_time": _end_time(job),
        "time_limit": spec.time_limit,
        "node": "" if granted is None else granted.node,
        "cpus": cpus_needed(spec, state.node) if granted is None else len(granted.cpus),
        "cpu_ids": [] if granted is None else list(granted.cpus),
        "ntasks": spec.ntasks,
        "cpus_per_task": spec.cpus_per_task,
        "nodes": 1,
        "memory": spec.memory,
        "command": _command(job),
        "work_dir": spec.cwd,
        "stdin": _file(state, job, spec.stdio.input or "none"),
        "stdout": _file(state, job, spec.stdio.output),
        "stderr": _file(state, job, spec.stdio.error or spec.stdio.output),
        "container": "" if spec.container is None else spec.container.bundle,
        "container_id": "" if spec.container is None else spec.container.id,
        "exit_code": outcome.code,
        "exit_signal": outcome.signal,
        "priority": 0 if isinstance(job.state, life.JobPending) and job.state.held else 1,
        "comment": spec.comment,
        "batch": spec.kind == "batch",
    }


def reason(state: State, job: Job) -> str:
    """Why it waits or how it ended, in squeue's words.  Who waits behind the first in line waits
    because of its Priority, whatever it needs."""
    if not isinstance(job.state, life.JobPending):
        return _outcome(job).reason
    if job.state.held:
        return "JobHeldUser"
    return "Resources" if state.first_in_line() == job.id else "Priority"


def step(state: State, step: Step) -> View:
    """A step, as scontrol show step needs it."""
    spec = state.jobs[step.job_id].spec
    running = isinstance(step.state, (life.StepRunning, life.StepCompleting))
    wanted = step.request
    return {
        "job_id": step.job_id,
        "step_id": step.id,
        "name": wanted.name,
        "state": step.state.word.value,
        "user": spec.user,
        "uid": spec.uid,
        "partition": spec.partition,
        "start_time": step.state.started_at if running else None,  # type: ignore[union-attr]
        "time_limit": wanted.time_limit,
        "node": state.node.name,
        "ntasks": wanted.ntasks,
        "cpus": len(step.state.place.cpus) if running else 0,  # type: ignore[union-attr]
        "container": "" if wanted.container is None else wanted.container.bundle,
        "container_id": "" if wanted.container is None else wanted.container.id,
        "command": " ".join(wanted.argv),
        "pids": [step.state.pid] if running and step.state.pid else [],  # type: ignore[union-attr]
    }


def node(state: State, facts: Facts) -> View:
    """The machine, as scontrol show node and sinfo need it."""
    machine, free = state.node, state.resources
    allocated = len(machine.cpus) - free.cpu_count
    return {
        "name": machine.name,
        "state": _node_state(allocated, len(machine.cpus)),
        "cpus": len(machine.cpus),
        "cpus_alloc": allocated,
        "memory": machine.memory,
        "memory_alloc": machine.memory - free.memory,
        "memory_free": facts.memory_free,
        "boot_time": machine.boot_time,
        "os": machine.os,
        "arch": machine.arch,
        "version": state.settings.version,
        "sockets": machine.sockets,
        "cores": machine.cores_per_socket,
        "threads": machine.threads_per_core,
        "load": facts.load,
    }


def _node_state(allocated: int, total: int) -> str:
    if not allocated:
        return "IDLE"
    return "ALLOCATED" if allocated >= total else "MIXED"


def partition(state: State) -> View:
    """The partition: all of the one node."""
    total = len(state.node.cpus)
    return {
        "name": request.PARTITION,
        "state": "UP",
        "default": True,
        "nodes": state.node.name,
        "total_cpus": total,
        "total_nodes": 1,
        "total_memory": state.node.memory,
        "max_time": None,
        "default_time": None,
        "oversubscribe": "NO",
        "alloc_cpus": total - state.resources.cpu_count,
    }


def config(state: State) -> dict[str, str]:
    """What scontrol show config prints, in its order: what scripts ask Slurm for."""
    node, user = state.node, _user(state)
    return {
        "AccountingStorageType": "accounting_storage/none",
        "AccountingStorageEnforce": "none",
        "ClusterName": environment.CLUSTER,
        "DefMemPerNode": "UNLIMITED",
        "EnforcePartLimits": "ALL",
        "InactiveLimit": "0 sec",
        "JobAcctGatherType": "jobacct_gather/none",
        "KillWait": f"{state.settings.kill_wait:.0f} sec",
        "LaunchParameters": "use_interactive_step",
        "MaxArraySize": "1001",
        "MinJobAge": "300 sec",
        "MpiDefault": "none",
        "OverTimeLimit": "0 min",
        "ProctrackType": "proctrack/roadstead",
        "PropagateResourceLimits": "ALL",
        "SchedulerType": "sched/builtin",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_CPU_MEMORY",
        "SlurmUser": user,
        "SlurmdUser": user,
        "SLURM_VERSION": state.settings.version,
        "SlurmctldHost[0]": node.name,
        "WaitTime": "0 sec",
    }


def _user(state: State) -> str:
    return f"{state.site.login.get('USER', '')}({state.site.uid})"


def _allocation(job: Job) -> Any:
    return None if isinstance(job.state, life.JobPending) else job.state.allocation


def _outcome(job: Job) -> Outcome:
    if isinstance(job.state, (life.JobCompleting, life.JobEnded)):
        return job.state.outcome
    return Outcome(word=life.COMPLETED)


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


def _file(state: State, job: Job, pattern: str) -> str:
    """A batch job's file by its full path; srun's bytes go to srun."""
    if job.spec.kind != "batch":
        return ""
    names = filenames.Names(
        job_id=job.id,
        step_id="batch",
        node=state.node.name,
        user=job.spec.user,
        job_name=job.spec.name,
    )
    name = filenames.expand(pattern, names)
    return name if name.startswith("/") else f"{job.spec.cwd}/{name}"
