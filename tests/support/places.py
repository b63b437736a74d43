"""The two engines as one place each, of three nodes of four CPUs: for test_conformance.py.

Both are an `Engine`: a user's own directories, our commands on PATH, and a look at what is left.
On the Slurm one SLURM_CONF names a real Slurm, so that our commands choose it by themselves.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from tests.support import leaks
from tests.support.account import Account, Completed
from tests.support.bundle import make_bundle
from tests.support.engine import Engine, make_base
from tests.support.slurm_cluster import SlurmCluster

KINDS = ("local", "slurm")
RELEASE = "roadstead test release 1.0"
# Heterogeneous jobs are started by backfill alone.
SCHEDULING = "SchedulerParameters=sched_min_interval=0,batch_sched_delay=0,bf_interval=1"
NODES = "NodeName=n[1-3] CPUs=4 RealMemory=1000\n"

# Counts the signals that it gets; ends with how many.
TRAP = """\
n=0
trap 'n=$((n+1)); echo usr1' USR1
trap 'echo term; exit 5' TERM
echo ready
i=0
while test $i -lt 100 -a ! -e "$1"; do sleep 0.05; i=$((i+1)); done
exit $n
"""
# What the lines of the suite have at hand.
_FUNCTIONS = """\
# submit a batch job, wait until it is gone, and say how it ended
batch() {
    job=$(sbatch --parsable -o out.txt "$@") || return
    gone $job
    cat out.txt
    scontrol show job $job | sed -n 's/.*ExitCode=\\([0-9]*:[0-9]*\\).*/exit \\1/p'
}
gone() { while squeue -h -j "$1" 2>/dev/null | grep -q .; do sleep 0.05; done; }
# wait until a file has this line
said() { for _ in $(seq 200); do grep -qs "$2" "$1" && return; sleep 0.05; done; }
running() { squeue -h -t R -o %i; }
"""


class Place:
    """An engine, bundles, and shell lines that are run with them."""

    def __init__(self, kind: str, engine: Engine) -> None:
        self.kind = kind
        self.engine = engine
        account, base = engine.account, engine.base
        bundle = make_bundle(account, base / "bundle")
        rootfs = bundle / "rootfs"
        account.write(rootfs / "etc" / "os-release", f"{RELEASE}\n")
        account.write(rootfs / "trap.sh", TRAP)
        account.write(rootfs / "etc" / "not-executable", "")
        account.run(["tar", "-C", rootfs, "-cf", base / "image.tar", "."]).check()
        self.variables = {
            "B": os.fspath(bundle),
            "P": os.fspath(_without_pid_namespace(account, bundle, base / "shared-pids")),
            "I": os.fspath(base / "image.tar"),
            "ROADSTEAD_OCI_CONF": "none",
        }
        self.turns = 0

    def run(self, line: str, timeout: float = 60) -> Completed:
        """Run a line of bash in an empty directory."""
        self.turns += 1
        work = self.engine.account.mkdir(self.engine.work / str(self.turns))
        argv = ["bash", "-c", f"{_FUNCTIONS}\n{line}"]
        return self.engine.run(argv, cwd=work, env=self.variables, timeout=timeout)

    def left(self) -> list[leaks.Leak]:
        """What is there when no job is: processes (the local engine's own aside), mounts,
        directories of steps, containers."""
        found = self.engine.watch.settled()
        if self.kind == "local":
            # The controller and its like carry the test's mark, and stay.
            ours = ("roadstead-", f"{self.engine.base}/run/roadstead")
            found = [each for each in found if not _is_of_engine(each, ours)]
        return found


def _is_of_engine(leak: leaks.Leak, ours: tuple[str, ...]) -> bool:
    return leak.kind == "process" and ("controller" in leak.detail or leak.detail.startswith(ours))


def _without_pid_namespace(account: Account, bundle: Path, path: Path) -> Path:
    """The same bundle with the host's pids: a program in it may be ended by any signal."""
    config = json.loads((bundle / "config.json").read_text())
    config["root"]["path"] = os.fspath(bundle / "rootfs")
    linux = config["linux"]
    linux["namespaces"] = [each for each in linux["namespaces"] if each["type"] != "pid"]
    config["mounts"] = [
        {"destination": "/proc", "type": "none", "source": "/proc", "options": ["rbind"]}
        if each["destination"] == "/proc"
        else each
        for each in config["mounts"]
    ]
    account.mkdir(path)
    account.write(path / "config.json", json.dumps(config))
    return path


@contextlib.contextmanager
def place(kind: str, account: Account, shims: Path) -> Iterator[Place]:
    """One of KINDS.  At its end nothing may be left."""
    engine = Engine(account, shims, make_base(account))
    with contextlib.ExitStack() as stack:
        stack.callback(engine.close)
        if kind == "slurm":
            cluster = stack.enter_context(SlurmCluster(3, cpus=4, more=SCHEDULING))
            engine.variables |= cluster.variables
        else:
            folder = account.mkdir(engine.base / "config" / "roadstead", 0o700)
            account.write(folder / "roadstead.conf", NODES)
        yield Place(kind, engine)
