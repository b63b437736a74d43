"""What options ask of nodes: the numbers they become, and Slurm's sentences where they cannot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roadstead.core import needs
from roadstead.core.model import Gres, JobKind, JobSpec, WarnSignal
from roadstead.core.placement import Free, fit
from roadstead.core.site import Node, Partition, Site
from roadstead.errors import RequestError, RoadsteadError

GPU = Gres(name="gpu", type="a", count=4, indexes=(0, 1, 2, 3))
SMALL = [Node(name=f"n{at}", cpus=(0, 1), memory=400, features=("old",)) for at in (1, 2, 3)]
BIG = Node(name="big", cpus=tuple(range(8)), memory=1000, gres=(GPU,), features=("new", "fast"))
NAMES = ("n1", "n2", "n3")
SITE = Site(
    nodes=(*SMALL, BIG),
    uid=1,
    partitions=(
        Partition(name="main", nodes=NAMES, default=True, max_time=3600, default_time=600),
        Partition(name="big", nodes=("big",), default_memory_per_cpu=50, max_time=300),
        Partition(name="all", nodes=(*NAMES, "big"), default_memory_per_node=100),
        Partition(name="few", nodes=NAMES, max_nodes=2),
        Partition(name="many", nodes=NAMES, min_nodes=2),
        Partition(name="alone", nodes=NAMES, exclusive=True),
        Partition(name="down", nodes=NAMES, state="DOWN"),
        Partition(name="drain", nodes=NAMES, state="DRAIN"),
        Partition(name="off", nodes=NAMES, state="INACTIVE"),
        Partition(name="empty", nodes=()),
    ),
    licenses={"matlab": 2},
)
BASE = JobSpec(kind="run", name="x", user="u", uid=1, gid=1, cwd="/")


def job(*, kind: JobKind = "run", site: Site = SITE, **options: str) -> JobSpec:
    named = {name.replace("_", "-"): value for name, value in options.items()}
    spec = replace(BASE, kind=kind, **needs.of_job(kind, named, site))
    needs.check(kind, spec, site)
    return spec


def gpus(count: int, kind: str = "") -> tuple[Gres, ...]:
    return (Gres(name="gpu", type=kind, count=count),)


ONE_GPU = gpus(1)
TABLE: list[tuple[dict[str, str], dict[str, Any]]] = [
    ({}, {"ntasks": 1, "nodes": 1, "max_nodes": 0, "partition": "main", "time_limit": 600}),
    # Nodes and tasks.
    ({"nodes": "2"}, {"ntasks": 2, "nodes": 2, "max_nodes": 2}),
    ({"nodes": "2-3"}, {"ntasks": 2, "nodes": 2, "max_nodes": 3}),
    ({"nodes": "2-3", "ntasks": "5"}, {"ntasks": 5, "nodes": 2, "max_nodes": 3}),
    ({"nodes": "2", "ntasks": "1"}, {"ntasks": 1, "nodes": 1, "max_nodes": 1}),
    ({"nodes": "2", "ntasks_per_node": "2"}, {"ntasks": 4, "ntasks_per_node": 2}),
    ({"ntasks": "3", "ntasks_per_node": "1"}, {"ntasks": 3, "nodes": 1, "max_nodes": 0}),
    ({"cpus_per_task": "2", "ntasks": "3"}, {"cpus_per_task": 2}),
    ({"nodelist": "n[1-2]"}, {"ntasks": 2, "nodes": 2, "nodelist": ("n1", "n2")}),
    ({"nodelist": "n[1-2]", "ntasks": "1"}, {"ntasks": 1, "nodes": 1}),
    ({"nodelist": "n2,n2", "exclude": "n[1,3]"}, {"nodelist": ("n2",), "exclude": ("n1", "n3")}),
    ({"partition": "many"}, {"ntasks": 2, "nodes": 2}),
    ({"partition": "many", "ntasks": "4"}, {"ntasks": 4, "nodes": 2}),
    ({"overcommit": "1", "ntasks": "512"}, {"ntasks": 512, "overcommit": True}),
    ({"exclusive": "", "nodes": "2"}, {"exclusive": True, "ntasks": 2}),
    # Memory.
    ({"mem": "200"}, {"memory": 200, "memory_per_cpu": 0}),
    ({"mem": "0", "partition": "all"}, {"memory": 400}),
    ({"mem": "0", "partition": "big"}, {"memory": 1000}),
    ({"mem_per_cpu": "100M"}, {"memory": 0, "memory_per_cpu": 100}),
    ({"partition": "big"}, {"memory": 0, "memory_per_cpu": 50, "time_limit": 300}),
    ({"partition": "all"}, {"memory": 100, "time_limit": None}),
    ({"partition": "all", "mem_per_cpu": "1"}, {"memory": 0, "memory_per_cpu": 1}),
    # Partitions and time.
    ({"partition": "big,main"}, {"partition": "big,main", "time_limit": 300}),
    ({"partition": "main,big"}, {"partition": "main,big", "time_limit": 300}),
    ({"partition": "down"}, {"partition": "down"}),
    ({"time": "1:00:00"}, {"time_limit": 3600}),
    ({"time": "0", "partition": "all"}, {"time_limit": None}),
    # Devices.
    ({"gres": "gpu:a:2", "partition": "big"}, {"gres": gpus(2, "a")}),
    ({"gres": "gres/gpu", "partition": "big"}, {"gres": ONE_GPU}),
    ({"gres": "gres:gpu:1", "partition": "big"}, {"gres": ONE_GPU}),
    ({"gres": "gpu:1,gpu:2", "partition": "big"}, {"gres": gpus(3)}),
    ({"gres": "none"}, {"gres": ()}),
    ({"gres": "NONE", "gpus": "1", "partition": "big"}, {"gres": ONE_GPU}),
    ({"gpus": "2", "partition": "big"}, {"gres": gpus(2), "nodes": 1, "max_nodes": 1}),
    ({"gpus": "a:2", "partition": "big"}, {"gres": gpus(2, "a")}),
    ({"gpus_per_node": "a:1,a:2", "partition": "big"}, {"gres": gpus(3, "a")}),
    ({"gpus_per_task": "2", "ntasks": "2", "partition": "big"}, {"gres": gpus(4)}),
    ({"licenses": "matlab:2"}, {"licenses": (Gres(name="matlab", count=2),)}),
    ({"constraint": "new&fast", "partition": "all"}, {"features": ("new", "fast")}),
    ({"constraint": "new,fast", "partition": "all"}, {"features": ("new", "fast")}),
    # Signals.
    ({"signal": "USR1"}, {"warning": WarnSignal(signal=10, seconds=60, batch=False)}),
    ({"signal": "B:SIGINT@5"}, {"warning": WarnSignal(signal=2, seconds=5, batch=True)}),
    ({"signal": "b:10@0"}, {"warning": WarnSignal(signal=10, seconds=0, batch=True)}),
    # Priority.
    ({"nice": ""}, {"nice": 100}),
    ({"nice": "-5"}, {"nice": -5}),
    ({"priority": "7"}, {"priority": 7.0}),
    ({"hold": "1"}, {"hold": True}),
    ({"requeue": "1"}, {"requeue": True}),
    ({"priority": "0"}, {"hold": True, "priority": None}),
    ({"priority": "TOP"}, {"priority": float(1 << 40)}),
    ({"begin": "uts100", "deadline": "uts200"}, {"begin": 100.0, "deadline": 200.0}),
    ({"time": "10", "time_min": "2"}, {"time_limit": 600, "least_time": 120}),
    ({"mincpus": "2"}, {"least_cpus": 2}),
    ({"no_requeue": "1", "requeue": "1"}, {"requeue": False}),
]


@pytest.mark.parametrize(("options", "fields"), TABLE, ids=lambda each: str(each))
def test_what_options_become(options: dict[str, str], fields: dict[str, Any]) -> None:
    spec = job(**options)
    assert {name: getattr(spec, name) for name in fields} == fields


def test_the_site_says_whether_jobs_are_requeued() -> None:
    assert job().requeue
    assert not job(site=replace(SITE, requeue=False)).requeue
    assert job(site=replace(SITE, requeue=False), requeue="1").requeue


NODES = "Node count specification invalid"
CONFIGURATION = "Requested node configuration is not available"
REFUSED = [
    ({"nodes": "4"}, NODES, "partition main gives a job 3 nodes at most"),
    ({"nodes": "0"}, NODES, "a node at least"),
    ({"nodes": "3", "partition": "few"}, NODES, "2 nodes at most"),
    ({"nodes": "2", "partition": "big"}, NODES, "1 node at most"),
    ({"nodes": "1", "partition": "many"}, NODES, "2 nodes at least"),
    ({"ntasks": "1", "partition": "many"}, NODES, "2 nodes at least"),
    ({"partition": "empty"}, NODES, "0 nodes at most"),
    ({"partition": "none"}, "invalid partition specified: none", "main, big"),
    ({"partition": "main,"}, "invalid partition specified: ", "main, big"),
    ({"partition": "drain"}, "Required partition not available", "drain is DRAIN"),
    ({"partition": "main,off"}, "Required partition not available", "off is INACTIVE"),
    ({"time": "1:00:01"}, "Requested time limit is invalid", "main allows 01:00:00"),
    ({"time": "UNLIMITED"}, "Requested time limit is invalid", "main allows"),
    ({"time": "30", "partition": "main,big"}, "Requested time limit", "big allows 00:05:00"),
    ({"gres": "fpga"}, "Invalid generic resource (gres) specification", "has fpga"),
    ({"gres": "gpu"}, "Invalid generic resource (gres) specification", "main has gpu"),
    ({"gres": "gpu:b:1", "partition": "big"}, "Invalid generic resource", "has gpu:b"),
    ({"gres": "gpu:5", "partition": "big"}, CONFIGURATION, "scontrol show node"),
    ({"constraint": "new"}, "Invalid feature specification", "main has new"),
    ({"constraint": "old&new", "partition": "all"}, "Invalid feature specification", "old&new"),
    ({"nodelist": "n9"}, "Invalid node name specified", "there is no n9"),
    ({"exclude": "n9"}, "Invalid node name specified", "there is no n9"),
    ({"nodelist": "big"}, CONFIGURATION, "big is not in partition main"),
    ({"nodelist": "n1", "exclude": "n1"}, CONFIGURATION, "scontrol show node"),
    ({"nodelist": "n[1-2]", "nodes": "1"}, CONFIGURATION, "scontrol show node"),
    ({"licenses": "matlab:3"}, "Invalid license specification", "there are: matlab:2"),
    ({"licenses": "ansys"}, "Invalid license specification", "matlab:2"),
    ({"licenses": "matlab:x:1"}, "Invalid license specification", "matlab:2"),
    ({"mem": "401"}, CONFIGURATION, "Memory specification can not be satisfied: n1 has 400"),
    ({"mem_per_cpu": "300", "cpus_per_task": "2"}, CONFIGURATION, "Memory specification"),
    ({"mem_per_cpu": "300", "exclusive": ""}, CONFIGURATION, "Memory specification"),
    ({"ntasks": "7"}, "More processors requested than permitted", "n1 has 2 CPUs"),
    ({"ntasks": "5", "partition": "few"}, "More processors requested", "n1 has 2 CPUs"),
    ({"cpus_per_task": "3"}, "More processors requested than permitted", "--overcommit"),
    ({"nodes": "1", "ntasks_per_node": "3"}, "More processors requested", "--overcommit"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "why", "hint"), REFUSED, ids=lambda each: str(each))
def test_what_no_empty_site_could_run(options: dict[str, str], why: str, hint: str) -> None:
    for kind, words in needs.REFUSED.items():
        with pytest.raises(RequestError) as caught:
            job(kind=kind, **options)
        assert str(caught.value).startswith(f"{words}: {why}")
        assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("options", "sentence", "kind"),
    [
        ({"ntasks": "0"}, 'Invalid numeric value "0" for --ntasks.', "request"),
        ({"ntasks_per_node": "x"}, 'Invalid numeric value "x" for --ntasks-per-node.', "request"),
        ({"cpus_per_task": ""}, 'Invalid numeric value "" for --cpus-per-task.', "request"),
        ({"nodes": "x"}, '"x" is not a valid node count', "usage"),
        ({"nodes": "3-2"}, "Maximum node count 2 is less than", "usage"),
        ({"overcommit": "1", "ntasks": "513"}, "--ntasks=513: a node runs at most", "request"),
        ({"mem": "1", "mem_per_cpu": "1"}, "--mem and --mem-per-cpu are mutually", "request"),
        ({"mem": "x"}, "Invalid --mem specification", "usage"),
        ({"gres": "gpu:0"}, "Invalid --gres specification", "usage"),
        ({"gres": "gpu:"}, "Invalid --gres specification", "usage"),
        ({"gres": ","}, "Invalid --gres specification", "usage"),
        ({"gres": "gpu:a:b:1"}, "Invalid --gres specification", "usage"),
        ({"gres": "gpu:1,gpu:a:1"}, "Invalid --gres specification", "usage"),
        ({"gpus": "1", "gres": "gpu:1"}, "GPUs are asked for twice", "request"),
        ({"gpus": "1", "gpus_per_node": "1"}, "GPUs are asked for twice", "request"),
        ({"gpus": "1", "nodes": "2"}, "--gpus=1: 1 do not divide by 2 nodes", "request"),
        ({"gpus_per_task": "1", "ntasks": "3", "nodes": "2"}, "--gpus-per-task=1: 3", "request"),
        ({"constraint": "a|b"}, "--constraint=a|b: only & is understood", "request"),
        ({"nodelist": "n[1-"}, "Invalid hostlist: n[1-", "request"),
        ({"signal": "NOPE"}, "Unknown job signal: NOPE", "request"),
        ({"signal": "R:USR1"}, "Invalid --signal specification", "usage"),
        ({"signal": "USR1@x"}, 'Invalid numeric value "x" for --signal.', "request"),
        ({"nice": "x"}, "Invalid --nice specification", "usage"),
        ({"nice": "2147483646"}, "Invalid --nice specification", "usage"),
        ({"priority": "-1"}, 'Invalid numeric value "-1" for --priority.', "request"),
        ({"time": "x"}, "Invalid --time specification", "usage"),
    ],
    ids=str,
)
def test_what_cannot_be_understood(options: dict[str, str], sentence: str, kind: str) -> None:
    with pytest.raises(RoadsteadError) as caught:
        job(**options)
    assert str(caught.value).startswith(sentence)
    assert caught.value.kind == kind


def test_without_a_default_partition_one_has_to_be_named() -> None:
    site = replace(SITE, partitions=SITE.partitions[1:])
    with pytest.raises(RequestError, match="No partition specified or system default partition"):
        job(site=site)
    assert job(site=site, partition="big").partition == "big"


def test_one_of_several_partitions_is_enough() -> None:
    assert job(partition="main,all", nodelist="big", ntasks="1").partition == "main,all"
    assert job(partition="few,main", nodes="3").nodes == 3


@given(
    st.sampled_from(["main", "big", "all", "few", "many", "alone", "few,all"]),
    st.integers(1, 9),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(0, 300),
)
@settings(max_examples=150)
def test_what_is_accepted_fits_an_empty_partition(
    partition: str, ntasks: int, nodes: int, cpus: int, memory: int
) -> None:
    try:
        spec = job(
            partition=partition,
            ntasks=str(ntasks),
            nodes=f"{nodes}-4",
            cpus_per_task=str(cpus),
            mem=str(memory),
        )
    except RequestError:
        return
    frees = [Free.all_of(node) for node in SITE.nodes]
    slots = fit(spec, frees)
    assert slots is not None
    assert sum(slot.ntasks for slot in slots) == ntasks
