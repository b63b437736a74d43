"""The records that scontrol shows: a job, a step, a node, a partition, as lines of ``Key=Value``.

Programs read these with patterns, by line and by neighbourhood (``JobState=… Reason=…`` on one
line), so keys, their order, the blanks at the ends of some lines and the empty last line of a job
are Slurm 22.05's, recorded from it.  Values of what a single machine's engine does not have are
those that Slurm shows where nobody asked.  ``ContainerID`` is newer (23.02): it follows
``Container`` where there is one.

Pure: views and a clock in, text out.
"""

from __future__ import annotations

from roadstead.cli import words
from roadstead.core import hostlist, values
from roadstead.core.printable import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from roadstead.cli.words import Clock, View


def record(lines: list[str], *, one_line: bool) -> str:
    """A record as text: a line, or a block with an empty line after it."""
    lines = [printable(line) for line in lines]
    return " ".join(lines) + "\n" if one_line else "\n   ".join(lines) + "\n\n"


def job(view: View, clock: Clock, host: str, *, details: bool) -> list[str]:
    """The lines of a job.  ``host`` is where it was submitted: here."""
    lines = [
        f"JobId={view['job_id']}{_element(view)} JobName={view['name']}",
        *([f"HetJobIdSet={words.het_set(view)}"] if view.get("het_size") else []),
        f"UserId={view['user']}({view['uid']}) GroupId={view['group']}({view['gid']})"
        " MCS_label=N/A",
        f"Priority={view['priority']} Nice={view['nice']}"
        f" Account={words.or_null(view['account'])} QOS={words.or_null(view['qos'])}"
        + (f" WCKey={view['wckey']}" if view["wckey"] else ""),
        f"JobState={view['state']} Reason={words.reason(view)}"
        f" Dependency={words.or_null(view.get('dependency', ''))}",
        f"Requeue={int(view['requeue'])} Restarts={view['restarts']} BatchFlag={int(view['batch'])}"
        f" Reboot=0 ExitCode={words.exit_code(view)}",
    ]
    if details:
        lines.append("DerivedExitCode=0:0")
    return [
        *lines,
        *_job_times(view, clock),
        *_job_resources(view, clock, host, details=details),
        *_job_files(view),
        "Power=",
        *_container(view),
        "",
    ]


def _element(view: View) -> str:
    """Which element of which array."""
    if view.get("het_job_id") is not None:
        return f" HetJobId={view['het_job_id']} HetJobOffset={view['het_offset']}"
    if view["array_job_id"] is None:
        return ""
    throttle = view["array_throttle"]
    limit = f" ArrayTaskThrottle={throttle}" if throttle else ""
    task = view.get("array_tasks", view["array_task_id"])
    return f" ArrayJobId={view['array_job_id']} ArrayTaskId={task}{limit}"


def _job_times(view: View, clock: Clock) -> list[str]:
    submitted = clock.moment(view["submit_time"], "Unknown")
    # A held job is not eligible before it is released, nor one that waits for others.
    held = view["reason"].startswith("JobHeld")
    since = None if held else view["eligible_time"]
    eligible = clock.moment(since, "Unknown")
    least = view.get("time_min")
    deadline = clock.moment(view.get("deadline"), "N/A")
    started = words.start_time(view)
    start = clock.moment(started, "Unknown")
    considered = submitted if started is None else start
    return [
        f"RunTime={values.format_time(clock.elapsed(view))}"
        f" TimeLimit={values.format_time(view['time_limit'])}"
        f" TimeMin={'N/A' if least is None else values.format_time(least)}",
        f"SubmitTime={submitted} EligibleTime={eligible}",
        f"AccrueTime={eligible}",
        f"StartTime={start} EndTime={clock.moment(view['end_time'], 'Unknown')}"
        f" Deadline={deadline}",
        f"SuspendTime={clock.moment(view['suspend_time'], 'None')}"
        f" SecsPreSuspend={int(clock.elapsed(view)) if view['suspend_time'] else 0}"
        f" LastSchedEval={considered} Scheduler=Main",
    ]


