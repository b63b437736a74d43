"""`roadstead jobs`: what agents write down, how it is put together, and how it is shown."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from roadstead.agent import accounting as agents
from roadstead.agent.check import Answer
from roadstead.cli import jobs, jobs_cluster
from roadstead.engines.slurm import accounting, comment, records
from roadstead.errors import CommandNotFound, RequestError, UsageError

DIGEST = "sha256:0123456789abcdef0123"


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """A submitter, whose node has a cache of its own."""
    conf = tmp_path / "slurm.conf"
    conf.write_text("ClusterName=Big # ours\n")
    tmp_path.chmod(0o700)
    return {
        "HOME": str(tmp_path),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "ROADSTEAD_NODE_CACHE": str(tmp_path / "cache"),
        "SLURM_CONF": str(conf),
    }


def task(home: dict[str, str], told: dict[str, Any], **env: str) -> agents.Task:
    own = {
        "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURMD_NODENAME": "n1",
        "SLURM_CLUSTER_NAME": "big", "SLURM_JOB_NAME": "app",
    }  # fmt: skip
    about = {"options": {"container": "docker://a"}, "image": {"digest": DIGEST}}
    return agents.Task({**about, **told}, {**home, **own, **env}, "task")


def written(home: dict[str, str], **which: Any) -> dict[int, Any]:
    return accounting.steps(accounting.entries(home, **which))


def test_a_task_from_begin_to_end(home: dict[str, str]) -> None:
    place = records.place(home)
    one = task(home, {"records": place, "staging": {"bytes": 1 << 20, "nodes": 2, "seconds": 0.5}})
    two = task(home, {"records": place}, SLURM_PROCID="1", SLURMD_NODENAME="n2")
    before = written(home)[7]["steps"]["0"]
    assert [each["end"] for each in before["tasks"].values()] == [None, None]
    one.exited(0)
    two.exited(-9)
    job = written(home)[7]
    step = job["steps"]["0"]
    assert (job["name"], step["container"], step["image"]) == ("app", "docker://a", DIGEST)
    assert step["staging"]["nodes"] == 2
    ends = [(each["node"], each["code"], each["signal"]) for each in step["tasks"].values()]
    assert ends == [("n1", 0, 0), ("n2", 137, 9)]
    assert step["tasks"][1]["reason"] == "program"


def test_a_task_that_could_not_be_run(home: dict[str, str]) -> None:
    one = task(home, {"records": records.place(home)})
    one.failed(CommandNotFound("nosuch: not found in the container", hint="look"))
    (found,) = written(home)[7]["steps"]["0"]["tasks"].values()
    assert (found["code"], found["reason"]) == (127, "launch")
    assert (found["message"], found["hint"]) == ("nosuch: not found in the container", "look")


def test_records_are_where_the_submitter_reads_or_on_the_node(home: dict[str, str]) -> None:
    """A place with the same name on a node that does not share it has another token."""
    task(home, {"records": f"{home['XDG_STATE_HOME']}/roadstead/records.of-elsewhere"}).exited(3)
    assert written(home) == {}
    day = agents.day(time.time())
    own = Path(home["ROADSTEAD_NODE_CACHE"]) / "records" / day / "n1"
    assert len(own.read_bytes().splitlines()) == 2
    assert own.parent.parent.stat().st_mode & 0o777 == 0o700


def test_what_is_on_a_node_is_copied_as_it_grows(home: dict[str, str]) -> None:
    one = task(home, {})
    for count in (1, 2, 2):
        asked = accounting.copied(["n1", "n2"], accounting.lately(), home)
        assert len(asked) == 4
        answer = Answer(node="n1", records=agents.answer(asked, "n1", home))
        accounting.store(asked, [answer], home)
        tasks = written(home)[7]["steps"]["0"]["tasks"]
        assert (tasks[0]["end"] is None) == (count == 1)
        if count == 1:
            one.exited(0)
    assert sum(len(text) for text in answer.records.values()) == 0


def test_somebody_elses_directory_is_not_written_to(home: dict[str, str]) -> None:
    cache = Path(home["ROADSTEAD_NODE_CACHE"])
    (cache / "records").mkdir(parents=True)
    cache.chmod(0o777)
    task(home, {}).exited(0)
    assert list((cache / "records").iterdir()) == []


def test_a_day_that_begins_ends_an_old_one(home: dict[str, str]) -> None:
    place = Path(records.place(home))
    (place / "2001-01-01").mkdir()
    task(home, {"records": str(place)})
    assert [each.name for each in place.iterdir()] == [agents.day(time.time())]


def test_lines_that_are_not_whole_or_of_another_cluster_do_not_count(home: dict[str, str]) -> None:
    place = records.place(home)
    task(home, {"records": place})
    task(home, {"records": place}, SLURM_CLUSTER_NAME="other", SLURM_JOB_ID="8")
    (file,) = Path(place).glob("*/n1")
    with file.open("a") as out:
        out.write('{"event":"end","job":7\n[]\n{"event":"en')
    assert list(written(home)) == [7]


def test_which_jobs_are_read(home: dict[str, str]) -> None:
    place = records.place(home)
    for number, array in (("70", ""), ("71", "7_1"), ("7", "")):
        more = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1"} if array else {}
        task(home, {"records": place}, SLURM_JOB_ID=number, **more)
    assert sorted(written(home, jobs=[7])) == [7, 71]
    assert written(home, since=time.time() + 2 * 86400) == {}


def test_the_last_time_of_a_requeued_job_counts(home: dict[str, str]) -> None:
    place = records.place(home)
    task(home, {"records": place}).exited(1)
    task(home, {"records": place}, SLURM_RESTART_COUNT="1")
    (found,) = written(home)[7]["steps"]["0"]["tasks"].values()
    assert found["end"] is None


STATES = [
    ([0, 0], "RUNNING", "COMPLETED", 0, 0),
    ([0, 3], "", "FAILED", 3, 0),
    ([3, -15], "FAILED", "CANCELLED", 0, 15),
    ([0, None], "RUNNING", "RUNNING", 0, 0),
    ([None], "TIMEOUT", "TIMEOUT", 0, 0),
    ([None], "COMPLETED", "UNKNOWN", 0, 0),
    ([None], "", "UNKNOWN", 0, 0),
]


@pytest.mark.parametrize(("ends", "state", "wanted", "code", "signal"), STATES)
def test_the_state_of_a_step(
    home: dict[str, str], ends: list[int | None], state: str, wanted: str, code: int, signal: int
) -> None:
    for number, end in enumerate(ends):
        one = task(home, {"records": records.place(home)}, SLURM_PROCID=str(number))
        if end is not None:
            one.exited(end)
    job = jobs_cluster._job(7, {"state": state} if state else {}, written(home)[7])
    (step,) = job["steps"]
    assert (step["state"], step["code"], step["signal"]) == (wanted, code, signal)
    assert (step["end"] is None) == (None in ends)


def test_squeues_rows() -> None:
    sep = "\x1f"
    output = (
        sep.join(("8", "7_1", "PENDING", "N/A", "N/A", "", "a|b", "container=docker://a b"))
        + f"\nnot a row\n9{sep}9\n"
    )
    assert accounting._rows(output.encode()) == {
        8: {
            "id": "7_1", "state": "PENDING", "start": None, "end": None, "nodes": "",
            "name": "a|b", "container": "docker://a b",
        }
    }  # fmt: skip


COMMENTS = [
    ("docker://a", (), "", [("comment", "container=docker://a")]),
    ("docker://a", ("comment",), "", []),
    ("docker://a", (), "JobComment=none\n", []),
    ("", (), "", []),
    ("/a\nb", (), "", []),
    ("/" + "x" * 600, (), "", []),
]


@pytest.mark.parametrize(("reference", "named", "conf", "wanted"), COMMENTS)
def test_the_comment(
    tmp_path: Path, reference: str, named: tuple[str, ...], conf: str, wanted: list[Any]
) -> None:
    path = tmp_path / "roadstead.conf"
    path.write_text(conf)
    assert comment.pairs(reference, named, {"ROADSTEAD_CONF": str(path)}) == wanted


def test_a_users_own_comment_names_no_container() -> None:
    assert comment.reference("container=/b") == "/b"
    assert comment.reference("for the paper") == ""


# -- the command -----------------------------------------------------------------------------------

LOCAL = {
    "job_id": 12, "array_job_id": None, "array_task_id": None, "name": "app", "state": "FAILED",
    "container": "", "start_time": 1000.0, "end_time": 1065.0, "node": "laptop",
    "steps": [
        {
            "step_id": 0, "state": "FAILED", "start_time": 1000.0, "end_time": 1065.0,
            "exit_code": 3, "exit_signal": 0, "container": "docker://a:1", "image": DIGEST,
            "node": "laptop", "ntasks": 2,
            "tasks": [
                {"procid": 0, "code": 0, "signal": 0, "reason": "program", "message": "",
                 "hint": "", "pid": 1, "node": ""},
                {"procid": 1, "code": 3, "signal": 0, "reason": "program", "message": "",
                 "hint": "", "pid": 2, "node": ""},
            ],
        },
        {"step_id": 1, "container": "", "start_time": 1.0},
    ],
}  # fmt: skip


def run(*words: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    asked: list[Any] = []

    def ask(query: Any) -> Any:
        asked.append(query)
        return {"jobs": [LOCAL]}

    environ = {"ROADSTEAD_ENGINE": "local", "SLURM_TIME_FORMAT": "%s"}
    assert jobs.main([*words], ask, environ=environ, now=2000.0) == 0
    return capsys.readouterr().out.splitlines()


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    head, row = run(capsys=capsys)
    assert head.split() == [
        "JOB", "STATE", "EXIT", "START", "ELAPSED", "NODES", "TASKS", "STAGED", "IMAGE", "CONTAINER"
    ]  # fmt: skip
    wanted = "12.0 FAILED 3:0 1000 00:01:05 laptop 2 in place 0123456789ab docker://a:1"
    assert row.split() == wanted.split()


def test_a_row_a_task(capsys: pytest.CaptureFixture[str]) -> None:
    _, first, second = run("--tasks", "12", capsys=capsys)
    assert first.split() == ["12.0", "0", "laptop", "0:0", "1000", "00:01:05", "program"]
    assert second.split()[:4] == ["12.0", "1", "laptop", "3:0"]


WRONG = [
    (["x"], RequestError, "Invalid job id: x"),
    (["--nosuch"], UsageError, "jobs does not know --nosuch"),
    (["--since"], UsageError, "--since needs a value"),
    (["--since=x"], UsageError, "Invalid time specification"),
    (["--tasks=1"], UsageError, "jobs does not know --tasks=1"),
    (["--nodes=n1"], UsageError, "--nodes goes with --fetch"),
    (["--fetch"], UsageError, "--fetch needs a job"),
    (["--fetch", "7"], RequestError, "--fetch is about a Slurm cluster"),
    (["12.7"], RequestError, "no container job 12.7 is known"),
    (["13"], RequestError, "no container job 13 is known"),
]


@pytest.mark.parametrize(("words", "kind", "sentence"), WRONG)
def test_mistakes(words: list[str], kind: type[Exception], sentence: str) -> None:
    environ = {"ROADSTEAD_ENGINE": "local"}
    with pytest.raises(kind, match=sentence) as found:
        jobs.main(words, lambda query: {"jobs": [LOCAL]}, environ=environ)
    assert getattr(found.value, "hint", "")


def test_a_staging_is_shown() -> None:
    assert jobs.staged({}) == "in place"
    assert jobs.staged({"nodes": 0, "bytes": 0, "seconds": 0.1}) == "before"
    assert jobs.staged({"nodes": 2, "bytes": 210 << 20, "seconds": 1.44}) == "210 MiB 1.4s"


def test_the_place_of_records_is_made_once(home: dict[str, str]) -> None:
    first = records.place(home)
    assert records.place(home) == first
    assert os.stat(first).st_mode & 0o777 == 0o700
