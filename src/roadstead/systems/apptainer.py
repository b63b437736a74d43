"""Apptainer and Singularity: ``apptainer exec --userns`` on a directory, or on a SIF file where
/dev/fuse may be opened (else the file is unpacked into the image store).

Only what is asked for is mounted; variables go by the prefix that Apptainer has for those of
containers, so that none is in argv.  Without ``--no-eval`` a shell in the container would read
their values: a ``$(…)`` in one would be executed.  Accounts are the image's, and the user's own.

``apptainer oci``, which the Containers Guide has in its oci.conf, is root's: `roadstead engine
oci-conf singularity-oci` prints that file, corrected.
"""

from __future__ import annotations

import os

from roadstead.systems import Container, Start, System


class Apptainer(System):
    """Apptainer 1.1 and later, SingularityCE 3.10 and later."""

    name = "apptainer"
    programs = ("apptainer", "singularity")
    package = "apptainer"
    keeps = ("APPTAINER_", "SINGULARITY_")
    passes_descriptors = True
    reraises = True
    waits = True

    @property
    def own(self) -> tuple[str, ...]:  # type: ignore[override]
        """A SIF file can be mounted by a user who may open /dev/fuse."""
        return ("sif",) if os.access("/dev/fuse", os.R_OK | os.W_OK) else ()

    def start(self, program: str, container: Container) -> Start:
        """See System."""
        prefix = f"{os.path.basename(program).upper()}ENV_"
        argv = [program, "--silent", "exec", "--userns", "--cleanenv", "--no-home"]
        argv += ["--no-mount=home,cwd,tmp,hostfs,bind-paths", "--no-init", "--no-eval"]
        argv += ["--fakeroot"] if container.root else []
        argv += [] if container.readonly or container.image else ["--writable"]
        argv += ["--writable-tmpfs"] if container.image and not container.readonly else []
        for mount in container.mounts:
            options = "ro" if mount.readonly else "rw"
            argv.append(f"--bind={mount.source}:{mount.destination}:{options}")
        argv += [f"--pwd={container.cwd}", container.rootfs or container.image, *container.args]
        return Start(argv, {f"{prefix}{name}": value for name, value in container.env.items()})


class Singularity(Apptainer):
    """The same by its older name."""

    name = "singularity"
    programs = ("singularity", "apptainer")
    package = "singularity-ce"
