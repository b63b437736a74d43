"""Making a bundle, from one of many sources: what their users do by hand, as one command.

    create(bundle, Wanted(kind, …))

A source is a module with one function,

    make(wanted, work) -> Made

which puts a root file system into ``work``/rootfs, or says where one is.  All is made beside the
bundle's place, in BUNDLE.PID.new, and appears by one rename(2); what a killed process has left
there goes with the next attempt.  Files are the user's own, as everywhere (unpack.py): that is what
a container of the user's can use.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from roadstead.errors import BundleError, UsageError
from roadstead.host import files, program, removal
from roadstead.images import translate
from roadstead.images.model import ImageConfig
from roadstead.images.resolve import Progress, silent

# kind → the module of roadstead.images that makes it, and what is to be named.
SOURCES: Final[dict[str, tuple[str, str]]] = {
    "rootfs": ("copied", "DIR"),
    "image": ("copied", "REFERENCE"),
    "docker": ("exported", "IMAGE|CONTAINER"),
    "podman": ("exported", "IMAGE|CONTAINER"),
    "buildah": ("exported", "IMAGE|CONTAINER"),
    "debootstrap": ("bootstrap", "SUITE [MIRROR]"),
    "mmdebstrap": ("bootstrap", "SUITE [MIRROR]"),
    "dnf": ("bootstrap", "PACKAGE…"),
}
# program → how to install it, where its name is not the package's in Debian and Fedora.
_PACKAGES: Final = {"docker": ("docker.io", "moby-engine"), "unshare": ("util-linux",) * 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a bundle is to be made of.  ``options`` go to the tool as they are; with ``show`` it
    talks to the user itself."""

    kind: str
    operands: tuple[str, ...]
    options: tuple[str, ...] = ()
    show: bool = False
    progress: Progress = silent


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What was made: how it is to be run, where its root is if that is not in the bundle, and what
    the user should know."""

    config: ImageConfig = field(default_factory=ImageConfig)
    rootfs: str = ""
    notes: tuple[str, ...] = ()


def create(bundle: str, wanted: Wanted, *, writable: bool) -> tuple[str, ...]:
    """Make the bundle at this absolute path; notes for the user.  Raises BundleError, ImageError,
    UsageError."""
    module, operands = SOURCES[wanted.kind]
    most = {"SUITE [MIRROR]": 2, "PACKAGE…": 1 << 16}.get(operands, 1)
    if not 0 < len(wanted.operands) <= most:
        raise UsageError(
            f"--from {wanted.kind} takes {operands}",
            hint=f"roadstead bundle create {os.path.basename(bundle)} --from {wanted.kind} "
            f"{operands}",
        )
    if wanted.options and module != "bootstrap":
        raise UsageError(f"--from {wanted.kind} passes no options on", hint="leave out what -- has")
    if os.path.lexists(bundle):
        raise BundleError(f"{bundle} is there already", hint="name a new directory")
    source = importlib.import_module(f"roadstead.images.{module}")
    with _beside(bundle) as work:
        made: Made = source.make(wanted, work)
        rootfs = made.rootfs or f"{work}/rootfs"
        config = translate.config(
            made.config,
            root=made.rootfs or "rootfs",
            user=translate.Accounts.of(rootfs).find(made.config.user),
            uid=os.geteuid(),
            gid=os.getegid(),
            readonly=not writable,
        )
        if os.geteuid() == 0:  # root's containers have no user namespace
            translate.without_user_namespace(config)
        files.write_atomically(f"{work}/config.json", json.dumps(config, indent=2) + "\n")
        try:
            os.rename(work, bundle)
        except OSError as error:
            raise BundleError(f"cannot make {bundle}: {error.strerror}") from None
    return made.notes


@contextlib.contextmanager
def _beside(bundle: str) -> Iterator[str]:
    """A new directory beside the bundle's place, which is gone afterwards."""
    _sweep(bundle)
    work = f"{bundle}.{os.getpid()}.new"
    try:
        os.mkdir(work)
        held = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(held, fcntl.LOCK_EX)
    except OSError as error:
        raise BundleError(f"cannot make {bundle}: {error.strerror}") from None
    try:
        yield work
    except OSError as error:
        raise BundleError(f"cannot make {bundle}: {error.strerror}") from None
    finally:
        removal.remove_tree(work)
        os.close(held)


def _sweep(bundle: str) -> None:
    """Remove what killed attempts to make this bundle have left."""
    folder, name = os.path.split(bundle)
    with contextlib.suppress(OSError):
        for entry in os.listdir(folder):
            pid = entry.removeprefix(f"{name}.").removesuffix(".new")
            if entry != f"{name}.{pid}.new" or not pid.isdigit() or os.path.exists(f"/proc/{pid}"):
                continue
            held = os.open(f"{folder}/{entry}", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                removal.remove_tree(f"{folder}/{entry}")
            finally:
                os.close(held)


def tool(name: str) -> str:
    """The path of a program that is needed.  Raises BundleError: what to install."""
    found = program.find(name)
    if found is None:
        debian, fedora = _PACKAGES.get(name, (name, name))
        raise BundleError(
            f"{name} is needed for that, and is not installed",
            hint=f"apt install {debian}, or dnf install {fedora}",
        )
    return found


def failed(name: str, status: int, said: list[str]) -> BundleError:
    """The error for a tool that has failed, with the last of what it said."""
    how = f"ended with {status}" if status >= 0 else f"was killed by signal {-status}"
    return BundleError(f"{name} {how}" + (f": {' | '.join(said[-2:])}" if said else ""))
