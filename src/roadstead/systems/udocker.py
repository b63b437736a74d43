"""udocker: ``udocker run`` with the engine that it has, PRoot unless told another.

A directory is run where it is (``--location``), a container of its repository by name.  The program
shares every namespace with the step, so its processes are told from udocker's own by their names.
udocker refuses root.
"""

from __future__ import annotations

import os

from roadstead.errors import LaunchError
from roadstead.systems import Container, Start, System


class Udocker(System):
    """udocker 1.3 and later."""

    name = "udocker"
    programs = ("udocker",)
    package = "udocker (pip install udocker), then call udocker install"
    own = ("udocker",)
    keeps = ("UDOCKER_", "PROOT_")
    makes_points = False
    mounts_readonly = False
    litter = "/tmp/prooted-{pid}-*"  # PRoot 5.1 heeds no PROOT_TMP_DIR
    signal_status = 255
    waits = True
    comms = ("proot", "proot-x86_64", "proot-arm64")

    def check(self, program: str, container: Container) -> None:
        """See System."""
        if os.getuid() == 0 and not os.environ.get("UDOCKER_ALLOW_ROOT") and _is_hosts_root():
            raise LaunchError("udocker does not run as root", hint="run it as another user")

    def start(self, program: str, container: Container) -> Start:
        """See System."""
        lines, others = container.variables()
        # It makes files in its working directory, and PRoot in /tmp; where --location is, a name is
        # looked at for nothing.
        argv = ["/bin/sh", "-c", 'cd -- "$0" && exec "$@"', container.directory]
        argv += [program, "--quiet", "--allow-root", "run", "--nobanner"]
        argv += ["--containerauth", "--nosysdirs"]
        for place in ("/dev", "/proc", "/sys"):
            argv.append(f"--volume={place}:{place}")
        for mount in container.mounts:
            argv.append(f"--volume={mount.source}:{mount.destination}")
        argv.append(f"--env-file={container.write('environment.udocker', lines)}")
        argv += [f"--env={name}={value}" for name, value in others.items()]
        argv.append(f"--workdir={container.cwd}")
        if container.image:
            argv.append(container.image)
        else:
            argv += [f"--location={container.rootfs}", "roadstead"]
        return Start([*argv, *container.args], {"PROOT_TMP_DIR": container.directory})


def _is_hosts_root() -> bool:
    """Whether that is root of the machine, and not a user in a namespace of the step's."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return file.read().split() == ["0", "0", "4294967295"]
