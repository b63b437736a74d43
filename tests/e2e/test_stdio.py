"""Standard streams: the user's own descriptors, files by pattern, relays, and terminals."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import Engine
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
def engine(shared_engine: Engine) -> Engine:
    return shared_engine


@pytest.fixture(params=["plain", "contained"])
def srun(
    request: pytest.FixtureRequest, engine: Engine, make_bundle: Callable[..., Path]
) -> list[str]:
    if request.param == "plain":
        return ["srun"]
    return ["srun", "--container", str(make_bundle())]


def test_a_million_lines_in_and_out(engine: Engine, srun: list[str]) -> None:
    text = "".join(f"line {number}\n" for number in range(200_000))
    done = engine.run([*srun, "cat"], stdin=text)
    assert done.check().stdout == text


def test_binary(engine: Engine, srun: list[str], scratch: Path) -> None:
    data = bytes(range(256)) * 5000
    source = engine.account.own(_write(scratch / "in", data))
    with source.open("rb") as file:
        process = engine.popen([*srun, "cat"], stdin=file, stdout=subprocess.PIPE)
        out = process.stdout.buffer.read()
    assert process.wait(timeout=20) == 0
    process.stderr.close()
    process.stdout.close()
    assert out == data


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_labels_and_whole_lines(engine: Engine, srun: list[str]) -> None:
    script = "for i in 1 2 3; do printf 'a%s' $i; printf 'b\\n'; done; echo e >&2"
    done = engine.run([*srun, "-n3", "-O", "-l", "sh", "-c", script]).check()
    lines = sorted(done.stdout.splitlines())
    assert lines == [f"{task}: a{i}b" for task in range(3) for i in (1, 2, 3)]
    assert sorted(done.stderr.splitlines()) == ["0: e", "1: e", "2: e"]


def test_input_goes_to_every_task_or_to_one(engine: Engine, srun: list[str]) -> None:
    many = [*srun, "-n3", "-O"]
    assert engine.run([*many, "cat"], stdin="x\n").check().stdout == "x\n" * 3
    script = "echo $SLURM_PROCID $(cat)"
    done = engine.run([*many, "-i", "1", "sh", "-c", script], stdin="x\n").check()
    assert sorted(done.stdout.splitlines()) == ["0", "1 x", "2"]
    done = engine.run([*many, "-i", "none", "sh", "-c", script], stdin="x\n").check()
    assert sorted(done.stdout.splitlines()) == ["0", "1", "2"]


def test_files_by_pattern(engine: Engine, srun: list[str], scratch: Path) -> None:
    script = "echo out $SLURM_PROCID; echo err $SLURM_PROCID >&2"
    done = engine.run(
        [
            *srun,
            "-n2",
            "-O",
            "-J",
            "name",
            "-o",
            "%x-%j-%t.out",
            "-e",
            "%t.err",
            "sh",
            "-c",
            script,
        ],
        cwd=scratch / "work",
    ).check()
    assert done.stdout == ""
    found = {path.name: path.read_text() for path in (scratch / "work").iterdir()}
    job = re.fullmatch(r"name-(\d+)-0.out", min(name for name in found if ".out" in name))
    assert job is not None
    assert found == {
        f"name-{job[1]}-0.out": "out 0\n",
        f"name-{job[1]}-1.out": "out 1\n",
        "0.err": "err 0\n",
        "1.err": "err 1\n",
    }


def test_one_file_for_all_and_append(engine: Engine, srun: list[str], scratch: Path) -> None:
    path = scratch / "work" / "all"
    for _ in range(2):
        argv = [*srun, "-n2", "-O", "-o", str(path), "--open-mode=append", "echo", "line"]
        engine.run(argv).check()
    assert path.read_text() == "line\n" * 4
    engine.run([*srun, "-o", str(path), "sh", "-c", "echo o; echo e >&2"]).check()
    assert path.read_text() == "o\ne\n"
    engine.run([*srun, "-i", str(path), "-o", "none", "grep", "-q", "e"]).check()


def test_a_reader_that_goes_away(engine: Engine, srun: list[str]) -> None:
    line = " ".join(srun) + " yes | head -1"
    assert engine.run(["sh", "-c", line], timeout=20).check().stdout == "y\n"


def test_unbuffered(engine: Engine, srun: list[str]) -> None:
    """The tasks' standard output is a terminal, so that their stdio does not buffer (srun(1))."""
    script = "test -t 1; echo out $?; test -t 2; echo err $?; test -t 0; echo in $?; printf 'a\\tb'"
    done = engine.run([*srun, "-u", "sh", "-c", script], stdin="").check()
    assert done.stdout == "out 0\nerr 1\nin 1\na\tb"


