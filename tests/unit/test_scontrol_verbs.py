"""scontrol's keywords that change something: what they send, and what they make of the answer."""

from __future__ import annotations

from typing import Any

import pytest

from roadstead.cli import scontrol
from roadstead.errors import RequestError
from tests.support import recorded

Message = dict[str, Any]


class Engine:
    """It notes what it is asked."""

    def __init__(self, **answer: Any) -> None:
        self.heard: list[Message] = []
        self.answer = {"event": "done", "jobs": [], "errors": [], "warnings": [], **answer}

    def __call__(self, request: Message) -> Message:
        self.heard.append(request)
        return self.answer


def run(engine: Any, *argv: str) -> int:
    return scontrol.main(list(argv), engine, environ={}, now=recorded.NOW)


def control(action: str, *jobs: int | str, **more: Any) -> Message:
    return {"op": "control", "action": action, "jobs": list(jobs), **more}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["hold", "7"], control("hold", 7)),
        (["uhold", "7"], control("hold", 7)),
        (["release", "7,8", "9"], control("release", 7, 8, 9)),
        (["release", "JobId=7,8"], control("release", 7, 8)),
        (["hold", "jobname=train", "3"], control("hold", "train", 3)),
        (["hold", "Name=a,b"], control("hold", "a,b")),
        (["requeue", "7"], control("requeue", 7)),
        (["requeuehold", "7"], control("requeue", 7, hold=True)),
        (["suspend", "7"], control("suspend", 7)),
        (["resume", "7"], control("resume", 7)),
        (
            ["update", "JobId=7", "TimeLimit=10", "JobName=a=b"],
            control("update", 7, changes={"timelimit": "10", "name": "a=b"}),
        ),
        (["update", "job=7,8", "Nice=5"], control("update", 7, 8, changes={"nice": "5"})),
        (["update", "jobid=7", "timelimit+=5"], control("update", 7, changes={"timelimit": "+5"})),
        (["update", "jobid=7", "TimeLimit-=5"], control("update", 7, changes={"timelimit": "-5"})),
        (
            ["update", "JobId=7", "PartitionName=p"],
            control("update", 7, changes={"partition": "p"}),
        ),
        (
            ["update", "NodeName=n[1-2]", "State=DRAIN", "Reason=a fan"],
            {"op": "update_node", "nodes": "n[1-2]", "state": "DRAIN", "reason": "a fan"},
        ),
        (
            ["update", "nodename=ALL", "state=resume"],
            {"op": "update_node", "nodes": "ALL", "state": "resume", "reason": ""},
        ),
        (["top", "7"], control("top", 7)),
        (["notify", "7", "hello", "there"], control("notify", 7, sentence="hello there")),
        (
            ["update", "StepId=7.batch", "TimeLimit=5"],
            {"op": "update_step", "job_id": 7, "step_id": 0xFFFFFFFB, "limit": "5"},
        ),
        (
            ["create", "PartitionName=new", "Nodes=n1", "MaxTime=60"],
            {
                "op": "set_partition",
                "name": "new",
                "pairs": {"nodes": "n1", "maxtime": "60"},
                "create": True,
            },
        ),
        (
            ["update", "partition=new", "State=DOWN"],
            {"op": "set_partition", "name": "new", "pairs": {"state": "DOWN"}, "create": False},
        ),
        (["delete", "partition=new"], {"op": "delete_partition", "name": "new"}),
        (["reconfigure"], {"op": "reconfigure"}),
        (["reconf"], {"op": "reconfigure"}),
        (["req", "7"], control("requeue", 7)),
        (["requeueh", "7"], control("requeue", 7, hold=True)),
        (["REL", "7"], control("release", 7)),
        (["sus", "7"], control("suspend", 7)),
        (["u", "jobid=7", "nice=5"], control("update", 7, changes={"nice": "5"})),
    ],
    ids=str,
)
def test_what_is_asked(argv: list[str], message: Message, capsys: Any) -> None:
    engine = Engine()
    assert run(engine, *argv) == 0
    assert engine.heard == [message]
    captured = capsys.readouterr()
    assert captured.out + captured.err == "", "as Slurm: silence is success"


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ("re 7", "invalid keyword: re; "),
        ("hol 7", "invalid keyword: hol; "),
        ("hold", "too few arguments for keyword:hold; scontrol hold JOBID[,JOBID…]"),
        ("suspend x", "Invalid job id specified: x; squeue lists them"),
        ("hold 7,", "Invalid job id specified: ; "),
        ("hold ٣", "Invalid job id specified: ٣"),
        ("hold 1234567890123456789", "Invalid job id specified: 1234567890123456789"),
        ("update", "too few arguments for update keyword; "),
        ("update a=b", "No valid entity in update command; "),
        ("update JobId=7", "No changes specified; scontrol update JobId=7 TimeLimit=10"),
        ("update JobId=7 hello", "Invalid input: hello; write KEY=VALUE"),
        ("update JobId= TimeLimit=1", "Invalid job id specified: ; "),
        ("update NodeName=n1", "No changes specified; State=DRAIN"),
        ("update NodeName=n1 State=DOWN CPUs=4", "Update of this parameter is not supported: cpus"),
        ("reconfigure now", "too many arguments for keyword:reconfigure"),
    ],
)
def test_what_is_not_sent(argv: str, sentence: str, capsys: Any) -> None:
    engine = Engine()
    assert run(engine, *argv.split()) == 1
    assert engine.heard == []
    assert capsys.readouterr().err.startswith(f"scontrol: error: {sentence}")


def test_what_could_not_be_done_is_said_a_line_each(capsys: Any) -> None:
    errors = [{"job_id": 7, "why": "a"}, {"job_id": 9, "why": "b"}]
    assert run(Engine(jobs=[8], errors=errors), "release", "7,8,9") == 1
    assert capsys.readouterr().err == "a for job 7\nb for job 9\n"


def test_warnings_of_a_new_configuration(capsys: Any) -> None:
    assert run(Engine(warnings=["r.conf:1: x means nothing"]), "reconfigure") == 0
    assert "r.conf:1: x means nothing" in capsys.readouterr().err


def test_an_engine_that_refuses(capsys: Any) -> None:
    def refuse(request: Message) -> Message:
        raise RequestError("Invalid node name specified: n9", hint="sinfo -N lists them")

    assert run(refuse, "update", "NodeName=n9", "State=RESUME") == 1
    said = "scontrol: error: Invalid node name specified: n9; sinfo -N lists them\n"
    assert capsys.readouterr().err == said
