"""How runtimes are called, found, and heard."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from roadstead.errors import RuntimeFailure
from roadstead.host import process
from roadstead.oci import conf, runtime
from roadstead.oci.patterns import Substitutions

OPERATIONS: tuple[runtime.Operation, ...] = ("run", "create", "start", "query", "kill", "delete")


def test_the_built_in_commands(tmp_path: Path) -> None:
    made = runtime.BuiltIn("/usr/bin/runc", "id", "/b", os.fspath(tmp_path), "/l:og")
    base = ["/usr/bin/runc", f"--root={tmp_path}", "--log=/l:og", "--log-format=json"]
    tails = {
        "run": ["run", "--bundle=/b", "id"],
        "create": ["create", "--bundle=/b", "id"],
        "start": ["start", "id"],
        "query": ["state", "id"],
        "kill": ["kill", "id", "KILL"],
        "delete": ["delete", "--force", "id"],
    }
    assert {name: made.command(name) for name in OPERATIONS} == {
        name: [*base, *tail] for name, tail in tails.items()
    }
    assert made.removes_itself
    (tmp_path / "id").mkdir()
    assert not made.removes_itself


def test_for_crun_a_colon_does_not_begin_a_kind_of_log() -> None:
    argv = runtime.BuiltIn("/usr/bin/crun", "id", "/b", "/r", "/l:og").command("run")
    assert argv is not None
    assert "--log=file:/l:og" in argv


def configured(text: str) -> runtime.Configured:
    values = Substitutions(
        arguments=("a b", ""), bundle="/b", environment_file="/e", job_id=1, spool_dir="/s",
        node_name="n", rootfs="/r", step_id=2, task_id=3, user="u", uid=4, work_dir="/w",
    )  # fmt: skip
    return runtime.Configured(conf.parse(text, "/etc/oci.conf", lambda path: ""), values)


def test_the_commands_of_an_oci_conf() -> None:
    made = configured(
        'RunTimeRun="/opt/runc --x run %b"\nRunTimeKill="kill -9 %p"\nRunTimeDelete="echo %%p"\n'
    )
    assert (made.mode, made.program) == ("run", "runc")
    assert made.command("run") == ["/bin/sh", "-c", "/opt/runc --x run /b"]
    assert made.command("kill") is None, "there is no process to be killed"
    assert made.command("kill", 55) == ["/bin/sh", "-c", "kill -9 55"]
    assert made.command("delete") == ["/bin/sh", "-c", "echo %p"]
    assert made.command("query") is None


def test_which_runtime(tmp_path: Path) -> None:
    for name in ("crun", "other"):
        (tmp_path / name).touch(0o755)
    path = os.fspath(tmp_path)
    assert runtime.find({"PATH": path}, process.which) == f"{path}/crun"
    asked = {"PATH": path, "ROADSTEAD_RUNTIME": "other"}
    assert runtime.find(asked, process.which) == f"{path}/other"
    with pytest.raises(RuntimeFailure, match="ROADSTEAD_RUNTIME=gone: no such program"):
        runtime.find({"ROADSTEAD_RUNTIME": "gone"}, process.which)
    with pytest.raises(RuntimeFailure, match="no OCI runtime found"):
        runtime.find({}, lambda name, path: None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", ""),
        (b'{"level":"error","msg":"first"}\n{"level":"error","msg":" last\\n"}\n', "last"),
        (b'{"level":"fatal","msg":"x"}\n{"level":"warning","msg":"y"}\nnoise\n[]\n', "x"),
        (b'{"level":"error"}', ""),
        (b'\xff{"level":', ""),
    ],
)
def test_what_a_runtime_complains_of(tmp_path: Path, text: bytes, said: str) -> None:
    log = tmp_path / "log"
    log.write_bytes(text)
    assert runtime.complaint(os.fspath(log)) == said
    assert runtime.complaint(os.fspath(tmp_path / "none")) == ""


@pytest.mark.parametrize(
    ("executable", "is_runtime"),
    [
        ("/usr/bin/crun", True),
        ("/", True),
        ("/memfd:runc_cloned:/proc/self/exe (deleted)", True),
        ("/bin/busybox", False),
        ("/memfd:program (deleted)", False),
    ],
)
def test_a_container_that_is_not_a_program_yet(executable: str, is_runtime: bool) -> None:
    assert runtime.executes(executable) is is_runtime
