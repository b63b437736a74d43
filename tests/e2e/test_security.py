"""What docs/security.md promises, tried: another user of the machine, and hostile contents.

The stranger is `nobody`; where the tests are not root's there is none, and those tests are skipped.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.account import Account
from tests.support.engine import Engine
from tests.support.product import Product
from tests.support.skips import require
from tests.support.waiting import eventually

SECRET = "correct-horse-battery"
# Tries everything on each path that it is given; prints what it was allowed to.
_TRESPASS = """
import os, socket, sys
def tried(what, path):
    try:
        what(path)
        print("allowed:", what.__name__, path)
    except PermissionError:
        pass
def read(path): os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
def write(path): os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
def connect(path): socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect(path)
def remove(path): os.rename(path, path + ".x")
for path in sys.stdin.read().split("\\0"):
    for what in (read, write, connect, remove)[: 2 if path.startswith("/proc/") else 4]:
        tried(what, path)
print("done")
"""
# A controller of somebody else's: says when it listens, prints what it is told.
_IMPOSTOR = """
import os, socket, sys
os.mkdir(os.path.dirname(sys.argv[1])); os.chmod(os.path.dirname(sys.argv[1]), 0o777)
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.bind(sys.argv[1]); s.listen()
os.chmod(sys.argv[1], 0o777)
print("listening", flush=True)
print(s.accept()[0].recv(1000), flush=True)
"""
_FDS = "for fd in /proc/self/fd/*; do readlink $fd; done"


@pytest.fixture(scope="module")
def engine(shared_engine: Engine) -> Engine:
    return shared_engine


@pytest.fixture(scope="session")
def stranger() -> Account:
    require("root")
    return Account.named("nobody")


@pytest.fixture
def shared(scratch: Path) -> Path:
    """A directory like /tmp, which everybody can reach."""
    scratch.chmod(0o755)
    path = scratch / "shared"
    path.mkdir()
    if os.geteuid() == 0:
        os.chown(path, 0, 0)
    path.chmod(0o1777)
    return path


def fallback(shared: Path, scratch: Path) -> dict[str, str | None]:
    """The environment of a command without XDG_RUNTIME_DIR."""
    state = os.fspath(scratch / "state")
    return {"XDG_RUNTIME_DIR": None, "TMPDIR": os.fspath(shared), "XDG_STATE_HOME": state}


@contextlib.contextmanager
def at_work(engine: Engine, bundle: Path) -> Iterator[None]:
    """While a batch script and a contained task run, each with a secret."""
    env = {"SECRET": SECRET}
    script = f"#!/bin/sh\n# {SECRET}\ntouch batch-up\nexec sleep 70\n"
    engine.run(["sbatch", "-o", "/dev/null"], env=env, stdin=script).check()
    eventually((engine.work / "batch-up").exists, what="the batch script")
    argv = ["srun", "--container", str(bundle), "sh", "-c", "echo up; exec sleep 70"]
    process = engine.popen(argv, env=env)
    assert process.stdout.readline() == "up\n"
    try:
        yield
    finally:
        engine.run(["scancel", "-u", engine.account.name]).check()
        engine.finish(process, timeout=30)
        eventually(lambda: not engine.run(["squeue", "-h"]).stdout, what="an empty queue")


@contextlib.contextmanager
def reachable(engine: Engine) -> Iterator[None]:
    """While everybody can come as far as what the engine has made: only its own modes count."""
    above = (engine.base, engine.state, engine.runtime)
    for path in above:
        path.chmod(0o755)
    try:
        yield
    finally:
        for path in above:
            path.chmod(0o700)


def ours(engine: Engine) -> list[Path]:
    """Every path of the engine's."""
    tops = [engine.state / "roadstead", engine.runtime / "roadstead"]
    return [path for top in tops for path in (top, *top.rglob("*"))]


# -- another user of the machine -------------------------------------------------------------------


