"""What can go wrong, as one tree; each class owns the exit code that its command ends with.

    RoadsteadError            a user can act on it: one sentence, no traceback          exit 1
    ├─ UsageError             the command line is wrong          exit 255 (launch commands), else 1
    ├─ RequestError           the request can never be met here                         exit 1
    ├─ ConfigError            a configuration file is wrong; names file and line        exit 1
    ├─ EngineError            the engine cannot be reached, or is not ours              exit 1
    ├─ BundleError            the container bundle is unusable                          exit 1
    ├─ ImageError             the image cannot be found, read, trusted or stored        exit 1
    └─ LaunchError            a task could not be started
       ├─ CommandNotFound     not there, on the host or in the container                exit 127
       ├─ CommandNotRunnable  there, and not executable                                 exit 126
       └─ RuntimeFailure      the OCI runtime failed, timed out or is missing           exit 125

A sentence says what, where, and what to type next: lower case, no full stop.  ``hint`` is printed
after it, on the same line.  Anything that is not a RoadsteadError is our bug and shows its
traceback.

125 is what docker, podman and GNU env use for a failure that is not the program's own; the full
contract is in docs/exit-codes.md.
"""

from __future__ import annotations


class RoadsteadError(Exception):
    """A failure the user can act on: ``str(error)`` is the sentence, ``hint`` what to do."""

    exit_code = 1
    kind = "roadstead"

    def __init__(self, sentence: str, *, hint: str = "") -> None:
        super().__init__(sentence)
        self.hint = hint


class UsageError(RoadsteadError):
    """The command line cannot be understood."""

    kind = "usage"


class RequestError(RoadsteadError):
    """Understood, and impossible: more than the machine has, or something we refuse."""

    kind = "request"


class ConfigError(RoadsteadError):
    """A configuration file cannot be used; ``line`` counts from 1, 0 is the file as a whole."""

    kind = "config"

    def __init__(self, sentence: str, *, path: str = "", line: int = 0, hint: str = "") -> None:
        where = f"{path}:{line}: " if path and line else f"{path}: " if path else ""
        super().__init__(f"{where}{sentence}", hint=hint)
        self.path = path
        self.line = line


class EngineError(RoadsteadError):
    """The controller cannot be started, reached or trusted."""

    kind = "engine"


class BundleError(RoadsteadError):
    """The bundle directory or its config.json is unusable."""

    kind = "bundle"


class ImageError(RoadsteadError):
    """The image cannot be found, read, trusted or stored."""

    kind = "image"


class LaunchError(RoadsteadError):
    """A task of the step could not be started."""

    kind = "launch"


class CommandNotFound(LaunchError):
    """The program is not there (in the container, when the task is contained)."""

    exit_code = 127
    kind = "not-found"


class CommandNotRunnable(LaunchError):
    """The program is there and cannot be executed."""

    exit_code = 126
    kind = "not-executable"


class RuntimeFailure(LaunchError):
    """The OCI runtime itself failed, did not answer in time, or is not installed."""

    exit_code = 125
    kind = "runtime"


_KINDS: dict[str, type[RoadsteadError]] = {
    cls.kind: cls
    for cls in (
        RoadsteadError,
        UsageError,
        RequestError,
        ConfigError,
        EngineError,
        BundleError,
        ImageError,
        LaunchError,
        CommandNotFound,
        CommandNotRunnable,
        RuntimeFailure,
    )
}


def from_kind(kind: str, sentence: str, hint: str = "") -> RoadsteadError:
    """The error that travelled over a socket or in an exit record as its ``kind``."""
    return _KINDS.get(kind, RoadsteadError)(sentence, hint=hint)
