"""What a job needs of nodes, partitions and licences: options as typed become numbers.

What the site can never satisfy is refused here, in Slurm's words, so that no job waits for ever;
what it can satisfy later waits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from roadstead.core import hostlist, values
from roadstead.core.model import Gres, JobKind, JobSpec, Topology, WarnSignal
from roadstead.core.placement import Free, fit, in_partition, orders, subtract, units_free
from roadstead.core.site import Partition, Site
from roadstead.errors import RequestError, UsageError

Options = Mapping[str, str]

REFUSED: Final[dict[JobKind, str]] = {
    "run": "Unable to allocate resources",
    "batch": "Batch job submission failed",
    "alloc": "Job submit/allocate failed",
}
_MOST_TASKS: Final = 512  # slurm.conf(5), MaxTasksPerNode; without --overcommit CPUs are the limit
_TOP: Final = float(1 << 40)
_LAST_MOMENT: Final = 253402300799  # the year 9999: localtime(3) has no trouble
_MOMENTS: Final = "write now+1hour, 16:00, 2030-01-31 or 2030-01-31T16:00"
_NICE: Final = 100  # sbatch(1): --nice without a value
_MOST_NICE: Final = 2147483645
_SIGNAL_SECONDS: Final = 60  # sbatch(1): --signal without a time
_UNITS: Final = {"K": 1 << 10, "M": 1 << 20}
_AVAILABLE: Final = "Requested node configuration is not available"


def of_job(kind: JobKind, options: Options, site: Site) -> dict[str, Any]:
    """The fields of a JobSpec that say what it needs."""
    per_node = _per_node(options)
    partitions = _partitions(kind, options, site)
    nodelist = _hosts(kind, options.get("nodelist", ""), site)
    least, most = _nodes(kind, options, max(1, partitions[0].min_nodes, len(nodelist)))
    ntasks = tasks(options, least)
    if "ntasks" in options:
        # srun(1), --nodes: never more nodes than tasks.
        least, most = min(least, ntasks), min(most, ntasks)
    if "overcommit" in options and ntasks > _MOST_TASKS * least:
        raise RequestError(f"--ntasks={ntasks}: a node runs at most {_MOST_TASKS} tasks")
    if {"gpus", "gpus-per-task"} & options.keys():
        most = least  # what they come to on each node holds for so many nodes
    memory, per_cpu = _memory(options, partitions[0], site)
    return {
        "ntasks": ntasks,
        "cpus_per_task": cpus_per_task(options),
        "ntasks_per_node": per_node or 0,
        "nodes": least,
        "max_nodes": most,
        "memory": memory,
        "memory_per_cpu": per_cpu,
        "gres": job_gres(options, ntasks, least),
        "licenses": _licenses(kind, options, site),
        "features": _features(options),
        "nodelist": nodelist,
        "exclude": _hosts(kind, options.get("exclude", ""), site),
        **_times(kind, options, partitions),
        "least_cpus": values.count(options["mincpus"], "--mincpus") if "mincpus" in options else 0,
        "topology": _topology(kind, options, site),
        "warning": _warning(options),
        "partition": ",".join(each.name for each in partitions),
        "nice": nice(options["nice"]) if "nice" in options else 0,
        "priority": priority(options.get("priority", "")),
        "requeue": _requeue(options, site),
        "hold": "hold" in options or options.get("priority") == "0",
        "exclusive": "exclusive" in options,
        "overcommit": "overcommit" in options,
    }


def check(kind: JobKind, spec: JobSpec, site: Site) -> None:
    """Raise RequestError if not even an empty site could run the job."""
    for name in spec.partition.split(","):
        partition = site.partition(name)
        if partition is not None and _fits(spec, partition, site):
            return
    raise _never(kind, spec, site)


def check_together(kind: JobKind, specs: Sequence[JobSpec], site: Site) -> None:
    """Raise RequestError if not even an empty site could run the components of a job at a time."""
    for name, there in site.licenses.items():
        wanted = [each.count for spec in specs for each in spec.licenses if each.name == name]
        if sum(wanted) > there:
            raise RequestError(
                f"{REFUSED[kind]}: Invalid license specification",
                hint=f"the components want {sum(wanted)} of {name}, there are {there}",
            )
    for order in orders(specs):
        frees = {node.name: Free.all_of(node) for node in site.nodes}
        if all(_takes(specs[at], frees, site) for at in order):
            return
    raise RequestError(
        f"{REFUSED[kind]}: {_AVAILABLE}",
        hint="its components fit one by one and not side by side",
    )


def _takes(spec: JobSpec, frees: dict[str, Free], site: Site) -> bool:
    """Take what the job needs of what is left; whether that is there."""
    for name in spec.partition.split(","):
        partition = site.partition(name)
        if partition is None:
            continue
        wanted = in_partition(spec, partition)
        left = [free for node, free in frees.items() if node in partition.nodes]
        slots = fit(wanted, left)
        if slots is not None:
            subtract(left, wanted, slots)
            return True
    return False


def _fits(spec: JobSpec, partition: Partition, site: Site) -> bool:
    wanted = in_partition(spec, partition)
    frees = [Free.all_of(node) for node in site.nodes if node.name in partition.nodes]
    return fit(wanted, frees) is not None


def _never(kind: JobKind, spec: JobSpec, site: Site) -> RequestError:
    """Why, for people: what is asked for that no node, or not enough nodes, have."""
    refused = REFUSED[kind]
    partition = site.partition(spec.partition.partition(",")[0])
    assert partition is not None
    nodes = [node for node in site.nodes if node.name in partition.nodes]
    count = min(len(nodes), partition.max_nodes or len(nodes))
    if spec.nodes > count:
        there = "1 node" if count == 1 else f"{count} nodes"
        return RequestError(
            f"{refused}: Node count specification invalid",
            hint=f"partition {partition.name} gives a job {there} at most",
        )
    if partition.min_nodes > min(spec.ntasks, spec.max_nodes or spec.ntasks):
        return RequestError(
            f"{refused}: Node count specification invalid",
            hint=f"partition {partition.name} gives a job {partition.min_nodes} nodes at least",
        )
    wrong = [name for name in spec.nodelist if name not in partition.nodes]
    if wrong:
        return RequestError(
            f"{refused}: Requested node configuration is not available",
            hint=f"{wrong[0]} is not in partition {partition.name}",
        )
    for wanted in spec.gres:
        if max((units_free(Free.all_of(node).gres, wanted) for node in nodes), default=0) == 0:
            return RequestError(
                f"{refused}: Invalid generic resource (gres) specification",
                hint=f"no node of partition {partition.name} has {_named(wanted)}",
            )
    if not any(set(spec.features) <= set(node.features) for node in nodes):
        return RequestError(
            f"{refused}: Invalid feature specification",
            hint=f"no node of partition {partition.name} has {'&'.join(spec.features)}",
        )
    widest = max(nodes, key=lambda node: len(node.cpus))
    roomy = max(nodes, key=lambda node: node.memory)
    memory = spec.memory or spec.memory_per_cpu * spec.cpus_per_task
    if memory > roomy.memory:
        return RequestError(
            f"{refused}: {_AVAILABLE}",
            hint=f"Memory specification can not be satisfied: {roomy.name} has {roomy.memory} MiB",
        )
    relaxed = replace(
        spec,
        memory=0,
        memory_per_cpu=0,
        gres=(),
        features=(),
        nodelist=(),
        exclude=(),
        least_cpus=0,
        topology=Topology(),
    )
    if not _fits(relaxed, partition, site):
        return RequestError(
            f"{refused}: More processors requested than permitted",
            hint=f"{widest.name} has {len(widest.cpus)} CPUs; "
            "--overcommit puts several tasks on one",
        )
    sized = replace(relaxed, memory=spec.memory, memory_per_cpu=spec.memory_per_cpu)
    if not _fits(sized, partition, site):
        return RequestError(
            f"{refused}: {_AVAILABLE}",
            hint=f"Memory specification can not be satisfied: {roomy.name} has {roomy.memory} MiB",
        )
    if spec.least_cpus > len(widest.cpus):
        return RequestError(
            f"{refused}: {_AVAILABLE}",
            hint=f"CPU count per node can not be satisfied: {widest.name} has {len(widest.cpus)}",
        )
    return RequestError(f"{refused}: {_AVAILABLE}", hint="scontrol show node tells what there is")


def _topology(kind: JobKind, options: Options, site: Site) -> Topology:
    """--sockets-per-node and the like, or all of them as --extra-node-info=S[:C[:T]] (sbatch(1)).

    A CPU is given out whole, so tasks share a core only where it has several threads.
    """
    names = ("sockets-per-node", "cores-per-socket", "threads-per-core")
    least = [options.get(name, "") for name in names]
    if "extra-node-info" in options:
        given = options["extra-node-info"].split(":")
        if len(given) > len(names):
            raise UsageError("Invalid --extra-node-info specification", hint="-B 2:8:1")
        least = [*given, *least[len(given) :]]
    numbers = [
        0 if text in ("", "*") else values.count(text.partition("-")[0], f"--{name}")
        for name, text in zip(names, least, strict=True)
    ]
    threads = max((node.threads_per_core for node in site.nodes), default=1)
    for name in ("ntasks-per-core", "threads-per-core"):
        if name in options and values.count(options[name], f"--{name}") < threads:
            raise RequestError(
                f"{REFUSED[kind]}: {_AVAILABLE}",
                hint=f"--{name}: cores have {threads} threads here, each of which is a CPU of its "
                f"own; give each task a core by -c {threads}",
            )
    tasks = options.get("ntasks-per-socket")
    return Topology(
        sockets=numbers[0],
        cores=numbers[1],
        threads=numbers[2],
        tasks=0 if tasks is None else values.count(tasks, "--ntasks-per-socket"),
    )


def _named(gres: Gres) -> str:
    return f"{gres.name}:{gres.type}" if gres.type else gres.name


# -- numbers ---------------------------------------------------------------------------------------


def tasks(options: Options, nodes: int) -> int:
    """How many tasks: --ntasks, else so many on each of the nodes, else one on each."""
    if "ntasks" in options:
        return values.count(options["ntasks"], "--ntasks")
    return (_per_node(options) or 1) * max(1, nodes)


def cpus_per_task(options: Options) -> int:
    return values.count(options.get("cpus-per-task", "1"), "--cpus-per-task")


def _per_node(options: Options) -> int | None:
    value = options.get("ntasks-per-node")
    return None if value is None else values.count(value, "--ntasks-per-node")


def _nodes(kind: JobKind, options: Options, usual: int) -> tuple[int, int]:
    """The least and the most nodes; 0 for "as many as it takes"."""
    if "nodes" not in options:
        return usual, 0
    least, most = values.node_count(options["nodes"])
    if not least:
        raise RequestError(
            f"{REFUSED[kind]}: Node count specification invalid", hint="a job has a node at least"
        )
    return least, most


def _memory(options: Options, partition: Partition, site: Site) -> tuple[int, int]:
    """MiB a node and MiB a CPU, of which one is 0."""
    if "mem" in options and "mem-per-cpu" in options:
        raise RequestError("--mem and --mem-per-cpu are mutually exclusive", hint="leave one out")
    if "mem-per-cpu" in options:
        return 0, values.memory(options["mem-per-cpu"], "--mem-per-cpu")
    if "mem" in options:
        # srun(1): 0 is all of the node's.
        least = min((node.memory for node in site.nodes if node.name in partition.nodes), default=0)
        return values.memory(options["mem"]) or least, 0
    return partition.default_memory_per_node, partition.default_memory_per_cpu


def _requeue(options: Options, site: Site) -> bool:
    if "no-requeue" in options:
        return False
    return True if "requeue" in options else site.requeue


def priority(text: str) -> float | None:
    """--priority: the job's points; 0 holds it, TOP is before all others (sbatch(1))."""
    if text in ("", "0"):
        return None
    return _TOP if text.upper() == "TOP" else float(values.count(text, "--priority"))


