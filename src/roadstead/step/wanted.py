"""What the options add to a container: mounts, the home directory, the entrypoint."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from roadstead.errors import LaunchError
from roadstead.step import network

if TYPE_CHECKING:
    from roadstead.core.model import ContainerRequest, Mount, StepSpec
    from roadstead.step.contents import Contents


_RESOLVER: Final = "/etc/resolv.conf"


def mounts(
    request: ContainerRequest, spec: StepSpec, notice: Callable[[str], None] | None
) -> list[dict[str, Any]]:
    """The entries of config.json for ``--container-mounts`` and ``--container-mount-home``.

    Raises LaunchError for a source that is not there.
    """
    found = []
    if request.mount_home:
        home = _home(spec)
        found.append(_bind(home, home, ("rbind",)))
    for mount in request.mounts:
        if mount.kind == "tmpfs":
            entry = {"destination": mount.destination, "type": "tmpfs", "source": "tmpfs"}
            found.append({**entry, "options": list(mount.options)})
        elif mount.kind == "squashfs":
            found.append(_bind(_contents(mount, request), mount.destination, mount.options))
        elif mount.kind == "bind" and _is_there(mount, notice):
            found.append(_bind(mount.source, mount.destination, mount.options))
    return found


def names(request: ContainerRequest, spec: StepSpec, procid: int) -> list[dict[str, Any]]:
    """The entries for a network that was asked for: the names of its peers (network.py), and, where
    it leads out, how the host finds other names."""
    if not request.network:
        return []
    options = ("bind", "ro", "nosuid", "nodev", "noexec")
    found = [_bind(network.hosts_file(spec.directory, procid), "/etc/hosts", options)]
    if request.network == "none":
        return found
    own = network.resolver_file(spec.directory)
    source = own if request.network == "private" and os.path.isfile(own) else _RESOLVER
    if os.path.isfile(source):
        found.append(_bind(source, _RESOLVER, options))
    return found


def unmounted(request: ContainerRequest) -> tuple[str, ...]:
    """Where nothing of the container's own is to be mounted."""
    return tuple(mount.destination for mount in request.mounts if mount.kind == "umount")


def entrypoint(request: ContainerRequest, contents: Contents | None) -> tuple[str, ...]:
    """What comes before the command.  Raises LaunchError where there is nothing to know it by."""
    if not request.entrypoint:
        return ()
    if contents is None or not contents.is_image:
        raise LaunchError(
            "--container-entrypoint: a bundle has no entrypoint apart from its command",
            hint="leave it out, and give the whole command",
        )
    return contents.entrypoint


def _bind(source: str, destination: str, options: tuple[str, ...]) -> dict[str, Any]:
    return {
        "destination": destination, "type": "none", "source": source, "options": list(options),
    }  # fmt: skip


def _contents(mount: Mount, request: ContainerRequest) -> str:
    """The directory of the store that has what is in a squashfs.  Raises ImageError."""
    from roadstead.images.store import Store

    path, *others = request.store.split(":")
    return Store(path, others=tuple(others)).load(mount.digest).lowers[-1]


def _is_there(mount: Mount, notice: Callable[[str], None] | None) -> bool:
    try:
        os.stat(mount.source)
    except OSError as error:
        if mount.optional:
            if notice is not None:
                notice(f"{mount.source}: {error.strerror}: not mounted (nofail)")
            return False
        raise LaunchError(
            f"--container-mounts: {mount.source}: {error.strerror}",
            hint="the source must be there; with the flag nofail it need not be",
        ) from None
    return True


def _home(spec: StepSpec) -> str:
    """The user's home directory, by the password database (an image's HOME is another thing)."""
    home = spec.env.get("HOME", "")
    try:
        home = pwd.getpwuid(os.getuid()).pw_dir if not home.startswith("/") else home
    except KeyError:
        home = ""
    if not os.path.isdir(home) or home == "/":
        raise LaunchError(
            f"--container-mount-home: {home or 'the home directory'} is not a directory to mount",
            hint="set HOME, or name the directory in --container-mounts",
        )
    return home