def _job_resources(view: View, clock: Clock, host: str, *, details: bool) -> list[str]:
    memory = f"MinMemoryNode={clock.memory(view['memory'])}"
    if view["memory_per_cpu"]:
        memory = f"MinMemoryCPU={clock.memory(view['memory_per_cpu'])}"
    lines = [
        f"Partition={view['partition']} AllocNode:Sid={host}:0",
        f"ReqNodeList={words.or_null(view['nodelist'])}"
        f" ExcNodeList={words.or_null(view['exclude'])}",
        f"NodeList={view['node']}",
    ]
    if view["node"]:
        lines.append(f"BatchHost={view['batch_host'] or hostlist.expand(view['node'])[0]}")
    lines += [
        f"NumNodes={view['nodes']} NumCPUs={view['cpus']} NumTasks={view['ntasks']}"
        f" CPUs/Task={view['cpus_per_task']} ReqB:S:C:T=0:0:*:*",
        f"TRES={words.tres(view, clock)}",
        f"Socks/Node=* NtasksPerN:B:S:C={view['ntasks_per_node']}:0:*:* CoreSpec=*",
    ]
    if details and view["cpu_ids"]:
        lines.append(f"JOB_GRES={words.or_null(view['gres'])}")
        lines += [
            f"  Nodes={share['node']} CPU_IDs={cpu_ranges(share['cpus'])}"
            f" Mem={share['memory']} GRES={share['gres']}"
            for share in view["shares"]
        ]
    return [
        *lines,
        f"MinCPUsNode={words.least_cpus(view)} {memory} MinTmpDiskNode=0",
        f"Features={words.or_null(view['features'])} DelayBoot=00:00:00",
        f"OverSubscribe={'NO' if view['exclusive'] else 'OK'} Contiguous=0"
        f" Licenses={words.or_null(view['licenses'])} Network=(null)",
        *([f"TresPerNode=gres:{view['gres']}"] if view["gres"] else []),
    ]


def _job_files(view: View) -> list[str]:
    lines = [f"Command={words.or_null(view['command'])}", f"WorkDir={view['work_dir']}"]
    if view["comment"]:
        lines.append(f"Comment={view['comment']} ")
    if view["batch"]:
        lines += [
            f"StdErr={view['stderr']}",
            f"StdIn={view['stdin']}",
            f"StdOut={view['stdout']}",
        ]
    return lines


def _container(view: View) -> list[str]:
    if not view["container"] and not view["container_id"]:
        return []
    label = f" ContainerID={view['container_id']}" if view["container_id"] else ""
    return [f"Container={view['container']}{label}"]


def step(view: View, clock: Clock) -> list[str]:
    """The lines of a step.  The batch script's has no tasks that were distributed."""
    memory = f",mem={clock.memory(view['memory'])}" if view["memory"] else ""
    tres = f"cpu={view['cpus']}{memory},node={view['nodes']}" if view["cpus"] else words.NULL
    distribution = "" if words.is_named_step(view) else " Dist=Block"
    return [
        f"StepId={words.step_id(view)} UserId={view['uid']}"
        f" StartTime={clock.moment(view['start_time'], 'Unknown')}"
        f" TimeLimit={values.format_time(view['time_limit'])}",
        f"State={view['state']} Partition={view['partition']} NodeList={view['node']}",
        f"Nodes={view['nodes']} CPUs={view['cpus']} Tasks={view['ntasks']}"
        f" Name={view['name']} Network=(null)",
        f"TRES={tres}",
        "ResvPorts=(null)",
        f"CPUFreqReq=Default{distribution}",
        "SrunHost:Pid=(null):0",
        *_container(view),
    ]