def test_nothing_of_ours_is_open_to_others(
    engine: Engine, stranger: Account, product: Product, make_bundle: Callable[..., Path]
) -> None:
    """Journal, log, sockets, spool, step directories, records; environments and memory too."""
    with reachable(engine), at_work(engine, make_bundle()):
        paths = ours(engine)
        names = {path.name for path in paths}
        assert {"journal.db", "controller.log", "controller.sock", "ctl.sock"} <= names
        assert {"startup", "config.json", "claim.json"} <= names
        for process in engine.processes():
            paths += [Path(f"/proc/{process.pid}/{name}") for name in ("environ", "mem", "auxv")]
            assert SECRET not in process.command
        argv = [product.python, "-IS", "-c", _TRESPASS]
        tops = {engine.state / "roadstead", engine.runtime / "roadstead"}
        inside = [path for path in paths if path not in tops]
        done = stranger.run(argv, stdin="\0".join(map(str, inside))).check()
        assert done.stdout == "done\n"
        made = ours(engine)
        assert [path for path in made if path.is_dir() and path.stat().st_mode & 0o077] == []


def test_modes_do_not_hang_on_the_umask(engine: Engine, scratch: Path) -> None:
    runtime, state = scratch / "run" / "r", scratch / "state" / "s"
    engine.account.mkdir(runtime, 0o700)
    env = {"XDG_RUNTIME_DIR": str(runtime), "XDG_STATE_HOME": str(state)}
    script = "umask 0; srun true; sbatch --wait --wrap true; roadstead engine stop"
    engine.run(["sh", "-c", script], env=env).check()
    found = [path for top in (runtime, state) for path in top.rglob("*") if not path.is_symlink()]
    assert len(found) > 5
    of_ours = [path for path in found if "roadstead" in path.relative_to(scratch).parts]
    assert [path for path in of_ours if path.stat().st_mode & 0o077] == []


def test_a_stranger_at_our_sockets_is_turned_away(
    engine: Engine, stranger: Account, product: Product
) -> None:
    """Even where every mode is wrong: the kernel says who it is."""
    engine.run(["srun", "true"]).check()
    sock = engine.runtime / "roadstead" / "controller.sock"
    opened = [engine.base, engine.runtime, sock.parent, sock]
    modes = [path.stat().st_mode & 0o7777 for path in opened]
    for path in opened:
        path.chmod(0o777)
    code = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); "
        "s.connect(sys.argv[1]); print(s.recv(100))"
    )
    try:
        done = stranger.run([product.python, "-IS", "-c", code, sock])
    finally:
        for path, mode in zip(opened, modes, strict=True):
            path.chmod(mode)
    assert done.stdout == "b''\n" or "ConnectionResetError" in done.stderr
    assert engine.run(["squeue", "-h"]).check().stdout == ""


def test_a_strangers_controller_hears_nothing(
    engine: Engine, stranger: Account, product: Product, shared: Path, scratch: Path
) -> None:
    sock = shared / f"roadstead-{engine.account.uid}" / "controller.sock"
    impostor = stranger.popen([product.python, "-IS", "-c", _IMPOSTOR, sock])
    assert impostor.stdout.readline() == "listening\n"
    env = {**fallback(shared, scratch), "SECRET": SECRET}
    done = engine.run(["srun", "true"], env=env).check(1)
    assert (
        f"the process that listens there belongs to uid {stranger.uid}, not to you" in done.stderr
    )
    assert impostor.communicate(timeout=10)[0] == "b''\n"


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("directory", "belongs to uid"),
        ("open directory", "belongs to uid"),
        ("link", "is not a directory"),
        ("link to ours", "is not a directory"),
        ("dangling link", "is not a directory"),
        ("file", "is not a directory"),
        ("fifo", "is not a directory"),
        ("our own, open", "is open to other users (mode 0755)"),
    ],
)
def test_what_was_there_before_us_is_not_believed(
    engine: Engine, stranger: Account, shared: Path, scratch: Path, what: str, sentence: str
) -> None:
    """In a shared /tmp anybody can make our directory before we do."""
    place = shared / f"roadstead-{engine.account.uid}"
    theirs, mine = shared / "theirs", scratch / "mine"
    theirs.mkdir()
    engine.account.mkdir(mine, 0o700)
    match what:
        case "directory" | "open directory":
            place.mkdir()
            place.chmod(0o777 if "open" in what else 0o700)
        case "link":
            place.symlink_to(theirs)
        case "link to ours":
            place.symlink_to(mine)
        case "dangling link":
            place.symlink_to(theirs / "nothing")
        case "file":
            place.touch()
        case "fifo":
            os.mkfifo(place)
        case _:
            engine.account.mkdir(place, 0o755)
    if "our own" not in what:
        os.chown(place, stranger.uid, stranger.gid, follow_symlinks=False)
    os.chown(theirs, stranger.uid, stranger.gid)
    theirs.chmod(0o777)
    done = engine.run(["srun", "true"], env=fallback(shared, scratch)).check(1)
    assert sentence in done.stderr or "Not a directory" in done.stderr
    assert done.stderr.startswith("srun: error: ")
    assert len(done.stderr.splitlines()) == 1
    assert list(theirs.iterdir()) == list(mine.iterdir()) == []
    assert not place.is_dir() or place.is_symlink() or list(place.iterdir()) == []


