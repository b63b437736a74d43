"""A private engine: directories, environment and commands of one test, and the end of it.

All of it lies in one directory with a short name (a socket's path has 107 bytes), readable by its
account alone:

    home/ config/ cache/ state/     $HOME and the XDG directories
    run/                            $XDG_RUNTIME_DIR
    tmp/                            $TMPDIR
    work/                           where commands start

The end, in this order: the controller is asked to stop, what is left is looked for, then killed.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import IO, Any

from tests.support import leaks
from tests.support.account import Account, Argv, Completed, Variables, finish
from tests.support.product import COMMANDS, Product


def make_shims(product: Product, account: Account) -> Path:
    """A directory with the commands, as `roadstead shims` writes them, for one account."""
    folder = Path(tempfile.mkdtemp(prefix=f"{leaks.PREFIX}bin-", dir="/tmp"))
    folder.chmod(0o755)
    account.own(folder)
    product.roadstead(account, "shims", folder).check()
    absent = [name for name in COMMANDS if not os.access(folder / name, os.X_OK)]
    assert not absent, f"`roadstead shims` did not write {absent}"
    return folder


def make_base(account: Account) -> Path:
    """A test's directory."""
    base = Path(tempfile.mkdtemp(prefix=leaks.PREFIX, dir="/tmp"))
    for name in ("home", "config", "cache", "state", "run", "tmp", "work"):
        (base / name).mkdir(mode=0o700)
    return account.own(base)


class Engine:
    """Commands with an engine of their own; without the product if `shims` is None."""

    def __init__(self, account: Account, shims: Path | None, base: Path) -> None:
        self.account = account
        self.shims = shims
        self.base = base
        self.home = base / "home"
        self.work = base / "work"
        self.state = base / "state"
        self.runtime = base / "run"
        self.mark = leaks.Mark()
        self.watch = leaks.Watch(account, self.mark, base)
        # A test that leaves something on purpose says so; it is killed all the same.
        self.leaks_are_expected = False
        self.variables = self._variables()

    def _variables(self) -> dict[str, str]:
        path = self.account.environment["PATH"]
        return {
            "HOME": os.fspath(self.home),
            "PATH": f"{self.shims}:{path}" if self.shims else path,
            "TERM": "dumb",
            "TMPDIR": os.fspath(self.base / "tmp"),
            "TZ": "UTC",
            "XDG_CACHE_HOME": os.fspath(self.base / "cache"),
            "XDG_CONFIG_HOME": os.fspath(self.base / "config"),
            "XDG_RUNTIME_DIR": os.fspath(self.runtime),
            "XDG_STATE_HOME": os.fspath(self.state),
        }

    def popen(
        self,
        argv: Argv,
        *,
        env: Variables | None = None,
        cwd: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> Any:
        """Start a command (a `Popen[str]`); the options are Popen's."""
        with self.mark.inherited() as marks:
            return self.account.popen(
                argv,
                env={**self.variables, **marks, **(env or {})},
                cwd=cwd or self.work,
                **options,
            )

    def run(
        self,
        argv: Argv,
        *,
        env: Variables | None = None,
        cwd: str | os.PathLike[str] | None = None,
        stdin: str | int | IO[Any] | None = None,
        timeout: float = 60,
    ) -> Completed:
        """Run a command to its end."""
        with self.mark.inherited() as marks:
            return self.account.run(
                argv,
                env={**self.variables, **marks, **(env or {})},
                cwd=cwd or self.work,
                stdin=stdin,
                timeout=timeout,
            )

    def finish(self, process: Any, *, typed: str | None = None, timeout: float = 60) -> Completed:
        """Wait for a command that `popen` started."""
        return finish(process, typed=typed, timeout=timeout)

    def processes(self) -> list[leaks.Process]:
        """The living descendants of everything that was started here, the controller's included."""
        return leaks.processes(self.mark)

    def stop(self) -> Completed:
        """Ask the controller to end."""
        return self.run(["roadstead", "engine", "stop", "--now"], timeout=30)

    def close(self) -> None:
        """The end, once; an assertion fails if something was left behind."""
        if not self.base.exists():
            return
        found: list[leaks.Leak] = []
        crashes = ""
        try:
            if self.shims:
                self.stop()
                crashes = self._crashes()
            if not self.leaks_are_expected:
                found = self.watch.settled()
        finally:
            leaks.kill(self.mark, [self.base])
            if found or self.leaks_are_expected:
                self.watch.remove_cgroups()
            leaks.remove(self.base)
        assert not found, f"left behind:\n{leaks.as_table(found)}"
        assert not crashes, f"the controller has crashed, and was started again:\n{crashes}"

    def _crashes(self) -> str:
        """What the controllers' logs have of mistakes of ours."""
        logs = [path.read_text(errors="replace") for path in self.state.glob("**/controller.log*")]
        return "\n".join(
            text[text.index("Traceback") :][:4000] for text in logs if "Traceback" in text
        )
