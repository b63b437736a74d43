"""A copy of a program in memory that nobody can write to (memfd_create(2), F_ADD_SEALS).

crun executes itself a second time at each start, from such a copy or a mount of its own, lest a
container reach the host's file through /proc/PID/exe (CVE-2019-5736).  What is started from a
sealed copy is content with that: a seventh of its CPU time less, most of it a second look for its
libraries.
"""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Final

# MFD_EXEC (Linux 6.3): without it vm.memfd_noexec may take the right to execute.
_EXEC: Final = 0x10
# What crun asks for, no more and no less.
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
# A program of more has its libraries in itself: copying takes longer than looking for them.
_MOST_BYTES: Final = 1 << 20
# Where a program's rights go by its file, a copy has none: Ubuntu's right to make user namespaces
# (AppArmor), the domains of SELinux.
_BY_FILE: Final = (
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
    "/sys/fs/selinux/enforce",
)


def copy(path: str, name: str, *, least: int = 0) -> int:
    """A copy of the program at ``path``, which the kernel calls /memfd:NAME: its descriptor,
    ``least`` or more, and close-on-exec; -1 where the program is better executed itself."""
    if any(map(_is_on, _BY_FILE)):
        return -1
    try:
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1
    try:
        found = os.fstat(source)
        if found.st_size > _MOST_BYTES or os.pread(source, 4, 0) != b"\x7fELF":
            return -1
        return _copied(source, found.st_size, name, least)
    except OSError:  # a sandbox, or vm.memfd_noexec=2
        return -1
    finally:
        os.close(source)


def _copied(source: int, size: int, name: str, least: int) -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        made = os.memfd_create(name, flags | _EXEC)
    except OSError:
        made = os.memfd_create(name, flags)
    try:
        at = 0
        while at < size:
            sent = os.sendfile(made, source, at, size - at)
            if not sent:
                raise OSError(errno.EIO, "it has become shorter", name)
            at += sent
        fcntl.fcntl(made, fcntl.F_ADD_SEALS, _SEALS)
        return fcntl.fcntl(made, fcntl.F_DUPFD_CLOEXEC, least)
    finally:
        os.close(made)


def _is_on(setting: str) -> bool:
    try:
        with open(setting, encoding="ascii") as file:
            return file.read().strip() != "0"
    except OSError:
        return False
