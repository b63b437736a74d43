"""The five types that a job passes through: JobSpec → Allocation → StepSpec → TaskSpec → ExitRecord

Each is frozen, and each is JSON: it crosses a socket or lies in the journal as what ``to_json``
gives.  A JobSpec is what the user asked for, an Allocation what the scheduler gave, a StepSpec what
one supervisor needs to know (all of it: a supervisor asks nobody), a TaskSpec one process of it, an
ExitRecord how it ended.  Nothing here decides anything; see lifecycle.py and reactor.py.

Environments stay out of ``repr``: they hold secrets, and reprs end up in logs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from roadstead.core.jsonform import compact_json as compact_json
from roadstead.core.jsonform import from_json as from_json
from roadstead.core.jsonform import to_json as to_json

# Slurm's numbers for the steps that have no number (slurm.h: SLURM_BATCH_SCRIPT …).
BATCH_STEP: Final = 0xFFFFFFFB
INTERACTIVE_STEP: Final = 0xFFFFFFFA
EXTERN_STEP: Final = 0xFFFFFFFC

JobKind = Literal["run", "batch", "alloc"]
EnvPolicy = Literal["merge", "clean", "image", "host"]
Writable = Literal["bundle", "direct", "private"]
HookPolicy = Literal["drop", "run", "refuse"]
Mpi = Literal["none", "pmi2", "pmix"]
BindKind = Literal["", "none", "rank", "map_cpu", "mask_cpu", "auto"]
MountKind = Literal["bind", "tmpfs", "umount", "squashfs"]
SaveKind = Literal["squashfs", "oci", "oci-archive"]
Network = Literal["", "host", "none", "private"]
Per = Literal["task", "node"]
NameUse = Literal["auto", "create", "exec", "no_exec"]
Reason = Literal["program", "runtime", "roadstead", "timeout", "cancelled", "launch", "memory"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One entry of ``--container-mounts`` (core/mounts.py).

    ``source`` is an absolute path of the host, for a bind, or of a squashfs file, whose contents
    are the image ``digest`` of the request's store; ``destination`` an absolute path of the
    container; ``options`` are OCI's mount options.  An ``optional`` one is left out where its
    source is not there.
    """

    kind: MountKind
    source: str
    destination: str
    options: tuple[str, ...] = ()
    optional: bool = False
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """One entry of ``--container-publish``: a TCP port inside, for the step's other tasks, and,
    unless ``host`` is None, for who connects to ``address`` of the host; 0 is one that is free."""

    inside: int
    host: int | None = None
    address: str = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRequest:
    """The container a user asked for.

    ``bundle`` is absolute, or the reference of an image as the user wrote it; ``image`` is then the
    image's digest and ``store`` the path of the store that it is in. ``writable``: as config.json
    says, the bundle's own root in any case, or a layer that each task has for itself; an image is
    never written to. ``workdir`` is an explicit ``--chdir``: a path inside; without one the
    bundle's own working directory counts. ``inner_workdir`` is ``--container-workdir``, which must
    be there. ``name`` is that of a container that the job's steps share (step/named.py), ``save``
    an absolute path for what it is at the end, ``save_tag`` its name there if that is an OCI
    layout. ``remap_root`` and ``entrypoint`` None: as the container has it. ``ids`` are the user's
    and the group's that the process has in there, if it is not to be as the container has it
    (pods/). ``keep_env`` are
    variables in which the host's value wins, ``set_env`` those that win over all ("" takes one
    away), ``devices`` names of CDI devices. ``network`` "" is the host's, without names of peers;
    ``per`` says who has a container: each task, or all tasks of a node together. ``system`` is the
    container system that is to run it, "" for an OCI runtime; ``bundle`` may then be the reference
    of an image that it has itself. ``sync``: no program of the step starts before all can.
    """

    bundle: str
    image: str = ""
    store: str = ""
    id: str = ""
    writable: Writable = "bundle"
    readonly: bool = False
    env_policy: EnvPolicy = "merge"
    hooks: HookPolicy = "drop"
    workdir: str = ""
    inner_workdir: str = ""
    mounts: tuple[Mount, ...] = ()
    name: str = ""
    name_use: NameUse = "auto"
    save: str = ""
    save_kind: SaveKind = "squashfs"
    save_tag: str = ""
    mount_home: bool = False
    remap_root: bool | None = None
    ids: tuple[int, ...] = ()
    entrypoint: bool | None = None
    keep_env: tuple[str, ...] = ()
    set_env: dict[str, str] = field(default_factory=dict, repr=False)
    annotations: dict[str, str] = field(default_factory=dict)
    devices: tuple[str, ...] = ()
    hooks_dirs: tuple[str, ...] = ()
    network: Network = ""
    publish: tuple[Port, ...] = ()
    per: Per = "task"
    system: str = ""
    sync: bool = False
    verbose: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Stdio:
    """Where a step's bytes go.  Empty: the user's own fds (run) or the default file (batch).

    The three names are Slurm filename patterns, "none", or (srun only) a task number.
    """

    input: str = ""
    output: str = ""
    error: str = ""
    append: bool = False
    label: bool = False
    unbuffered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal:
    """The user's terminal, for ``--pty``: its size in character cells."""

    rows: int
    columns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """``--cpu-bind``: which of its node's CPUs each task may use.

    ``kind`` "" and "none": all of them; "rank": the one of its place on the node; "map_cpu" and
    "mask_cpu": what ``values`` say, task after task; "auto": a part of its own, as for cores,
    threads and sockets.  ``verbose`` reports it.
    """

    kind: BindKind = ""
    values: tuple[str, ...] = ()
    verbose: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuBinding:
    """``--gpu-bind``: which of its node's GPUs each task sees (core/gpus.py); all of them without a
    ``kind``."""

    kind: str = ""
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A line of a ``--multi-prog`` file: these tasks execute ``argv``, in which %t is the task's
    number and %o its place among them."""

    tasks: tuple[int, ...]
    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How the tasks of a step are made of its command.

    ``mpi`` is the interface that MPI libraries find; ``distribution`` is what --distribution was
    given, ``plane`` its size and ``hosts`` the node of each task where that is arbitrary.
    ``prolog`` and ``epilog`` are --task-prolog and --task-epilog.  ``bcast`` is where --bcast wants
    a copy of the program, "" for a name that it makes up itself, None for no copy.
    """

    mpi: Mpi = "none"
    binding: Binding = Binding()
    distribution: str = ""
    plane: int = 0
    hosts: tuple[str, ...] = ()
    programs: tuple[Program, ...] = ()
    prolog: str = ""
    epilog: str = ""
    bcast: str | None = None
    gpus: GpuBinding = GpuBinding()


