"""Shifter: ``shifter --image=TYPE:NAME`` on an image of its gateway (doc/sl.rst in its sources).

Shifter is set-id, and passes on the environment of its caller.
"""

from __future__ import annotations

from roadstead.errors import LaunchError
from roadstead.systems import Container, Start, System


class Shifter(System):
    """Shifter 18.03 and later."""

    name = "shifter"
    programs = ("shifter",)
    package = "shifter (module load shifter)"
    own = ("shifter",)
    keeps = ("SHIFTER_",)
    nests = False
    takes_root = False

    def check(self, program: str, container: Container) -> None:
        """See System."""
        for mount in container.mounts:
            if ":" in mount.source or ";" in mount.source:
                raise LaunchError(f"shifter: {mount.source}: not a path that --volume can name")

    def start(self, program: str, container: Container) -> Start:
        """See System."""
        kind = container.image.partition(":")[0]
        typed = kind in ("docker", "custom", "id", "local") and ":" in container.image
        argv = [program, f"--image={container.image if typed else f'docker:{container.image}'}"]
        for mount in container.mounts:
            readonly = ":ro" if mount.readonly else ""
            argv.append(f"--volume={mount.source}:{mount.destination}{readonly}")
        argv += [f"--workdir={container.cwd}"] if container.cwd != "/" else []
        return Start([*argv, "--", *container.args], dict(container.env))
