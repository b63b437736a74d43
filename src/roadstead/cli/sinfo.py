"""sinfo: the partitions and their nodes, a line for each group of nodes that are in the same state.

A line is about one partition and some of its nodes: all that agree in the columns that tell nodes
apart (state, name, load …), or each node by itself with -N.  With -e nodes must agree in their
sizes too; without it a size that differs is shown as the least with a ``+``.  A partition of which
no node is wanted keeps a line of its own, with 0 nodes in state n/a: pollers read that 0.

The listings are named columns like those of -O, so the defaults below are in the same grammar.
"""

from __future__ import annotations

import os

from roadstead.cli import inquiry, report, table, words
from roadstead.cli.table import Column, fixed
from roadstead.core import hostlist, values
from roadstead.engines import local
from roadstead.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Final, TypeAlias

    from roadstead.cli.inquiry import Inquiry
    from roadstead.cli.table import Layout, Value
    from roadstead.cli.words import Ask, Clock, View

    Row: TypeAlias = View  # {"partition": the partition's view, "nodes": [views of nodes]}

COMMAND: Final = "sinfo"

_DEFAULT: Final = "partition:9 ,available:.5 ,time:.10 ,nodes:.6 ,statecompact:.6 ,nodelist:0"
_LONG: Final = (
    "partition:9 ,available:.5 ,time:.10 ,size:.10 ,root:.4 ,oversubscribe:.8 ,groups:.10 ,"
    "nodes:.6 ,statelong:.11 ,nodelist:0"
)
_SUMMARY: Final = "partition:9 ,available:.5 ,time:.10 ,nodeaiot:.16 ,nodelist:0"
# The first column is as wide as the longest name, at least 9.
_NODES: Final = "nodelist:{width} ,nodes:.6 ,partition:.9 ,statecompact:6"
_NODES_LONG: Final = (
    "nodelist:{width} ,nodes:.6 ,partition:.9 ,statelong:.11 ,cpus:4 ,socketcorethread:.8 ,"
    "memory:.6 ,disk:.8 ,weight:.6 ,features:.8 ,reason:20"
)

_LAYOUTS: Final = ("long", "Node", "summarize", "list-reasons")
_REASONS: Final = "reason:20 ,user:9 ,timestamp:19 ,nodelist:0"
_REASONS_LONG: Final = "reason:20 ,userlong:12 ,timestamp:19 ,statecompact:6 ,nodelist:0"

# States of nodes and their short forms, those that Slurm lists first in front.
STATES: Final[dict[str, str]] = {
    "MIXED": "mix",
    "ALLOCATED": "alloc",
    "COMPLETING": "comp",
    "IDLE": "idle",
    "DOWN": "down",
    "DRAINED": "drain",
    "DRAINING": "drng",
    "UNKNOWN": "unk",
}
_BUSY: Final = ("ALLOCATED", "MIXED", "COMPLETING")
_UP: Final = (*_BUSY, "IDLE")


def _partition(name: str) -> Value:
    return lambda row, clock: str(row["partition"][name])


def _starred(row: Row, clock: Clock) -> str:
    partition = row["partition"]
    return f"{partition['name']}{'*' if partition['default'] else ''}"


def _duration(name: str, missing: str) -> Value:
    def value(row: Row, clock: Clock) -> str:
        seconds = row["partition"][name]
        return missing if seconds is None else values.format_time_short(seconds)

    return value


def _word(node: View) -> str:
    """sinfo's word for a state that scontrol shows in two: IDLE+DRAIN is drained, MIXED+DRAIN is
    draining."""
    state, plus, _ = str(node["state"]).partition("+")
    if not plus:
        return state
    return "DRAINED" if state in ("IDLE", "DOWN") else "DRAINING"


def _is_in(node: View, states: set[str]) -> bool:
    """Whether a node is in one of these states; one that is drained is idle as well."""
    return not states.isdisjoint((_word(node), str(node["state"]).partition("+")[0]))


def _state(row: Row, clock: Clock) -> str:
    return _word(row["nodes"][0]).lower() if row["nodes"] else "n/a"


