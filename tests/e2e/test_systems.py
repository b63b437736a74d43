"""The contract of a step's container, held by every container system: one suite for all of them.

What is not installed is skipped by name; what cannot be installed at all is in
test_systems_fakes.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.support import bundle, engines, leaks, systems
from tests.support.account import Completed
from tests.support.engine import Engine
from tests.support.skips import needs, require
from tests.support.waiting import eventually

pytestmark = [pytest.mark.container, needs("busybox")]

_AFTER = 'trap "echo got; exit 7" USR1; trap "echo term; exit 8" TERM; echo up; while :; do :; done'


@dataclass
class Run:
    """srun with one container system, and a bundle or a reference."""

    engine: Engine
    system: str
    bundle: Path | str
    env: dict[str, str] = field(default_factory=dict)
    own: str = ""  # an image of the system's own

    def argv(self, *words: str, **options: str) -> list[str]:
        given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        given = [each.removesuffix("=") for each in given]
        container = [f"--container-system={self.system}", f"--container={self.bundle}"]
        return ["srun", *container, *given, *words]

    def __call__(self, *words: str, stdin: str | None = None, **options: str) -> Completed:
        return self.engine.run(self.argv(*words, **options), env=self.env, stdin=stdin)

    def start(self, *words: str, **options: str) -> Any:
        """A step whose program has said that it is there."""
        process = self.engine.popen(self.argv(*words, **options), env=self.env)
        assert process.stdout.readline() == "up\n"
        return process


@pytest.fixture(params=systems.INSTALLED, scope="module")
def prepared(shared_engine: Engine, request: pytest.FixtureRequest) -> Iterator[Run]:
    path = shared_engine.work / f"bundle-{request.param}"
    made = Run(shared_engine, request.param, path)
    require("busybox", "runc")
    bundle.make_bundle(shared_engine.account, path, readonly=False)
    folder = shared_engine.account.mkdir(path / "rootfs/srv")
    shared_engine.account.write(folder / "hello", "from an image\n")
    with systems.ready(request.param, shared_engine, path / "rootfs") as (made.env, made.own):
        if made.system == "docker":  # runs what it has itself, and nothing else
            made.bundle = made.own
        yield made


# What root shows that the user does not; all of it would take twice as long.
_AS_ROOT = ("test_exit_codes", "test_mounts", "test_nothing_is_left_after_kill_9")


@pytest.fixture
def run(prepared: Run, request: pytest.FixtureRequest) -> Run:
    if prepared.engine.account.uid == 0 and request.function.__name__ not in _AS_ROOT:
        pytest.skip("shown as the user alone")
    return replace(prepared)


@pytest.fixture(scope="module")
def image() -> Iterator[Path]:
    require("skopeo", "umoci")
    top = Path(tempfile.mkdtemp(prefix=leaks.PREFIX, dir="/tmp"))
    top.chmod(0o755)
    yield engines.archive(top)
    leaks.remove(top)


def test_exit_codes(run: Run) -> None:
    for script, code in (
        ("exit 3", 3),
        ("exit 125", 125),
        ('sh -c "kill -9 \\$\\$"; exit $?', 137),
    ):
        done = run("sh", "-c", script)
        assert done.returncode == code, (script, done)
    done = run("nowhere")
    assert done.returncode == 127, done
    assert "nowhere: not found in the container" in done.stderr, done


def test_environment_directory_and_streams(run: Run) -> None:
    variables = {"WORDS": "two  words", "QUOTES": "'\"`$(id)`$HOME", "LINES": "a\nb", "EMPTY": ""}
    run.env = {**run.env, **variables}
    script = (
        'printf "%s|" "$WORDS" "$QUOTES" "$LINES" "$EMPTY" "$SLURM_PROCID"; pwd; cat; echo e >&2'
    )
    done = run("sh", "-c", script, chdir="/etc", stdin="typed")
    want = "|".join([*variables.values(), "0", "/etc\ntyped"])
    assert (done.stdout, done.stderr) == (want, "e\n"), done


def test_mounts(run: Run) -> None:
    data = run.engine.account.mkdir(run.engine.work / f"data-{run.system}", 0o755)
    run.engine.account.write(data / "in", "from the host\n")
    mounts = f"{data}:/data/here,{data}:/once:ro,{data}/in:/etc/one"
    script = "cat /data/here/in /etc/one && echo out >/data/here/out; echo no >/once/no"
    done = run("sh", "-c", script, container_mounts=mounts)
    assert done.stdout == "from the host\n" * 2, done
    assert done.returncode == 1, done
    assert "ead-only" in done.stderr, done
    assert (data / "out").read_text() == "out\n"
    assert (data / "out").stat().st_uid == run.engine.account.uid


def test_signals_reach_the_program(run: Run) -> None:
    process = run.start("sh", "-c", _AFTER)
    process.send_signal(signal.SIGUSR1)
    done = run.engine.finish(process)
    assert (done.returncode, done.stdout) == (7, "got\n"), done


def test_a_cancelled_step_ends(run: Run) -> None:
    """By SIGTERM, which the program may use, or which ends it."""
    process = run.start("sh", "-c", _AFTER)
    run.engine.run(["scancel", "--me"]).check()
    done = run.engine.finish(process)
    assert (done.returncode, "term\n" in done.stdout) == (8, True), done
    process = run.start("sh", "-c", "echo up; exec sleep 60")
    run.engine.run(["scancel", "--me"]).check()
    assert run.engine.finish(process).returncode == 143


def test_several_tasks_and_a_batch_script(run: Run) -> None:
    done = run("sh", "-c", "echo $SLURM_PROCID of $SLURM_NTASKS", ntasks="2", overcommit="")
    assert sorted(done.stdout.split("\n")) == ["", "0 of 2", "1 of 2"], done
    script = run.engine.account.write(
        run.engine.work / "job", "#!/bin/sh\ncat /etc/passwd; exit 4\n"
    )
    words = run.argv()[1:3]
    done = run.engine.run(["sbatch", "--wait", "--output=said", *words, script], env=run.env)
    assert done.returncode == 4, done
    assert (run.engine.work / "said").read_text() == "root:x:0:0:root:/root:/bin/sh\n"


def test_nothing_is_left_after_kill_9(run: Run) -> None:
    """Of the supervisor, while the program runs: the controller sweeps."""
    process = run.start("sh", "-c", "echo up; exec sleep 97")
    for each in run.engine.processes():
        with contextlib.suppress(OSError):  # one that has gone meanwhile
            if Path(f"/proc/{each.pid}/comm").read_text() == "roadstead-step\n":
                os.kill(each.pid, signal.SIGKILL)
    done = run.engine.finish(process)
    assert done.returncode == 125, done
    eventually(lambda: not [p for p in run.engine.processes() if "sleep 97" in p.command])
    run.engine.run(["roadstead", "audit", "--clean"], env=run.env)
    assert run.engine.run(["roadstead", "audit"], env=run.env).returncode == 0
    systems.nothing_is_kept(run.system, run.engine, run.env)


def test_an_image_is_not_written_to(run: Run, image: Path) -> None:
    """From image to exit code: one of several layers, or one of its own."""
    if run.system != "docker":
        run.bundle = f"oci-archive:{image}"
    done = run("sh", "-c", "echo x >/new && cat /srv/hello /new; exit 3")
    assert (done.returncode, done.stdout) == (3, "from an image\nx\n"), done
    assert run("sh", "-c", "test ! -e /new").returncode == 0


def test_its_own_images_run_by_their_names(run: Run) -> None:
    """Through the system itself, and as a bundle through an OCI runtime."""
    if not run.own:
        pytest.skip("it knows no image by a name")
    run.bundle = run.own
    direct = run("sh", "-c", "cat /srv/hello; exit 3")
    assert (direct.returncode, direct.stdout) == (3, "from an image\n"), direct
    argv = ["srun", f"--container={run.own}", "sh", "-c", "cat /srv/hello; exit 4"]
    bundled = run.engine.run(argv, env=run.env)
    assert (bundled.returncode, bundled.stdout) == (4, "from an image\n"), bundled


def test_a_failure_of_its_own_is_told_from_the_programs(run: Run) -> None:
    done = run("true", container_mounts=f"{run.engine.work}:/etc/passwd")  # a directory over a file
    assert (done.returncode, done.stdout) == (125, ""), done
    assert "task 0: Exited" not in done.stderr, done


def test_an_oci_conf_may_have_it_run_bundles(run: Run) -> None:
    """`roadstead engine oci-conf NAME` and what that file calls, as slurmstepd does."""
    argv = ["roadstead", "engine", "oci-conf", run.system, "--slurm-version=26.05"]
    if run.system == "docker":
        done = run.engine.run(argv)
        assert done.returncode == 1
        assert "docker runs no bundles" in done.stderr
        return
    printed = run.engine.run([*argv, "--command=roadstead oci"]).check().stdout
    line = next(each for each in printed.splitlines() if each.startswith("RunTimeRun="))
    command = line.partition('"')[2].rstrip('"')
    name = run.engine.account.name
    for pattern, value in (("%U", name), ("%u", name), ("%b", f"{run.bundle}"), ("%n", "n"),
                           ("%j", "7"), ("%s", "0"), ("%t", "0")):  # fmt: skip
        command = command.replace(pattern, value)
    command = command.replace(" run ", f" run --root {run.engine.base}/oci ")
    config = Path(run.bundle) / "config.json"
    known = json.loads(config.read_text())
    known["process"]["args"] = ["sh", "-c", "cat /srv/hello; exit 3"]
    run.engine.account.write(config, json.dumps(known))
    done = run.engine.run(["sh", "-c", command], env=run.env)
    assert (done.returncode, done.stdout) == (3, "from an image\n"), done
