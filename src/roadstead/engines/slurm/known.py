"""What is remembered of a cluster's nodes, so that not every step has to look at them again.

    STATE/clusters/KEY.json     {"all": [node, …],
                                 "nodes": {node: {"at", "agent", "settled", "sees": [place, …]}}}

STATE is $XDG_STATE_HOME/roadstead, KEY is of the slurm.conf in force and changes with it.  Of a
node it is known that containers could run there, which agent it has seen, where that has settled
there, and which *places* (file systems) it shares with this host.  That is believed for an hour; a
node that has changed meanwhile fails its own tasks, by name, and contained tasks only.
"""

from __future__ import annotations

import os
import time

from roadstead.engines import choice
from roadstead.host import paths, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, Final

BELIEVED_SECONDS: Final = 3600.0


class Nodes:
    """Of one cluster."""

    def __init__(self, path: str, told: dict[str, Any]) -> None:
        self._path = path
        self._all: list[str] = told.get("all", [])
        self._nodes: dict[str, dict[str, Any]] = told.get("nodes", {})

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Nodes:
        """What is known of the cluster that the environment names."""
        state = os.path.dirname(paths.state_directory(environ))
        path = f"{state}/clusters/{_key(environ)}.json"
        try:
            with open(path, encoding="utf-8") as file:
                return cls(path, wire.loads(file.read()))
        except (OSError, ValueError):
            return cls(path, {})

    @property
    def all(self) -> tuple[str, ...]:
        return tuple(self._all)

    def cover(self, nodes: Iterable[str], digest: str, wanted: Sequence[str]) -> bool:
        """Whether all these nodes are known to run containers, with the agent of this digest, and
        to share the places of these paths."""
        since = time.time() - BELIEVED_SECONDS
        needed = [place(path) for path in wanted]
        listed = list(nodes)
        for name in listed:
            known = self._nodes.get(name)
            if known is None or known["at"] < since or known["agent"] != digest:
                return False
            if any(each not in known["sees"] for each in needed):
                return False
        return bool(listed)

    def cover_any(self, digest: str, wanted: Sequence[str]) -> bool:
        """Whether that is known of one node at least: enough for a step that has one node."""
        return any(self.cover((name,), digest, wanted) for name in self._nodes)

    def agent_of(self, nodes: Iterable[str], digest: str, wanted: Sequence[str]) -> str:
        """What starts the agent that has settled on all these nodes, if that is known, and that
        they share the places of these paths; else ""."""
        listed = list(nodes)
        if not self.cover(listed, digest, wanted):
            return ""
        (first, *others) = {str(self._nodes[name].get("settled", "")) for name in listed}
        return "" if others else first

    def note(
        self,
        found: Mapping[str, Sequence[str]],
        digest: str,
        every: Sequence[str],
        agents: Mapping[str, str],
    ) -> None:
        """Remember of each node which paths it shares, and by what its agent is started; ``every``
        node that there is."""
        from roadstead.host import files  # whoever is only read has no need of it

        now = time.time()
        for name, shared in found.items():
            before = self._nodes.get(name) or {}
            kept = set(before.get("sees", ())) if before.get("agent") == digest else set()
            sees = sorted(kept | {place(path) for path in shared})
            self._nodes[name] = {"at": now, "agent": digest, "sees": sees}
            self._nodes[name]["settled"] = agents.get(name, "")
        self._all = list(every) or self._all
        text = wire.dumps({"all": self._all, "nodes": self._nodes})
        try:
            paths.make_private(os.path.dirname(self._path))
            files.write_atomically(self._path, text)
        except OSError:
            return  # it is only not known then


def place(path: str) -> str:
    """The file system that ``path`` is on, by the directory it is mounted at; of the root's the
    first two components, as much below it may differ from node to node."""
    at = os.path.realpath(path)
    while not os.path.exists(at):
        at = os.path.dirname(at)
    device = os.stat(at).st_dev
    above = os.path.dirname(at)
    while at != "/" and os.stat(above).st_dev == device:
        at, above = above, os.path.dirname(above)
    if at == "/":
        return "/".join(os.path.realpath(path).split("/")[:3])
    return at


def _key(environ: Mapping[str, str]) -> str:
    conf = choice.slurm_conf(environ)
    about = ""
    try:
        found = os.stat(conf)
        about = f"-{found.st_mtime_ns:x}-{found.st_size:x}"
    except OSError:
        pass
    name = "".join([letter if letter.isalnum() else "_" for letter in conf])
    return f"{name[-80:]}{about}"
