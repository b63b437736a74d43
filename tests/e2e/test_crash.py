"""roadstead audit, and what crashes may not spoil: starts, upgrades, journals, full disks."""

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

from tests.support import leaks
from tests.support.account import Completed
from tests.support.engine import Engine
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
def engine(shared_engine: Engine) -> Engine:
    return shared_engine


def elsewhere(engine: Engine, name: str) -> dict[str, str]:
    """The variables of another engine of the same user."""
    places = {f"XDG_{kind}": engine.base / where / name for kind, where in _PLACES.items()}
    for place in places.values():
        engine.account.mkdir(place, 0o700)
    return {name: os.fspath(place) for name, place in places.items()}


_PLACES = {"STATE_HOME": "state", "RUNTIME_DIR": "run"}


def state_of(env: dict[str, str]) -> Path:
    (state,) = (Path(env["XDG_STATE_HOME"]) / "roadstead").iterdir()
    return state


def steps_of(env: dict[str, str]) -> Path:
    return Path(env["XDG_RUNTIME_DIR"]) / "roadstead" / "steps"


def supervisors(engine: Engine) -> list[int]:
    found = []
    for process in engine.processes():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{process.pid}/comm").read_text() == "roadstead-step\n":
                found.append(process.pid)
    return found


def kill_all(engine: Engine) -> None:
    """All at once: none sees another's end, and tidies up."""
    for each in engine.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(each.pid, signal.SIGSTOP)
    leaks.kill(engine.mark)


def audit(engine: Engine, env: dict[str, str], *options: str) -> Completed:
    return engine.run(["roadstead", "audit", *options], env=env)


def kinds(done: Completed) -> list[str]:
    return [row["kind"] for row in json.loads(done.stdout)["left"]]


def running(engine: Engine, env: dict[str, str], *argv: str) -> Any:
    process = engine.popen([*argv, "sh", "-c", "echo up; exec sleep 61"], env=env)
    assert process.stdout.readline() == "up\n"
    return process


def abandon(process: Any) -> None:
    """Kill a command whose step goes on, and holds its output."""
    process.kill()
    process.wait()
    for pipe in (process.stdout, process.stderr):
        pipe.close()


# -- audit ---------------------------------------------------------------------------------------


def test_audit_where_nothing_ever_ran(engine: Engine, scratch: Path) -> None:
    env = {"XDG_STATE_HOME": str(scratch / "none"), "XDG_RUNTIME_DIR": str(scratch / "run")}
    assert audit(engine, env).check().stdout == "nothing is left behind\n"
    assert not (scratch / "none").exists()  # looking makes nothing
    done = audit(engine, env, "--sweep").check(1)
    assert done.stderr.startswith("roadstead: error: audit does not know --sweep")


def test_what_runs_is_not_left(engine: Engine, make_bundle: Callable[..., Path]) -> None:
    env = elsewhere(engine, "runs")
    plain = running(engine, env, "srun", "-O")
    contained = running(engine, env, "srun", "-O", "--container", str(make_bundle()))
    assert audit(engine, env, "--clean", "--json").check().stdout == '{"left":[]}\n'
    controller = int((state_of(env) / "controller.lock").read_text())
    os.kill(controller, signal.SIGKILL)
    assert audit(engine, env, "--clean").check().stdout == "nothing is left behind\n"
    assert len(supervisors(engine)) == 2
    for process in (plain, contained):
        process.send_signal(signal.SIGTERM)
        engine.finish(process)
    engine.run(["roadstead", "engine", "stop"], env=env).check()


def test_what_a_crash_left_is_shown_and_removed(
    engine: Engine, make_bundle: Callable[..., Path]
) -> None:
    env = elsewhere(engine, "crash")
    process = running(engine, env, "srun", "--container", str(make_bundle()))
    kill_all(engine)
    abandon(process)
    left = steps_of(env) / "1.0"
    assert left.is_dir()
    done = audit(engine, env, "--json").check(1)
    assert "directory" in kinds(done)
    assert left.is_dir()  # shown, not touched
    done = audit(engine, env, "--clean").check()
    assert not left.exists(), f"{done}\n{(state_of(env) / 'controller.log').read_text()}"
    assert audit(engine, env).check().stdout == "nothing is left behind\n"
    assert os.listdir(Path(env["XDG_RUNTIME_DIR"]) / "roadstead" / "containers") == []
    engine.run(["roadstead", "engine", "stop"], env=env).check()


