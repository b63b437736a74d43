"""The environment inside a container: whose variables, and who wins.

    merge  the job's, then the bundle's over them (as Slurm since 23.02), then the step's
    image  the bundle's, then the step's
    host   the job's, then the step's
    clean  PATH, HOME, USER, LOGNAME, LANG and TERM of the bundle's, then the step's

The step's are those that say where a task stands in its job (SLURM_*, SLURMD_*, PMI*): without them
no program finds its rank, so no policy takes them away and no bundle overrides them (oci.conf's
EnvExclude can: it is the administrator's).  Where nobody says a PATH there is a default one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from roadstead.oci.lookup import DEFAULT_PATH

if TYPE_CHECKING:
    from roadstead.core.model import EnvPolicy

_STEP_PREFIXES = ("SLURM_", "SLURMD_", "PMI_", "PMI2_", "PMIX_", "ROADSTEAD_STEP")
_MARKS = "ROADSTEAD_STEP"  # by which what is left of a step is found: nobody takes these away
_CLEAN = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "TERM")


def compose(
    policy: EnvPolicy,
    job: dict[str, str],
    bundle: list[str],
    *,
    excluded: Callable[[str], object] | None = None,
) -> dict[str, str]:
    """The variables of a task.  ``job`` holds the user's and the step's together.

    ``excluded`` is oci.conf's EnvExclude: called with each ``NAME=value`` of the job's, true drops
    it.
    """
    if excluded is not None:
        job = {
            name: value
            for name, value in job.items()
            if name.startswith(_MARKS) or not excluded(f"{name}={value}")
        }
    image = dict(entry.partition("=")[::2] for entry in bundle if "=" in entry)
    step = {name: value for name, value in job.items() if name.startswith(_STEP_PREFIXES)}
    chosen: dict[EnvPolicy, dict[str, str]] = {
        "merge": {**job, **image},
        "image": image,
        "host": job,
        "clean": {name: image[name] for name in _CLEAN if name in image},
    }
    return {"PATH": DEFAULT_PATH, **chosen[policy], **step}
