"""The two engines as places of three nodes of four CPUs: for test_conformance.py.

Each is an `Engine`: a user's own directories, our commands on PATH, and a look at what is left.
On a Slurm one SLURM_CONF names a real Slurm, so that our commands choose it by themselves.  There
are three of those: its nodes have all that the submitter has; they have nothing of ours (`bare`);
they share no directory either (`apart`).
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

KINDS = ("local", "slurm", "slurm bare", "slurm apart")
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
# its one step with a program of ours: a look at the nodes may have been one before
step() { squeue -h -s -o '%i %j' | sed -n 's/^\\([0-9]*[.][0-9]*\\) sh$/\\1/p'; }
"""
# The same where a job's output stays on its node.
_FUNCTIONS_APART = """\
batch() {
    job=$(sbatch --parsable -D /tmp -o /tmp/out-%j "$@") || return
    gone $job
    srun -Q -n1 -w $(scontrol show job $job | sed -n '0,/BatchHost=/s/.*BatchHost=//p') \\
        -D / cat /tmp/out-$job
    scontrol show job $job | sed -n 's/.*ExitCode=\\([0-9]*:[0-9]*\\).*/exit \\1/p'
}
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
        self.functions = _FUNCTIONS + (_FUNCTIONS_APART if kind == "slurm apart" else "")

    def run(self, line: str, timeout: float = 60) -> Completed:
        """Run a line of bash in an empty directory."""
        self.turns += 1
        work = self.engine.account.mkdir(self.engine.work / str(self.turns))
        argv = ["bash", "-c", f"{self.functions}\n{line}"]
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
def place(kind: str, account: Account, shims: Path, library: Path | None = None) -> Iterator[Place]:
    """One of KINDS; nodes that lack Roadstead do not see ``library`` either.  At its end nothing
    may be left."""
    engine = Engine(account, shims, make_base(account))
    with contextlib.ExitStack() as stack:
        stack.callback(engine.close)
        if kind == "local":
            folder = account.mkdir(engine.base / "config" / "roadstead", 0o700)
            account.write(folder / "roadstead.conf", NODES)
        else:
            cluster = SlurmCluster(
                3,
                cpus=4,
                more=SCHEDULING,
                apart=(Account.current(), account) if kind == "slurm apart" else (),
                hidden=() if library is None else (library, shims),
            )
            engine.variables |= stack.enter_context(cluster).variables
        made = Place(kind, engine)
        if kind == "slurm bare":  # whose nodes' /var/tmp is this host's
            made.variables["ROADSTEAD_NODE_CACHE"] = os.fspath(engine.base / "node")
        if kind == "slurm apart":
            engine.variables.pop("TMPDIR")  # slurmstepd complains if it is not there
            # Nobody can send a batch script its container: that is what a step did before.
            made.run("srun -Q -N3 --container $B true").check()
        yield made