def test_labels_of_odd_lines(engine: Engine, srun: list[str]) -> None:
    """Carriage returns and zero bytes are bytes; the last line gets its end (as in Slurm)."""
    script = r"printf 'a\rb\0c\nd\r\n\n'; head -c 5000 /dev/zero | tr '\0' x"
    done = engine.popen([*srun, "-l", "sh", "-c", script], stdout=subprocess.PIPE)
    out = done.stdout.buffer.read()
    assert engine.finish(done).returncode == 0
    assert out == b"0: a\rb\0c\n0: d\r\n0: \n0: " + b"x" * 5000 + b"\n"
    done = engine.run([*srun, "-l", "-n11", "-O", "echo", "hi"]).check()
    assert sorted(done.stdout.splitlines()) == [f"{task:2}: hi" for task in range(11)]


LOST = "output was lost: No space left on device"


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (["-o", "no/x"], 1, "cannot open {work}/no/x for output: No such file or directory"),
        (["-o", "/"], 1, "cannot open / for output: Is a directory"),
        (["-i", "nothing"], 1, "cannot open --input={work}/nothing: No such file or directory"),
        (["-i", "1"], 1, "cannot open --input={work}/1: No such file or directory"),
        (["-n2", "-O", "-o", "/dev/full"], 1, LOST),
        (["-l", "-o", "/dev/full"], 1, LOST),
    ],
)
def test_files_that_cannot_be(
    engine: Engine, scratch: Path, options: list[str], code: int, sentence: str
) -> None:
    done = engine.run(["srun", *options, "echo", "hi"], cwd=scratch / "work", timeout=20)
    assert done.returncode == code
    assert done.stderr == f"srun: error: {sentence.format(work=scratch / 'work')}\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", "</dev/null"])
@pytest.mark.parametrize("tasks", ["-n1", "-n2 -O"])
def test_closed_streams(engine: Engine, scratch: Path, closed: str, tasks: str) -> None:
    line = f"srun {tasks} sh -c 'cat; echo done >>file; exit 3' {closed}"
    done = engine.run(["sh", "-c", line], cwd=scratch / "work", timeout=20)
    assert done.returncode == 3
    assert set((scratch / "work" / "file").read_text().split()) == {"done"}


def test_fifos(engine: Engine, scratch: Path) -> None:
    """Their other ends may be opened later."""
    line = "mkfifo in out; srun -n2 -O -i in -o out cat & sleep 0.2; echo words >in & cat out; wait"
    done = engine.run(["sh", "-c", line], cwd=scratch / "work", timeout=20).check()
    assert done.stdout == "words\n" * 2


@pytest.mark.parametrize("options", [["-l"], ["-u"], ["-n2", "-O"]])
def test_a_stopped_reader_costs_no_memory(engine: Engine, options: list[str]) -> None:
    process = engine.popen(["srun", *options, "head", "-c", "1G", "/dev/zero"])
    eventually(lambda: _step_memory(engine), what="a supervisor")
    time.sleep(0.5)  # for it to read as much as it would
    assert _step_memory(engine) < 64 << 10
    process.kill()
    process.wait()
    process.stdout.close()
    process.stderr.close()


def _step_memory(engine: Engine) -> int:
    """Private memory of the supervisors, KiB."""
    total = 0
    for each in engine.processes():
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{each.pid}/status").read_text()
            if "roadstead-step" in status:
                total += int(re.search(r"RssAnon:\s+(\d+)", status)[1])  # type: ignore[index]
    return total


