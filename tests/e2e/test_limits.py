"""docs/limits.md, walked: out of memory is told from failure, by the kernel's count or by ours.

Control groups of version 1 are delegated as an administrator would: a directory of the account's in
the memory and in the pids tree.  What starts the engine goes in there first.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.test_exit_contract import MODES, Runner
from tests.support.account import Account
from tests.support.engine import Engine
from tests.support.product import Product
from tests.support.skips import require

ENTER = 'for d in $GROUPS_TO_ENTER; do echo $$ > $d/cgroup.procs; done; exec "$@"'
CGROUPS = Path("/sys/fs/cgroup")
KERNEL = "Detected 1 oom-kill event(s) in StepId=1.0. Some of your processes may have been killed"
WATCHED = "StepId=1.0 exceeded memory limit ("
# tail keeps what it has read, until its input ends; it is the last of the pipe, so its end counts.
HOG = "(head -c {0}m /dev/zero; sleep {1}) | tail -c {0}m > /dev/null"


def own_group(controller: str) -> Path | None:
    """This process's group in a version 1 tree, where there is one."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if names == controller and (CGROUPS / controller).is_dir():
            return CGROUPS / controller / path.strip("/")
    return None


@contextlib.contextmanager
def delegation(account: Account, *controllers: str) -> Iterator[list[Path]]:
    """A group of the account's for each of these controllers, as an administrator makes it."""
    made: list[Path] = []
    if os.geteuid() != 0:
        pytest.skip("only root delegates a version 1 group")
    for controller in controllers:
        above = own_group(controller)
        if above is None:
            pytest.skip(f"no version 1 tree of the {controller} controller")
        group = above / f"rs-test-{account.uid}-{os.getpid()}"
        group.mkdir()
        for name in ("mems", "cpus") if controller == "cpuset" else ():
            (group / f"cpuset.{name}").write_text((above / f"cpuset.{name}").read_text())
        made.append(account.own(group))
    yield made
    for group in made:
        for top, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(top)
        assert not group.exists(), f"something is left in {group}"


@pytest.fixture
def delegated(account: Account) -> Iterator[list[Path]]:
    """Groups of the account's for memory and processes; made before the engine, to outlive it."""
    with delegation(account, "memory", "pids") as groups:
        yield groups


@pytest.fixture
def cpuset(account: Account) -> Iterator[list[Path]]:
    """A cpuset of the account's."""
    with delegation(account, "cpuset") as groups:
        yield groups


@pytest.fixture(params=["cgroup", "watched"])
def held(request: pytest.FixtureRequest) -> list[Path]:
    """By what memory is held: our own group of version 1, or nothing but a look now and then."""
    if request.param == "cgroup":
        groups: list[Path] = request.getfixturevalue("delegated")
        return groups
    account: Account = request.getfixturevalue("account")
    if account.uid == 0:
        pytest.skip("root has all groups")
    return []


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name != "plain":
        require("userns", name[:4])
    return name


@pytest.fixture
def srun(held: list[Path], engine: Engine, mode: str, make_bundle: Callable[..., Path]) -> Runner:
    if held:
        enter(engine, held)
    return Runner(engine, mode, make_bundle())


def enter(engine: Engine, groups: list[Path]) -> None:
    """Have the engine start inside: the controller stays where its first command was."""
    env = {"GROUPS_TO_ENTER": " ".join(map(str, groups))}
    engine.run(["sh", "-c", ENTER, "sh", "roadstead", "engine", "start"], env=env).check()


def hog(seconds: float) -> list[str]:
    """A command that has 150 MiB, for so long if nobody ends it."""
    return ["sh", "-c", HOG.format(150, seconds)]


def test_out_of_memory(srun: Runner, held: list[Path]) -> None:
    """Killed, 137, and the state of the job and its reason say for what."""
    argv = srun.argv(*hog(0 if held else 20))
    done = srun.engine.run([argv[0], "--mem=60", *argv[1:]], env=srun.env).check(137)
    node = os.uname().nodename.split(".")[0]
    assert f"srun: error: {node}: task 0: Out Of Memory\n" in done.stderr, str(done)
    assert f"slurmstepd: error: {KERNEL if held else WATCHED}" in done.stderr, str(done)
    assert ended_as(srun.engine) == "OUT_OF_MEMORY"