def test_a_journal_that_was_moved_away(engine: Engine) -> None:
    """Its steps are nobody's; a running one is left alone, and its number is not used again."""
    env = elsewhere(engine, "moved")
    process = running(engine, env, "srun")
    engine.run(["roadstead", "engine", "stop", "--now"], env=env).check()
    abandon(process)
    for path in state_of(env).glob("journal.db*"):
        path.unlink()
    done = engine.run(["srun", "sh", "-c", "echo $SLURM_JOB_ID"], env=env).check()
    assert done.stdout == "2\n"
    assert audit(engine, env).check().stdout == "nothing is left behind\n"
    os.kill(supervisors(engine)[0], signal.SIGKILL)
    left = steps_of(env) / "1.0"
    done = eventually(lambda: (found := audit(engine, env)).returncode and found)
    assert done.stdout.splitlines()[0] == f"directory {left} of step 1.0"
    assert done.stdout.splitlines()[1].startswith("process ")  # its task
    assert done.stderr == "roadstead audit --clean removes it\n"
    done = audit(engine, env, "--clean").check()
    assert done.stdout.splitlines()[0] == f"directory {left} of step 1.0: removed"
    assert audit(engine, env).check().stdout == "nothing is left behind\n"
    engine.run(["roadstead", "engine", "stop"], env=env).check()


def test_a_controller_cleans_up_when_it_has_started(engine: Engine) -> None:
    env = elsewhere(engine, "start")
    engine.run(["srun", "true"], env=env).check()
    engine.run(["roadstead", "engine", "stop"], env=env).check()
    stray = engine.account.mkdir(steps_of(env) / "7.0", 0o700)
    engine.run(["squeue"], env=env).check()
    log = state_of(env) / "controller.log"
    eventually(lambda: f"left behind directory {stray}: removed" in log.read_text())
    assert not stray.exists()
    engine.run(["roadstead", "engine", "stop"], env=env).check()


def test_another_engines_steps_are_not_touched(engine: Engine) -> None:
    """Two engines of one user number their jobs alike."""
    one, other = elsewhere(engine, "one"), elsewhere(engine, "other")
    processes = [running(engine, env, "srun") for env in (one, other)]
    claim = json.loads((steps_of(one) / "1.0" / "claim.json").read_text())
    os.kill(claim["pid"], signal.SIGKILL)
    engine.finish(processes[0]).check(125)
    assert processes[1].poll() is None
    assert len(supervisors(engine)) == 1
    processes[1].send_signal(signal.SIGTERM)
    engine.finish(processes[1]).check(143)
    for env in (one, other):
        engine.run(["roadstead", "engine", "stop"], env=env).check()


def test_a_task_that_hides(engine: Engine) -> None:
    """What has left its session and forgotten its environment ends with its supervisor too."""
    hide = "setsid env -i sleep 62 & sleep 0.1; echo up; exec env -i sleep 63"
    process = engine.popen(["srun", "sh", "-c", hide])
    assert process.stdout.readline() == "up\n"
    (supervisor,) = supervisors(engine)
    os.kill(supervisor, signal.SIGKILL)
    engine.finish(process).check(125)
    eventually(lambda: not any(each.command.startswith("sleep") for each in engine.processes()))


_ORPHANED = """\
RunTimeCreate="(sleep 0.2; runc --root {root} create --bundle %b %n.%u.%j.%s.%t) & kill -9 $$"
RunTimeStart="runc --root {root} start %n.%u.%j.%s.%t"
RunTimeQuery="runc --root {root} state %n.%u.%j.%s.%t"
RunTimeKill="runc --root {root} kill %n.%u.%j.%s.%t KILL"
RunTimeDelete="runc --root {root} delete --force %n.%u.%j.%s.%t; sleep 0.6"
"""