def _short_state(row: Row, clock: Clock) -> str:
    state = _state(row, clock)
    return STATES.get(state.upper(), state)


def _names(row: Row, clock: Clock) -> str:
    return hostlist.fold(sorted([node["name"] for node in row["nodes"]], key=words.natural))


def _common(name: str) -> Value:
    """What the nodes have in common, or the first one's."""
    return lambda row, clock: str(row["nodes"][0][name]) if row["nodes"] else "n/a"


def _common_or_null(name: str) -> Value:
    return lambda row, clock: words.or_null(row["nodes"][0][name]) if row["nodes"] else "n/a"


def _reason(row: Row, clock: Clock) -> str:
    return (row["nodes"][0]["reason"] if row["nodes"] else "") or "none"


def _who(row: Row, clock: Clock) -> str:
    """Who drained the nodes or took them down."""
    return (row["nodes"][0]["reason_user"] if row["nodes"] else "") or "Unknown"


def _who_and_number(row: Row, clock: Clock) -> str:
    node = row["nodes"][0] if row["nodes"] else {"reason_user": ""}
    return f"{node['reason_user']}({node['reason_uid']})" if node["reason_user"] else "Unknown"


def _complete_state(row: Row, clock: Clock) -> str:
    """Both halves of a state, in Slurm's words for them: allocated+drain."""
    if not row["nodes"]:
        return "n/a"
    state, plus, flag = str(row["nodes"][0]["state"]).partition("+")
    return f"{'ALLOCATED' if plus and state == 'MIXED' else state}{plus}{flag}".lower()


def _when(row: Row, clock: Clock) -> str:
    return clock.moment(row["nodes"][0]["reason_time"] if row["nodes"] else None, "Unknown")


def _job_size(row: Row, clock: Clock) -> str:
    least, most = max(1, row["partition"]["min_nodes"]), row["partition"]["max_nodes"]
    return str(least) if least == most else f"{least}-{'infinite' if most is None else most}"


def _size(name: str) -> Value:
    """A number of each node: theirs, or the least and a plus."""

    def value(row: Row, clock: Clock) -> str:
        found = {node[name] for node in row["nodes"]} or {0}
        return f"{min(found)}+" if len(found) > 1 else str(min(found))

    return value


def _load(row: Row, clock: Clock) -> str:
    return f"{row['nodes'][0]['load']:.2f}" if row["nodes"] else "0.00"


def _free(row: Row, clock: Clock) -> str:
    free = row["nodes"][0]["memory_free"] if row["nodes"] else None
    return "N/A" if free is None else str(free)


def _counts(row: Row, weigh: Callable[[View], tuple[int, int]]) -> tuple[int, int, int, int]:
    """Allocated, idle, other and total, where ``weigh`` gives what a node has, and has in use."""
    allocated = idle = other = 0
    for node in row["nodes"]:
        total, used = weigh(node)
        if _word(node) in _UP:
            allocated, idle = allocated + used, idle + total - used
        elif _word(node) == "DRAINING":  # what is free there is free for nobody
            allocated, other = allocated + used, other + total - used
        else:
            other += total
    return allocated, idle, other, allocated + idle + other


def _nodes_aiot(row: Row, clock: Clock) -> str:
    counts = _counts(row, lambda node: (1, int(_word(node) in (*_BUSY, "DRAINING"))))
    return "/".join(map(str, counts))


def _nodes_ai(row: Row, clock: Clock) -> str:
    return "/".join(_nodes_aiot(row, clock).split("/")[:2])


def _cpus_aiot(row: Row, clock: Clock) -> str:
    return "/".join(map(str, _counts(row, lambda node: (node["cpus"], node["cpus_alloc"]))))


def _topology(row: Row, clock: Clock) -> str:
    return ":".join(_size(name)(row, clock) for name in ("sockets", "cores", "threads"))


# Columns that tell nodes apart, and those that do with --exact.
_APART: Final = frozenset(
    (
        *("statecompact", "statelong", "statecomplete", "nodehost", "nodeaddr", "cpusload"),
        *("freemem", "features", "features_act", "gres", "gresused", "reason", "user"),
        *("userlong", "timestamp"),
    )
)
_APART_EXACT: Final = _APART.union(
    ("cpus", "memory", "sockets", "cores", "threads", "socketcorethread")
)

