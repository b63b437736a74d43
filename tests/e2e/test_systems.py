"""The contract of a step's container, held by every container system: one suite for all of them.

What is not installed is skipped by name.  Of what cannot be installed here there are fakes, which
are called so ("fake-sarus"): they hold the system's published command line and really run the
command, and so show that what we tell a system is what it would understand, not what it would do.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from roadstead.systems import TABLE
from tests.support import bundle, engines, leaks, systems
from tests.support.account import Completed
from tests.support.engine import Engine
from tests.support.skips import needs, require
from tests.support.waiting import eventually

pytestmark = [pytest.mark.container, needs("busybox")]

# These run what they have themselves, and nothing else.
_OWN_ALONE = ("docker", "sarus", "shifter")
_AFTER = 'trap "echo got; exit 7" USR1; trap "echo term; exit 8" TERM; echo up; while :; do :; done'


@dataclass
class Run:
    """srun with one container system, and a bundle or a reference."""

    engine: Engine
    system: str
    bundle: Path | str
    env: dict[str, str] = field(default_factory=dict)
    own: str = ""  # an image of the system's own
    is_fake: bool = False

    @property
    def runs_bundles(self) -> bool:
        return not isinstance(self.bundle, str)

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


@pytest.fixture(params=[*systems.INSTALLED, *systems.FAKES], scope="module")
def prepared(shared_engine: Engine, request: pytest.FixtureRequest) -> Iterator[Run]:
    path = shared_engine.work / f"bundle-{request.param}"
    if request.param in systems.FAKES and shared_engine.account.uid == 0:
        pytest.skip("shown as the user alone")
    name, is_fake = request.param.removeprefix("fake-"), request.param in systems.FAKES
    made = Run(shared_engine, name, path, is_fake=is_fake)
    require("busybox", "runc")
    bundle.make_bundle(shared_engine.account, path, readonly=False)
    folder = shared_engine.account.mkdir(path / "rootfs/srv")
    shared_engine.account.write(folder / "hello", "from an image\n")
    with systems.ready(request.param, shared_engine, path / "rootfs") as (made.env, made.own):
        if made.system in _OWN_ALONE:
            made.bundle = made.own
        yield made


# What root shows that the user does not; all of it would take twice as long.
_AS_ROOT = (
    *("test_exit_codes", "test_mounts", "test_nothing_is_left_after_kill_9"),
    "test_nothing_is_left_of_a_system_that_is_killed",
)


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


def test_every_member_is_here() -> None:
    here = {each.removeprefix("fake-") for each in (*systems.INSTALLED, *systems.FAKES)}
    assert here == set(TABLE)


def test_exit_codes(run: Run) -> None:
    for script, code in (
        ("exit 3", 3),
        ("exit 125", 125),
        ('sh -c "kill -9 \\$\\$"; exit $?', 137),
    ):
        done = run("sh", "-c", script)
        assert done.returncode == code, (script, done)
    if run.is_fake and not run.runs_bundles:
        return  # what these say of a program that is not there nobody has seen
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
    data = run.engine.account.mkdir(run.engine.work / f"data-{run.system}-{run.is_fake}", 0o755)
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


def test_a_signal_comes_once(run: Run) -> None:
    """Also where a process of the system's own waits for the program, and passes signals on."""
    script = (
        "n=0; trap 'n=$((n+1)); echo $n' USR1; trap 'exit $n' USR2; echo up; while :; do :; done"
    )
    process = run.start("sh", "-c", script)
    for number in range(1, 9):
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == f"{number}\n"
    process.send_signal(signal.SIGUSR2)
    assert run.engine.finish(process).returncode == 8


def test_a_cancelled_step_ends(run: Run) -> None:
    """By SIGTERM, which the program may use, or which ends it."""
    process = run.start("sh", "-c", _AFTER)
    run.engine.run(["scancel", "--me"]).check()
    done = run.engine.finish(process)
    assert (done.returncode, "term\n" in done.stdout) == (8, True), done
    process = run.start("sh", "-c", "echo up; exec sleep 60")
    run.engine.run(["scancel", "--me"]).check()
    assert run.engine.finish(process).returncode == 143


def test_a_program_that_is_killed(run: Run) -> None:
    """By somebody else than the step: its signal is told, where the system tells of it."""
    process = run.start("sh", "-c", "echo up; exec sleep 97")
    (program,) = eventually(lambda: _programs(run.engine))
    os.kill(program.pid, signal.SIGKILL)
    done = run.engine.finish(process)
    assert done.returncode == (255 if run.system == "udocker" else 137), done


