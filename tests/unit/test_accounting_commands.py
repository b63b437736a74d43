"""sstat, sprio, sshare, sreport, sacctmgr, sdiag and roadstead seff: their tables and errors.

Headings and lists of fields are what Slurm 22.05.8 printed (tests/data/slurm-22.05/accounting.sh).
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from roadstead.cli import processes, sacctmgr, sdiag, seff, sprio, sreport, sshare, sstat
from roadstead.errors import RoadsteadError
from tests.support import recorded

NOW = recorded.NOW


@pytest.fixture(autouse=True)
def _in_utc(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


TASK = {
    "procid": 0, "localid": 0, "node": "n1", "pids": [705, 706], "cpu_seconds": 10.4,
    "rss": 1636 * 1024, "virtual": 2592 * 1024,
}  # fmt: skip
CONFIG = {
    "PriorityWeightAge": "1000", "PriorityWeightJobSize": "0", "PriorityWeightPartition": "0",
    "SlurmUser": "alice(1000)", "AccountingStorageType": "accounting_storage/none",
    "SLURM_CONF": "(null)", "SLURM_VERSION": "22.05.8",
}  # fmt: skip
WAITING = {
    "job_id": 12, "array_job_id": None, "array_task_id": None, "user": "alice", "uid": 1000,
    "partition_name": "local", "priority": 10123, "site": 10000.0, "age": 123.4, "size": 0.0,
    "partition": 0.0, "nice": 0.0,
}  # fmt: skip


def ended(job_id: int, seconds: int = 100, **changes: Any) -> dict[str, Any]:
    """A job that ended yesterday at noon, and used half of its CPU."""
    end = recorded.at("12:00:00", 22)
    step = {
        "step_id": 0xFFFFFFFB, "name": "batch", "state": "COMPLETED", "start_time": end - seconds,
        "end_time": end, "exit_code": 0, "exit_signal": 0, "user_seconds": seconds / 4,
        "system_seconds": seconds / 4, "max_rss_kib": 51200, "ntasks": 1, "measured": True,
    }  # fmt: skip
    job = recorded.job(job_id, "x", state="COMPLETED", start_time=end - seconds, end_time=end)
    return job | {"batch_host": "n1", "steps": [step], **changes}


def ask(request: dict[str, Any]) -> dict[str, Any]:
    match request["what"]:
        case "steps":
            return {"steps": recorded.STEPS}
        case "config":
            return {"config": CONFIG, "pending": 3}
        case "priorities":
            return {"priorities": [WAITING | {"job_id": 9, "nice": 5.0, "user": "bob"}, WAITING]}
        case "nodes":
            return {"nodes": [recorded.NODE]}
    return {"jobs": [ended(1), ended(2, 50, user="bob", account="science"), recorded_running()]}


def recorded_running() -> dict[str, Any]:
    return recorded.JOBS[3] | {"steps": []}


@pytest.fixture(autouse=True)
def _measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the steps' supervisors would say."""
    monkeypatch.setattr(processes, "usage", lambda view: [TASK])


def run(command: Any, argv: str, capsys: Any, code: int = 0) -> tuple[str, str]:
    assert command.main(argv.split(), ask, environ={}, now=NOW) == code
    captured = capsys.readouterr()
    return captured.out, captured.err


def lines(command: Any, argv: str, capsys: Any) -> list[str]:
    return [" ".join(line.split()) for line in run(command, argv, capsys)[0].splitlines()]


def test_sstat(capsys: Any) -> None:
    heading, _, row = run(sstat, "-j 4", capsys)[0].splitlines()
    assert heading.startswith(
        "JobID         MaxVMSize  MaxVMSizeNode  MaxVMSizeTask  AveVMSize     MaxRSS MaxRSSNode"
    )
    assert row.split()[:9] == ["4.0", "2592K", "n1", "0", "2592K", "1636K", "n1", "0", "1636K"]
    shown = lines(sstat, "-P -a -j 4 -o jobid,ntasks,avecpu,mincpu,pids,nodelist", capsys)
    assert shown[1:] == [
        "4.batch|1|00:00:10|00:00:10|705,706|n1",
        "4.0|1|00:00:10|00:00:10|705,706|n1",
    ]
    assert lines(sstat, "-n -P -i -j 4.batch", capsys) == ["4.batch|n1|705,706"]
    listed = run(sstat, "-e", capsys)[0].splitlines()
    assert listed[0] == (
        "AveCPU              AveCPUFreq          AveDiskRead         AveDiskWrite       "
    )
    assert listed[-1] == "TRESUsageOutMinNode TRESUsageOutMinTask TRESUsageOutTot    "


def test_sprio(capsys: Any) -> None:
    assert run(sprio, "-j 12", capsys)[0] == (
        "          JOBID PARTITION   PRIORITY       SITE        AGE\n"
        "             12 local          10123      10000        123\n"
    )
    assert lines(sprio, "-l -h -u bob", capsys) == ["9 local bob 10123 10000 123 0 0 0 0 0 5"]
    assert lines(sprio, "-w", capsys)[1] == "Weights 0 1 1000"
    assert lines(sprio, "-h -S -N -o %i", capsys) == ["9", "12"]
    assert lines(sprio, "-n -h -j 12 -o %a|%y", capsys) == ["0.1234000|0.00000235694461"]
    assert lines(sprio, "-j 999", capsys) == ["Unable to find jobs matching user/id(s) specified"]
    assert "Invalid job id: abc" in run(sprio, "-j abc", capsys, 1)[1]


