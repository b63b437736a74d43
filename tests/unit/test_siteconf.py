"""roadstead.conf: what its keys mean, and what is wrong with a file that cannot be used."""

from __future__ import annotations

from typing import Any

import pytest

from roadstead.core import siteconf
from roadstead.core.model import Gres
from roadstead.core.site import Node, Partition, Site
from roadstead.core.siteconf import SiteConf
from roadstead.errors import ConfigError

MACHINE = Node(name="vm", cpus=(0, 1, 5), memory=3000, os="Linux")
PATH = "/etc/roadstead/roadstead.conf"


def parse(text: str, files: dict[str, str] | None = None) -> SiteConf:
    def read(path: str) -> str:
        if path not in (files or {}):
            raise FileNotFoundError(2, "No such file or directory")
        return (files or {})[path]

    return siteconf.parse(text, PATH, read, machine=MACHINE, uid=1, login={"USER": "u"})


def site(text: str) -> Site:
    return parse(text).site


def test_an_empty_file_is_the_machine() -> None:
    found = site("# nothing\n\n")
    assert found.nodes == (MACHINE,)
    assert [each.name for each in found.partitions] == ["local"]
    assert found.source == PATH


def test_cpus_are_dealt_out_and_then_dealt_again() -> None:
    found = site("NodeName=n[1-2] CPUs=2 RealMemory=100\nNodeName=big Sockets=2 CoresPerSocket=2\n")
    assert [node.name for node in found.nodes] == ["n1", "n2", "big"]
    assert [node.kernel_cpus for node in found.nodes] == [(0, 1), (5, 0), (1, 5, 0, 1)]
    assert [node.cpus for node in found.nodes] == [(0, 1), (0, 1), (0, 1, 2, 3)]
    assert [node.memory for node in found.nodes] == [100, 100, 3000]
    assert found.nodes[1].kernel_numbers((0, 1)) == (0, 5)
    assert found.nodes[2].kernel_numbers((0, 3)) == (1,), "the same CPU twice is one"


def test_lines_begin_with_what_default_says() -> None:
    found = site(
        "nodename=DEFAULT cpus=1 Feature=a,b\nNodeName=x\nNodeName=y CPUs=2\n"
        "PartitionName=DEFAULT MaxTime=10 Nodes=x\nPartitionName=p Default=YES\n"
        "PartitionName=q Nodes=ALL MaxTime=UNLIMITED\n"
    )
    assert [len(node.cpus) for node in found.nodes] == [1, 2]
    assert found.nodes[0].features == ("a", "b")
    assert [(p.nodes, p.max_time) for p in found.partitions] == [(("x",), 600), (("x", "y"), None)]


def test_a_partition_in_full() -> None:
    text = (
        "NodeName=n[1-3] CPUs=1\nPartitionName=p Nodes=n[1-2] State=DRAIN DefaultTime=1:00 "
        "MaxNodes=2 MinNodes=1 PriorityTier=3 PriorityJobFactor=7 OverSubscribe=EXCLUSIVE "
        "DefMemPerNode=50\n"
    )
    assert site(text).partitions == (
        Partition(
            name="p", nodes=("n1", "n2"), default=True, state="DRAIN", default_time=60,
            max_nodes=2, min_nodes=1, tier=3, job_factor=7, exclusive=True,
            default_memory_per_node=50,
        ),
    )  # fmt: skip


def test_devices_have_numbers_and_files() -> None:
    found = site(
        "NodeName=n[1-2] CPUs=1 Gres=gpu:a:2,gpu:b:1,fpga\n"
        "Name=gpu Type=a File=/dev/nvidia[0-1] NodeName=n1\n"
    )
    assert found.nodes[0].gres == (
        Gres(name="gpu", type="a", count=2, indexes=(0, 1), files=("/dev/nvidia0", "/dev/nvidia1")),
        Gres(name="gpu", type="b", count=1, indexes=(2,)),
        Gres(name="fpga", count=1, indexes=(0,)),
    )
    assert found.nodes[1].gres[0].files == ()


def test_times_weights_and_licences() -> None:
    found = parse(
        "KillWait=5\nOverTimeLimit=2\nMinJobAge=60\nJobRequeue=0\nSchedulerType=sched/builtin\n"
        "SchedulerParameters=default_queue_depth=7\nLicenses=m:2,k\nPriorityWeightAge=10\n"
        "PriorityMaxAge=1-0\nPriorityWeightJobSize=5\nPriorityFavorSmall=YES\n"
    )
    assert (found.kill_wait, found.over_time, found.min_job_age) == (5.0, 120.0, 60.0)
    assert (found.site.requeue, found.site.backfill, found.site.depth) == (False, False, 7)
    assert found.site.licenses == {"m": 2, "k": 1}
    weights = found.site.weights
    assert (weights.age, weights.max_age, weights.size, weights.favour_small) == (
        10.0, 86400.0, 5.0, True,
    )  # fmt: skip


def test_files_are_included_beside_each_other() -> None:
    beside = {"/etc/roadstead/nodes.conf": 'NodeName=a CPUs=1 Feature="x,y"\n'}
    assert parse("include nodes.conf\n", beside).site.nodes[0].features == ("x", "y")
    with pytest.raises(ConfigError, match=f"^{PATH}:2: include gone.conf: no such file"):
        parse("\ninclude gone.conf\n")


def test_what_means_nothing_is_said() -> None:
    found = parse("SlurmctldPort=1\nNodeName=a NodeAddr=b CPUs=1\n")
    assert found.warnings == (
        f"{PATH}:1: slurmctldport means nothing on one machine",
        f"{PATH}:2: nodeaddr means nothing on one machine",
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Colour=blue", "1: unknown key: colour; known are"),
        ("NodeName=a Colour=blue", "1: unknown key: colour; known here are"),
        ("NodeName=a CPUs=x", '1: cpus: Invalid numeric value "x"'),
        ("NodeName=a\nNodeName=a", "2: node a is there twice"),
        ("NodeName=a CPUs=1 CPUs=2", "1: CPUs is there twice"),
        ("NodeName=a State=DOWN", "1: State=DOWN: states change at run time; scontrol update"),
        ("NodeName=a[1-", "1: Invalid hostlist"),
        ("NodeName=a Gres=gpu::", "1: Gres: Invalid Gres specification"),
        ("NodeName=a Gres=gpu:2\nName=gpu File=/dev/g0", "2: 1 files for the 2 gpu of node a"),
        ("PartitionName=p Nodes=b", "1: partition p: there is no node b"),
        ("PartitionName=p\nPartitionName=p", "2: partition p is there twice"),
        ("PartitionName=p Default=YES\nPartitionName=q Default=YES", "2: p is the default"),
        ("PartitionName=p State=ASLEEP", "1: State=ASLEEP: a partition is UP"),
        ("PartitionName=p OverSubscribe=FORCE:4", "1: OverSubscribe=FORCE:4: jobs share no CPU"),
        ("PartitionName=p MaxTime=soon", "1: maxtime: Invalid maxtime specification"),
        ("PartitionName=p Default=perhaps", "1: default=perhaps: yes or no"),
        ("KillWait=x", '1: killwait: Invalid numeric value "x"'),
        ("SchedulerType=sched/magic", "1: schedulertype=sched/magic: one of"),
        ("nonsense", "1: not KEY=VALUE: nonsense"),
        ("NodeName=a Feature=x y", "1: not KEY=VALUE: y"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    said: Any = caught.value
    assert f"{said}; {said.hint}".startswith(f"{PATH}:{sentence}")
