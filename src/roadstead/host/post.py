"""Letters to the user, by the local mail transfer agent: whatever is called ``sendmail``.

The address stands in the letter and not on the command line, where it could pass for an option.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from roadstead.host import process

# Where distributions have it; a user's PATH often lacks all of them (hier(7), FHS 3.0: 4.10).
_PLACES = ("/usr/sbin", "/usr/lib", "/sbin")


def find(env: Mapping[str, str]) -> str:
    """The sendmail of this machine; "" where there is none."""
    for folder in (*env.get("PATH", "").split(":"), *_PLACES):
        program = f"{folder}/sendmail"
        if folder.startswith("/") and os.access(program, os.X_OK):
            return program
    return ""


def hand_over(program: str, to: str, subject: str) -> process.Child:
    """Give a letter to ``program``, which reads it as sendmail(8) does.  Raises OSError."""
    text = f"To: {_header(to)}\nSubject: {_header(subject)}\n\n".encode()
    read, write = os.pipe2(os.O_CLOEXEC)
    nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(write, text)  # less than PIPE_BUF: it does not wait for a reader
        os.close(write)
        write = -1
        return process.spawn(
            [program, "-t", "-i"], env=dict(os.environ), stdio=(read, nowhere, nowhere)
        )
    finally:
        for fd in (read, write, nowhere):
            if fd >= 0:
                os.close(fd)


def _header(text: str) -> str:
    """A header's value: one line of ASCII, other text encoded (RFC 2047)."""
    line = "".join(char if char.isprintable() else "?" for char in text)
    if line.isascii():
        return line
    import base64

    return f"=?utf-8?b?{base64.b64encode(line.encode('utf-8', 'replace')).decode()}?="
