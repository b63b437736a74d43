"""Bubblewrap: ``bwrap`` as an eleventh, which the guide does not name (bwrap(1)).

The program is process 1 of a namespace of its own, so that nothing of it outlives it.  Arguments
with the environment come through a file, which nobody else can read; what bwrap tells in
``--json-status-fd`` says whether the program was started.
"""

from __future__ import annotations

from typing import Final

from roadstead.systems import Container, Start, System

_SHELL: Final = 'exec 8>"$0" 9<"$1" && shift && exec "$@"'
_STATUS: Final = "bwrap.json"


class Bubblewrap(System):
    """bwrap 0.4 and later."""

    name = "bubblewrap"
    programs = ("bwrap",)
    package = "bubblewrap"
    passes_descriptors = True
    own_statuses = frozenset({1})

    def start(self, program: str, container: Container) -> Start:
        """See System."""
        words = ["--unshare-user", "--uid", str(container.uid), "--gid", str(container.gid)]
        words += ["--unshare-pid", "--as-pid-1", "--unshare-ipc"]
        words += ["--ro-bind" if container.readonly else "--bind", container.rootfs, "/"]
        words += ["--proc", "/proc", "--dev", "/dev", "--ro-bind", "/sys", "/sys"]
        for mount in container.mounts:
            words += [
                "--ro-bind" if mount.readonly else "--dev-bind",
                mount.source,
                mount.destination,
            ]
        words += ["--clearenv"]
        for name, value in container.env.items():
            words += ["--setenv", name, value]
        words += ["--chdir", container.cwd]
        file = container.write("bwrap.args", "".join(f"{word}\0" for word in words))
        status = f"{container.directory}/{_STATUS}"
        command = [program, "--json-status-fd", "8", "--args", "9", "--", *container.args]
        return Start(["/bin/sh", "-c", _SHELL, status, file, *command])

    def has_begun(self, program: str, container: Container) -> bool:
        """See System."""
        with open(f"{container.directory}/{_STATUS}", encoding="utf-8") as file:
            return "child-pid" in file.read()
