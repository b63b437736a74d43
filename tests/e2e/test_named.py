"""Containers with a name, and containers that are saved."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support import bundle, waiting
from tests.support.engine import Engine
from tests.support.skips import require

pytestmark = pytest.mark.container


@pytest.fixture
def rootfs(engine: Engine) -> Path:
    require("busybox")
    path = engine.work / "rootfs"
    bundle.make_rootfs(path)
    return engine.account.own(path)


def batch(engine: Engine, script: str, *options: object) -> list[str]:
    engine.account.write(engine.work / "job", f"#!/bin/sh\n{script}")
    engine.run(["sbatch", "-W", "-o", "out", *options, "job"])
    return (engine.work / "out").read_text().splitlines()


def supervisors(engine: Engine) -> list[tuple[str, int]]:
    claims = engine.runtime.glob("roadstead/steps/*/claim.json")
    return [(each.parent.name, json.loads(each.read_text())["pid"]) for each in claims]


def left(engine: Engine) -> list[str]:
    """What of named containers is there."""
    tops = [*engine.state.glob("roadstead/*/named/*"), *engine.base.glob("tmp/*/named/*")]
    return [os.fspath(each) for each in tops]


def test_it_is_there_after_the_controller_was_killed(engine: Engine, rootfs: Path) -> None:
    """The next controller looks for what is left of earlier ones a second after its start."""
    script = (
        "srun --container-image=./rootfs --container-name=mine sh -c 'echo kept > /file'\n"
        "touch made; while ! test -e go; do sleep 0.1; done\n"
        "srun --container-name=mine cat /file\n"
    )
    engine.account.write(engine.work / "job", f"#!/bin/sh\n{script}")
    engine.run(["sbatch", "-o", "out", "job"]).check()
    waiting.eventually((engine.work / "made").exists)
    for each in engine.processes():
        with contextlib.suppress(FileNotFoundError):
            if Path(f"/proc/{each.pid}/comm").read_text() == "roadstead-ctl\n":
                os.kill(each.pid, signal.SIGKILL)
    engine.run(["squeue"]).check()
    time.sleep(2.5)  # the audit says when it has removed something, and nothing else
    (engine.work / "go").touch()
    waiting.eventually(lambda: not engine.run(["squeue", "-h"]).stdout)
    assert (engine.work / "out").read_text() == "kept\n"
    assert left(engine) == []


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_it_lasts_as_long_as_the_job(engine: Engine, rootfs: Path, runtime: str) -> None:
    require(runtime)
    script = (
        f"export ROADSTEAD_RUNTIME={runtime} ROADSTEAD_OCI_CONF=none\n"
        "srun --container-image=./rootfs --container-name=mine sh -c 'echo kept > /file'\n"
        "srun --container-name=mine cat /file\n"
        "srun -n2 --overcommit --container-name=mine sh -c 'echo $SLURM_PROCID >> /file'\n"
        "srun --container-name=mine:no_exec sh -c 'sort /file; rm /bin/vi'\n"
        "srun --container-name=other cat /file\n"
        "srun --container-image=./rootfs --container-name=other ls /file /bin/vi\n"
    )
    said = batch(engine, script)
    assert said[:4] == ["kept", "0", "1", "kept"], said
    assert "--container-name=other: the job has no container of this name" in said[4]
    assert "/bin/vi" in said
    assert "ls: /file: No such file or directory" in said
    assert not left(engine)
    assert not (rootfs / "file").exists()


def test_steps_at_the_same_time_share_it(engine: Engine, rootfs: Path) -> None:
    wait = "until test -e /{}; do sleep 0.05; done"
    script = (
        "srun --overlap --container-image=./rootfs --container-name=c sh -c 'echo a > /a.new; "
        f"mv /a.new /a; {wait.format('b')}; cat /b' &\n"
        f"srun --overlap --container-image=./rootfs --container-name=c sh -c '{wait.format('a')}; "
        "cat /a; echo b > /b.new; mv /b.new /b' &\n"
        "wait\nsrun --container-name=c cat /a /b\n"
    )
    assert sorted(batch(engine, script)) == ["a", "a", "b", "b"]


def test_flags(engine: Engine, rootfs: Path) -> None:
    script = (
        "srun --container-name=c:exec --container-image=./rootfs true\n"
        "srun --container-name=c:create --container-image=./rootfs true\n"
        "srun --container-name=c:create --container-image=./rootfs true\n"
        "srun --container-name=c:exec true\n"
        "srun --overlap --container-name=c sleep 30 &\n"
        "until srun --overlap --container-name=c:exec echo in 2>/dev/null; do sleep 0.1; done\n"
        "srun --container-name=c --container=/elsewhere true\nkill %1\n"
    )
    said = "\n".join(batch(engine, script, "-n2"))
    assert said.count("c:exec: no step is running in it") == 2, said
    assert "c:create: the job has a container of this name" in said
    assert "\nin\n" in said
    assert "warning: container c was made of" in said


def test_a_supervisor_that_is_killed(engine: Engine, rootfs: Path) -> None:
    """Its container can be used again at once, and goes with the job."""
    with_name = ["srun", "--jobid=1", "--container-name=c"]
    engine.run(["sbatch", "-n2", "--wrap", "sleep 100"]).check()
    try:
        waiting.eventually(lambda: "R" in engine.run(["squeue", "-h", "-o", "%t"]).stdout)
        engine.run([*with_name, "--container-image=./rootfs", "sh", "-c", "echo x > /x"]).check()
        first = engine.popen([*with_name, "sh", "-c", "echo 1.$SLURM_STEP_ID > /in; sleep 100"])
        look = [*with_name, "--overlap", "cat", "/in"]
        step = waiting.eventually(lambda: engine.run(look).stdout.strip())
        (killed,) = [pid for name, pid in supervisors(engine) if name == step]
        os.kill(killed, signal.SIGKILL)
        done = engine.run([*with_name, "--overlap", "cat", "/x"]).check()
        assert done.stdout == "x\n"
        assert engine.finish(first).returncode == 125
    finally:
        engine.run(["scancel", "1"])
    waiting.eventually(lambda: not left(engine))


def test_a_controller_that_is_killed(engine: Engine, rootfs: Path) -> None:
    engine.account.write(
        engine.work / "job",
        "#!/bin/sh\nsrun --container-image=./rootfs --container-name=c touch /x\n"
        "touch made; until test -e go; do sleep 0.05; done\n"
        "srun --container-name=c ls /x\n",
    )
    engine.run(["sbatch", "-o", "out", "job"]).check()
    waiting.eventually((engine.work / "made").exists)
    for each in engine.processes():
        if "roadstead-ctl" in Path(f"/proc/{each.pid}/comm").read_text():
            os.kill(each.pid, signal.SIGKILL)
    engine.run(["squeue"]).check()
    engine.account.write(engine.work / "go", "")
    waiting.eventually(lambda: not engine.run(["squeue", "-h"]).stdout)
    assert (engine.work / "out").read_text() == "/x\n"
    assert not left(engine)


def test_names_that_are_none(engine: Engine, rootfs: Path) -> None:
    for name in ("../x", "a/b", "", ".x", "a b", "x" * 129, "a:later"):
        done = engine.run(
            ["srun", f"--container-name={name}", "--container-image=./rootfs", "true"]
        )
        assert done.returncode
        assert "--container-name" in done.stderr


@pytest.mark.parametrize(
    ("option", "reference"),
    [
        ("saved.sqsh", "./saved.sqsh"),
        ("saved", "./saved"),
        ("saved.tar", "oci-archive:saved.tar"),
        ("oci:layout:v1", "oci:layout:v1"),
    ],
)
def test_save(engine: Engine, rootfs: Path, option: str, reference: str) -> None:
    """What was written is in what was saved, and it runs."""
    require("squashfs-tools")
    script = "echo new > /etc/new; mkdir -p /d; ln -s ../etc/new /d/l; rm /bin/vi; exit 3"
    argv: list[Any] = ["srun", "-n2", "--overcommit", "--container=./rootfs"]
    done = engine.run([*argv, f"--container-save={option}", "sh", "-c", script])
    assert done.returncode == 3
    done = engine.run(["srun", "--container", reference, "sh", "-c", "cat /d/l; ls /bin/vi"])
    assert done.stdout == "new\n", done.stderr
    assert "No such file" in done.stderr
    assert (rootfs / "bin/vi").exists()
    names = {path.name for path in engine.work.iterdir()}
    assert names == {"rootfs", option.split(":")[-2] if ":" in option else option}


def test_save_keeps_how_it_is_run(engine: Engine, make_bundle: Any) -> None:
    require("squashfs-tools", "umoci")
    made = make_bundle()
    for target, reference in (("a.sqsh", "./a.sqsh"), ("oci:b:t", "oci:b:t")):
        engine.run(
            ["srun", "--container", made, "--container-writable=private",
             f"--container-save={target}", "touch", "/x"]
        ).check()  # fmt: skip
        done = engine.run(["srun", "--container", reference, "sh", "-c", "echo $TERM; ls /x"])
        assert done.stdout == "xterm\n/x\n", done.stderr
    engine.account.run(["umoci", "stat", "--image", "b:t"], cwd=engine.work).check()


def test_saved_again(engine: Engine, rootfs: Path) -> None:
    """A layout keeps its other tags; a file is replaced."""
    for tag, word in (("one", "1"), ("two", "2"), ("one", "3")):
        argv = ["srun", "--container=./rootfs", f"--container-save=oci:l:{tag}"]
        engine.run([*argv, "sh", "-c", f"echo {word} > /w"]).check()
    for tag, word in (("one", "3"), ("two", "2")):
        done = engine.run(["srun", f"--container=oci:l:{tag}", "cat", "/w"]).check()
        assert done.stdout == f"{word}\n"


def test_what_cannot_be_saved(engine: Engine, rootfs: Path) -> None:
    engine.account.mkdir(engine.work / "full")
    engine.account.write(engine.work / "full/x", "")
    for target, said in (
        ("none/x", "there is no directory"),
        ("full", "not a regular file"),
        ("oci:full", "something else than an OCI layout"),
        ("full/", "a directory"),
        ("oci:full:a/b", "is not a tag"),
    ):
        done = engine.run(["srun", "--container=./rootfs", f"--container-save={target}", "true"])
        assert done.returncode
        assert said in done.stderr, done.stderr
    no_tool = ["srun", "--container=./rootfs", "--container-save=x", "true"]
    done = engine.run(no_tool, env={"PATH": f"{engine.shims}:{rootfs}/bin"})
    if not os.access("/usr/bin/mksquashfs", os.X_OK):
        assert "mksquashfs is needed" in done.stderr


def test_a_save_that_is_cancelled_leaves_nothing(engine: Engine, rootfs: Path) -> None:
    argv = ["srun", "--container=./rootfs", "--container-save=x.sqsh", "sleep", "100"]
    step = engine.popen(argv)
    waiting.eventually(lambda: "R" in engine.run(["squeue", "-h", "-o", "%t"]).stdout.split())
    engine.run(["scancel", "1"]).check()
    assert engine.finish(step).returncode
    assert [path.name for path in engine.work.iterdir()] == ["rootfs"]


def of_steps(engine: Engine) -> list[int]:
    """The supervisors of job 1's steps that srun asked for, by pid."""
    batch = str(0xFFFFFFFB)
    return [
        pid
        for name, pid in supervisors(engine)
        if name.startswith("1.") and not name.endswith(batch)
    ]


