"""What can be seen of directories, limits and the engine."""

from __future__ import annotations

import os
import resource
import select
from typing import Final

from roadstead import __version__
from roadstead.doctor import facts
from roadstead.doctor.probes import Context, kind_of, nearest
from roadstead.errors import EngineError
from roadstead.host import paths, wire

_ANSWER_MS: Final = 5000
_LOGIND: Final = (
    "/usr/lib/systemd/logind.conf.d",
    "/run/systemd/logind.conf.d",
    "/etc/systemd/logind.conf",
    "/etc/systemd/logind.conf.d",
)


# -- directories -----------------------------------------------------------------------------------


def state_disk(context: Context) -> facts.Disk:
    return _disk("state", context.state)


def runtime_disk(context: Context) -> facts.Disk:
    return _disk("runtime", context.runtime)


def _disk(what: str, path: str) -> facts.Disk:
    at = nearest(path)
    found = os.statvfs(at)
    return facts.Disk(
        what="state" if what == "state" else "runtime",
        path=path,
        kind=kind_of(at),
        free=found.f_bavail * found.f_frsize,
        inodes=found.f_favail if found.f_files else None,
        writable=os.access(at, os.W_OK | os.X_OK),
        noexec=bool(found.f_flag & os.ST_NOEXEC),
    )


def runtime_directory(context: Context) -> facts.RuntimeDirectory:
    xdg = context.environ.get("XDG_RUNTIME_DIR", "")
    path = context.runtime
    exists = xdg.startswith("/") and os.path.isdir(xdg)
    owner, mode = -1, 0
    if exists:
        found = os.stat(xdg)
        owner, mode = found.st_uid, found.st_mode & 0o7777
    error = ""
    if os.path.lexists(path):
        try:
            paths.check_private(path)
        except EngineError as failed:
            error = str(failed)
    above = nearest(os.path.dirname(path))
    over = os.stat(above)
    safe = over.st_uid in (0, context.uid) and (
        not over.st_mode & 0o022 or bool(over.st_mode & 0o1000)
    )
    return facts.RuntimeDirectory(
        uid=context.uid,
        xdg=xdg,
        exists=exists,
        owner=owner,
        mode=mode,
        path=path,
        error=error,
        above=above,
        sticky=safe,
    )


# -- limits of the session -------------------------------------------------------------------------


def open_files(context: Context) -> facts.OpenFiles:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return facts.OpenFiles(soft=soft, hard=hard)


def processes(context: Context) -> facts.Processes:
    """RLIMIT_NPROC counts threads (getrlimit(2))."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    used = 0
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            if os.stat(f"/proc/{name}").st_uid == context.uid:
                used += len(os.listdir(f"/proc/{name}/task"))
        except OSError:
            continue  # it has ended
    return facts.Processes(uid=context.uid, limit=limit, used=used)


# -- the engine ------------------------------------------------------------------------------------


def controller(context: Context) -> facts.Controller:
    """Ask it who it is; it is not started for that."""
    try:
        connection = wire.connect(paths.socket_path(context.runtime))
    except (FileNotFoundError, ConnectionRefusedError):
        return facts.Controller(state="none")
    except (EngineError, OSError) as error:
        return facts.Controller(state="error", error=str(error))
    pid = connection.peer_pid()
    try:
        connection.send({"v": wire.VERSION, "op": "ping"})
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        if not poll.poll(_ANSWER_MS):
            return facts.Controller(state="silent", pid=pid)
        received = connection.receive()
    except (OSError, ValueError) as error:
        return facts.Controller(state="error", pid=pid, error=str(error))
    finally:
        connection.close()
    if received is None:
        return facts.Controller(state="none")  # it was about to end
    answer, fds = received
    fds.close()
    if answer.get("event") == "error":
        return facts.Controller(state="error", pid=pid, error=str(answer.get("sentence")))
    version = str(answer.get("version", "unknown"))
    return facts.Controller(state="answers", pid=pid, version=version, ours=__version__)


def log(context: Context) -> facts.Log:
    path = f"{context.state}/controller.log"
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW))
    except FileNotFoundError:
        at = nearest(context.state)
        writable = os.access(at, os.W_OK | os.X_OK)
        return facts.Log(path=path, exists=False, error="" if writable else f"{at} is not writable")
    except OSError as error:
        return facts.Log(path=path, exists=True, error=error.strerror or str(error))
    return facts.Log(path=path, exists=True)


def lingering(context: Context) -> facts.Lingering:
    return facts.Lingering(
        systemd=os.path.isdir("/run/systemd/system"),
        uid=context.uid,
        user=context.user,
        linger=os.path.exists(f"/var/lib/systemd/linger/{context.user}"),
        kill=_kills_user_processes(),
        runtime=context.runtime,
    )


def _kills_user_processes() -> bool:
    """KillUserProcesses of logind.conf(5): the last file that sets it counts; the default is no in
    Debian and others that wish their users well."""
    answer = ""
    for path in _LOGIND:
        names = sorted(os.listdir(path)) if os.path.isdir(path) else [""]
        for each in (os.path.join(path, name) if name else path for name in names):
            answer = _setting(each, "KillUserProcesses") or answer
    return answer.lower() in ("yes", "true", "1", "on")


def _setting(path: str, name: str) -> str:
    found = ""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                key, _, value = line.partition("=")
                if key.strip() == name:
                    found = value.strip()
    except OSError:
        return ""
    return found
