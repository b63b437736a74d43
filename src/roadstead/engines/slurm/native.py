"""Plain bundles by Slurm's own ``--container``, where the site has an oci.conf and roadstead.conf
says ``ContainerMode=native``.

A request that only Slurm's own words are needed for then passes as it is, with the bundle's path
made absolute: the nodes do not know where the command was typed.  All else has an agent in front
of the command (rewrite.py), as everywhere.

Slurm runs a task outside of its container, and says nothing, on a node without an oci.conf.  So
there must be one beside slurm.conf where the command is typed, or the request is refused.
"""

from __future__ import annotations

import os

from roadstead.engines import choice
from roadstead.engines.slurm import rewrite
from roadstead.errors import RequestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from roadstead.engines.slurm.rewrite import Component

_KEY = "containermode"
_NATIVE = "native"


def is_for_slurm(asked: Mapping[str, str], environ: Mapping[str, str]) -> bool:
    """Whether Slurm's own --container is to run this.  Raises RequestError where it should, and
    would not."""
    if asked.keys() != {"container"} or choice.configured(_KEY, environ) != _NATIVE:
        return False
    if not os.path.isfile(f"{asked['container']}/config.json"):
        return False
    conf = choice.slurm_conf(environ)
    oci_conf = f"{os.path.dirname(conf)}/oci.conf"
    if not os.path.exists(oci_conf):
        raise RequestError(
            f"ContainerMode=native, and there is no {oci_conf}: Slurm would run the program "
            "outside of its container",
            hint="roadstead engine oci-conf prints one; or leave ContainerMode out",
        )
    return True


def words(component: Component) -> list[str]:
    """A component's options, with the container in Slurm's own words."""
    others = rewrite.words(component.pairs, lambda name: name == "container")
    if not component.contained:
        return others
    return [*others, f"--container={os.path.abspath(component.asked['container'])}"]


def argv(components: Sequence[Component]) -> list[str]:
    """The arguments of Slurm's own command."""
    found: list[str] = []
    for at, each in enumerate(components):
        found += [":"] if at else []
        found += [*words(each), *each.operands]
    return found
