"""Everything at once that a step should survive: closed streams, full disks, odd bytes, kills."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.account import Account, Completed
from tests.support.engine import Engine
from tests.support.waiting import eventually

pytestmark = pytest.mark.hostile


@pytest.fixture(scope="module")
def engine(shared_engine: Engine) -> Engine:
    return shared_engine


@pytest.fixture(params=["plain", "two plain", "contained", "two contained"])
def srun(
    request: pytest.FixtureRequest, engine: Engine, make_bundle: Callable[..., Path]
) -> list[str]:
    argv = ["srun", "-n2", "-O"] if "two" in request.param else ["srun"]
    return [*argv, "--container", str(make_bundle())] if "contained" in request.param else argv


def sh(engine: Engine, line: str, *words: str, **options: Any) -> Completed:
    """Run a line of shell, with ``words`` as its ``"$@"``."""
    done = engine.run(["sh", "-c", line, "sh", *words], timeout=30, **options)
    assert "Traceback" not in done.stderr, str(done)
    return done


def named(engine: Engine, name: str) -> list[int]:
    """The processes of the test with this name."""
    found = []
    for process in engine.processes():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{process.pid}/comm").read_text().strip() == name:
                found.append(process.pid)
    return found


def quiet(engine: Engine) -> None:
    eventually(
        lambda: not engine.run(["squeue", "-h"]).stdout.strip(), timeout=20, what="an empty queue"
    )


def test_closed_and_odd_streams(engine: Engine, srun: list[str]) -> None:
    sh(engine, '"$@" cat <&-', *srun).check()
    sh(engine, '"$@" echo hi >&-', *srun).check()
    assert sh(engine, '"$@" sh -c "exit 3" <&- >&- 2>&-', *srun).returncode == 3
    sh(engine, '"$@" sh -c "cat; exit 4" 0>/dev/null', *srun).check(4)
    done = sh(engine, '"$@" -l echo hi >/dev/full', *srun).check(1)
    assert done.stderr == "srun: error: output was lost: No space left on device\n"


def test_a_reader_that_goes_away_ends_relayed_tasks(engine: Engine, srun: list[str]) -> None:
    assert sh(engine, '"$@" yes | head -1', *srun).stdout == "y\n"
    assert sh(engine, '"$@" -l yes | head -1', *srun).stdout.endswith(": y\n")


def test_commands_without_streams(engine: Engine, make_bundle: Callable[..., Path]) -> None:
    bundle = str(make_bundle())
    sh(engine, "roadstead engine stop; sbatch --wrap true <&- >&- 2>&-")
    done = sh(engine, 'salloc --container "$1" sh -c "cat; echo read" <&-', bundle).check()
    assert done.stdout == "read\n"
    done = sh(engine, "sbatch <&-").check(1)
    assert "Batch script is empty" in done.stderr
    quiet(engine)


def test_words_as_they_were(engine: Engine, srun: list[str]) -> None:
    tasks = 2 if "-n2" in srun else 1
    done = engine.run([*srun, "printf", "<%s>", "a", "", "b\nc", "é"]).check()
    assert sorted(done.stdout) == sorted("<a><><b\nc><é>" * tasks)
    done = engine.run([*srun, "sh", "-c", 'echo "$A"'], env={"A": "x\ny"}).check()
    assert done.stdout == "x\ny\n" * tasks
    large = {f"V{number}": "x" * 100_000 for number in range(14)}
    done = engine.run([*srun, "sh", "-c", "echo ${#V13}"], env=large).check()
    assert done.stdout == "100000\n" * tasks
    words = ["a" * 100_000] * 10
    assert engine.run([*srun, "sh", "-c", "echo $#", "sh", *words]).check().stdout == "10\n" * tasks


def test_bytes_that_are_no_text(engine: Engine, srun: list[str]) -> None:
    """A plain task gets them; a config.json cannot hold them, and nothing is changed silently."""
    done = engine.run([*srun, "printf", "%s", "caf\udce9"])
    quoted = engine.run([*srun, "sh", "-c", 'printf %s "$A"'], env={"A": "caf\udce9"}).check()
    if "--container" in srun:
        assert "is not UTF-8" in done.check(1).stderr
        assert quoted.stdout == ""
        assert "warning: not UTF-8, and so left out of the container: 'A'" in quoted.stderr
    else:
        tasks = 2 if "-n2" in srun else 1
        assert done.check().stdout == quoted.stdout == "caf\udce9" * tasks


@pytest.mark.parametrize("name", ["a b", "a:b", "a,b", "a\\b", "a\nb", "'\"$x"])
def test_bundles_with_odd_names(
    engine: Engine, make_bundle: Callable[..., Path], scratch: Path, name: str
) -> None:
    bundle = make_bundle(scratch / name)
    argv = ["srun", "--container", str(bundle)]
    assert engine.run([*argv, "echo", "hi"]).check().stdout == "hi\n"
    done = engine.run([*argv, "--container-writable=private", "sh", "-c", "touch /x && ls /x"])
    assert done.check().stdout == "/x\n"
    assert done.stderr == ""
    assert not (bundle / "rootfs" / "x").exists()


def test_directories_of_ours_with_odd_names(
    engine: Engine, make_bundle: Callable[..., Path], scratch: Path
) -> None:
    run = engine.account.mkdir(scratch / "r,u:n x", 0o700)
    env = {"XDG_RUNTIME_DIR": str(run), "XDG_STATE_HOME": str(scratch / "state")}
    argv = ["srun", "--container", str(make_bundle()), "--container-writable=private"]
    try:
        assert (
            engine.run([*argv, "sh", "-c", "touch /x; echo hi"], env=env).check().stdout == "hi\n"
        )
        done = engine.run([*argv, "no-such"], env=env)
        assert done.returncode == 127, str(done)
    finally:
        engine.run(["roadstead", "engine", "stop"], env=env).check()


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_configs_that_lack_things(
    engine: Engine, make_bundle: Callable[..., Path], runtime: str
) -> None:
    bundle = make_bundle()
    path = bundle / "config.json"
    whole = json.loads(path.read_text())
    (bundle / "rootfs").rename(bundle / "tree")
    (bundle / "rootfs").symlink_to("tree")

    def run(**changes: Any) -> Completed:
        config = {**whole, **changes}
        path.write_text(json.dumps({k: v for k, v in config.items() if v != "absent"}))
        argv = ["srun", "--container", str(bundle), "echo", "hi"]
        done = engine.run(argv, env={"ROADSTEAD_RUNTIME": runtime})
        assert "Traceback" not in done.stderr
        assert "supervisor was killed" not in done.stderr
        return done

    process = whole["process"]
    assert run().check().stdout == "hi\n"
    assert run(process="absent").check().stdout == "hi\n"
    assert run(process=None).check().stdout == "hi\n"
    limits = [{"type": "RLIMIT_NOFILE", "hard": 1 << 40, "soft": None}]
    assert run(process={**process, "rlimits": limits}).check().stdout == "hi\n"
    assert run(hooks=None, annotations=None).check().stdout == "hi\n"
    assert "mounts[0] has no destination" in run(mounts=[{"type": "tmpfs"}]).check(1).stderr
    if runtime == "crun":  # with runc an only id is always its root
        assert run(process={**process, "user": {"uid": -1, "gid": 0}}).returncode == 125
    assert run(linux={**whole["linux"], "namespaces": [{"type": "odd"}]}).returncode == 125
    path.unlink()
    os.mkfifo(path, 0o644)
    argv = ["srun", "--container", str(bundle), "true"]
    assert "not valid JSON" in engine.run(argv, timeout=10).check(1).stderr


def test_one_after_the_other(engine: Engine, srun: list[str]) -> None:
    for number in range(12):
        program = "false" if number % 2 else "true"
        assert engine.run([*srun, program]).returncode == number % 2


def test_fifty_tasks(engine: Engine, srun: list[str]) -> None:
    argv = ["srun", "-n50", "-O", *[word for word in srun[1:] if word not in ("-n2", "-O")]]
    done = engine.run([*argv, "sh", "-c", "echo $SLURM_PROCID; exit $SLURM_PROCID"])
    assert done.returncode == 49
    assert sorted(map(int, done.stdout.split())) == list(range(50))


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP"])
def test_a_signal_at_any_moment_of_the_start(engine: Engine, srun: list[str], name: str) -> None:
    """While Python starts, while the runtime makes the container, while the task runs."""
    signo = getattr(signal, f"SIG{name}")
    for milliseconds in range(8, 60, 7):
        process = engine.popen([*srun, "sleep", "62"])
        time.sleep(milliseconds / 1000)  # the moment is what is tried out
        process.send_signal(signo)
        if name == "INT":  # twice within a second is the end
            time.sleep(0.05)
            process.send_signal(signo)
        done = engine.finish(process, timeout=15)
        assert done.returncode in (-signo, 128 + signo, 1), str(done)
        if done.returncode == 1:  # the interpreter, not yet started, has words of its own
            words = (f"cancelled by signal {signo}", "KeyboardInterrupt")
            assert any(word in done.stderr for word in words), str(done)
    quiet(engine)
    assert not named(engine, "sleep")


@pytest.mark.parametrize("ignoring", [False, True])
def test_a_terminal_that_goes_away(engine: Engine, srun: list[str], ignoring: bool) -> None:
    """The tasks of --pty are told as any program on a terminal is."""
    master, slave = os.openpty()
    trap = "trap '' HUP; " if ignoring else ""
    argv = [*srun, "--pty", "sh", "-c", f"{trap}echo up; sleep 1; sleep 1; exit 6"]
    process = engine.popen(argv, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    said = b""
    while b"up" not in said:
        said += os.read(master, 100)
    os.close(master)
    code = process.wait(timeout=20)
    assert code == (6 if ignoring else 129) or ("-n2" in srun and code in (6, 129))
    quiet(engine)


def test_without_a_supervisor(engine: Engine, srun: list[str]) -> None:
    process = engine.popen([*srun, "sh", "-c", "echo up; exec sleep 63"])
    assert process.stdout.readline() == "up\n"
    (supervisor,) = named(engine, "roadstead-step")
    os.kill(supervisor, signal.SIGKILL)
    done = engine.finish(process, timeout=20)
    assert done.returncode == 125
    assert "its supervisor was killed; what it left behind has been removed" in done.stderr
    assert not named(engine, "sleep")


def test_without_a_runtime(engine: Engine, make_bundle: Callable[..., Path]) -> None:
    argv = ["srun", "--container", str(make_bundle()), "sh", "-c", "echo up; exec sleep 64"]
    process = engine.popen(argv, env={"ROADSTEAD_RUNTIME": "crun"})
    assert process.stdout.readline() == "up\n"
    (crun,) = named(engine, "crun")
    os.kill(crun, signal.SIGKILL)
    done = engine.finish(process, timeout=20)
    assert (done.returncode, done.stderr) == (125, "srun: error: crun was killed by signal 9\n")
    assert not named(engine, "sleep")


@pytest.mark.parametrize("victim", ["roadstead-ctl", "roadstead-spawn", "roadstead-spare"])
def test_without_one_of_the_engines_processes(engine: Engine, srun: list[str], victim: str) -> None:
    process = engine.popen([*srun, "sh", "-c", "echo up; sleep 1; exit 5"])
    assert process.stdout.readline() == "up\n"
    os.kill(eventually(lambda: named(engine, victim))[0], signal.SIGKILL)
    assert engine.finish(process, timeout=20).returncode == 5
    engine.run([*srun, "true"]).check()


def test_salloc_killed_and_told_to_end(engine: Engine) -> None:
    process = engine.popen(["salloc", "sh", "-c", "echo $$; exec sleep 65"])
    shell = int(process.stdout.readline())
    process.kill()
    quiet(engine)
    os.kill(shell, signal.SIGKILL)
    engine.finish(process)
    process = engine.popen(["salloc", "sh", "-c", "echo up; exec sleep 65"])
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    assert engine.finish(process, timeout=20).returncode == 143
    done = sh(engine, "salloc sh -c 'srun sleep 66 & sleep 0.3; echo bye'").check()
    assert done.stdout == "bye\n"
    quiet(engine)
    assert not named(engine, "sleep")


def test_nohup(engine: Engine) -> None:
    process = engine.popen(
        ["sh", "-c", "trap '' HUP; exec srun sh -c 'echo up; sleep 1; echo end'"]
    )
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGHUP)
    assert engine.finish(process, timeout=20).check().stdout == "end\n"


@pytest.fixture
def small_disk(account: Account, scratch: Path) -> Iterator[Callable[[int], Path]]:
    """Makes a small file system of the account's."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")
    path = account.mkdir(scratch / "disk", 0o700)

    def make(size: int) -> Path:
        what = f"size={size},mode=0700,uid={account.uid},gid={account.gid}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", what, "small", path], check=True)
        return path

    yield make
    subprocess.run(["umount", "--lazy", path], check=False)


