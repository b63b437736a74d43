"""Which devices a step's containers have, and what that does to them: ``--device``, and the GPUs
that the job has.

A job's GPUs are those of its nodes (``--gres``, ``--gpus``).  Where a CDI specification knows them,
by the device file that roadstead.conf gives or by their number, each task's container gets those of
its node, and no others: in there they are counted from 0, which is what the variables of GPU
libraries say then.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any, Final

from roadstead.errors import LaunchError
from roadstead.oci import cdi
from roadstead.oci.edits import Edits

if TYPE_CHECKING:
    from collections.abc import Callable

    from roadstead.core.model import ContainerRequest, Gres, Share, StepSpec

_GPU: Final = "gpu"
_COUNTED: Final = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL")


def of_step(
    request: ContainerRequest, spec: StepSpec, notice: Callable[[str], None]
) -> dict[str, Edits]:
    """What the containers on each of the step's nodes get; nothing for a node without devices.

    Raises LaunchError.  Call before the process has a user namespace.
    """
    shares = [each for each in spec.shares if _gpus(each)]
    if not request.devices and not shares:
        return {}
    registry = cdi.Registry(cdi.directories(spec.env))
    nodes = [each.node for each in spec.shares] or [spec.node]
    found = {node: registry.edits(request.devices) for node in nodes}
    for share in shares:
        names = _of_job(share, registry, request.devices)
        if names:
            counted = ",".join(str(number) for number in range(len(names)))
            renumbered = Edits(env=tuple(f"{name}={counted}" for name in _COUNTED))
            both = registry.edits([*request.devices, *names], "the job's GPU: device")
            found[share.node] = both + renumbered
        elif request.verbose:
            notice(f"no CDI device for the GPUs of {share.node}: the container is not given them")
    for error in registry.errors:
        notice(f"warning: {error}")
    for edits in found.values():
        _check(edits)
    for name in dict.fromkeys(name for edits in found.values() for name in edits.dropped):
        notice(f"warning: not done for the container: {name}")
    return {node: edits for node, edits in found.items() if edits}


def variables(edits: Edits, gpus: tuple[int, ...] | None) -> tuple[str, ...]:
    """The variables that devices bring to a task's container, of whose GPUs it sees some: in there
    they are counted from 0."""
    if gpus is None:
        return edits.env
    seen = ",".join(map(str, gpus))
    return tuple(
        f"{name}={seen}" if name in _COUNTED else entry
        for entry in edits.env
        for name in (entry.partition("=")[0],)
    )


def _gpus(share: Share) -> list[Gres]:
    return [each for each in share.gres if each.name == _GPU and each.indexes]


def _of_job(share: Share, registry: cdi.Registry, asked: tuple[str, ...]) -> list[str]:
    """The CDI names of a node's GPUs; none where they are asked for by name, or not all known."""
    kinds = [kind for kind in registry.kinds if kind.endswith(f"/{_GPU}")]
    if any(each.partition("=")[0] in kinds for each in asked):
        return []
    names: list[str] = []
    for gres in _gpus(share):
        for number, index in enumerate(gres.indexes):
            file = gres.files[number] if number < len(gres.files) else ""
            name = _by_file(file, registry, kinds) if file else _by_number(index, registry, kinds)
            if name:
                names.append(name)
    return names if len(names) == sum(len(each.indexes) for each in _gpus(share)) else []


def _by_file(file: str, registry: cdi.Registry, kinds: list[str]) -> str:
    """The device that brings this file and none of another GPU's; the shortest of its names."""
    others: dict[str, int] = {}
    for kind in kinds:
        for name in registry.kinds[kind]:
            nodes = registry.nodes(f"{kind}={name}")
            if file in nodes:
                others[f"{kind}={name}"] = len(nodes)
    return min(others, key=lambda name: (others[name], len(name), name), default="")


def _by_number(index: int, registry: cdi.Registry, kinds: list[str]) -> str:
    found = [f"{kind}={index}" for kind in kinds if str(index) in registry.kinds[kind]]
    return found[0] if len(found) == 1 else ""


def _check(edits: Edits) -> None:
    for host, _, _ in edits.nodes:
        try:
            mode = os.stat(host).st_mode
        except OSError as error:
            raise LaunchError(
                f"device file {host}: {error.strerror}",
                hint="generate the CDI specification again: it names a device that is not there",
            ) from None
        if not (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)):
            raise LaunchError(f"device file {host}: not a device")
    for mount in edits.mounts:
        if mount["type"] == "none" and not os.path.exists(mount["source"]):
            raise LaunchError(
                f"{mount['source']}, which a CDI device mounts, is not there",
                hint="generate the CDI specification again",
            )


def mounts(edits: Edits) -> list[dict[str, Any]]:
    """The entries of config.json.  A device file is mounted: only root could make one."""
    found: list[dict[str, Any]] = [
        {
            "destination": inside,
            "type": "none",
            "source": host,
            "options": ["bind", "nosuid", "noexec", *([] if "w" in permissions else ["ro"])],
        }
        for host, inside, permissions in edits.nodes
    ]
    return [*found, *edits.mounts]


def rules(edits: Edits) -> list[dict[str, Any]]:
    """The entries of ``linux.resources.devices`` by which root's containers may use them."""
    found = []
    for host, _, permissions in edits.nodes:
        at = os.stat(host)
        found.append(
            {
                "allow": True,
                "type": "b" if stat.S_ISBLK(at.st_mode) else "c",
                "major": os.major(at.st_rdev),
                "minor": os.minor(at.st_rdev),
                "access": permissions,
            }
        )
    return found