def test_a_place_that_others_can_exchange_is_refused(
    engine: Engine, shared: Path, scratch: Path
) -> None:
    env = fallback(shared, scratch)
    shared.chmod(0o777)  # not sticky: whoever likes may rename our directory
    done = engine.run(["srun", "true"], env=env).check(1)
    assert f"everybody may rename what is in {shared}" in done.stderr
    shared.chmod(0o1777)
    engine.run(["srun", "true"], env=env).check()
    engine.run(["roadstead", "engine", "stop"], env=env).check()


def test_a_place_that_was_exchanged_is_noticed(
    engine: Engine, stranger: Account, shared: Path, scratch: Path
) -> None:
    """What cleans /tmp may remove our directory while we run, and a stranger make another."""
    env = fallback(shared, scratch)
    place, away = shared / f"roadstead-{engine.account.uid}", shared / "away"
    first = "touch begun; until test -e go; do sleep 0.05; done; touch ended"
    argv = ["sbatch", "--exclusive", "-o", "/dev/null", "--wrap"]
    engine.run([*argv, first], env=env).check()
    eventually((engine.work / "begun").exists, what="the first job's beginning")
    waits = engine.run([*argv, "touch ran"], env=env).check().stdout.split()[-1]
    place.rename(away)
    for path in (place, place / "steps"):
        path.mkdir()
        path.chmod(0o1777)
        os.chown(path, stranger.uid, stranger.gid)
    (engine.work / "go").touch()
    log = next((scratch / "state").rglob("controller.log"))
    eventually((engine.work / "ended").exists, what="the first job's end")
    time.sleep(0.5)  # for the second one's start, of which nothing may be seen
    assert list(place.rglob("*")) == [place / "steps"]
    assert not (engine.work / "ran").exists()
    shutil.rmtree(place)
    away.rename(place)
    shown = engine.run(["scontrol", "show", "job", waits], env=env).check().stdout
    assert "JobState=FAILED" in shown, log.read_text()
    engine.run(["roadstead", "engine", "stop"], env=env).check()


def test_a_container_path_below_a_strangers_directory_is_refused(
    engine: Engine, stranger: Account, shared: Path, make_bundle: Callable[..., Path]
) -> None:
    """Who can rename the directory of a container can have the runtime read another config.json."""
    bundle = str(make_bundle())
    theirs = shared / "theirs"
    conf = engine.account.write(
        engine.work / "oci.conf",
        f"ContainerPath={theirs}/%j/%s.%t\n"
        'RunTimeRun="crun --root=%m/state run --bundle=%b c%j.%s.%t"\n'
        'RunTimeKill="crun --root=%m/state kill c%j.%s.%t KILL"\n'
        'RunTimeDelete="crun --root=%m/state delete --force c%j.%s.%t"\n',
    )
    argv = ["srun", "--container", bundle, "true"]
    env = {"ROADSTEAD_OCI_CONF": str(conf)}
    for mode, sentence in ((0o777, "everybody may rename"), (0o1777, "belongs to uid")):
        theirs.mkdir()
        theirs.chmod(mode)
        os.chown(theirs, stranger.uid, stranger.gid)
        done = engine.run(argv, env=env).check(125)
        assert f"ContainerPath: {theirs}/" in done.stderr
        assert sentence in done.stderr
        assert list(theirs.iterdir()) == []
        theirs.rmdir()
    engine.run(argv, env=env).check()  # made by us it will do
    shutil.rmtree(theirs)


