"""What a row of the options' tables is, and the words that it is written in.

A row says how an option is spelled, which commands take it, which variables stand for it, and what
becomes of it here: honoured, accepted without effect because it cannot matter on one node, or
refused with the reason.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

SRUN: Final = 1
SBATCH: Final = 2
SALLOC: Final = 4
SQUEUE: Final = 8
SCANCEL: Final = 16
SINFO: Final = 32
SCONTROL: Final = 64
SATTACH: Final = 1024
SBCAST: Final = 2048
# Those whose rows are in options_accounting.py.
SACCT: Final = 1 << 16
SSTAT: Final = 1 << 17
SPRIO: Final = 1 << 18
SSHARE: Final = 1 << 19
SREPORT: Final = 1 << 20
SACCTMGR: Final = 1 << 21
SDIAG: Final = 1 << 22
STRIGGER: Final = 1 << 23
LAUNCH: Final = SRUN | SBATCH | SALLOC
LISTS: Final = SQUEUE | SINFO
EVERY: Final = LAUNCH | LISTS | SCANCEL | SCONTROL

COMMANDS: Final[dict[str, int]] = {
    "srun": SRUN,
    "sbatch": SBATCH,
    "salloc": SALLOC,
    "squeue": SQUEUE,
    "scancel": SCANCEL,
    "sinfo": SINFO,
    "scontrol": SCONTROL,
    "sattach": SATTACH,
    "sbcast": SBCAST,
    "sacct": SACCT,
    "sstat": SSTAT,
    "sprio": SPRIO,
    "sshare": SSHARE,
    "sreport": SREPORT,
    "sacctmgr": SACCTMGR,
    "sdiag": SDIAG,
}

COUNT: Final = "count"  # each use adds one: -vv is "2"
LIST: Final = "list"  # each use adds to a list, with a comma

HONOURED: Final = "honoured"

# Treatments that rows of several tables have.
NO_CLUSTERS: Final = "refused:the local engine is one cluster of its own"
NO_RESERVATIONS: Final = "refused:the local engine has no reservations"
FOR_ROOT: Final = "refused:it is for root, and nothing here runs as another user"
ONE_NODE: Final = "no-op:all nodes are this machine"
SAME_LIBRARIES: Final = "no-op:all nodes have this machine's libraries"


class Option:
    """One option of one or more commands.

    ``env`` names the variables that stand for it, the strongest first: ``TIMELIMIT`` is read with
    the command's prefix (SLURM_ for srun, SBATCH_, SQUEUE_, ...), ``_CONTAINER`` with the command's
    own name, so SRUN_CONTAINER too, and a full name is read by the command that has its prefix.
    ``treatment`` is HONOURED, "no-op:REASON" or "refused:REASON"; ``repeat`` is COUNT, LIST or "":
    the last one wins.  ``aliases`` are more long names.  A row without ``help`` is hidden.
    """

    __slots__ = (
        "aliases", "arg", "commands", "env", "help",
        "metavar", "name", "repeat", "short", "treatment",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        short: str,
        arg: int,
        commands: int,
        env: str = "",
        metavar: str = "",
        help: str = "",
        *,
        treatment: str = HONOURED,
        repeat: str = "",
        aliases: str = "",
    ) -> None:
        self.name, self.short, self.arg, self.commands = name, short, arg, commands
        self.env, self.metavar, self.help = env, metavar, help
        self.treatment, self.repeat, self.aliases = treatment, repeat, aliases