@pytest.mark.container
@pytest.mark.needs("runc", "busybox")
def test_a_runtime_whose_shell_was_killed(
    engine: Engine, make_bundle: Callable[..., Path], scratch: Path
) -> None:
    """It is still at work, and would make again what is deleted."""
    root = engine.account.mkdir(scratch / "states", 0o700)
    conf = engine.account.write(scratch / "orphaned.conf", _ORPHANED.format(root=root))
    env, bundle = {"ROADSTEAD_OCI_CONF": os.fspath(conf)}, make_bundle()
    done = engine.run(["srun", "--container", bundle, "true"], env=env)
    assert done.returncode == 125, done
    assert "create failed with status" in done.stderr
    assert list(root.iterdir()) == []


# -- starts --------------------------------------------------------------------------------------


def test_commands_that_find_no_controller_race(engine: Engine) -> None:
    env = elsewhere(engine, "race")
    commands = [engine.popen(["srun", "-O", "echo", str(number)], env=env) for number in range(12)]
    said = [engine.finish(process).check().stdout for process in commands]
    assert said == [f"{number}\n" for number in range(12)]
    log = (state_of(env) / "controller.log").read_text()
    assert log.count("ready pid=") == 1
    engine.run(["roadstead", "engine", "stop"], env=env).check()


def test_they_race_while_the_controller_is_killed(engine: Engine) -> None:
    env = elsewhere(engine, "race-kill")
    for _ in range(3):
        commands = [
            engine.popen(["sbatch", "-o/dev/null", "--wrap", "true"], env=env) for _ in "1234"
        ]
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((state_of(env) / "controller.lock").read_text()), signal.SIGKILL)
        for process in commands:
            assert engine.finish(process).check().stdout.startswith("Submitted batch job ")
    eventually(lambda: not engine.run(["squeue", "-h"], env=env).check().stdout)
    done = engine.run(["squeue", "-htall", "-o%T"], env=env).check()
    assert done.stdout == "COMPLETED\n" * 12
    engine.run(["roadstead", "engine", "stop"], env=env).check()


def test_a_command_that_is_stopped_keeps_nobody_waiting(engine: Engine) -> None:
    """As srun is in a job that is suspended: it may be starting the controller just then."""
    env = elsewhere(engine, "stopped")
    for pause in (0.015, 0.03, 0.06, 0.12):
        stopped = engine.popen(["squeue", "-h"], env=env)
        time.sleep(pause)  # the moment is what is tried
        stopped.send_signal(signal.SIGSTOP)
        engine.run(["squeue", "-h"], env=env).check()
        stopped.send_signal(signal.SIGCONT)
        engine.finish(stopped).check()
        engine.run(["roadstead", "engine", "stop", "--now"], env=env).check()


# -- another version -----------------------------------------------------------------------------


def test_an_upgrade_while_jobs_run(engine: Engine) -> None:
    """Stopped with --now; the next controller adopts what runs, and tells those who wait."""
    env = elsewhere(engine, "upgrade")
    process = engine.popen(["srun", "sh", "-c", "echo up; sleep 0.5; exit 9"], env=env)
    assert process.stdout.readline() == "up\n"
    engine.run(["roadstead", "engine", "stop", "--now"], env=env).check()
    assert engine.finish(process).returncode == 9
    assert (state_of(env) / "controller.log").read_text().count("ready pid=") == 2
    engine.run(["roadstead", "engine", "stop"], env=env).check()


def test_a_command_of_another_protocol(engine: Engine) -> None:
    env = elsewhere(engine, "protocol")
    engine.run(["squeue"], env=env).check()
    code = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); "
        's.connect(sys.argv[1]); s.send(b\'{"v": 99, "op": "ping"}\'); print(s.recv(4096).decode())'
    )
    path = f"{env['XDG_RUNTIME_DIR']}/roadstead/controller.sock"
    done = engine.run(["/usr/bin/python3", "-IS", "-c", code, path], env=env).check()
    answer = json.loads(done.stdout)
    assert answer["sentence"] == "the controller speaks protocol 1, this command 99"
    assert answer["hint"] == "roadstead engine stop, or wait until its jobs have ended"
    engine.run(["roadstead", "engine", "stop"], env=env).check()


