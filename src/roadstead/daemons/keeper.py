"""The keeper of a daemon: a task of a step that a job has for this, one a node.

It starts the daemon, waits until that answers, gives it its images, and says ``ready ADDRESS`` on
its standard output.  It ends when its standard input does, whose other end is held by what the
daemon is for, or by SIGTERM; then the daemon is told to end, with all of its containers, and what
it had is removed.  What that is stands in the keeper's claim from before it is made
(step/record.py): of a keeper that is killed the supervisor, or the next one's sweep, removes it.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from collections.abc import Callable, Mapping
from typing import Final

from roadstead.core.jsonform import from_json
from roadstead.daemons.kinds import KINDS, Places, search_path
from roadstead.daemons.model import Seed, Wanted
from roadstead.errors import LaunchError, RoadsteadError
from roadstead.host import fork, linux, network, paths, process, removal
from roadstead.host.loop import Loop
from roadstead.images.export import export
from roadstead.images.reference import parse
from roadstead.images.store import Store
from roadstead.step import processes, record, sweep
from roadstead.step.life import Life, Lives, Until

_PATIENCE: Final = 120.0  # for a daemon's first answer
_PAUSE: Final = 0.01
_GRACE: Final = 2.5  # for its end, and that of its containers
_DEATH_SECONDS: Final = 10.0
_TAIL: Final = 2000
_SIGNALS: Final = (1, 2, 15)  # SIGHUP, SIGINT, SIGTERM


class Keeper:
    """One daemon, from its first file to its last."""

    def __init__(self, wanted: Wanted, step: str, environ: Mapping[str, str]) -> None:
        self._wanted = wanted
        self._kind = KINDS[wanted.option]
        self._step = step
        self._environ = environ
        self._directory = f"{step}/{record.INNER}/{self._kind.name}"
        self._data = f"{_disk_place()}/{os.path.basename(step)}.{wanted.token}"
        # Short: a socket's path has 107 bytes, and Podman wants no more than 50.
        self._run = f"/tmp/roadstead-{os.getuid()}-{wanted.token}"
        self._socket = f"{self._run}/{self._kind.name}.sock"
        self._files = [self._run, self._data]  # none where the daemon is another keeper's
        self._log = f"{self._directory}/log"
        self._loop = Loop()
        self._lives = Lives(self._loop)
        self._daemon: process.Child | None = None
        self._code = 0
        self._stopping = False

    def run(self) -> int:
        """Keep the daemon for as long as it is wanted; the exit code."""
        linux.set_child_subreaper()
        for signo in _SIGNALS:
            self._loop.on_signal(signo, self.stop)
        self._loop.watch(0, self._hung_up)
        try:
            self._kind.check(self._environ)
            if self._claim_place():
                self._begin()
            self._lives.start(self._bring_up(), self._is_up, self._failed)
            self._loop.run()
        except RoadsteadError as error:
            self._say(error)
        except OSError as error:
            where = f" {error.filename}" if error.filename else ""
            self._say(LaunchError(f"--{self._wanted.option}:{where} {error.strerror}"))
        self._clean()
        return self._code

    def _claim_place(self) -> bool:
        """Write down what is about to be made, and make the first of it; False where another node
        of the job's is this very machine, whose keeper was faster: its daemon is ours too."""
        os.makedirs(self._directory, mode=0o700)
        record.write_claim(self._directory, {"files": self._files, "containers": []})
        try:
            os.mkdir(self._run, 0o700)
        except FileExistsError:
            found = os.lstat(self._run)
            if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
                raise
            self._files.clear()
            record.write_claim(self._directory, {"files": [], "containers": []})
            return False
        return True

    def _begin(self) -> None:
        paths.make_private(os.path.dirname(os.path.dirname(self._data)))
        paths.make_private(os.path.dirname(self._data))
        os.mkdir(self._data, 0o700)
        places = Places(self._socket, self._run, f"{self._data}/root")
        os.mkdir(places.data, 0o700)
        argv, own = self._kind.command(places, self._environ)
        env = {
            **self._environ,
            **own,
            "PATH": search_path(self._environ),
            "XDG_RUNTIME_DIR": places.run,
            "XDG_DATA_HOME": self._data,
            "TMPDIR": self._data,
        }
        if not os.path.isdir(env.get("HOME", "")):
            env["HOME"] = self._data
        for name in ("DOCKER_HOST", "CONTAINER_HOST", "NOTIFY_SOCKET"):
            env.pop(name, None)
        log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._daemon = process.spawn(argv, env=env, stdio=(null, log, log))
        finally:
            os.close(log)
            os.close(null)
        self._loop.watch(self._daemon, self._has_ended)

    # -- until it is ready ------------------------------------------------------------------------

    def _bring_up(self) -> Life[None]:
        """Wait for the daemon's first answer, and load the images.  Raises LaunchError."""
        status = yield Until(self._child(self._first_answer), _PATIENCE)
        if status is None:
            raise LaunchError(f"--{self._wanted.option}: no answer in {_PATIENCE:g} s")
        if status and not self._stopping:
            raise LaunchError(f"--{self._wanted.option}: no answer")
        for seed in self._wanted.seeds if self._files else ():
            status = yield Until(self._child(lambda seed=seed: self._load(seed)))  # type: ignore[misc]
            if status and not self._stopping:
                raise LaunchError(f"--{self._wanted.option}-image: {seed.name} cannot be loaded")

    def _child(self, body: Callable[[], object]) -> process.Child:
        return process.adopt(fork.run_in_child(body))

    def _first_answer(self) -> None:
        self._leave_loop()
        # It is made, its mode is set, and then somebody listens: of the last nothing tells.
        events = linux.IN_CREATE | linux.IN_MOVED_TO | linux.IN_ATTRIB
        watch = linux.FileWatch(self._run, events)
        while (why_not := network.listens(self._socket)) != 0:
            if why_not == errno.ECONNREFUSED:
                time.sleep(_PAUSE)
            else:
                watch.wait()
        why = network.ask_local(self._socket, "GET", "/_ping")
        os.write(2, f"{why}\n".encode() if why else b"")
        os._exit(1 if why else 0)

    def _load(self, seed: Seed) -> None:
        self._leave_loop()
        path, *others = seed.store.split(":")
        store = Store(path, others=tuple(others))
        archive = f"{self._data}/seed.tar"
        target = parse(f"docker-archive:{archive}:{seed.name}", self._data)
        export(store.load(seed.digest), target, store)
        why = network.ask_local(self._socket, "POST", "/images/load?quiet=1", archive)
        os.unlink(archive)
        if why:
            os.write(2, f"{seed.name}: {why}\n".encode())
        os._exit(1 if why else 0)

    def _leave_loop(self) -> None:
        """A child has signals as any program has."""
        self._loop.close()

    def _is_up(self, _: None) -> None:
        if not self._stopping:
            os.write(1, f"ready unix://{self._socket}\n".encode())

    def _failed(self, error: RoadsteadError) -> None:
        if not self._stopping:
            self._say(error)
            self.stop()

    # -- the end ----------------------------------------------------------------------------------

    def _hung_up(self) -> None:
        """Nobody writes here: what is readable is the end."""
        if not os.read(0, 4096):
            self._loop.unwatch(0)
            self.stop()

    def stop(self) -> None:
        """Have the daemon end, and all that it has started."""
        if self._stopping:
            return
        self._stopping = True
        if self._daemon is None:
            self._loop.stop()
            return
        self._daemon.signal(process.TERM)
        self._loop.call_later(_GRACE, self._loop.stop)

    def _has_ended(self) -> None:
        assert self._daemon is not None
        self._loop.unwatch(self._daemon)
        self._daemon.reap()
        if not self._stopping:
            self._say(LaunchError(f"--{self._wanted.option}: the daemon has ended: {self._tail()}"))
            self._stopping = True
        self._loop.stop()

    def _tail(self) -> str:
        try:
            with open(self._log, "rb") as file:
                file.seek(max(0, os.path.getsize(self._log) - _TAIL))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            return "it has said nothing"
        said = [line for line in lines if line and not line.startswith("+")]
        return said[-1] if said else "it has said nothing"

    def _say(self, error: RoadsteadError) -> None:
        self._code = error.exit_code
        hint = f"; {error.hint}" if error.hint else ""
        os.write(2, f"roadstead: error: {error}{hint}\n".encode())

    def _clean(self) -> None:
        processes.end_below(self._step, _DEATH_SECONDS)
        if os.path.isdir(self._directory):
            sweep.remove_claimed({"files": self._files})
            removal.remove_tree(self._directory)


def _disk_place() -> str:
    temporary = os.environ.get("TMPDIR", "")
    if not temporary.startswith("/"):
        temporary = "/var/tmp"
    return f"{temporary}/roadstead-{os.getuid()}/daemons"


def main(argv: list[str]) -> int:
    """Keep the daemon that ``argv[0]``, JSON, describes."""
    linux.set_process_name("roadstead-keep")
    wanted = from_json(Wanted, json.loads(argv[0]))
    step = os.environ.get(record.MARK, "")
    if not step:
        os.write(2, b"roadstead: error: this is not a step of a job\n")
        return 1
    return Keeper(wanted, step, os.environ).run()