def nice(text: str) -> int:
    """--nice: how many points less; a negative number is more."""
    if not text:
        return _NICE
    digits = text.removeprefix("-")
    if not values.is_number(digits) or int(digits) > _MOST_NICE:
        raise UsageError(
            "Invalid --nice specification", hint=f"a number between -{_MOST_NICE} and {_MOST_NICE}"
        )
    return int(text)


# -- partitions and time ---------------------------------------------------------------------------


def _partitions(kind: JobKind, options: Options, site: Site) -> list[Partition]:
    refused = REFUSED[kind]
    known = ", ".join(each.name for each in site.partitions)
    if "partition" not in options:
        if site.default_partition is None:
            raise RequestError(
                f"{refused}: No partition specified or system default partition",
                hint=f"name one with --partition: {known}",
            )
        return [site.default_partition]
    found = []
    for name in options["partition"].split(","):
        partition = site.partition(name)
        if partition is None:
            raise RequestError(
                f"{refused}: invalid partition specified: {name}",
                hint=f"there is {known}",
            )
        if not partition.takes_jobs:
            raise RequestError(
                f"{refused}: Required partition not available (inactive or drain)",
                hint=f"partition {name} is {partition.state}",
            )
        found.append(partition)
    return found


def _times(kind: JobKind, options: Options, partitions: list[Partition]) -> dict[str, Any]:
    """--time, --time-min, --begin and --deadline, which limit each other."""
    limit = _time(kind, options, partitions)
    begin, deadline = moment(options, "begin"), moment(options, "deadline")
    least = values.time_limit(options["time-min"], "--time-min") if "time-min" in options else None
    if least is not None and limit is not None and least > limit:
        raise RequestError(
            f"{REFUSED[kind]}: Invalid time-min specification (exceeds job's time or other limits)",
            hint=f"--time is {values.format_time(limit)}",
        )
    if begin is not None and deadline is not None and begin >= deadline:
        raise RequestError("Incompatible begin and deadline time specification")
    return {"time_limit": limit, "least_time": least, "begin": begin, "deadline": deadline}