def test_a_damaged_journal(engine: Engine) -> None:
    """One sentence, and what it says helps."""
    env = elsewhere(engine, "damaged")
    engine.run(["srun", "true"], env=env).check()
    kill_all(engine)
    os.truncate(state_of(env) / "journal.db", 0)
    done = engine.run(["squeue"], env=env).check(1)
    assert "journal.db is damaged: it is empty, and its log is not; move it away" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    fix = done.stderr.partition("(its jobs are forgotten then): ")[2]
    engine.run(["sh", "-c", fix], env=env).check()
    assert engine.run(["srun", "echo", "hi"], env=env).check().stdout == "hi\n"
    assert sorted(os.listdir(state_of(env) / "damaged"))[0] == "journal.db"
    engine.run(["roadstead", "engine", "stop"], env=env).check()


# -- a full inode table --------------------------------------------------------------------------


@pytest.fixture
def few_inodes(engine: Engine, scratch: Path) -> Iterator[Callable[[int], Path]]:
    """Makes a file system of the account's for so many files."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")
    path = engine.account.mkdir(scratch / "disk", 0o700)

    def make(count: int) -> Path:
        account = engine.account
        what = f"nr_inodes={count},mode=0700,uid={account.uid},gid={account.gid}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", what, "small", path], check=True)
        return path

    yield make
    subprocess.run(["umount", "--lazy", path], check=False)


@pytest.mark.parametrize("what", ["STATE_HOME", "RUNTIME_DIR"])
def test_no_inodes(engine: Engine, few_inodes: Callable[[int], Path], what: str) -> None:
    """Whoever asks is told in one line, and when there is room again all is well."""
    disk = few_inodes(24)
    env = elsewhere(engine, f"inodes-{what}") | {f"XDG_{what}": str(disk)}
    ballast = []
    with contextlib.suppress(OSError):
        for number in range(24):
            (disk / f"ballast{number}").touch()
            ballast.append(disk / f"ballast{number}")
    for left in range(6):  # with none, one, two … inodes left
        done = engine.run(["srun", "true"], env=env)
        assert "Traceback" not in done.stderr
        assert len(done.stderr.splitlines()) == bool(done.returncode), str(done)
        assert done.returncode != 125, str(done)
        for path in ballast[2 * left : 2 * left + 2]:
            path.unlink()
    for path in ballast[12:]:
        path.unlink()
    engine.run(["srun", "true"], env=env).check()
    audit(engine, env, "--clean").check()
    assert audit(engine, env).check().stdout == "nothing is left behind\n"
    engine.run(["roadstead", "engine", "stop"], env=env).check()


def test_a_controller_that_a_job_has_started_is_not_of_the_job(engine: Engine) -> None:
    """The script's sbatch finds no controller and starts one.  That one is below the script, and so
    are the steps of other jobs that it starts: no signal, limit or end of this job is theirs."""
    env, work = elsewhere(engine, "from-job"), engine.work
    other = f"until test -e {work}/go; do sleep 0.02; done; echo fine"
    script = f"""
        kill -9 $(cat {work}/controller)
        sbatch -O -Jother -o {work}/other --wrap '{other}'
        touch {work}/begun
        sleep 60
    """
    cpus = engine.run(["sinfo", "-h", "-o%c"], env=env).check().stdout
    (work / "controller").write_text((state_of(env) / "controller.lock").read_text())
    argv = ["sbatch", "-c1", "--mem=100", "-Jfirst", "-o", "/dev/null", "--parsable"]
    job = engine.run([*argv, "--wrap", script], env=env).check().stdout.strip()
    eventually((work / "begun").exists)

    def names_of(state: str) -> list[str]:
        return engine.run(["squeue", "-h", f"-t{state}", "-o%j"], env=env).check().stdout.split()

    eventually(lambda: "other" in names_of("R"))
    engine.run(["scontrol", "suspend", job], env=env).check()
    assert names_of("R") == ["other"]
    assert engine.run(["sinfo", "-h", "-o%c"], env=env).check().stdout == cpus
    engine.run(["scancel", job], env=env).check()
    eventually(lambda: names_of("PD,R,S,CG") == ["other"])
    (work / "go").touch()
    eventually(lambda: names_of("PD,R,S,CG") == [])
    assert (work / "other").read_text() == "fine\n"
    engine.run(["roadstead", "engine", "stop"], env=env).check()