# -- what a task is given --------------------------------------------------------------------------


def test_no_descriptor_but_the_standard_three(
    engine: Engine, make_bundle: Callable[..., Path]
) -> None:
    """Neither ours (sockets, lock, journal) nor one of the shell that happened to start us."""
    bundle = str(make_bundle())
    engine.run(["roadstead", "engine", "stop"]).check()
    engine.run(["sh", "-c", "exec 9</etc/hostname; exec srun true"]).check()
    for process in engine.processes():
        held = {os.readlink(path) for path in Path(f"/proc/{process.pid}/fd").iterdir()}
        assert "/etc/hostname" not in held
    listing = ["ls", "/proc/self/fd"]  # 3 is the directory that is listed
    for argv in (["srun"], ["srun", "--container", bundle], ["srun", "-n2", "-O"], ["salloc"]):
        done = engine.run([*argv, *listing]).check()
        assert set(done.stdout.split()) == {"0", "1", "2", "3"}, str(done)
    for option in ([], ["--container", bundle]):
        engine.run(["sbatch", "--wait", "-o", "out", *option, "--wrap", "ls /proc/self/fd"]).check()
        assert set((engine.work / "out").read_text().split()) == {"0", "1", "2", "3"}


def test_no_secret_stays_in_the_engine(engine: Engine) -> None:
    """The environment of the command that starts the controller is that command's."""
    engine.run(["roadstead", "engine", "stop"]).check()
    engine.run(["srun", "true"], env={"SECRET": SECRET}).check()
    done = engine.run(["srun", "env"]).check()
    assert SECRET not in done.stdout
    found = 0
    for process in engine.processes():
        with contextlib.suppress(FileNotFoundError):
            found += 1
            assert SECRET.encode() not in Path(f"/proc/{process.pid}/environ").read_bytes()
    assert found >= 3  # controller, spawner, waiting supervisor
    for path in (engine.state / "roadstead").rglob("controller.log*"):
        assert SECRET not in path.read_text()


def test_a_payload_goes_from_the_journal_with_its_job(engine: Engine) -> None:
    variable, script = "secret-of-a-variable", "secret-of-a-script"

    def holders(marker: str) -> list[Path]:
        files = [path for path in ours(engine) if path.is_file()]
        return [path for path in files if marker.encode() in path.read_bytes()]

    argv = ["sbatch", "--hold", "-o", "/dev/null", "--wrap", f": {script}"]
    done = engine.run(argv, env={"SECRET": variable}).check()
    assert holders(variable), "else this test could not fail"
    assert holders(script)
    engine.run(["scancel", done.stdout.split()[-1]]).check()
    engine.run(["roadstead", "engine", "stop"]).check()
    eventually(lambda: not list(engine.state.rglob("*-wal")), what="the end of the log")
    assert holders(variable) == holders(script) == []


# -- a hostile bundle, and a hostile container -----------------------------------------------------


@pytest.fixture
def hostile(make_bundle: Callable[..., Path], account: Account) -> Callable[..., Path]:
    """A bundle whose config.json is changed by a function."""

    def make(change: Callable[[dict[str, Any]], object]) -> Path:
        bundle = make_bundle()
        config = json.loads((bundle / "config.json").read_text())
        change(config)
        account.write(bundle / "config.json", json.dumps(config))
        return bundle

    return make


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_a_bundle_does_nothing_on_the_host(
    engine: Engine, hostile: Callable[..., Path], runtime: str
) -> None:
    """No hook, no file that the runtime is told to open, unless the user asks for it."""
    mark = engine.work / "trace"
    hook = {
        "path": "/bin/sh",
        "args": ["sh", "-c", f"cat >/dev/null; echo hook; echo >{mark}.hook"],
    }

    def change(config: dict[str, Any]) -> None:
        config["hooks"] = {"prestart": [hook], "poststart": [hook], "poststop": [hook]}
        config["annotations"] = {"run.oci.hooks.stdout": f"{mark}.out", "kept": "yes"}

    bundle = str(hostile(change))
    env = {"ROADSTEAD_RUNTIME": runtime}
    argv = ["srun", "--container", bundle, "echo", "in"]
    done = engine.run(argv, env=env).check()
    assert done.stdout == "in\n"
    assert "hooks of the bundle left out (prestart, poststart, poststop)" in done.stderr
    assert "run.oci.hooks.stdout" in done.stderr
    assert list(engine.work.glob("trace*")) == []
    engine.run([*argv[:1], "--container-hooks=refuse", *argv[1:]], env=env).check(1)
    assert list(engine.work.glob("trace*")) == []
    engine.run([*argv[:1], "--container-hooks=run", *argv[1:]], env=env).check()
    assert (engine.work / "trace.hook").exists(), "else this test could not fail"
    for path in engine.work.glob("trace*"):
        path.unlink()