@dataclass(frozen=True, slots=True, kw_only=True)
class Gres:
    """Units of one generic resource, as ``--gres=NAME[:TYPE]:COUNT`` names them.

    ``indexes`` are the units' numbers on their node and ``files`` their device files, in the same
    order; both are empty for a resource that is only counted.
    """

    name: str
    type: str = ""
    count: int = 1
    indexes: tuple[int, ...] = ()
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What a job or a step has of one node.

    ``cpus`` are the node's own numbers for its CPUs, in a StepSpec the kernel's (where virtual
    nodes have more CPUs than the machine, two may be the same); ``memory`` is MiB, 0 for no limit;
    ``ntasks`` tasks are to run there.
    """

    node: str
    cpus: tuple[int, ...]
    memory: int = 0
    gres: tuple[Gres, ...] = ()
    ntasks: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WarnSignal:
    """``--signal``: a signal, so many ``seconds`` before the time limit, to the steps, or with
    ``batch`` to the batch script alone."""

    signal: int
    seconds: int = 60
    batch: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """Of which events ``user`` is to be told by letters, and the program that takes them."""

    types: tuple[str, ...]
    user: str
    program: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """What a node has to have at least of sockets, of cores in each and of threads in those, and
    how many tasks a socket takes (0: any number)."""

    sockets: int = 0
    cores: int = 0
    threads: int = 0
    tasks: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayTask:
    """Which element of which job array: ``job_id`` is the array's, that of its first element."""

    job_id: int
    task_id: int
    count: int
    lowest: int
    highest: int
    step: int = 1
    throttle: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HetComponent:
    """Which component of which heterogeneous job of ``size``: ``job_id`` is the first one's."""

    job_id: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """One condition of ``--dependency``: what a job, an array or an element (``task_id``) is to do.

    ``failed``: it can never be met.  ``spoiled``: an element of the array has not ended well.
    ``until``: it is met then; ``minutes`` is what ``after:JOB+MINUTES`` waits from the start on.
    """

    kind: str
    job_id: int = 0
    task_id: int | None = None
    minutes: int = 0
    failed: bool = False
    spoiled: bool = False
    until: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency:
    """What a job still waits for: all of its needs, or with ``either`` any one of them."""

    needs: tuple[Need, ...]
    either: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """What was asked for, after validation and defaults.  Times are seconds, memory is MiB.

    ``submit_dir`` is where the command was typed, ``cwd`` where the job runs; ``memory`` is that of
    each node, 0 for "as much as there is", which reserves nothing; ``memory_per_cpu`` adds to it.
    ``max_nodes`` 0 is no bound; ``gres`` are those of each node; ``partition`` may name several,
    between commas.  ``priority`` is the points of a job whose priority was set at its submission.
    ``asked`` names the options of which the job's environment tells only when they were given.
    ``client_pid`` is the command that the job ends with (0: the job outlives it).
    ``dependency`` is what is left of it, and ``begin`` a time before which the job does not start;
    with ``deadline`` it is removed when it could not end by then.  ``least_time`` is what its time
    limit may be lowered to; ``least_cpus`` are those of each node.  ``kill_on_invalid_dep`` ends a
    job whose dependency can never be met.  ``limits`` are soft limits of its processes by the names
    of setrlimit(2), -1 for none, where the user's differ from the controller's.  ``plugged``: a
    command with plugins has asked for it.
    """

    kind: JobKind
    name: str
    user: str
    uid: int
    gid: int
    cwd: str
    group: str = ""
    submit_dir: str = ""
    submit_host: str = ""
    argv: tuple[str, ...] = ()
    script: str = field(default="", repr=False)
    env: dict[str, str] = field(default_factory=dict, repr=False)
    umask: int = 0o022
    ntasks: int = 1
    cpus_per_task: int = 1
    ntasks_per_node: int = 0
    nodes: int = 1
    max_nodes: int = 0
    memory: int = 0
    memory_per_cpu: int = 0
    gres: tuple[Gres, ...] = ()
    licenses: tuple[Gres, ...] = ()
    features: tuple[str, ...] = ()
    nodelist: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    time_limit: int | None = None
    warning: WarnSignal | None = None
    partition: str = ""
    nice: int = 0
    priority: float | None = None
    requeue: bool = True
    container: ContainerRequest | None = None
    stdio: Stdio = Stdio()
    terminal: Terminal | None = None
    hold: bool = False
    exclusive: bool = False
    overcommit: bool = False
    immediate: float | None = None
    kill_on_bad_exit: bool = False
    wait: float | None = None
    launch: Launch = Launch()
    comment: str = ""
    account: str = ""
    qos: str = ""
    wckey: str = ""
    asked: tuple[str, ...] = ()
    oci_conf: str = ""
    client_pid: int = 0
    client_start: str = ""
    key: str = ""
    array: ArrayTask | None = None
    het: HetComponent | None = None
    dependency: Dependency | None = None
    kill_on_invalid_dep: bool = False
    begin: float | None = None
    deadline: float | None = None
    least_time: int | None = None
    least_cpus: int = 0
    topology: Topology = Topology()
    limits: dict[str, int] = field(default_factory=dict)
    mail: Mail | None = None
    plugged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRequest:
    """A step inside an allocation that exists (``srun`` in a batch script or under salloc).

    ``nodes`` 0 is all of the job's; ``gres`` None is likewise all that the job has there.
    ``exact`` takes only the CPUs that its tasks need, otherwise a step has all of the job's;
    ``relative`` is the number of the first of the job's nodes that it may have;
    ``overlap`` shares them with other steps; ``parent_step`` is the step that srun was typed in.
    ``group`` is the component of a heterogeneous job that it is in; one that spans several has
    ``parts``, whose tasks are numbered through and whose environment is the whole's.
    """

    name: str
    argv: tuple[str, ...]
    cwd: str
    env: dict[str, str] = field(default_factory=dict, repr=False)
    umask: int = 0o022
    ntasks: int = 1
    cpus_per_task: int = 1
    ntasks_per_node: int = 0
    nodes: int = 0
    nodelist: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    relative: int = 0
    memory: int = 0
    gres: tuple[Gres, ...] | None = None
    exact: bool = False
    overlap: bool = False
    overcommit: bool = False
    immediate: float | None = None
    parent_step: int | None = None
    time_limit: int | None = None
    container: ContainerRequest | None = None
    stdio: Stdio = Stdio()
    terminal: Terminal | None = None
    interactive: bool = False
    kill_on_bad_exit: bool = False
    wait: float | None = None
    launch: Launch = Launch()
    asked: tuple[str, ...] = ()
    oci_conf: str = ""
    limits: dict[str, int] = field(default_factory=dict)
    group: int = 0
    parts: tuple[StepRequest, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """What the scheduler gave a job: shares of nodes, and licences, in a partition.

    ``suspended`` is how many seconds of its time it has been stopped; ``ends_at`` allows for them.
    """

    job_id: int
    shares: tuple[Share, ...]
    started_at: float
    ends_at: float | None = None
    partition: str = ""
    suspended: float = 0.0

    @property
    def node(self) -> str:
        """The first node, where a batch script runs."""
        return self.shares[0].node

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple([share.node for share in self.shares])

    @property
    def cpu_count(self) -> int:
        return sum([len(share.cpus) for share in self.shares])


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSpec:
    """All that one supervisor needs to run one step on one node.

    ``deadline`` is wall-clock seconds since the epoch.  ``directory`` is the step's own, 0700, made
    by the supervisor; the exit record goes there.  ``shares`` are the nodes of the step in the
    order of their tasks: a virtual node is a part of this machine, so one supervisor has them all.
    ``oci_conf`` is the path of the oci.conf in force, or "" for the built-in patterns.
    ``parts`` are the components of a step that spans several: each says what its tasks are, the
    whole what they have in common.
    """

    job_id: int
    step_id: int
    kind: JobKind
    name: str
    user: str
    uid: int
    gid: int
    node: str
    cwd: str
    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict, repr=False)
    script: str = field(default="", repr=False)
    umask: int = 0o022
    ntasks: int = 1
    cpus_per_task: int = 1
    cpus: tuple[int, ...] = ()
    memory: int = 0
    shares: tuple[Share, ...] = ()
    deadline: float | None = None
    kill_wait: float = 30.0
    container: ContainerRequest | None = None
    oci_conf: str = ""
    stdio: Stdio = Stdio()
    terminal: Terminal | None = None
    kill_on_bad_exit: bool = False
    wait: float | None = None
    launch: Launch = Launch()
    limits: dict[str, int] = field(default_factory=dict)
    directory: str = ""
    parts: tuple[StepSpec, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """One task of a step: what differs from its siblings.  ``part``: of which of its components;
    ``gpus``: which of its node's GPUs it sees, counted from 0 (None: all of them)."""

    procid: int
    localid: int
    argv: tuple[str, ...]
    env: dict[str, str] = field(repr=False)
    node: str = ""
    nodeid: int = 0
    cpus: tuple[int, ...] = ()
    part: int = 0
    gpus: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskExit:
    """How one task ended.  ``signal`` 0: by exit; else ``code`` is 128 + signal.

    ``reason`` says whose end it was: the program's own, the runtime's failure, ours, the time
    limit's, the memory limit's or a cancel's.  ``message`` is the sentence for the user, if there
    is one.
    """

    procid: int
    code: int
    signal: int = 0
    reason: Reason = "program"
    message: str = ""
    hint: str = ""
    pid: int = 0
    node: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitRecord:
    """How a step ended; written to a file by its supervisor before anyone is told."""

    job_id: int
    step_id: int
    tasks: tuple[TaskExit, ...]
    started_at: float
    ended_at: float
    user_seconds: float = 0.0
    system_seconds: float = 0.0
    max_rss_kib: int = 0

    @property
    def worst(self) -> TaskExit:
        """The task whose code is the step's: the highest, as srun reports it."""
        return max(self.tasks, key=lambda task: task.code)
