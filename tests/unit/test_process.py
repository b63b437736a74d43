"""Starting, watching and signalling processes."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from roadstead.host import cgroup, clone, process
from roadstead.host.process import SignalState

SH = "/bin/sh"


def run(script: str, **options: object) -> int:
    argv = [SH, "-c", script]
    return process.spawn(argv, env={"PATH": os.defpath}, **options).reap()  # type: ignore[arg-type]


@pytest.fixture(params=["spawned", "born in a group"])
def group(request: pytest.FixtureRequest) -> Iterator[int | None]:
    """Both ways to start a program: posix_spawn, and by hand into a version 2 group, our own."""
    if request.param == "spawned":
        yield None
        return
    tree = cgroup.mounted().get("")
    if tree is None or not clone.supported() or not os.access(f"{tree.own}/cgroup.procs", os.W_OK):
        pytest.skip("no version 2 group that this user may write to")
    fd = os.open(tree.own, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    yield fd
    os.close(fd)


def moved(fd: int, to: int) -> int:
    if fd != to:
        os.dup2(fd, to, inheritable=False)
        os.close(fd)
    return to


@pytest.mark.long
def test_descriptors_in_any_order(tmp_path: Path, group: int | None) -> None:
    """Each of 0, 1, 2 and a high one as each of the three, in a child that can have them so."""
    sources = (0, 1, 2, 201)
    wanted = list(itertools.product(sources, repeat=3))
    links = [f"/proc/self/fd/{target}" for target in range(3)]
    pid = os.fork()
    if pid == 0:
        try:
            for fd in sources:
                moved(os.open(tmp_path / str(fd), os.O_RDWR | os.O_CREAT), fd)
            for number, stdio in enumerate(wanted):
                report = f"{tmp_path}/report{number}"
                argv = ["/usr/bin/find", *links, "-fprintf", report, "%l\n"]
                process.spawn(argv, env={}, stdio=stdio, group=group).reap()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    reports = [(tmp_path / f"report{number}").read_text() for number in range(len(wanted))]
    seen = [tuple(int(os.path.basename(line)) for line in text.split()) for text in reports]
    assert seen == wanted


def test_a_closed_descriptor_is_an_error(group: int | None) -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        run("true", stdio=(0, 1, 250), group=group)


def test_how_a_child_ended(group: int | None) -> None:
    assert run("exit 7", group=group) == 7
    assert run("kill -9 $$", group=group) == -9
    child = process.spawn([SH, "-c", "exec sleep 20"], env={"PATH": os.defpath})
    assert child.reap_if_ended() is None
    child.signal(signal.SIGTERM)
    assert child.reap() == child.reap() == child.reap_if_ended() == -15
    child.signal(signal.SIGTERM)  # nobody is there
    assert not process.send(child.pid, signal.SIGTERM)


def test_what_cannot_be_executed(group: int | None) -> None:
    for path, error in (("/no/such", FileNotFoundError), ("/etc/passwd", PermissionError)):
        with pytest.raises(error):
            process.spawn([path], env={}, group=group)


def test_signals_that_we_ignore_are_not_inherited(group: int | None) -> None:
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert run("kill -HUP $$", group=group) == -1
    signal.signal(signal.SIGHUP, old)


def test_a_child_leads_a_session_and_keeps_what_it_is_given(group: int | None) -> None:
    read, write = os.pipe2(os.O_CLOEXEC)
    script = f"ps -o sid= -p $$ >/dev/fd/{write}"
    options = {"stdio": (0, write, 2), "keep": (write,), "group": group}
    argv = [SH, "-c", script]
    child = process.spawn(argv, env={"PATH": os.defpath}, **options)  # type: ignore[arg-type]
    os.close(write)
    with open(read) as pipe:
        assert child.reap() == 0
        assert int(pipe.read()) == child.pid


def test_a_childs_descendants() -> None:
    read, write = os.pipe2(os.O_CLOEXEC)
    script = "sleep 20 & sh -c 'sleep 20 & echo up; wait' & wait"
    argv = [SH, "-c", script]
    child = process.spawn(argv, env={"PATH": os.defpath}, stdio=(0, write, 2))
    os.close(write)
    assert os.read(read, 3) == b"up\n"
    os.close(read)
    assert child.pid in process.children(os.getpid())
    below = process.descendants(child.pid)
    assert len(below) == 3
    assert set(process.children(child.pid)) < set(below)
    for pid in below:
        process.send(pid, process.KILL)
    assert child.reap() in (0, 137)
    assert process.descendants(child.pid) == []
    assert process.namespace(child.pid, "mnt") == ""
    assert process.signal_state(child.pid) is None


@pytest.mark.parametrize(
    ("state", "dropped"),
    [
        (SignalState(0, 0, is_init=True), True),
        (SignalState(0, 0, is_init=False), False),
        (SignalState(1 << 14, 0, is_init=True), False),
        (SignalState(0, 1 << 14, is_init=True), False),
        (SignalState(1 << 13, 1 << 15, is_init=True), True),
    ],
)
def test_what_the_first_process_of_a_container_never_hears(
    state: SignalState, dropped: bool
) -> None:
    assert state.drops(signal.SIGTERM) is dropped


def test_our_own_signals() -> None:
    state = process.signal_state(os.getpid())
    assert state is not None
    assert state.caught & 1 << (signal.SIGINT - 1)
    assert not state.is_init or os.getpid() == 1


def test_which(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").touch(0o644)
    (tmp_path / "program").touch(0o755)
    path = f"/none:{tmp_path}"
    assert process.which("program", path) == f"{tmp_path}/program"
    assert process.which("dir", path) is None
    assert process.which("file", path) is None
    assert process.which(f"{tmp_path}/program", "") == f"{tmp_path}/program"
