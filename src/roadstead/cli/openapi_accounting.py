"""The jobs of sacct --json and --yaml: the documents of Slurm 22.05's openapi/dbv0.0.38.

As in openapi.py keys and their order are Slurm's.  Of a step's usage there is what the engine has
measured, CPU time and the largest resident set: trackable resources that nobody measures (energy,
pages, disk) are not in the lists.
"""

from __future__ import annotations

from roadstead.cli import openapi, sacct_fields, words
from roadstead.core import hostlist, names, values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from roadstead.cli.openapi import Document
    from roadstead.cli.words import Clock, View

_RESOURCES: Final = {"cpu": 1, "mem": 2, "energy": 3, "node": 4, "billing": 5}


def job(view: View, clock: Clock) -> Document:
    """A job with its steps, as accounting has it."""
    scene = sacct_fields.Scene(clock)
    row = {"job": view, "step": None}
    array, tasks = view["array_job_id"], view.get("array_tasks")
    required = _required(view)
    return {
        "account": view["account"],
        "comment": {"administrator": None, "job": view["comment"] or None, "system": None},
        "allocation_nodes": view["nodes"] if view["node"] else 0,
        "array": {
            "job_id": array or 0,
            "limits": {"max": {"running": {"tasks": view["array_throttle"]}}},
            "task": tasks,
            "task_id": None if array is None or tasks else view["array_task_id"],
        },
        "association": {
            "account": view["account"],
            "cluster": names.CLUSTER,
            "partition": None,
            "user": view["user"],
        },
        "cluster": names.CLUSTER,
        "constraints": view["features"],
        "container": view["container"] or None,
        "derived_exit_code": _exit(sacct_fields.derived(view, scene)),
        "time": {
            "elapsed": sacct_fields.elapsed(view, scene),
            "eligible": _moment(None if sacct_fields.is_held(view) else view["eligible_time"]),
            "end": _moment(sacct_fields.ended(view)),
            "start": _moment(sacct_fields.began(view)),
            "submission": _moment(view["submit_time"]),
            "suspended": int(view["suspended"]),
            "system": _cpu(sacct_fields.used(row, "system_seconds")),
            "limit": openapi.minutes(view["time_limit"]),
            "total": _cpu(sacct_fields.used(row, "user_seconds", "system_seconds")),
            "user": _cpu(sacct_fields.used(row, "user_seconds")),
        },
        "exit_code": _exit(sacct_fields.exit_code(view, scene)),
        "flags": ["CLEAR_SCHEDULING"],
        "group": view["group"],
        "het": {"job_id": view.get("het_job_id") or 0, "job_offset": view.get("het_offset")},
        "job_id": view["job_id"],
        "name": view["name"],
        "mcs": {"label": ""},
        "nodes": view["node"] or "None assigned",
        "partition": view["partition"],
        "priority": view["priority"],
        "qos": view["qos"],
        "required": {"CPUs": view["cpus"], "memory": sacct_fields.required_memory(view)},
        "kill_request_user": view["user"] if view["state"] == "CANCELLED" else None,
        "reservation": {"id": 0, "name": 0},
        "state": {"current": sacct_fields.word_of(view), "reason": words.reason(view)},
        "steps": [_step(view, step, clock) for step in view["steps"] if step["start_time"]],
        "tres": {"allocated": required if view["node"] else [], "requested": required},
        "user": view["user"],
        "wckey": {"wckey": view["wckey"], "flags": []},
        "working_directory": view["work_dir"],
    }


def _step(job: View, step: View, clock: Clock) -> Document:
    scene = sacct_fields.Scene(clock)
    row = {"job": job, "step": step}
    name = sacct_fields.job_id_raw(row, None).partition(".")[2]
    measured = _measured(step)
    lone = step["ntasks"] == 1
    where = {"task": 0 if lone else None, "node": step["node"] if lone else None}
    return {
        "nodes": {
            "list": hostlist.expand(step["node"]),
            "count": step["nodes"],
            "range": step["node"],
        },
        "tres": {
            "requested": {
                "max": [each | where for each in measured],
                "min": [],
                "average": [],
                "total": measured,
            },
            "consumed": {"max": [], "min": [], "average": [], "total": []},
            "allocated": _allocated(step),
        },
        "time": {
            "elapsed": sacct_fields.elapsed(step, scene),
            "end": _moment(sacct_fields.ended(step)),
            "start": _moment(step["start_time"]),
            "suspended": 0,
            "system": _cpu(step["system_seconds"]),
            "total": _cpu(step["user_seconds"] + step["system_seconds"]),
            "user": _cpu(step["user_seconds"]),
        },
        "exit_code": _exit(words.exit_code(step)),
        "tasks": {"count": step["ntasks"]},
        "pid": None,
        "CPU": {"requested_frequency": {"min": 0, "max": 0}, "governor": []},
        "kill_request_user": None,
        "state": step["state"],
        "statistics": {"CPU": {"actual_frequency": 0}, "energy": {"consumed": 0}},
        "step": {
            "job_id": job["job_id"],
            "het": {"component": None},
            "id": int(name) if name.isdigit() else name,
            "name": step["name"],
        },
        "task": {"distribution": "Unknown" if words.is_named_step(step) else "Block"},
    }


def _moment(seconds: float | None) -> int:
    return 0 if seconds is None else int(seconds)


def _cpu(seconds: float) -> Document:
    """CPU time as two whole numbers."""
    whole = int(seconds)
    return {"seconds": whole, "microseconds": round((seconds - whole) * 1_000_000)}


def _exit(text: str) -> Document:
    """``code:signal`` in words."""
    code, _, signal = text.partition(":")
    if int(signal):
        return {
            "status": "SIGNALED",
            "return_code": 0,
            "signal": {"signal_id": int(signal), "name": values.signal_name(int(signal))},
        }
    return {"status": "ERROR" if int(code) else "SUCCESS", "return_code": int(code)}


def _resource(kind: str, count: int, **more: Any) -> Document:
    return {"type": kind, "name": None, "id": _RESOURCES[kind], "count": count, **more}


def _required(view: View) -> list[Document]:
    memory = sacct_fields.required_memory(view)
    found = [_resource("cpu", view["cpus"])]
    if memory:
        found.append(_resource("mem", memory))
    return [*found, _resource("node", view["nodes"]), _resource("billing", view["cpus"])]


def _allocated(step: View) -> list[Document]:
    found = [_resource("cpu", step["cpus"])]
    if step["memory"]:
        found.append(_resource("mem", step["memory"]))
    return [*found, _resource("node", step["nodes"])]


def _measured(step: View) -> list[Document]:
    """What is known of a step's use, once it has ended."""
    if not step["measured"]:
        return []
    cpu = round((step["user_seconds"] + step["system_seconds"]) * 1000)
    return [_resource("cpu", cpu), _resource("mem", step["max_rss_kib"] * 1024)]
