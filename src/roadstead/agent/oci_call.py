"""What slurmstepd asks of ``roadstead oci``: its command line."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from roadstead.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMAND: Final = "roadstead oci"
USAGE: Final = """\
Usage: roadstead oci run|create --bundle DIR [OPTIONS] ID
       roadstead oci start|state ID
       roadstead oci kill ID [SIGNAL]
       roadstead oci delete [--force] ID

For oci.conf: `roadstead engine oci-conf` prints one.  ID ends with .JOB.STEP.TASK

  --bundle DIR          the bundle that Slurm has made (%b)
  --user USER           whose container it is (%u); root becomes that user
  --root DIR            where containers are kept track of (default /tmp)
  --slurm VERSION       the Slurm that calls: before 23.02 task variables are computed
  --runtime PROGRAM     crun or runc, a name or a path (default: the first on PATH)
  --container-system NAME   have a container system run it (docs/systems.md)
  --writable private    each container has a writable layer of its own
  --hooks drop|run|refuse   hooks that came with the bundle (default drop)
  --workdir DIR         start there, where that is a directory in the container
  --output FILE         for create: where the output of a srun step goes
"""
_OPTIONS: Final = (
    *("bundle", "user", "root", "slurm", "runtime", "writable", "hooks", "workdir", "output"),
    "container-system",
)
_CHOICES: Final = {"writable": ("bundle", "private"), "hooks": ("drop", "run", "refuse")}
_VERBS: Final = ("run", "create", "start", "state", "kill", "delete")
_LONGEST: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What was asked for.  ``cleans_up``: by root for a user, as at the end of a step."""

    verb: str
    name: str
    options: dict[str, str]
    signal: str = "TERM"
    force: bool = False
    cleans_up: bool = False

    @property
    def numbers(self) -> tuple[int, int, int] | None:
        """Job, step and task; None where the name does not end with them."""
        words = self.name.split(".")[-3:]
        if len(words) < 3 or not all(word.isascii() and word.isdigit() for word in words):
            return None
        return int(words[0]), int(words[1]), int(words[2])

    @property
    def directories(self) -> str:
        """Where this user's containers are kept track of."""
        return f"{self.options.get('root', '/tmp')}/roadstead-{os.getuid()}/oci"

    @property
    def directory(self) -> str:
        return f"{self.directories}/{self.name}"


def parse(argv: Sequence[str]) -> Call | None:
    """The meaning of a command line; None for --help.  Raises UsageError."""
    options: dict[str, str] = {}
    operands: list[str] = []
    force = False
    words = list(argv)
    while words:
        word = words.pop(0)
        if word in ("-h", "--help"):
            return None
        if word in ("-f", "--force"):
            force = True
        elif word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            if name not in _OPTIONS:
                raise UsageError(f"unknown option --{name}", hint="roadstead oci --help")
            if not equals:
                if not words:
                    raise UsageError(f"--{name} needs a value", hint="roadstead oci --help")
                value = words.pop(0)
            if name in _CHOICES and value not in _CHOICES[name]:
                raise UsageError(f"--{name}={value}: one of {', '.join(_CHOICES[name])}")
            options[name] = value
        else:
            operands.append(word)
    return _call(operands, options, force=force)


def _call(operands: list[str], options: dict[str, str], *, force: bool) -> Call:
    verb = operands[0] if operands else ""
    if verb not in _VERBS:
        raise UsageError(
            f"unknown command {verb}" if verb else "no command", hint="roadstead oci --help"
        )
    rest = operands[1:]
    if not rest or len(rest) > 1 + (verb == "kill"):
        raise UsageError(f"{verb} takes the container's ID", hint="roadstead oci --help")
    name = rest[0]
    if not name or name.startswith(".") or len(name) > _LONGEST or not _is_plain(name):
        raise UsageError(f"{name!r:.80} is not a container's ID")
    if verb in ("run", "create") and not options.get("bundle"):
        raise UsageError(f"{verb} needs --bundle", hint="write --bundle %b in oci.conf")
    if not options.get("root", "/").startswith("/"):
        raise UsageError(f"--root={options['root']}: not an absolute path")
    return Call(
        verb=verb, name=name, options=options, signal=(rest[1:] or ["TERM"])[0], force=force
    )


def _is_plain(name: str) -> bool:
    return name.isascii() and all(each.isalnum() or each in "._+-@" for each in name)


def say(sentence: str) -> None:
    """A line on standard error, whoever reads it."""
    try:
        os.write(2, f"{COMMAND}: {sentence}\n".encode(errors="surrogateescape"))
    except OSError:
        return  # nobody
