"""--container-per=node: tasks that share a container, each with an exit of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import waiting
from tests.support.bundle import make_host_bundle
from tests.support.engine import Engine
from tests.support.skips import require

pytestmark = pytest.mark.container
PYTHON = os.path.realpath(sys.executable)  # of the machine, not of the virtual environment
MakeBundle = Callable[..., Path]


@pytest.fixture(params=["crun", "runc"])
def runtime(request: pytest.FixtureRequest) -> dict[str, str]:
    require(request.param)
    return {"ROADSTEAD_RUNTIME": request.param, "ROADSTEAD_OCI_CONF": "none"}


def srun(bundle: Path, *options: str) -> list[str]:
    return ["srun", "-n3", "-O", f"--container={bundle}", "--container-per=node", *options]


def test_tasks_share_files_memory_and_processes_and_nothing_else(
    engine: Engine, make_bundle: MakeBundle, runtime: dict[str, str]
) -> None:
    script = (
        "touch /dev/shm/$SLURM_PROCID /w$SLURM_PROCID; while [ $(ls /dev/shm | wc -l) != 3 ]; do"
        " sleep 0.05; done; n=$(ps | grep -c '[s]h -c touch'); [ $n -ge 3 ] && n=all;"
        " echo $(readlink /proc/self/ns/pid) $(readlink /proc/self/ns/net)"
        " $(ls -d /w* | tr '\\n' .) $n; sleep 0.5; echo me:$SLURM_PROCID:$1"
    )
    bundle = make_bundle()
    argv = [*srun(bundle, "--container-writable=private"), "sh", "-c", script, "sh", "a b"]
    said = engine.run(argv, env=runtime).check()
    lines = said.stdout.splitlines()
    assert {each for each in lines if each.startswith("me")} == {f"me:{n}:a b" for n in range(3)}
    (seen,) = {each for each in lines if not each.startswith("me")}
    assert seen.split()[1] == os.readlink("/proc/self/ns/net")
    assert seen.split()[2:] == ["/w0./w1./w2.", "all"]
    assert not list((bundle / "rootfs").glob("w*"))


def test_tasks_that_share_a_container_are_there_with_it(
    engine: Engine, make_bundle: MakeBundle, runtime: dict[str, str]
) -> None:
    """--container-sync waits for containers, and theirs is one."""
    said = engine.run([*srun(make_bundle(), "--container-sync"), "echo", "x"], env=runtime).check()
    assert said.stdout == "x\n" * 3


def test_each_task_has_its_own_exit_code_or_signal(
    engine: Engine, make_bundle: MakeBundle, runtime: dict[str, str]
) -> None:
    script = "case $SLURM_PROCID in 0) exit 3;; 1) sleep 0.3; kill -SEGV $$;; 2) sleep 0.6;; esac"
    said = engine.run([*srun(make_bundle()), "sh", "-c", script], env=runtime)
    assert said.returncode == 139
    assert "task 0: Exited with exit code 3" in said.stderr
    assert (
        "task 1: Segmentation fault" in said.stderr
        or "task 1: Exited with exit code 139" in said.stderr
    )
    wrong = engine.run([*srun(make_bundle(engine.work / "b")), "nowhere"], env=runtime)
    assert wrong.returncode == 127


def test_signals_reach_all_tasks(
    engine: Engine, make_bundle: MakeBundle, runtime: dict[str, str]
) -> None:
    script = (
        "trap 'echo usr1; exit 7' USR1; echo up; i=0; while [ $i -lt 200 ]; do sleep 0.1;"
        " i=$((i+1)); done"
    )
    waits = engine.popen(
        [*srun(make_bundle(), "-o", "out"), "sh", "-c", script], stdout=-1, stderr=-1, env=runtime
    )
    out = engine.work / "out"
    waiting.eventually(lambda: out.exists() and out.read_text().count("up") == 3)
    engine.run(["scancel", "-s", "USR1", "1.0"]).check()
    assert engine.finish(waits).returncode == 7
    assert out.read_text().count("usr1") == 3


def test_a_step_that_is_cancelled_or_whose_supervisor_is_killed_leaves_nothing(
    engine: Engine, make_bundle: MakeBundle
) -> None:
    bundle = make_bundle()
    for kill in (False, True):
        out = engine.work / f"out{kill}"
        waits = engine.popen(
            [*srun(bundle, "-o", out.name), "sh", "-c", "echo up; sleep 98"], stdout=-1, stderr=-1
        )
        waiting.eventually(lambda out=out: out.exists() and out.read_text().count("up") == 3)
        if kill:
            (claim,) = engine.runtime.glob("roadstead/steps/*/claim.json")
            os.kill(json.loads(claim.read_text())["pid"], signal.SIGKILL)
        else:
            engine.run(["scancel", "1"]).check()
        assert engine.finish(waits).returncode == (125 if kill else 143)


def test_tasks_of_several_nodes_and_of_a_private_network(
    engine: Engine, make_bundle: MakeBundle
) -> None:
    """One network for the tasks of a container: 127.0.0.1 is common to them."""
    script = (
        "if [ $SLURM_PROCID = 0 ]; then echo hi | timeout 5 nc -l -p 77; "
        "else for n in 1 2 3 4 5 6; do"
        ' x=$(nc 127.0.0.1 77 </dev/null) && [ "$x" ] && break; sleep 0.2; done; echo got $x; fi'
    )
    argv = ["srun", "-n2", "-O", f"--container={make_bundle()}", "--container-per=node"]
    said = engine.run([*argv, "--container-network=private", "sh", "-c", script])
    assert said.stdout == "got hi\n"


READ_THE_OTHERS_MEMORY = """
import ctypes, os, time
me, place = os.environ["SLURM_PROCID"], "/dev/shm/at"
if me == "0":
    data = ctypes.create_string_buffer(b"of task 0")
    with open(place + ".new", "w") as file:
        file.write(f"{os.getpid()} {ctypes.addressof(data)}")
    os.rename(place + ".new", place)
    while not os.path.exists("/dev/shm/done"):
        time.sleep(0.02)
