"""Who this process is, and becoming another user for good."""

from __future__ import annotations

import os
import pwd

from roadstead.errors import LaunchError


def name() -> str:
    """This user's name; the number of one whom the password database does not know."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def become(user: str) -> bool:
    """Be ``user`` from now on, with her groups; whether that was not so already.  ``user`` is a
    name, or a number.  Raises LaunchError: for a stranger, or where only root could do that."""
    try:
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except KeyError:
        raise LaunchError(f"there is no user {user} on this node") from None
    if entry.pw_uid == os.getuid():
        return False
    if os.getuid() != 0:
        raise LaunchError(f"only {user} and root may touch {user}'s containers")
    os.initgroups(entry.pw_name, entry.pw_gid)
    os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
    os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
    os.environ.update(HOME=entry.pw_dir, USER=entry.pw_name, LOGNAME=entry.pw_name)
    return True