def test_not_out_of_memory(srun: Runner, held: list[Path]) -> None:
    """137 of the program's own, somebody's SIGKILL, and 1 after an allocation that failed."""
    for script, code in (
        ("exit 137", 137),
        ("sh -c 'kill -9 $$'; exit $?", 137),
        ("ulimit -v 20000; head -c 90m /dev/zero | tail -c 90m >/dev/null || exit 1", 1),
    ):
        argv = srun.argv("sh", "-c", script)
        done = srun.engine.run([argv[0], "--mem=60", *argv[1:]], env=srun.env).check(code)
        assert f"task 0: Exited with exit code {code}" in done.stderr, str(done)
        assert "Out Of Memory" not in done.stderr, str(done)
        assert "slurmstepd" not in done.stderr, str(done)
        assert ended_as(srun.engine) == "FAILED"


def test_a_batch_script(held: list[Path], engine: Engine) -> None:
    """What ended it is in its output, as slurmstepd writes it there."""
    if held:
        enter(engine, held)
    script = f"#!/bin/sh\n{HOG.format(150, 0 if held else 20)}\n"
    engine.account.write(engine.work / "job.sh", script)
    # A job that ran out of memory has no code of its own (ExitCode=0:125), which is 1 to sbatch.
    engine.run(["sbatch", "-W", "--mem=60", "-o", "out", "job.sh"]).check(1)
    line = (KERNEL if held else WATCHED).replace("1.0", "1.batch")
    assert f"slurmstepd: error: {line}" in (engine.work / "out").read_text()
    assert ended_as(engine) == "OUT_OF_MEMORY"


def ended_as(engine: Engine) -> str:
    """The state of the job that ended last."""
    argv = ["squeue", "-h", "-t", "all", "-S", "i", "-o", "%T"]
    return engine.run(argv).check().stdout.split()[-1]


# -- in a group ------------------------------------------------------------------------------------


@pytest.fixture
def grouped(delegated: list[Path], engine: Engine) -> Engine:
    enter(engine, delegated)
    return engine


def test_which_task_it_was(grouped: Engine) -> None:
    """The kernel's count is each task's own; SIGKILL by somebody else is no want of memory."""
    script = f"case $SLURM_PROCID in 1) {HOG.format(150, 0)};; 2) kill -9 $$;; *) exit 3;; esac"
    done = grouped.run(["srun", "-n4", "-O", "--mem=60", "sh", "-c", script]).check(137)
    for line in ("task 1: Out Of Memory", "task 2: Killed", "tasks 0,3: Exited with exit code 3"):
        assert f": {line}\n" in done.stderr, str(done)


def test_a_killed_process_counts_even_after_success(grouped: Engine) -> None:
    """As in Slurm: the program went on, and its result cannot be trusted."""
    done = grouped.run(["srun", "--mem=60", "sh", "-c", f"{HOG.format(150, 0)}; exit 0"]).check(0)
    assert KERNEL in done.stderr, str(done)
    assert "task 0: Out Of Memory" in done.stderr, str(done)
    assert ended_as(grouped) == "OUT_OF_MEMORY"


def test_a_job_within_its_limit_leaves_no_group(grouped: Engine, delegated: list[Path]) -> None:
    memory, pids = delegated
    script = "cat /proc/self/cgroup"
    done = grouped.run(
        ["srun", "--mem=60", "sh", "-c", script], env={"ROADSTEAD_STEP_PIDS": "20"}
    ).check()
    assert f"/{memory.name}/roadstead-1.0/task-0\n" in done.stdout
    assert f"/{pids.name}/roadstead-1.0\n" in done.stdout
    assert [*memory.glob("*/"), *pids.glob("*/")] == []


def test_processes(grouped: Engine) -> None:
    """fork(2) fails at the limit: that is the program's to handle, and we say what it was."""
    script = "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait"
    done = grouped.run(["srun", "sh", "-c", script], env={"ROADSTEAD_STEP_PIDS": "5"})
    assert done.returncode == 2, str(done)
    assert "processes: its limit is 5 (ROADSTEAD_STEP_PIDS)" in done.stderr, str(done)
    refused = grouped.run(["srun", "true"], env={"ROADSTEAD_STEP_PIDS": "many"}).check(1)
    assert "srun: error: ROADSTEAD_STEP_PIDS=many: not a number of processes" in refused.stderr


