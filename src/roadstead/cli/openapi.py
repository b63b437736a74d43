"""The answers of --json and --yaml: the documents of Slurm 22.05's openapi plugins (v0.0.38).

Keys, their order and what stands where there is nothing are Slurm's, recorded from it.  A document
is made of dicts and lists; ``text`` writes it as JSON, or as YAML with a tag at each value, as
Slurm does.  Unlike Slurm's, the list of squeue holds what the other options choose.

Pure: views in, text out.
"""

from __future__ import annotations

import json

from roadstead.cli import words
from roadstead.core import names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, TypeAlias

    from roadstead.cli.words import Clock, View

    Document: TypeAlias = dict[str, Any]

_VERSION: Final = {"major": 22, "micro": 8, "minor": 5}
_RELEASE: Final = "22.05.8"
GENERAL: Final = ("openapi/v0.0.38", "Slurm OpenAPI v0.0.38")
ACCOUNTING: Final = ("openapi/dbv0.0.38", "Slurm OpenAPI DB v0.0.38")


def document(plugin: tuple[str, str], kind: str, found: list[Document]) -> Document:
    """What is printed: so many of one ``kind``, "jobs" or "nodes"."""
    meta = {
        "plugin": {"type": plugin[0], "name": plugin[1]},
        "Slurm": {"version": _VERSION, "release": _RELEASE},
    }
    return {"meta": meta, "errors": [], kind: found}


def text(found: Document, *, yaml: bool) -> str:
    """The document as JSON, or as YAML."""
    if not yaml:
        return _text(json.dumps(found, indent=2, ensure_ascii=False)) + "\n"
    lines: list[str] = ["%YAML 1.1", "--- !!map"]
    for name, value in found.items():
        _put(lines, "", f"!!str {name}:", value)
    return _text("\n".join([*lines, "...", ""]))


def _text(written: str) -> str:
    """Both are UTF-8 by definition, whatever file names and arguments are."""
    return written.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


# -- YAML ------------------------------------------------------------------------------------------

_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+=,")


def _put(lines: list[str], indent: str, label: str, value: Any) -> None:
    """Write ``value`` after its label: on the same line, or below."""
    if isinstance(value, dict) and value:
        lines.append(f"{indent}{label} !!map")
        for name, each in value.items():
            _put(lines, f"{indent}  ", f"!!str {name}:", each)
    elif isinstance(value, list) and value:
        lines.append(f"{indent}{label} !!seq")
        for each in value:
            _put(lines, indent, "-", each)
    else:
        lines.append(f"{indent}{label} {_scalar(value)}")


def _scalar(value: Any) -> str:
    if value is None or value == "":
        return "!!null null"
    if isinstance(value, bool):
        return f"!!bool {str(value).lower()}"
    if isinstance(value, int):
        return f"!!int {value}"
    if isinstance(value, float):
        return f"!!float {value:.6f}"
    if isinstance(value, (dict, list)):
        return "!!seq []" if isinstance(value, list) else "!!map {}"
    plain = value[0].isalnum() or value[0] == "/"
    if plain and _PLAIN.issuperset(value):
        return f"!!str {value}"
    return f"!!str {json.dumps(value, ensure_ascii=False)}"


# -- jobs ------------------------------------------------------------------------------------------


def job(view: View, clock: Clock) -> Document:
    """A job, as squeue has it."""
    return {
        **_from_account_to_cpus(view, clock),
        **_from_deadline_to_nodes(view, clock),
        **_from_nice_to_directory(view, clock),
    }


# Keys are in Slurm's order, which is that of the letters now and then; so is the division.


def _eligible(view: View) -> int:
    return 0 if view["reason"].startswith("JobHeld") else _seconds(view["eligible_time"])


