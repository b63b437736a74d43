"""What agents write down of their tasks, for `roadstead jobs`: that one begins, and how it ended.

    PLACE/YYYY-MM-DD/NODE           a line of JSON at each of the two; the day is UTC's

PLACE is the submitter's (engines/slurm/accounting.py), where the node sees it: its name is not to
be guessed, so what has it is that directory.  Where the node does not, it is records/ of what the
user has on the node (cache.py), and is copied from there when the node is looked at.

A file a day and node is few of them, however many tasks there are: homes have a quota of files.
Each line is one write(2) to the end, and those of one host do not mix, on NFS neither.  What a task
begins is written before anything is made for it; who is killed with all of its step ends without a
line, and Slurm knows how.  A line that cannot be written is no reason to end a task.

``answer`` is a node's part in the copying: a file only grows, so whoever has its first N bytes
needs those from N on.
"""

from __future__ import annotations

import contextlib
import json
import os
import time

from roadstead.errors import RoadsteadError
from roadstead.host import files, paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final

DAYS: Final = 30  # that are kept
MOST_BYTES: Final = 256 << 10  # of one file in an answer
_DAY_SECONDS: Final = 86400
_OWN: Final = "records"  # the directory of a node that does not see the submitter's


def day(at: float) -> str:
    """The day that a moment is in, as directories are called."""
    return time.strftime("%Y-%m-%d", time.gmtime(at))


def days_between(begin: float, end: float) -> list[str]:
    """The days of a time, the last one first."""
    count = int(end // _DAY_SECONDS - begin // _DAY_SECONDS) + 1
    return [day(end - back * _DAY_SECONDS) for back in range(count)]


class Task:
    """A task, from its begin to its end.

    ``told`` is the request's part (request.py): ``records`` is PLACE, ``staged`` what was sent.
    """

    def __init__(self, told: Mapping[str, Any], environ: Mapping[str, str], verb: str) -> None:
        """It begins."""
        number = environ.get
        self._places = [str(told.get("records") or ""), _on_node(environ)]
        self._node = environ.get("SLURMD_NODENAME") or os.uname().nodename
        self._key = {
            "cluster": number("SLURM_CLUSTER_NAME", ""),
            "job": _number(number("SLURM_JOB_ID", "")),
            "step": "batch" if verb == "batch" else _step(number("SLURM_STEP_ID", "")),
            "task": _number(number("SLURM_PROCID", "")),
            "restart": _number(number("SLURM_RESTART_COUNT", "")),
        }
        options = told.get("options") or {}
        about: dict[str, Any] = {
            "container": options.get("container", ""),
            "image": (told.get("image") or {}).get("digest", ""),
            "staging": told.get("staging") or {},
            "name": number("SLURM_JOB_NAME", ""),
        }
        if "SLURM_ARRAY_JOB_ID" in environ:
            about["array"] = f"{number('SLURM_ARRAY_JOB_ID')}_{number('SLURM_ARRAY_TASK_ID', '')}"
        self._write("begin", about)

    def exited(self, status: int) -> None:
        """The program has ended with this wait status, minus a signal's number."""
        code, signal = (128 - status, -status) if status < 0 else (status, 0)
        self._write("end", {"code": code, "signal": signal, "reason": "program"})

    def failed(self, error: RoadsteadError) -> None:
        """It could not be run."""
        reason = "runtime" if error.kind == "runtime" else "launch"
        self._write(
            "end",
            {
                "code": error.exit_code, "signal": 0, "reason": reason,
                "message": str(error), "hint": error.hint,
            },
        )  # fmt: skip

    def _write(self, event: str, more: Mapping[str, Any]) -> None:
        at = time.time()
        said = {"event": event, **self._key, "node": self._node, "at": at, **more}
        line = json.dumps(said, separators=(",", ":"))  # as whoever looks for a job expects it
        for place in self._places:
            # Whatever is wrong there (a quota, somebody else's directory), the task goes on.
            with contextlib.suppress(OSError, RoadsteadError):
                if place and _append(place, day(at), self._node, f"{line}\n".encode()):
                    return


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


def _step(text: str) -> str:
    names = {"4294967291": "batch", "4294967290": "interactive"}
    return names.get(text, text or "0")


def _on_node(environ: Mapping[str, str]) -> str:
    """Where a node keeps them that does not see the submitter's."""
    try:
        return f"{paths.node_cache(environ)}/{_OWN}"
    except RoadsteadError:
        return ""


def _append(place: str, today: str, node: str, line: bytes) -> bool:
    """Write a line; whether the place was there.  Raises OSError, EngineError."""
    own = os.path.basename(place) == _OWN
    if own and os.path.isdir(place):
        paths.check_private(os.path.dirname(place))
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    path = f"{place}/{today}/{node}"
    try:
        fd = os.open(path, flags, 0o600)
    except FileNotFoundError:
        if own:
            paths.make_private(os.path.dirname(place))
            paths.make_private(place)
        elif not os.path.isdir(place):
            return False
        begin_day(place, today)
        fd = os.open(path, flags, 0o600)
    try:
        os.write(fd, line)
    finally:
        os.close(fd)
    return True


def begin_day(place: str, today: str) -> None:
    """Make a day's directory, and remove those that are too old."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(f"{place}/{today}", 0o700)
    oldest = day(time.time() - DAYS * _DAY_SECONDS)
    for name in os.listdir(place):
        if name < oldest:
            files.remove_tree(f"{place}/{name}")


def answer(copied: Mapping[str, int], node: str, environ: Mapping[str, str]) -> dict[str, str]:
    """What a node has behind what was copied of it: of each DAY/NODE so many bytes."""
    found = {}
    for name, have in copied.items():
        today, _, of = name.partition("/")
        if of != node:
            continue
        with contextlib.suppress(OSError):
            with open(f"{_on_node(environ)}/{today}/{node}", "rb") as file:
                file.seek(have)
                data = file.read(MOST_BYTES)
            found[name] = data[: data.rfind(b"\n") + 1].decode("latin-1")
    return found
