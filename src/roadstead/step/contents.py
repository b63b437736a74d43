"""What a step's containers are made of: a bundle, or an image, which becomes one.

A bundle is used as it is.  An image is a configuration and directories that lie one over the other
(images/model.py); its config.json is made here, so that all that follows is the same for both.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from roadstead.images.model import ImageConfig
from roadstead.oci import bundle as bundles

if TYPE_CHECKING:
    from roadstead.core.model import ContainerRequest, StepSpec
    from roadstead.images import translate

_OF_ROOT: Final = tuple(
    f"CAP_{name}"
    for name in (
        *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD"),
        *("NET_BIND_SERVICE", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
    )
)
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
    own_name: str = ""  # by which the step's container system has it; then nobody else knows more
    image: ImageConfig = field(default_factory=ImageConfig)

    @property
    def entrypoint(self) -> tuple[str, ...]:
        return self.image.entrypoint


def of(request: ContainerRequest, spec: StepSpec) -> Contents:
    """Read what is asked for.  Raises BundleError and ImageError."""
    if request.image:
        from roadstead.images.store import Store  # a bundle needs it not, and a start counts

        path, *others = request.store.split(":")
        image = Store(path, others=tuple(others)).load(request.image)
        return _as_bundle(request, spec, image.config, image.lowers)
    if _is_root_file_system(request.bundle):
        return _as_bundle(request, spec, ImageConfig(), (os.path.realpath(request.bundle),))
    if request.system and not request.bundle.startswith("/"):
        found = _as_bundle(request, spec, ImageConfig(), ("/",))
        return replace(found, lowers=(), own_name=request.bundle.partition(":")[2])
    bundle = bundles.read(request.bundle)
    return Contents(bundle, (bundle.rootfs,))


def _as_bundle(
    request: ContainerRequest, spec: StepSpec, image: ImageConfig, lowers: tuple[str, ...]
) -> Contents:
    from roadstead.images import translate

    user = _accounts(lowers).find(image.user)
    config = translate.config(
        image, root=lowers[-1], user=user, uid=spec.uid, gid=spec.gid, readonly=False
    )
    if request.remap_root:
        _be_root(config)
    if spec.uid == 0:  # root's containers have no user namespace
        config["linux"].pop("uidMappings", None)
        config["linux"].pop("gidMappings", None)
    bundle = bundles.Bundle(request.bundle, config, lowers[-1])
    return Contents(bundle, lowers, is_image=True, image=image)


def _be_root(config: dict[str, Any]) -> None:
    """Who asks to be root in an image's container wants to install something there: package
    managers change owners, and go on as other users.  So there are the user's subordinate ids, if
    there are any, and what Docker gives a container's root; all of it counts in the container's
    user namespace alone."""
    del config["linux"]["uidMappings"], config["linux"]["gidMappings"]
    process = config["process"]
    process["noNewPrivileges"] = False
    process["capabilities"] = {
        kind: list(_OF_ROOT) for kind in ("bounding", "effective", "permitted")
    }


def _accounts(lowers: tuple[str, ...]) -> translate.Accounts:
    """The accounts that the overlay will show: each file is the uppermost layer's that has it."""
    from roadstead.images import translate

    found = []
    for name in ("etc/passwd", "etc/group"):
        with_it = (each for each in reversed(lowers) if os.path.lexists(f"{each}/{name}"))
        found.append(translate.Accounts.of(next(with_it, lowers[-1])))
    return translate.Accounts(found[0].users, found[1].groups)


def _is_root_file_system(path: str) -> bool:
    if os.path.lexists(f"{path}/config.json"):
        return False
    return any(os.path.isdir(f"{path}/{name}") for name in _OF_A_ROOT)
