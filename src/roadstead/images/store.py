"""The store: images and their unpacked layers, found by what they contain.

    STORE/images/HEX.json      a Record: what an image is; its modification time is its last use
    STORE/layers/HEX/          a layer: root/ is its directory, layer.json what is known of it,
                               files what is in it (inventory.py)
    STORE/pins/…               which image a reference meant when it was last looked up (pins.py)
    STORE/locks/HEX            held (flock) by whoever imports this layer or image
    STORE/work/…               what is being made; held (flock) by its maker
    STORE/holds/HEX.WHO        an image that somebody's jobs need (holds.py)

A layer appears by one rename(2), when it is complete; an image when all its layers have.  So
whatever is in images/ and layers/ can be believed, and whatever is in work/ and not held was left
by a process that was killed.  Locks are flock(2)'s: they go with their holder, and hold across the
nodes of a shared file system.

Files belong to the user, whoever owns them in the image: the process of a container is the user
too, under whatever id (oci/idmap.py).  Root's store keeps owners.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from roadstead.core.model import from_json, to_json
from roadstead.errors import ImageError
from roadstead.host import files, paths
from roadstead.images import inventory, pins
from roadstead.images.model import Image, ImageConfig, Layer, Record

# What an image's record is called while its removal is decided (collect.py).
GOING: Final = ".going"
IMPORTING: Final = "importing"  # the one lock that is shared, and stays

Fill = Callable[[str], Layer]
_DAMAGED: Final = (
    "the store is damaged there: roadstead image pull REFERENCE brings the image again"
)


def key(digest: str) -> str:
    """The name of a file for a digest: its hexadecimal digits.  Raises ImageError."""
    kind, _, digits = digest.partition(":")
    if kind != "sha256" or len(digits) != 64 or set(digits) - set("0123456789abcdef"):
        raise ImageError(f"{digest}: not a digest", hint="sha256: and 64 hexadecimal digits")
    return digits


class Store:
    """A store at a path.  Nothing is made before something is added."""

    def __init__(self, path: str, *, others: tuple[str, ...] = ()) -> None:
        self.path = path
        self.others = others

    @classmethod
    def default(cls, environ: Mapping[str, str]) -> Store:
        """The user's own, and those of others that ``ROADSTEAD_IMAGE_STORES`` names."""
        return cls(pins.store_path(environ), others=pins.other_stores(environ))

    @property
    def shared(self) -> bool:
        """Whether others may read it: its directory says so (``chmod 755``)."""
        return bool(os.stat(self.path).st_mode & 0o005)

    @property
    def mode(self) -> int:
        """Of the files that say what is in it."""
        return 0o644 if self.shared else 0o600

    # -- looking up -------------------------------------------------------------------------------

    def load(self, digest: str) -> Image:
        """The image, ready to run; its last use is now.  Raises ImageError where it is not here."""
        record = self.record(digest)
        with contextlib.suppress(OSError):  # another's store is not ours to write to
            os.utime(self.image_file(digest))
        lowers = tuple(self.layer(name) for name in record.layers)
        if record.directory:
            if not os.path.isdir(record.directory):
                raise ImageError(f"{record.directory}: the image's directory is not there any more")
            lowers = (record.directory,)
        return Image(digest=digest, reference=record.reference, config=record.config, lowers=lowers)

    def record(self, digest: str) -> Record:
        """What is kept of an image.  Raises ImageError where it is not here."""
        for place in (self.path, *self.others):
            path = self.image_file(digest, place)
            found = _read(path)
            if found is None:  # perhaps for a moment only
                found = _read(f"{path}{GOING}")
            if found is not None:
                try:
                    return from_json(Record, found)
                except TypeError as error:
                    raise ImageError(f"{path}: {error}", hint=_DAMAGED) from None
        raise ImageError(
            f"image {digest} is not in the store {self.path}", hint="roadstead image ls"
        )

    def known(self, digest: str) -> Record:
        """As ``record``; a damaged one is an image without anything, which can be removed."""
        try:
            return self.record(digest)
        except ImageError:
            if not self.has(digest):
                raise
            return Record(digest=digest, reference="(damaged)", config=ImageConfig())

    def has(self, digest: str) -> bool:
        return any(
            os.path.exists(self.image_file(digest, place)) for place in (self.path, *self.others)
        )

    def images(self) -> list[tuple[str, float]]:
        """The digests of the images in the user's own store and when each was last used (seconds
        since the epoch), the latest first."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(f"{self.path}/images"):
                digits, dot, kind = entry.name.partition(".")
                if kind == "json" and dot:
                    found.append((f"sha256:{digits}", entry.stat().st_mtime))
        return sorted(found, key=lambda each: -each[1])

    def layer(self, name: str) -> str:
        """The directory of a layer.  Raises ImageError where it is not here."""
        for place in (self.path, *self.others):
            directory = f"{place}/layers/{key(name)}/root"
            if os.path.isdir(directory):
                return directory
        raise ImageError(f"layer {name} is not in the store {self.path}", hint=_DAMAGED)

    def described(self, name: str) -> Layer:
        """What is known of a layer.  Raises ImageError where it is not here."""
        path = os.path.dirname(self.layer(name)) + "/layer.json"
        try:
            return from_json(Layer, _read(path))
        except TypeError as error:
            raise ImageError(f"{path}: {error}", hint=_DAMAGED) from None

    def has_layer(self, name: str) -> bool:
        return any(
            os.path.isdir(f"{place}/layers/{key(name)}") for place in (self.path, *self.others)
        )

    # -- adding -----------------------------------------------------------------------------------

    def add(self, record: Record) -> Image:
        """Believe in an image from now on: its layers are all here.  Raises ImageError."""
        self.prepare()
        for number, name in reversed(list(enumerate(record.layers))):
            self.layer(name)
            if number and self.described(name).opaque:
                record = dataclasses.replace(record, layers=record.layers[number:])
                break
        path = self.image_file(record.digest)
        text = json.dumps(to_json(record))
        files.write_atomically(path, text, sync=True, mode=self.mode)
        return self.load(record.digest)

    def ensure_layer(self, name: str, fill: Fill) -> None:
        """Have the layer ``name``: if it is not here, ``fill`` an empty directory with it.

        Of many processes that want the same layer one fills, and the others wait for it.  ``fill``
        gets the directory's path and says what it put there; if it raises, nothing is left.
        """
        if self.has_layer(name):
            return
        self.prepare()
        with self.lock(key(name)):
            if self.has_layer(name):
                return
            with self.work() as directory:
                os.mkdir(f"{directory}/root", 0o755)
                layer = fill(f"{directory}/root")
                if not os.path.exists(f"{directory}/{inventory.NAME}"):
                    inventory.take(f"{directory}/root", f"{directory}/{inventory.NAME}")
                text = json.dumps(to_json(layer))
                files.write_atomically(f"{directory}/layer.json", text, mode=self.mode)
                if self.shared:
                    os.chmod(directory, 0o755)
                os.rename(directory, f"{self.path}/layers/{key(name)}")

    def prepare(self) -> None:
        """Make the store's directories, 0700 for the user alone.  Raises ImageError."""
        try:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.mkdir(self.path, 0o700)
            for room in ("images", "layers", "locks", "pins", "work"):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(f"{self.path}/{room}", 0o755)
            # Others may add to it where they may read, and nothing else; see holds.py.
            with contextlib.suppress(FileExistsError):
                os.mkdir(f"{self.path}/holds", 0o700)
                if self.shared:
                    os.chmod(f"{self.path}/holds", 0o1733)
        except OSError as error:
            raise ImageError(
                f"cannot make the image store {self.path}: {error.strerror}",
                hint=f"set {pins.STORE_VARIABLE} to a directory that you can write to",
            ) from None
        if os.stat(self.path).st_uid != os.geteuid():
            raise ImageError(
                f"the image store {self.path} is another user's",
                hint=f"set {pins.STORE_VARIABLE}, and {pins.OTHERS_VARIABLE} to read that one",
            )
        paths.check_above(self.path)

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the lock ``name``, waiting for whoever has it; it goes with this process."""
        path = f"{self.path}/locks/{name}"
        fd = _locked(path)
        try:
            yield
        finally:
            os.unlink(path)
            os.close(fd)

    @contextlib.contextmanager
    def importing(self) -> Iterator[None]:
        """Hold off the removal of layers that no image names yet (collect.py): from before the
        first layer until the image is added."""
        self.prepare()
        fd = os.open(f"{self.path}/locks/{IMPORTING}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            yield
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def work(self) -> Iterator[str]:
        """A directory of our own to make something in; it is removed at the end, if it is still
        there, and by the next import if we are killed."""
        self.sweep()
        name = f"{self.path}/work/{os.getpid()}.{time.time_ns():x}"
        # Between its making and its locking somebody may sweep it away: then it is made again.
        fd = _locked(f"{name}.held")
        try:
            os.mkdir(name, 0o700)
            yield name
        finally:
            files.remove_tree(name)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{name}.held")
            os.close(fd)

    def sweep(self) -> int:
        """Remove what killed imports have left; how many there were."""
        swept = 0
        try:
            entries = os.listdir(f"{self.path}/work")
        except FileNotFoundError:
            return 0
        for entry in entries:
            name = f"{self.path}/work/{entry.removesuffix('.held')}"
            if not entry.endswith(".held"):
                # Its claim is made before it and removed after it.
                if not os.path.exists(f"{name}.held"):
                    files.remove_tree(name)
                continue
            try:
                fd = os.open(f"{name}.held", os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                files.remove_tree(name)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{name}.held")
                swept += 1
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise
            finally:
                os.close(fd)
        return swept

    def restore(self) -> None:
        """Put back images whose removal was not decided when who decided it was killed."""
        for name in os.listdir(f"{self.path}/images"):
            path = f"{self.path}/images/{name}"
            if name.endswith(GOING):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(path, path.removesuffix(GOING))

    def image_file(self, digest: str, place: str = "") -> str:
        """Where an image's record is, in the store at ``place`` (default: our own)."""
        return f"{place or self.path}/images/{key(digest)}.json"


def _locked(path: str) -> int:
    """The descriptor of a lock file that we hold, and that is still the one of this name: whoever
    held it before us has removed it."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            if os.path.samestat(os.stat(path), os.fstat(fd)):
                return fd
        except FileNotFoundError:
            pass
        os.close(fd)


def _read(path: str) -> object | None:
    """The JSON in a file; None where there is no file.  Raises ImageError for a damaged one."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)  # type: ignore[no-any-return]
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: {error}", hint=_DAMAGED) from None
