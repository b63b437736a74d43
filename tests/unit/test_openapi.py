"""--json and --yaml, against the documents that Slurm 22.05.8 printed.

tests/data/slurm-22.05/*.json are what squeue, sinfo and sacct printed while accounting.sh ran, with
another user's name and directory.  Values differ from run to run: keys, their order and the kinds
of values are what a program relies on.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from roadstead.cli import openapi, sacct, sinfo, squeue
from tests.support import recorded

DATA = recorded.TRANSCRIPT.parent


def shape(value: Any) -> Any:
    """A value without what differs from run to run; what may be missing is None."""
    match value:
        case dict():
            return {name: shape(each) for name, each in value.items()}
        case list():
            return [shape(value[0])] if value else None
        case None | "":
            return None
        case bool():
            return "bool"
        case int() | float():
            return "number"
    return "text"


def differences(ours: Any, theirs: Any, where: str = "") -> list[str]:
    """Where two shapes disagree; None agrees with everything."""
    if ours is None or theirs is None:
        return []
    if isinstance(ours, dict) and isinstance(theirs, dict):
        if list(ours) != list(theirs):
            return [f"{where}: {list(ours)} {list(theirs)}"]
        return [
            each
            for name in ours
            for each in differences(ours[name], theirs[name], f"{where}.{name}")
        ]
    if isinstance(ours, list) and isinstance(theirs, list):
        return differences(ours[0], theirs[0], f"{where}[]")
    return [] if ours == theirs else [f"{where}: {ours} {theirs}"]


def history(request: dict[str, Any]) -> dict[str, Any]:
    step = {
        "step_id": 0xFFFFFFFB, "name": "batch", "state": "COMPLETED", "submit_time": 1.0,
        "start_time": recorded.at("19:11:11"), "end_time": recorded.NOW, "exit_code": 0,
        "exit_signal": 0, "nodes": 1, "node": "n1", "cpus": 1, "memory": 100, "ntasks": 1, "pid": 0,
        "container": "", "argv": [], "user_seconds": 0.25, "system_seconds": 0.5,
        "max_rss_kib": 3076, "measured": True,
    }  # fmt: skip
    ended = recorded.job(1, "ok", state="COMPLETED", end_time=recorded.NOW)
    return {"jobs": [ended | {"steps": [step]}]}


COMMANDS = {
    "squeue": (squeue, ["-j", "4"], recorded.ask),
    "sinfo": (sinfo, [], recorded.ask),
    "sacct": (sacct, ["-j", "1"], history),
}


def told(name: str, option: str, capsys: Any) -> str:
    command, argv, ask = COMMANDS[name]
    assert command.main([option, *argv], ask, environ={}, now=recorded.NOW) == 0
    return str(capsys.readouterr().out)


@pytest.mark.parametrize("name", COMMANDS)
def test_documents_have_slurms_shape(name: str, capsys: Any) -> None:
    ours = json.loads(told(name, "--json", capsys))
    theirs = json.loads((DATA / f"{name}.json").read_text())
    assert ours["meta"] == theirs["meta"]
    assert differences(shape(ours), shape(theirs)) == []


@pytest.mark.parametrize("name", COMMANDS)
def test_yaml_says_the_same(name: str, capsys: Any) -> None:
    found = json.loads(told(name, "--json", capsys))
    lines = told(name, "--yaml", capsys).splitlines()
    assert lines[:2] == ["%YAML 1.1", "--- !!map"]
    assert lines[-1] == "..."
    values = [line.rpartition("!!null")[2] for line in lines if "!!null" in line]
    assert len(lines) > len(found["meta"])
    assert set(values) == {" null"}


def test_text_in_yaml() -> None:
    values = {"a": "n1", "b": "two words", "c": "null: #x", "d": "", "e": ["x"], "f": [], "g": {}}
    text = openapi.text({"m": values}, yaml=True).splitlines()[3:-1]
    assert [line.strip() for line in text] == [
        "!!str a: !!str n1",
        '!!str b: !!str "two words"',
        '!!str c: !!str "null: #x"',
        "!!str d: !!null null",
        "!!str e: !!seq",
        "- !!str x",
        "!!str f: !!seq []",
        "!!str g: !!map {}",
    ]


def test_bytes_that_are_no_text_do_not_spoil_a_document() -> None:
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert json.loads(openapi.text({"name": name}, yaml=False)) == {"name": "caf\ufffd"}


def test_the_end_of_a_job_is_a_wait_status(capsys: Any) -> None:
    def ask(request: dict[str, Any]) -> dict[str, Any]:
        ends = {"exit_code": 4, "exit_signal": 0}, {"exit_code": 0, "exit_signal": 15}
        return {"jobs": [recorded.job(i, "x", state="FAILED", **end) for i, end in enumerate(ends)]}

    squeue.main(["--json"], ask, environ={}, now=recorded.NOW)
    found = json.loads(capsys.readouterr().out)["jobs"]
    assert [job["exit_code"] for job in found] == [1024, 15]