def moment(options: Options, name: str) -> float | None:
    """A time that a command has read already (cli/moments.py): ``uts`` and seconds."""
    text = options.get(name, "")
    digits = text.removeprefix("uts")
    if not text or text in ("0", "now"):
        return None
    if not text.startswith("uts") or not values.is_number(digits):
        raise UsageError(f"Invalid --{name} specification", hint=_MOMENTS)
    return float(min(int(digits), _LAST_MOMENT))


def _time(kind: JobKind, options: Options, partitions: list[Partition]) -> int | None:
    first = partitions[0]
    if "time" not in options:
        limits = [each.max_time for each in partitions if each.max_time is not None]
        usual = [] if first.default_time is None else [first.default_time]
        return min(limits + usual, default=None)  # it may start in any of them
    limit = values.time_limit(options["time"])
    for partition in partitions:
        most = partition.max_time
        if most is not None and (limit is None or limit > most):
            raise RequestError(
                f"{REFUSED[kind]}: Requested time limit is invalid (missing or exceeds some limit)",
                hint=f"partition {partition.name} allows {values.format_time(most)}",
            )
    return limit


def _warning(options: Options) -> WarnSignal | None:
    """--signal=[B:]SIGNAL[@SECONDS]."""
    if "signal" not in options:
        return None
    flags, colon, rest = options["signal"].rpartition(":")
    if colon and flags.upper() != "B":
        raise UsageError("Invalid --signal specification", hint="write [B:]SIGNAL[@SECONDS]")
    name, at, seconds = rest.partition("@")
    return WarnSignal(
        signal=values.signal_number(name),
        seconds=values.seconds(seconds, "--signal") if at else _SIGNAL_SECONDS,
        batch=bool(colon),
    )


