"""Charliecloud: ``ch-run DIRECTORY -- PROGRAM`` (ch-run(1)).

ch-run makes a user and a mount namespace and becomes the program, so the program's signals, exit
status and descriptors are the step's own.  It sees the host's /dev, /proc and /sys and gets a /tmp
of its own, as containers of OCI runtimes do; accounts are the image's (``--no-passwd``).

Squashfs files are unpacked into the image store: ch-run mounts them itself where it was built for
that and the user may open /dev/fuse, which is seldom so, and nothing is gained where many tasks
share what is unpacked once.
"""

from __future__ import annotations

import os

from roadstead.systems import Container, Start, System


class Charliecloud(System):
    """ch-run 0.31 and later."""

    name = "charliecloud"
    programs = ("ch-run",)
    package = "charliecloud"
    needs = ("/proc", "/dev", "/sys", "/tmp")
    mounts_readonly = False
    passes_descriptors = True
    becomes = True

    def start(self, program: str, container: Container) -> Start:
        """See System."""
        lines, others = container.variables()
        argv = [program, f"--uid={container.uid}", f"--gid={container.gid}", "--no-passwd"]
        argv += [] if _has_tmp(container) else ["--private-tmp"]
        argv += [] if container.readonly else ["--write"]
        argv += [f"--bind={mount.source}:{mount.destination}" for mount in container.mounts]
        argv += ["--env-no-expand", "--unset-env=USER"]
        argv.append(f"--set-env={container.write('environment.ch', lines)}")
        argv += [f"--cd={container.cwd}", container.rootfs, "--", *container.args]
        # ch-run wants these two, and passes on all that it has.
        own = {"USER": os.environ.get("USER") or str(os.getuid()), "PATH": container.env["PATH"]}
        return Start(argv, {**own, **others}, clean=True)


def _has_tmp(container: Container) -> bool:
    return any(mount.destination == "/tmp" for mount in container.mounts)
