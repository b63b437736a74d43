"""The options of Slurm's commands: one row each, and what a command line makes of them.

A row says how an option is spelled, which commands take it, which variables stand for it, and what
becomes of it here: honoured, accepted without effect because it cannot matter on one node, or
refused with the reason.  Parsing, the environment, ``--help`` and the #SBATCH lines all read it, so
an option is added in one place.  Every option of Slurm 22.05 has a row: what we cannot do is
refused by name and never "unrecognized".

``parse`` is getopt_long(3); after an operand only the commands that ask still take options, as in
``scontrol show job -o 7``.  ``gather`` adds the environment and, for sbatch, the script.  What a
value means is decided in ``core/request.py``.
"""

from __future__ import annotations

from roadstead.cli.getopt_long import NO_ARG, OPTIONAL, REQUIRED, Grammar
from roadstead.errors import RequestError, RoadsteadError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Final

    from roadstead.cli.script import Directive

SRUN: Final = 1
SBATCH: Final = 2
SALLOC: Final = 4
SQUEUE: Final = 8
SCANCEL: Final = 16
SINFO: Final = 32
SCONTROL: Final = 64
SATTACH: Final = 1024
# Those whose rows are in options_accounting.py.
SACCT: Final = 1 << 16
SSTAT: Final = 1 << 17
SPRIO: Final = 1 << 18
SSHARE: Final = 1 << 19
SREPORT: Final = 1 << 20
SACCTMGR: Final = 1 << 21
SDIAG: Final = 1 << 22
STRIGGER: Final = 1 << 23
LAUNCH: Final = SRUN | SBATCH | SALLOC
LISTS: Final = SQUEUE | SINFO
EVERY: Final = LAUNCH | LISTS | SCANCEL | SCONTROL

COMMANDS: Final[dict[str, int]] = {
    "srun": SRUN,
    "sbatch": SBATCH,
    "salloc": SALLOC,
    "squeue": SQUEUE,
    "scancel": SCANCEL,
    "sinfo": SINFO,
    "scontrol": SCONTROL,
    "sattach": SATTACH,
    "sacct": SACCT,
}

COUNT: Final = "count"  # each use adds one: -vv is "2"
LIST: Final = "list"  # each use adds to a list, with a comma

HONOURED: Final = "honoured"
_LATER = "refused:not supported yet on the local engine"
_GPUS = "refused:the local engine does not tie CPUs and tasks to GPUs yet"
_SOCKETS = "refused:the local engine does not tell sockets, cores and threads apart"
_FEATURES = "refused:the batch script runs on the first of the job's nodes"
_RESERVATIONS = "refused:the local engine has no reservations"
_CLUSTERS = "refused:the local engine is one cluster of its own"
_ACCOUNTS = "refused:the local engine keeps no accounts, so none can be selected"
_BUFFERS = "refused:the local engine has no burst buffers"
_SPECIALIZED = "no-op:no CPU is set aside for the system"
_ROOT = "refused:it is for root, and nothing here runs as another user"
_ONE_NODE = "no-op:all nodes are this machine"
_UNACCOUNTED = "no-op:the local engine keeps no accounts"
_UNBOUND = "no-op:tasks are not bound to CPUs"
_NO_NETWORK = "no-op:tasks are not launched over a network"
_ALL_SHOWN = "no-op:nothing is hidden"
_NO_BELL = "no-op:the bell is not rung"


class Option:
    """One option of one or more commands.

    ``env`` names the variables that stand for it, the strongest first: ``TIMELIMIT`` is read with
    the command's prefix (SLURM_ for srun, SBATCH_, SQUEUE_, ...), ``_CONTAINER`` with the command's
    own name, so SRUN_CONTAINER too, and a full name is read by the command that has its prefix.
    ``treatment`` is HONOURED, "no-op:REASON" or "refused:REASON"; ``repeat`` is COUNT, LIST or "":
    the last one wins.  ``aliases`` are more long names.  A row without ``help`` is hidden.
    """

    __slots__ = (
        "aliases", "arg", "commands", "env", "help",
        "metavar", "name", "repeat", "short", "treatment",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        short: str,
        arg: int,
        commands: int,
        env: str = "",
        metavar: str = "",
        help: str = "",
        *,
        treatment: str = HONOURED,
        repeat: str = "",
        aliases: str = "",
    ) -> None:
        self.name, self.short, self.arg, self.commands = name, short, arg, commands
        self.env, self.metavar, self.help = env, metavar, help
        self.treatment, self.repeat, self.aliases = treatment, repeat, aliases


