"""docs/exit-codes.md, walked: plain and contained, crun and runc, run and create/start mode."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.components import ROOT
from tests.support.engine import Engine
from tests.support.skips import require
from tests.support.waiting import eventually

GUIDE = ROOT / "tests" / "data" / "guide"
MODES = [
    "plain",
    "crun built in",
    "runc built in",
    "crun-run.conf",
    "crun-create.conf",
    "runc-run.conf",
    "runc-create.conf",
]


class Runner:
    """srun in one of the modes."""

    def __init__(self, engine: Engine, mode: str, bundle: Path) -> None:
        self.engine = engine
        self.bundle = bundle
        self.contained = mode != "plain"
        self.env: dict[str, str] = {"ROADSTEAD_OCI_CONF": "none"}
        if mode.endswith(".conf"):
            conf = engine.account.write(engine.base / mode, (GUIDE / mode).read_text())
            self.env["ROADSTEAD_OCI_CONF"] = str(conf)
        elif self.contained:
            self.env["ROADSTEAD_RUNTIME"] = mode.split()[0]

    def argv(self, *words: str, bundle: Path | None = None) -> list[str]:
        container = ["--container", str(bundle or self.bundle)] if self.contained else []
        return ["srun", *container, *words]


@pytest.fixture(scope="module", params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name != "plain":
        require("userns", name[:4])
    return name


@pytest.fixture
def srun(engine: Engine, mode: str, make_bundle: Callable[..., Path]) -> Runner:
    return Runner(engine, mode, make_bundle())


# Signals whose default is to end the process; SIGQUIT is ignored by the shell of busybox.
ENDING = [s for s in range(1, 32) if s not in (3, 17, 18, 19, 20, 21, 22, 23, 28)]


def said_of_tasks(stderr: str) -> dict[int, int]:
    """What srun says of each task that failed: "tasks 1,3-4: Exited with exit code 2"."""
    codes: dict[int, int] = {}
    pattern = r"srun: error: \S+: tasks? ([\d,-]+): Exited with exit code (\d+)"
    for numbers, code in re.findall(pattern, stderr):
        for part in numbers.split(","):
            first, _, last = part.partition("-")
            codes |= dict.fromkeys(range(int(first), int(last or first) + 1), int(code))
    return codes


def test_every_exit_code(srun: Runner) -> None:
    """0 to 255, a task each; the step's own is the highest."""
    for first in range(0, 256, 64):
        script = f"exit $((SLURM_PROCID + {first}))"
        done = srun.engine.run(srun.argv("-n64", "-O", "sh", "-c", script), env=srun.env)
        assert done.returncode == first + 63, str(done)
        expected = {task: task + first for task in range(64) if task + first}
        assert said_of_tasks(done.stderr) == expected, str(done)
    done = srun.engine.run(srun.argv("sh", "-c", "exit 200"), env=srun.env).check(200)
    assert "task 0: Exited with exit code 200" in done.stderr


def test_every_signal(srun: Runner) -> None:
    """The first process of a container throws most signals away, so a child of it takes them."""
    numbers = " ".join(map(str, ENDING))
    script = f'set -- {numbers}; shift $SLURM_PROCID; sh -c "kill -$1 \\$\\$"; exit $?'
    argv = srun.argv(f"-n{len(ENDING)}", "-O", "sh", "-c", script)
    done = srun.engine.run(argv, env=srun.env)
    assert done.returncode == 128 + ENDING[-1], str(done)
    assert said_of_tasks(done.stderr) == {n: 128 + s for n, s in enumerate(ENDING)}, str(done)


def test_a_plain_task_ended_by_a_signal(srun: Runner) -> None:
    if srun.contained:
        pytest.skip("the first process of a container does not end so")
    for signo in (1, 2, 3, 6, 9, 11, 14, 15):
        done = srun.engine.run(["srun", "sh", "-c", f"kill -{signo} $$"])
        assert done.returncode == 128 + signo, str(done)


def test_a_signal_from_outside(srun: Runner) -> None:
    """scancel -s: a first process without a handler ends as the sender meant it to."""
    for signo in (1, 10, 15):
        process = srun.engine.popen(srun.argv("sh", "-c", "echo up; exec sleep 60"), env=srun.env)
        assert process.stdout.readline() == "up\n"
        eventually(lambda: "sleep" in " ".join(map(str, srun.engine.processes())))
        job = srun.engine.run(["squeue", "-h", "-t", "R", "-o", "%i"]).check().stdout.split()[0]
        srun.engine.run(["scancel", "-s", str(signo), job]).check()
        assert srun.engine.finish(process, timeout=20).returncode == 128 + signo