# fmt: off
COLUMNS: tuple[Column, ...] = (
    Column("P", "partition", "PARTITION", _starred),
    Column("R", "partitionname", "PARTITION", _partition("name")),
    Column("a", "available", "AVAIL", lambda row, clock: str(row["partition"]["state"]).lower()),
    Column("l", "time", "TIMELIMIT", _duration("max_time", "infinite")),
    Column("L", "defaulttime", "DEFAULTTIME", _duration("default_time", "n/a")),
    Column("D", "nodes", "NODES", lambda row, clock: str(len(row["nodes"]))),
    Column("t", "statecompact", "STATE", _short_state),
    Column("T", "statelong", "STATE", _state),
    Column("", "statecomplete", "STATECOMPLETE", _complete_state),
    Column("N", "nodelist", "NODELIST", _names),
    Column("n", "nodehost", "HOSTNAMES", _common("name")),
    Column("o", "nodeaddr", "NODE_ADDR", _common("name")),
    Column("A", "nodeai", "NODES(A/I)", _nodes_ai),
    Column("F", "nodeaiot", "NODES(A/I/O/T)", _nodes_aiot),
    Column("C", "cpusstate", "CPUS(A/I/O/T)", _cpus_aiot),
    Column("c", "cpus", "CPUS", _size("cpus")),
    Column("m", "memory", "MEMORY", _size("memory")),
    Column("", "allocmem", "ALLOCMEM", _size("memory_alloc")),
    Column("e", "freemem", "FREE_MEM", _free),
    Column("O", "cpusload", "CPU_LOAD", _load),
    Column("X", "sockets", "SOCKETS", _size("sockets")),
    Column("Y", "cores", "CORES", _size("cores")),
    Column("Z", "threads", "THREADS", _size("threads")),
    Column("z", "socketcorethread", "S:C:T", _topology),
    Column("v", "version", "VERSION", _common("version")),
    Column("d", "disk", "TMP_DISK", fixed("0")),
    Column("w", "weight", "WEIGHT", _size("weight")),
    Column("f", "features", "AVAIL_FEATURES", _common_or_null("features")),
    Column("b", "features_act", "ACTIVE_FEATURES", _common_or_null("features")),
    Column("G", "gres", "GRES", _common_or_null("gres")),
    Column("", "gresused", "GRES_USED", _common_or_null("gres_used")),
    Column("g", "groups", "GROUPS", fixed("all")),
    Column("h", "oversubscribe share", "OVERSUBSCRIBE", _partition("oversubscribe")),
    Column("s", "size", "JOB_SIZE", _job_size),
    Column("r", "root", "ROOT", fixed("no")),
    Column("S", "allocnodes", "ALLOCNODES", fixed("all")),
    Column("B", "maxcpuspernode", "MAX_CPUS_PER_NODE", fixed("UNLIMITED")),
    Column("I", "priorityjobfactor", "PRIO_JOB_FACTOR", _partition("job_factor")),
    Column("p", "prioritytier", "PRIO_TIER", _partition("tier")),
    Column("M", "preemptmode", "PREEMPT_MODE", fixed("OFF")),
    Column("E", "reason", "REASON", _reason),
    Column("u", "user", "USER", _who),
    Column("U", "userlong", "USER", _who_and_number),
    Column("H", "timestamp", "TIMESTAMP", _when),
    Column("V", "cluster", "CLUSTER", fixed("N/A")),
    Column("", "comment", "COMMENT", fixed(words.NULL)),
    Column("", "extra", "EXTRA", fixed(words.NULL)),
    Column("", "port", "PORT", fixed("0")),
)
# fmt: on


def main(
    argv: list[str] | None = None,
    ask: Ask = local.ask,
    *,
    environ: Mapping[str, str] = os.environ,
    now: float | None = None,
) -> int:
    """Run sinfo with ``argv`` (without the program's name); its exit code."""
    return inquiry.run(COMMAND, argv, _answer, ask, environ, now)


