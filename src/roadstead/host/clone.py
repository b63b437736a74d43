"""Starting a process inside a control group of version 2: clone3(2), CLONE_INTO_CGROUP (Linux 5.7).

Moving a process from group to group takes the kernel an RCU grace period, 8 ms; being born in one
costs no more than a fork (1.5 ms here).  posix_spawn(3) can do it from glibc 2.39 on, which Python
does not offer; so this is a fork by hand, for a single-threaded process that executes at once.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable
from typing import Final

_CLONE3: Final = 435  # the same on all architectures (syscalls since 5.1 are)
_PIDFD: Final = 0x1000
_VFORK: Final = 0x4000
_INTO_CGROUP: Final = 0x200000000
_SIGCHLD: Final = 17

_supported: list[bool] = []


def _clone(group: int, pidfd: int) -> int:
    """clone3(2) into ``group``; 0 in the child, negative errno for a failure."""
    # PyDLL keeps the interpreter's lock: the child has it, as after os.fork.
    syscall = ctypes.PyDLL(None, use_errno=True).syscall
    syscall.restype = ctypes.c_long
    flags = _INTO_CGROUP | _VFORK | (_PIDFD if pidfd else 0)
    # struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls,
    # set_tid, set_tid_size, cgroup
    args = struct.pack("=10Qq", flags, pidfd, 0, 0, _SIGCHLD, 0, 0, 0, 0, 0, group)
    pid: int = syscall(ctypes.c_long(_CLONE3), args, ctypes.c_size_t(len(args)))
    return pid if pid >= 0 else -ctypes.get_errno()


def supported() -> bool:
    """Whether the kernel, and a sandbox that we may be in, know of this."""
    if not _supported:
        # No group is behind this number; a kernel before 5.7 does not get as far as that.
        _supported.append(_clone((1 << 31) - 1, 0) == -errno.EBADF)
    return _supported[0]


def start(group: int | None, body: Callable[[], object]) -> tuple[int, int]:
    """Fork into the group whose directory is open as ``group``, None for ours; the child calls
    ``body``, which executes a program.  The child's pid and a pidfd.

    Raises OSError, the kernel's for the fork and ``body``'s own in the child.
    """
    read, write = os.pipe2(os.O_CLOEXEC)
    pidfd = ctypes.c_int(-1)
    pid = os.fork() if group is None else _clone(group, ctypes.addressof(pidfd))
    if pid == 0:
        number = errno.ENOEXEC
        try:
            body()
        except OSError as error:
            number = error.errno or number
        finally:
            os.write(write, struct.pack("=i", number))
            os._exit(127)
    if pid > 0 and group is None:
        pidfd.value = os.pidfd_open(pid)
    os.close(write)
    with open(read, "rb") as pipe:  # at its end once the program is executed
        said = pipe.read() if pid > 0 else struct.pack("=i", -pid)
    if not said:
        os.set_inheritable(pidfd.value, False)
        return pid, pidfd.value
    if pid > 0:
        os.waitid(os.P_PIDFD, pidfd.value, os.WEXITED)
        os.close(pidfd.value)
    (number,) = struct.unpack("=i", said)
    raise OSError(number, os.strerror(number))
