"""Where the package under test lies, so that every account can read it.

If the environment that runs the tests has the package installed, and that is the same as the
checkout, the installed one is tested: what a wheel lacks is then found.  If it differs (an edit
since script/setup), or is not installed, the checkout is copied to a place that everybody can read:
the checkout itself may lie in somebody's home.  Copies are compiled, as an installation is:
otherwise every command would pay for compiling.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.support.account import Account, Completed
from tests.support.components import ROOT

COMMANDS = (
    "roadstead",
    "sacct",
    "sacctmgr",
    "salloc",
    "sattach",
    "sbatch",
    "sbcast",
    "scancel",
    "scontrol",
    "sdiag",
    "sinfo",
    "sprio",
    "squeue",
    "sreport",
    "srun",
    "sshare",
    "sstat",
)
_MAIN = """\
import sys
sys.path.insert(0, sys.argv.pop(1))
sys.argv[0] = "roadstead"
from roadstead.__main__ import main
sys.exit(main())
"""


@dataclass(frozen=True, slots=True)
class Product:
    """An interpreter and the directory that `import roadstead` finds the package in."""

    python: str
    library: Path
    copied: bool

    def roadstead(self, account: Account, *words: str | os.PathLike[str]) -> Completed:
        """Run the umbrella command without any installation."""
        return account.run([self.python, "-IS", "-c", _MAIN, self.library, *words])

    def remove(self) -> None:
        if self.copied:
            shutil.rmtree(self.library.parent)


def locate(reader: Account) -> Product:
    """The product as this account can use it."""
    python = _interpreter(reader)
    checkout = ROOT / "src"
    installed = Path(sysconfig.get_path("purelib"))
    if python == sys.executable and _same(installed / "roadstead", checkout / "roadstead"):
        return Product(python, installed, copied=False)
    top = Path(tempfile.mkdtemp(prefix="rs-lib-", dir="/tmp"))
    top.chmod(0o755)
    library = top / "site-packages"  # it is installed, and not edited (zipapp.py)
    shutil.copytree(
        checkout / "roadstead", library / "roadstead", ignore=shutil.ignore_patterns("__pycache__")
    )
    subprocess.run([python, "-IS", "-m", "compileall", "-q", library], check=True)
    return Product(python, library, copied=True)


def _interpreter(reader: Account) -> str:
    """The one that runs the tests, unless it lies where this account cannot go."""
    for candidate in (sys.executable, "/usr/bin/python3"):
        try:
            probe = reader.run(
                [candidate, "-IS", "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
            )
        except PermissionError:
            continue
        if probe.returncode == 0:
            return candidate
    raise AssertionError(f"{reader.name} can execute neither {sys.executable} nor /usr/bin/python3")


def _same(left: Path, right: Path) -> bool:
    names = _files(left)
    return names == _files(right) and not any(
        filecmp.cmpfiles(left, right, names, shallow=False)[1:]
    )


def _files(top: Path) -> list[str]:
    return sorted(
        os.fspath(path.relative_to(top))
        for path in top.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    )
