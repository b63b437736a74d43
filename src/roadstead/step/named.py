"""Containers that have a name: ``--container-name``, as Pyxis has it with ``container_scope=job``.

What is written to such a container is there in the job's later steps, and its steps and tasks share
it while they run: they see the same files, and have processes and mounts of their own.  It goes
when the job ends.  Names are the job's: two jobs may have the same.

    STATE/named/JOB/NAME     a link: the record, made first and removed last
    PLACE/JOB.NAME.TOKEN/    where it leads
        lock                 held (flock) by whoever enters or leaves
        container.json       what it was made of; once this is there the container is
        users/PID.START      the supervisors that are in it, each with its step's directory
        layer/               what was written (host/overlay.py), or the copy

An overlay's upper directory can be mounted once at a time.  So the first step mounts it, in its own
namespace (host/namespaces.py), and a step that comes while others run joins theirs (decision 25).
That lasts as long as anybody is in it, and goes with the last one, however he goes.  Of a
supervisor that was killed the processes are ended before the layer is mounted again.

PLACE is on disk, and on this machine: homes are often on a network, whose file systems take no
overlay, and a container to which packages are added grows beyond what memory has room for.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from roadstead.errors import LaunchError
from roadstead.host import files, namespaces, overlay, paths, removal
from roadstead.step import record, sweep

if TYPE_CHECKING:
    from collections.abc import Callable

    from roadstead.core.model import ContainerRequest, StepSpec
    from roadstead.step.contents import Contents

_TOP: Final = "named"
PLUGINS: Final = ".plugins"  # no container's name begins so; plugins/job.py


def directory(state: str, job: int | str) -> str:
    """Where the records of a job's containers are, below the state directory."""
    return f"{state}/{_TOP}/{job}"


def jobs(state: str) -> list[str]:
    """The jobs that there are records of."""
    try:
        return [name for name in os.listdir(f"{state}/{_TOP}") if name.isdecimal()]
    except FileNotFoundError:
        return []


def remove(state: str, job: int) -> None:
    """End a job whose steps have all ended: its plugins hear of it, and then what it has had is
    removed."""
    records = directory(state, job)
    if os.path.lexists(f"{records}/{PLUGINS}"):
        from roadstead.plugins import alone  # which few jobs have

        alone.end(records)
    remove_all(records)


