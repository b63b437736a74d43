"""crun below a container system, where it has to be helped to start.

On hosts with cgroup v1 and v2 beside each other crun refuses to start, and Podman has no option
that would hide the one from it: there it is called through four lines of shell, in a mount
namespace of their own.
"""

from __future__ import annotations

import os
from typing import Final

from roadstead.host import namespaces, process
from roadstead.systems import Container

_HIDING: Final = """\
#!/bin/sh
# cgroup v1 and v2 beside each other: crun is to see neither.
test -n "$ROADSTEAD_HIDDEN" || ROADSTEAD_HIDDEN=1 exec unshare --mount "$0" "$@"
mount -t tmpfs -o size=64k none {unified} && exec {crun} "$@"
"""


def options(container: Container) -> list[str]:
    """Options that let Podman use a crun that works here; runc cannot leave control groups
    alone."""
    found = process.which("crun", os.environ.get("PATH", os.defpath))
    if found is None:
        return []
    if not namespaces.hybrid_cgroups():
        return [f"--runtime={found}"]
    text = _HIDING.format(unified=namespaces.CGROUP_UNIFIED, crun=found)
    path = container.write("crun", text)
    os.chmod(path, 0o700)
    return [f"--runtime={path}"]
