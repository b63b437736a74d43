"""sattach: output that is relayed or goes to a file, input, layout, ends and refusals."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import Engine
from tests.support.waiting import eventually

GATE = "while ! test -e go; do sleep 0.02; done"
TICKS = f"{GATE}; echo o$SLURM_PROCID; echo e$SLURM_PROCID >&2; exit $SLURM_PROCID"


@pytest.fixture(scope="module")
def engine(shared_engine: Engine) -> Engine:
    return shared_engine


@pytest.fixture
def folder(engine: Engine, scratch: Path) -> Path:
    return scratch / "work"


@pytest.fixture
def start(engine: Engine, folder: Path) -> Callable[..., tuple[Any, str]]:
    """Start srun; (the process, JOB.STEP)."""

    def begin(*argv: str, **options: Any) -> tuple[Any, str]:
        process = engine.popen(["srun", *argv], cwd=folder, **options)
        eventually(lambda: engine.run(["squeue", "-hs", "-o", "%i"]).stdout.strip(), what="a step")
        step = engine.run(["squeue", "-hs", "-o", "%i"]).stdout.split()[0]
        eventually(lambda: engine.run(["sattach", "--layout", step]).returncode == 0)
        return process, step

    return begin


def attached(engine: Engine, *argv: str, **options: Any) -> Any:
    """sattach that has been told that it is attached."""
    process = engine.popen(["sattach", "-v", *argv], **options)
    assert "attached to StepId" in process.stderr.readline()
    return process


def test_several_tasks(engine: Engine, start: Any, folder: Path) -> None:
    srun, step = start("-n3", "-O", "sh", "-c", TICKS)
    layout = engine.run(["sattach", "--layout", step]).check().stdout
    assert re.fullmatch(
        r"Job step layout:\n\t3 tasks, 1 nodes \((\S+)\)\n\n\tNode 0 \(\1\), 3 task\(s\): 0 1 2 \n",
        layout,
    )
    every = attached(engine, step)
    one = attached(engine, "-l", "--output-filter=1", "--error-filter=7", step)
    (folder / "go").touch()
    done = engine.finish(every)
    assert sorted(done.stdout.split()) == ["o0", "o1", "o2"]
    errors = [line for line in done.stderr.splitlines() if line.startswith("e")]
    assert sorted(errors) == ["e0", "e1", "e2"]
    assert "sattach: error: task 2 exited with exit code 2" in done.stderr
    assert done.returncode == 2
    done = engine.finish(one)
    assert done.stdout == "1: o1\n"
    assert "e0" not in done.stderr
    assert sorted(engine.finish(srun).stdout.split()) == ["o0", "o1", "o2"]


@pytest.mark.parametrize("where", ["sbatch", "srun"])
def test_a_file_is_followed(engine: Engine, folder: Path, where: str, start: Any) -> None:
    script = f"echo before; {TICKS}"
    if where == "srun":
        with (folder / "out").open("w") as out:
            srun, step = start("sh", "-c", script, stdout=out, stderr=out)
    else:
        argv = ["sbatch", "--parsable", "-o", "out", "--wrap", script]
        step = engine.run(argv, cwd=folder).check().stdout.strip() + ".batch"
    eventually(lambda: (folder / "out").exists() and (folder / "out").read_text() == "before\n")
    process = attached(engine, step)
    (folder / "go").touch()
    done = engine.finish(process)
    assert done.stdout + done.stderr == "o0\ne0\n"
    assert done.returncode == 0
    if where == "srun":
        engine.finish(srun)


def test_a_pipe_is_the_tasks_own(engine: Engine, start: Any, folder: Path) -> None:
    srun, step = start("sh", "-c", TICKS)
    done = engine.run(["sattach", step])
    assert done.returncode == 1
    assert done.stderr == (
        "sattach: error: standard output of the task goes directly to a pipe that srun was given; "
        "start the step with srun --label or --unbuffered to attach to it\n"
    )
    (folder / "go").touch()
    assert engine.finish(srun).stdout == "o0\n"


def test_input_is_sent(engine: Engine, start: Any) -> None:
    read, write = os.pipe()
    srun, step = start("-n2", "-O", "sh", "-c", "read a; echo $SLURM_PROCID $a", stdin=read)
    os.close(read)
    process = attached(engine, "--input-filter=1", step, stdin=subprocess.PIPE)
    process.stdin.write("x\n")
    process.stdin.close()
    assert process.stdout.readline() == "1 x\n", "and the end of this input ends nobody else's"
    os.write(write, b"y\n")
    os.close(write)
    assert process.stdout.read() == "0 y\n"
    process.stdin = None
    assert engine.finish(process).returncode == 0
    assert sorted(engine.finish(srun).stdout.splitlines()) == ["0 y", "1 x"]


def test_an_interrupt_detaches(engine: Engine, start: Any, folder: Path) -> None:
    srun, step = start("-n2", "-O", "sh", "-c", TICKS)
    process = attached(engine, step)
    process.send_signal(signal.SIGINT)
    assert engine.finish(process).returncode in (130, -2)
    (folder / "go").touch()
    done = engine.finish(srun)
    assert (done.returncode, sorted(done.stdout.split())) == (1, ["o0", "o1"])


def test_a_stopped_reader_keeps_nobody(engine: Engine, start: Any, folder: Path) -> None:
    """The step ends; what waits for the reader is bounded, and the reader hears of the gap."""
    script = f"{GATE}; head -c 8000000 /dev/zero | tr '\\0' x; echo; echo last"
    srun, step = start("-l", "sh", "-c", script)
    process = attached(engine, step)
    (folder / "go").touch()
    assert len(engine.finish(srun).stdout) > 8_000_000
    done = engine.finish(process)
    assert done.returncode == 0
    assert 1 << 20 <= len(done.stdout) < 4 << 20
    gap = re.search(r"sattach: warning: (\d+) bytes of output were left out", done.stderr)
    assert gap is not None
    assert len(done.stdout) + int(gap[1]) > 8_000_000


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["99.0"], "Could not get job step info: Invalid job id specified"),
        (["--layout", "99.batch"], "Could not get job step info: Invalid job id specified"),
        (["99"], "Failed to parse stepid from command line options"),
        (["99.x"], "Bad step specified: 99.x"),
        (["1.0", "2.0"], "too many parameters"),
        (["--output-filter=x", "1.0"], 'Invalid numeric value "x" for output-filter.'),
        (["--pty", "--input-filter=1", "1.0"], "don't specify both --pty and I/O filtering"),
    ],
)
def test_refusals(engine: Engine, argv: list[str], sentence: str) -> None:
    done = engine.run(["sattach", *argv])
    assert done.returncode == 1
    assert done.stderr.startswith(f"sattach: error: {sentence}")
    assert done.stderr.count("\n") == 1


def test_a_step_that_is_killed(engine: Engine, start: Any) -> None:
    srun, step = start("-n2", "-O", "sleep", "62")
    process = attached(engine, step)
    time.sleep(0.05)
    engine.run(["scancel", step]).check()
    done = engine.finish(process)
    assert done.returncode == 143
    assert f"*** STEP {step} ON" in done.stderr
    assert "sattach: error: task 0: Terminated" in done.stderr
    engine.finish(srun)
