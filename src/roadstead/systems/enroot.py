"""Enroot: ``enroot start`` (github.com/NVIDIA/enroot, doc/cmd/start.md).

A directory becomes a container of a data directory of the task's own, ``ENROOT_DATA_PATH``; a .sqsh
file is started as it is where /dev/fuse may be opened.  The command script executes the task's
arguments in its directory: an image's own /etc/rc is its entrypoint, which
``--container-entrypoint`` asks for.  Hooks and mounts of the site and the user are Enroot's to run.
"""

from __future__ import annotations

import os
import shlex

from roadstead.systems import Container, Start, System


class Enroot(System):
    """Enroot 3.4 and later."""

    name = "enroot"
    programs = ("enroot",)
    package = "enroot"
    keeps = ("ENROOT_", "NVIDIA_", "MELLANOX_")
    makes_points = True

    @property
    def own(self) -> tuple[str, ...]:  # type: ignore[override]
        """A squashfs can be mounted by a user who may open /dev/fuse."""
        mounts = ("sqsh",) if os.access("/dev/fuse", os.R_OK | os.W_OK) else ()
        return ("enroot", *mounts)

    def start(self, program: str, container: Container) -> Start:
        """See System."""
        own = {}
        what = container.image
        if container.rootfs:
            data, what = f"{container.directory}/enroot", "task"
            os.mkdir(data, 0o700)
            os.symlink(container.rootfs, f"{data}/{what}")
            own["ENROOT_DATA_PATH"] = data
        script = f'cd -- {shlex.quote(container.cwd)} && exec "$@"\n'
        argv = [program, "start", f"--rc={container.write('rc', script)}"]
        argv += ["--root"] if container.root or (container.uid == 0 and not container.root) else []
        argv += [] if container.readonly else ["--rw"]
        for mount in container.mounts:
            options = "x-create=auto,rbind" + (",ro" if mount.readonly else "")
            argv.append(f"--mount={mount.source}:{mount.destination}:none:{options}")
        argv += [f"--env={name}" for name in container.env]
        return Start([*argv, "--", what, *container.args], {**container.env, **own})
