"""docs/exit-codes.md, walked: plain and contained, crun and runc, run and create/start mode."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.components import ROOT
from tests.support.engine import Engine
from tests.support.skips import require

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


def test_exit_codes_of_programs(srun: Runner) -> None:
    for code in (0, 1, 2, 3, 42, 124, 125, 126, 127, 128, 137, 200, 255):
        done = srun.engine.run(srun.argv("sh", "-c", f"exit {code}"), env=srun.env)
        assert done.returncode == code, str(done)
        expected = f"task 0: Exited with exit code {code}" if code else ""
        assert expected in done.stderr


def test_a_program_ended_by_a_signal(srun: Runner) -> None:
    """In a pid namespace the shell is the first process, so a child of it takes the signal.

    SIGQUIT is not among them: the shell of busybox ignores it.
    """
    for signo in (1, 2, 6, 9, 10, 11, 14, 15):
        script = f"sh -c 'kill -{signo} $$'; exit $?" if srun.contained else f"kill -{signo} $$"
        done = srun.engine.run(srun.argv("sh", "-c", script), env=srun.env)
        assert done.returncode == 128 + signo, str(done)


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