def test_not_there_and_not_executable(srun: Runner) -> None:
    missing = srun.engine.run(srun.argv("no-such-program"), env=srun.env).check(127)
    assert "srun: error: no-such-program: not found" in missing.stderr
    refused = srun.engine.run(srun.argv("/etc/passwd"), env=srun.env).check(126)
    assert "/etc/passwd" in refused.stderr
    assert "not an executable file" in refused.stderr


def test_the_runtime_fails(srun: Runner) -> None:
    """A mount of a file system that no kernel knows: the runtime gives up half-way."""
    if not srun.contained:
        pytest.skip("a plain task has no runtime")
    config = json.loads((srun.bundle / "config.json").read_text())
    config["mounts"].append({"destination": "/x", "type": "nosuchfs", "source": "x"})
    srun.engine.account.write(srun.bundle / "config.json", json.dumps(config))
    done = srun.engine.run(srun.argv("true"), env=srun.env).check(125)
    assert "srun: error: " in done.stderr
    assert "Traceback" not in done.stderr


def test_streams_are_the_tasks(srun: Runner) -> None:
    done = srun.engine.run(
        srun.argv("sh", "-c", "cat; echo to stderr >&2; exit 7"), env=srun.env, stdin="typed\n"
    )
    assert (done.returncode, done.stdout) == (7, "typed\n"), str(done)
    assert "to stderr\n" in done.stderr


def test_cancelled_and_out_of_time(srun: Runner) -> None:
    """sleep has no handler for SIGTERM and may be a first process: it ends at once all the same."""
    done = srun.engine.run(srun.argv("-t", "0:01", "sleep", "60"), env=srun.env, timeout=20)
    assert done.returncode == 143, str(done)
    assert "DUE TO TIME LIMIT" in done.stderr
    process = srun.engine.popen(srun.argv("sh", "-c", "echo up; exec sleep 60"), env=srun.env)
    assert process.stdout.readline() == "up\n"
    job = srun.engine.run(["squeue", "-h", "-t", "R", "-o", "%i"]).check().stdout.split()[0]
    srun.engine.run(["scancel", job]).check()
    assert srun.engine.finish(process, timeout=20).returncode == 143


def test_what_ignores_sigterm_is_killed(srun: Runner) -> None:
    """SIGTERM first, SIGKILL after KillWait."""
    env = {**srun.env, "ROADSTEAD_KILL_WAIT": "0.5"}
    process = srun.engine.popen(
        srun.argv("sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.1; done"), env=env
    )
    assert process.stdout.readline() == "up\n"
    job = srun.engine.run(["squeue", "-h", "-t", "R", "-o", "%i"]).check().stdout.split()[0]
    srun.engine.run(["scancel", job]).check()
    assert srun.engine.finish(process, timeout=20).returncode == 137


def test_a_runtime_that_hangs(engine: Engine, make_bundle: Callable[..., Path]) -> None:
    """Every call of the runtime has a time limit; what hangs is ended, and the code is 125."""
    hang = engine.account.write(engine.base / "hang", "#!/bin/sh\nexec sleep 60\n", 0o755)
    conf = "".join(
        f'RunTime{name}="{hang}"\n' for name in ("Create", "Start", "Query", "Kill", "Delete")
    )
    path = engine.account.write(engine.base / "oci.conf", conf)
    env = {"ROADSTEAD_OCI_CONF": str(path), "ROADSTEAD_RUNTIME_TIMEOUT": "0.3"}
    done = engine.run(["srun", "--container", str(make_bundle()), "true"], env=env, timeout=20)
    assert done.returncode == 125, str(done)
    assert "did not answer in time" in done.stderr


def test_no_runtime(engine: Engine, make_bundle: Callable[..., Path]) -> None:
    """A task that asked for a container never runs outside."""
    env = {"ROADSTEAD_RUNTIME": "no-such-runtime", "ROADSTEAD_OCI_CONF": "none"}
    done = engine.run(["srun", "--container", str(make_bundle()), "hostname"], env=env).check(125)
    assert done.stdout == ""
    assert "no-such-runtime" in done.stderr


# -- what scontrol does to a job that runs ---------------------------------------------------------


def state_of(engine: Engine, job: str) -> str:
    shown = engine.run(["scontrol", "-o", "show", "job", job]).check().stdout
    found = re.search(r"JobState=(\S+) .* ExitCode=(\S+) ", shown)
    assert found, shown
    return " ".join(found.groups())


