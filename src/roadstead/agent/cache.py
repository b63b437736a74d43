"""What this user has on this node for longer than a step: the agent, and what was staged.

    PLACE/agent/                    the agent itself (install.py)
    PLACE/incoming/NAME             what sbcast is writing, or has written
    PLACE/staged/KEY.json           what was received and may be used: its modification time is its
                                    last use; held (flock, shared) by each step that uses it
    PLACE/bundles/KEY/              a bundle
    PLACE/images/                   an image store, of images that were sent

PLACE is $ROADSTEAD_NODE_CACHE, else /var/tmp/roadstead-UID; the user's own, 0700.  KEY is the
digest of the file that was sent.  A record is written when what it names is complete, and removed
before that is: so whatever has a record can be used.  The sizes that records give are kept below
$ROADSTEAD_NODE_QUOTA (default 32 GiB) by removing what was unused the longest.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from roadstead.core import values
from roadstead.core.model import from_json, to_json
from roadstead.errors import LaunchError
from roadstead.host import files, paths, removal

QUOTA_VARIABLE: Final = "ROADSTEAD_NODE_QUOTA"
_QUOTA: Final = 32 << 30
_STALE_SECONDS: Final = 600.0
# Where the agent's archive arrives by srun --bcast, or is unpacked by a batch script (carried.py),
# and what it is called until it has settled.
LANDING: Final = "/var/tmp"
TRAVELLING: Final = ".roadstead-agent-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """What was received: ``kind`` is "bundle" or "image", ``image`` the digest of an image in the
    store PLACE/images, ``size`` the bytes that it takes."""

    key: str
    kind: str
    size: int
    image: str = ""


def quota(environ: Mapping[str, str]) -> int:
    """How many bytes may be kept.  Raises RoadsteadError."""
    text = environ.get(QUOTA_VARIABLE, "")
    return values.memory(text, QUOTA_VARIABLE) << 20 if text else _QUOTA


def prepare(top: str) -> None:
    """Make the directories.  Raises EngineError where somebody else has."""
    paths.make_private(top)
    for room in ("agent", "incoming", "staged", "bundles"):
        paths.make_private(f"{top}/{room}")


def find(top: str, key: str) -> Staged | None:
    """What was staged under this key, if it was."""
    try:
        with open(f"{top}/staged/{key}.json", encoding="utf-8") as file:
            return from_json(Staged, json.load(file))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def sweep(top: str) -> None:
    """Remove what was on its way when its job ended, and nobody has received: whatever it is, it
    has not grown for a while, and is taken at once when it is complete."""
    before = time.time() - _STALE_SECONDS
    for directory, prefix in ((f"{top}/incoming", ""), (LANDING, f"{TRAVELLING}{os.getuid()}-")):
        try:
            names = os.listdir(directory)
        except OSError:
            continue
        for path in [f"{directory}/{name}" for name in names if name.startswith(prefix)]:
            with contextlib.suppress(OSError):
                found = os.lstat(path)
                if found.st_uid == os.getuid() and found.st_mtime < before:
                    os.unlink(path)


def add(top: str, staged: Staged) -> None:
    """It is complete: it may be used from now on."""
    text = json.dumps(to_json(staged))
    files.write_atomically(f"{top}/staged/{staged.key}.json", text, sync=True)


def use(top: str, key: str) -> tuple[Staged, int]:
    """What was staged under this key, for as long as the descriptor is open.  Raises LaunchError
    where it is not there any more."""
    path = f"{top}/staged/{key}.json"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        fcntl.flock(fd, fcntl.LOCK_SH)
        if os.path.samestat(os.stat(path), os.fstat(fd)):
            os.utime(path)
            found = find(top, key)
            if found is not None:
                return found, fd
        os.close(fd)
    except FileNotFoundError:
        pass
    raise LaunchError(
        "the container that was sent to this node is not there any more", hint="start it again"
    )


def make_room(top: str, wanted: int, limit: int) -> int:
    """Remove what was unused the longest until ``wanted`` bytes fit into ``limit``; the bytes that
    what stays takes.  What a step uses stays."""
    known = []
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(f"{top}/staged"):
            found = find(top, entry.name.removesuffix(".json"))
            if found is not None:
                known.append((entry.stat().st_mtime, found))
    used = sum(found.size for _, found in known)
    for _, found in sorted(known, key=lambda each: each[0]):
        if used + wanted <= limit:
            break
        if _remove(top, found):
            used -= found.size
    return used


def _remove(top: str, staged: Staged) -> bool:
    """Remove what was staged, unless it is in use; whether it went."""
    path = f"{top}/staged/{staged.key}.json"
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
        except BlockingIOError:
            return False
        finally:
            os.close(fd)
    if staged.kind == "bundle":
        removal.remove_tree(f"{top}/bundles/{staged.key}")
    else:
        from roadstead.errors import ImageError
        from roadstead.images import collect
        from roadstead.images.store import Store

        with contextlib.suppress(ImageError):  # another record's, or gone
            collect.remove(Store(f"{top}/images"), [staged.image])
    return True


@contextlib.contextmanager
def lock(top: str, name: str) -> Iterator[None]:
    """Hold the lock ``name``, waiting for whoever has it; it goes with this process."""
    fd = os.open(
        f"{top}/staged/.{name}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
    )
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def free(top: str) -> int:
    """Bytes that may still be written where PLACE is, or will be."""
    at = top
    while not os.path.isdir(at):
        at = os.path.dirname(at)
    found = os.statvfs(at)
    return found.f_bavail * found.f_frsize


def container(request: Any, told: Mapping[str, Any]) -> tuple[Any, int]:
    """The request with what was staged in place of what the submitter named, and the descriptor
    that keeps it here.  Raises LaunchError."""
    from dataclasses import replace

    top = str(told["place"])
    paths.check_private(top)
    found, held = use(top, str(told["key"]))
    if found.kind == "image":
        return replace(request, image=found.image, store=f"{top}/images"), held
    writable = request.writable  # unless that is as the bundle says
    if writable == "bundle" and told.get("writable"):
        writable = told["writable"]
    return replace(request, bundle=f"{top}/bundles/{found.key}", writable=writable), held