def _from_account_to_cpus(view: View, clock: Clock) -> Document:
    array, tasks = view["array_job_id"], view.get("array_tasks")
    return {
        "account": view["account"],
        "accrue_time": _eligible(view),
        "admin_comment": "",
        "array_job_id": array or 0,
        "array_task_id": None if array is None or tasks else view["array_task_id"],
        "array_max_tasks": view["array_throttle"],
        "array_task_string": tasks or "",
        "association_id": 0,
        "batch_features": "",
        "batch_flag": view["batch"],
        "batch_host": view["batch_host"] or view["node"],
        "flags": ["JOB_MEM_SET"] if view["memory"] or view["memory_per_cpu"] else [],
        "burst_buffer": "",
        "burst_buffer_state": "",
        "cluster": names.CLUSTER,
        "cluster_features": "",
        "command": view["command"],
        "comment": view["comment"],
        "container": view["container"],
        "contiguous": False,
        "core_spec": None,
        "thread_spec": None,
        "cores_per_socket": None,
        "billable_tres": float(view["cpus"]) if view["node"] else None,
        "cpus_per_task": view["cpus_per_task"] if view["cpus_per_task"] > 1 else None,
        "cpu_frequency_minimum": None,
        "cpu_frequency_maximum": None,
        "cpu_frequency_governor": None,
        "cpus_per_tres": "",
    }


def _from_deadline_to_nodes(view: View, clock: Clock) -> Document:
    start = words.start_time(view)
    return {
        "deadline": _seconds(view["deadline"]),
        "delay_boot": 0,
        "dependency": view["dependency"],
        "derived_exit_code": 0,
        "eligible_time": _eligible(view),
        "end_time": _seconds(view["end_time"]),
        "excluded_nodes": view["exclude"],
        "exit_code": words.wait_status(view),
        "features": view["features"],
        "federation_origin": "",
        "federation_siblings_active": "",
        "federation_siblings_viable": "",
        "gres_detail": [share["gres"] for share in view["shares"] if share["gres"]],
        "group_id": view["gid"],
        "group_name": view["group"],
        "job_id": view["job_id"],
        "job_resources": _resources(view),
        "job_state": view["state"],
        "last_sched_evaluation": _seconds(view["submit_time"] if start is None else start),
        "licenses": view["licenses"],
        "max_cpus": 0,
        "max_nodes": 0,
        "mcs_label": "",
        "memory_per_tres": "",
        "name": view["name"],
        "nodes": view["node"],
    }


def _from_nice_to_directory(view: View, clock: Clock) -> Document:
    tres = words.tres(view, clock)
    allocated = view["state"] != "PENDING" and view["node"]
    return {
        "nice": view["nice"] or None,
        "tasks_per_core": None,
        "tasks_per_node": view["ntasks_per_node"],
        "tasks_per_socket": None,
        "tasks_per_board": 0,
        "cpus": view["cpus"],
        "node_count": view["nodes"],
        "tasks": view["ntasks"],
        "het_job_id": view.get("het_job_id") or 0,
        "het_job_id_set": words.het_set(view) if view.get("het_size") else "",
        "het_job_offset": view.get("het_offset") or 0,
        "partition": view["partition"],
        "prefer": "",
        "memory_per_node": view["memory"] or None,
        "memory_per_cpu": view["memory_per_cpu"] or None,
        "minimum_cpus_per_node": words.least_cpus(view),
        "minimum_tmp_disk_per_node": 0,
        "preempt_time": 0,
        "pre_sus_time": clock.elapsed(view) if view["suspend_time"] else 0,
        "priority": view["priority"],
        "profile": None,
        "qos": view["qos"],
        "reboot": False,
        "required_nodes": view["nodelist"],
        "requeue": view["requeue"],
        "resize_time": 0,
        "restart_cnt": view["restarts"],
        "resv_name": "",
        "shared": "none" if view["exclusive"] else None,
        "show_flags": ["SHOW_ALL", "SHOW_DETAIL", "SHOW_LOCAL"],
        "sockets_per_board": 0,
        "sockets_per_node": None,
        "start_time": _seconds(words.start_time(view)),
        "state_description": "",
        "state_reason": words.reason(view),
        "standard_error": view["stderr"],
        "standard_input": view["stdin"],
        "standard_output": view["stdout"],
        "submit_time": _seconds(view["submit_time"]),
        "suspend_time": _seconds(view["suspend_time"]),
        "system_comment": "",
        "time_limit": minutes(view["time_limit"]),
        "time_minimum": minutes(view["time_min"]) or 0,
        "threads_per_core": None,
        "tres_bind": "",
        "tres_freq": "",
        "tres_per_job": "",
        "tres_per_node": f"gres:{view['gres']}" if view["gres"] else "",
        "tres_per_socket": "",
        "tres_per_task": "",
        "tres_req_str": tres,
        "tres_alloc_str": tres if allocated else "",
        "user_id": view["uid"],
        "user_name": view["user"],
        "wckey": view["wckey"],
        "current_working_directory": view["work_dir"],
    }


