"""--multi-prog, --distribution and --cpu-bind: what they make of a step's tasks."""

from __future__ import annotations

import pytest

from roadstead.core import binding, distribution, multiprog
from roadstead.core.model import Launch, Share
from roadstead.errors import RoadsteadError


def programs(text: str, ntasks: int, *more: str) -> list[tuple[str, ...]]:
    found = multiprog.parse(text, "mp.conf", ntasks, more)
    return [multiprog.argv_of(found, task) for task in range(ntasks)]


@pytest.mark.parametrize(
    ("text", "ntasks", "argvs"),
    [
        ("0 echo a\n1 echo b\n", 2, [("echo", "a"), ("echo", "b")]),
        ("# c\n\n1 x %t:%o\n0,2 y %t:%o", 3, [("y", "0:0"), ("x", "1:0"), ("y", "2:1")]),
        ("* echo '%t' \"%t x\" %d", 1, [("echo", "%t", "0 x", "%d")]),
        ("1 a\n* b", 3, [("b",), ("a",), ("b",)]),
        ("0-1 echo \\\n more", 2, [("echo", "more")] * 2),
    ],
)
def test_programs(text: str, ntasks: int, argvs: list[tuple[str, ...]]) -> None:
    assert programs(text, ntasks) == argvs


def test_arguments_after_the_file_are_everybodys() -> None:
    assert programs("* echo", 2, "%t") == [("echo", "%t"), ("echo", "%t")]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("0 echo a", "Configuration file mp.conf invalid, no record for task id 1"),
        ("x echo", "Invalid task range specification (x): Line 1 of configuration file mp.conf"),
        ("0-7 echo", "Invalid task id, 7 >= ntasks: Line 1 of configuration file mp.conf invalid"),
        ("0-1 a\n1 b", "Duplicate record for task 1: Line 2 of configuration file mp.conf invalid"),
        ("0-1", "no program is named: Line 1 of configuration file mp.conf invalid"),
    ],
)
def test_wrong_programs(text: str, sentence: str) -> None:
    with pytest.raises(RoadsteadError) as caught:
        programs(text, 2)
    assert str(caught.value).startswith(sentence)


SHARES = (Share(node="n1", cpus=(0, 1), ntasks=3), Share(node="n2", cpus=(2, 3), ntasks=3))


@pytest.mark.parametrize(
    ("value", "nodes"),
    [
        ("block", [0, 0, 0, 1, 1, 1]),
        ("cyclic", [0, 1, 0, 1, 0, 1]),
        ("plane=2", [0, 0, 1, 1, 0, 1]),
        ("block:cyclic", [0, 0, 0, 1, 1, 1]),
        ("cyclic:block:fcyclic", [0, 1, 0, 1, 0, 1]),
        ("cyclic,nopack", [0, 1, 0, 1, 0, 1]),
    ],
)
def test_distribution(value: str, nodes: list[int]) -> None:
    """As srun -O -N2 -n6 of Slurm 22.05 was seen to place them."""
    words, plane = distribution.parse(value)
    launch = Launch(distribution=words, plane=plane)
    assert distribution.nodes_of_tasks(SHARES, launch) == nodes


def test_arbitrary() -> None:
    asked = distribution.resolve({"hosts": "n2\nn1 # x\nn2\nn2\n"}, {"distribution": "arbitrary"})
    assert (asked["ntasks"], asked["nodes"], asked["nodelist"]) == ("4", "2", "n2,n1,n2,n2")
    launch = Launch(distribution="arbitrary", hosts=("n2", "n1", "n2", "n2"))
    shares = distribution.arranged(SHARES, launch)
    assert [share.ntasks for share in shares] == [1, 3]
    assert distribution.nodes_of_tasks(shares, launch) == [1, 0, 1, 1]


@pytest.mark.parametrize("value", ["bogus", "plane", "plane=0", "block:x", "block,x", "a:b:c:d"])
def test_wrong_distribution(value: str) -> None:
    with pytest.raises(RoadsteadError):
        distribution.parse(value)


@pytest.mark.parametrize(
    ("value", "cpus", "variable"),
    [
        ("q", [(0, 1), (0, 1)], ""),
        ("none", [(0, 1), (0, 1)], "quiet,none"),
        ("v,none", [(0, 1), (0, 1)], "verbose,none"),
        ("rank", [(0,), (1,)], "quiet,rank"),
        ("map_cpu:1,0", [(1,), (0,)], "quiet,map_cpu:1,0"),
        ("map_cpu:1*2", [(1,), (1,)], "quiet,map_cpu:1*2"),
        ("v,mask_cpu:3", [(0, 1), (0, 1)], "verbose,mask_cpu:3"),
        ("mask_cpu:0x1,0x2", [(0,), (1,)], "quiet,mask_cpu:0x1,0x2"),
        ("cores", [(0,), (1,)], "quiet,mask_cpu:0x1,0x2"),
        ("v,threads", [(0,), (1,)], "verbose,mask_cpu:0x1,0x2"),
        ("ldoms", [(0, 1), (0, 1)], "quiet,none"),
    ],
)
def test_binding(value: str, cpus: list[tuple[int, ...]], variable: str) -> None:
    bound = binding.parse(value)
    found = [binding.cpus(bound, (0, 1), localid, 2) for localid in range(2)]
    assert found == cpus
    masks = [binding.mask(each) for each in found]
    assert binding.environment(bound, masks).get("SLURM_CPU_BIND", "") == variable


@pytest.mark.parametrize("value", ["bogus", "map_cpu", "map_cpu:x", "mask_cpu:0xg", "map_ldom:0"])
def test_wrong_binding(value: str) -> None:
    with pytest.raises(RoadsteadError):
        binding.parse(value)


def test_a_cpu_that_the_step_does_not_have() -> None:
    with pytest.raises(RoadsteadError, match="Unable to satisfy cpu bind request"):
        binding.cpus(binding.parse("map_cpu:7"), (0, 1), 0, 1)


def test_report() -> None:
    """The lines that srun of 22.05 printed."""
    rank, none = binding.parse("v,rank"), binding.parse("v,none")
    line = "cpu-bind=RANK - n1, task  1  1 [889]: mask 0x2 set"
    assert binding.report(rank, "n1", 1, 1, 889, (1,)) == line
    line = "cpu-bind=NONE - n1, task  0  0 [1266]: mask 0x0"
    assert binding.report(none, "n1", 0, 0, 1266, (0, 1)) == line