def remove_all(records: str) -> None:
    """Remove the containers that the records in a directory lead to, and then the records.

    Two may be at it, a controller that was killed and the one after it: the second waits.
    """
    try:
        lock = os.open(records, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in os.listdir(lock):  # of a directory that is gone by now: nothing
            link = f"{records}/{name}"
            if name == PLUGINS:
                removal.remove_tree(link)
                continue
            removal.remove_tree(os.readlink(link))
            os.unlink(link)
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(records)
    finally:
        os.close(lock)


def _place() -> str:
    temporary = os.environ.get("TMPDIR", "")
    if not temporary.startswith("/"):
        temporary = "/var/tmp"
    return f"{temporary}/roadstead-{os.getuid()}/{_TOP}"


class Named:
    """A container with a name, as one step uses it.

    ``open`` finds it or begins it and holds its lock; ``enter`` moves this process into it and lets
    go; ``leave`` is the end.
    """

    def __init__(self, path: str, request: ContainerRequest) -> None:
        self.path = path
        self.request = request
        self.root = f"{path}/layer/merged"
        self._lock = os.open(f"{path}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._user = f"{path}/users/{os.getpid()}.{record.start_time(os.getpid())}"
        self._copied = False
        self._is_new = True

    @classmethod
    def open(
        cls, request: ContainerRequest, spec: StepSpec, notice: Callable[[str], None]
    ) -> Named:
        """The container that a request names, its lock held.  ``request`` of it says what it is
        made of.  Raises LaunchError where it is not there, or must not be there."""
        records = directory(paths.state_directory(os.environ), spec.job_id)
        link = f"{records}/{request.name}"
        if not request.bundle and not os.path.lexists(link):
            raise _no_such(request)
        found = cls(_claim(records, link, spec.job_id, request.name), request)
        fcntl.flock(found._lock, fcntl.LOCK_EX)
        try:
            found._read(request, notice)
        except BaseException:
            found.close()
            raise
        return found

    @classmethod
    def look(cls, request: ContainerRequest, spec: StepSpec) -> ContainerRequest:
        """What ``open`` would make of the request, without opening anything."""
        records = directory(paths.state_directory(os.environ), spec.job_id)
        try:
            with open(f"{records}/{request.name}/container.json", encoding="utf-8") as file:
                made_of = json.load(file)
        except FileNotFoundError:
            if not request.bundle:
                raise _no_such(request) from None
            return request
        return _as_made(request, made_of)

    def _read(self, request: ContainerRequest, notice: Callable[[str], None]) -> None:
        made_of = self._made_of()
        if made_of is None:
            if not request.bundle:
                raise _no_such(request)
            if request.name_use == "exec":
                raise _not_running(request)
            return
        self._is_new = False
        if request.name_use == "create":
            raise LaunchError(
                f"--container-name={request.name}:create: the job has a container of this name",
                hint="leave out :create to use it, or choose another name",
            )
        if request.name_use == "exec" and not self._others():
            raise _not_running(request)
        self._copied = bool(made_of["copied"])
        before = _as_made(request, made_of)
        same = request.image == before.image if request.image else request.bundle == before.bundle
        if request.bundle and not same:
            notice(
                f"warning: container {request.name} was made of {before.bundle}: "
                f"{request.bundle} is not used"
            )
        self.request = before

    def enter(self, contents: Contents, *, hide: bool, spec: StepSpec) -> str:
        """Move this process to where the container's root is mounted, at ``root``; why that is a
        copy, if it is one.  Lets go of the lock.  Raises RuntimeFailure.

        The namespace has the user's subordinate ids, as a step that comes later may want them."""
        try:
            os.makedirs(os.path.dirname(self._user), mode=0o700, exist_ok=True)
            files.write_atomically(self._user, spec.directory)
            if not self._join(hide):
                ranges = namespaces.subordinate_ids(spec.user, spec.uid) if spec.uid else None
                namespaces.enter(ranges=ranges, hide_unified=hide)
                return self._mount(contents)
            return ""
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._user)
            raise
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _join(self, hide: bool) -> bool:
        """Go where another step is, if there is one."""
        for pid in self._others():
            with contextlib.suppress(OSError):
                pidfd = os.pidfd_open(pid)
                try:
                    if pid in self._others():  # else the number may be another's by now
                        namespaces.join(pidfd, hide_unified=hide)
                        return True
                finally:
                    os.close(pidfd)
        return False

    def _others(self) -> list[int]:
        """The supervisors in it that live.  What is left of others is ended, and forgotten."""
        found = []
        try:
            names = os.listdir(os.path.dirname(self._user))
        except FileNotFoundError:
            return []
        for name in names:
            path = f"{os.path.dirname(self._user)}/{name}"
            pid, _, started = name.partition(".")
            if path == self._user or not pid.isdecimal() or not started.isdecimal():
                continue
            if record.start_time(int(pid)) == started:
                found.append(int(pid))
                continue
            with open(path, encoding="utf-8") as file:
                sweep.sweep(file.read(), keep=True)
            os.unlink(path)
        return found

    def _mount(self, contents: Contents) -> str:
        layer, why = f"{self.path}/layer", ""
        if self._is_new and os.path.lexists(self.root):  # somebody was killed as he made it
            overlay.unmount_layer(layer)
            removal.remove_tree(layer)
        os.makedirs(layer, mode=0o700, exist_ok=True)
        if not self._copied:
            try:
                overlay.mount_in(contents.lowers, layer)
            except OSError as error:
                if not self._is_new:
                    raise LaunchError(
                        f"container {self.request.name} cannot be mounted: {error.strerror}"
                    ) from None
                why = error.strerror or str(error)
                removal.remove_tree(layer)
                os.mkdir(layer, 0o700)
                overlay.copy_in(contents.lowers, layer, why)
        if self._is_new:
            made_of = {
                "bundle": self.request.bundle,
                "image": self.request.image,
                "store": self.request.store,
                "copied": bool(why),
            }
            files.write_atomically(f"{self.path}/container.json", json.dumps(made_of))
        return why

    def _made_of(self) -> dict[str, Any] | None:
        try:
            with open(f"{self.path}/container.json", encoding="utf-8") as file:
                found: dict[str, Any] = json.load(file)
        except FileNotFoundError:
            return None
        return found

    def leave(self) -> None:
        """The step has ended; the last one takes the mount away, so that the next can have it."""
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._user)
        if not self._others():
            overlay.unmount_layer(f"{self.path}/layer")
        self.close()

    def close(self) -> None:
        """Let go of it without having entered it."""
        os.close(self._lock)


def _as_made(request: ContainerRequest, made_of: dict[str, Any]) -> ContainerRequest:
    return replace(
        request,
        bundle=made_of["bundle"],
        image=made_of["image"],
        store=made_of["store"] or request.store,
    )


def _claim(records: str, link: str, job: int, name: str) -> str:
    """The directory of the container; the first who links to one decides which it is."""
    os.makedirs(records, mode=0o700, exist_ok=True)
    place = _place()
    paths.make_private(os.path.dirname(place))
    paths.make_private(place)
    with contextlib.suppress(FileExistsError):
        os.symlink(f"{place}/{job}.{name}.{os.urandom(4).hex()}", link)
    found = os.readlink(link)
    with contextlib.suppress(FileExistsError):
        os.mkdir(found, 0o700)
    return found


def _no_such(request: ContainerRequest) -> LaunchError:
    return LaunchError(
        f"--container-name={request.name}: the job has no container of this name",
        hint="name the image that it is to be made of: --container-image=IMAGE",
    )


def _not_running(request: ContainerRequest) -> LaunchError:
    return LaunchError(
        f"--container-name={request.name}:exec: no step is running in it",
        hint="leave out :exec to start it",
    )
