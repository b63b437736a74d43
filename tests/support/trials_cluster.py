"""Trials on a real Slurm of three nodes: a job in containers, and a kill (script/trials).

One job at a time.  Each of its tasks leaves a file when it has come to its end, so that a success
that was none is seen.  What was killed may fail, in whatever way Slurm says it has; what was not
ends as its program says.  After each trial nothing of it is left on any node: no process, no mount,
no container, no directory of a step.  An agent whose whole step was killed leaves the empty
directory on which its own files were mounted, to the next agent there: so at the end one job runs
on every node, and then that is gone as well.

Two things are Slurm's own, with and without a container (seen: 22.05).  An srun whose slurmstepd
was killed waits until its job is cancelled, says so, and exits with 0: so what counts as success is
0 and a job that is COMPLETED.  If that srun is in a batch script, it stays when the job has ended:
such a one is ended here, and counted.

Where nodes have nothing of ours (``bare``) the agent travels.  Slurm leaves it where it has brought
it, if the job ends just then; the next look at the node removes it when it is ten minutes old.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roadstead.agent import cache
from tests.support import leaks
from tests.support.account import Account
from tests.support.bundle import make_bundle
from tests.support.engine import Engine, make_base, make_shims
from tests.support.product import locate
from tests.support.slurm_cluster import SlurmCluster
from tests.support.trials import Failure

# Without the last where nodes have none of our commands.
FORMS = ("srun", "srun private", "srun shared", "batch", "step of a batch")
# Who is sent SIGKILL, by its name in ps; "scancel" and "slurmd" are done in other ways.
VICTIMS = {
    "nobody": (),
    "scancel": (),
    "slurmd": (),
    "agent": ("roadstead-agent",),
    "guard": ("roadstead-guard",),
    "keeper": ("roadstead-keep", ".roadstead-paus"),
    "runtime": ("crun", "crun:[1:CHILD]", "runc"),
    "task": ("sh", "sleep", "busybox"),
    "slurmstepd": ("slurmstepd",),
    "client": ("srun",),
}
_PATIENCE = 20.0
_APPEARANCE = 2.0
_LOST = 4.0  # then a client that waits for a slurmstepd that was killed waits for ever
_CONF = "SchedulerParameters=sched_min_interval=0,batch_sched_delay=0\nReturnToService=2"


@dataclass
class Trial:
    """One job, and one kill."""

    number: int
    form: str
    tasks: int
    code: int
    nap: float
    victim: str
    kill: float  # seconds after its client was started, or after the victim was
    done: Path = Path()
    hit: bool = False

    @property
    def name(self) -> str:
        return f"trial-{self.number}"

    @property
    def label(self) -> str:
        return (
            f"trial {self.number}: {self.form}, {self.tasks} tasks, exit {self.code}, "
            f"{self.victim} after {self.kill:.2f} s"
        )


def plan(seed: int, number: int, *, bare: bool = False, shared: bool = False) -> Trial:
    """The trial of this number: the same for the same seed.  ``shared``: of tasks of one node, in
    one container."""
    forms = FORMS[:-1] if bare else FORMS
    chance = random.Random(f"{seed}.{number}")
    trial = Trial(
        number=number,
        form=chance.choice(forms),
        tasks=chance.choice((1, 3)),
        code=chance.choice((0, 0, 3)),
        nap=chance.choice((0.0, 0.5, 1.0)),
        victim=chance.choice(list(VICTIMS)),
        kill=chance.choice((0.0, chance.uniform(0, 0.1), chance.uniform(0, 0.7))),
    )
    if shared:
        trial.form, trial.tasks = "srun shared", 3
    return trial


def run(
    seed: int,
    numbers: range,
    keep: bool,
    *,
    kind: str = "cluster",
    show: Callable[[str], None] = lambda line: None,
) -> None:
    """Do the trials of these numbers, of a ``kind`` as script/trials has it.  Raises Failure."""
    bare = kind == "bare"
    name = os.environ.get("ROADSTEAD_TEST_USER", "roadstead-test")
    user = Account.named(name)
    product = locate(user)
    shims = make_shims(product, user)
    engine = Engine(user, shims, make_base(user))
    try:
        hidden = (product.library, shims) if bare else ()
        with SlurmCluster(3, cpus=4, more=_CONF, hidden=hidden) as cluster:
            engine.variables |= {**cluster.variables, "ROADSTEAD_OCI_CONF": "none"}
            engine.variables["ROADSTEAD_NODE_CACHE"] = f"{engine.base}/node"
            bundle = make_bundle(user, engine.base / "bundle")
            trials = _Trials(engine, cluster, bundle)
            for number in numbers:
                trial = plan(seed, number, bare=bare, shared=kind == "shared")
                if bare and number % 2 == 0:
                    leaks.remove(engine.state / "roadstead" / "clusters")
                try:
                    trials.do(trial)
                except AssertionError as error:
                    repeat = f"--kind {kind} --seed {seed} --first {number} --count 1"
                    raise Failure(f"{trial.label}: {error}", repeat) from None
            trials.last()
            for outcome, count in sorted(trials.outcomes.items()):
                show(f"{count:4} {outcome}")
    finally:
        leaks.kill(engine.mark, [engine.base])
        if not keep:
            leaks.remove(engine.base)
        leaks.remove(shims)
        product.remove()


class _Trials:
    def __init__(self, engine: Engine, cluster: SlurmCluster, bundle: Path) -> None:
        self.engine = engine
        self.cluster = cluster
        self.bundle = bundle
        self.outcomes: Counter[str] = Counter()

    def do(self, trial: Trial) -> None:
        """One of them, and the look at what is left."""
        trial.done = self.engine.account.mkdir(self.engine.work / str(trial.number))
        client = self.engine.popen(self._argv(trial), cwd=trial.done)
        self._kill(trial)
        code = self._end(trial, client)
        self.cluster.heal()
        self._check(trial, code)
        for landed in Path(cache.LANDING).glob(f"{cache.TRAVELLING}*"):
            assert trial.hit, "an agent has landed, and nobody takes it"
            landed.unlink()
            self.outcomes["agent that had landed on a node"] += 1
        left = self.engine.watch.settled(timeout=5.0)
        if trial.form == "step of a batch" and trial.victim == "slurmstepd" and trial.hit and left:
            self._end_clients()
            left = self.engine.watch.settled(timeout=5.0)
        assert not left, f"left behind:\n{leaks.as_table(left)}"
        how = (
            "0, and cancelled"
            if code == 0 and self._state(trial) != "COMPLETED"
            else "as it says"
            if code == trial.code
            else "failed"
        )
        self.outcomes[f"{trial.victim}{'' if trial.hit else ' (missed)'}: {how}"] += 1

    def _end_clients(self) -> None:
        """End Slurm's own srun, of which slurmstepd has lost sight; nothing else."""
        for each in self.engine.processes():
            if each.command.startswith("srun "):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each.pid, signal.SIGKILL)
                self.outcomes["srun of a batch script, left by Slurm itself"] += 1

    def last(self) -> None:
        """A job on every node leaves nothing of those before it."""
        self.engine.run(["srun", "-N3", "--container", self.bundle, "true"]).check()
        left = [path for name in ("run", "tmp") for path in (self.engine.base / name).iterdir()]
        assert left == [], f"left behind by the last agents: {left}"

    def _argv(self, trial: Trial) -> list[str]:
        program = (
            f"echo begun >>/done/begun; sleep {trial.nap}; "
            f"echo >/done/task-${{SLURM_PROCID:-0}}; exit {trial.code}"
        )
        container = ["--container", str(self.bundle), f"--container-mounts={trial.done}:/done"]
        if trial.form == "srun private":
            container.append("--container-writable=private")
        nodes = ["-n", str(trial.tasks), "-N", str(trial.tasks)]
        if trial.form == "srun shared":
            container.append("--container-per=node")
            nodes = ["-n", str(trial.tasks), "-N1"]
        if trial.form.startswith("srun"):
            return ["srun", "-J", trial.name, *nodes, *container, "sh", "-c", program]
        if trial.form == "batch":
            words = ["-J", trial.name, "-o", "out"]
            return ["sbatch", "--parsable", *words, *container, "--wrap", program]
        inner = " ".join(container)
        script = f"srun {' '.join(nodes)} {inner} sh -c '{program}'"
        return ["sbatch", "--parsable", "-J", trial.name, *nodes, "-o", "out", "--wrap", script]

    def _state(self, trial: Trial) -> str:
        argv = ["squeue", "-h", "-t", "all", "-n", trial.name, "-o", "%T"]
        return self.engine.run(argv).stdout.strip()

    # -- the kill -----------------------------------------------------------------------------

    def _kill(self, trial: Trial) -> None:
        if trial.victim == "scancel":
            time.sleep(trial.kill + 0.1)
            found = self._jobs()
            trial.hit = bool(found)
            if found:
                self.engine.run(["scancel", *found])
        elif trial.victim == "slurmd":
            time.sleep(trial.kill + 0.1)
            self.cluster.kill_slurmd(f"n{trial.number % 3 + 1}")
            trial.hit = True
        elif trial.victim != "nobody":
            self._kill_process(trial)

    def _kill_process(self, trial: Trial) -> None:
        """SIGKILL to one of those with the victim's name, some time after there is one."""
        names = VICTIMS[trial.victim]
        deadline = time.monotonic() + _APPEARANCE
        while not (found := self._found(names)) and time.monotonic() < deadline:
            pass  # a runtime is there for a moment
        if trial.kill:
            time.sleep(trial.kill)
            found = self._found(names)
        if found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(random.Random(trial.number).choice(found), signal.SIGKILL)
                trial.hit = True

    def _found(self, names: tuple[str, ...]) -> list[int]:
        return sorted(
            [int(name) for name in os.listdir("/proc") if name.isdigit() and self._is(name, names)]
        )

    def _is(self, pid: str, names: tuple[str, ...]) -> bool:
        try:
            first = Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0]
            called = {
                Path(f"/proc/{pid}/comm").read_text().strip(),
                os.path.basename(os.fsdecode(first)),
            }
            if not called & {*names}:  # crun is started from a descriptor, whose name is a number
                return False
            if names == ("slurmstepd",):  # those of our cluster are all that there are of its node
                return os.fsencode(self.cluster.base) in Path(f"/proc/{pid}/environ").read_bytes()
            marked = f"{leaks.VARIABLE}={self.engine.mark.token}".encode()
            return marked in Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False

    # -- the end ------------------------------------------------------------------------------

    def _jobs(self) -> list[str]:
        return self.engine.run(["squeue", "-h", "-o", "%i"]).stdout.split()

    def _end(self, trial: Trial, client: Any) -> int:
        """How it ended, as its client says, or Slurm of a batch job; one that Slurm has lost sight
        of is cancelled."""
        patience = _LOST if trial.victim == "slurmstepd" else _PATIENCE
        try:
            said, _ = client.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            assert trial.hit, "it does not end, and nothing was killed"
            self.engine.run(["scancel", *self._jobs()])
            said, _ = client.communicate(timeout=_PATIENCE)
        self.cluster.restart()
        self._wait_for_jobs(patience)
        code: int = client.returncode
        if code == 0 and not trial.form.startswith("srun"):
            shown = self.engine.run(["scontrol", "show", "job", said.strip()]).stdout
            found = re.search(r"ExitCode=(\d+):(\d+)", shown)
            assert found, shown
            code = int(found[1]) or (128 + int(found[2]) if int(found[2]) else 0)
            if code == 0 and self._state(trial) != "COMPLETED":
                code = 1  # it was cancelled before it had begun
        return code if code >= 0 else 128 - code

    def _wait_for_jobs(self, patience: float) -> None:
        deadline = time.monotonic() + patience
        while jobs := self._jobs():
            if time.monotonic() > deadline:
                self.engine.run(["scancel", *jobs])
                deadline += 60
            time.sleep(0.05)

    def _check(self, trial: Trial, code: int) -> None:
        tasks = 1 if trial.form == "batch" else trial.tasks
        finished = len(list(trial.done.glob("task-*")))
        if code == 0 and self._state(trial) == "COMPLETED":
            assert trial.code == 0, f"it says 0, and its program {trial.code}"
            assert finished == tasks, f"it says 0, and {finished} of {tasks} tasks have finished"
        if not trial.hit or trial.victim in ("nobody", "guard"):
            assert code == trial.code, f"it says {code}, and nothing was killed"
