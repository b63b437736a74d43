"""roadstead.conf: the nodes, partitions, licences and times of a site, in slurm.conf's grammar.

    NodeName=n[1-4] CPUs=2 RealMemory=2000 Gres=gpu:a100:2 Feature=fast
    PartitionName=debug Nodes=ALL Default=YES MaxTime=60
    Name=gpu Type=a100 File=/dev/nvidia[0-1]
    Licenses=matlab:2
    KillWait=10

Keys are those of slurm.conf(5) and, for devices, gres.conf(5); case does not matter, ``include``
works, and a line is a list of KEY=VALUE.  A key that Slurm has and that means nothing here is
accepted with a warning; one that nobody has is an error that names the line.  NodeName=DEFAULT and
PartitionName=DEFAULT set what the lines behind them start from.

Pure: the text comes in, and so does the machine as it is, of which nodes are made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, cast

from roadstead.core import needs, values
from roadstead.core.conflines import Line, Typed, read_lines
from roadstead.core.grammar import Read
from roadstead.core.model import Gres
from roadstead.core.site import PARTITION, Node, Partition, PartitionWord, Site, Weights

_DEPTH: Final = 100
_MOST_CPUS: Final = 65533  # slurm.conf(5), CPUs: a number of 16 bits


def _words(text: str) -> list[str]:
    return text.split()


# slurm.conf(5) keys that a site may carry over, and that change nothing on one machine.
MEANINGLESS: Final = frozenset(
    _words("""
        authtype clustername controlmachine slurmctldhost slurmuser slurmduser statesavelocation
        slurmdspooldir slurmctldport slurmdport proctracktype taskplugin selecttype
        selecttypeparameters returntoservice slurmctldpidfile slurmdpidfile slurmctldlogfile
        slurmdlogfile slurmctlddebug slurmddebug switchtype mpidefault accountingstoragetype
        jobcomptype jobacctgathertype jobacctgatherfrequency grestypes prioritytype slurmctldtimeout
        slurmdtimeout inactivelimit credtype maxjobcount prioritydecayhalflife
        priorityweightfairshare priorityweightqos
    """)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteConf:
    """What the file says; times in seconds, None where it says nothing."""

    site: Site
    kill_wait: float | None = None
    over_time: float | None = None
    min_job_age: float | None = None
    requeue_delay: float | None = None
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class _Draft:
    """What has been read so far."""

    machine: Node
    nodes: dict[str, dict[str, str]] = field(default_factory=dict)
    partitions: dict[str, tuple[Line, dict[str, str]]] = field(default_factory=dict)
    where: dict[str, Line] = field(default_factory=dict)
    node_default: dict[str, str] = field(default_factory=dict)
    partition_default: dict[str, str] = field(default_factory=dict)
    devices: list[Line] = field(default_factory=list)
    plain: dict[str, tuple[Line, str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def parse(text: str, path: str, read: Read, *, machine: Node, uid: int,
          login: Mapping[str, str]) -> SiteConf:  # fmt: skip
    """What a roadstead.conf means on this machine.  Raises ConfigError that names the line.

    ``read`` returns the text of an included file, or raises OSError.
    """
    draft = _Draft(machine)
    for line in read_lines(text, path, read):
        _take(draft, line)
    nodes = _nodes(draft)
    partitions = _partitions(draft, nodes)
    number = _Numbers(draft)
    number.word("engine", "auto", ("auto", "local", "slurm"))  # engines/choice.py reads it
    number.word("containermode", "agent", ("agent", "native"))  # engines/slurm/native.py does
    number.word("jobcomment", "container", ("container", "none"))  # engines/slurm/comment.py does
    site = Site(
        nodes=nodes,
        uid=uid,
        host=machine.name,
        login=login,
        partitions=partitions,
        licenses=_licenses(draft),
        weights=_weights(draft),
        backfill=number.word("schedulertype", "sched/backfill", ("sched/backfill", "sched/builtin"))
        == "sched/backfill",
        depth=_depth(draft),
        requeue=number.yes("jobrequeue", default=True),
        requeue_exit=number.codes("requeueexit"),
        requeue_exit_hold=number.codes("requeueexithold"),
        hooks_dirs=_directories(draft, "ocihooksdir"),
        source=path,
    )
    return SiteConf(
        site=site,
        kill_wait=number.seconds("killwait"),
        over_time=number.minutes("overtimelimit"),
        min_job_age=number.seconds("minjobage"),
        requeue_delay=_requeue_delay(draft),
        warnings=tuple(draft.warnings),
    )


def _take(draft: _Draft, line: Line) -> None:
    first = next(iter(line.pairs))
    if "name" in line.pairs:  # gres.conf's lines may begin with NodeName
        _check_keys(draft, line, DEVICE_KEYS)
        draft.devices.append(line)
    elif first == "nodename":
        _take_nodes(draft, line)
    elif first == "partitionname":
        _take_partition(draft, line)
    else:
        for key, value in line.pairs.items():
            if key in MEANINGLESS:
                _warn(draft, line, key)
            elif key not in PLAIN_KEYS:
                raise line.error(
                    f"unknown key: {key}", f"known are {', '.join(sorted(PLAIN_KEYS))}, NodeName, …"
                )
            draft.plain[key] = (line, value)


PLAIN_KEYS: Final = frozenset(
    _words("""
        engine containermode jobcomment killwait overtimelimit minjobage jobrequeue
        schedulertype schedulerparameters licenses ocihooksdir
        prioritymaxage priorityfavorsmall priorityweightage
        priorityweightjobsize priorityweightpartition requeueexit requeueexithold authinfo
    """)
)
NODE_KEYS: Final = frozenset(
    _words("""
        nodename cpus procs realmemory gres feature features weight sockets corespersocket
        threadspercore state
    """)
)
DEVICE_KEYS: Final = frozenset(_words("name type file count nodename"))
PARTITION_KEYS: Final = frozenset(
    _words("""
        partitionname nodes default state maxtime defaulttime maxnodes minnodes prioritytier
        priorityjobfactor oversubscribe defmempernode defmempercpu
    """)
)
# Keys of nodes, partitions and devices that change nothing here.
MEANINGLESS_IN_LINES: Final = frozenset(
    _words("""
        boards socketsperboard nodeaddr nodehostname port tmpdisk hidden rootonly allowgroups
        allowaccounts allowqos disablerootjobs autodetect cores flags links
    """)
)


def _check_keys(draft: _Draft, line: Line, known: frozenset[str]) -> None:
    for key in line.pairs:
        if key in MEANINGLESS_IN_LINES:
            _warn(draft, line, key)
        elif key not in known:
            raise line.error(f"unknown key: {key}", f"known here are {', '.join(sorted(known))}")


def _warn(draft: _Draft, line: Line, key: str, why: str = "means nothing on one machine") -> None:
    draft.warnings.append(f"{line.path}:{line.number}: {key} {why}")


def _take_nodes(draft: _Draft, line: Line) -> None:
    _check_keys(draft, line, NODE_KEYS)
    names = line.pairs["nodename"]
    if names.upper() == "DEFAULT":
        draft.node_default |= {k: v for k, v in line.pairs.items() if k != "nodename"}
        return
    expanded = line.hosts(names)
    if not expanded:
        raise line.error(f"NodeName={names}: not a name")
    for name in expanded:
        if name in draft.nodes:
            raise line.error(f"node {name} is there twice")
        draft.nodes[name] = {**draft.node_default, **line.pairs}
        draft.where[name] = line


def _take_partition(draft: _Draft, line: Line) -> None:
    _check_keys(draft, line, PARTITION_KEYS)
    name = line.pairs["partitionname"]
    if name.upper() == "DEFAULT":
        draft.partition_default |= {k: v for k, v in line.pairs.items() if k != "partitionname"}
        return
    if name in draft.partitions:
        raise line.error(f"partition {name} is there twice")
    if not name or "," in name:
        raise line.error(f"PartitionName={name}: not a name")
    draft.partitions[name] = (line, {**draft.partition_default, **line.pairs})


# -- nodes -----------------------------------------------------------------------------------------


def _nodes(draft: _Draft) -> tuple[Node, ...]:
    """The nodes of the file; without any, the machine."""
    machine = draft.machine
    if not draft.nodes:
        return (_with_devices(draft, machine),)
    found: list[Node] = []
    dealt = 0
    for name, pairs in draft.nodes.items():
        line = draft.where[name]
        sockets = line.count(pairs, "sockets", 0)
        cores = line.count(pairs, "corespersocket", 1, 1)
        threads = line.count(pairs, "threadspercore", 1, 1)
        number = line.count(pairs, "cpus", 0, 1) or line.count(pairs, "procs", 0, 1)
        number = number or sockets * cores * threads or len(machine.cpus)
        if number > _MOST_CPUS:
            raise line.error(f"node {name}: {number} CPUs", f"{_MOST_CPUS} is the most")
        state = pairs.get("state", "UNKNOWN").upper()
        if state not in ("UNKNOWN", "IDLE"):
            raise line.error(
                f"State={state}: states change at run time",
                f'scontrol update NodeName={name} State={state} Reason="…"',
            )
        # CPUs are dealt out in turn; when there are no more, the first are dealt again.
        kernel = tuple(machine.cpus[(dealt + at) % len(machine.cpus)] for at in range(number))
        dealt += number
        features = pairs.get("features", pairs.get("feature", ""))
        node = replace(
            machine,
            name=name,
            cpus=tuple(range(number)),
            kernel_cpus=kernel,
            memory=line.count(pairs, "realmemory", machine.memory, 1),
            gres=_gres(line, pairs),
            features=tuple(word for word in features.split(",") if word),
            weight=line.count(pairs, "weight", 1),
            sockets=sockets or max(1, number // (cores * threads)),
            cores_per_socket=cores,
            threads_per_core=threads,
        )
        found.append(_with_devices(draft, node))
    return tuple(sorted(found, key=lambda node: node.weight))


def _gres(line: Line, pairs: Mapping[str, str]) -> tuple[Gres, ...]:
    text = pairs.get("gres", "")
    return tuple(line.meaning("Gres", lambda: needs.gres(text, "Gres")))


def _with_devices(draft: _Draft, node: Node) -> Node:
    """The node's resources with numbers, and with the files that gres.conf's lines give them."""
    gres: list[Gres] = []
    next_index: dict[str, int] = {}
    used: set[str] = set()
    for each in node.gres:
        first = next_index.get(each.name, 0)
        next_index[each.name] = first + each.count
        files = _files(draft, node.name, each, used)
        used.update(files)
        if each.indexes and not files:
            gres.append(each)  # found on the machine, with files
            continue
        indexes = tuple(range(first, first + each.count))
        gres.append(replace(each, indexes=indexes, files=files))
    return replace(node, gres=tuple(gres))


def _files(draft: _Draft, node: str, gres: Gres, used: set[str]) -> tuple[str, ...]:
    """The files of all lines about such devices, less those that others of the node have."""
    files: list[str] = []
    last: Line | None = None
    for line in draft.devices:
        pairs = line.pairs
        there = pairs.get("nodename")
        if pairs["name"] != gres.name or pairs.get("type", "") not in ("", gres.type):
            continue
        if there is not None and node not in line.hosts(there):
            continue
        own = line.hosts(pairs["file"]) if "file" in pairs else []
        number = line.count(pairs, "count", len(own), 1)
        if own and number != len(own):
            raise line.error(f"Count={number}: there are {len(own)} files", "leave Count out")
        files += [name for name in own if name not in used]
        last = line if own else last
    if last is not None and len(files) < gres.count:
        raise last.error(
            f"{len(files)} files for the {gres.count} {gres.name} of node {node}",
            "give as many files as Gres= counts",
        )
    return tuple(files[: gres.count])


# -- partitions ------------------------------------------------------------------------------------


def _partitions(draft: _Draft, nodes: tuple[Node, ...]) -> tuple[Partition, ...]:
    names = tuple(node.name for node in nodes)
    if not draft.partitions:
        return (Partition(name=PARTITION, nodes=names, default=True),)
    found = [
        _partition(name, line, pairs, names) for name, (line, pairs) in draft.partitions.items()
    ]
    defaults = [each for each in found if each.default]
    if len(defaults) > 1:
        line = draft.partitions[defaults[1].name][0]
        raise line.error(f"{defaults[0].name} is the default partition already")
    if not defaults and len(found) == 1:
        found = [replace(found[0], default=True)]
    return tuple(found)


# The keys of a partition, and what of it each one sets.
PARTITION_FIELDS: Final = {
    "nodes": "nodes", "default": "default", "state": "state", "maxtime": "max_time",
    "defaulttime": "default_time", "minnodes": "min_nodes", "maxnodes": "max_nodes",
    "defmempernode": "default_memory_per_node", "defmempercpu": "default_memory_per_cpu",
    "oversubscribe": "exclusive", "prioritytier": "tier", "priorityjobfactor": "job_factor",
}  # fmt: skip


def changed_partition(old: Partition, pairs: Mapping[str, str], site: Site) -> Partition:
    """The partition with what scontrol's KEY=VALUE pairs say of it, keys in lower case.

    Raises RequestError for a key or a value that cannot be.
    """
    line = Typed("", 0, dict(pairs))
    for key in pairs:
        if key not in PARTITION_FIELDS:
            raise line.error(
                f"Update of this parameter is not supported: {key}",
                f"what can be: {', '.join(PARTITION_FIELDS)}",
            )
    found = _partition(old.name, line, pairs, tuple(node.name for node in site.nodes))
    return replace(
        old, **{name: getattr(found, name) for name in [PARTITION_FIELDS[key] for key in pairs]}
    )


def _partition(
    name: str, line: Line, pairs: Mapping[str, str], names: tuple[str, ...]
) -> Partition:
    listed = pairs.get("nodes", "ALL")
    wanted = names if listed.upper() == "ALL" else tuple(line.hosts(listed))
    for each in wanted:
        if each not in names:
            raise line.error(f"partition {name}: there is no node {each}")
    own = tuple(each for each in names if each in wanted)  # by their weight, as all are
    state = pairs.get("state", "UP").upper()
    if state not in ("UP", "DOWN", "DRAIN", "INACTIVE"):
        raise line.error(f"State={state}: a partition is UP, DOWN, DRAIN or INACTIVE")
    shared = pairs.get("oversubscribe", "NO").upper()
    if shared not in ("NO", "EXCLUSIVE"):
        raise line.error(f"OverSubscribe={shared}: jobs share no CPU here", "NO or EXCLUSIVE")
    most = pairs.get("maxnodes", "")
    unlimited = most.upper() in ("", "UNLIMITED", "INFINITE")

    def time(key: str) -> int | None:
        text = pairs.get(key, "")
        if not text or text.upper() in ("NONE", "UNLIMITED", "INFINITE"):
            return None
        return cast("int | None", line.meaning(key, lambda: values.time_limit(text, key)))

    return Partition(
        name=name,
        nodes=own,
        default=line.yes("default", pairs.get("default", "NO")),
        state=cast(PartitionWord, state),
        max_time=time("maxtime"),
        default_time=time("defaulttime"),
        min_nodes=line.count(pairs, "minnodes", 0),
        max_nodes=None if unlimited else line.count(pairs, "maxnodes", 0, 1),
        default_memory_per_node=line.count(pairs, "defmempernode", 0),
        default_memory_per_cpu=line.count(pairs, "defmempercpu", 0),
        exclusive=shared == "EXCLUSIVE",
        tier=line.count(pairs, "prioritytier", 1),
        job_factor=line.count(pairs, "priorityjobfactor", 1),
    )


# -- the rest --------------------------------------------------------------------------------------


def _requeue_delay(draft: _Draft) -> float | None:
    """AuthInfo=cred_expire=SECONDS: how long Slurm lets a requeued job wait (slurm.conf(5))."""
    if "authinfo" not in draft.plain:
        return None
    line, text = draft.plain["authinfo"]
    for word in text.split(","):
        name, _, number = word.partition("=")
        if name.lower() == "cred_expire":
            read = partial(values.count, number, "cred_expire", least=0)
            return float(line.meaning("cred_expire", read))
    return None


class _Numbers:
    """Plain keys by their kind."""

    def __init__(self, draft: _Draft) -> None:
        self._plain = draft.plain

    def seconds(self, key: str) -> float | None:
        if key not in self._plain:
            return None
        line, text = self._plain[key]
        return float(line.meaning(key, lambda: values.count(text, key, least=0)))

    def minutes(self, key: str) -> float | None:
        if key in self._plain and self._plain[key][1].upper() == "UNLIMITED":
            return 365 * 86400.0
        found = self.seconds(key)
        return None if found is None else found * 60

    def codes(self, key: str) -> frozenset[int]:
        """Exit codes: ``3,7-9``."""
        if key not in self._plain:
            return frozenset()
        line, text = self._plain[key]
        found: set[int] = set()
        for word in text.split(","):
            low, dash, high = word.partition("-")
            bounds = (low, high if dash else low)
            if not all(map(values.is_number, bounds)) or not int(low) <= int(bounds[1]) <= 255:
                raise line.error(f"{key}={text}: exit codes as in 3,7-9", "0 to 255")
            found |= set(range(int(low), int(bounds[1]) + 1))
        return frozenset(found)

    def yes(self, key: str, *, default: bool) -> bool:
        if key not in self._plain:
            return default
        line, text = self._plain[key]
        return line.yes(key, text)

    def word(self, key: str, default: str, known: tuple[str, ...]) -> str:
        if key not in self._plain:
            return default
        line, text = self._plain[key]
        if text.lower() not in known:
            raise line.error(f"{key}={text}: one of {', '.join(known)}")
        return text.lower()


def _licenses(draft: _Draft) -> dict[str, int]:
    if "licenses" not in draft.plain:
        return {}
    line, text = draft.plain["licenses"]
    found = line.meaning("Licenses", lambda: needs.gres(text, "Licenses"))
    return {each.name: each.count for each in found}


def _directories(draft: _Draft, key: str) -> tuple[str, ...]:
    if key not in draft.plain:
        return ()
    line, text = draft.plain[key]
    found = tuple(each for each in text.split(",") if each)
    for each in found:
        if not each.startswith("/"):
            raise line.error(f"{key}={text}: {each!r} is not an absolute path")
    return found


def _depth(draft: _Draft) -> int:
    if "schedulerparameters" not in draft.plain:
        return _DEPTH
    line, text = draft.plain["schedulerparameters"]
    depth = _DEPTH
    for word in text.split(","):
        name, equals, value = word.partition("=")
        if name == "default_queue_depth" and equals:
            depth = line.count({name: value}, name, _DEPTH, 1)
        else:
            _warn(draft, line, name, "means nothing here")
    return depth


def _weights(draft: _Draft) -> Weights:
    number = _Numbers(draft)
    usual = Weights()

    def points(key: str, default: float) -> float:
        found = number.seconds(key)
        return default if found is None else found

    max_age = usual.max_age
    if "prioritymaxage" in draft.plain:
        line, text = draft.plain["prioritymaxage"]
        max_age = line.meaning("PriorityMaxAge", lambda: values.time_limit(text)) or max_age
    return Weights(
        age=points("priorityweightage", usual.age),
        max_age=float(max_age),
        size=points("priorityweightjobsize", usual.size),
        partition=points("priorityweightpartition", usual.partition),
        favour_small=number.yes("priorityfavorsmall", default=usual.favour_small),
    )
