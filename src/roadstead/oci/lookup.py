"""Finding a program inside a container before the container exists.

srun's exit code for a command that is not there is 127, for one that cannot be executed 126, in
every mode of every runtime; runtimes say 1, or 127, or nothing.  So the program is looked up first,
in the root file system and the bind mounts that config.json puts over it, by the container's own
PATH.  Where the answer cannot be known from outside (a tmpfs, something unreadable) it is left to
the runtime.

The walk resolves symbolic links inside the root, as the container will; it only looks, so a root
that changes under it can give a wrong answer and nothing worse.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import Any, Final

from roadstead.errors import CommandNotFound, CommandNotRunnable

DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MAX_LINKS: Final = 40


class Unknown(Exception):
    """What is at this path cannot be known from outside."""


@dataclass(frozen=True, slots=True)
class View:
    """A root file system and what will be mounted over it: destination → host source, or None."""

    rootfs: str
    mounts: dict[str, str | None]

    @classmethod
    def of(cls, rootfs: str, bundle: str, mounts: list[dict[str, Any]]) -> View:
        table: dict[str, str | None] = {}
        for mount in mounts:
            options = mount.get("options") or []
            bound = mount.get("type") == "bind" or "bind" in options or "rbind" in options
            source = os.path.join(bundle, mount.get("source") or "") if bound else None
            table[os.path.normpath(mount["destination"])] = source
        return cls(rootfs, table)

    def host_path(self, path: str) -> str:
        """The host's name of an absolute path without links in it; Unknown where there is none."""
        for end in range(len(path), 0, -1):
            if (end == len(path) or path[end] == "/") and path[:end] in self.mounts:
                source = self.mounts[path[:end]]
                if source is None:
                    raise Unknown(path)
                return source + path[end:]
        return self.rootfs + path

    def resolve(self, path: str) -> str:
        """Follow every link of ``path`` as a process in the container would; its host name.

        Raises FileNotFoundError, NotADirectoryError, OSError (ELOOP) and Unknown.
        """
        done = ""
        todo = [part for part in path.split("/") if part not in ("", ".")]
        links = 0
        while todo:
            part = todo.pop(0)
            if part == "..":
                done = done.rpartition("/")[0]
                continue
            here = self.host_path(f"{done}/{part}")
            try:
                mode = os.lstat(here).st_mode
            except FileNotFoundError:
                if not self._is_above_a_mount(f"{done}/{part}"):
                    raise
                mode = stat.S_IFDIR  # the runtime makes it
            if not stat.S_ISLNK(mode):
                if todo and not stat.S_ISDIR(mode):
                    raise NotADirectoryError(20, "Not a directory", path)
                done = f"{done}/{part}"
                continue
            links += 1
            if links > _MAX_LINKS:
                raise OSError(40, "Too many levels of symbolic links", path)
            target = os.readlink(here)
            if target.startswith("/"):
                done = ""
            todo = [name for name in target.split("/") if name not in ("", ".")] + todo
        return self.host_path(done or "/")

    def _is_above_a_mount(self, path: str) -> bool:
        return any(place.startswith(f"{path}/") for place in self.mounts)

    def is_directory(self, path: str) -> bool | None:
        """Whether ``path`` is a directory inside; None: cannot be known."""
        try:
            return os.path.isdir(self.resolve(path))
        except (Unknown, PermissionError):
            return None
        except OSError:
            return False


def check_command(view: View, command: str, *, path: str, cwd: str) -> None:
    """Raise CommandNotFound (127) or CommandNotRunnable (126) if ``command`` cannot run."""
    if not command:
        raise CommandNotFound("the command is an empty string")
    if "/" in command:
        candidates = [os.path.join(cwd, command)]
    else:
        candidates = [os.path.join(cwd, d or ".", command) for d in path.split(":")]
    refused = ""
    for candidate in candidates:
        try:
            found = os.stat(view.resolve(candidate))
        except (Unknown, PermissionError):
            return
        except OSError:
            continue
        if stat.S_ISREG(found.st_mode) and found.st_mode & 0o111:
            return
        refused = refused or candidate
    if refused:
        raise CommandNotRunnable(
            f"{refused}: in the container, and not an executable file",
            hint="chmod +x it, or start it with its interpreter",
        )
    raise CommandNotFound(
        f"{command}: not found in the container"
        + ("" if "/" in command else f" (its PATH is {path})"),
        hint="give a path that exists inside the container",
    )
