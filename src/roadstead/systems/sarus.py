"""Sarus: ``sarus run`` on an image of its repository (sarus.readthedocs.io, user guide).

Sarus is set-id: it passes on the environment of its caller, under the image's own, and makes mounts
as the user.  Its hooks are Sarus's to run, that for Slurm's global synchronisation among them.
"""

from __future__ import annotations

from roadstead.systems import Container, Start, System


class Sarus(System):
    """Sarus 1.4 and later."""

    name = "sarus"
    programs = ("sarus",)
    package = "sarus (its own installer)"
    own = ("sarus",)
    nests = False
    takes_root = False
    mounts_readonly = True

    def start(self, program: str, container: Container) -> Start:
        """See System."""
        argv = [program, "run"]
        argv += ["--tty"] if container.terminal else []
        for mount in container.mounts:
            readonly = ",readonly" if mount.readonly else ""
            words = f"source={mount.source},destination={mount.destination}{readonly}"
            argv.append(f"--mount=type=bind,{words}")
        argv += [f"--workdir={container.cwd}"] if container.cwd != "/" else []
        argv += ["--entrypoint=", container.image, *container.args]
        return Start(argv, dict(container.env))