@pytest.mark.parametrize("destination", ["/../../../../x", "x/../../../x", "/link/x"])
def test_a_mount_stays_inside(
    engine: Engine, hostile: Callable[..., Path], scratch: Path, destination: str
) -> None:
    outside = engine.account.mkdir(scratch / "outside")

    def change(config: dict[str, Any]) -> None:
        config["root"]["readonly"] = False
        mount = {"destination": destination, "type": "tmpfs", "source": "tmpfs"}
        config["mounts"].append(mount)

    bundle = hostile(change)
    (bundle / "rootfs" / "link").symlink_to(f"{'../' * 12}{outside}")
    done = engine.run(["srun", "--container", str(bundle), "true"])
    assert done.returncode in (0, 125)  # crun refuses the link, and makes the rest inside
    assert list(outside.iterdir()) == []
    assert not (scratch / "x").exists()
    assert not Path("/x").exists()


def test_the_runtime_reads_what_we_checked(
    engine: Engine, make_bundle: Callable[..., Path], account: Account, scratch: Path
) -> None:
    """A config.json that changes after we have read it changes nothing."""
    bundle = make_bundle()
    folder = account.mkdir(scratch / "late")
    script = f'#!/bin/sh\necho garbage >{bundle}/config.json\nexec /usr/bin/crun "$@"\n'
    env = {"ROADSTEAD_RUNTIME": str(account.write(folder / "crun", script, mode=0o755))}
    done = engine.run(["srun", "--container", str(bundle), "echo", "hi"], env=env).check()
    assert done.stdout == "hi\n"
    assert (bundle / "config.json").read_text() == "garbage\n"


def test_a_container_is_never_in_the_callers_namespace(
    engine: Engine, hostile: Callable[..., Path]
) -> None:
    """A config.json without a mount namespace, or with somebody's."""

    def change(config: dict[str, Any]) -> None:
        for entry in config["linux"]["namespaces"]:
            if entry["type"] == "mount":
                entry["path"] = "/proc/self/ns/mnt"

    argv = ["srun", "--container", str(hostile(change)), "readlink", "/proc/self/ns/mnt"]
    found = engine.run(argv).check().stdout.strip()
    assert found
    for process in engine.processes():
        with contextlib.suppress(FileNotFoundError):
            assert found != os.readlink(f"/proc/{process.pid}/ns/mnt")


