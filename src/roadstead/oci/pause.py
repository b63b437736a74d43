"""A program that does nothing: the first process of a container that several tasks share.

If a task's program were the first, its end would be the end of all others (pid_namespaces(7)).  An
image need not have any program that waits, and none of the host's need run in it; so this one is an
ELF file of three system calls that needs nothing: it is killed when whoever keeps the container is
(prctl(2)), has its children's ends thrown away, which are those of orphans in the container, and
waits for ever.
"""

from __future__ import annotations

import os
import struct
from typing import Final

_BASE: Final = 0x400000
_HEADERS: Final = 64 + 56

_CODE: Final = {
    "x86_64": bytes.fromhex(
        "b89d000000"  # mov eax, 157     prctl(
        "bf01000000"  # mov edi, 1         PR_SET_PDEATHSIG,
        "be09000000"  # mov esi, 9         SIGKILL)
        "0f05"  # syscall
        "b80d000000"  # mov eax, 13      rt_sigaction(
        "bf11000000"  # mov edi, 17        SIGCHLD,
        "488d351e000000"  # lea rsi, action  &action,
        "31d2"  # xor edx, edx             NULL,
        "41ba08000000"  # mov r10d, 8      8)
        "0f05"  # syscall
        "b822000000"  # mov eax, 34      pause()
        "0f05"  # syscall
        "ebf7"  # jmp back to it
        "9090909090909090909090"  # (so that what follows is at 64)
        "0100000000000000"  # action: SIG_IGN, and no flags, restorer or mask
        "000000000000000000000000000000000000000000000000"
    ),
}
_MACHINES: Final = {"x86_64": 62}  # elf.h: EM_X86_64


def program(machine: str = "") -> bytes | None:
    """The file for a machine as uname(2) calls it, by default this one; None: we have none."""
    machine = machine or os.uname().machine
    if machine not in _CODE:
        return None
    code = _CODE[machine]
    size = _HEADERS + len(code)
    ident = b"\x7fELF" + bytes([2, 1, 1, 0]) + bytes(8)  # 64 bits, little-endian
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        *(ident, 2, _MACHINES[machine], 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0),
    )
    readable_and_executable = 5
    segment = struct.pack(
        "<IIQQQQQQ", 1, readable_and_executable, 0, _BASE, _BASE, size, size, 0x1000
    )
    return header + segment + code
