"""The jobs of tests/data/slurm-22.05/transcript.txt as the controller would tell of them.

``ask`` answers the query commands as a controller with these jobs does, and ``commands`` gives what
a real Slurm printed for them: a test runs the first on the second.  The transcript says how it was
recorded.
"""

from __future__ import annotations

import calendar
import os
import shlex
import time
from pathlib import Path
from typing import Any, NamedTuple

TRANSCRIPT = Path(__file__).resolve().parents[1] / "data" / "slurm-22.05" / "transcript.txt"


def at(clock: str, day: int = 23) -> float:
    """A time of the recording's day, UTC."""
    return calendar.timegm(time.strptime(f"2026-11-{day}T{clock}", "%Y-%m-%dT%H:%M:%S"))


NOW = at("19:11:19")


class Recorded(NamedTuple):
    """One command of the transcript, what it printed and how it ended."""

    argv: list[str]
    output: str
    code: int


def commands(program: str) -> list[Recorded]:
    """What was recorded of one program."""
    text = TRANSCRIPT.read_text().replace("@HOST@", os.uname().nodename)[:-1]
    found = []
    for section in text.split("\n$ ")[1:]:
        line, _, output = section.partition("\n")
        code = 0
        if output.startswith("? "):
            number, _, output = output[2:].partition("\n")
            code = int(number)
        argv = shlex.split(line)
        if argv[0] == program:
            # The newline at the end of a section was taken for its separator from the next.
            found.append(Recorded(argv[1:], output + "\n" if output else "", code))
    return found


def job(job_id: int, name: str, **changes: Any) -> dict[str, Any]:
    """The view of a job; what is not said is as in job 1."""
    work = "/home/alice/work"
    view: dict[str, Any] = {
        "job_id": job_id,
        "name": name,
        "user": "alice",
        "uid": 1000,
        "gid": 1000,
        "group": "alice",
        "partition": "debug",
        "state": "RUNNING",
        "reason": "",
        "submit_time": at("19:11:08"),
        "start_time": at("19:11:11"),
        "end_time": None,
        "time_limit": 600,
        "node": "n1",
        "cpus": 1,
        "array_job_id": None,
        "array_task_id": None,
        "array_throttle": 0,
        "cpu_ids": [],
        "shares": [],
        "batch_host": "",
        "suspend_time": None,
        "suspended": 0.0,
        "ntasks_per_node": 0,
        "memory_per_cpu": 0,
        "gres": "",
        "licenses": "",
        "features": "",
        "nodelist": "",
        "exclude": "",
        "nice": 0,
        "requeue": False,
        "restarts": 0,
        "ntasks": 1,
        "cpus_per_task": 1,
        "nodes": 1,
        "memory": 100,
        "command": f"{work}/job.sh",
        "work_dir": work,
        "stdin": "/dev/null",
        "stdout": f"{work}/slurm-{job_id}.out",
        "stderr": f"{work}/slurm-{job_id}.out",
        "container": "",
        "container_id": "",
        "exit_code": 0,
        "exit_signal": 0,
        "priority": 4294901760 - job_id,
        "comment": "",
        "batch": True,
        "account": "",
        "het_job_id": None,
        "het_offset": None,
        "het_size": 0,
        "qos": "",
        "wckey": "",
        "exclusive": False,
        "dependency": "",
        "deadline": None,
        "time_min": None,
        "min_cpus": 0,
    }
    view |= changes
    view.setdefault("eligible_time", view["submit_time"])
    if view["cpu_ids"]:
        share = {"node": view["node"], "cpus": view["cpu_ids"], "memory": view["memory"]}
        view["shares"] = [share | {"gres": ""}]
    return view


def step(job_id: int, step_id: int, name: str, **changes: Any) -> dict[str, Any]:
    """The view of a step."""
    view: dict[str, Any] = {
        "job_id": job_id,
        "step_id": step_id,
        "name": name,
        "state": "RUNNING",
        "user": "alice",
        "uid": 1000,
        "partition": "debug",
        "start_time": at("19:11:14"),
        "time_limit": None,
        "node": "n1",
        "nodes": 1,
        "ntasks": 1,
        "cpus": 1,
        "container": "/srv/bundle",
        "pids": [],
        "memory": 0,
        "container_id": "",
        "command": "sleep",
    }
    return view | changes