def fill(account: Account, disk: Path) -> Path:
    path = disk / "ballast"
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(512))
    return account.own(path)


def told(done: Completed, *words: str) -> None:
    """It failed, and one line on stderr says why."""
    assert done.returncode not in (0, 125), str(done)
    lines = done.stderr.splitlines()
    assert len(lines) == 1, str(done)
    assert all(word in lines[0] for word in words), str(done)


def test_no_room_for_the_journal(engine: Engine, small_disk: Callable[[int], Path]) -> None:
    disk = small_disk(200_000)
    run = engine.account.mkdir(engine.base / "run" / "z", 0o700)
    env = {"XDG_STATE_HOME": str(disk), "XDG_RUNTIME_DIR": str(run)}
    ballast = fill(engine.account, disk)
    for argv in (["srun", "true"], ["sbatch", "--wrap", "true"], ["squeue"], ["salloc", "true"]):
        told(engine.run(argv, env=env), f"{argv[0]}: error: ")
    ballast.unlink()
    for _ in range(2):  # there may be room for a job, and none for the next
        done = engine.run(["srun", "true"], env=env)
        assert "Traceback" not in done.stderr
        assert done.returncode in (0, 1), str(done)
    subprocess.run(["mount", "-o", "remount,size=9000000", disk], check=True)
    assert engine.run(["srun", "echo", "hi"], env=env).check().stdout == "hi\n"
    engine.run(["roadstead", "engine", "stop"], env=env).check()