def node(view: View, clock: Clock, partitions: list[str], *, details: bool) -> list[str]:
    """The lines of a node, which is in ``partitions``."""
    memory = clock.memory(view["memory"])
    free = "N/A" if view["memory_free"] is None else view["memory_free"]
    used = []
    if view["cpus_alloc"]:
        used.append(f"cpu={view['cpus_alloc']}")
    if view["memory_alloc"]:
        used.append(f"mem={clock.memory(view['memory_alloc'])}")
    return [
        f"NodeName={view['name']} Arch={view['arch']} CoresPerSocket={view['cores']} ",
        f"CPUAlloc={view['cpus_alloc']} CPUEfctv={view['cpus']} CPUTot={view['cpus']}"
        f" CPULoad={view['load']:.2f}",
        f"AvailableFeatures={words.or_null(view['features'])}",
        f"ActiveFeatures={words.or_null(view['features'])}",
        f"Gres={words.or_null(view['gres'])}",
        *_gres_details(view, details=details),
        f"NodeAddr={view['name']} NodeHostName={view['name']} Version={view['version']}",
        f"OS={view['os']} ",
        f"RealMemory={view['memory']} AllocMem={view['memory_alloc']} FreeMem={free}"
        f" Sockets={view['sockets']} Boards=1",
        f"State={view['state']} ThreadsPerCore={view['threads']} TmpDisk=0 Weight={view['weight']}"
        " Owner=N/A MCS_label=N/A",
        f"Partitions={','.join(partitions)} ",
        f"BootTime={clock.moment(view['boot_time'], 'None')} SlurmdStartTime=None",
        "LastBusyTime=Unknown",
        f"CfgTRES=cpu={view['cpus']},mem={memory},billing={view['cpus']}",
        f"AllocTRES={','.join(used)}",
        "CapWatts=n/a",
        "CurrentWatts=0 AveWatts=0",
        "ExtSensorsJoules=n/s ExtSensorsWatts=0 ExtSensorsTemp=n/s",
        *_why(view, clock),
    ]


def _gres_details(view: View, *, details: bool) -> list[str]:
    if not details:
        return []
    return ["GresDrain=N/A", *([f"GresUsed={view['gres_used']}"] if view["gres"] else [])]


def _why(view: View, clock: Clock) -> list[str]:
    """Why a node is drained or down, who said so, and when."""
    if not view["reason"]:
        return []
    when = clock.moment(view["reason_time"], "Unknown")
    return [f"Reason={view['reason']} [{view['reason_user']}@{when}]"]


def partition(view: View, clock: Clock) -> list[str]:
    """The lines of a partition."""
    cpus, nodes = view["total_cpus"], view["total_nodes"]
    memory = clock.memory(view["total_memory"])
    standard = view["default_time"]
    return [
        f"PartitionName={view['name']}",
        "AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL",
        f"AllocNodes=ALL Default={'YES' if view['default'] else 'NO'} QoS=N/A",
        f"DefaultTime={'NONE' if standard is None else values.format_time(standard)}"
        " DisableRootJobs=NO ExclusiveUser=NO GraceTime=0 Hidden=NO",
        f"MaxNodes={'UNLIMITED' if view['max_nodes'] is None else view['max_nodes']}"
        f" MaxTime={values.format_time(view['max_time'])} MinNodes={view['min_nodes']} LLN=NO"
        " MaxCPUsPerNode=UNLIMITED",
        f"Nodes={view['nodes']}",
        f"PriorityJobFactor={view['job_factor']} PriorityTier={view['tier']} RootOnly=NO ReqResv=NO"
        f" OverSubscribe={view['oversubscribe']}",
        "OverTimeLimit=NONE PreemptMode=OFF",
        f"State={view['state']} TotalCPUs={cpus} TotalNodes={nodes} SelectTypeParameters=NONE",
        "JobDefaults=(null)",
        f"{_default_memory(view)} MaxMemPerNode=UNLIMITED",
        f"TRES=cpu={cpus},mem={memory},node={nodes},billing={cpus}",
    ]


def _default_memory(view: View) -> str:
    if view["memory_per_cpu"]:
        return f"DefMemPerCPU={view['memory_per_cpu']}"
    return f"DefMemPerNode={view['memory_per_node'] or 'UNLIMITED'}"


def license(view: View, *, one_line: bool) -> str:
    """A licence's record: its second line is set in further, and no empty line follows it."""
    free = view["total"] - view["used"]
    between = " " if one_line else "\n    "
    return printable(f"LicenseName={view['name']}") + (
        f"{between}Total={view['total']} Used={view['used']} Free={free} Reserved=0 Remote=no\n"
    )


def config(settings: Mapping[str, str], clock: Clock) -> str:
    """The configuration: keys, equals signs in a column as far as the keys allow it."""
    lines = [f"{name:<23} = {value}" for name, value in settings.items()]
    date = clock.moment(clock.now, "")
    return "\n".join((f"Configuration data as of {date}", *lines)) + "\n"


def cpu_ranges(cpus: list[int]) -> str:
    """``0-3,8`` for CPU numbers."""
    return hostlist.fold([str(cpu) for cpu in sorted(cpus)]).strip("[]")