def exists_or_is_over(engine: Engine, step: subprocess.Popen[str]) -> bool:
    return bool(of_steps(engine)) or step.poll() is not None


def test_kills_at_any_moment(engine: Engine, rootfs: Path) -> None:
    """A supervisor that is killed as it makes, joins, leaves or saves a container leaves one that
    can be used, and nothing else."""
    require("squashfs-tools")
    chance = random.Random(7)
    engine.run(["sbatch", "-n2", "--wrap", "sleep 100"]).check()
    waiting.eventually(lambda: "R" in engine.run(["squeue", "-h", "-o", "%t"]).stdout)
    srun = ["srun", "--jobid=1", "--overlap", "--container-image=./rootfs", "--container-name=c"]
    killed = 0
    for number in range(12):
        save = ["--container-save=x.sqsh"] if number % 2 else []
        step = engine.popen([*srun, *save, "sh", "-c", f"echo {number} > /n{number}"])
        # From when there is one to kill: how soon that is depends on the machine.
        waiting.eventually(functools.partial(exists_or_is_over, engine, step))
        time.sleep(chance.uniform(0, 0.2))
        for pid in of_steps(engine):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed += 1
        engine.finish(step)
        done = engine.run([*srun, "sh", "-c", "echo ok; touch /kept; test -e /kept"]).check()
        assert done.stdout == "ok\n"
        left_over = {path.name for path in engine.work.iterdir()} - {"rootfs", "x.sqsh"}
        assert not {name for name in left_over if not name.startswith("slurm-")}
    assert killed > 2
    engine.run(["scancel", "1"]).check()
    waiting.eventually(lambda: not left(engine))


def test_what_a_lost_job_left_is_found(engine: Engine, rootfs: Path) -> None:
    """Of a journal that was moved away, say: the controller knows no such job."""
    engine.run(["squeue"]).check()
    (state,) = engine.state.glob("roadstead/*")
    place = engine.base / "tmp" / "roadstead-x"
    engine.account.mkdir(place)
    engine.account.mkdir(place / "layer")
    engine.account.mkdir(state / "named")
    engine.account.mkdir(state / "named/99")
    (state / "named/99/c").symlink_to(place)
    waiting.eventually(lambda: (state / "named/99").exists())
    done = engine.run(["roadstead", "audit"])
    assert f"named container {state}/named/99" in " ".join(done.stdout.split()), done
    engine.run(["roadstead", "audit", "--clean"])
    assert not place.exists()
    assert not (state / "named/99").exists()