def steps_running(engine: Engine) -> str:
    return engine.run(["squeue", "-h", "-t", "R", "-o", "%i"]).check().stdout.strip()


@pytest.mark.parametrize("contained", [False, True], ids=["plain", "container"])
def test_suspended_and_resumed(
    engine: Engine, contained: bool, make_bundle: Callable[..., Path]
) -> None:
    """A pause is none of the program's: its code is its own, and its time limit stands still."""
    container = ["--container", str(make_bundle())] if contained else []
    script = "echo up; read line; exit 7"
    argv = ["srun", "-t", "0:02", *container, "sh", "-c", script]
    process = engine.popen(argv, stdin=subprocess.PIPE)
    assert process.stdout.readline() == "up\n"
    engine.run(["scontrol", "suspend", "1"]).check()
    time.sleep(2.2)
    assert process.poll() is None
    engine.run(["scontrol", "resume", "1"]).check()
    done = engine.finish(process, typed="typed\n")
    assert done.returncode == 7, str(done)
    assert state_of(engine, "1") == "FAILED 7:0"


def test_cancelled_while_it_was_suspended(engine: Engine) -> None:
    process = engine.popen(["srun", "sh", "-c", "echo up; exec sleep 60"])
    assert process.stdout.readline() == "up\n"
    engine.run(["scontrol", "suspend", "1"]).check()
    engine.run(["scancel", "1"]).check()
    assert engine.finish(process, timeout=20).returncode == 143
    assert state_of(engine, "1") == "CANCELLED 0:15"


def test_requeued(engine: Engine) -> None:
    """The last run's code counts; whatever is not a batch job goes on."""
    script = '[ "$SLURM_RESTART_COUNT" = 1 ] && exit 5; sleep 60'
    process = engine.popen(["sbatch", "--wait", "--wrap", script])
    eventually(lambda: steps_running(engine) == "1", timeout=20)
    engine.run(["scontrol", "requeue", "1"]).check()
    assert engine.finish(process, timeout=20).returncode == 5
    assert state_of(engine, "1") == "FAILED 5:0"
    argv = ["srun", "sh", "-c", "echo up; read line; exit 3"]
    srun = engine.popen(argv, stdin=subprocess.PIPE)
    assert srun.stdout.readline() == "up\n"
    refused = engine.run(["scontrol", "requeue", "2"]).check(1)
    assert refused.stderr == "Only batch jobs are accepted or processed for job 2\n"
    assert engine.finish(srun, typed="\n").returncode == 3


def test_the_node_goes_down(engine: Engine) -> None:
    """SIGKILL, at once; and no outcome of the program's."""
    batch = engine.popen(["sbatch", "--wait", "--no-requeue", "--wrap", "sleep 60"])
    srun = engine.popen(["srun", "-O", "sh", "-c", "trap '' TERM; echo up; sleep 60; exit 0"])
    assert srun.stdout.readline() == "up\n"
    eventually(lambda: len(steps_running(engine).split()) == 2, timeout=20)
    engine.run(["scontrol", "update", "NodeName=ALL", "State=DOWN", "Reason=test"]).check()
    assert engine.finish(srun, timeout=20).returncode == 137
    assert engine.finish(batch, timeout=20).returncode == 1
    for job in ("1", "2"):
        assert state_of(engine, job).startswith("NODE_FAIL ")
    waiting = engine.popen(["srun", "sh", "-c", "exit 4"])
    eventually(lambda: "ReqNodeNotAvail" in engine.run(["squeue", "-h", "-o", "%r"]).stdout)
    engine.run(["scontrol", "update", "NodeName=ALL", "State=RESUME"]).check()
    assert engine.finish(waiting, timeout=20).returncode == 4, "who waited is none the worse"


@pytest.mark.parametrize(
    ("script", "state", "code"),
    [
        ("true", "COMPLETED 0:0", 0),
        ("exit 9", "FAILED 9:0", 9),
        ("kill -9 $$", "FAILED 0:9", 1),
        ("scancel $SLURM_JOB_ID; sleep 60", "CANCELLED 0:15", 1),
    ],
)
def test_sbatch_that_waits(engine: Engine, script: str, state: str, code: int) -> None:
    done = engine.run(["sbatch", "--wait", "--wrap", script], timeout=30)
    assert (state_of(engine, "1"), done.returncode) == (state, code)
