"""Which engine a command is for, and why.

    ROADSTEAD_ENGINE=local|slurm       says so
    inside a job of the local engine   local: its steps are there
    Engine=local|slurm                 in roadstead.conf
    a real Slurm is configured here    slurm: there is a slurm.conf and an srun that is not ours
    otherwise                          local

Every command looks, so this is some calls of stat(2) and no import.
"""

from __future__ import annotations

import os

from roadstead.core import names
from roadstead.errors import EngineError
from roadstead.host import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VARIABLE = "ROADSTEAD_ENGINE"
LOCAL = "local"
SLURM = "slurm"
_AUTO = "auto"
_KEY = "engine"
# Where packages and sites put slurm.conf; the last is where slurmd keeps what it was sent
# (slurm.conf(5), "configless").
_PLACES = (
    "/etc/slurm/slurm.conf",
    "/etc/slurm-llnl/slurm.conf",
    "/usr/local/etc/slurm.conf",
    "/opt/slurm/etc/slurm.conf",
    "/run/slurm/conf/slurm.conf",
)


def engine(environ: Mapping[str, str]) -> tuple[str, str]:
    """``local`` or ``slurm``, and why.  Raises EngineError for a word that is neither."""
    asked = environ.get(VARIABLE, "")
    if asked not in ("", _AUTO):
        return _checked(asked, VARIABLE), f"{VARIABLE}={asked}"
    if environ.get("SLURM_CLUSTER_NAME") == names.CLUSTER and "SLURM_JOB_ID" in environ:
        return LOCAL, f"inside job {environ['SLURM_JOB_ID']} of the local engine"
    said = configured(_KEY, environ)
    if said not in ("", _AUTO):
        conf = paths.site_conf(environ)
        return _checked(said, f"{conf}: Engine"), f"Engine={said} in {conf}"
    found = slurm_conf(environ)
    if not found:
        return LOCAL, "no slurm.conf is found here"
    from roadstead.engines.slurm import real

    program = real.find("srun", environ)
    if not program:
        return LOCAL, f"{found}, but no srun of Slurm's is on PATH"
    return SLURM, f"{found}, and {program} is Slurm's"


def is_slurm(environ: Mapping[str, str]) -> bool:
    """Whether commands go to a real Slurm."""
    return engine(environ)[0] == SLURM


def hand_over(command: str, argv: Sequence[str], environ: Mapping[str, str]) -> None:
    """Become Slurm's own command, with all that was asked, where a real Slurm is; else return."""
    if is_slurm(environ):
        from roadstead.engines.slurm import real

        real.become(command, argv, environ)


def slurm_conf(environ: Mapping[str, str]) -> str:
    """What says that a real Slurm is configured on this host; "" for nothing."""
    named = environ.get("SLURM_CONF", "")
    if named:
        return named if os.path.isfile(named) else ""
    server = environ.get("SLURM_CONF_SERVER", "")
    if server:
        return f"SLURM_CONF_SERVER={server}"
    for path in _PLACES:
        if os.path.exists(path):
            return path
    return ""


def slurm_setting(wanted: str, environ: Mapping[str, str]) -> str:
    """The value of a key of that slurm.conf; "" where it is not there, or the file cannot be read
    (slurm.conf(5): keys in any case, what is behind a # is a comment)."""
    try:
        with open(slurm_conf(environ), encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                key, equals, value = line.partition("#")[0].partition("=")
                if equals and key.strip().lower() == wanted.lower():
                    return value.strip()
    except OSError:
        pass
    return ""


def _checked(word: str, where: str) -> str:
    if word not in (LOCAL, SLURM):
        raise EngineError(f"{where}={word}: no such engine", hint="local, slurm or auto")
    return word


def configured(wanted: str, environ: Mapping[str, str]) -> str:
    """The value of a key of the roadstead.conf in force, in lower case as the key; "" for none.
    Only its line is looked at here (siteconf.py checks the file when the local engine reads it)."""
    path = paths.site_conf(environ)
    if not path:
        return ""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().split("\n")
    except OSError:
        return ""  # who reads all of it says so
    for line in lines:
        key, equals, value = line.partition("#")[0].partition("=")
        if equals and key.strip().lower() == wanted:
            return value.strip().strip('"').lower()
    return ""
