"""What is wrong with a bundle, all of it at once, and not just what a step would stumble over
first.

``error`` keeps a step from running in it; ``warning`` is what Roadstead changes or leaves out when
it does, and what will surprise somebody.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal

from roadstead.errors import BundleError, CommandNotFound, CommandNotRunnable
from roadstead.oci import bundle as bundles
from roadstead.oci.lookup import DEFAULT_PATH, View, check_command

_HOOKS = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")


@dataclass(frozen=True, slots=True)
class Remark:
    """One thing: how bad it is, what it is, and what to do."""

    level: Literal["error", "warning"]
    what: str
    fix: str = ""


def examine(path: str) -> list[Remark]:
    """All remarks on the bundle at ``path``, errors first; none where it is as it should be."""
    try:
        bundle = bundles.read(path)
    except BundleError as error:
        return [Remark("error", str(error), error.hint)]
    config = bundle.config
    found = [*_mounts(bundle), *_command(bundle), *_process(config), *_privileges(config)]
    return sorted(found, key=lambda remark: remark.level != "error")


def _mounts(bundle: bundles.Bundle) -> list[Remark]:
    found = []
    for number, mount in enumerate(bundle.config.get("mounts") or []):
        options = mount.get("options") or []
        bound = mount.get("type") == "bind" or "bind" in options or "rbind" in options
        source = os.path.join(bundle.path, mount.get("source") or "")
        where = f"mounts[{number}] ({mount['destination']})"
        if bound and not os.path.exists(source):
            found.append(Remark("error", f"{where}: its source {source} does not exist"))
        elif bound and os.path.realpath(source) == "/":
            found.append(Remark("warning", f"{where}: it shows all of this machine's files"))
        if not mount["destination"].startswith("/"):
            found.append(Remark("warning", f"{where}: the destination is not an absolute path"))
    return found


def _command(bundle: bundles.Bundle) -> list[Remark]:
    process = bundle.config.get("process") or {}
    args = process.get("args") or []
    if not args:
        return [Remark("warning", "process.args is empty: a step has to name its command")]
    env = dict(entry.partition("=")[::2] for entry in process.get("env") or [])
    view = View.of(bundle.rootfs, bundle.path, bundle.config.get("mounts") or [])
    cwd = process.get("cwd") or "/"
    found = []
    if view.is_directory(cwd) is False:
        found.append(Remark("error", f"process.cwd is {cwd}, which is no directory in the rootfs"))
    try:
        check_command(view, args[0], path=env.get("PATH", DEFAULT_PATH), cwd=cwd)
    except (CommandNotFound, CommandNotRunnable) as error:
        found.append(
            Remark(
                "warning", f"process.args: {error}", "a step that names a command is not affected"
            )
        )
    return found


def _process(config: dict[str, Any]) -> list[Remark]:
    if (config.get("process") or {}).get("terminal"):
        what = "process.terminal is true: other runtimes' run needs a terminal for it"
        return [Remark("warning", what, "a step sets it as srun --pty says")]
    return []


def _privileges(config: dict[str, Any]) -> list[Remark]:
    linux = config.get("linux") or {}
    kinds = {entry.get("type") for entry in linux.get("namespaces") or []}
    found = []
    if hooks := [name for name in _HOOKS if (config.get("hooks") or {}).get(name)]:
        found.append(
            Remark(
                "warning",
                f"hooks would run programs outside the container: {', '.join(hooks)}",
                "they are left out unless --container-hooks=run",
            )
        )
    if "user" not in kinds and os.geteuid():
        found.append(
            Remark("warning", "no user namespace: made for root; a step of yours gets one")
        )
    owners = {entry.get("hostID") for entry in linux.get("uidMappings") or []}
    if owners and os.geteuid() not in owners:
        found.append(
            Remark(
                "warning", f"uidMappings name uid {min(owners)}: a step maps the ids of who runs it"
            )
        )
    if linux.get("resources") or linux.get("devices"):
        found.append(
            Remark("warning", "linux.resources and linux.devices take root and are left out")
        )
    return found
