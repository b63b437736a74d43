"""scontrol, against what Slurm 22.05.8 printed (tests/data/slurm-22.05/transcript.txt)."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path
from typing import Any

import pytest

from roadstead.cli import scontrol
from roadstead.errors import EngineError
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
    return scontrol.main(list(argv), ask, environ=environ, now=recorded.NOW)


@pytest.mark.parametrize(
    "slurm", recorded.commands("scontrol"), ids=lambda each: " ".join(each.argv)
)
def test_it_prints_what_slurm_prints(slurm: Recorded, capsys: Any) -> None:
    code = run(*slurm.argv)
    captured = capsys.readouterr()
    assert (captured.out + captured.err, code) == (slurm.output, slurm.code)


@pytest.mark.parametrize(
    "argv",
    ["show jobid 4", "show jobs 4", "show job=4", "show JOBID=4", "sho jo 4", "SHOW j 4"],
)
def test_spellings_of_a_job(argv: str, capsys: Any) -> None:
    run("show", "job", "4")
    usual = capsys.readouterr().out
    assert run(*argv.split()) == 0
    assert capsys.readouterr().out == usual


@pytest.mark.parametrize("argv", ["-o show job 4", "show -o job 4", "show job 4 --oneliner"])
def test_options_may_stand_anywhere(argv: str, capsys: Any) -> None:
    run(*argv.split())
    assert capsys.readouterr().out.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "out", "err"),
    [
        ("show job 999", "", "slurm_load_jobs error: Invalid job id specified\n"),
        ("show job abc", "", "scontrol_print_job error: Invalid job id specified\n"),
        ("show job 4,5", "", "scontrol_print_job error: Invalid job id specified\n"),
        ("show step 4.7", "Job step 4.7 not found\n", ""),
        ("show step 999.0", "", "slurm_get_job_steps error: Invalid job id specified\n"),
        ("show node zz", "Node zz not found\n", ""),
        ("show partition zz", "Partition zz not found\n", ""),
        ("-Q show job 999", "", ""),
        ("-Q show node zz", "", ""),
    ],
)
def test_what_is_not_there(argv: str, out: str, err: str, capsys: Any) -> None:
    assert run(*argv.split()) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == (out, err)


def test_nothing_at_all(capsys: Any) -> None:
    def nothing(request: dict[str, Any]) -> dict[str, Any]:
        return {request["what"]: []}

    assert run("show", "job", ask=nothing) == 0
    assert run("show", "step", ask=nothing) == 0
    assert run("show", "fed") == 0
    assert run("show", "reservation") == 0
    assert capsys.readouterr().out == (
        "No jobs in the system\nNo job steps in the system\nNo reservations in the system\n"
    )


def test_steps_of_a_job(capsys: Any) -> None:
    run("-o", "show", "step", "4")
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "StepId=4.batch",
        "StepId=4.0",
    ]
    run("-o", "show", "step", "4.batch")
    assert capsys.readouterr().out.startswith("StepId=4.batch ")


def test_container_label_and_signal(capsys: Any) -> None:
    view = recorded.JOBS[4] | {
        "container_id": "box",
        "state": "FAILED",
        "exit_code": 137,
        "exit_signal": 9,
    }
    run("show", "job", "5", ask=lambda _: {"jobs": [view]})
    out = capsys.readouterr().out
    assert "\n   Power=\n   Container=/srv/bundle ContainerID=box\n   \n\n" in out
    assert " ExitCode=0:9\n" in out


def test_cpus_are_ranges(capsys: Any) -> None:
    view = recorded.job(4, "train", cpu_ids=[0, 1, 2, 3, 8])
    run("-d", "show", "job", "4", ask=lambda _: {"jobs": [view]})
    assert "\n     Nodes=n1 CPU_IDs=0-3,8 Mem=100 GRES=\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"memory_per_node": 5}, "DefMemPerNode=5 MaxMemPerNode=UNLIMITED"),
        ({"memory_per_cpu": 6}, "DefMemPerCPU=6 MaxMemPerNode=UNLIMITED"),
        ({"max_nodes": 3, "min_nodes": 2}, "MaxNodes=3 MaxTime=UNLIMITED MinNodes=2"),
        ({"tier": 4, "job_factor": 5}, "PriorityJobFactor=5 PriorityTier=4"),
        ({"oversubscribe": "EXCLUSIVE"}, "OverSubscribe=EXCLUSIVE"),
        ({"state": "DRAIN"}, "State=DRAIN "),
    ],
    ids=str,
)
def test_a_partition_with_limits(changes: dict[str, Any], words: str, capsys: Any) -> None:
    view = recorded.PARTITION | changes
    assert run("show", "partition", ask=lambda _: {"partitions": [view]}) == 0
    assert words in capsys.readouterr().out


def test_several_nodes_and_why_they_are_drained(capsys: Any) -> None:
    why = {"reason": "a fan", "reason_user": "root", "reason_time": recorded.NOW}
    nodes = [
        recorded.NODE | {"name": "n1"},
        recorded.NODE | {"name": "n2", "state": "IDLE+DRAIN", **why},
    ]
    partitions = [recorded.PARTITION | {"nodes": "n[1-2]"}]
    answer = {"nodes": nodes, "partitions": partitions}
    assert run("show", "node", ask=lambda _: answer) == 0
    first, second = capsys.readouterr().out.strip().split("\n\n")
    assert "Reason=" not in first
    assert "State=IDLE+DRAIN " in second
    assert "   Reason=a fan [root@2026-11-23T19:11:19]" in second
    assert run("show", "node", "n2", ask=lambda _: answer) == 0
    assert capsys.readouterr().out.strip() == second


def test_configuration(capsys: Any) -> None:
    settings = {"MinJobAge": "300 sec", "PropagateResourceLimitsExcept": "(null)"}
    run("show", "config", ask=lambda _: {"config": settings})
    assert capsys.readouterr().out == (
        "Configuration data as of 2026-11-23T19:11:19\n"
        "MinJobAge               = 300 sec\n"
        "PropagateResourceLimitsExcept = (null)\n"
        "\n"
        f"Slurmctld(primary) at {os.uname().nodename} is UP\n"
    )


def test_ping(capsys: Any) -> None:
    host = os.uname().nodename
    assert run("ping", ask=lambda _: {"event": "pong"}) == 0
    assert capsys.readouterr().out == f"Slurmctld(primary) at {host} is UP\n"

    def unreachable(request: dict[str, Any]) -> dict[str, Any]:
        raise EngineError("the controller could not start", hint="see its log")

    assert run("ping", ask=unreachable) == 1
    captured = capsys.readouterr()
    assert captured.out == f"Slurmctld(primary) at {host} is DOWN\n"
    assert captured.err == "scontrol: error: the controller could not start; see its log\n"


@pytest.mark.parametrize(
    ("argv", "out"),
    [
        ("show hostnames n[1-3,5],m01", "n1\nn2\nn3\nn5\nm01\n"),
        ("show hostname vm", "vm\n"),
        ("show hostnames None", "None\n"),
        ("show hostnames [1-3]", "1\n2\n3\n"),
        ("show hostlist n1,n2,n3", "n[1-3]\n"),
        ("show hostlist n3,n1,n2,n2", "n[3,1-2,2]\n"),
        ("show hostlist 1,2,3,5", "[1-3,5]\n"),
        ("show hostlistsorted n10,n1,n2", "n[1-2,10]\n"),
    ],
)
def test_lists_of_hosts(argv: str, out: str, capsys: Any) -> None:
    assert run(*argv.split()) == 0
    assert capsys.readouterr().out == out


def test_hosts_of_this_job(capsys: Any) -> None:
    run("show", "hostnames", SLURM_JOB_NODELIST="a[1-2]", SLURM_NODELIST="b")
    run("show", "hostnames", SLURM_NODELIST="b")
    assert capsys.readouterr().out == "a1\na2\nb\n"


def test_hosts_from_a_file(capsys: Any, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("n1\nn2,n3\n")
    run("show", "hostlist", str(hosts))
    assert capsys.readouterr().out == "n[1-3]\n"
    assert run("show", "hostlist", str(tmp_path / "none")) == 1


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ("top", "too few arguments for keyword:top; "),
        ("takeover", "takeover: there is no second controller"),
        ("write", "too few arguments for keyword:write; "),
        ("write nonsense 4", "invalid write argument:nonsense; "),
        ("listpids x", "Invalid job id specified: x; "),
        ("errnumstr x", "invalid error number: x; "),
        ("details show job 4", "too many arguments for keyword:details; "),
        ("cluster other", "No cluster 'other' known by database."),
        ("create", "too few arguments for create keyword; "),
        ("create nonsense", "Invalid creation entity: nonsense; "),
        ("create reservation=foo", "the local engine has no reservations"),
        ("delete reservation=foo", "the local engine has no reservations"),
        ("delete nonsense", "Invalid deletion entity: nonsense; "),
        ("notify 4", "too few arguments for keyword:notify; "),
        ("wait_job", "too few arguments for keyword:wait_job; "),
        ("update StepId=4 TimeLimit=1", "Invalid StepId specification; StepId=JOB.STEP"),
        ("update StepId=4.0", "No changes specified; TimeLimit=MINUTES"),
        ("update PartitionName=debug", "No changes specified; "),
        ("update timelimit=1", "No valid entity in update command; "),
        ("bogus", "invalid keyword: bogus; the keywords here are"),
        ("sh job 4", "invalid keyword: sh; "),
        ("show", "too few arguments for keyword:show; show knows jobs, "),
        ("show job 4 5", "too many arguments for keyword:show; "),
        ("show bogus", "invalid entity:bogus for keyword:show; show knows jobs, "),
        ("show hostnames", "host list is empty; "),
        ("show hostnames n[1-", "Invalid hostlist: n[1-; "),
        ("show hostlist /no/such/file", "Can not open /no/such/file: No such file or directory"),
    ],
)
def test_errors(argv: str, sentence: str, capsys: Any) -> None:
    assert run(*argv.split()) == 1
    assert capsys.readouterr().err.startswith(f"scontrol: error: {sentence}")


def test_version_is_a_keyword(capsys: Any) -> None:
    assert run("version") == run("-V") == 0
    assert capsys.readouterr().out == "slurm 22.05.8\n" * 2


def test_commands_that_are_typed(capsys: Any, monkeypatch: Any) -> None:
    typed = "show hostnames n[1-2]\nnonsense\nshow job 999\n!!\nquiet\n!!\nexit\nshow job 4\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    assert run() == 1
    captured = capsys.readouterr()
    assert captured.out == (
        "scontrol: show hostnames n[1-2]\nn1\nn2\nscontrol: nonsense\nscontrol: show job 999\n"
        "scontrol: !!\nscontrol: quiet\nscontrol: !!\nscontrol: exit\n"
    )
    unknown = "slurm_load_jobs error: Invalid job id specified"
    first, *others = captured.err.splitlines()
    assert first.startswith("scontrol: error: invalid keyword: nonsense; ")
    assert others == [unknown, unknown]


def test_nothing_is_typed(capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert run() == 0
    assert capsys.readouterr().out == "scontrol: \n"


def test_settings_last_for_what_is_typed_after_them(capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("oneliner\nshow step 4.0\nquit\n"))
    assert run() == 0
    assert capsys.readouterr().out.count("\n") == 4


@pytest.mark.parametrize(
    ("argv", "out", "code"),
    [
        ("completing", "", 0),
        ("show topology", "", 0),
        ("show daemons", "slurmctld slurmd\n", 0),
        ("show aliases", "n1\n", 0),
        ("show burst", "", 0),
        ("show reservation nosuch", "Reservation nosuch not found\n", 1),
        ("show frontend", "No nodes in the system\n", 0),
        ("show assoc_mgr", "", 1),
        ("errnumstr 2017", "Invalid job id specified\n", 0),
        ("errnumstr 5", "Input/output error\n", 0),
        ("cluster", "", 0),
        ("pidinfo 1", "", 1),
    ],
)
def test_small_keywords(argv: str, out: str, code: int, capsys: Any) -> None:
    assert run(*argv.split()) == code
    assert capsys.readouterr().out == out


def test_a_batch_script_is_written(capsys: Any, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)

    def ask(request: dict[str, Any]) -> dict[str, Any]:
        assert request["details"]
        script = {"script": "#!/bin/sh\ntrue\n"} if request["job_id"] == 4 else {}
        return {"jobs": [recorded.JOBS[3] | script]}

    assert run("write", "batch_script", "4", ask=ask) == 0
    assert capsys.readouterr().out == "batch script for job 4 written to slurm-4.sh\n"
    assert (tmp_path / "slurm-4.sh").read_text() == "#!/bin/sh\ntrue\n"
    assert (tmp_path / "slurm-4.sh").stat().st_mode & 0o777 == 0o700
    assert run("write", "batch", "4", "-", ask=ask) == 0
    assert capsys.readouterr().out == "#!/bin/sh\ntrue\n"
    assert run("write", "batch_script", "5", ask=ask) == 1
    assert run("write", "batch_script", "4", "no/such/place", ask=ask) == 1


@pytest.mark.parametrize(
    ("event", "code", "said"),
    [
        ("ready", 0, "scontrol: Nodes are ready for job 4\n"),
        ("exit", 1, "scontrol: Job 4 no longer running\n"),
    ],
)
def test_waiting_for_a_job(event: str, code: int, said: str, capsys: Any) -> None:
    assert run("wait_job", "4", ask=lambda _: {"event": event}) == code
    assert capsys.readouterr().err == said