def test_a_container_sees_and_reaches_nothing_of_ours(
    engine: Engine, make_bundle: Callable[..., Path]
) -> None:
    bundle = str(make_bundle())
    engine.run(["srun", "true"]).check()
    (controller,) = [
        process.pid
        for process in engine.processes()
        if Path(f"/proc/{process.pid}/comm").read_text() == "roadstead-ctl\n"
    ]
    script = (
        "cat /proc/self/mountinfo; find / -xdev -type s 2>/dev/null; "
        f"kill -9 {controller} 2>/dev/null && echo killed; "
        "cd $(dirname $0); { echo x >startup; } 2>/dev/null && echo written; "
        "{ echo x >new; } 2>/dev/null && echo written; ls"
    )
    out = engine.work / "seen"
    argv = ["sbatch", "--wait", "-o", str(out), "--container", bundle, "--wrap", script]
    engine.run(argv).check()
    seen = out.read_text()
    assert "killed" not in seen
    assert "written" not in seen
    assert ".sock" not in seen
    assert seen.splitlines()[-1] == "startup"
    mounted = [line for line in seen.splitlines() if "/steps/" in line.split(" - ")[0]]
    assert len(mounted) == 1
    assert mounted[0].split()[3].endswith("/spool")
    engine.run(["srun", "true"]).check()


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_a_container_cannot_leave_what_we_cannot_remove(
    engine: Engine, hostile: Callable[..., Path], runtime: str
) -> None:
    """Deeper than Python recurses, closed to everybody, and another id's."""
    require("newuidmap")
    conf = engine.account.write(
        engine.work / "oci.conf",
        f'RunTimeRun="{runtime} --root=%m/state run --bundle=%b c%j.%s.%t"\n'
        f'RunTimeKill="{runtime} --root=%m/state kill c%j.%s.%t KILL"\n'
        f'RunTimeDelete="{runtime} --root=%m/state delete --force c%j.%s.%t"\n'
        'MountSpoolDir="/tmp/spool"\n',
    )
    script = (
        "cd /tmp/spool; i=0; while [ $i -lt 1500 ]; do mkdir d; cd d; i=$((i + 1)); done; "
        "cd /tmp/spool; mkdir -p closed/a; chmod 0 closed/a closed; ln -s /etc link; "
        "mkdir other; touch other/file; chmod 700 other; chown -R 5:0 other || exit 7; exit 6"
    )

    def change(config: dict[str, Any]) -> None:
        for names in config["process"]["capabilities"].values():
            names += ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER"]
        config["linux"]["uidMappings"] = [
            {"containerID": 0, "hostID": 1000, "size": 1},
            {"containerID": 1, "hostID": 100000, "size": 65536},
        ]

    argv = ["srun", "--container", str(hostile(change)), "sh", "-c", script]
    env = {"ROADSTEAD_OCI_CONF": str(conf)}
    done = engine.run(argv, env=env)
    assert done.returncode == 6, str(done)
    assert list((engine.runtime / "roadstead" / "steps").iterdir()) == []


# -- strings ---------------------------------------------------------------------------------------


def test_no_name_writes_on_the_terminal(engine: Engine) -> None:
    """Escape sequences, and lines that look like squeue's own."""
    name = "a\x1b]0;owned\x07\n999 local forged root R\u202e"
    engine.run(["sbatch", "--hold", "-J", name, "--comment", name, "--wrap", "true"]).check()
    try:
        listed = [
            engine.run(["squeue", "-o", "%i|%j|%k"]),
            engine.run(["squeue", "-O", "jobid,name:90"]),
            engine.run(["scontrol", "show", "job"]),
            engine.run(["scancel", "-i", "-n", name], stdin="n\n"),
        ]
        for done in listed:
            assert "owned" in done.stdout
            assert not set("\x1b\x07\u202e") & set(done.stdout + done.stderr), str(done)
        assert len(listed[0].stdout.splitlines()) == 2
        assert not any(line.startswith("999") for line in listed[2].stdout.splitlines())
    finally:
        engine.run(["scancel", "-u", engine.account.name]).check()


def test_no_bundle_writes_on_the_terminal(engine: Engine, hostile: Callable[..., Path]) -> None:
    bundle = hostile(lambda config: config["root"].update(path="\x1b[2Jgone\nsrun: error: forged"))
    done = engine.run(["srun", "--container", str(bundle), "true"]).check(1)
    assert "\x1b" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    engine.run(["sbatch", "--wait", "-o", "said", "--container", str(bundle), "--wrap", "true"])
    said = (engine.work / "said").read_text()
    assert "\x1b" not in said
    assert len(said.splitlines()) == 1


def test_no_name_is_a_line_of_the_log(engine: Engine) -> None:
    name = "x\ntime=1 level=INFO msg='forged'"
    engine.run(["srun", "-J", name, name]).check(127)
    (log,) = (engine.state / "roadstead").rglob("controller.log")
    lines = log.read_text().splitlines()
    assert lines
    assert all(line.startswith("time=2") for line in lines)


