"""A tar file whose members are read where they are: oci-archive, docker-archive.

Only its headers are read at first; a layer in it is then unpacked from its place, so nothing is
written twice.  A compressed archive has to be inflated into the store first: a member's place in it
is not known.
"""

from __future__ import annotations

import os
import tarfile
from dataclasses import dataclass
from typing import Final

from roadstead.errors import ImageError
from roadstead.images.layered import open_file, read_document
from roadstead.images.streams import Blob

_MAX_MEMBERS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Member:
    """Where a member's data are."""

    offset: int
    size: int


class Archive:
    """The members of a tar file by their names; links among them are names of the same data."""

    def __init__(self, path: str, what: str, work: str) -> None:
        self.what = what
        self.path = _uncompressed(path, what, work)
        self.members = self._read()

    def _read(self) -> dict[str, Member]:
        found: dict[str, Member] = {}
        links: list[tuple[str, str]] = []
        try:
            with open(open_file(self.path, self.what), "rb") as file:
                reader = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115
                for member in reader:
                    name = os.path.normpath(f"/{member.name}")
                    if member.isreg():
                        found[name] = Member(member.offset_data, member.size)
                    elif member.issym():
                        target = os.path.join(os.path.dirname(name), member.linkname)
                        links.append((name, os.path.normpath(target)))
                    elif member.islnk():
                        links.append((name, os.path.normpath(f"/{member.linkname}")))
                    if len(found) + len(links) > _MAX_MEMBERS:
                        raise ImageError(f"{self.what}: more than {_MAX_MEMBERS} members")
        except (tarfile.TarError, ValueError, OverflowError) as error:
            raise ImageError(
                f"{self.what}: not a tar file that can be read: {error}",
                hint="docker save, podman save and skopeo copy write such files",
            ) from None
        for name, target in links:
            if target in found:
                found.setdefault(name, found[target])
        return found

    def has(self, name: str) -> bool:
        return os.path.normpath(f"/{name}") in self.members

    def member(self, name: str) -> Member:
        """Where a member is.  Raises ImageError."""
        found = self.members.get(os.path.normpath(f"/{name}"))
        if found is None:
            raise ImageError(
                f"{self.what}: {name!a} is not in it", hint="it is cut off, or no image"
            )
        return found

    def open(self, name: str) -> int:
        """A descriptor at the beginning of a member's data.  Raises ImageError."""
        member = self.member(name)
        fd = open_file(self.path, self.what)
        os.lseek(fd, member.offset, os.SEEK_SET)
        return fd

    def document(self, name: str) -> bytes:
        """The data of a member that is small.  Raises ImageError."""
        return read_document(self.open(name), self.member(name).size, f"{self.what}: {name}")


def _uncompressed(path: str, what: str, work: str) -> str:
    """The path of the archive, inflated into the directory ``work`` where that is needed."""
    fd = open_file(path, what)
    head = os.pread(fd, 512, 0)
    if head[257:262] == b"ustar" or not head.startswith(
        (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ")
    ):
        os.close(fd)
        return path
    blob = Blob(fd, what)
    inflated = f"{work}/archive"
    try:
        with open(inflated, "xb") as file:
            while data := blob.read(1 << 20):
                file.write(data)
    except OSError as error:
        raise ImageError(f"{what}: cannot be inflated: {error.strerror}") from None
    finally:
        blob.close()
    return inflated
