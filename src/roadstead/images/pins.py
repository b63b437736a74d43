"""Pins: which image a reference meant when it was last looked up, and whether that still holds.

This is all that a command reads when its image is in the store and has not changed, so only ``os``
is imported: a lookup costs three system calls.  A pin is a file, named like the reference:

    DIGEST NEWLINE MARK

``mark`` is that of the file or directory that was read (device, inode, size, time).  A reference to
a registry has no mark: its pin holds until the image is pulled again.
"""

from __future__ import annotations

import os

from roadstead.images.reference import Reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

STORE_VARIABLE = "ROADSTEAD_IMAGES"
OTHERS_VARIABLE = "ROADSTEAD_IMAGE_STORES"
# The file that changes whenever what is below the directory does.
_INDEX = {"oci": "/index.json", "dir": "/manifest.json"}
# In a directory that is used in place: what says how it is to be run (described.py).
_TELLING = (
    "ch/environment", "ch/metadata.json", "etc/environment", "etc/rc", "container.json",
    ".singularity.d/labels.json", ".singularity.d/runscript", ".singularity.d/env",
    ".singularity.d/env/10-docker2singularity.sh", ".singularity.d/env/90-environment.sh",
)  # fmt: skip
# Their owner is asked each time: it knows at once, and people rebuild images under one name.
_ASKED = ("docker-daemon", "containers-storage")
_LONGEST = 240


def store_path(environ: Mapping[str, str]) -> str:
    """Where the user's store is: $ROADSTEAD_IMAGES, else below $XDG_DATA_HOME."""
    named = environ.get(STORE_VARIABLE, "")
    if named.startswith("/"):
        return named.rstrip("/") or "/"
    base = environ.get("XDG_DATA_HOME", "")
    if not base.startswith("/"):
        from roadstead.host import paths

        base = f"{paths.home_directory(environ)}/.local/share"
    return f"{base}/roadstead/images"


def other_stores(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Stores of others that are read, never written to: absolute paths between colons."""
    named = environ.get(OTHERS_VARIABLE, "").split(":")
    return tuple([each.rstrip("/") for each in named if each.startswith("/")])


def mark(reference: Reference) -> str:
    """What changes when the referenced file does; "" where there is none to look at."""
    if not reference.path:
        return ""
    try:
        found = os.stat(reference.path + _INDEX.get(reference.transport, ""))
    except OSError:
        return ""
    text = f"{found.st_dev}.{found.st_ino}.{found.st_size}.{found.st_mtime_ns}"
    if found.st_mode & 0o170000 == 0o040000:
        for name in _TELLING:
            try:
                inner = os.lstat(f"{reference.path}/{name}")
            except OSError:
                continue
            text += f" {inner.st_ino}.{inner.st_size}.{inner.st_mtime_ns}"
    return text


def last(store: str, reference: Reference) -> str:
    """The digest of the image that ``reference`` meant last, whatever has changed since; "" where
    that is not known."""
    try:
        with open(_file(store, reference, ""), encoding="ascii") as file:
            digest = file.readline().rstrip("\n")
        os.stat(f"{store}/images/{digest.partition(':')[2]}.json")
    except (OSError, ValueError):
        return ""
    return digest


def identity(store: str, reference: Reference, platform: str = "") -> tuple[int, int]:
    """What changes whenever ``reference`` has been looked up anew; zeros where it never was."""
    try:
        found = os.stat(_file(store, reference, platform))
    except OSError:
        return 0, 0
    return found.st_ino, found.st_mtime_ns


def pinned(store: str, reference: Reference, platform: str = "") -> str:
    """The digest of the image that ``reference`` means, if that is known and it is in the store
    at this path; else ""."""
    if reference.transport in _ASKED:
        return ""
    try:
        fd = os.open(_file(store, reference, platform), os.O_RDONLY | os.O_CLOEXEC)
        text = os.read(fd, 4096).decode()
        os.close(fd)
        digest, _, known = text.partition("\n")
        os.stat(f"{store}/images/{digest.partition(':')[2]}.json")
    except (OSError, ValueError):
        return ""
    return digest if known == mark(reference) else ""


def pin(
    store: str, reference: Reference, platform: str, digest: str, known: str, mode: int = 0o600
) -> None:
    """Remember that ``reference`` means ``digest``; ``known`` is its mark from before it was read:
    what has changed since is read again."""
    from roadstead.host import files

    files.write_atomically(_file(store, reference, platform), f"{digest}\n{known}", mode=mode)


def _file(store: str, reference: Reference, platform: str) -> str:
    text = f"{reference}{f' {platform}' if platform else ''}"
    name = text.replace("%", "%25").replace("/", "%2F")
    if len(os.fsencode(name)) > _LONGEST:
        import hashlib

        name = hashlib.sha256(os.fsencode(text)).hexdigest()
    return f"{store}/pins/{name}"