def _answer(inquiry: Inquiry) -> int:
    inquiry.no_operands()
    asked, clock = inquiry.asked, inquiry.clock
    if "reservation" in asked:
        report.write_out("No reservations in the system\n")
        return 0
    wanted = _wanted_states(asked.get("states"))
    nodes: list[View] = inquiry.query("nodes", ended=True)
    partitions: list[View] = inquiry.query("partitions", ended=True)
    layout = _layout(inquiry, max((len(node["name"]) for node in nodes), default=0))
    nodes = [node for node in nodes if all(_is_in(node, states) for states in wanted)]
    if "nodes" in asked:
        names = set(hostlist.expand(asked["nodes"]))
        nodes = [node for node in nodes if node["name"] in names]
    if "dead" in asked:
        nodes = []  # all nodes are this machine, which is there to answer
    shown = _wanted_partitions(partitions, asked)
    if "json" in asked or "yaml" in asked:
        return _document(inquiry, nodes, shown)
    if "list-reasons" in asked:
        members = {name for each in shown for name in hostlist.expand(each["nodes"])}
        nodes = [node for node in nodes if node["reason"] and node["name"] in members]
        shown = [_everywhere(nodes)] if nodes else []
    rows: list[Row] = [
        {"partition": partition, "nodes": group}
        for partition in (shown if "Node" in asked else _told_apart(shown, layout, clock))
        for group in _groups(partition, nodes, asked, layout, clock)
    ]
    if "sort" in asked:
        _sort(rows, asked["sort"], clock)
    inquiry.write_table(layout, rows)
    return 0


def _document(inquiry: Inquiry, nodes: list[View], partitions: list[View]) -> int:
    """--json and --yaml: the nodes, each with its partitions."""
    from roadstead.cli import openapi

    members = [(each["name"], set(hostlist.expand(each["nodes"]))) for each in partitions]
    found = []
    for node in nodes:
        own = [name for name, names in members if node["name"] in names]
        if own:
            found.append(openapi.node(node, own, inquiry.clock))
    told = openapi.document(openapi.GENERAL, "nodes", found)
    report.write_out(openapi.text(told, yaml="yaml" in inquiry))
    return 0


def _sort(rows: list[Row], fields: str, clock: Clock) -> None:
    """Sort by the letters of --sort, the first one strongest; ``-`` before one turns it round, and
    ``#`` leaves partitions and nodes in the order in which they were configured."""
    by_letter = {column.letter: column for column in COLUMNS if column.letter}
    keys: list[tuple[Column, bool]] = []
    sign, configured = "", False
    for char in fields:
        if char in "+-":
            sign = char
        elif char == "#":
            configured = True
        elif char in by_letter:
            if not configured:
                keys.append((by_letter[char], sign == "-"))
            sign, configured = "", False
        elif char not in ", ":
            raise UsageError(f"Invalid sort specification: {fields}")
    for column, turned in reversed(keys):
        rows.sort(key=_order(column, clock), reverse=turned)


def _order(column: Column, clock: Clock) -> Callable[[Row], Any]:
    if column.letter in ("t", "T"):
        return lambda row: _rank(row["nodes"][0])[0] if row["nodes"] else len(STATES) + 1
    if column.letter in ("N", "n", "o"):
        return lambda row: words.natural(row["nodes"][0]["name"]) if row["nodes"] else ("", 0)
    return lambda row: _numbers_apart(column.value(row, clock))


def _numbers_apart(text: str) -> tuple[float, str]:
    """What puts 9 before 10, and text after both."""
    digits = text.rstrip("+")
    return (int(digits), "") if digits.isascii() and digits.isdigit() else (float("inf"), text)


