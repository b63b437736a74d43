"""Bundles and images as files that sbcast can send.

    STATE/staging/KEY           a tar file; KEY is its digest, its modification time its last use
    STATE/staging/of-NAME       the Packed of the bundle or image of this name, as JSON
    STATE/staging/.lock-NAME    held (flock) by who packs, or sends, that

The source is read once, however many jobs and nodes want it: packed, and kept here for the next.
NAME is the image's digest, or says how the bundle's files are (which, how large, when changed): a
bundle that has changed is another one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from roadstead.core.model import from_json, to_json
from roadstead.errors import LaunchError
from roadstead.host import files, flatten, paths
from roadstead.images import ociimage
from roadstead.images.model import ImageConfig
from roadstead.images.store import Store
from roadstead.oci import bundle as bundles

Progress = Callable[[str, int, int], None]
_KEPT_BYTES: Final = 32 << 30
_KEPT_SECONDS: Final = 14 * 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """One that was packed; ``writable`` is how its containers' root is to be written to, as what is
    written would never get back to the source."""

    key: str
    kind: str
    size: int
    writable: str = ""
    config: ImageConfig = field(default_factory=ImageConfig)
    reference: str = ""


class Spool:
    """The directory of this user."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.path = f"{os.path.dirname(paths.state_directory(environ))}/staging"

    def file(self, packed: Packed) -> str:
        return f"{self.path}/{packed.key}"

    def known(self, name: str) -> Packed | None:
        """What was packed under this name, if it still is there."""
        try:
            with open(f"{self.path}/of-{name}", encoding="utf-8") as file:
                found = from_json(Packed, json.load(file))
            os.utime(self.file(found))
        except (OSError, ValueError, TypeError):
            return None
        return found

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[bool]:
        """Hold the lock ``name``; whether somebody else had it and was waited for."""
        paths.make_private(self.path)
        fd = os.open(f"{self.path}/.lock-{name}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            waited = False
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                fcntl.flock(fd, fcntl.LOCK_EX)
                waited = True
            yield waited
        finally:
            os.close(fd)

    def bundle(self, path: str, name: str, tell: Progress) -> Packed:
        """Pack a bundle; its name is ``name_of_bundle``'s.  Raises BundleError, LaunchError."""
        found = bundles.read(path)
        config = {**found.config, "root": {**found.config["root"], "path": "rootfs"}}
        readonly = bool(config["root"].get("readonly"))
        document = ("config.json", json.dumps(config).encode())
        writable = "bundle" if readonly else "private"

        def write(new: str) -> str:
            return ociimage.write_tar(
                found.rootfs, new, prefix="rootfs/", documents=[document],
                tell=lambda done: tell(f"packing {path}", done, 0),
            )  # fmt: skip

        return self._pack(name, write, Packed(key="", kind="bundle", size=0, writable=writable))

    def image(self, stores: str, digest: str, tell: Progress) -> Packed:
        """Pack an image of a store: its root as one layer.  Raises ImageError, LaunchError."""
        place, *others = stores.split(":")
        store = Store(place, others=tuple(others))
        image = store.load(digest)

        def write(new: str) -> str:
            def told(done: int) -> None:
                tell(f"packing {image.reference}", done, 0)

            if len(image.lowers) == 1:
                return ociimage.write_tar(image.lowers[0], new, tell=told)
            root = f"{new}.root"
            files.remove_tree(root)
            os.mkdir(root, 0o700)
            try:
                flatten.copy(image.lowers, root)
                return ociimage.write_tar(root, new, tell=told)
            finally:
                files.remove_tree(root)

        about = Packed(key="", kind="image", size=0, config=image.config, reference=image.reference)
        return self._pack(name_of_image(digest), write, about)

    def _pack(self, name: str, write: Callable[[str], str], about: Packed) -> Packed:
        paths.make_private(self.path)
        new = f"{self.path}/.new-{name}"  # the caller has the lock
        try:
            key = write(new).partition(":")[2]
            size = os.stat(new).st_size
            fields: dict[str, Any] = {**to_json(about), "key": key, "size": size}
            packed = from_json(Packed, fields)
            os.rename(new, self.file(packed))
        except OSError as error:
            raise LaunchError(f"cannot be packed in {self.path}: {error.strerror}") from None
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new)
        files.write_atomically(f"{self.path}/of-{name}", json.dumps(to_json(packed)))
        self._trim(packed.key)
        return packed

    def _trim(self, keep: str) -> None:
        """Remove what was unused the longest, beyond what is kept."""
        found = [
            (entry.stat().st_mtime, entry.stat().st_size, entry.path)
            for entry in os.scandir(self.path)
            if entry.name != keep and not entry.name.startswith((".", "of-"))
        ]
        left, oldest = _KEPT_BYTES, time.time() - _KEPT_SECONDS
        for used, size, path in sorted(found, reverse=True):
            left -= size
            if left < 0 or used < oldest:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)


def name_of_image(digest: str) -> str:
    return digest.replace(":", "-")


def name_of_bundle(path: str) -> str:
    """What a bundle is called here: a digest of how its files are, not of what is in them.

    Raises BundleError, LaunchError.
    """
    found = bundles.read(path)
    seen = hashlib.sha256(json.dumps(found.config, sort_keys=True).encode())
    pending = [found.rootfs]
    while pending:
        directory = pending.pop()
        try:
            with os.scandir(directory) as entries:
                listed = sorted(entries, key=lambda each: each.name)
        except OSError as error:
            raise LaunchError(f"{directory}: {error.strerror}: it cannot be sent") from None
        for entry in listed:
            about = entry.stat(follow_symlinks=False)
            mode = about.st_mode
            seen.update(
                f"{entry.path}\0{about.st_ino} {mode} {about.st_size} {about.st_mtime_ns}\n".encode(
                    "utf-8", "surrogateescape"
                )
            )
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
    return f"bundle-{seen.hexdigest()[:40]}"
