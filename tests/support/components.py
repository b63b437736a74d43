"""What this machine has, and why it lacks what it lacks.

The table of what can be installed is script/components, which script/setup installs from; the rest
are traits of the machine.  Standard library only, as the benchmark uses it too.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
# Debian keeps some programs (runc, slurmd) where an ordinary user's PATH does not look.
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Component(NamedTuple):
    """One line of script/components."""

    name: str
    packages: str
    programs: list[str]


@functools.cache
def table() -> dict[str, Component]:
    """script/components by name."""
    lines = (ROOT / "script" / "components").read_text().splitlines()
    rows = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    return {
        name: Component(name, packages, programs.split(",")) for name, packages, programs in rows
    }


def program(name: str) -> str | None:
    """The path of a program: of the running virtual environment first, then of the system."""
    here = os.path.dirname(sys.executable)
    return shutil.which(name, path=f"{here}:{os.environ.get('PATH', '')}:{SYSTEM_PATH}")


def _no_root() -> str:
    return "" if os.geteuid() == 0 else "not started by root"


def _no_account() -> str:
    if os.geteuid() != 0:
        return ""
    name = os.environ.get("ROADSTEAD_TEST_USER", "roadstead-test")
    known = any(
        line.startswith(f"{name}:") for line in Path("/etc/passwd").read_text().splitlines()
    )
    return "" if known else f"there is no account {name}; script/setup makes it"


def address() -> str:
    """An address of this machine that is not the loopback's, "" for none."""
    local = re.findall(r"\|-- (\S+)\n\s+/32 host LOCAL", Path("/proc/net/fib_trie").read_text())
    return next((each for each in local if not each.startswith("127.")), "")


def _no_address() -> str:
    """Without an address that is not the loopback's getaddrinfo(3) gives Slurm's commands none."""
    if address():
        return ""
    return "there is no network; ip address add 192.0.2.1/32 dev lo will do"


def _no_tun() -> str:
    """The device may be there and lead nowhere."""
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError as error:
        return f"/dev/net/tun: {error.strerror}"
    return ""


def _no_user_namespaces() -> str:
    probe = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "true"], capture_output=True, text=True
    )
    return "" if probe.returncode == 0 else probe.stderr.strip()


def _no_static_busybox() -> str:
    """A busybox that is linked dynamically cannot be all of a root file system."""
    path = program("busybox")
    if path is None:
        return "busybox is not on PATH"
    with open(path, "rb") as file:
        head = file.read(4096)
    return f"{path} is not static" if re.search(rb"/lib\S*/ld-", head) else ""


def client_python(name: str) -> Path:
    """The interpreter of the environment that holds the dependency group clients-`name`."""
    return Path(sys.prefix) / "clients" / name / "bin" / "python"


def _no_clients(name: str) -> str:
    component = f"clients-{name}"
    if client_python(name).exists():
        return ""
    return _setup_says(component) or f"no {client_python(name)}; script/setup makes it"


def other_python(version: str) -> str:
    """An interpreter of this version, "" for none: on PATH, or one that pyenv has built."""
    if version == f"{sys.version_info[0]}.{sys.version_info[1]}":
        return sys.executable
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    built = sorted(root.glob(f"versions/{version}.*/bin/python"))
    found = os.fspath(built[-1]) if built else shutil.which(f"python{version}")
    if not found or subprocess.run([found, "-c", ""], capture_output=True).returncode:
        return ""
    return found


def _no_python(version: str) -> str:
    return "" if other_python(version) else f"no Python {version} is installed"


# Environments with programs that call Slurm's commands.
CLIENTS = ("light", "aiida", "jax", "lightning", "snakemake", "suites")

# Traits: no package brings them, save those that script/setup makes (INSTALLABLE_TRAITS).
TRAITS: dict[str, Callable[[], str]] = {
    "root": _no_root,
    "account": _no_account,
    "userns": _no_user_namespaces,
    "address": _no_address,
    "tun": _no_tun,
    **{f"python3.{n}": functools.partial(_no_python, f"3.{n}") for n in range(9, 15)},
    **{f"clients-{name}": functools.partial(_no_clients, name) for name in CLIENTS},
}
INSTALLABLE_TRAITS = {"account", *(f"clients-{name}" for name in CLIENTS)}


@functools.cache
def lack(name: str) -> str:
    """Why this component is not available; empty if it is."""
    if name in TRAITS:
        return TRAITS[name]()
    component = table()[name]
    absent = [each for each in component.programs if program(each) is None]
    if not absent:
        return _no_static_busybox() if name == "busybox" else ""
    return _setup_says(name) or f"{', '.join(absent)} not on PATH; script/setup installs it"


def _setup_says(name: str) -> str:
    path = os.environ.get("ROADSTEAD_TEST_MISSING")
    if not path or not os.path.exists(path):
        return ""
    rows = (line.split("\t", 1) for line in Path(path).read_text().splitlines())
    return next((row[1] for row in rows if row[0] == name), "")


# Debian's unstable suite is another one every day: what it has not today is named, and no failure.
UNSTABLE = ("apptainer",)


def installable(name: str) -> bool:
    """Whether script/setup should have brought it."""
    if name in UNSTABLE:
        return False
    return name in INSTALLABLE_TRAITS or name not in TRAITS