def _seconds(moment: float | None) -> int:
    return 0 if moment is None else int(moment)


def minutes(seconds: int | None) -> int | None:
    """A limit as Slurm keeps it: whole minutes, rounded up."""
    return None if seconds is None else -(-seconds // 60)


def _resources(view: View) -> Document:
    """What a job has of which node.  CPUs are shown as cores of one socket."""
    if not view["shares"]:
        return {}
    over = view["state"] in words.FINISHED
    return {
        "nodes": view["node"],
        "allocated_cores": view["cpus"],
        "allocated_hosts": len(view["shares"]),
        "allocated_nodes": [
            {
                "sockets": {"0": {"cores": {str(cpu): "allocated" for cpu in share["cpus"]}}},
                "nodename": share["node"],
                "cpus_used": 0 if over else len(share["cpus"]),
                "memory_used": 0,
                "memory_allocated": share["memory"],
            }
            for share in view["shares"]
        ],
    }


# -- nodes -----------------------------------------------------------------------------------------


def node(view: View, partitions: list[str], clock: Clock) -> Document:
    """A node, as sinfo has it, which is in these partitions."""
    state, *flags = str(view["state"]).split("+")
    total, used = view["cpus"], view["cpus_alloc"]
    held = [f"cpu={used}"] if used else []
    if view["memory_alloc"]:
        held.append(f"mem={clock.memory(view['memory_alloc'])}")
    return {
        "architecture": view["arch"],
        "burstbuffer_network_address": "",
        "boards": 1,
        "boot_time": _seconds(view["boot_time"]),
        "comment": "",
        "cores": view["cores"],
        "cpu_binding": 0,
        "cpu_load": round(view["load"] * 100),
        "extra": "",
        "free_memory": view["memory_free"],
        "cpus": total,
        "last_busy": 0,
        "features": view["features"],
        "active_features": view["features"],
        "gres": view["gres"],
        "gres_drained": "N/A",
        "gres_used": view["gres_used"],
        "mcs_label": "",
        "name": view["name"],
        "next_state_after_reboot": "invalid",
        "address": view["name"],
        "hostname": view["name"],
        "state": state.lower(),
        "state_flags": flags,
        "next_state_after_reboot_flags": [],
        "operating_system": view["os"],
        "owner": None,
        "partitions": partitions,
        "port": 0,
        "real_memory": view["memory"],
        "reason": view["reason"],
        "reason_changed_at": _seconds(view["reason_time"]),
        "reason_set_by_user": view["reason_user"] or None,
        "slurmd_start_time": 0,
        "sockets": view["sockets"],
        "threads": view["threads"],
        "temporary_disk": 0,
        "weight": view["weight"],
        "tres": f"cpu={total},mem={clock.memory(view['memory'])},billing={total}",
        "slurmd_version": view["version"],
        "alloc_memory": view["memory_alloc"],
        "alloc_cpus": used,
        "idle_cpus": total - used,
        "tres_used": ",".join(held) or None,
        "tres_weighted": float(used),
    }