@pytest.mark.parametrize("mode", ["plain", "crun built in", "runc built in"], indirect=True)
def test_a_killed_supervisor_leaves_no_group(
    grouped: Engine, delegated: list[Path], make_bundle: Callable[..., Path], mode: str
) -> None:
    """What it made is in its claim; even a process that hides its mark is found by the group."""
    srun = Runner(grouped, mode, make_bundle())
    script = "env -i setsid sleep 60 <&- >&- 2>&- & echo up; exec sleep 61"
    argv = srun.argv("sh", "-c", script)
    process = grouped.popen([argv[0], "--mem=60", *argv[1:]], env=srun.env)
    assert process.stdout.readline() == "up\n"
    if not (srun.contained and grouped.account.uid == 0):  # that is at the top of the tree
        assert list(delegated[0].glob("roadstead-1.0/task-0/"))
    for each in grouped.processes():
        with contextlib.suppress(FileNotFoundError):  # one that has just ended
            if Path(f"/proc/{each.pid}/comm").read_text() == "roadstead-step\n":
                os.kill(each.pid, 9)
    assert grouped.finish(process, timeout=20).returncode == 125
    assert list(delegated[0].glob("*/")) == []


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_root_without_a_user_namespace(
    engine: Engine, make_bundle: Callable[..., Path], runtime: str
) -> None:
    """There the runtime makes groups in every tree; those of memory are below the step's."""
    if engine.account.uid != 0 or own_group("memory") is None:
        pytest.skip("needs root and a version 1 tree")
    require(runtime)
    bundle = make_bundle(uid_map=[])
    env = {"ROADSTEAD_OCI_CONF": "none", "ROADSTEAD_RUNTIME": runtime}
    words = ["--mem=60", "--container", str(bundle), "sh", "-c"]
    done = engine.run(["srun", *words, "cat /proc/self/cgroup"], env=env).check()
    assert "roadstead-1.0" in done.stdout
    done = engine.run(["srun", *words, HOG.format(150, 0)], env=env).check(137)
    assert "task 0: Out Of Memory" in done.stderr, str(done)


# -- without one -----------------------------------------------------------------------------------


def test_watched_tasks_that_share_memory_are_not_counted_twice(
    user: Account, engine: Engine
) -> None:
    """Eight processes with one mapping of 40 MiB are no 320 MiB."""
    if engine.account.uid == 0:
        pytest.skip("root has all groups")
    script = (
        "import mmap,os,time\nm=mmap.mmap(-1,40<<20)\nm.write(b'x'*(40<<20))\n"
        "for _ in range(7):\n if not os.fork():\n"
        "  sum(m[i] for i in range(0,40<<20,4096)); time.sleep(1); os._exit(0)\n"
        "for _ in range(7): os.wait()"
    )
    engine.run(["srun", "--mem=200", "/usr/bin/python3", "-c", script]).check(0)


def test_a_limit_of_processes_that_nothing_holds(engine: Engine) -> None:
    if engine.account.uid == 0:
        pytest.skip("root has all groups")
    done = engine.run(["srun", "true"], env={"ROADSTEAD_STEP_PIDS": "5"}).check(0)
    assert "warning: ROADSTEAD_STEP_PIDS=5 is not enforced: " in done.stderr


# -- the exit record -------------------------------------------------------------------------------


def test_usage_is_the_tasks(srun: Runner) -> None:
    """CPU time and memory of what ran in the end, whoever had to be waited for on the way."""
    count = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"
    srun.engine.run(srun.argv("sh", "-c", f"{count}; {HOG.format(60, 0)}"), env=srun.env).check(0)
    srun.engine.stop().check()  # it has the journal to itself
    journal = next(srun.engine.state.glob("roadstead/*/journal.db"))
    with contextlib.closing(sqlite3.connect(journal)) as connection:
        (state,) = connection.execute("select state from step").fetchone()
    record = json.loads(state)["record"]
    assert 0.1 < record["user_seconds"] < 10, record
    assert record["max_rss_kib"] in range(60 << 10, 100 << 10), record


# -- other layouts ---------------------------------------------------------------------------------

OTHER_LAYOUTS = {
    "no cgroups": "umount -R /sys/fs/cgroup",
    "v2 without memory": "umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup",
}