# fmt: off
# One row a line is what makes this a table; the formatter would give each field a line of its own.
OPTIONS: tuple[Option, ...] = (
    # What a job or a step needs.
    Option("account", "A", REQUIRED, LAUNCH, "ACCOUNT", "name",
           "account that the job is shown under"),
    Option("acctg-freq", "", REQUIRED, LAUNCH, "ACCTG_FREQ", treatment=_UNACCOUNTED),
    Option("array", "a", REQUIRED, SBATCH, "SBATCH_ARRAY_INX", "numbers[%most]",
           "submit the script once for each number"),
    Option("batch", "", REQUIRED, SBATCH, "BATCH", treatment=_FEATURES),
    Option("bb", "", REQUIRED, LAUNCH, "BURST_BUFFER", treatment=_BUFFERS),
    Option("bbf", "", REQUIRED, LAUNCH, treatment=_BUFFERS),
    Option("begin", "b", REQUIRED, LAUNCH, "", "time", "do not start before this time"),
    Option("chdir", "D", REQUIRED, LAUNCH, "SLURM_WORKING_DIR SLURM_REMOTE_CWD", "directory",
           "working directory of the tasks"),
    Option("cluster-constraint", "", REQUIRED, LAUNCH, "CLUSTER_CONSTRAINT", treatment=_FEATURES),
    Option("clusters", "M", REQUIRED, EVERY, treatment=_CLUSTERS, aliases="cluster"),
    Option("comment", "", REQUIRED, LAUNCH, "", "text", "a remark kept with the job"),
    Option("constraint", "C", REQUIRED, LAUNCH, "CONSTRAINT", "features",
           "features that the nodes must have, joined by &"),
    Option("context", "", REQUIRED, LAUNCH, treatment="refused:tasks have the user's own context"),
    Option("contiguous", "", NO_ARG, LAUNCH, treatment=_ONE_NODE),
    Option("core-spec", "S", REQUIRED, LAUNCH, "CORE_SPEC", treatment=_SPECIALIZED),
    Option("cores-per-socket", "", REQUIRED, LAUNCH, treatment=_SOCKETS),
    Option("cpu-freq", "", REQUIRED, LAUNCH, "CPU_FREQ_REQ",
           treatment="refused:CPU frequencies are root's to set"),
    Option("cpus-per-gpu", "", REQUIRED, LAUNCH, "CPUS_PER_GPU", treatment=_GPUS),
    # 22.05 took SLURM_CPUS_PER_TASK away from srun: a job's value is no longer its steps'.
    Option("cpus-per-task", "c", REQUIRED, LAUNCH, "SRUN_CPUS_PER_TASK", "number",
           "CPUs that each task needs"),
    Option("deadline", "", REQUIRED, LAUNCH, "", "time",
           "remove the job if it cannot end before this time"),
    Option("delay-boot", "", REQUIRED, LAUNCH, "DELAY_BOOT", treatment=_ONE_NODE),
    Option("dependency", "d", REQUIRED, LAUNCH, "SLURM_DEPENDENCY", "type:job[:job][,...]",
           "wait for other jobs: after, afterany, afterok, afternotok, aftercorr, singleton"),
    Option("distribution", "m", REQUIRED, LAUNCH, "SLURM_DISTRIBUTION SBATCH_DISTRIBUTION",
           "how", "tasks on nodes: block, cyclic, plane=SIZE or arbitrary"),
    Option("exclude", "x", REQUIRED, LAUNCH, "", "hosts", "nodes that are not to be used"),
    Option("exclusive", "", OPTIONAL, LAUNCH, "EXCLUSIVE", "user|mcs", "share no CPU with others"),
    Option("extra-node-info", "B", REQUIRED, LAUNCH, treatment=_SOCKETS),
    Option("gid", "", REQUIRED, LAUNCH, treatment=_ROOT),
    Option("gpu-bind", "", REQUIRED, LAUNCH, "GPU_BIND", treatment=_GPUS),
    Option("gpu-freq", "", REQUIRED, LAUNCH, "GPU_FREQ", treatment=_GPUS),
    Option("gpus", "G", REQUIRED, LAUNCH, "GPUS", "[type:]number", "GPUs of the whole job"),
    Option("gpus-per-node", "", REQUIRED, LAUNCH, "GPUS_PER_NODE", "[type:]number",
           "GPUs of each node"),
    Option("gpus-per-socket", "", REQUIRED, LAUNCH, "GPUS_PER_SOCKET", treatment=_GPUS),
    Option("gpus-per-task", "", REQUIRED, LAUNCH, "GPUS_PER_TASK", "[type:]number",
           "GPUs of each task"),
    Option("gres", "", REQUIRED, LAUNCH, "SLURM_STEP_GRES GRES", "name[:type][:count],...",
           "generic resources of each node"),
    Option("gres-flags", "", REQUIRED, LAUNCH, "GRES_FLAGS", treatment=_UNBOUND),
    Option("hint", "", REQUIRED, LAUNCH, "HINT", treatment=_UNBOUND),
    Option("hold", "H", NO_ARG, LAUNCH, "", "", "submit the job held, to be released later"),
    Option("immediate", "I", OPTIONAL, SRUN | SALLOC, "IMMEDIATE", "seconds",
           "give up unless the job starts within this time"),
    Option("job-name", "J", REQUIRED, LAUNCH, "SLURM_JOB_NAME SBATCH_JOB_NAME", "name",
           "name of the job"),
    Option("licenses", "L", REQUIRED, LAUNCH, "", "name[:count],...", "licences that the job uses"),
    Option("mail-type", "", REQUIRED, LAUNCH, treatment=_LATER),
    Option("mail-user", "", REQUIRED, LAUNCH, treatment=_LATER),
    Option("mcs-label", "", REQUIRED, LAUNCH, treatment="no-op:all jobs are one user's"),
    Option("mem", "", REQUIRED, LAUNCH, "MEM_PER_NODE", "size[unit]", "memory on each node"),
    Option("mem-bind", "", REQUIRED, LAUNCH, "MEM_BIND", treatment=_UNBOUND),
    Option("mem-per-cpu", "", REQUIRED, LAUNCH, "MEM_PER_CPU", "size[unit]", "memory for each CPU"),
    Option("mem-per-gpu", "", REQUIRED, LAUNCH, "MEM_PER_GPU", treatment=_GPUS),
    Option("mincpus", "", REQUIRED, LAUNCH, "", "number", "CPUs of each node, at least"),
    Option("network", "", REQUIRED, LAUNCH, "NETWORK", treatment=_ONE_NODE),
    Option("nice", "", OPTIONAL, LAUNCH, "", "number", "points of priority to give up (100)"),
    Option("no-kill", "k", OPTIONAL, LAUNCH, "NO_KILL", treatment=_ONE_NODE),
    Option("nodefile", "F", REQUIRED, LAUNCH, treatment=_LATER),
    Option("nodelist", "w", REQUIRED, LAUNCH, "", "hosts", "nodes that the job must have"),
    Option("nodes", "N", REQUIRED, LAUNCH, "SLURM_JOB_NUM_NODES SLURM_NNODES", "min[-max]",
           "number of nodes"),
    Option("ntasks", "n", REQUIRED, LAUNCH, "SLURM_NTASKS SLURM_NPROCS", "number", "tasks to run"),
    Option("ntasks-per-core", "", REQUIRED, LAUNCH, "SLURM_NTASKS_PER_CORE", treatment=_SOCKETS),
    Option("ntasks-per-node", "", REQUIRED, LAUNCH, "SLURM_NTASKS_PER_NODE", "number",
           "number of tasks on each node", aliases="tasks-per-node"),
    Option("ntasks-per-socket", "", REQUIRED, LAUNCH, "SLURM_NTASKS_PER_SOCKET",
           treatment=_SOCKETS),
    Option("ntasks-per-tres", "", REQUIRED, LAUNCH, "SLURM_NTASKS_PER_GPU", treatment=_GPUS,
           aliases="ntasks-per-gpu"),
    Option("overcommit", "O", NO_ARG, LAUNCH, "OVERCOMMIT", "", "put several tasks on a CPU"),
    Option("oversubscribe", "s", NO_ARG, LAUNCH, treatment="no-op:jobs do not share CPUs"),
    Option("partition", "p", REQUIRED, LAUNCH, "PARTITION", "names", "partition to run in"),
    Option("power", "", REQUIRED, LAUNCH, "POWER", treatment="no-op:power is not managed"),
    Option("prefer", "", REQUIRED, LAUNCH, treatment="no-op:a preference is not needed to start"),
    Option("priority", "", REQUIRED, LAUNCH, "", "number", "the job's points of priority"),
    Option("profile", "", REQUIRED, LAUNCH, "PROFILE",
           treatment="refused:no time series of a job's use are kept"),
    Option("propagate", "", OPTIONAL, SRUN | SBATCH, treatment=_LATER),
    Option("qos", "q", REQUIRED, LAUNCH, "QOS", "name",
           "quality of service that the job is shown with"),
    Option("reboot", "", NO_ARG, LAUNCH, treatment=_ROOT),
    Option("reservation", "", REQUIRED, LAUNCH, "RESERVATION", treatment=_RESERVATIONS),
    Option("signal", "", REQUIRED, LAUNCH, "SIGNAL", "[B:]signal[@seconds]",
           "signal to send before the time limit"),
    Option("sockets-per-node", "", REQUIRED, LAUNCH, treatment=_SOCKETS),
    Option("spread-job", "", NO_ARG, LAUNCH, "SPREAD_JOB", treatment=_ONE_NODE),
    Option("switches", "", REQUIRED, LAUNCH, "REQ_SWITCH", treatment=_ONE_NODE),
    Option("thread-spec", "", REQUIRED, LAUNCH, "THREAD_SPEC", treatment=_SPECIALIZED),
    Option("threads-per-core", "", REQUIRED, LAUNCH, "THREADS_PER_CORE", treatment=_SOCKETS),
    Option("time", "t", REQUIRED, LAUNCH, "TIMELIMIT", "minutes", "time limit; also D-HH:MM:SS"),
    Option("time-min", "", REQUIRED, LAUNCH, "", "minutes",
           "time limit that is enough if the job starts sooner with it"),
    Option("tmp", "", REQUIRED, LAUNCH, "", "size[unit]", "free disk space in $TMPDIR"),
    Option("uid", "", REQUIRED, LAUNCH, treatment=_ROOT),
    Option("use-min-nodes", "", NO_ARG, LAUNCH, "USE_MIN_NODES", treatment=_ONE_NODE),
    Option("wait-all-nodes", "", REQUIRED, SBATCH | SALLOC, "WAIT_ALL_NODES", treatment=_ONE_NODE),
    Option("wckey", "", REQUIRED, LAUNCH, "WCKEY", "key", "key that the job is shown with"),

    # Containers.
    Option("container", "", REQUIRED, LAUNCH, "_CONTAINER", "path|reference",
           "run in the OCI container of this bundle directory or image"),
    Option("container-entrypoint", "", NO_ARG, LAUNCH,
           "_CONTAINER_ENTRYPOINT PYXIS_CONTAINER_ENTRYPOINT", "",
           "put the image's entrypoint before the command"),
    Option("container-entrypoint-log", "", NO_ARG, LAUNCH, "PYXIS_CONTAINER_ENTRYPOINT_LOG",
           treatment="no-op:an entrypoint's output is the task's own"),
    Option("container-env", "", REQUIRED, LAUNCH, "_CONTAINER_ENV PYXIS_CONTAINER_ENV",
           "names", "variables whose values here win over the image's"),
    Option("container-env-policy", "", REQUIRED, LAUNCH, "_CONTAINER_ENV_POLICY",
           "merge|clean|image|host", "which variables the tasks find in the container"),
    Option("container-hooks", "", REQUIRED, LAUNCH, "_CONTAINER_HOOKS", "drop|run|refuse",
           "what to do with hooks in config.json"),
    Option("container-hooks-dir", "", REQUIRED, LAUNCH, "_CONTAINER_HOOKS_DIR", "directory,...",
           "run the hooks of these directories (oci-hooks(5)) for the container", repeat=LIST),
    Option("container-id", "", REQUIRED, LAUNCH, "_CONTAINER_ID", "id", "label of the container"),
    Option("container-image", "", REQUIRED, LAUNCH, "_CONTAINER_IMAGE PYXIS_CONTAINER_IMAGE",
           "[user@][registry#]image[:tag]|path", "run in a container of this image"),
    Option("container-mount-home", "", NO_ARG, LAUNCH,
           "_CONTAINER_MOUNT_HOME PYXIS_CONTAINER_MOUNT_HOME", "",
           "mount the home directory in the container"),
    Option("container-mounts", "", REQUIRED, LAUNCH, "_CONTAINER_MOUNTS PYXIS_CONTAINER_MOUNTS",
           "src:dst[:flags],...", "mount these in the container; flags are joined by +",
           repeat=LIST),
    Option("container-name", "", REQUIRED, LAUNCH, "_CONTAINER_NAME PYXIS_CONTAINER_NAME",
           "name[:auto|create|exec|no_exec]", "use the job's container of this name, or make it"),
    Option("container-readonly", "", NO_ARG, LAUNCH,
           "_CONTAINER_READONLY PYXIS_CONTAINER_READONLY", "",
           "make the container's root file system read-only"),
    Option("container-remap-root", "", NO_ARG, LAUNCH,
           "_CONTAINER_REMAP_ROOT PYXIS_CONTAINER_REMAP_ROOT", "", "be root in the container"),
    Option("container-save", "", REQUIRED, LAUNCH, "_CONTAINER_SAVE PYXIS_CONTAINER_SAVE",
           "file|oci:dir[:tag]", "save what the container is at the end of the step"),
    Option("container-workdir", "", REQUIRED, LAUNCH,
           "_CONTAINER_WORKDIR PYXIS_CONTAINER_WORKDIR", "path",
           "working directory in the container"),
    Option("container-writable", "", OPTIONAL, LAUNCH,
           "_CONTAINER_WRITABLE PYXIS_CONTAINER_WRITABLE", "private",
           "let tasks write to it; private: to a layer of their own"),
    Option("device", "", REQUIRED, LAUNCH, "_DEVICE", "vendor/class=name,...",
           "give the container these devices, by their CDI names", repeat=LIST),
    Option("environment", "", REQUIRED, LAUNCH, "_ENVIRONMENT", "name|path",
           "run in the container that this Environment Definition File describes"),
    Option("no-container-entrypoint", "", NO_ARG, LAUNCH, "", "",
           "do not put the image's entrypoint before the command"),
    Option("no-container-mount-home", "", NO_ARG, LAUNCH, "", "",
           "do not mount the home directory"),
    Option("no-container-remap-root", "", NO_ARG, LAUNCH, "", "",
           "be oneself in the container"),

    # Where bytes and variables go.
    Option("error", "e", REQUIRED, SRUN | SBATCH, "SLURM_STDERRMODE SBATCH_ERROR", "file",
           "where standard error goes"),
    Option("export", "", REQUIRED, SRUN | SBATCH, "SRUN_EXPORT_ENV SLURM_EXPORT_ENV SBATCH_EXPORT",
           "names|ALL|NONE", "variables that the tasks get"),
    Option("export-file", "", REQUIRED, SBATCH, treatment=_LATER),
    Option("get-user-env", "", OPTIONAL, SBATCH | SALLOC, "SBATCH_GET_USER_ENV",
           treatment="no-op:the job gets the environment it was submitted with"),
    Option("input", "i", REQUIRED, SRUN | SBATCH, "SLURM_STDINMODE SBATCH_INPUT", "file",
           "where standard input comes from"),
    Option("label", "l", NO_ARG, SRUN, "SLURM_LABELIO", "", "put its task before each line"),
    Option("open-mode", "", REQUIRED, SRUN | SBATCH, "OPEN_MODE", "append|truncate",
           "what becomes of output files that exist"),
    Option("output", "o", REQUIRED, SRUN | SBATCH, "SLURM_STDOUTMODE SBATCH_OUTPUT", "file",
           "where standard output goes"),
    Option("pty", "", NO_ARG, SRUN, "", "", "run task 0 in a terminal of its own"),
    Option("unbuffered", "u", NO_ARG, SRUN, "SLURM_UNBUFFEREDIO", "", "do not buffer output"),

    # srun.
    Option("accel-bind", "", REQUIRED, SRUN, treatment=_UNBOUND),
    Option("bcast", "", OPTIONAL, SRUN, "BCAST", treatment=_LATER),
    Option("bcast-exclude", "", REQUIRED, SRUN, "BCAST_EXCLUDE", treatment=_LATER),
    Option("compress", "", OPTIONAL, SRUN, "COMPRESS", treatment=_LATER),
    Option("cpu-bind", "", REQUIRED, SRUN, "CPU_BIND", "[verbose,]how",
           "bind tasks to CPUs; help shows how", aliases="cpu_bind"),
    Option("debugger-test", "", NO_ARG, SRUN, treatment=_LATER),
    Option("disable-status", "X", NO_ARG, SRUN, "DISABLE_STATUS", "", "pass on the first Ctrl-C"),
    Option("epilog", "", REQUIRED, SRUN, "EPILOG", treatment=_LATER),
    Option("exact", "", NO_ARG, SRUN, "EXACT", "", "give the step only what it asks for"),
    Option("interactive", "", NO_ARG, SRUN),
    Option("het-group", "", REQUIRED, SRUN, "", "numbers",
           "components of the job that the step is for", aliases="pack-group"),
    Option("jobid", "", REQUIRED, SRUN, "JOB_ID", "id", "run the step in this allocation"),
    Option("kill-on-bad-exit", "K", OPTIONAL, SRUN, "KILL_BAD_EXIT", "0|1", "end if a task fails"),
    Option("mpi", "", REQUIRED, SRUN, "MPI_TYPE", "type", "kind of MPI; list shows them"),
    Option("msg-timeout", "", REQUIRED, SRUN, treatment=_NO_NETWORK),
    Option("multi-prog", "", NO_ARG, SRUN, "", "", "run the programs that a file names for tasks"),
    Option("no-allocate", "Z", NO_ARG, SRUN, treatment=_ROOT),
    Option("overlap", "", NO_ARG, SRUN, "OVERLAP", "", "share CPUs with other steps"),
    Option("preserve-env", "E", NO_ARG, SRUN, treatment="no-op:variables always tell the truth"),
    Option("prolog", "", REQUIRED, SRUN, "PROLOG", treatment=_LATER),
    Option("quit-on-interrupt", "", NO_ARG, SRUN, "", "", "end the step at a single Ctrl-C"),
    Option("relative", "r", REQUIRED, SRUN, "", "number", "first of the allocation's nodes to use"),
    Option("resv-ports", "", OPTIONAL, SRUN, "RESV_PORTS", treatment=_LATER),
    Option("send-libs", "", OPTIONAL, SRUN, "SEND_LIBS", treatment=_LATER),
    Option("slurmd-debug", "", REQUIRED, SRUN, treatment=_NO_NETWORK),
    Option("task-epilog", "", REQUIRED, SRUN, "TASK_EPILOG", treatment=_LATER),
    Option("task-prolog", "", REQUIRED, SRUN, "TASK_PROLOG", treatment=_LATER),
    Option("test-only", "", NO_ARG, SRUN | SBATCH, "", "", "only say when the job would start"),
    Option("threads", "T", REQUIRED, SRUN, "THREADS", treatment=_NO_NETWORK),
    Option("wait", "W", REQUIRED, SRUN, "WAIT", "seconds", "time left when a task has ended"),
    Option("whole", "", NO_ARG, SRUN,
           treatment="no-op:a step has the whole of its allocation unless it says --exact"),
    Option("x11", "", OPTIONAL, SRUN | SALLOC, treatment=_LATER),

    # sbatch.
    Option("ignore-pbs", "", NO_ARG, SBATCH, "IGNORE_PBS",
           treatment="no-op:#PBS and #BSUB lines are never read"),
    Option("kill-on-invalid-dep", "", REQUIRED, SBATCH, "", "yes|no",
           "cancel the job if its dependency can never be met"),
    Option("no-requeue", "", NO_ARG, SBATCH, "NO_REQUEUE", "", "never start the job a second time"),
    Option("parsable", "", NO_ARG, SBATCH, "", "", "print the job's id and nothing else"),
    Option("requeue", "", NO_ARG, SBATCH, "REQUEUE", "",
           "start the job again if its node fails, or on scontrol requeue"),
    Option("wait", "W", NO_ARG, SBATCH, "WAIT", "", "wait for the job, and exit as it does"),
    Option("wrap", "", REQUIRED, SBATCH, "", "command", "submit this command line"),

    # salloc.
    Option("bell", "", NO_ARG, SALLOC, "BELL", treatment=_NO_BELL),
    Option("kill-command", "K", OPTIONAL, SALLOC, "KILL_CMD", "signal",
           "signal for the command when the allocation ends"),
    Option("no-bell", "", NO_ARG, SALLOC, "NO_BELL", treatment=_NO_BELL),
    Option("no-shell", "", NO_ARG, SALLOC, "", "", "allocate, and return at once"),

    # squeue and sinfo.
    Option("Format", "O", REQUIRED, LISTS, "SQUEUE_FORMAT2", "fields", "columns to show, by name"),
    Option("Node", "N", NO_ARG, SINFO, "", "", "one line a node"),
    Option("accounts", "A", REQUIRED, SQUEUE, "SQUEUE_ACCOUNT", "names",
           "only jobs of these accounts"),
    Option("array", "r", NO_ARG, SQUEUE, "ARRAY", "", "one line for each element of an array"),
    Option("array-unique", "", NO_ARG, SQUEUE, "ARRAY_UNIQUE",
           treatment="no-op:elements of an array that wait are one line already"),
    Option("dead", "d", NO_ARG, SINFO, "", "", "only nodes that do not respond"),
    Option("exact", "e", NO_ARG, SINFO, "", "", "group only nodes that are all alike"),
    Option("format", "o", REQUIRED, LISTS, "FORMAT", "format", "columns to show, by %-letter"),
    Option("iterate", "i", REQUIRED, LISTS, "", "seconds", "list again and again"),
    Option("jobs", "j", OPTIONAL, SQUEUE, "", "ids", "only these jobs"),
    Option("json", "", NO_ARG, LISTS, "", "", "print JSON, in the shape of Slurm's REST interface"),
    Option("licenses", "L", REQUIRED, SQUEUE, "LICENSES", "names",
           "only jobs that use these licences"),
    Option("list-reasons", "R", NO_ARG, SINFO, "", "", "why nodes are drained or down"),
    Option("long", "l", NO_ARG, LISTS, "", "", "show more columns"),
    Option("name", "n", REQUIRED, SQUEUE, "SQUEUE_NAMES", "names", "only jobs of these names"),
    Option("noconvert", "", NO_ARG, LISTS, help="do not convert units"),
    Option("nodelist", "w", REQUIRED, SQUEUE, metavar="hostlist", help="jobs on these nodes",
           aliases="nodes node"),
    Option("nodes", "n", REQUIRED, SINFO, "", "hosts", "only these nodes"),
    Option("noheader", "h", NO_ARG, LISTS, "", "", "no line of headings"),
    Option("partition", "p", REQUIRED, SQUEUE, "PARTITION", "names",
           "only jobs in these partitions", aliases="partitions"),
    Option("partition", "p", REQUIRED, SINFO, "PARTITION", "names", "only these partitions"),
    Option("priority", "P", NO_ARG, SQUEUE, "PRIORITY", treatment="no-op:a job has one partition"),
    Option("qos", "q", REQUIRED, SQUEUE, "QOS", "names", "only jobs of these qualities of service"),
    Option("reservation", "R", REQUIRED, SQUEUE, "", "name",
           "only jobs in this reservation: there are none"),
    Option("reservation", "T", NO_ARG, SINFO, "", "", "show reservations: there are none"),
    Option("responding", "r", NO_ARG, SINFO, treatment="no-op:the node always responds"),
    Option("sibling", "", NO_ARG, SQUEUE | SCONTROL, "SQUEUE_SIBLING", treatment=_ALL_SHOWN),
    Option("sort", "S", REQUIRED, SQUEUE, "SORT", "fields", "order of the lines"),
    Option("sort", "S", REQUIRED, SINFO, "SORT", "fields", "order of the lines"),
    Option("start", "", NO_ARG, SQUEUE, help="expected start times of pending jobs"),
    Option("states", "t", REQUIRED, SQUEUE, "STATES", "states", "jobs in these states, or all"),
    Option("states", "t", REQUIRED, SINFO, "", "states", "only nodes in these states"),
    Option("steps", "s", OPTIONAL, SQUEUE, "", "ids", "show steps: all, or these"),
    Option("summarize", "s", NO_ARG, SINFO, "", "", "one line a partition, with counts of nodes"),
    Option("users", "u", REQUIRED, SQUEUE, "USERS", "names", "jobs of these users", aliases="user"),
    Option("yaml", "", NO_ARG, LISTS, "", "", "the same as YAML"),

    # sattach.
    Option("error-filter", "", REQUIRED, SATTACH, "", "task", "only this task's standard error"),
    Option("input-filter", "", REQUIRED, SATTACH, "", "task", "standard input for this task only"),
    Option("label", "l", NO_ARG, SATTACH, "", "", "put its task before each line"),
    Option("layout", "", NO_ARG, SATTACH, "", "", "show which tasks are where, and attach to none"),
    Option("output-filter", "", REQUIRED, SATTACH, "", "task", "only this task's standard output"),
    Option("pty", "", NO_ARG, SATTACH, "", "", "attach to a step's pseudo-terminal"),
    Option("quiet", "Q", NO_ARG, SATTACH, "", "", "say less"),
    Option("verbose", "v", NO_ARG, SATTACH, "", "", "say more", repeat=COUNT),
    Option("help", "h", NO_ARG, SATTACH, "", "", "show this text"),
    Option("usage", "u", NO_ARG, SATTACH, "", "", "show a short form of it"),
    Option("version", "V", NO_ARG, SATTACH, "", "", "show the version"),

    # scancel.
    Option("account", "A", REQUIRED, SCANCEL, "ACCOUNT", treatment=_ACCOUNTS),
    Option("batch", "b", NO_ARG, SCANCEL, "BATCH", "", "signal the batch script only"),
    Option("ctld", "", NO_ARG, SCANCEL, "CTLD", treatment="no-op:the controller sends signals"),
    Option("full", "f", NO_ARG, SCANCEL, "FULL", "", "signal the batch script and all steps"),
    Option("hurry", "H", NO_ARG, SCANCEL, "HURRY", treatment="no-op:there is nothing to stage out"),
    Option("interactive", "i", NO_ARG, SCANCEL, "INTERACTIVE", "", "ask before each job"),
    Option("name", "n", REQUIRED, SCANCEL, "NAME", "name", "jobs of this name", aliases="jobname"),
    Option("nodelist", "w", REQUIRED, SCANCEL, metavar="hostlist", help="jobs on these nodes only"),
    Option("partition", "p", REQUIRED, SCANCEL, "PARTITION", "name", "only jobs in this partition"),
    Option("qos", "q", REQUIRED, SCANCEL, "QOS", treatment=_ACCOUNTS),
    Option("reservation", "R", REQUIRED, SCANCEL, treatment=_RESERVATIONS),
    Option("sibling", "", REQUIRED, SCANCEL, treatment=_CLUSTERS),
    Option("signal", "s", REQUIRED, SCANCEL, "", "signal", "signal to send; else the job ends"),
    Option("state", "t", REQUIRED, SCANCEL, "STATE", "state", "only jobs in this state"),
    Option("user", "u", REQUIRED, SCANCEL, "USER", "name", "only jobs of this user"),
    Option("wckey", "", REQUIRED, SCANCEL, "WCKEY", treatment=_ACCOUNTS),

    # scontrol, and what several of the commands that ask have in common.
    Option("all", "a", NO_ARG, LISTS | SCONTROL, "SQUEUE_ALL SINFO_ALL", "", "show all partitions"),
    Option("details", "d", NO_ARG, SCONTROL, "", "", "show more of a job", repeat=COUNT),
    Option("federation", "", NO_ARG, LISTS | SCONTROL, "SQUEUE_FEDERATION SINFO_FEDERATION",
           treatment=_ALL_SHOWN),
    Option("future", "F", NO_ARG, SCONTROL, treatment=_ONE_NODE),
    Option("hide", "", NO_ARG, LISTS | SCONTROL, treatment=_ALL_SHOWN),
    Option("local", "", NO_ARG, LISTS | SCONTROL, "SQUEUE_LOCAL SINFO_LOCAL", treatment=_ALL_SHOWN),
    Option("me", "", NO_ARG, SQUEUE | SCANCEL, "", "", "only jobs of mine"),
    Option("oneliner", "o", NO_ARG, SCONTROL, "", "", "one line a record"),
    Option("uid", "u", REQUIRED, SCONTROL, treatment=_ROOT),

    # Every command.
    Option("quiet", "Q", NO_ARG, LAUNCH | SCANCEL | SCONTROL, "", "", "say less"),
    Option("verbose", "v", NO_ARG, EVERY, "SLURM_DEBUG SBATCH_DEBUG SALLOC_DEBUG SCANCEL_VERBOSE",
           "", "say more; again for still more", repeat=COUNT),
    Option("help", "h", NO_ARG, LAUNCH | SCONTROL, "", "", "show this text"),
    Option("help", "", NO_ARG, LISTS | SCANCEL, "", "", "show this text"),
    Option("usage", "", NO_ARG, EVERY, "", "", "show a short form of it"),
    Option("version", "V", NO_ARG, EVERY, "", "", "show the version"),
)
# fmt: on


