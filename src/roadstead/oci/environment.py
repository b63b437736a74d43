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

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from roadstead.core.expand import expand
from roadstead.oci.lookup import DEFAULT_PATH

if TYPE_CHECKING:
    from roadstead.core.model import EnvPolicy

_STEP_PREFIXES = ("SLURM_", "SLURMD_", "PMI_", "PMI2_", "PMIX_", "ROADSTEAD_STEP")
_MARKS = "ROADSTEAD_STEP"  # by which what is left of a step is found: nobody takes these away
_CLEAN = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "TERM")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the options add to a policy: in ``kept`` variables the job's value wins over the
    image's; ``devices`` are NAME=VALUE that its devices bring; those of ``own`` win over all but
    the step's, "" takes a variable away.  In their values ${NAME} stands for a variable of the
    image or else of the job."""

    kept: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    own: Mapping[str, str] = field(default_factory=dict)


_NONE = Wishes()


def compose(
    policy: EnvPolicy,
    job: dict[str, str],
    bundle: list[str],
    *,
    excluded: Callable[[str], object] | None = None,
    wishes: Wishes = _NONE,
) -> dict[str, str]:
    """The variables of a task.  ``job`` holds the user's and the step's together.

    ``excluded`` is oci.conf's EnvExclude: called with each ``NAME=value`` of the job's, true drops
    it.
    """
    found = {}
    for _, variables in _layers(policy, job, bundle, excluded, wishes):
        found.update(variables)
    for name, value in wishes.own.items():
        if not value and not name.startswith(_STEP_PREFIXES):
            found.pop(name, None)
    return {"PATH": DEFAULT_PATH, **found}


def origins(
    policy: EnvPolicy,
    job: dict[str, str],
    bundle: list[str],
    *,
    excluded: Callable[[str], object] | None = None,
    wishes: Wishes = _NONE,
) -> dict[str, str]:
    """Where each variable that ``compose`` gives has its value from, in words."""
    found = {"PATH": "default"}
    for whence, variables in _layers(policy, job, bundle, excluded, wishes):
        found.update(dict.fromkeys(variables, whence))
    return found


def _layers(
    policy: EnvPolicy,
    job: dict[str, str],
    bundle: list[str],
    excluded: Callable[[str], object] | None,
    wishes: Wishes,
) -> list[tuple[str, dict[str, str]]]:
    """Whose variables they are, and the variables; the later ones win."""
    if excluded is not None:
        job = {
            name: value
            for name, value in job.items()
            if name.startswith(_MARKS) or not excluded(f"{name}={value}")
        }
    image = dict(entry.partition("=")[::2] for entry in bundle if "=" in entry)
    step = {name: value for name, value in job.items() if name.startswith(_STEP_PREFIXES)}
    some = {name: image[name] for name in _CLEAN if name in image}
    layers = {
        "merge": [("job", job), ("image", image)],
        "image": [("image", image)],
        "host": [("job", job)],
        "clean": [("image", some)],
    }[policy]
    kept = {name: job[name] for name in wishes.kept if name in job}
    known = {**job, **image} if wishes.own else {}
    own = {name: expand(value, known) for name, value in wishes.own.items()}
    brought = dict(entry.partition("=")[::2] for entry in wishes.devices)
    return [
        *layers,
        ("--container-env", kept),
        ("--device", brought),
        ("--environment", own),
        ("step", step),
    ]
