"""The same commands on a real Slurm and on the local engine, and how they are compared.

Both get the same node, the same partitions and the same jobs in the same order, so that even the
numbers agree.  What cannot agree is masked in both: times of day, how long something has run, names
of directories, the host's name, points of priority.

Output must be the same, line by line.  Of errors a user must read Slurm's sentence: one of Slurm's
lines is in ours, which is one line and adds a hint where Slurm has two.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from tests.support.account import Account, Completed
from tests.support.engine import Engine
from tests.support.slurm_cluster import SlurmCluster
from tests.support.waiting import eventually

SLURM_SITE = """\
PartitionName=debug Nodes=ALL Default=YES MaxTime=UNLIMITED
PartitionName=short Nodes=ALL MaxTime=10
Licenses=foo:2
"""
ROADSTEAD_SITE = f"NodeName=n1 CPUs=2 RealMemory=1000\nKillWait=5\n{SLURM_SITE}"
JOB = "#!/bin/sh\nsrun -n1 -t 30 -J steppy sleep 1000\n"

# What both are given before the commands, and what squeue must say of it then.
JOBS: tuple[tuple[str, str], ...] = (
    ("sbatch -J ok --mem=100 -t 10 --wrap true", "COMPLETED None"),
    ("sbatch -J bad --mem=100 -t 10 --comment my_comment --wrap false", "FAILED NonZeroExitCode"),
    ("sbatch -H -J gone --mem=100 -t 5 --wrap true", "PENDING JobHeldUser"),
    ("sbatch -J long --mem=100 -n1 -t 1-02:03:00 job.sh a b", "RUNNING None"),
    ("sbatch -J big -n2 --mem=200 -t 5 --wrap true", "PENDING Resources"),
    (
        "sbatch -J late -b 2030-01-01 -c2 --mem=1536K --nice=5 -o out/%j.txt -e err.txt job.sh",
        "PENDING BeginTime",
    ),
    (
        "sbatch -J after -p short -L foo:2 --mem=50 -t 2 -d afterok:4 --wrap true",
        "PENDING Dependency",
    ),
    ("sbatch -J arr -H -a 1-3%2 --mem=50 -t 5 --wrap true", "PENDING JobHeldUser"),
)

_MASKS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"), "TIME"),
    (re.compile(r"[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}"), "DATE"),
    (
        re.compile(
            r"\b(RunTime|CPULoad|FreeMem|Priority|SrunHost:Pid|AllocNode:Sid|NodeAddr|NodeHostName"
            r"|OS|SlurmdStartTime|LastBusyTime|LastSchedEval)=[^=]*(?= \w|$)"
        ),
        r"\1=X",
    ),
    (re.compile(r" Port=\d+"), ""),
    (re.compile(r"\b0:\d\d\b"), "0:SS"),
    (re.compile(r"idle\*"), " idle"),  # until a node that was resumed has answered
    (re.compile(r"\b1-02:0[0-2]:\d\d\b"), "LEFT"),
    (re.compile(r"slurm-wlm (?=\d)"), "slurm "),
    (re.compile(r"(Submitted batch job|sbatch: Job) \d+"), r"\1 N"),
)
_WHO = re.compile(r"^((\w+: )?(error|fatal): |\w+ error: |[\w =]+: (?=[A-Z]))")


class Pair:
    """A real Slurm and an engine of ours, with the same jobs."""

    def __init__(self, account: Account, cluster: SlurmCluster, engine: Engine) -> None:
        self.account, self.cluster, self.engine = account, cluster, engine
        self.directory = account.mkdir(Path(f"{cluster.base}/work"))

    def slurm(self, command: str) -> Completed:
        """The command on the real Slurm; behind an exclamation mark as its administrator."""
        who = Account.current() if command.startswith("! ") else self.account
        argv = ["sh", "-c", command.removeprefix("! ")]
        return self.cluster.run(who, argv, cwd=self.directory, env={"TZ": "UTC"})

    def ours(self, command: str) -> Completed:
        """The same here, where everybody is the administrator of their own engine."""
        return self.engine.run(["sh", "-c", command.removeprefix("! ")])

    def prepare(self) -> None:
        """Give both the jobs."""
        for where in (self.directory, self.engine.work):
            self.account.write(where / "job.sh", JOB)
            self.account.mkdir(where / "out")
        for number, (command, state) in enumerate(JOBS, 1):
            for run in (self.slurm, self.ours):
                assert run(command).check().stdout == f"Submitted batch job {number}\n"
                _becomes(run, f"squeue -h -t all -j {number} -o '%T %r'", state)
        for run in (self.slurm, self.ours):
            run("scancel 3").check()
            _becomes(run, "squeue -h -s -o %i -S i", "4.0\n4.batch")

    def masked(self, text: str) -> list[str]:
        """Lines without what differs in any case."""
        for place in (self.directory, self.engine.work):
            text = text.replace(os.fspath(place), "WORK")
        text = text.replace(os.uname().nodename, "HOST").replace("localhost", "HOST")
        for pattern, mask in _MASKS:
            text = pattern.sub(mask, text)
        return text.splitlines()

    def differences(self, command: str) -> dict[str, str]:
        """What differs, of "code", "output" and "errors", and how."""
        ours, theirs = self.ours(command), self.slurm(command)
        found: dict[str, str] = {}
        if ours.returncode != theirs.returncode:
            found["code"] = f"{ours.returncode}, Slurm: {theirs.returncode}"
        if self.masked(ours.stdout) != self.masked(theirs.stdout):
            found["output"] = f"\n{ours.stdout}--- Slurm:\n{theirs.stdout}"
        if not _said_alike(self.masked(ours.stderr), self.masked(theirs.stderr)):
            found["errors"] = f"\n{ours.stderr}--- Slurm:\n{theirs.stderr}"
        return found


def _becomes(run: Callable[[str], Completed], command: str, said: str) -> None:
    eventually(
        lambda: run(command).stdout.strip() == said, timeout=30, what=f"{command} says {said}"
    )


def _said_alike(ours: list[str], theirs: list[str]) -> bool:
    """Whether somebody who knows Slurm's sentence finds it in ours."""
    mine = [_WHO.sub("", line) for line in ours if line]
    known = [_WHO.sub("", line).strip().rstrip("!.") for line in theirs if line]
    if not mine or not known:
        return mine == known
    return any(sentence in line for sentence in known for line in mine)
