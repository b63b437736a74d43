"""An image of the store as something that others read: an OCI layout, a tar file, a squashfs.

The layers become one: what the store keeps of a layer are its files, not the bytes that its digest
was of.  What is written appears when it is complete.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

from roadstead.errors import ImageError, UsageError
from roadstead.host import flatten, program
from roadstead.images import ociimage
from roadstead.images.model import Image
from roadstead.images.reference import Reference
from roadstead.images.store import Store

KINDS: Final = ("oci", "oci-archive", "docker-archive", "tarball", "sqsh")


def export(image: Image, target: Reference, store: Store) -> None:
    """Write ``image`` to ``target``.  Raises ImageError, UsageError."""
    if target.transport not in KINDS:
        kinds = ", ".join(f"{kind}:PATH" for kind in KINDS)
        raise UsageError(f"cannot write {target.text}", hint=f"it must be one of {kinds}")
    path = target.path
    if target.transport != "oci" and os.path.lexists(path):
        raise ImageError(f"{path} is there already", hint="name a new file")
    mksquashfs = program.find("mksquashfs") if target.transport == "sqsh" else ""
    if mksquashfs is None:
        raise ImageError(
            "mksquashfs is needed to write a squashfs, and is not installed",
            hint="apt install squashfs-tools, or dnf install squashfs-tools",
        )
    new = f"{path}.{os.getpid()}.new"
    try:
        with store.importing(), store.work() as work:  # nothing of it is removed meanwhile
            os.mkdir(f"{work}/root", 0o755)
            flatten.copy(image.lowers, f"{work}/root")
            match target.transport:
                case "sqsh":
                    _squashfs(str(mksquashfs), f"{work}/root", new)
                case "tarball":
                    ociimage.write_tar(f"{work}/root", new)
                case kind:
                    staged = f"{work}/staged"
                    os.mkdir(staged)
                    none = (None, None)
                    root = f"{work}/root"
                    digest = ociimage.stage(root, image.config, staged, target.tag, none)
                    if kind == "oci":
                        ociimage.add_to_layout(staged, path, digest)
                        return
                    docker = kind == "docker-archive"
                    ociimage.archive(staged, new, _name(target) if docker else "")
        os.rename(new, path)
    except OSError as error:
        raise ImageError(f"{target.text}: cannot be written: {error.strerror}") from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)


def _name(target: Reference) -> str:
    """What `docker load` is to call an image; it wants some name."""
    return f"{target.name or 'image'}:{target.tag or 'latest'}"


def _squashfs(mksquashfs: str, root: str, path: str) -> None:
    argv = [mksquashfs, root, path, "-noappend", "-no-progress", "-quiet"]
    if os.geteuid():
        argv.append("-all-root")  # as the user is, inside
    running = program.Program(argv)
    try:
        if status := running.wait():
            raise ImageError(f"mksquashfs ended with {status}: {' | '.join(running.said()[-2:])}")
    finally:
        running.close()