def test_background_processes_do_not_hold_the_step(engine: Engine, srun: list[str]) -> None:
    began = time.monotonic()
    engine.run([*srun, "sh", "-c", "sleep 50 & echo done"], timeout=20).check()
    assert time.monotonic() - began < 20


class Terminal:
    """A terminal with srun on it, as a person has it."""

    def __init__(self, engine: Engine, argv: list[str], **options: Any) -> None:
        self.master, slave = os.openpty()
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 99, 0, 0))
        self.said = b""
        self.process = engine.popen(argv, stdin=slave, stdout=slave, stderr=slave, **options)
        os.close(slave)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def expect(self, pattern: str, timeout: float = 10) -> None:
        os.set_blocking(self.master, False)
        eventually(lambda: self._look(pattern), timeout=timeout, what=f"{pattern} on the screen")

    def _look(self, pattern: str) -> bool:
        with contextlib.suppress(OSError):  # nothing there, or the other end has gone
            self.said += os.read(self.master, 4096)
        return re.search(pattern.encode(), self.said) is not None

    def end(self, code: int) -> None:
        eventually(lambda: self._look("$^") or self.process.poll() is not None, timeout=20)
        assert self.process.wait(timeout=20) == code, self.said
        os.close(self.master)


def test_a_pty_of_the_tasks_own(engine: Engine, srun: list[str]) -> None:
    screen = Terminal(engine, [*srun, "--pty", "sh"])
    screen.type("tty; stty size\n")
    screen.expect(r"/dev/(pts/\d|console)")
    screen.expect(r"30 99")
    fcntl.ioctl(screen.master, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    os.kill(screen.process.pid, signal.SIGWINCH)
    screen.type("while ! stty size | grep '40 120'; do sleep 0.1; done\n")
    screen.expect(r"\n40 120")
    screen.type("sleep 100\n")
    screen.expect("sleep 100")
    time.sleep(0.3)  # for the shell to have started it
    screen.type("\x03")
    screen.type("echo status $?\n")
    screen.expect(r"status 130")
    screen.type("exit 5\n")
    screen.end(5)


def test_without_pty_tasks_have_no_terminal(engine: Engine, srun: list[str]) -> None:
    script = "test -t 0 && echo tty0; test -t 1 && echo tty1; echo ready; read line; echo got $line"
    screen = Terminal(engine, [*srun, "sh", "-c", script])
    screen.expect("ready")
    screen.type("words\n")
    screen.expect("got words")
    assert b"tty0" not in screen.said
    assert b"tty1" not in screen.said
    screen.end(0)


def test_interrupts(engine: Engine, srun: list[str]) -> None:
    """Once: what runs.  Twice within a second: the end (srun(1))."""
    process = engine.popen([*srun, "sh", "-c", "echo up; exec sleep 60"])
    assert process.stdout.readline() == "up\n"
    time.sleep(0.3)  # for the shell to have become sleep
    process.send_signal(signal.SIGINT)
    assert "one more within 1 sec to abort" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    done = engine.finish(process, timeout=20)
    assert done.returncode == 130, str(done)


def test_signals_are_forwarded(engine: Engine, srun: list[str]) -> None:
    script = "trap 'echo caught; exit 9' USR1; echo up; while :; do sleep 0.1; done"
    process = engine.popen([*srun, "sh", "-c", script])
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGUSR1)
    done = engine.finish(process, timeout=20)
    assert (done.returncode, done.stdout) == (9, "caught\n")


def test_srun_killed(engine: Engine, srun: list[str]) -> None:
    """Nobody attends the step any more: it is ended, and nothing of it stays."""
    process = engine.popen([*srun, "sh", "-c", "echo up; exec sleep 61"])
    assert process.stdout.readline() == "up\n"
    process.kill()
    process.wait()
    process.stdout.close()
    process.stderr.close()
    eventually(
        lambda: not engine.run(["squeue", "-h"]).stdout.strip(), timeout=20, what="an empty queue"
    )
    assert not [each for each in engine.processes() if "sleep 61" in each.command]
