"""The daemons: what each is called with, and what its clients have to know.

A row of the table is all that there is to a daemon; keeper.py does the same with each.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from roadstead.errors import LaunchError
from roadstead.host import namespaces, process

# Where Debian's docker.io, Fedora's moby-engine and Docker's own packages have the script.
_ALSO: Final = "/usr/share/docker.io/contrib:/usr/libexec/docker:/usr/sbin:/sbin"
# Locks in files of its own: those in /dev/shm are all daemons' of a user, and stay for ever.
_CONTAINERS_CONF: Final = '[engine]\nlock_type = "file"\nevents_logger = "file"\n'
_TUN: Final = "/dev/net/tun"


@dataclass(frozen=True, slots=True)
class Places:
    """Where a daemon has what is its own: ``run`` is in memory as a rule, ``data`` on disk."""

    socket: str
    run: str
    data: str


@dataclass(frozen=True, slots=True)
class Kind:
    """A daemon that speaks Docker's API.

    ``programs`` have to be there; ``packages`` say where they are from.  ``variables`` tell clients
    its address.
    """

    name: str
    option: str
    programs: tuple[str, ...]
    packages: str
    command: Callable[[Places, Mapping[str, str]], tuple[list[str], dict[str, str]]]
    variables: tuple[str, ...]

    def check(self, environ: Mapping[str, str]) -> None:
        """Raise LaunchError where the daemon cannot run here."""
        if os.getuid() == 0:
            raise LaunchError(
                f"--{self.option}: root has no daemon of a job's own",
                hint="use the machine's, or submit as a user",
            )
        path = search_path(environ)
        missing = [name for name in self.programs if process.which(name, path) is None]
        if missing:
            raise LaunchError(
                f"--{self.option} needs {', '.join(missing)}, which this node has not",
                hint=f"apt install {self.packages}",
            )
        ids = namespaces.subordinate_ids(environ.get("USER", ""), os.getuid())
        if not ids.usable:
            raise LaunchError(
                f"--{self.option}: uid {os.getuid()} has no range in /etc/subuid and /etc/subgid",
                hint="ask an administrator for: usermod --add-subuids --add-subgids",
            )


def search_path(environ: Mapping[str, str]) -> str:
    """Where daemons and their programs are looked up."""
    return f"{environ.get('PATH') or os.defpath}:{_ALSO}"


def _docker(places: Places, environ: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """dockerd-rootless.sh, which starts dockerd in rootlesskit's namespaces.

    Its containers have a bridge where rootlesskit can make an interface for it, by slirp4netns and
    /dev/net/tun; elsewhere --network=none is what they can have, and dockerd has to leave the
    machine's own network as it is: it fails where it may not turn on the forwarding of packets.
    """
    path = search_path(environ)
    with_tun = os.access(_TUN, os.R_OK | os.W_OK) and process.which("slirp4netns", path)
    without = ["--iptables=false", "--ip6tables=false", "--ip-forward=false", "--bridge=none"]
    argv = [
        process.which("dockerd-rootless.sh", path) or "dockerd-rootless.sh",
        f"--host=unix://{places.socket}",
        f"--data-root={places.data}",
        f"--exec-root={places.run}/exec",
        f"--pidfile={places.run}/docker.pid",
        "--shutdown-timeout=1",
        *([] if with_tun else without),
    ]
    own = {"DOCKERD_ROOTLESS_ROOTLESSKIT_NET": "slirp4netns" if with_tun else "host"}
    if not with_tun:
        own["DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER"] = "none"
    return argv, own


def _podman(places: Places, environ: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    argv = [
        process.which("podman", search_path(environ)) or "podman",
        f"--root={places.data}",
        f"--runroot={places.run}/podman",
        "--cgroup-manager=cgroupfs",
        "system",
        "service",
        "--time=0",
        f"unix://{places.socket}",
    ]
    conf = f"{places.run}/containers.conf"
    with open(conf, "w", encoding="ascii") as file:
        file.write(_CONTAINERS_CONF)
    return argv, {"CONTAINERS_CONF": conf}


KINDS: Final = {
    each.option: each
    for each in (
        Kind(
            "docker",
            "dockerd",
            ("dockerd-rootless.sh", "dockerd", "rootlesskit", "newuidmap"),
            "docker.io rootlesskit slirp4netns uidmap",
            _docker,
            ("DOCKER_HOST",),
        ),
        Kind(
            "podman",
            "podman-service",
            ("podman", "newuidmap"),
            "podman uidmap",
            _podman,
            ("DOCKER_HOST", "CONTAINER_HOST"),
        ),
    )
}