def test_no_string_is_shell_text(engine: Engine, make_bundle: Callable[..., Path]) -> None:
    """oci.conf's command lines go through sh; no name, id, directory or argument is part of it."""
    trap = "x'\"`touch trap1`$(touch trap2);touch trap3 %j%%p -f\n& #"
    conf = engine.account.write(
        engine.work / "oci.conf",
        "RunTimeRun=\"printf '<%%s>' %b '%Z' %u %@\"\nRunTimeKill=\"true\"\n"
        'RunTimeDelete="true"\nIgnoreFileConfigJson=true\n',
    )
    place = engine.account.mkdir(engine.work / trap.replace("/", ""))
    argv = ["srun", "-J", trap, "--container-id", trap, "--container", str(place), trap, "-e"]
    done = engine.run(argv, env={"ROADSTEAD_OCI_CONF": str(conf)}, cwd=place).check()
    assert done.stdout == f"<{place}><{place}><{engine.account.name}><{trap}><-e>"
    assert list(engine.work.rglob("trap*")) == []
    done = engine.run(["srun", "-J", trap, "printenv", "SLURM_JOB_NAME"]).check()
    assert done.stdout == f"{trap}\n"


def test_a_file_name_means_what_slurm_makes_of_it(engine: Engine) -> None:
    """%x is the job's name as it is, as in Slurm: its owner could have typed the path as well."""
    engine.run(
        ["sbatch", "--wait", "-J", "../up", "-o", "%x.out", "--wrap", "true"], cwd=engine.home
    )
    assert (engine.base / "up.out").exists()
    (engine.base / "up.out").unlink()
    done = engine.run(["srun", "-J", "no/such", "-o", "%x.out", "true"]).check(1)
    assert "No such file or directory" in done.stderr


@pytest.mark.parametrize("option", ["--mem", "--time", "--ntasks", "--nodes", "--wait"])
def test_a_number_of_any_length_is_only_a_wrong_number(engine: Engine, option: str) -> None:
    """Python's own limit on digits is an exception of its own."""
    engine.run(["srun", "true"]).check()
    done = engine.run(["srun", option, "9" * 5000, "true"])
    assert done.returncode in (1, 255)
    assert "Traceback" not in done.stderr
    engine.run(["squeue"]).check()
    (log,) = (engine.state / "roadstead").rglob("controller.log")
    assert "Traceback" not in log.read_text()


# -- the socket ------------------------------------------------------------------------------------


def test_the_controller_outlives_every_message(
    engine: Engine, product: Product, scratch: Path
) -> None:
    """Noise, half messages, other versions, too many descriptors, lying sizes, idle connections."""
    engine.run(["srun", "true"]).check()
    sock = engine.runtime / "roadstead" / "controller.sock"
    source = Path(__file__).with_name("wire_attacks.py").read_text()
    code = engine.account.write(scratch / "attack.py", source)
    done = engine.run([product.python, "-IS", code, product.library, sock], timeout=50).check()
    assert done.stdout == "same controller\n", str(done)
    (log,) = (engine.state / "roadstead").rglob("controller.log")
    assert "Traceback" not in log.read_text(), log.read_text()
    engine.run(["scancel", "-u", engine.account.name])
    eventually(lambda: not engine.run(["squeue", "-h"]).stdout, what="an empty queue")


def test_a_supervisor_outlives_every_message(engine: Engine) -> None:
    process = engine.popen(["srun", "sh", "-c", "echo up; read x; exit 3"], stdin=-1)
    assert process.stdout.readline() == "up\n"
    steps = engine.runtime / "roadstead" / "steps"
    (path,) = eventually(lambda: list(steps.glob("*/ctl.sock")), what="the supervisor's socket")
    messages = (
        b"", b"{", b"[]", b'{"op":1}', b'{"op":"signal"}', b'{"op":"signal","signal":"9"}',
        b'{"op":"signal","signal":99999999999999999999}', b'{"op":"resize","rows":-1}',
        b'{"op":"terminate","signal":[]}', b'{"op":"resize","rows":1,"columns":70000}',
        b'{"memfd":100}', b"[" * 100_000,
    )  # fmt: skip
    if engine.account.is_current:  # the socket asks who we are
        for message in messages:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
                peer.connect(os.fspath(path))
                peer.send(message)
    else:
        code = (
            "import socket, sys\nfor m in sys.argv[2:]:\n"
            " s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
            " s.connect(sys.argv[1]); s.send(m.encode()); s.close()"
        )
        argv = ["/usr/bin/python3", "-IS", "-c", code, path, *(m.decode() for m in messages)]
        engine.run(argv).check()
    done = engine.finish(process, typed="go\n")
    assert done.returncode == 3, str(done)