def test_sshare_has_nothing_under_its_headings(capsys: Any) -> None:
    assert run(sshare, "", capsys)[0].splitlines()[0] == (
        "Account                    User  RawShares  NormShares    RawUsage  EffectvUsage"
        "  FairShare "
    )
    assert run(sshare, "-U --format Account%256 --noheader", capsys) == ("", "")
    assert run(sshare, "-e", capsys)[0].splitlines()[0] == (
        "Account           Cluster           EffectvUsage      FairShare        "
    )


def test_sreport(capsys: Any) -> None:
    shown = run(sreport, "cluster utilization", capsys)[0].splitlines()
    assert shown[1:3] == [
        "Cluster Utilization 2026-11-22T00:00:00 - 2026-11-22T23:59:59",
        "Usage reported in CPU Minutes",
    ]
    assert shown[4] == "  Cluster Allocate     Down PLND Dow     Idle  Planned Reported "
    assert shown[6].split()[1:] == ["2", "0", "0", "2878", "0", "2880"]
    assert lines(sreport, "-n -t seconds user top", capsys) == [
        "local alice 100 0",
        "local bob science 50 0",
    ]
    title = run(sreport, "job sizesbyaccount start=2026-11-22 end=2026-11-23", capsys)[0]
    assert "Job Sizes 2026-11-22T00:00:00 - 2026-11-22T23:59:59 (86400 secs)" in title
    assert (
        lines(sreport, "-P -t hours cl account start=2026-11-01 format=used", capsys)[0] == "Used"
    )
    for argv, sentence in (
        ("nonsense", "invalid keyword: nonsense; the reports here are"),
        ("user top begin=1", "begin: reports are of the whole engine"),
        ("-t x user top", "Invalid time format: x"),
        ("user top start=now end=today", "the start of the period is not before its end"),
    ):
        assert sentence in run(sreport, argv, capsys, 1)[1]


def test_sacctmgr(capsys: Any) -> None:
    assert lines(sacctmgr, "show cluster", capsys)[0].startswith("Cluster ControlHost ControlPort")
    assert lines(sacctmgr, "-n -s list user alice format=account%256", capsys) == [""]
    assert lines(sacctmgr, "-P show user", capsys) == ["User|Def Acct|Admin", "alice||None"]
    assert lines(sacctmgr, "-n show user nosuch", capsys) == []
    assert lines(sacctmgr, "-P -n show tres", capsys)[0] == "cpu||1"
    assert lines(sacctmgr, "-P show qos format=name", capsys) == ["Name"]
    assert "AccountingStorageType = accounting_storage/none" in lines(sacctmgr, "show conf", capsys)
    assert run(sacctmgr, "show nonsense", capsys, 1)[1].startswith(
        'No valid entity in list command\nInput line must include "Account", '
    )
    for argv, sentence in (
        ("nonsense", "invalid keyword: nonsense"),
        ("add account other", "add: the local engine keeps no accounts"),
        ("", "no keyword given"),
    ):
        assert sentence in run(sacctmgr, argv, capsys, 1)[1]


def test_sdiag(capsys: Any) -> None:
    shown = lines(sdiag, "", capsys)
    assert "sdiag output at Mon Nov 23 19:11:19 2026 (1795461079)" in shown
    assert {"Jobs submitted: 3", "Jobs running: 1", "Last queue length: 3"} <= set(shown)


def test_seff(capsys: Any) -> None:
    def one(request: dict[str, Any]) -> dict[str, Any]:
        assert request["jobs"] == [1]
        return {"jobs": [ended(1, cpus=2)]}

    assert seff.main(["1"], one, environ={}, now=NOW) == 0
    assert capsys.readouterr().out == (
        "Job ID: 1\n"
        "Cluster: local\n"
        "User/Group: alice/alice\n"
        "State: COMPLETED (exit code 0)\n"
        "Cores: 2\n"
        "CPU Utilized: 00:00:50\n"
        "CPU Efficiency: 25.00% of 00:03:20 core-walltime\n"
        "Job Wall-clock time: 00:01:40\n"
        "Memory Utilized: 50.00 MB\n"
        "Memory Efficiency: 50.00% of 100.00 MB\n"
    )
    for operands in ([], ["x"], ["1", "2"]):
        with pytest.raises(RoadsteadError):
            seff.main(operands, one, environ={}, now=NOW)
    with pytest.raises(RoadsteadError, match="Job not found: 7"):
        seff.main(["7"], lambda _: {"jobs": []}, environ={}, now=NOW)


@pytest.mark.parametrize(
    ("command", "argv", "sentence"),
    [
        (sstat, "", "sstat: error: You didn't give me any jobs to stat."),
        (sstat, "-j abc", "sstat: error: Bad job/step specified: abc"),
        (sstat, "-j 4 -o nonsense", 'sstat: error: Invalid field requested: "nonsense"'),
        (sprio, "extra", "sprio: error: Unrecognized option: extra"),
        (sdiag, "-r", "sdiag: error: --reset: what is counted comes from the journal"),
    ],
)
def test_errors(command: Any, argv: str, sentence: str, capsys: Any) -> None:
    assert run(command, argv, capsys, 1)[1].startswith(sentence)


def test_a_job_without_steps(capsys: Any) -> None:
    out, err = run(sstat, "-n -j 4,12", capsys)
    assert [line.split()[0] for line in out.splitlines()] == ["4.0"]
    assert err == "sstat: error: No steps running for job 12\n"