def _layout(inquiry: Inquiry, longest: int) -> Layout:
    asked, given = inquiry.asked, inquiry.formats()
    # SINFO_FORMAT is for the plain listing; it gives way to -l, -N and -s.
    plain = given or not any(name in asked for name in _LAYOUTS)
    if plain and "Format" in asked:
        layout, unknown = table.by_name(asked["Format"], COLUMNS)
    elif plain and "format" in asked:
        layout, unknown = table.by_letter(asked["format"], COLUMNS)
    else:
        return table.by_name(_standard(asked, longest), COLUMNS)[0]
    kind = "job" if "Format" in asked else "node"  # sic: sinfo -O speaks of jobs
    for name in unknown:
        report.warn(COMMAND, f"Invalid {kind} format specification: {name}")
    return layout


def _standard(asked: dict[str, str], longest: int) -> str:
    if "list-reasons" in asked:
        return _REASONS_LONG if "long" in asked else _REASONS
    if "summarize" in asked:
        return _SUMMARY
    if "Node" in asked:
        return (_NODES_LONG if "long" in asked else _NODES).format(width=max(longest, 9))
    return _LONG if "long" in asked else _DEFAULT


def _wanted_states(text: str | None) -> list[set[str]]:
    """Sets of states, all of which a node's state must be in."""
    if text is None or text.lower() == "all":
        return []
    if "&" in text:
        return [_states_like(part) for part in text.split("&")]
    return [{state for part in text.split(",") if part for state in _states_like(part)}]


def _states_like(text: str) -> set[str]:
    """The states that ``text`` begins: alloc, mix, drain."""
    upper = text.upper()
    found = {state for state, short in STATES.items() if state.startswith(upper) or short == text}
    if len(text) < 3 or not found:
        raise UsageError(
            f'Bad state string: "{text}"', hint=f"valid states: {','.join(STATES).lower()}"
        )
    return found


def _everywhere(nodes: list[View]) -> View:
    """All nodes in one, as reasons are told without regard to partitions."""
    return {"name": "", "default": False, "nodes": hostlist.fold([n["name"] for n in nodes])}


def _wanted_partitions(partitions: list[View], asked: dict[str, str]) -> list[View]:
    if "partition" not in asked:
        return partitions
    names = asked["partition"].split(",")
    return [partition for partition in partitions if partition["name"] in names]


# Columns about nodes; all others tell partitions apart.
_OF_NODES: Final = _APART_EXACT.union(
    ("nodes", "nodelist", "nodeai", "nodeaiot", "cpusstate", "allocmem", "version", "disk"),
    ("weight", "cluster", "comment", "extra", "port"),
)


def _told_apart(partitions: list[View], layout: Layout, clock: Clock) -> list[View]:
    """The partitions; those that agree in all columns that are shown of them are one."""
    shown = [field.column for field in layout.fields if field.column]
    telling = [column for column in shown if _OF_NODES.isdisjoint(column.names)]
    found: dict[tuple[str, ...], View] = {}
    for each in partitions:
        alike = tuple(column.value({"partition": each, "nodes": []}, clock) for column in telling)
        if alike in found:
            nodes = dict.fromkeys(hostlist.expand(f"{found[alike]['nodes']},{each['nodes']}"))
            each = found[alike] | {"nodes": hostlist.fold(list(nodes))}
        found[alike] = each
    return list(found.values())


def _groups(
    partition: View, nodes: list[View], asked: dict[str, str], layout: Layout, clock: Clock
) -> list[list[View]]:
    """The nodes of a partition as they share lines."""
    members = set(hostlist.expand(partition["nodes"]))
    mine = [node for node in nodes if node["name"] in members]
    if "Node" in asked and "summarize" not in asked:
        return [[node] for node in sorted(mine, key=lambda node: words.natural(node["name"]))]
    apart = _APART_EXACT if "exact" in asked else _APART
    shown = [field.column for field in layout.fields if field.column]
    telling = [column for column in shown if not apart.isdisjoint(column.names)]
    groups: dict[tuple[str, ...], list[View]] = {}
    for node in sorted(mine, key=_rank):
        row = {"partition": partition, "nodes": [node]}
        alike = tuple(column.value(row, clock) for column in telling)
        groups.setdefault(alike, []).append(node)
    return list(groups.values()) or [[]]


def _rank(node: View) -> tuple[int, Any]:
    state = _word(node)
    return list(STATES).index(state) if state in STATES else len(STATES), words.natural(
        node["name"]
    )
