"""squeue, against what Slurm 22.05.8 printed (tests/data/slurm-22.05/transcript.txt)."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from roadstead.cli import squeue
from roadstead.core import model
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
    return squeue.main(list(argv), ask, environ=environ, now=recorded.NOW)


@pytest.mark.parametrize("slurm", recorded.commands("squeue"), ids=lambda each: " ".join(each.argv))
def test_it_prints_what_slurm_prints(slurm: Recorded, capsys: Any) -> None:
    code = run(*slurm.argv)
    captured = capsys.readouterr()
    assert (captured.out + captured.err, code) == (slurm.output, slurm.code)


def ids(capsys: Any, *argv: str, **environ: str) -> list[str]:
    """The ids that a command line shows, in order."""
    assert run("-h", "-o", "%i", *argv, ask=recorded.ask, **environ) == 0
    return capsys.readouterr().out.split()


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        ("-j 4", "4"),
        ("-j4 -j5", "5"),
        ("--jobs 4,5", "4 5"),
        ("-j 4.0", "4"),
        ("-j 1", ""),  # ended, and no state was asked for
        ("-j 998,999", ""),
        ("-j 4_1", ""),
        ("-t all", "3 2 1 6 7 4 5"),
        ("-t PD", "6 7"),
        ("-t f,Completed", "2 1"),
        ("-n train,big", "6 4"),
        ("-u 1000", "6 7 4 5"),
        ("-u 1001", ""),
        ("-p debug,other", "6 7 4 5"),
        ("-p other", ""),
        ("-S i", "4 5 6 7"),
        ("-S -i", "7 6 5 4"),
        ("-S t,-i", "7 6 5 4"),
        ("-S +j", "6 7 5 4"),
        ("-S l -t all", "7 5 6 1 2 3 4"),
        ("-s", "4.0 4.batch 5.0"),
        ("-s 4.batch", "4.batch"),
        ("-s -j 5", "5.0"),
        ("-s 4", "4.0 4.batch"),
        ("-s -n steppy", "4.0"),
    ],
)
def test_it_chooses_and_sorts(argv: str, shown: str, capsys: Any) -> None:
    assert ids(capsys, *argv.split()) == shown.split()


def test_me_is_the_user_who_asks(capsys: Any) -> None:
    assert ids(capsys, "--me") == (["6", "7", "4", "5"] if os.getuid() == 1000 else [])


def test_variables_stand_for_options(capsys: Any) -> None:
    assert ids(capsys, SQUEUE_STATES="R", SQUEUE_SORT="-i") == ["5", "4"]
    assert ids(capsys, "-t", "PD", SQUEUE_STATES="R") == ["6", "7"]


def test_the_format_variable_is_for_the_plain_listing(capsys: Any) -> None:
    run(SQUEUE_FORMAT="%i %j", SQUEUE_FORMAT2="state")
    assert capsys.readouterr().out.startswith("JOBID NAME\n")
    run("-l", SQUEUE_FORMAT="%i %j")
    assert "TIME_LIMI" in capsys.readouterr().out
    run("-s", SQUEUE_FORMAT="%i %j")
    assert capsys.readouterr().out.split()[0] == "STEPID"
    run("-O", "state:3", SQUEUE_FORMAT="%i %j")
    assert capsys.readouterr().out.startswith("STA\n")


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ("-j abc", "Invalid job id: abc"),
        ("-t pend", "Invalid job state specified: pend; Valid job states include: PENDING,"),
        ("-S !", "Invalid sort specification: !"),
        ("-o %i -O jobid", "-O (--Format) is incompatible with -o (--format)"),
        ("-O jobid -o %i", "-o (--format) is incompatible with -O (--Format)"),
        ("-l -o %i", "Options -o(--format) and -l(--long) are mutually exclusive"),
        ("-j 4 5", "Unrecognized option: 5"),
    ],
)
def test_errors(argv: str, sentence: str, capsys: Any) -> None:
    assert run(*argv.split()) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"squeue: error: {sentence}")


def test_unknown_columns_are_complained_of_and_printed_as_they_stand(capsys: Any) -> None:
    assert run("-h", "-j", "4", "-o", "%i|%5!x") == 0
    captured = capsys.readouterr()
    assert captured.out == "4|%5!x\n"
    assert captured.err == "squeue: error: Invalid job format specification: !\n"
    assert run("-h", "-s", "5.0", "-O", "nosuch,stepid:4") == 0
    captured = capsys.readouterr()
    assert captured.out == "5.0 \n"
    assert captured.err == "squeue: error: Invalid job step format specification: nosuch\n"


def test_an_unknown_user_shows_nothing(capsys: Any) -> None:
    assert run("-h", "-u", "no such user") == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "squeue: error: Invalid user: no such user\n")


def one(capsys: Any, fields: str, **changes: Any) -> str:
    """What a format gives for a job that differs from job 4 in ``changes``."""
    view = recorded.JOBS[3] | changes
    run("-h", "-t", "all", "-o", fields, ask=lambda _: {"jobs": [view]})
    return str(capsys.readouterr().out.rstrip("\n"))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (59, "0:59"),
        (3599, "59:59"),
        (3600, "1:00:00"),
        (86399, "23:59:59"),
        (90061, "1-01:01:01"),
    ],
)
def test_times(seconds: int, text: str, capsys: Any) -> None:
    assert one(capsys, "%M", start_time=recorded.NOW - seconds) == text
    assert one(capsys, "%l", time_limit=seconds) == text
    assert one(capsys, "%L", time_limit=seconds + 5) == text


def test_time_left(capsys: Any) -> None:
    assert one(capsys, "%l %L", time_limit=None) == "UNLIMITED UNLIMITED"
    assert one(capsys, "%L", time_limit=4) == "INVALID"


@pytest.mark.parametrize(
    ("state", "letters", "where"),
    [
        ("PENDING", "PD", "(Why)"),
        ("COMPLETING", "CG", "n1"),
        ("COMPLETED", "CD", "n1"),
        ("CANCELLED", "CA", "n1"),
        ("TIMEOUT", "TO", "(Why)"),
        ("OUT_OF_MEMORY", "OOM", "(Why)"),
        ("NODE_FAIL", "NF", "n1"),
    ],
)
def test_states(state: str, letters: str, where: str, capsys: Any) -> None:
    shown = one(capsys, "%t %T %R", state=state, reason="Why")
    assert shown == f"{letters} {state} {where}"


def test_end_of_a_job(capsys: Any) -> None:
    assert one(capsys, "%S %e") == "2026-11-23T19:11:14 2026-11-24T21:14:14"
    assert one(capsys, "%S %e", start_time=None, end_time=None) == "N/A N/A"


def test_a_run_lasts_from_the_one_time_shown_to_the_other(capsys: Any) -> None:
    start, end = recorded.at("19:11:10") + 0.9, recorded.at("19:11:11") + 0.1
    shown = one(capsys, "%S %e %M", state="FAILED", start_time=start, end_time=end)
    assert shown == "2026-11-23T19:11:10 2026-11-23T19:11:11 0:01"


def test_a_job_that_ended_before_it_started(capsys: Any) -> None:
    ended = {"state": "CANCELLED", "start_time": None, "end_time": recorded.at("19:11:20")}
    assert one(capsys, "%S %e %M", **ended) == "2026-11-23T19:11:20 2026-11-23T19:11:20 0:00"


def test_priority_as_a_fraction(capsys: Any) -> None:
    assert one(capsys, "%p %Q", priority=4294901756) == "0.99998474051244 4294901756"


def test_memory_is_converted_where_that_is_exact_to_a_half(capsys: Any) -> None:
    shown = [one(capsys, "%m", memory=mib) for mib in (0, 100, 1024, 1536, 2000, 2048, 1 << 20)]
    assert shown == ["0", "100M", "1G", "1.50G", "2000M", "2G", "1T"]


def test_time_format(capsys: Any) -> None:
    def shown(style: str, moment: float) -> str:
        view = recorded.JOBS[3] | {"submit_time": moment}
        run("-h", "-o", "%V", ask=lambda _: {"jobs": [view]}, SLURM_TIME_FORMAT=style)
        return str(capsys.readouterr().out.strip())

    day = 86400
    assert shown("standard", recorded.NOW) == "2026-11-23T19:11:19"
    assert shown("%s", recorded.NOW) == str(int(recorded.NOW))
    assert [shown("relative", recorded.NOW + days * day) for days in (0, 1, -1, 6, 7, 100)] == [
        "19:11:19",
        "Tomorr 19:11",
        "Ystday 19:11",
        "Sun 19:11",
        "30 Nov 19:11",
        "3 Mar 2027",
    ]


def test_containers_are_columns_of_jobs_and_steps(capsys: Any) -> None:
    fields = "Container:14,ContainerID:5"
    labelled = recorded.JOBS[4] | {"container_id": "box"}
    run("-h", "-O", fields, ask=lambda _: {"jobs": [labelled, recorded.JOBS[3]]})
    assert capsys.readouterr().out == "(null)        (null\n/srv/bundle   box  \n"
    run("-h", "-s", "5.0", "-O", fields)
    assert capsys.readouterr().out == "/srv/bundle   (null\n"


def test_steps_that_wait_are_not_shown(capsys: Any) -> None:
    waiting = recorded.step(4, 1, "x", state="PENDING", start_time=None)
    run("-h", "-s", "-o", "%i", ask=lambda _: {"steps": [*recorded.STEPS, waiting]})
    assert capsys.readouterr().out.split() == ["4.0", "4.batch", "5.0"]


def test_steps_without_a_number_are_those_of_the_model(capsys: Any) -> None:
    numbers = (model.BATCH_STEP, model.INTERACTIVE_STEP, model.EXTERN_STEP)
    steps = [recorded.step(4, number, "x") for number in numbers]
    run("-h", "-s", "-o", "%i", ask=lambda _: {"steps": steps})
    assert capsys.readouterr().out.split() == ["4.interactive", "4.batch", "4.extern"]


def test_what_the_controller_is_asked(capsys: Any) -> None:
    requests, lean = [], []

    def ask(request: dict[str, Any]) -> dict[str, Any]:
        requests.append(request)
        lean.append(request.pop("fields", None) is not None)
        return recorded.ask(request)

    run(ask=ask)
    run("-j", "4", ask=ask)
    run("-j", "4,4", ask=ask)
    run("-t", "all", ask=ask)
    assert requests == [
        {"op": "query", "what": "jobs", "job_id": None, "all": False},
        {"op": "query", "what": "jobs", "job_id": 4, "all": True},
        {"op": "query", "what": "jobs", "job_id": None, "all": True},
        {"op": "query", "what": "jobs", "job_id": None, "all": True},
    ]
    assert lean == [True, False, True, True]


def test_names_that_are_not_utf8_come_out_as_they_are(capfdbinary: Any) -> None:
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    run("-h", "-o", "%j", ask=lambda _: {"jobs": [recorded.JOBS[3] | {"name": name}]})
    assert capfdbinary.readouterr().out == b"caf\xe9\n"


def test_all_columns_that_have_a_letter(capsys: Any) -> None:
    run("-j", "4", "-o", "%all")
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.startswith(
        "ACCOUNT|TRES_PER_NODE|MIN_CPUS|MIN_TMP_DISK|END_TIME|FEATURES|GROUP|"
    )
    assert heading.endswith("|LICENSES|CORE_SPEC|SCHEDNODES|WORK_DIR")
    assert row.count("|") == heading.count("|")


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        ("-A science", "4"),
        ("-A nobody", ""),
        ("-q high,low", "5"),
        ("-L foo", "4"),
        ("-L bar", ""),
        ("-R any", ""),
        ("-w n1", "4 5"),
    ],
)
def test_it_chooses_by_labels(argv: str, shown: str, capsys: Any) -> None:
    jobs = [
        recorded.JOBS[3] | {"account": "science", "licenses": "foo:2"},
        recorded.JOBS[4] | {"qos": "high"},
    ]
    answer = {"jobs": jobs, "nodes": [recorded.NODE]}
    run("-h", "-o", "%i", *argv.split(), ask=lambda _: answer)
    assert capsys.readouterr().out.split() == shown.split()


def test_a_node_that_is_not_there(capsys: Any) -> None:
    assert run("-w", "nosuch") == 1
    assert capsys.readouterr().err.startswith("squeue: error: Invalid node name nosuch")


def test_expected_starts(capsys: Any) -> None:
    def ask(request: dict[str, Any]) -> dict[str, Any]:
        assert request["expected"]
        planned = {"start_time": recorded.at("20:00:00"), "planned_nodes": "n1"}
        return {"jobs": [recorded.JOBS[5] | planned, recorded.JOBS[3]]}

    run("--start", "-h", ask=ask)
    shown = capsys.readouterr().out.split()
    assert shown[0] == "6"
    assert shown[5:8] == ["2026-11-23T20:00:00", "1", "n1"]


@pytest.mark.parametrize("text", ["0", "x", ""])
def test_iterating_wants_seconds(text: str, capsys: Any) -> None:
    assert run("-i", text) == 1
    assert capsys.readouterr().err.startswith(f"squeue: error: --iterate={text}")


def test_the_one_cluster_can_be_named(capsys: Any) -> None:
    run("-M", "local", "-j", "4", "-o", "%i")
    assert capsys.readouterr().out == "CLUSTER: local\nJOBID\n4\n"
    run("-M", "all", "-h", "-j", "4", "-o", "%i")
    assert capsys.readouterr().out == "4\n"
    assert run("-M", "local,other") == 1
    sentence = "squeue: error: No cluster 'other' known by database.; "
    assert capsys.readouterr().err.startswith(sentence)