def test_a_journals_disk_that_fills(engine: Engine, small_disk: Callable[[int], Path]) -> None:
    """Who asks for what cannot be written down is told; what runs is not lost."""
    disk = small_disk(3_000_000)
    env = {"XDG_STATE_HOME": str(disk), "XDG_RUNTIME_DIR": str(engine.base / "run" / "x")}
    engine.account.mkdir(engine.base / "run" / "x", 0o700)
    process = engine.popen(["srun", "sh", "-c", "echo up; sleep 2; exit 4"], env=env)
    assert process.stdout.readline() == "up\n"
    ballast = fill(engine.account, disk)
    large = {f"V{number}": "x" * 100_000 for number in range(14)}
    told(engine.run(["sbatch", "--wrap", "true"], env={**env, **large}), "disk is full")
    assert "\n" in engine.run(["squeue"], env=env).check().stdout
    assert engine.finish(process, timeout=20).returncode == 4
    ballast.unlink()
    assert engine.run(["srun", "echo", "hi"], env=env).check().stdout == "hi\n"
    assert engine.run(["squeue", "-h"], env=env).check().stdout == ""
    engine.run(["roadstead", "engine", "stop"], env=env).check()


def test_no_room_for_a_step(
    engine: Engine, small_disk: Callable[[int], Path], make_bundle: Callable[..., Path]
) -> None:
    disk = small_disk(200_000)
    env = {"XDG_RUNTIME_DIR": str(disk), "XDG_STATE_HOME": str(engine.base / "state" / "y")}
    engine.run(["srun", "true"], env=env).check()
    contained = ["srun", "--container", str(make_bundle()), "true"]
    ballast = fill(engine.account, disk)
    for argv in (["srun", "true"], contained):
        told(engine.run(argv, env=env), "cannot set up the step", "No space left on device")
    assert engine.run(["sbatch", "--wait", "--wrap", "true"], env=env).returncode == 1
    assert os.listdir(disk / "roadstead" / "steps") == []
    ballast.unlink()
    engine.run(contained, env=env).check()
    engine.run(["roadstead", "engine", "stop"], env=env).check()


def test_no_room_for_output(
    engine: Engine, srun: list[str], small_disk: Callable[[int], Path]
) -> None:
    disk = small_disk(20_000)
    fill(engine.account, disk)
    argv = [*srun, "-o", str(disk / "out"), "echo", "hi"]
    assert engine.run(argv).returncode == 1
    if "-n2" in srun:
        told(engine.run(argv), "output was lost: No space left on device")


def test_weird_places_for_ours(engine: Engine, scratch: Path) -> None:
    env = {"XDG_RUNTIME_DIR": "", "XDG_STATE_HOME": str(scratch / "s")}
    for place in ("/proc/nothing", "/dev/null/x"):
        told(engine.run(["srun", "true"], env={**env, "TMPDIR": place}), "srun: error: ", place)
    locked = scratch / "state" / "roadstead"
    locked.mkdir()
    locked.chmod(0o500)
    if engine.account.uid:
        env = {"XDG_STATE_HOME": str(scratch / "state"), "XDG_RUNTIME_DIR": str(scratch / "run")}
        told(engine.run(["squeue"], env=env, cwd="/"), "Permission denied")
