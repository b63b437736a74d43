"""What a path leads to, by what is in it: never by its name.

    a directory   bundle, oci, dir, udocker, rootfs (Charliecloud's and Singularity's among them)
    a file        sif, squashfs, ext, oci-archive, docker-archive, tarball

Where a directory could be two things, the one that Slurm knows, a bundle, is meant; a name that
could be both a file here and a reference with a transport is refused, with both spellings.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tarfile
import zlib
from lzma import LZMAError
from typing import IO, Final

from roadstead.errors import ImageError
from roadstead.images import ext, sif, squashfs

_HEAD: Final = 64 << 10
# After so many names that say nothing a tar file is taken for a root file system.
_ENTRIES: Final = 64
_TOP: Final = ("bin", "etc", "usr", "lib", "sbin", "opt", "app", "home", "root", "var", "ch", "dev")
# Layers and configurations in a docker-archive, whose table of contents comes last.
_BLOB: Final = re.compile(r"(sha256:)?[0-9a-f]{64}\b")
_COMPRESSED: Final = (b"\x1f\x8b", b"\xfd7zXZ\0", b"BZh")
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
# What people name by mistake: first bytes → what it is.
_OTHERS: Final = (
    (b"\x7fELF", "a program"),
    (b"#!", "a script"),
    (b"PK\x03\x04", "a zip file"),
    (b"QFI\xfb", "a disk of a virtual machine"),
    (b"\xe2\xe1\xf5\xe0", "an EROFS"),
    (b"{", "a JSON document"),
)


def recognise(path: str) -> str:
    """The kind of image that is at ``path``.  Raises ImageError: what is there instead."""
    try:
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            return _directory(path)
        if not stat.S_ISREG(found.st_mode):
            raise ImageError(f"{path} is neither a file nor a directory")
        return _file(path, found.st_size)
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist", hint=_spelling(path)) from None
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}") from None


def ambiguity(text: str, exists: bool) -> str:
    """The sentence for a name that has a transport in front and is the name of a file as well; ""
    where it is not (``exists``: whether there is a file that is called just so)."""
    if not exists:
        return ""
    transport, _, rest = text.partition(":")
    return (
        f"{text} could be a file of that name or, with the transport {transport}, {rest}; "
        f"write ./{text} for the file"
    )


def _spelling(path: str) -> str:
    name = os.path.basename(path)
    if ":" in name and os.path.exists(path.rpartition(":")[0]):
        return f"oci:{path} or oci-archive:{path}, if it has tags"
    return "a reference to a registry begins with docker://"


# -- directories ---------------------------------------------------------------------------------


def _directory(path: str) -> str:
    names = set(os.listdir(path))
    if "config.json" in names and _is_bundle(f"{path}/config.json"):
        return "bundle"
    if "oci-layout" in names:
        return "oci"
    if "manifest.json" in names and "version" in names:
        return "dir"
    if {"container.json", "ROOT"} <= names:
        return "udocker"
    if ".singularity.d" in names or len(names.intersection(_TOP)) > 1:
        return "rootfs"
    if not names:
        raise ImageError(f"{path} is an empty directory")
    inner = next((each for each in ("rootfs", "ROOT", "root") if each in names), "")
    raise ImageError(
        f"{path} is no image: it has neither config.json nor a root file system (/bin, /etc, /usr)",
        hint=f"name {os.path.join(path, inner)}" if inner else "",
    )


def _is_bundle(path: str) -> bool:
    """Whether config.json is a runtime's, and not an image's (which udocker and others keep)."""
    try:
        if os.stat(path).st_size > 1 << 24:
            return True  # oci/bundle.py has the sentence for it
        with open(path, encoding="utf-8") as file:
            known = json.load(file)
    except (OSError, ValueError, RecursionError):
        return True
    return not isinstance(known, dict) or "rootfs" not in known


# -- files ---------------------------------------------------------------------------------------


def _file(path: str, size: int) -> str:
    with open(path, "rb") as file:
        head = file.read(_HEAD)
        if head[sif.MAGIC_AT : sif.MAGIC_AT + len(sif.MAGIC)] == sif.MAGIC:
            return "sif"
        if head.startswith(squashfs.MAGIC):
            return "squashfs"
        if head[ext.MAGIC_AT : ext.MAGIC_AT + 2] == ext.MAGIC:
            return "ext"
        if head.startswith(_ZSTD):
            return "tarball"  # what is in it is seen when it is read
        if head.startswith(_COMPRESSED) or head[257:262] == b"ustar" or _is_old_tar(head):
            file.seek(0)
            return _tar(path, file)
    if not size:
        raise ImageError(f"{path} is an empty file")
    what = next((f"; it is {name}" for magic, name in _OTHERS if head.startswith(magic)), "")
    raise ImageError(
        f"{path} is no image{what}",
        hint="images are SIF, squashfs, ext and tar files, and directories",
    )


def _is_old_tar(head: bytes) -> bool:
    """A tar file from before POSIX has a checksum and no magic."""
    try:
        tarfile.TarInfo.frombuf(head[:512], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _tar(path: str, file: IO[bytes]) -> str:
    """The kind of tar file, by its first names.  Raises ImageError for one that cannot be read."""
    seen: list[str] = []
    try:
        with tarfile.open(fileobj=file, mode="r|*") as archive:
            for member in archive:
                name = member.name.removeprefix("./").strip("/")
                if name.partition("/")[0] != "blobs" and not _BLOB.match(name):
                    seen.append(name)
                if name in ("oci-layout", "index.json"):
                    return "docker-archive" if "manifest.json" in seen else "oci-archive"
                if name == "manifest.json":
                    return "docker-archive"
                if name.partition("/")[0] in _TOP or len(seen) > _ENTRIES:
                    return "tarball"
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error, LZMAError) as error:
        raise ImageError(f"{path} is a broken tar file: {error}") from None
    if not seen:
        raise ImageError(f"{path} is an empty tar file")
    return "tarball"
