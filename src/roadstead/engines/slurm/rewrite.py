"""A request with a container, as one that Slurm's own commands understand.

    srun -N2 -l --container=REF app      →  srun -N2 -l --job-name=app AGENT task 0 app
    sbatch -t9 --container=REF job.sh    →  sbatch -t9 … a script that becomes AGENT batch
    salloc -N2 --container=REF           →  salloc -N2 srun --interactive … AGENT task 0 SHELL

Every option is Slurm's and passes as it is, save those about containers, which are the agent's, and
the few below.  How the agent is told the rest is in agent/request.py.

Pure: words in, words out.  Which options are about containers the table of options knows.
"""

from __future__ import annotations

from roadstead.agent import request
from roadstead.errors import RequestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Final, TypeAlias

    Pairs: TypeAlias = Sequence[tuple[str, str]]

# What cannot be had together with a container on a Slurm cluster, and why.
REFUSED: Final[dict[str, str]] = {
    "bcast": "the program is in the container, and is not sent",
    "container-name": "Slurm tells nobody on the nodes when a job ends, and the container of the "
    "job would stay",
    "dry-run": "what would run is decided on the nodes, by agents",
}
_OUR_VARIABLES = (
    "SLURM_CONTAINER",
    "SRUN_CONTAINER",
    "SBATCH_CONTAINER",
    "SALLOC_CONTAINER",
    "SRUN_ENVIRONMENT",
    "SBATCH_ENVIRONMENT",
    "SALLOC_ENVIRONMENT",
)


class Component:
    """The part of a command line between two colons: what is Slurm's, what is the agent's."""

    __slots__ = ("asked", "operands", "pairs")

    def __init__(self, pairs: Pairs, asked: dict[str, str], operands: Sequence[str]) -> None:
        self.pairs = pairs
        self.asked = asked
        self.operands = list(operands)

    @property
    def contained(self) -> bool:
        return bool(self.asked)


def check(asked: Mapping[str, str], pairs: Pairs) -> None:
    """Raise RequestError for what a container on a cluster cannot have."""
    for name, value in (*asked.items(), *pairs):
        for option in (name, f"{name}={value}"):
            if option in REFUSED:
                raise RequestError(
                    f"--{option} with a container on a Slurm cluster: {REFUSED[option]}",
                    hint="leave it out, or use the local engine (ROADSTEAD_ENGINE=local)",
                )


def words(pairs: Pairs, ours: Callable[[str], bool]) -> list[str]:
    """The options that are Slurm's, each as one word."""
    return [
        f"--{name}={value}" if value else f"--{name}" for name, value in pairs if not ours(name)
    ]


def srun(
    components: Sequence[Component],
    ours: Callable[[str], bool],
    agents: Sequence[Sequence[str]],
    environ: Mapping[str, str],
) -> list[str]:
    """srun's arguments.  A component without a container runs its command as it is, the others by
    the agent of the same place in ``agents``."""
    argv: list[str] = []
    for at, each in enumerate(components):
        if at:
            argv.append(":")
        pairs = each.pairs
        if each.contained:  # the agent reads the file of --multi-prog
            pairs = [pair for pair in pairs if pair[0] != "multi-prog"]
        argv += words(pairs, ours)
        if not each.contained:
            argv += each.operands
            continue
        given = [name for name, _ in each.pairs]
        if "job-name" not in given and ("SLURM_JOB_ID" in environ or _unnamed("SLURM", environ)):
            argv.append(f"--job-name={name_of(each.operands[0])}")
        argv += [*agents[at], "task", str(at), *each.operands]
    return argv


def salloc(
    components: Sequence[Component],
    ours: Callable[[str], bool],
    step: Sequence[str],
) -> list[str]:
    """salloc's arguments: the allocation, and the command that makes its interactive step."""
    argv: list[str] = []
    for at, each in enumerate(components):
        argv += [":"] if at else []
        argv += words(each.pairs, ours)
    return [*argv, *step]


# What srun asks of a job, and what means something else, or nothing, of a step in it.
OF_THE_JOB = frozenset(
    (
        *("begin", "comment", "deadline", "dependency", "exclusive", "hold", "immediate"),
        *("no-kill", "reboot"),
    )
)


def interactive(
    srun: Sequence[str], agent: Sequence[str], command: Sequence[str], *, terminal: bool
) -> list[str]:
    """The command of an salloc: a step beside all others, as LaunchParameters=use_interactive_step
    makes one.  Without an ``agent``, ``srun`` is one of ours."""
    shown = ["--pty"] if terminal else []
    return [
        *srun,
        "--interactive",
        "--preserve-env",
        *shown,
        f"--job-name={name_of(command[0])}",
        *([*agent, "task", "0"] if agent else []),
        *command,
    ]


def environment(environ: Mapping[str, str], told: str = "") -> dict[str, str]:
    """Slurm's command's own environment: without what it would take for a container of its own, and
    with what the agent is told."""
    env = {name: value for name, value in environ.items() if not name.startswith(_OUR_VARIABLES)}
    env.pop(request.VARIABLE, None)
    if told:
        env[request.VARIABLE] = told
    return env


def _unnamed(prefix: str, environ: Mapping[str, str]) -> bool:
    return f"{prefix}_JOB_NAME" not in environ


def name_of(program: str) -> str:
    """What Slurm calls a step without a name: the last part of its program."""
    return program.rstrip("/").rpartition("/")[2] or program
