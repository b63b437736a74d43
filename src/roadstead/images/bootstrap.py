"""Bundles of distributions' packages: debootstrap, mmdebstrap, dnf.

These install as root does.  For an ordinary user they do so in a user namespace with the user's
subordinate ids, in which they are root (unshare(1)).  What they have made goes through a tar
stream, and so becomes the user's.
"""

from __future__ import annotations

import os
from typing import Final

from roadstead.errors import BundleError
from roadstead.host import namespaces, program, removal
from roadstead.images.exported import unpacked
from roadstead.images.making import Made, Wanted, failed, tool

_AS_ROOT: Final = (
    "--map-auto", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
)  # fmt: skip
# debootstrap(8) tries to make devices, and gives up, unless it is told that it is in a container;
# rpm has its database in $HOME if that is not root's (Debian's does).
_ENV: Final = {"container": "lxc", "HOME": "/root"}
# What the tools keep for their next run.
_LEFTOVERS: Final = ("var/cache/dnf/*", "var/log/dnf*", "var/log/hawkey.log", "var/cache/apt/*.bin")


def make(wanted: Wanted, work: str) -> Made:
    """See images/making.py.  Raises BundleError."""
    if any(each.startswith("-") for each in wanted.operands):
        raise BundleError("an operand begins with -", hint="options of the tool follow --")
    path = tool(wanted.kind)
    tree = f"{work}/tree"
    os.mkdir(tree, 0o755)
    prefix = _as_root(wanted.kind)
    env = {**_ENV, "TMPDIR": work}
    _install([*prefix, path, *_arguments(wanted, tree)], wanted, env)
    skipped = [f"--exclude=./{each}" for each in _LEFTOVERS]
    packing = ["--numeric-owner", "--one-file-system", "-C", tree, *skipped, "-cf-", "."]
    unpacked([*prefix, tool("tar"), *packing], wanted, work)
    removal.remove_tree(tree)
    return Made()


def _minimal(wanted: Wanted) -> list[str]:
    """The smallest system that can install more; the user's own choice has the last word."""
    given = any(each.startswith("--variant") for each in wanted.options)
    return [] if given else ["--variant=minbase"]


def _arguments(wanted: Wanted, tree: str) -> list[str]:
    if wanted.kind != "dnf":
        suite, *mirror = wanted.operands
        mode = ["--mode=root"] if wanted.kind == "mmdebstrap" else []
        return [*mode, *_minimal(wanted), *wanted.options, suite, tree, *mirror]
    # Caches and logs are relative to the root that is made.
    return ["-y", f"--installroot={tree}", *wanted.options, "install", *wanted.operands]


def _install(argv: list[str], wanted: Wanted, env: dict[str, str]) -> None:
    running = program.Program(argv, show=wanted.show, env=env)
    try:
        if status := running.wait():
            said = running.said()
            error = failed(wanted.kind, status, said)
            if "enabled repositories" in " ".join(said):
                hint = "after --, say where packages are: --releasever=N --repofrompath=ID,URL"
                raise BundleError(str(error), hint=hint)
            raise error
    finally:
        running.close()


def _as_root(kind: str) -> list[str]:
    """What goes before a command so that it is root; nothing for root.  Raises BundleError."""
    if os.geteuid() == 0:
        return []
    path = tool("unshare")
    user = _user_name()
    if not namespaces.subordinate_ids(user, os.getuid()).usable:
        raise BundleError(
            f"{kind} needs root, or ids of your own for a user namespace: newuidmap(1), and lines "
            f"for {user} in /etc/subuid and /etc/subgid",
            hint=f"apt install uidmap; sudo usermod --add-subuids 100000-165535 --add-subgids "
            f"100000-165535 {user}",
        )
    status, _, said = program.answer([path, *_AS_ROOT, "true"])
    if status:
        raise BundleError(
            f"{kind} needs root, and a user namespace cannot be had: {' '.join(said[-1:])}",
            hint=namespaces.user_namespace_hint(),
        )
    return [path, *_AS_ROOT]


def _user_name() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