@pytest.mark.root
@pytest.mark.parametrize("layout", OTHER_LAYOUTS)
def test_watched_in_another_layout(engine: Engine, layout: str) -> None:
    """Root too is held by a look now and then, where there is nothing better."""
    account = engine.account
    become = f"setpriv --reuid={account.uid} --regid={account.gid} --init-groups"
    script = f'{OTHER_LAYOUTS[layout]} && cd / && exec {become} "$@"'
    with engine.mark.inherited() as marks:
        done = (
            Account.current()
            .run(
                ["unshare", "--mount", "sh", "-c", script, "sh", "srun", "--mem=60", *hog(20)],
                env={**engine.variables, **marks, "USER": account.name},
            )
            .check(137)
        )
    assert WATCHED in done.stderr, str(done)
    assert "task 0: Out Of Memory" in done.stderr, str(done)


# The controller that version 2 has here beside the version 1 trees stands for any other.
STEP_ASIDE = """
import os, sys
sys.path.insert(0, sys.argv[1])
from roadstead.host import cgroup, process
name = sys.argv[2]
before = cgroup.place(name, cgroup.mounted())
assert not before.directory and "holds processes" in before.why, before
assert not cgroup.step_aside(before.own, [name], {1}), "somebody else's process was moved"
assert cgroup.step_aside(before.own, [name], {os.getpid()})
after = cgroup.place(name, cgroup.mounted())
assert after.directory == before.own and after.own == before.own + "/roadstead-engine", after
group = cgroup.Group.below({name: after}, "roadstead-1.0")
group.make()
group.share()
task = group.child("task-0")
if sys.argv[3] == "born":
    door = task.door()
    assert door is not None
    child = process.spawn(["/bin/sleep", "60"], env={}, group=door)
    os.close(door)
else:
    task.enter()
    child = process.spawn(["/bin/sleep", "60"], env={})
    task.leave()
print(open(f"/proc/{child.pid}/cgroup").read().rpartition("0::")[2].strip())
print(open("/proc/self/cgroup").read().rpartition("0::")[2].strip())
assert not group.remove(), "removed although a process runs in it"
assert cgroup.kill(group.directories[name]) == [child.pid]
assert child.reap() == -9
assert group.remove()
"""


@pytest.mark.root
@pytest.mark.parametrize("way", ["born", "entered"])
def test_version_2_delegated(user: Account, product: Product, way: str) -> None:
    """As systemd delegates a scope: the directory, and the files that pass controllers on."""
    top = next((p for p in (CGROUPS, CGROUPS / "unified") if (p / "cgroup.procs").exists()), None)
    if top is None or not (names := (top / "cgroup.controllers").read_text().split()):
        pytest.skip("no version 2 tree with a controller")
    name = "memory" if "memory" in names else names[0]
    passed_on = top / "cgroup.subtree_control"
    had_it = name in passed_on.read_text().split()
    scope = top / f"rs-test-{os.getpid()}.scope"
    try:
        if not had_it:
            passed_on.write_text(f"+{name}")
        scope.mkdir()
        for path in (scope, *(scope / f"cgroup.{n}" for n in ("procs", "subtree_control"))):
            os.chown(path, user.uid, user.gid)
        become = f"setpriv --reuid={user.uid} --regid={user.gid} --init-groups"
        script = f'echo $$ > {scope}/cgroup.procs && exec {become} "$@"'
        argv = [product.python, "-IS", "-c", STEP_ASIDE, product.library, name, way]
        done = Account.current().run(["sh", "-c", script, "sh", *argv]).check(0)
        below = f"/{scope.name}"
        assert done.stdout.split() == [f"{below}/roadstead-1.0/task-0", f"{below}/roadstead-engine"]
    finally:
        for path in (scope / "roadstead-engine", scope):
            with contextlib.suppress(FileNotFoundError):
                path.rmdir()
        if not had_it:
            passed_on.write_text(f"-{name}")


@pytest.mark.parametrize("fenced", [False, True])
def test_cpus(cpuset: list[Path], engine: Engine, fenced: bool) -> None:
    """In a delegated cpuset a program may not widen its affinity; without one it may."""
    if len(os.sched_getaffinity(0)) < 2 or engine.account.uid == 0:
        pytest.skip("needs two CPUs; and root's steps have affinity alone")
    if fenced:
        enter(engine, cpuset)
    script = "taskset -p ff $$ >/dev/null; taskset -p $$"
    done = engine.run(["srun", "sh", "-c", script]).check()
    assert (int(done.stdout.split()[-1], 16).bit_count() == 1) is fenced, str(done)
    assert list(cpuset[0].glob("*/")) == []
