"""Where our files are: state that must survive, run-time files that must not.

State (journal, exit records, logs) is under ``$XDG_STATE_HOME/roadstead/HOST``: home directories
are often shared by many hosts, and a journal belongs to one of them.  Sockets and the directories
of running steps are under ``$XDG_RUNTIME_DIR/roadstead``, or, where that directory is missing (it
is on most compute nodes), under ``$TMPDIR/roadstead-UID``, which is only believed when it is a
real directory, ours, and closed to everyone else.

The controller writes the run-time directory it chose into ``STATE/run`` (a symlink), so that a
login with XDG_RUNTIME_DIR and a cron job without it find the same controller.
"""

from __future__ import annotations

import os

from roadstead.errors import EngineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

NODE_CACHE = "ROADSTEAD_NODE_CACHE"


def state_directory(environ: Mapping[str, str]) -> str:
    """The state directory of this user on this host (not made)."""
    base = environ.get("XDG_STATE_HOME", "")
    if not base.startswith("/"):
        base = f"{home_directory(environ)}/.local/state"
    return f"{base}/roadstead/{os.uname().nodename}"


def home_directory(environ: Mapping[str, str]) -> str:
    """$HOME, else the password database's, as the shell has it."""
    home = environ.get("HOME", "")
    if home.startswith("/"):
        return home
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        raise EngineError(
            f"uid {os.getuid()} has no home directory", hint="set HOME or XDG_STATE_HOME"
        ) from None


def site_conf(environ: Mapping[str, str]) -> str:
    """The roadstead.conf in force, "" for none."""
    return _configuration(environ, "roadstead.conf", "ROADSTEAD_CONF")


def plugstack(environ: Mapping[str, str]) -> str:
    """The plugstack.conf in force, "" for none."""
    return _configuration(environ, "plugstack.conf", "ROADSTEAD_PLUGSTACK_CONF")


def _configuration(environ: Mapping[str, str], name: str, variable: str) -> str:
    """The file that the variable names (``none`` is none), the user's, or the machine's.  Raises
    EngineError where the variable names no file."""
    named = environ.get(variable)
    if named in ("", "none"):
        return ""
    if named is not None:
        if not os.path.isfile(named):
            raise EngineError(
                f"{variable}={named}: no such file", hint="unset it, or set it to none"
            )
        return os.path.abspath(named)
    config = environ.get("XDG_CONFIG_HOME", "")
    if not config.startswith("/"):
        config = f"{home_directory(environ)}/.config"
    for path in (f"{config}/roadstead/{name}", f"/etc/roadstead/{name}"):
        if os.path.exists(path):
            return path
    return ""


def default_runtime_directory(environ: Mapping[str, str]) -> str:
    """Where a controller that starts now puts its run-time files (not made)."""
    base = environ.get("XDG_RUNTIME_DIR", "")
    if base.startswith("/") and os.path.isdir(base):
        return f"{base}/roadstead"
    temporary = environ.get("TMPDIR", "")
    if not temporary.startswith("/"):  # every process has a working directory of its own
        temporary = "/tmp"
    return f"{temporary}/roadstead-{os.getuid()}"


def runtime_directory(environ: Mapping[str, str]) -> str:
    """The running controller's run-time directory, or the one that it would take."""
    try:
        return os.readlink(f"{state_directory(environ)}/run")
    except OSError:
        return default_runtime_directory(environ)


def socket_path(runtime: str) -> str:
    return f"{runtime}/controller.sock"


def journal_path(state: str) -> str:
    return f"{state}/journal.db"


def umask() -> int:
    """This process's umask, which only setting it tells."""
    found = os.umask(0o077)
    os.umask(found)
    return found


def make_private(path: str) -> None:
    """Make ``path`` (and what lacks above it) as a directory that only this user can enter.

    Raises EngineError when it is there and is not ours, not a directory, or open to others: in a
    shared /tmp somebody else may have made it first.
    """
    before = os.umask(0o077)  # makedirs makes what is above with it alone
    try:
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.mkdir(path, 0o700)
        except FileNotFoundError:  # the last one there has just removed what was above it
            os.makedirs(path, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise EngineError(
            f"cannot make {path}: {error.strerror}", hint="set XDG_STATE_HOME and XDG_RUNTIME_DIR"
        ) from None
    finally:
        os.umask(before)
    check_private(path)


def check_private(path: str) -> None:
    """Raise EngineError unless ``path`` is a directory, not a link, ours, and closed to others, and
    nobody else can put another in its place."""
    _check_directory(path)
    check_above(path)


def check_above(path: str) -> None:
    """Raise EngineError if everybody can exchange what leads to ``path``.

    Neither the group's right to write nor a foreign owner is held against a directory here: home
    directories lie below those of institutes, and at many sites each user has a group of its own.
    """
    why = exchangeable(path)
    if why:
        raise EngineError(
            f"{path} is not safe: {why}",
            hint="chmod o-w it, or set XDG_STATE_HOME and XDG_RUNTIME_DIR to other places",
        )


def exchangeable(path: str, *, by_owners: bool = False) -> str:
    """Why somebody else can put another directory where ``path`` leads, or "".

    Whoever may write to a directory may rename what is in it, save in a sticky one like /tmp; its
    owner may in any case, and counts if ``by_owners``.  Where the way leads over links, it is the
    directories that count.  In a user namespace of one's own strangers cannot be told from root:
    ask before.
    """
    root = os.stat("/").st_uid  # it has another number where the host's root is not mapped
    above = os.path.realpath(path)
    while above != "/":
        above = os.path.dirname(above)
        try:
            found = os.stat(above)
        except FileNotFoundError:
            continue
        if found.st_mode & 0o002 and not found.st_mode & 0o1000:
            mode = found.st_mode & 0o7777
            return f"everybody may rename what is in {above} (mode {mode:04o})"
        if by_owners and found.st_uid not in (root, 0, os.getuid()):
            return f"{above} belongs to uid {found.st_uid}, who may rename what is in it"
    return ""


def _check_directory(path: str) -> None:
    try:
        found = os.lstat(path)
    except OSError as error:
        raise EngineError(f"cannot use {path}: {error.strerror}") from None
    hint = "remove it, or set XDG_RUNTIME_DIR to a directory of your own (mode 0700)"
    if found.st_mode & 0o170000 != 0o040000:
        raise EngineError(f"{path} is not a directory", hint=hint)
    if found.st_uid != os.getuid():
        raise EngineError(f"{path} belongs to uid {found.st_uid}, not to you", hint=hint)
    if found.st_mode & 0o077:
        raise EngineError(
            f"{path} is open to other users (mode {found.st_mode & 0o7777:04o})",
            hint=f"chmod 700 {path}",
        )


def node_cache(environ: Mapping[str, str]) -> str:
    """Where a node keeps what a user's steps have sent there (agent/cache.py), not made.

    To be asked before a user namespace is entered.  Raises EngineError for one that cannot be.
    """
    named = environ.get(NODE_CACHE, "")
    if named and not named.startswith("/"):
        raise EngineError(
            f"{NODE_CACHE}={named}: not an absolute path", hint="name a local directory"
        )
    return named or f"/var/tmp/roadstead-{os.getuid()}"