_PENDING = {"state": "PENDING", "start_time": None, "node": "", "submit_time": at("19:11:15")}

JOBS = [
    job(
        1,
        "failing",
        state="FAILED",
        reason="NonZeroExitCode",
        end_time=at("19:11:11"),
        command="/home/alice/work/fail.sh",
        exit_code=3,
    ),
    job(2, "ok", state="COMPLETED", end_time=at("19:11:11"), command=""),
    job(
        3,
        "cancelled",
        state="CANCELLED",
        reason="JobHeldUser",
        start_time=None,
        end_time=at("19:11:08"),
        time_limit=5400,
        node="",
        priority=0,
        command="",
    ),
    job(
        4,
        "train",
        submit_time=at("19:11:13"),
        start_time=at("19:11:14"),
        end_time=at("21:14:14", day=24),
        time_limit=93780,
        priority=4294901757,
        command="/home/alice/work/job.sh a b",
        comment="my comment",
        cpu_ids=[0],
    ),
    job(
        5,
        "srunjob",
        submit_time=at("19:11:14"),
        start_time=at("19:11:14"),
        end_time=at("19:14:14"),
        time_limit=180,
        priority=4294901756,
        command="sleep",
        container="/srv/bundle",
        batch=False,
        cpu_ids=[1],
    ),
    job(
        6,
        "big",
        **_PENDING,
        reason="Resources",
        time_limit=300,
        cpus=2,
        ntasks=2,
        memory=2048,
        priority=4294901755,
        container="/srv/bundle",
    ),
    job(
        7,
        "held",
        **_PENDING,
        reason="JobHeldUser",
        time_limit=None,
        cpus=2,
        cpus_per_task=2,
        memory=1536,
        priority=0,
        stdout="/home/alice/work/out/7.txt",
        stderr="/home/alice/work/err.txt",
    ),
]

STEPS = [
    step(4, 0xFFFFFFFB, "batch", container="", cpus=0),
    step(4, 0, "steppy", time_limit=300),
    step(5, 0, "srunjob"),
]

NODE = {
    "name": "n1",
    "state": "ALLOCATED",
    "cpus": 2,
    "cpus_alloc": 2,
    "memory": 4000,
    "memory_alloc": 200,
    "memory_free": 23292,
    "boot_time": at("18:07:39"),
    "os": "Linux 6.1.0 #1 SMP",
    "arch": "x86_64",
    "version": "22.05.8",
    "sockets": 2,
    "cores": 1,
    "threads": 1,
    "load": 0.30,
    "gres": "",
    "gres_used": "",
    "features": "",
    "weight": 1,
    "reason": "",
    "reason_user": "",
    "reason_uid": 0,
    "reason_time": None,
}

PARTITION = {
    "name": "debug",
    "state": "UP",
    "default": True,
    "nodes": "n1",
    "total_cpus": 2,
    "total_nodes": 1,
    "alloc_cpus": 2,
    "total_memory": 4000,
    "max_time": None,
    "default_time": None,
    "oversubscribe": "NO",
    "min_nodes": 0,
    "max_nodes": None,
    "memory_per_node": 0,
    "memory_per_cpu": 0,
    "tier": 1,
    "job_factor": 1,
}


def ask(request: dict[str, Any]) -> dict[str, Any]:
    """What a controller with these jobs answers to a query."""
    assert request["op"] == "query"
    answers: dict[str, Any] = {
        "jobs": [
            view
            for view in JOBS
            if request["job_id"] in (None, view["job_id"])
            and (request["all"] or view["state"] in ("PENDING", "RUNNING"))
        ],
        "steps": STEPS,
        "nodes": [NODE],
        "partitions": [PARTITION],
    }
    return {"event": "answer", request["what"]: answers[request["what"]]}
