"""Entry points of an installed package, and ``python -m roadstead srun …``.

Each imports its command only when it is called: one command's start must not pay for another's.
"""

from __future__ import annotations

import sys


def main() -> int:
    from roadstead.cli.umbrella import main as command

    return command()


def srun() -> int:
    from roadstead.cli.srun import main as command

    return command()


def sbatch() -> int:
    from roadstead.cli.sbatch import main as command

    return command()


def salloc() -> int:
    from roadstead.cli.salloc import main as command

    return command()


def squeue() -> int:
    from roadstead.cli.squeue import main as command

    return command()


def scancel() -> int:
    from roadstead.cli.scancel import main as command

    return command()


def sinfo() -> int:
    from roadstead.cli.sinfo import main as command

    return command()


def scontrol() -> int:
    from roadstead.cli.scontrol import main as command

    return command()


def sattach() -> int:
    from roadstead.cli.sattach import main as command

    return command()


def sbcast() -> int:
    from roadstead.cli.sbcast import main as command

    return command()


def sacct() -> int:
    from roadstead.cli.sacct import main as command

    return command()


def sstat() -> int:
    from roadstead.cli.sstat import main as command

    return command()


def sprio() -> int:
    from roadstead.cli.sprio import main as command

    return command()


def sshare() -> int:
    from roadstead.cli.sshare import main as command

    return command()


def sreport() -> int:
    from roadstead.cli.sreport import main as command

    return command()


def sacctmgr() -> int:
    from roadstead.cli.sacctmgr import main as command

    return command()


def sdiag() -> int:
    from roadstead.cli.sdiag import main as command

    return command()


if __name__ == "__main__":
    sys.exit(main())
