"""About two hundred command lines, on a real Slurm and on the local engine: exit codes, output,
sentences, job records.

``COMMANDS`` (tests/data/slurm-22.05/differential.commands) are run one after the other on both,
behind the jobs of tests/support/differential.py.
``DIFFERENCES`` is all that differs, each with what differs and why; a line of it that no longer
holds fails as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.account import Account
from tests.support.differential import ROADSTEAD_SITE, SLURM_SITE, Pair
from tests.support.engine import Engine, make_base, make_shims
from tests.support.leaks import remove
from tests.support.product import Product
from tests.support.skips import require
from tests.support.slurm_cluster import SlurmCluster

pytestmark = pytest.mark.slurm

DATA = Path(__file__).resolve().parents[1] / "data" / "slurm-22.05"

# command → what differs (code, output, errors), and why
DIFFERENCES: dict[str, tuple[str, str]] = {
    "squeue -S x": (
        "code output errors",
        "any column with a letter can be sorted by; Slurm refuses some",
    ),
    'squeue -h -r -n arr -o "%i %F %K %A"': (
        "output",
        "elements of an array have their own numbers from the beginning",
    ),
    "squeue --start": (
        "output",
        "starts are foretold at once; Slurm does so with its next backfill, seconds later",
    ),
    "squeue -t all -O jobid,name:5,state,numcpus,numtasks,cpus-per-task": (
        "output",
        "Slurm forgets the tasks of a job that never started, and shows 4294967294",
    ),
    "squeue -t all -O stdout:60,stderr:60,stdin,workdir:60,command:60": (
        "output",
        "names of files are shown with their patterns filled in",
    ),
    'squeue -o "%all" -h -j 4': (
        "output",
        "points of priority are counted from 10000, not down from 2^32",
    ),
    "squeue -j 4 5": ("output", "the hint is a line, not the whole usage"),
    "squeue -M other": ("errors", "there is one cluster, and no database of others"),
    "sinfo -M other": ("errors", "there is one cluster, and no database of others"),
    "sinfo -i x": ("errors", "it is said as squeue says it"),
    'sinfo -h -e -o "%n %c %m" -p short': (
        "output",
        "nodes are not hosts: a node goes by its own name",
    ),
    "sinfo extra": ("code output errors", "a word that nothing takes is an error, not ignored"),
    "scontrol show job 3": ("output", "Slurm forgets the tasks of a job that never started"),
    "scontrol show job 8": (
        "output",
        "names of files: Slurm has no number for several elements, and shows 4294967294",
    ),
    "scontrol show step 4.0": (
        "output",
        "a distribution that nobody asked for is Block, also for a lone task",
    ),
    "scontrol -o show step": (
        "output",
        "a distribution that nobody asked for is Block, also for a lone task",
    ),
    "scontrol show step 4.batch": (
        "output",
        "the step that was named is shown; Slurm shows another",
    ),
    "scontrol show hostnames": ("code", "an error exits with 1; Slurm says so and exits with 0"),
    "scontrol write batch_script 999": (
        "code",
        "an error exits with 1; Slurm says so and exits with 0",
    ),
    "scontrol listpids 999": ("errors", "the host is named; Slurm says (null)"),
    "scontrol hold 4": (
        "code errors",
        "a job that runs cannot be held: said, where Slurm notes it for a requeue",
    ),
    "scontrol hold 1": ("errors", "one sentence for all that is over"),
    "scontrol suspend 999": (
        "errors",
        "the job is not there: Slurm speaks of an unexpected message",
    ),
    "scontrol resume 999": (
        "errors",
        "the job is not there: Slurm speaks of an unexpected message",
    ),
    "scontrol update jobid=5 timelimit=xyz": (
        "errors",
        "the sentence is that of --time, with what can be written",
    ),
    "scancel 4.77": (
        "code errors",
        "1 and the whole name, as for all that is not there; Slurm exits with 225",
    ),
    "sbatch -N 5 --wrap true": ("errors", "it is the nodes that are too many, not the processors"),
    "srun -N 5 -t 1 true": ("errors", "it is the nodes that are too many, not the processors"),
    "squeue -h -n labels -O account,qos,wckey": (
        "output",
        "--qos is a label like the others; without a database Slurm forgets it",
    ),
    "scontrol suspend 4": ("code errors", "here everybody is the operator of their own engine"),
    "scontrol update jobid=4 timelimit=1-02:05:00; squeue -h -j 4 -o %l": (
        "output errors",
        "here everybody is the operator of their own engine",
    ),
    'scontrol requeuehold 4; sleep 2; squeue -h -j 4 -o "%T %r"': (
        "output",
        "one word for all that is held",
    ),
    "! scontrol update nodename=n1 state=bogus reason=x": (
        "errors",
        "one sentence, with the states that a node can be given here",
    ),
    "! scontrol update partitionname=short state=bogus": (
        "errors",
        "one sentence, with the states of partitions",
    ),
    "! scontrol create partitionname=new nodes=n1": (
        "errors",
        "Slurm speaks of an invalid name when there is such a partition already",
    ),
    "! scontrol create partitionname=newer nodes=nosuch": ("errors", "the node is named"),
    "! scontrol create reservation=foo": (
        "errors",
        "there are no reservations",
    ),
    "sattach": ("output errors", "a hint, not the usage; and too few is not too many"),
    "sbatch -H -J last --parsable --wrap true": (
        "output",
        "elements of the array have taken numbers",
    ),
}

COMMANDS = [
    line
    for line in (DATA / "differential.commands").read_text().splitlines()
    if not line.startswith("#")
]


@pytest.fixture(scope="module")
def pair(product: Product, user: Account) -> Iterator[Pair]:
    """Both, with the same jobs; as an ordinary user, whom Slurm does not favour."""
    require("root", "slurm", "address")
    shims = make_shims(product, user)
    engine = Engine(user, shims, make_base(user))
    folder = user.mkdir(engine.base / "config" / "roadstead", 0o700)
    user.write(folder / "roadstead.conf", ROADSTEAD_SITE)
    try:
        with SlurmCluster(partitions=SLURM_SITE, selected="CR_Core_Memory") as cluster:
            pair = Pair(user, cluster, engine)
            pair.prepare()
            yield pair
            pair.ours(f"scancel -u {user.name}; roadstead engine stop").check()
    finally:
        engine.close()
        remove(shims)


def test_every_difference_is_about_a_command() -> None:
    assert set(DIFFERENCES) <= set(COMMANDS)
    assert all(COMMANDS.count(command) == 1 for command in DIFFERENCES)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_same_command(pair: Pair, command: str) -> None:
    found = pair.differences(command)
    expected, _why = DIFFERENCES.get(command, ("", ""))
    assert " ".join(found) == expected, "\n".join(f"{what}: {how}" for what, how in found.items())
