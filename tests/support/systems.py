"""What container systems need to run in a test's own directories, and what they may not leave."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from tests.support import engines
from tests.support.engine import Engine
from tests.support.skips import require

# system → the component that brings it.
INSTALLED: Final = {"charliecloud": "charliecloud", "podman": "podman", "bubblewrap": "bwrap"}
# Those of which can be told whether the program was started.
TELLING: Final = ("charliecloud", "podman", "bubblewrap", "docker")


@contextlib.contextmanager
def ready(system: str, engine: Engine) -> Iterator[dict[str, str]]:
    """The variables with which the system keeps to the engine's directories."""
    require(INSTALLED[system])
    if system != "podman":
        yield {}
        return
    env = engines.settings(engine)
    try:
        yield env
    finally:
        engines.remove(engine, env)


def nothing_is_kept(system: str, engine: Engine, env: dict[str, str]) -> None:
    """No container is known to the system itself any more."""
    if system in ("podman", "docker"):
        listed = engine.run([system, "ps", "--all", "--quiet"], env=env).check()
        assert listed.stdout == ""
