"""sinfo, against what Slurm 22.05.8 printed (tests/data/slurm-22.05/transcript.txt).

The cases of three nodes were seen on a cluster of three, with other sizes.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from roadstead.cli import sinfo
from tests.support import recorded
from tests.support.recorded import Recorded


@pytest.fixture(autouse=True)
def _in_utc(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def run(*argv: str, ask: Any = recorded.ask, **environ: str) -> int:
    return sinfo.main(list(argv), ask, environ=environ, now=recorded.NOW)


@pytest.mark.parametrize("slurm", recorded.commands("sinfo"), ids=lambda each: " ".join(each.argv))
def test_it_prints_what_slurm_prints(slurm: Recorded, capsys: Any) -> None:
    code = run(*slurm.argv)
    captured = capsys.readouterr()
    assert (captured.out + captured.err, code) == (slurm.output, slurm.code)


def three(request: dict[str, Any]) -> dict[str, Any]:
    """A cluster of two busy nodes and an idle one that is larger."""

    def node(number: int, state: str, **changes: Any) -> dict[str, Any]:
        return recorded.NODE | {"name": f"node{number}", "state": state, **changes}

    partition = recorded.PARTITION | {"nodes": "node[1-2,10]", "max_time": 7 * 86400}
    return {
        "nodes": [
            node(10, "IDLE", cpus=4, cpus_alloc=0, memory=8000),
            node(2, "MIXED", cpus_alloc=1),
            node(1, "MIXED", cpus_alloc=1),
        ],
        "partitions": [partition, partition | {"name": "spare", "default": False, "nodes": ""}],
    }


def shown(capsys: Any, *argv: str, **environ: str) -> str:
    assert run("-p", "debug", *argv, ask=three, **environ) == 0
    return str(capsys.readouterr().out)


def test_nodes_share_a_line_with_their_state(capsys: Any) -> None:
    assert shown(capsys) == (
        "PARTITION AVAIL  TIMELIMIT  NODES  STATE NODELIST\n"
        "debug*       up 7-00:00:00      2    mix node[1-2]\n"
        "debug*       up 7-00:00:00      1   idle node10\n"
    )
    assert shown(capsys, "-h", "-o", "%N") == "node[1-2,10]\n"
    assert shown(capsys, "-h", "-o", "%F %C") == "2/1/0/3 2/6/0/8\n"
    assert shown(capsys, "-h", "-s") == "debug*       up 7-00:00:00          2/1/0/3 node[1-2,10]\n"


def test_every_node_has_a_line_with_capital_n(capsys: Any) -> None:
    assert shown(capsys, "-N") == (
        "NODELIST   NODES PARTITION STATE \n"
        "node1          1    debug* mix   \n"
        "node2          1    debug* mix   \n"
        "node10         1    debug* idle  \n"
    )


def test_sizes_that_differ(capsys: Any) -> None:
    assert shown(capsys, "-h", "-o", "%c %m") == "2+ 4000+\n"
    assert shown(capsys, "-h", "-e", "-o", "%c %m %N") == "2 4000 node[1-2]\n4 8000 node10\n"


@pytest.mark.parametrize(
    ("states", "nodes"),
    [
        ("idle", "node10"),
        ("mix", "node[1-2]"),
        ("MIXED,idle", "node[1-2,10]"),
        ("all", "node[1-2,10]"),
        ("alloc", ""),
        ("idle&mixed", ""),
    ],
)
def test_states(states: str, nodes: str, capsys: Any) -> None:
    assert shown(capsys, "-h", "-t", states, "-o", "%N|%D").partition("|")[0] == nodes


def test_nodes_by_name(capsys: Any) -> None:
    assert shown(capsys, "-h", "-n", "node[2-5],other", "-o", "%N %D") == "node2 1\n"


def test_a_poller_for_a_state_gets_a_count(capsys: Any) -> None:
    assert (
        shown(capsys, "--noheader", "--partition", "debug", "--state", "down", "-o", "%D") == "0\n"
    )


def test_partitions(capsys: Any) -> None:
    run("-h", "-o", "%P", ask=three)
    assert capsys.readouterr().out == "debug*\nspare\n"
    run("-h", "-p", "nope", ask=three)
    assert capsys.readouterr().out == ""
    run("-h", "-p", "debug", "-O", "time", "-e", ask=three)
    assert capsys.readouterr().out == "7-00:00:00          \n"


def test_the_format_variable_is_for_the_plain_listing(capsys: Any) -> None:
    assert shown(capsys, SINFO_FORMAT="%P %D") == "PARTITION NODES\ndebug* 3\n"
    assert shown(capsys, "-s", SINFO_FORMAT="%P %D").startswith("PARTITION AVAIL")


def broken(request: dict[str, Any]) -> dict[str, Any]:
    """Of four nodes one is drained, one is draining, one is down."""

    def node(number: int, state: str, **changes: Any) -> dict[str, Any]:
        return recorded.NODE | {"name": f"n{number}", "state": state, "cpus_alloc": 0, **changes}

    why = {"reason": "a fan", "reason_user": "root", "reason_time": recorded.NOW}
    return {
        "nodes": [
            node(1, "IDLE", weight=2),
            node(2, "IDLE+DRAIN", **why),
            node(3, "MIXED+DRAIN", **why | {"cpus_alloc": 1}),
            node(4, "DOWN", **why),
        ],
        "partitions": [
            recorded.PARTITION
            | {"nodes": "n[1-4]", "min_nodes": 2, "max_nodes": 3, "tier": 4, "job_factor": 5}
        ],
    }


@pytest.mark.parametrize(
    ("argv", "out"),
    [
        (["-o", "%t %N"], "idle n1\ndrain n2\ndrng n3\ndown n4\n"),
        (["-o", "%T %D"], "idle 1\ndrained 1\ndraining 1\ndown 1\n"),
        (["-o", "%F"], "1/1/2/4\n"),
        (["-o", "%E|%N"], "a fan|n[2-4]\nnone|n1\n"),
        (["-o", "%u %H %N"], "root 2026-11-23T19:11:19 n[2-4]\nUnknown Unknown n1\n"),
        (["-o", "%N %w"], "n[1-4] 1+\n"),
        (["-o", "%s %p %I"], "2-3 4 5\n"),
        (["-t", "drain", "-o", "%N"], "n[2-3]\n"),
        (["-t", "down", "-o", "%N"], "n4\n"),
        (["-N", "-t", "drained", "-o", "%N %t"], "n2 drain\n"),
    ],
    ids=str,
)
def test_drained_nodes(argv: list[str], out: str, capsys: Any) -> None:
    assert run("-h", *argv, ask=broken) == 0
    assert sorted(capsys.readouterr().out.splitlines()) == sorted(out.splitlines())


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ("-t bogus", 'Bad state string: "bogus"; valid states: '),
        ("-t up", 'Bad state string: "up"; valid states: '),
        ("-l -o %N", "Options -o(--format) and -l(--long) are mutually exclusive"),
        ("extra", "Unrecognized option: extra"),
    ],
)
def test_errors(argv: str, sentence: str, capsys: Any) -> None:
    assert run(*argv.split()) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"sinfo: error: {sentence}")


def test_unknown_columns(capsys: Any) -> None:
    assert run("-h", "-o", "%D%!") == 0
    captured = capsys.readouterr()
    assert captured.out == "1%!\n"
    assert captured.err == "sinfo: error: Invalid node format specification: !\n"


def test_lines_are_sorted(capsys: Any) -> None:
    assert shown(capsys, "-h", "-N", "-o", "%N", "-S", "-N").split() == ["node10", "node2", "node1"]
    assert shown(capsys, "-h", "-e", "-o", "%m", "-S", "-m").split() == ["8000", "4000"]
    assert shown(capsys, "-h", "-o", "%t", "-S", "-t").split() == ["idle", "mix"]
    assert shown(capsys, "-h", "-o", "%t", "-S", "#P,t").split() == ["mix", "idle"]
    assert run("-S", "!", ask=three) == 1


def test_reservations_and_the_dead(capsys: Any) -> None:
    assert shown(capsys, "-T") == "No reservations in the system\n"
    assert shown(capsys, "-h", "-d", "-o", "%D %t") == "0 n/a\n"