else:
    while not os.path.exists(place):
        time.sleep(0.02)
    pid, address = map(int, open(place).read().split())
    found = ctypes.create_string_buffer(10)
    class Part(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]
    mine, others = Part(ctypes.addressof(found), 10), Part(address, 10)
    libc = ctypes.CDLL(None, use_errno=True)
    got = libc.process_vm_readv(pid, ctypes.byref(mine), 1, ctypes.byref(others), 1, 0)
    print(got, found.value.decode(), os.strerror(ctypes.get_errno()) if got < 0 else "")
    open("/dev/shm/done", "w").close()
"""


def test_a_task_reads_the_memory_of_another_as_mpi_does(engine: Engine) -> None:
    """CMA: process_vm_readv(2) between tasks, which yama forbids on some machines."""
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    if scope.exists() and scope.read_text().strip() != "0":
        pytest.skip("yama's ptrace_scope allows it to nobody here")
    bundle = make_host_bundle(engine.account, engine.work / "host")
    argv = ["srun", "-n2", "-O", f"--container={bundle}", "--container-per=node", PYTHON]
    said = engine.run([*argv, "-c", READ_THE_OTHERS_MEMORY])
    assert said.stdout == "10 of task 0 \n", said


def test_what_cannot_share(engine: Engine, make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    conf = engine.work / "oci.conf"
    words = {"Run": "run -b %b", "Kill": "kill --all", "Delete": "delete --force"}
    lines = [f'RunTime{key}="crun {line} %n.%u.%j.%s.%t"' for key, line in words.items()]
    engine.account.write(conf, "\n".join(lines) + "\n")
    said = engine.run([*srun(bundle), "true"], env={"ROADSTEAD_OCI_CONF": f"{conf}"})
    assert said.returncode == 1
    assert re.search("oci.conf has no words for joining a container", said.stderr)