# -- what nodes have -------------------------------------------------------------------------------


def job_gres(options: Options, ntasks: int, nodes: int) -> tuple[Gres, ...]:
    """The generic resources of each node: --gres, and the --gpus options, which are gres too."""
    found = list(gres(options.get("gres", ""), "--gres"))
    ways = int(any(each.name == "gpu" for each in found))
    for option in ("gpus-per-node", "gpus", "gpus-per-task"):
        if not options.get(option):
            continue
        ways += 1
        text = ",".join(f"gpu:{word}" for word in options[option].split(","))
        for each in gres(text, f"--{option}"):
            count = each.count * ntasks if option == "gpus-per-task" else each.count
            share, rest = divmod(count, 1 if option == "gpus-per-node" else nodes)
            if rest:
                raise RequestError(
                    f"--{option}={options[option]}: {count} do not divide by {nodes} nodes",
                    hint="say how many on each node: --gpus-per-node",
                )
            found.append(replace(each, count=share))
    if ways > 1:
        raise RequestError("GPUs are asked for twice", hint="use one of --gres and --gpus…")
    return tuple(found)


def gres(text: str, option: str) -> tuple[Gres, ...]:
    """``NAME[:TYPE][:COUNT],…``, each once; nothing for ``none``."""
    if not text or text.lower() == "none":
        return ()
    counts: dict[tuple[str, str], int] = {}
    for word in text.split(","):
        parts = word.removeprefix("gres:").removeprefix("gres/").split(":")
        number = _gres_count(parts[-1]) if len(parts) > 1 else None
        names = parts[:-1] if number is not None else parts
        if not 1 <= len(names) <= 2 or not all(names) or number == 0:
            raise UsageError(f"Invalid {option} specification", hint="write NAME[:TYPE][:COUNT],…")
        key = names[0], names[1] if len(names) == 2 else ""
        counts[key] = counts.get(key, 0) + (1 if number is None else number)
    for name, kind in counts:
        # Whether "any" is beside those of a type or among them would be a guess; Slurm refuses it.
        if kind and (name, "") in counts:
            raise UsageError(f"Invalid {option} specification", hint=f"{name}: all with a type")
    return tuple([Gres(name=n, type=kind, count=count) for (n, kind), count in counts.items()])


