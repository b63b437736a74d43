"""Docker with a daemon of root's: ``docker run`` in the foreground (docker-run(1)).

For members of the docker group, or with DOCKER_HOST.  Containers run below the daemon and not below
the step, so what the step would do by itself is asked of Docker: the CPUs and the memory of the
share, the removal.  The process inside always has the user's own ids, whatever the image says: a
root in there would be root of this machine.  So its signals are the step's to send; which processes
they are Docker tells, and each carries the step's mark.

The daemon sees no directory of the step's as an image: what runs is what it has itself.
"""

from __future__ import annotations

import os
from typing import Final

from roadstead.errors import LaunchError
from roadstead.host import process
from roadstead.host import program as programs
from roadstead.systems import Container, Start, System

_MARK: Final = b"ROADSTEAD_STEP_DIR="
_NEVER: Final = "0001-"  # the year in which what has not begun did


class Docker(System):
    """Docker 20.10 and later."""

    name = "docker"
    programs = ("docker",)
    package = "docker.io"
    own = ("docker-daemon",)
    keeps = ("DOCKER_",)
    nests = False
    takes_root = False
    own_statuses = frozenset({125, 126, 127})

    def __init__(self) -> None:
        self._pids: dict[str, int] = {}

    def check(self, program: str, container: Container) -> None:
        """See System."""
        if container.root and os.getuid() != 0:
            raise LaunchError(
                "--container-remap-root: with docker that would be root of this machine",
                hint="--container-system=podman, or leave out --container-system",
            )

    def start(self, program: str, container: Container) -> Start:
        """See System."""
        lines, others = container.variables()
        argv = [program, "run", f"--name={container.name}", "--interactive"]
        argv += ["--tty"] if container.terminal else []
        argv += ["--network=host", "--pull=never", "--log-driver=none"]
        argv += ["--security-opt=no-new-privileges", f"--user={os.getuid()}:{os.getgid()}"]
        if container.cpus:
            argv.append(f"--cpuset-cpus={','.join(map(str, container.cpus))}")
        if container.memory:
            argv += [f"--memory={container.memory}m", f"--memory-swap={container.memory}m"]
        for name, (soft, hard) in container.limits.items():
            argv.append(f"--ulimit={name}={soft}:{hard}")
        argv += ["--read-only"] if container.readonly else []
        for mount in container.mounts:
            words = [f"source={mount.source}", f"target={mount.destination}"]
            words += ["readonly"] if mount.readonly else []
            argv.append(f"--mount=type=bind,{','.join(map(_field, words))}")
        argv.append(f"--env-file={container.write('environment.docker', lines)}")
        argv += [f"--env={name}" for name in others]
        argv += [f"--workdir={container.cwd}"] if container.cwd != "/" else []
        argv += [f"--entrypoint={container.args[0]}", container.image, *container.args[1:]]
        return Start(argv, others)

    def remove(self, program: str, name: str) -> list[str] | None:
        """See System."""
        return [program, "rm", "--force", "--volumes", name]

    def first(self, program: str, container: Container) -> int:
        """See System."""
        found = self._pids.get(container.name, 0)
        if not found:
            said = self._ask(program, container, "{{.State.Pid}}")
            found = int(said) if said.isdigit() else 0
            if found and _MARK not in process.environment(found):
                return 0  # of another machine, or not the container's yet
            self._pids[container.name] = found
        return found

    def has_begun(self, program: str, container: Container) -> bool:
        """See System."""
        return not self._ask(program, container, "{{.State.StartedAt}}").startswith(_NEVER)

    @staticmethod
    def _ask(program: str, container: Container, what: str) -> str:
        command = [program, "inspect", "--type=container", f"--format={what}", container.name]
        status, said, _ = programs.answer(command, container.caller)
        if process.was_killed(status):  # by a signal that was for the whole step
            status, said, _ = programs.answer(command, container.caller)
        return _NEVER if status else said.decode(errors="replace").strip()


def _field(word: str) -> str:
    """A word of a list between commas, as encoding/csv reads it."""
    return '"' + word.replace('"', '""') + '"' if set(word) & set(',"') else word
