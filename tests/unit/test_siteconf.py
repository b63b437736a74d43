"""roadstead.conf: what each key means, and the sentence, with its line, where it means nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roadstead.core import siteconf
from roadstead.core.model import Gres
from roadstead.core.site import Node, Partition, Weights
from roadstead.core.siteconf import SiteConf
from roadstead.errors import ConfigError

MACHINE = Node(name="host", cpus=(0, 1, 4), memory=4000, os="Linux", arch="x86_64")


def conf(text: str, machine: Node = MACHINE, **files: str) -> SiteConf:
    def read(path: str) -> str:
        if path not in files:
            raise FileNotFoundError(2, "No such file or directory")
        return files[path]

    return siteconf.parse(text, "r.conf", read, machine=machine, uid=7, login={"USER": "u"})


def nodes(text: str, machine: Node = MACHINE) -> dict[str, Node]:
    return {node.name: node for node in conf(text, machine).site.nodes}


def partition(line: str) -> Partition:
    (found,) = conf(f"NodeName=n[1-3]\nPartitionName=p {line}").site.partitions
    return found


# -- lines -----------------------------------------------------------------------------------------


def test_nothing_said_is_this_machine() -> None:
    found = conf("# a comment\n\n   \n")
    assert found.site.nodes == (MACHINE,)
    assert found.site.partitions == (Partition(name="local", nodes=("host",), default=True),)
    assert (found.site.source, found.site.uid, found.site.host) == ("r.conf", 7, "host")
    assert (found.kill_wait, found.over_time, found.min_job_age) == (None, None, None)
    assert (found.site.backfill, found.site.depth, found.site.requeue) == (True, 100, True)
    assert found.site.weights == Weights()
    assert found.warnings == ()


@pytest.mark.parametrize(
    "text",
    [
        "NodeName=n1 CPUs=2",
        "nodename=n1 cpus=2",
        "NODENAME = n1   CPUS =\t2  # two",
        '  NodeName="n1" CPUs="2"',
        "NodeName=n1 \\\n  CPUs=2",
        "NodeName=n1 CPUs=2\r\n",
        "NodeName=DEFAULT CPUs=2\nNodeName=n1",
        "include more",
        "INCLUDE /abs  ",
    ],
)
def test_ways_to_write_a_line(text: str) -> None:
    found = conf(text, more="NodeName=n1 CPUs=2", **{"/abs": "NodeName=n1 CPUs=2"})
    assert [(node.name, node.cpus) for node in found.site.nodes] == [("n1", (0, 1))]


def test_an_included_file_is_beside_the_one_that_names_it() -> None:
    files = {"d/a": "include b", "d/b": "NodeName=x"}
    assert conf("include d/a", **files).site.nodes[0].name == "x"


def test_defaults_hold_for_the_lines_behind_them() -> None:
    found = nodes("NodeName=a\nNodeName=DEFAULT CPUs=1\nNodeName=b\nNodeName=c CPUs=2")
    assert {name: len(node.cpus) for name, node in found.items()} == {"a": 3, "b": 1, "c": 2}
    site = conf(
        "NodeName=n[1-2]\nPartitionName=a\nPartitionName=DEFAULT MaxTime=5 State=DRAIN\n"
        "PartitionName=b\nPartitionName=DEFAULT MaxTime=6\nPartitionName=c State=UP Default=YES"
    ).site
    assert [(each.max_time, each.state) for each in site.partitions] == [
        (None, "UP"),
        (300, "DRAIN"),
        (360, "UP"),
    ]


ERRORS = [
    ("Nonsense", 1, "not KEY=VALUE: Nonsense", 'KEY="VALUE"'),
    ("\nNodeName=n1 CPUs", 2, "not KEY=VALUE: CPUs", 'KEY="VALUE"'),
    ('NodeName="n1"x', 1, "not KEY=VALUE", ""),
    ('NodeName="n1', 1, "not KEY=VALUE", ""),
    ("KillWait+=5", 1, "not KEY=VALUE", ""),
    ("NodeName=n1 cpus=1 CPUs=2", 1, "CPUs is there twice", ""),
    ("Bogus=1", 1, "unknown key: bogus", "killwait"),
    ("NodeName=n1 Bogus=1", 1, "unknown key: bogus", "realmemory"),
    ("PartitionName=p Bogus=1", 1, "unknown key: bogus", "maxtime"),
    ("Name=gpu Bogus=1", 1, "unknown key: bogus", "file"),
    ("NodeName=n1 \\\n  CPUs=1\nNodeName=n1", 3, "node n1 is there twice", ""),
    ("NodeName=n[1-2],n2", 1, "node n2 is there twice", ""),
    ("NodeName=n[1-", 1, "Invalid hostlist: n[1-", "n[1-3,7]"),
    ("NodeName=", 1, "NodeName=: not a name", ""),
    ("NodeName=n1 CPUs=x", 1, 'cpus: Invalid numeric value "x" for cpus.', ""),
    ("NodeName=n1 CPUs=0", 1, 'cpus: Invalid numeric value "0" for cpus.', ""),
    ("NodeName=n1 CPUs=65534", 1, "node n1: 65534 CPUs", "65533"),
    ("NodeName=n1 RealMemory=0", 1, "realmemory: ", ""),
    ("NodeName=n1 Weight=-1", 1, "weight: ", ""),
    ("NodeName=n1 ThreadsPerCore=0", 1, "threadspercore: ", ""),
    ("NodeName=n1 Gres=gpu:a:b:c", 1, "Gres: Invalid Gres specification", "NAME[:TYPE]"),
    ("NodeName=n1 State=DOWN", 1, "State=DOWN: states change at run time", "scontrol update"),
    ("NodeName=n1 Gres=gpu:2\nName=gpu File=/dev/g0", 2, "1 files for the 2 gpu", "as many"),
    ("NodeName=n1 Gres=gpu:2\nName=gpu File=/dev/g[0-1] Count=3", 2, "Count=3: ", "Count"),
    ("PartitionName=p\nPartitionName=p", 2, "partition p is there twice", ""),
    ("PartitionName=a,b", 1, "PartitionName=a,b: not a name", ""),
    ("PartitionName=", 1, "PartitionName=: not a name", ""),
    ("PartitionName=p Nodes=n9", 1, "partition p: there is no node n9", ""),
    ("PartitionName=p State=OFF", 1, "State=OFF: a partition is UP, DOWN, DRAIN or", ""),
    ("PartitionName=p OverSubscribe=FORCE", 1, "OverSubscribe=FORCE: jobs share no", "EXCLUSIVE"),
    ("PartitionName=p Default=maybe", 1, "default=maybe: yes or no", ""),
    ("PartitionName=p MaxTime=x", 1, "maxtime: Invalid maxtime specification", "minutes"),
    ("PartitionName=p MaxNodes=0", 1, "maxnodes: ", ""),
    ("PartitionName=p PriorityTier=x", 1, "prioritytier: ", ""),
    ("PartitionName=a Default=YES\nPartitionName=b Default=YES", 2, "a is the default", ""),
    ("KillWait=x", 1, "killwait: Invalid numeric value", ""),
    ("JobRequeue=2", 1, "jobrequeue=2: yes or no", ""),
    ("SchedulerType=sched/x", 1, "schedulertype=sched/x: one of", ""),
    ("SchedulerParameters=default_queue_depth=0", 1, "default_queue_depth: ", ""),
    ("Licenses=a:b:c:d", 1, "Licenses: Invalid Licenses specification", ""),
    ("PriorityMaxAge=x", 1, "PriorityMaxAge: ", ""),
    ("PriorityFavorSmall=x", 1, "priorityfavorsmall=x: yes or no", ""),
    ("\ninclude none", 2, "include none: no such file or directory", "remove the line"),
    ("include self", 1, "include self: files include each other", ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "sentence", "hint"), ERRORS, ids=lambda each: str(each))
def test_errors_name_the_line(text: str, line: int, sentence: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        conf(text, self="include self")
    where = "self" if "self" in text else "r.conf"
    assert str(caught.value).startswith(f"{where}:{line}: {sentence}")
    assert hint in caught.value.hint


def test_an_error_of_an_included_file_names_that_file() -> None:
    with pytest.raises(ConfigError, match=r"^more:2: unknown key: bogus"):
        conf("include more", more="\nBogus=1")


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("ClusterName=c", "clustername"),
        ("NodeName=n1 NodeAddr=10.0.0.1", "nodeaddr"),
        ("PartitionName=p AllowGroups=staff", "allowgroups"),
        ("NodeName=n1 Name=gpu AutoDetect=nvml", "autodetect"),
        ("SchedulerParameters=bf_continue", "bf_continue"),
    ],
)
def test_what_means_nothing_here_is_a_warning(line: str, word: str) -> None:
    (warning,) = conf(line).warnings
    assert warning.startswith(f"r.conf:1: {word} means nothing")


@pytest.mark.parametrize("key", sorted(siteconf.MEANINGLESS))
def test_no_key_is_both_used_and_without_a_meaning(key: str) -> None:
    assert len(conf(f"{key}=x").warnings) == 1


# -- nodes -----------------------------------------------------------------------------------------


def test_every_key_of_a_node() -> None:
    (node,) = conf(
        "NodeName=n1 CPUs=4 RealMemory=100 Gres=gpu:a:2,fpga Features=x,y Weight=3 Sockets=2 "
        "CoresPerSocket=1 ThreadsPerCore=2 State=IDLE"
    ).site.nodes
    assert node == replace(
        MACHINE,
        name="n1",
        cpus=(0, 1, 2, 3),
        kernel_cpus=(0, 1, 4, 0),
        memory=100,
        gres=(
            Gres(name="gpu", type="a", count=2, indexes=(0, 1)),
            Gres(name="fpga", count=1, indexes=(0,)),
        ),
        features=("x", "y"),
        weight=3,
        sockets=2,
        threads_per_core=2,
    )
    assert (node.os, node.arch) == ("Linux", "x86_64"), "the rest is the machine's"


@pytest.mark.parametrize(
    ("words", "cpus"),
    [("", 3), ("Procs=2", 2), ("Sockets=2 CoresPerSocket=2 ThreadsPerCore=2", 8), ("CPUs=1", 1)],
)
def test_how_many_cpus(words: str, cpus: int) -> None:
    assert len(nodes(f"NodeName=n1 {words}")["n1"].cpus) == cpus


def test_cpus_are_dealt_out_in_turn() -> None:
    found = nodes("NodeName=a CPUs=2\nNodeName=b CPUs=2")
    assert [found[name].kernel_cpus for name in "ab"] == [(0, 1), (4, 0)]
    assert found["b"].cpus == (0, 1), "each node counts its own from 0"
    assert found["b"].kernel_numbers((0, 1)) == (0, 4)
    assert found["b"].kernel_numbers((1,)) == (0,)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
@settings(max_examples=50)
def test_no_cpu_of_the_machine_is_dealt_more_than_once_more_than_another(sizes: list[int]) -> None:
    text = "\n".join(f"NodeName=n{at} CPUs={size}" for at, size in enumerate(sizes))
    dealt = [cpu for node in nodes(text).values() for cpu in node.kernel_cpus]
    assert len(dealt) == sum(sizes)
    counts = [dealt.count(cpu) for cpu in MACHINE.cpus]
    assert max(counts) - min(counts) <= 1


def test_lighter_nodes_come_first_everywhere() -> None:
    site = conf("NodeName=a Weight=5\nNodeName=b\nNodeName=c Weight=0\nPartitionName=p Nodes=a,b,c")
    assert [node.name for node in site.site.nodes] == ["c", "b", "a"]
    assert site.site.partitions[0].nodes == ("c", "b", "a")


# -- devices ---------------------------------------------------------------------------------------


def test_devices_have_files_by_name_type_and_node() -> None:
    found = nodes(
        "NodeName=n[1-2] Gres=gpu:a:2,gpu:b:1\n"
        "NodeName=n1 Name=gpu Type=a File=/dev/x[0-1]\n"
        "Name=gpu Type=a File=/dev/y[0-1] NodeName=n2\n"
        "Name=gpu Type=b File=/dev/b Count=1\n"
    )
    assert [gres.files for gres in found["n1"].gres] == [("/dev/x0", "/dev/x1"), ("/dev/b",)]
    assert [gres.files for gres in found["n2"].gres] == [("/dev/y0", "/dev/y1"), ("/dev/b",)]
    assert [gres.indexes for gres in found["n1"].gres] == [(0, 1), (2,)]


def test_a_line_for_each_device_and_no_file_twice() -> None:
    found = nodes("NodeName=n1 Gres=gpu:2\nName=gpu File=/dev/g0\nName=gpu File=/dev/g1")
    assert found["n1"].gres[0].files == ("/dev/g0", "/dev/g1")
    found = nodes("NodeName=n1 Gres=gpu:a:1,gpu:b:1\nName=gpu File=/dev/g[0-1]")
    assert [gres.files for gres in found["n1"].gres] == [("/dev/g0",), ("/dev/g1",)]


def test_the_machines_own_devices_stay_as_they_were_found() -> None:
    found = Gres(name="gpu", count=1, indexes=(3,), files=("/dev/nvidia3",))
    machine = replace(MACHINE, gres=(found,))
    assert conf("", machine).site.nodes[0].gres == (found,)
    assert nodes("NodeName=n1", machine)["n1"].gres == (), "a node has what its line says"


# -- partitions ------------------------------------------------------------------------------------


def test_every_key_of_a_partition() -> None:
    found = partition(
        "Nodes=n[2-3] Default=NO State=DRAIN MaxTime=1:00:00 DefaultTime=10 MaxNodes=2 MinNodes=1 "
        "PriorityTier=4 PriorityJobFactor=5 OverSubscribe=EXCLUSIVE DefMemPerNode=6 DefMemPerCPU=7"
    )
    assert found == Partition(
        name="p",
        nodes=("n2", "n3"),
        default=True,  # the only one
        state="DRAIN",
        max_time=3600,
        default_time=600,
        min_nodes=1,
        max_nodes=2,
        default_memory_per_node=6,
        default_memory_per_cpu=7,
        exclusive=True,
        tier=4,
        job_factor=5,
    )


@pytest.mark.parametrize("word", ["UNLIMITED", "infinite", "NONE"])
def test_no_limit(word: str) -> None:
    assert partition(f"MaxTime={word} DefaultTime={word}").max_time is None
    if word != "NONE":
        assert partition(f"MaxNodes={word}").max_nodes is None


def test_all_nodes_and_no_default_among_several() -> None:
    assert partition("Nodes=ALL").nodes == ("n1", "n2", "n3")
    site = conf("PartitionName=a\nPartitionName=b").site
    assert site.default_partition is None
    assert [each.nodes for each in site.partitions] == [("host",), ("host",)]


# -- the rest --------------------------------------------------------------------------------------


def test_times() -> None:
    found = conf("KillWait=1 OverTimeLimit=2\nMinJobAge=3")
    assert (found.kill_wait, found.over_time, found.min_job_age) == (1.0, 120.0, 3.0)
    assert conf("OverTimeLimit=UNLIMITED").over_time == 365 * 86400.0


def test_licences_scheduler_and_requeue() -> None:
    site = conf(
        "Licenses=a:2,b\nSchedulerType=sched/BUILTIN SchedulerParameters=default_queue_depth=7\n"
        "JobRequeue=0"
    ).site
    assert (site.licenses, site.backfill, site.depth) == ({"a": 2, "b": 1}, False, 7)
    assert not site.requeue


def test_weights() -> None:
    text = (
        "PriorityWeightAge=1\nPriorityMaxAge=1-0\nPriorityWeightJobSize=2\n"
        "PriorityWeightPartition=3 PriorityFavorSmall=YES"
    )
    assert conf(text).site.weights == Weights(
        age=1.0, max_age=86400.0, size=2.0, partition=3.0, favour_small=True
    )


@given(st.text(alphabet='NodeName=n1 [2-]\\"#\nCPUs,Partition', max_size=60))
@settings(max_examples=200)
def test_any_text_is_read_or_refused_by_name(text: str) -> None:
    wrong: ConfigError | None = None
    try:
        conf(text)
    except ConfigError as error:
        wrong = error
    assert wrong is None or 1 <= wrong.line <= text.count("\n") + 1