def test_a_terminal(run: Run) -> None:
    require("util-linux")
    line = shlex.join(run.argv("sh", "-c", "test -t 0 && test -t 1 && echo is one; exit 3", pty=""))
    done = run.engine.run(["script", "-qefc", line, "/dev/null"], env=run.env)
    assert (done.returncode, "is one" in done.stdout) == (3, True), done


def test_several_tasks_and_a_batch_script(run: Run) -> None:
    done = run(
        "sh",
        "-c",
        "echo $SLURM_PROCID of $SLURM_NTASKS",
        ntasks="2",
        overcommit="",
        container_sync="",
    )
    assert sorted(done.stdout.split("\n")) == ["", "0 of 2", "1 of 2"], done
    script = run.engine.account.write(
        run.engine.work / "job", "#!/bin/sh\ncat /srv/hello; exit 4\n"
    )
    words = run.argv()[1:3]
    done = run.engine.run(["sbatch", "--wait", "--output=said", *words, script], env=run.env)
    assert done.returncode == 4, done
    assert (run.engine.work / "said").read_text() == "from an image\n"


def test_nothing_is_left_after_kill_9(run: Run) -> None:
    """Of the supervisor, while the program runs: the controller sweeps."""
    process = run.start("sh", "-c", "echo up; exec sleep 97")
    for each in run.engine.processes():
        if _comm(each.pid) == "roadstead-step":
            with contextlib.suppress(ProcessLookupError):
                os.kill(each.pid, signal.SIGKILL)
    done = run.engine.finish(process)
    assert done.returncode == 125, done
    nothing_is_left(run)


@pytest.mark.parametrize("which", ["first", "all"])
def test_nothing_is_left_of_a_system_that_is_killed(run: Run, which: str) -> None:
    """By kill -9: the process that the step has started, or all of the system's at once."""
    process = run.start("sh", "-c", "echo up; exec sleep 97")
    eventually(lambda: _programs(run.engine))
    own = _processes_of_the_system(run.engine)
    for each in own[:1] if which == "first" else own:
        with contextlib.suppress(ProcessLookupError):  # by the end of the one before
            os.kill(each, signal.SIGKILL)
    done = run.engine.finish(process)
    assert done.returncode in (125, 137), done
    nothing_is_left(run)


def _processes_of_the_system(engine: Engine) -> list[int]:
    """Those between the step's supervisor and the program, the first one first; the program where
    the system has become it."""
    found = {each.pid: each for each in engine.processes()}
    tops = {pid for pid in found if _comm(pid) == "roadstead-step"}
    below: list[int] = []
    while more := [p for p in found if found[p].parent in {*tops, *below} and p not in below]:
        below += more
    own = [pid for pid in below if not found[pid].command.startswith("sleep 97")]
    return [pid for pid in own if pid not in tops] or below


def _programs(engine: Engine) -> list[leaks.Process]:
    """The program, once it is what it is to be: it has said so a moment before."""
    return [each for each in engine.processes() if each.command == "sleep 97"]


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")
    except OSError:  # it has gone meanwhile
        return ""


def nothing_is_left(run: Run) -> None:
    eventually(lambda: not [p for p in run.engine.processes() if "sleep 97" in p.command])
    run.engine.run(["roadstead", "audit", "--clean"], env=run.env)
    assert run.engine.run(["roadstead", "audit"], env=run.env).returncode == 0
    systems.nothing_is_kept(run.system, run.engine, run.env)


def test_an_image_is_not_written_to(run: Run, image: Path) -> None:
    """From image to exit code: one of several layers, or one of its own."""
    if run.is_fake and not run.runs_bundles:
        pytest.skip("a fake has no layers")
    if run.runs_bundles:
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
    if run.is_fake:
        pytest.skip("how a fake fails is how its author thought")
    done = run("true", container_mounts=f"{run.engine.work}:/etc/passwd")  # a directory over a file
    assert (done.returncode, done.stdout) == (125, ""), done
    assert "task 0: Exited" not in done.stderr, done


def test_an_oci_conf_may_have_it_run_bundles(run: Run) -> None:
    """`roadstead engine oci-conf NAME` and what that file calls, as slurmstepd does."""
    argv = ["roadstead", "engine", "oci-conf", run.system, "--slurm-version=26.05"]
    if not run.runs_bundles:
        done = run.engine.run(argv)
        assert done.returncode == 1
        assert f"{run.system} runs no bundles" in done.stderr
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