def _gres_count(text: str) -> int | None:
    factor = _UNITS.get(text[-1:].upper(), 1)
    digits = text[:-1] if factor > 1 else text
    return int(digits) * factor if values.is_number(digits) else None


def _licenses(kind: JobKind, options: Options, site: Site) -> tuple[Gres, ...]:
    found = gres(options.get("licenses", ""), "--licenses")
    for each in found:
        if each.type or each.count > site.licenses.get(each.name, 0):
            there = ", ".join(f"{name}:{count}" for name, count in site.licenses.items()) or "none"
            raise RequestError(
                f"{REFUSED[kind]}: Invalid license specification", hint=f"there are: {there}"
            )
    return found


def _features(options: Options) -> tuple[str, ...]:
    text = options.get("constraint", "")
    if any(char in text for char in "|[]()*"):
        raise RequestError(
            f"--constraint={text}: only & is understood between features",
            hint="write FEATURE&FEATURE",
        )
    return tuple(word for part in text.split("&") for word in part.split(",") if word)


def _hosts(kind: JobKind, text: str, site: Site) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(hostlist.expand(text))) if text else ()
    for name in names:
        if site.node(name) is None:
            raise RequestError(
                f"{REFUSED[kind]}: Invalid node name specified",
                hint=f"there is no {name}: sinfo -N lists the nodes",
            )
    return names
