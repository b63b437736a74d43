"""roadstead runtime test: the Containers Guide's test of the OCI runtime, through our commands."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.account import Completed
from tests.support.components import ROOT
from tests.support.engine import Engine
from tests.support.skips import require
from tests.support.waiting import eventually

GUIDE = ROOT / "tests" / "data" / "guide"
RUN = ["run", "query", "kill", "delete", "query"]
CREATE = ["create", "query", "start", "query", "kill", "delete", "query"]
BROKEN = {
    "run": """\
RunTimeQuery="crun --root={root} state %n.%u.%j.%s.%t"
RunTimeKill="crun --root={root} kill %n.%u.%j.%s.%t KILL"
RunTimeDelete="crun --root={root} delete --force %n.%u.%j.%s.%t"
RunTimeRun="crun --root={root} run --bundle %b %n.%u.%j.%s.%t"
""",
}


def conf(engine: Engine, text: str) -> dict[str, str]:
    root = engine.base / "tmp" / "roadstead-containers"
    path = engine.account.write(engine.base / "oci.conf", text.replace("{root}", str(root)))
    return {"ROADSTEAD_OCI_CONF": str(path)}


def commands(done: Completed) -> list[list[str]]:
    """What was executed, read back as a shell would read it."""
    lines = done.stdout.splitlines()
    return [shlex.split(line[2:]) for line in lines if line.startswith("$ ")]


def steps(done: Completed) -> list[str]:
    """The operations that ended as they should, or with a warning."""
    marks = (": status ", ": running, ")
    lines = [line.strip().removeprefix("WARNING ") for line in done.stdout.splitlines()]
    return [line.partition(":")[0] for line in lines if any(mark in line for mark in marks)]


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_the_built_in_commands_both_ways(
    engine: Engine, make_bundle: Callable[..., Path], runtime: str
) -> None:
    require(runtime, "userns")
    bundle = make_bundle()
    before = sorted(bundle.rglob("*"))
    done = engine.run(
        ["roadstead", "runtime", "test", bundle], env={"ROADSTEAD_RUNTIME": runtime}
    ).check()
    assert steps(done) == [*RUN, *CREATE], str(done)
    called = commands(done)
    assert len(called) == len(RUN) + len(CREATE)
    assert all(
        os.path.basename(argv[0]) == runtime and os.access(argv[0], os.X_OK) for argv in called
    )
    assert '"status": "created"' in done.stdout
    assert "  | ready" in done.stdout
    assert done.stdout.endswith("12 commands called: srun --container will work\n")
    assert sorted(bundle.rglob("*")) == before


@pytest.mark.parametrize("form", ["run", "create"])
@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_the_guides_configurations(
    engine: Engine, make_bundle: Callable[..., Path], runtime: str, form: str
) -> None:
    require(runtime, "userns")
    env = conf(engine, (GUIDE / f"{runtime}-{form}.conf").read_text())
    done = engine.run(["roadstead", "runtime", "test", make_bundle()], env=env).check()
    assert steps(done) == (RUN if form == "run" else CREATE), str(done)
    assert all(argv[:2] == ["/bin/sh", "-c"] for argv in commands(done))
    assert all(argv[2].startswith(f"{runtime} --rootless=true") for argv in commands(done))
    # kill -a: only containers with a control group have processes that it finds.
    warned = "WARNING kill" in done.stdout
    assert warned == ("remove -a from RunTimeKill" in done.stdout)
    assert not warned or engine.account.uid


def test_what_passes_here_passes_in_srun(engine: Engine, make_bundle: Callable[..., Path]) -> None:
    require("crun", "userns")
    bundle = make_bundle(engine.base / "a b'c$d", args=["sh"])
    done = engine.run(["roadstead", "runtime", "test", "../a b'c$d"]).check()
    assert len(commands(done)) == 12
    assert engine.run(["srun", "--container", bundle, "echo", "hi"]).check().stdout == "hi\n"


def test_a_command_that_fails_ends_it_with_cause_and_fix(
    engine: Engine, make_bundle: Callable[..., Path]
) -> None:
    require("crun", "userns")
    env = conf(engine, BROKEN["run"].replace("crun --root={root} run", "no-such-runtime run"))
    done = engine.run(["roadstead", "runtime", "test", make_bundle()], env=env).check(1)
    assert len(commands(done)) == 1
    assert "  FAILED run: status 127" in done.stdout
    assert "no-such-runtime: not found" in done.stdout
    assert "  cause: no-such-runtime ended with status 127" in done.stdout
    assert "  fix:   check the program's name in oci.conf, and PATH" in done.stdout
    assert done.stdout.endswith("1 command called, 1 failed\n")


def test_a_state_that_is_wrong_and_going_on(
    engine: Engine, make_bundle: Callable[..., Path]
) -> None:
    require("crun", "userns")
    text = (
        BROKEN["run"]
        .replace("state %n", "state %n")
        .replace('RunTimeQuery="crun', 'RunTimeQuery="echo nonsense; crun')
    )
    env = conf(engine, text)
    bundle = make_bundle()
    done = engine.run(["roadstead", "runtime", "test", bundle], env=env).check(1)
    assert "cause: the state is 'not JSON with a status', not 'running'" in done.stdout
    assert len(commands(done)) == 2
    done = engine.run(["roadstead", "runtime", "test", "--keep-going", bundle], env=env).check(1)
    assert len(commands(done)) == len(RUN)
    assert done.stdout.endswith("5 commands called, 1 failed\n")


def test_a_create_that_hangs_is_ended(engine: Engine, make_bundle: Callable[..., Path]) -> None:
    require("crun", "userns")
    text = (GUIDE / "crun-create.conf").read_text()
    text = text.replace('RunTimeCreate="', 'RunTimeCreate="sleep 60; ').replace("/tmp/", "{root}")
    env = {**conf(engine, text), "ROADSTEAD_RUNTIME_TIMEOUT": "0.3"}
    done = engine.run(["roadstead", "runtime", "test", make_bundle()], env=env, timeout=20).check(1)
    assert "FAILED create: no end" in done.stdout
    assert "did not answer" in done.stdout


def test_a_bundle_without_a_shell(engine: Engine, make_bundle: Callable[..., Path]) -> None:
    require("crun", "userns")
    bundle = make_bundle(args=["/bin/busybox", "true"])
    for name in ("sh", "cat"):
        (bundle / "rootfs" / "bin" / name).unlink()
    done = engine.run(["roadstead", "runtime", "test", bundle]).check()
    assert "the program ended by itself (0)" in done.stdout


@pytest.mark.parametrize(
    ("signo", "whom"),
    [(signal.SIGINT, "command"), (signal.SIGTERM, "command"), (signal.SIGKILL, "command"),
     (signal.SIGKILL, "worker"), (signal.SIGKILL, "both")],
)  # fmt: skip
def test_ended_half_way(
    engine: Engine, make_bundle: Callable[..., Path], signo: int, whom: str
) -> None:
    """The container, its state and the directory go; at once, or with the next test."""
    require("crun", "userns")
    env = conf(engine, BROKEN["run"].replace('RunTimeQuery="', 'RunTimeQuery="sleep 30; '))
    argv = ["roadstead", "runtime", "test", make_bundle()]
    process = engine.popen(argv, env=env)
    eventually(lambda: any("sleep 30" in each.command for each in engine.processes()), what="query")
    workers = [each.pid for each in engine.processes() if each.parent == process.pid]
    for pid in {"command": [process.pid], "worker": workers, "both": [process.pid, *workers]}[whom]:
        os.kill(pid, signo)
    done = engine.finish(process, timeout=10) if whom != "both" else None
    if whom == "both":
        process.wait()
        for each in engine.processes():
            if "sleep 30" in each.command:
                os.kill(each.pid, signal.SIGKILL)
        engine.finish(process, timeout=10)
    elif whom == "worker":
        assert done is not None
        assert (done.returncode, "the test was killed" in done.stderr) == (1, True)
    else:
        assert done is not None
        assert done.returncode == (-9 if signo == signal.SIGKILL else 128 + signo)
    if whom == "both":
        env = {"ROADSTEAD_RUNTIME": "crun"}
        engine.run(argv, env=env).check()
    eventually(lambda: not engine.processes(), what="all processes to end")
    eventually(lambda: not (engine.runtime / "roadstead" / "trials").exists(), what="no directory")
    state = engine.base / "tmp" / "roadstead-containers"
    assert not state.exists() or os.listdir(state) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["runtime"], "runtime has to be told what to do"),
        (["runtime", "tst"], "runtime does not know tst"),
        (["runtime", "test"], "runtime test takes one bundle"),
        (["runtime", "test", "a", "b"], "runtime test takes one bundle"),
        (["runtime", "test", "--keep", "a"], "runtime test: unknown option --keep"),
    ],
)
def test_operands_that_are_wrong(engine: Engine, words: list[str], said: str) -> None:
    usage = "roadstead runtime test BUNDLE [--keep-going]"
    done = engine.run(["roadstead", *words]).check(1)
    assert done.stderr == f"roadstead: error: {said}; {usage}\n"


def test_bundles_that_are_none(engine: Engine) -> None:
    done = engine.run(["roadstead", "runtime", "test", "/no/such"]).check(1)
    assert "cause: container bundle /no/such does not exist" in done.stdout
    assert "fix:   name the directory that holds config.json" in done.stdout
    assert "Usage: roadstead runtime" in engine.run(["roadstead", "runtime", "-h"]).check().stdout