# Given on a stronger level, one of these takes the others of a weaker level away: the
# SLURM_MEM_PER_NODE of a batch script must not meet the --mem-per-cpu of a step in it.
_RIVALS: Final[tuple[tuple[str, ...], ...]] = (
    ("mem", "mem-per-cpu"),
    ("container-readonly", "container-writable"),
    ("container", "container-image", "environment"),
    ("container-entrypoint", "no-container-entrypoint"),
    ("container-mount-home", "no-container-mount-home"),
    ("container-remap-root", "no-container-remap-root"),
    ("format", "Format"),
)

_SELECTORS: Final = ("container", "container-image", "container-name", "environment")
_INFORMATION: Final = ("help", "usage", "version")
_PYXIS: Final = "PYXIS_"  # of whose variables every command reads those that it has options for
_PREFIXES: Final = (
    "SLURM_",
    "SRUN_",
    "SBATCH_",
    "SALLOC_",
    "SQUEUE_",
    "SCANCEL_",
    "SINFO_",
    _PYXIS,
)


def parse(command: str, argv: Iterable[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """The options of one command line in order, as (long name, value or ""), and the rest."""
    return _grammar(command).parse(argv)


def gather(
    command: str,
    argv: Iterable[str],
    environ: Mapping[str, str],
    directives: Iterable[Directive] = (),
) -> tuple[dict[str, str], list[str]]:
    """All that was asked for, by long name: the command line over the environment over the script.

    A flag is "1", a counted flag its count, an optional value that was not given "".  With --help,
    --usage or --version on the command line nothing else is looked at.
    """
    grammar = _grammar(command)
    pairs, rest = grammar.parse(argv)
    for name, _ in pairs:
        if name in _INFORMATION:
            return {name: "1"}, rest
    levels = (_script(grammar, directives), _environment(grammar, environ), _level(grammar, pairs))
    asked = layered(levels)
    if not any(name in asked for name in _SELECTORS):
        # What the environment says of containers is about steps that have one.
        for name in levels[1]:
            if name not in levels[0] and name not in levels[2] and _is_about_containers(name):
                del asked[name]
    return asked, rest


def layered(levels: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """What is asked for where each level is over those before it."""
    asked: dict[str, str] = {}
    for level in levels:
        for group in _RIVALS:
            if any(name in level for name in group):
                for name in group:
                    asked.pop(name, None)
        asked.update(level)
    return asked


def _is_about_containers(name: str) -> bool:
    return name == "device" or name.removeprefix("no-").startswith("container-")


def without_effect(command: str, asked: Iterable[str]) -> list[tuple[str, str]]:
    """Those of the options ``asked`` for that do nothing here, each with the reason."""
    names = _grammar(command).names
    split = [(name, *names[name].treatment.partition(":")) for name in asked]
    return [(name, reason) for name, treatment, _, reason in split if treatment == "no-op"]


def variables(command: str, option: Option) -> list[str]:
    """The environment variables that stand for an option, the strongest first."""
    own = f"{command.upper()}_"
    prefix = "SLURM_" if command == "srun" else own
    found = []
    for word in option.env.split():
        if word.startswith("_"):
            found.append(own + word[1:])
        elif not word.startswith(_PREFIXES):
            found.append(prefix + word)
        elif word.startswith((own, prefix, _PYXIS)):
            found.append(word)
    return found


def rows(command: str) -> list[Option]:
    """The options of a command."""
    bit, table = COMMANDS[command], OPTIONS
    if bit >= SACCT:
        from roadstead.cli.options_accounting import ROWS as table
    return [option for option in table if option.commands & bit]


def _grammar(command: str) -> Grammar:
    bit = COMMANDS[command]
    return Grammar(command, rows(command), in_order=bool(bit & LAUNCH))


def _level(grammar: Grammar, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, value in pairs:
        option = grammar.names[name]
        _refuse(option, f"--{name}")
        if option.repeat == COUNT:
            values[name] = str(int(values.get(name, "0")) + 1)
        elif option.repeat == LIST and name in values:
            values[name] += f",{value}"
        else:
            values[name] = value if option.arg else "1"
    return values


def _environment(grammar: Grammar, environ: Mapping[str, str]) -> dict[str, str]:
    values: dict[str, str] = {}
    if not environ:  # a program's submission
        return values
    for option in grammar.rows:
        if not option.env:
            continue
        for variable in variables(grammar.command, option):
            # In an allocation SLURM_JOB_NAME is the job's; a step is named after its program.
            named_job = variable == "SLURM_JOB_NAME" and "SLURM_JOB_ID" in environ
            if named_job or variable not in environ:
                continue
            value = environ[variable]
            if option.arg != REQUIRED and variable.startswith(_PYXIS):
                value = _pyxis_flag(value)
                if value == "0":
                    if f"no-{option.name}" in grammar.names:
                        values[f"no-{option.name}"] = "1"
                    break
            elif option.arg == NO_ARG:
                value = _flag(value)
            if option.arg or value:
                _refuse(option, f"{variable} in the environment (--{option.name})")
                values[option.name] = value
            break
    return values


def _pyxis_flag(value: str) -> str:
    """What one of Pyxis's variables says of a flag, in its words for yes and no: "1" or "0", and ""
    for --container-writable, which has a value besides.  What is neither it ignores, and so do we.
    """
    return "1" if value.lower() in ("1", "y", "yes", "true", "on", "t") else "0"


def _flag(value: str) -> str:
    """What a variable says of a flag: Slurm takes nothing, yes or a number other than 0 for set."""
    if value in ("", "yes"):
        return "1"
    return value if value.isdecimal() and int(value) else ""


def _script(grammar: Grammar, directives: Iterable[Directive]) -> dict[str, str]:
    values: dict[str, str] = {}
    for directive in directives:
        try:
            pairs, stray = grammar.parse(directive.argv)
            if stray:
                raise RequestError(f"invalid directive found in batch script: {stray[0]}")
            values.update(_level(grammar, pairs))
            for name in (*_INFORMATION, "wrap"):  # they make sense on a command line only
                values.pop(name, None)
        except RoadsteadError as error:
            where = f"line {directive.line_number} of the batch script"
            raise type(error)(f"{error}: {where}", hint=error.hint) from None
    return values


def _refuse(option: Option, spelled: str) -> None:
    treatment, _, reason = option.treatment.partition(":")
    if treatment == "refused":
        raise RequestError(f"{spelled}: {reason}")
