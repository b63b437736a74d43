"""A writable view of directories that are not to be written to: the root of a container.

An overlay of the kernel's (Documentation/filesystems/overlayfs), mounted in the step's own
namespace (namespaces.py): there it needs no privilege since Linux 5.11, and goes with the step.
What is written goes to an upper directory in memory, which counts as the step's memory.

The options of a mount are one page of text, which thirty layers with long paths fill.  So lower
directories go by short names, links in a directory of ours; with that the kernel's own limit
counts, 500 layers.  It also means that no path has to be escaped.

Where no overlay can be mounted the layers are copied, one over the other.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Sequence
from typing import Final

from roadstead.errors import RuntimeFailure
from roadstead.host import flatten, linux

_MOST_LAYERS: Final = 500  # fs/overlayfs, OVL_MAX_STACK
_PROBE: Final = "user.overlay.probe"


def private_layer(lowers: Sequence[str], scratch: str) -> tuple[str, str]:
    """A view of ``lowers``, the lowest first, whose changes go away with ``scratch``: its path, and
    why it is a copy, if it is one.

    Call after ``namespaces.enter``.  Raises RuntimeFailure when there is no room for the copy.
    """
    try:
        _mount_memory(scratch)
        return mount_in(lowers, scratch), ""
    except OSError as error:
        unmount_layer(scratch)
        why = error.strerror or str(error)
    return copy_in(lowers, scratch, why), why


def mount_in(lowers: Sequence[str], place: str) -> str:
    """Mount an overlay whose directories are all in ``place``; the path of the merged view.

    What was written earlier, to the same place, is there again.  Raises OSError.
    """
    for name in ("upper", "work", "merged", "l"):
        with contextlib.suppress(FileExistsError):
            os.mkdir(f"{place}/{name}")
    top = os.stat(lowers[-1])  # whose mode and owner the merged root has is the upper directory
    os.chmod(f"{place}/upper", stat.S_IMODE(top.st_mode))
    mount_overlay(lowers, f"{place}/upper", f"{place}/work", f"{place}/merged", f"{place}/l")
    return f"{place}/merged"


def mount_overlay(lowers: Sequence[str], upper: str, work: str, merged: str, links: str) -> None:
    """Mount an overlay at ``merged``, with links in the directory ``links``.  All paths are
    absolute, and ours but for ``lowers``.  Raises OSError."""
    if len(lowers) > _MOST_LAYERS:
        raise OSError(errno.E2BIG, f"more than {_MOST_LAYERS} layers")
    # The uppermost comes first.  A link is followed; the mount keeps what it led to.
    names = [_link(lower, links, number) for number, lower in enumerate(reversed(lowers))]
    own = [_link(path, links, name) for path, name in ((upper, "u"), (work, "w"))]
    options = f"lowerdir={':'.join(names)},upperdir={own[0]},workdir={own[1]},userxattr"
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chdir(links)
        linux.mount("overlay", merged, "overlay", 0, options)
    finally:
        os.fchdir(here)
        os.close(here)


def _link(target: str, links: str, name: int | str) -> str:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{links}/{name}")
    os.symlink(target, f"{links}/{name}")
    return str(name)


def _mount_memory(scratch: str) -> None:
    """Half of the machine's memory at most, as tmpfs(5) has it.

    Overlays keep in extended attributes that a directory was removed and made anew, and tmpfs has
    these since Linux 6.6: before, a directory on disk is better, if it has them.
    """
    options = "mode=0700"
    linux.mount("tmpfs", scratch, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, options)
    if _keeps_attributes(scratch):
        return
    linux.unmount(scratch, linux.MNT_DETACH)
    if not _keeps_attributes(scratch):
        linux.mount("tmpfs", scratch, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, options)


def _keeps_attributes(directory: str) -> bool:
    try:
        os.setxattr(directory, _PROBE, b"y")
        os.removexattr(directory, _PROBE)
    except OSError:
        return False
    return True


def copy_in(lowers: Sequence[str], place: str, why: str) -> str:
    """A copy of what an overlay would show, in ``place``.  Raises RuntimeFailure."""
    merged = f"{place}/merged"
    try:
        os.makedirs(merged, mode=0o700, exist_ok=True)
        flatten.copy(lowers, merged)
    except OSError as error:
        raise RuntimeFailure(
            f"no private writable layer over {lowers[-1]}: no overlay ({why}), and no copy of it: "
            f"{error.strerror}",
            hint="free some space there, or set TMPDIR before the engine starts",
        ) from None
    return merged


def unmount_layer(scratch: str) -> None:
    """Take away what is mounted at ``scratch``, even while something uses it."""
    for target in (f"{scratch}/merged", scratch):
        try:
            linux.unmount(target, linux.MNT_DETACH)
        except OSError as error:
            # Not a mount point, or not there: it had not got that far, or is a copy.
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise
