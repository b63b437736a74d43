"""A client's virtual environment, and programs that run in it against a test's engine.

The commands are first on PATH, then the client's own programs; jobs start with what the client
gives them, as on a cluster.
"""

from __future__ import annotations

import json
import os
import textwrap
from pathlib import Path

from tests.support.account import Completed
from tests.support.bundle import make_host_bundle
from tests.support.components import client_python
from tests.support.engine import Engine
from tests.support.skips import require
from tests.support.waiting import eventually


def _semaphores() -> set[Path]:
    return set(Path("/dev/shm").glob("sem.mp-*"))


class Environment:
    """The dependency group clients-`name` of pyproject.toml, as `engine`'s account uses it."""

    def __init__(self, engine: Engine, name: str) -> None:
        require(f"clients-{name}")
        self.engine = engine
        self.python = client_python(name)
        self.place = self.python.parents[1]
        self._before = _semaphores()

    def close(self) -> None:
        """The end.  A client may have what it wanted before its job has ended, and an srun whose
        controller is stopped starts another.  Python's semaphores are left behind by workers that
        are ended by a signal."""
        self.engine.run(["scancel", "--me"])
        eventually(lambda: not self.engine.run(["squeue", "-h"]).stdout, timeout=30)
        self.engine.stop()
        for path in _semaphores() - self._before:
            path.unlink(missing_ok=True)

    def call(self, *argv: str | os.PathLike[str], timeout: float = 120) -> Completed:
        """Run a program of the environment to its end."""
        path = f"{self.engine.shims}:{self.python.parent}:{self.engine.account.environment['PATH']}"
        # Clients leave things in their $TMPDIR, and the engine's is looked through for ours.
        temporary = self.engine.work / "tmp"
        if not temporary.exists():
            self.engine.account.mkdir(temporary)
        variables = {"PATH": path, "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(temporary)}
        return self.engine.run(argv, env=variables, timeout=timeout)

    def run(self, text: str, *arguments: str, timeout: float = 120) -> Completed:
        """Run a program of the test's."""
        program = self.write("program.py", text)
        return self.call(self.python, program, *arguments, timeout=timeout).check()

    def write(self, name: str, text: str, mode: int = 0o644) -> Path:
        """A file in the directory where programs start."""
        return self.engine.account.write(self.engine.work / name, textwrap.dedent(text), mode)

    def bundle(self) -> Path:
        """A container of this machine's programs and this environment."""
        require("busybox", "crun")
        place = self.engine.base / "bundle"
        bundle = make_host_bundle(self.engine.account, place, [self.place])
        (bundle / "rootfs" / ".in-the-container").touch()
        config = bundle / "config.json"
        written = json.loads(config.read_text())
        # Workers look for who started them by the name of this machine.
        names = f"127.0.0.1 localhost {os.uname().nodename} {written['hostname']}\n"
        (bundle / "rootfs" / "etc" / "hosts").write_text(names)
        path = f"PATH={self.python.parent}:"
        variables = written["process"]["env"]
        written["process"]["env"] = [each.replace("PATH=", path) for each in variables]
        config.write_text(json.dumps(written))
        return bundle
