"""What a step's containers are made of: a bundle, or an image, which becomes one.

A bundle is used as it is.  An image is a configuration and directories that lie one over the other
(images/model.py); its config.json is made here, so that all that follows is the same for both.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from roadstead.images.store import Store
from roadstead.oci import bundle as bundles

if TYPE_CHECKING:
    from roadstead.core.model import ContainerRequest, StepSpec

_OF_A_ROOT: Final = ("bin", "usr", "sbin", "lib")


@dataclass(frozen=True, slots=True)
class Contents:
    """A bundle and the directories of its root, the lowest first; of an image also its entrypoint.

    An image's root is the overlay of its directories, which each task makes; until then the
    bundle's ``rootfs`` is the uppermost of them.
    """

    bundle: bundles.Bundle
    lowers: tuple[str, ...]
    is_image: bool = False
    entrypoint: tuple[str, ...] = ()


def of(request: ContainerRequest, spec: StepSpec) -> Contents:
    """Read what is asked for.  Raises BundleError and ImageError."""
    if request.image:
        return _of_image(request, spec)
    if _is_root_file_system(request.bundle):
        config = _template(spec)
        bundle = bundles.Bundle(request.bundle, config, os.path.realpath(request.bundle))
        return Contents(bundle, (bundle.rootfs,), is_image=True)
    bundle = bundles.read(request.bundle)
    return Contents(bundle, (bundle.rootfs,))


def _of_image(request: ContainerRequest, spec: StepSpec) -> Contents:
    path, *others = request.store.split(":")
    image = Store(path, others=tuple(others)).load(request.image)
    config = _template(spec)
    config["process"]["env"] = list(image.config.env)
    config["process"]["cwd"] = image.config.workdir or "/"
    bundle = bundles.Bundle(request.bundle, config, image.lowers[-1])
    return Contents(bundle, image.lowers, is_image=True, entrypoint=image.config.entrypoint)


def _is_root_file_system(path: str) -> bool:
    if os.path.lexists(f"{path}/config.json"):
        return False
    return any(os.path.isdir(f"{path}/{name}") for name in _OF_A_ROOT)


def _template(spec: StepSpec) -> dict[str, Any]:
    """What `runc spec --rootless` writes, in essence."""
    capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
    kinds = ("pid", "ipc", "uts", "mount", "cgroup")
    config: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": [],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": False},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
            },
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
            },
            {
                "destination": "/dev/shm",
                "type": "tmpfs",
                "source": "shm",
                "options": ["nosuid", "noexec", "nodev", "mode=1777"],
            },
            {
                "destination": "/dev/mqueue",
                "type": "mqueue",
                "source": "mqueue",
                "options": ["nosuid", "noexec", "nodev"],
            },
            {
                "destination": "/sys",
                "type": "sysfs",
                "source": "sysfs",
                "options": ["nosuid", "noexec", "nodev", "ro"],
            },
        ],
        "linux": {"namespaces": [{"type": kind} for kind in kinds]},
    }
    if spec.uid:
        for key, own in (("uidMappings", spec.uid), ("gidMappings", spec.gid)):
            config["linux"][key] = [{"containerID": 0, "hostID": own, "size": 1}]
    return config
