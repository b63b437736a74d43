"""What srun says and does while it attends a step."""

from __future__ import annotations

import os
import select
import signal
from typing import Any

import pytest

from roadstead.cli import attend
from roadstead.cli.attend import Attendance
from roadstead.errors import RoadsteadError
from roadstead.host import wire


def task(procid: int, code: int, **more: Any) -> dict[str, Any]:
    return {"procid": procid, "code": code, "signal": 0, "message": "", "hint": "", **more}


def attendance(**options: Any) -> Attendance:
    return Attendance("srun", {"options": {}}, verbose=0, quiet=False, **options)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([0], "0"), ([2, 0, 1], "0-2"), ([5, 0, 1, 3], "0-1,3,5"), ([7, 9, 8, 1], "1,7-9")],
)
def test_ranges(numbers: list[int], text: str) -> None:
    assert attend._ranges(numbers) == text


def test_the_end_is_told_by_groups(capsys: pytest.CaptureFixture[str]) -> None:
    tasks = [
        task(0, 0), task(1, 3), task(2, 143, signal=15), task(3, 3), task(4, 3),
        task(5, 1, message="a file", hint="mend it"), task(6, 1, message="a file", hint="mend it"),
    ]  # fmt: skip
    answer = {"event": "exit", "code": 143, "node": "host", "record": {"tasks": tasks}}
    assert attendance()._on_answer(answer) == 143
    assert capsys.readouterr().err.splitlines() == [
        "srun: error: a file; mend it",
        "srun: error: host: tasks 1,3-4: Exited with exit code 3",
        "srun: error: host: task 2: Terminated",
    ]


def test_notices(capsys: pytest.CaptureFixture[str]) -> None:
    made = attendance()
    for sentence in ("quiet", "warning: odd", "error: *** STEP ***", "Job 5 is dear"):
        made._on_answer({"event": "notice", "sentence": sentence})
    made._on_answer({"event": "of a newer controller"})
    assert capsys.readouterr().err.splitlines() == [
        "srun: warning: odd", "slurmstepd: error: *** STEP ***", "srun: Job 5 is dear",
    ]  # fmt: skip


def test_a_signal_before_the_start_is_kept_until_then() -> None:
    made = attendance()
    ours, theirs = wire.pair()
    made._connection = ours
    made._on_signal(15)
    made._on_answer({"event": "started", "job_id": 1, "step_id": 0})
    received = theirs.receive()
    assert received is not None
    assert received[0] == {"op": "signal", "signal": 15}
    ours.close()
    theirs.close()


def test_a_size_told_before_the_start_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first may have met a step that had not begun; what the request said is not repeated."""
    monkeypatch.setattr(attend, "terminal_size", lambda: {"rows": 40, "columns": 120})
    for early in (1, 0):
        made = attendance()
        ours, theirs = wire.pair()
        made._connection = ours
        for _ in range(early):
            made._on_signal(signal.SIGWINCH)
        made._on_answer({"event": "started", "job_id": 1, "step_id": 0})
        ours.close()
        told = [received[0]["op"] for received in iter(theirs.receive, None)]
        assert told == ["resize", "resize"] * early
        theirs.close()


def test_a_job_that_waits_is_given_up() -> None:
    made = attendance()
    made._on_answer({"event": "pending", "job_id": 4})
    with pytest.raises(RoadsteadError, match="Job allocation 4 has been revoked"):
        made._on_signal(2)
    made = attendance()
    made._on_signal(2)
    with pytest.raises(RoadsteadError, match="cancelled by signal 2"):
        made._on_signal(2)


def test_interrupts(capsys: pytest.CaptureFixture[str]) -> None:
    made = attendance()
    ours, theirs = wire.pair()
    made._connection = ours
    made._on_answer({"event": "started", "job_id": 1, "step_id": 0})
    made._on_signal(2)
    made._on_signal(2)
    messages = [theirs.receive(), theirs.receive()]
    assert [message[0]["op"] for message in messages if message] == ["signal", "terminate"]
    with pytest.raises(RoadsteadError, match="forcing job termination"):
        made._on_signal(2)
    theirs.close()
    made._on_signal(15)  # the controller has gone: that is found out elsewhere
    ours.close()
    assert "one more within 1 sec to abort" in capsys.readouterr().err


def test_typed_lines_never_keep_us_waiting() -> None:
    """A task that does not read: what was typed is kept, and the rest is not read."""
    keyboard, user = os.pipe()
    read, write = os.pipe()
    os.set_blocking(write, False)
    os.set_blocking(user, False)
    stdin = os.dup(0)
    os.dup2(keyboard, 0)
    os.close(keyboard)
    try:
        made = attendance()
        made._input = write
        poll = select.poll()
        poll.register(0, select.POLLIN)
        sent = 0
        for _ in range(4):
            sent += os.write(user, b"x" * 40_000)
            for fd, _ in poll.poll(0):
                assert fd in (0, write)
                made._carry_input(poll)
        assert poll.poll(0) == [], "neither the keyboard nor the pipe"
        os.close(user)
        got = 0
        while made._input >= 0:
            got += len(os.read(read, 1 << 20)) if select.select([read], [], [], 0)[0] else 0
            for _ in poll.poll(0):
                made._carry_input(poll)
        with open(read, "rb") as file:
            got += len(file.read())
        assert got == sent
    finally:
        os.dup2(stdin, 0)
        os.close(stdin)


def test_a_task_that_reads_no_more() -> None:
    keyboard, user = os.pipe()
    read, write = os.pipe()
    os.close(read)
    os.write(user, b"words")
    stdin = os.dup(0)
    os.dup2(keyboard, 0)
    try:
        made = attendance()
        made._input = write
        poll = select.poll()
        poll.register(0, select.POLLIN)
        made._carry_input(poll)
        assert made._input == -1
        assert poll.poll(0) == []
    finally:
        os.dup2(stdin, 0)
        for fd in (stdin, keyboard, user):
            os.close(fd)


def test_out_of_memory_is_told_as_slurm_tells_it(capfd: pytest.CaptureFixture[str]) -> None:
    """slurmstepd's sentence once, even if it was a notice before, and srun's own for each task."""
    sentence = "StepId=1.0 exceeded memory limit (2 > 1), being killed"
    one = {"code": 137, "signal": 9, "message": sentence, "hint": "", "reason": "memory"}
    tasks = [{**one, "procid": number} for number in range(2)]
    tasks.append({**one, "procid": 2, "code": 3, "signal": 0, "message": "", "reason": "program"})
    attending = attendance()
    attending._on_answer({"event": "notice", "sentence": f"error: {sentence}"})
    answer = {"event": "exit", "code": 137, "node": "host", "record": {"tasks": tasks}}
    assert attending._on_answer(answer) == 137
    assert capfd.readouterr().err == (
        f"slurmstepd: error: {sentence}\n"
        "srun: error: host: tasks 0-1: Out Of Memory\n"
        "srun: error: host: task 2: Exited with exit code 3\n"
    )
