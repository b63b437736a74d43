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
        f"JobId={view['job_id']} JobName={view['name']}",
        f"UserId={view['user']}({view['uid']}) GroupId={view['group']}({view['gid']})"
        " MCS_label=N/A",
        f"Priority={view['priority']} Nice=0 Account=(null) QOS=(null)",
        f"JobState={view['state']} Reason={words.reason(view)} Dependency=(null)",
        f"Requeue=0 Restarts=0 BatchFlag={int(view['batch'])} Reboot=0"
        f" ExitCode={words.exit_code(view)}",
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


def _job_times(view: View, clock: Clock) -> list[str]:
    submitted = clock.moment(view["submit_time"], "Unknown")
    # A held job is not eligible before it is released.
    eligible = "Unknown" if view["reason"].startswith("JobHeld") else submitted
    started = words.start_time(view)
    start = clock.moment(started, "Unknown")
    considered = submitted if started is None else start
    return [
        f"RunTime={values.format_time(clock.elapsed(view))}"
        f" TimeLimit={values.format_time(view['time_limit'])} TimeMin=N/A",
        f"SubmitTime={submitted} EligibleTime={eligible}",
        f"AccrueTime={eligible}",
        f"StartTime={start} EndTime={clock.moment(view['end_time'], 'Unknown')} Deadline=N/A",
        f"SuspendTime=None SecsPreSuspend=0 LastSchedEval={considered} Scheduler=Main",
    ]


def _job_resources(view: View, clock: Clock, host: str, *, details: bool) -> list[str]:
    memory = clock.memory(view["memory"])
    lines = [
        f"Partition={view['partition']} AllocNode:Sid={host}:0",
        "ReqNodeList=(null) ExcNodeList=(null)",
        f"NodeList={view['node']}",
    ]
    if view["node"]:
        lines.append(f"BatchHost={view['node']}")
    lines += [
        f"NumNodes={view['nodes']} NumCPUs={view['cpus']} NumTasks={view['ntasks']}"
        f" CPUs/Task={view['cpus_per_task']} ReqB:S:C:T=0:0:*:*",
        f"TRES={words.tres(view, clock)}",
        "Socks/Node=* NtasksPerN:B:S:C=0:0:*:* CoreSpec=*",
    ]
    if details and view["cpu_ids"]:
        lines += [
            "JOB_GRES=(null)",
            f"  Nodes={view['node']} CPU_IDs={cpu_ranges(view['cpu_ids'])}"
            f" Mem={view['memory']} GRES=",
        ]
    return [
        *lines,
        f"MinCPUsNode={view['cpus_per_task']} MinMemoryNode={memory} MinTmpDiskNode=0",
        "Features=(null) DelayBoot=00:00:00",
        "OverSubscribe=OK Contiguous=0 Licenses=(null) Network=(null)",
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
    tres = f"cpu={view['cpus']},node=1" if view["cpus"] else words.NULL
    distribution = "" if words.is_named_step(view) else " Dist=Block"
    return [
        f"StepId={words.step_id(view)} UserId={view['uid']}"
        f" StartTime={clock.moment(view['start_time'], 'Unknown')}"
        f" TimeLimit={values.format_time(view['time_limit'])}",
        f"State={view['state']} Partition={view['partition']} NodeList={view['node']}",
        f"Nodes=1 CPUs={view['cpus']} Tasks={view['ntasks']} Name={view['name']} Network=(null)",
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
        "AvailableFeatures=(null)",
        "ActiveFeatures=(null)",
        "Gres=(null)",
        *(["GresDrain=N/A"] if details else []),
        f"NodeAddr={view['name']} NodeHostName={view['name']} Version={view['version']}",
        f"OS={view['os']} ",
        f"RealMemory={view['memory']} AllocMem={view['memory_alloc']} FreeMem={free}"
        f" Sockets={view['sockets']} Boards=1",
        f"State={view['state']} ThreadsPerCore={view['threads']} TmpDisk=0 Weight=1 Owner=N/A"
        " MCS_label=N/A",
        f"Partitions={','.join(partitions)} ",
        f"BootTime={clock.moment(view['boot_time'], 'None')} SlurmdStartTime=None",
        "LastBusyTime=Unknown",
        f"CfgTRES=cpu={view['cpus']},mem={memory},billing={view['cpus']}",
        f"AllocTRES={','.join(used)}",
        "CapWatts=n/a",
        "CurrentWatts=0 AveWatts=0",
        "ExtSensorsJoules=n/s ExtSensorsWatts=0 ExtSensorsTemp=n/s",
    ]


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
        f"MaxNodes=UNLIMITED MaxTime={values.format_time(view['max_time'])} MinNodes=0 LLN=NO"
        " MaxCPUsPerNode=UNLIMITED",
        f"Nodes={view['nodes']}",
        "PriorityJobFactor=1 PriorityTier=1 RootOnly=NO ReqResv=NO"
        f" OverSubscribe={view['oversubscribe']}",
        "OverTimeLimit=NONE PreemptMode=OFF",
        f"State={view['state']} TotalCPUs={cpus} TotalNodes={nodes} SelectTypeParameters=NONE",
        "JobDefaults=(null)",
        "DefMemPerNode=UNLIMITED MaxMemPerNode=UNLIMITED",
        f"TRES=cpu={cpus},mem={memory},node={nodes},billing={cpus}",
    ]


def config(settings: Mapping[str, str], clock: Clock) -> str:
    """The configuration: keys, equals signs in a column as far as the keys allow it."""
    lines = [f"{name:<23} = {value}" for name, value in settings.items()]
    date = clock.moment(clock.now, "")
    return "\n".join((f"Configuration data as of {date}", *lines)) + "\n"


def cpu_ranges(cpus: list[int]) -> str:
    """``0-3,8`` for CPU numbers."""
    return hostlist.fold([str(cpu) for cpu in sorted(cpus)]).strip("[]")
