"""How what a step needs gets to its nodes: the agent, and the bundle or image of its container.

    --container-stage=auto      in place where all nodes see it, else sent
                      shared    in place, or the step fails
                      bcast     sent in any case
                      none      nobody looks: it is there

Whether nodes see a path is found out on them (preflight.py), by what stat(2) says of it here and
there.  What is sent goes once to the job, by Slurm's own sbcast, which passes it on from node to
node; each node keeps it (agent/cache.py), and the next job sends nothing.  All of that is before
the first task: a node that lacks anything fails the step by its name.
"""

from __future__ import annotations

import os
import sys
import time

from roadstead.engines.slurm import known, zipapp
from roadstead.errors import RequestError
from roadstead.host import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Final

    from roadstead.agent.check import Answer, Seen
    from roadstead.engines.slurm.spool import Packed, Spool
    from roadstead.engines.slurm.zipapp import Archive

OPTION: Final = "container-stage"
_NODELIST: Final = "SLURM_JOB_NODELIST"
MODES: Final = ("auto", "shared", "bcast", "none")


# What is remembered of a node may be over: it has another disk since, or was cleaned.
IF_THERE: Final = (
    'if [ -x "$0" ]; then exec "$0" "$@"; fi; '
    'echo "srun: error: $SLURMD_NODENAME: the agent is not there any more; '
    'roadstead doctor --nodes $SLURMD_NODENAME brings it again" >&2; exit 125'
)


class Allocate(Exception):
    """Nodes have to be looked at, and there is no job that has any: allocate one first."""


class Ready:
    """``agent``: the words that start it on the nodes; ``elsewhere``: the working directory is not
    there on all of them."""

    __slots__ = ("agent", "elsewhere")

    def __init__(self, agent: tuple[str, ...], *, elsewhere: bool = False) -> None:
        self.agent, self.elsewhere = agent, elsewhere


def _ours(archive: Archive) -> list[str]:
    """What has to be seen by a node that starts the agent as we do."""
    return [archive.path, zipapp.interpreter()]


def seen_of_ours(archive: Archive) -> list[Seen]:
    """The same, as this host sees it."""
    from roadstead.agent import check

    return [check.seen(path) for path in _ours(archive)]


def mode(options: dict[str, str]) -> str:
    """What --container-stage says, which is no more of the agent's business."""
    word = options.pop(OPTION, "auto")
    if word not in MODES:
        raise RequestError(
            f"Invalid --{OPTION} specification: {word}", hint=f"one of {', '.join(MODES)}"
        )
    return word


def ready(
    parts: Sequence[dict[str, Any]],
    environ: Mapping[str, str],
    *,
    nodelist: Sequence[str] = (),
    lone: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> Ready:
    """Have everything on the nodes that the ``parts`` of a request need.  Nodes that are asked for
    are in ``nodelist``; a ``lone`` task has one, whichever: its own agent is the look.  A part
    learns from ``staged`` that its container was sent.

    Raises Allocate where nodes must be looked at first, LaunchError for nodes that lack something.
    """
    contained = [part for part in parts if part]
    modes = [mode(part["options"]) for part in contained]
    archive = zipapp.archive(environ)
    if all(each == "none" for each in modes):
        return Ready(archive.command)
    job = environ.get("SLURM_JOB_ID", "")
    nodes = _nodes(environ) if job else tuple(nodelist)
    cluster = known.Nodes.of(environ)
    wanted = [path for part in contained for path in paths_of(part)]
    needed = [*_ours(archive), *wanted]
    if "bcast" not in modes and (
        cluster.cover(nodes or cluster.all, archive.digest, needed)
        or (lone and not nodes and cluster.cover_any(archive.digest, needed))
    ):
        return Ready(archive.command)
    if modes.count("bcast") == 0 and (
        agent := cluster.agent_of(
            nodes or cluster.all, archive.digest, [*wanted, *[part["cwd"] for part in contained]]
        )
    ):
        return Ready(("/bin/sh", "-c", IF_THERE, agent))
    if not job:
        raise Allocate
    return _Staging(contained, modes, archive, job, nodes, environ, progress).run(cluster)


def jobs(count: int, groups: Sequence[str], environ: Mapping[str, str]) -> list[Mapping[str, str]]:
    """The environments of a step's ``count`` components in a heterogeneous job, each with the job
    that it is in; one for all where there is one job.  ``groups`` are the components'
    --het-group."""
    if "SLURM_HET_SIZE" not in environ or (count == 1 and not groups[0]):
        return [environ]
    found: list[Mapping[str, str]] = []
    for at, group in enumerate(groups):
        if group and not group.isdecimal():  # one component over several jobs
            return [environ]
        nodes = environ.get(f"{_NODELIST}_HET_GROUP_{group or at}")
        if not nodes:
            return [environ]
        job = f"{environ.get('SLURM_JOB_ID', '')}+{group or at}"
        found.append({**environ, "SLURM_JOB_ID": job, _NODELIST: nodes})
    return found


def for_batch(part: dict[str, Any], environ: Mapping[str, str]) -> str:
    """The lines of shell that start the agent of a batch script.  When its job starts nobody is
    here who could send anything: the agent may come with the script (carried.py), the container is
    used in place, or is one that was sent before (agent/found.py).  Raises RequestError."""
    from roadstead.engines.slurm import carried

    asked = mode(part["options"])
    if asked == "bcast":
        raise RequestError(
            f"--{OPTION}=bcast: a batch script's own container cannot be sent, as its job starts "
            "when sbatch has ended",
            hint="srun --container in the script, or before it, sends one",
        )
    archive = zipapp.archive(environ)
    wanted = paths_of(part)
    cluster = known.Nodes.of(environ)
    if cluster.cover(cluster.all, archive.digest, [*_ours(archive), *wanted]):
        return carried.in_place(archive.command)
    if wanted and asked != "none":
        _tell_of_what_was_sent(part, wanted, environ, sent=asked != "shared")
    from roadstead.agent import cache
    from roadstead.host import mounts

    text = ""
    if not mounts.is_of_a_network(archive.place):
        import base64

        with open(archive.path, "rb") as file:
            text = base64.encodebytes(file.read()).decode("ascii")
    tag = sys.implementation.cache_tag or ""
    landing = f"{cache.LANDING}/{cache.TRAVELLING}"
    return carried.start(
        archive.command, archive.path, tag, paths.node_cache(environ), landing, text
    )


def _tell_of_what_was_sent(
    part: dict[str, Any], wanted: Sequence[str], environ: Mapping[str, str], *, sent: bool
) -> None:
    """Say in a batch script's part by what its node is to recognise the container, and what it is
    there if it was sent before."""
    from roadstead.engines.slurm.spool import Spool

    part["see"] = list(wanted)
    packed = Spool(environ).known(_name(part)) if sent else None
    if packed is not None:
        part["staged"] = _staged(packed, paths.node_cache(environ))


def _nodes(environ: Mapping[str, str]) -> tuple[str, ...]:
    from roadstead.core import hostlist

    return tuple(hostlist.expand(environ.get(_NODELIST, "")))


def paths_of(part: Mapping[str, Any]) -> list[str]:
    """By what a node is found to see what a part needs: a bundle's two halves, an image's
    record."""
    image = part.get("image")
    if image:
        store = str(image["store"]).partition(":")[0]
        return [f"{store}/images/{str(image['digest']).partition(':')[2]}.json"]
    bundle = str(part["options"].get("container", ""))
    if not bundle or not os.path.isdir(bundle):
        return []  # it is the nodes' own, or their agents say that it is not there
    config = f"{bundle}/config.json"
    return [config if os.path.exists(config) else bundle]


class _Staging:
    """One step's nodes, looked at, and supplied with what they lack."""

    def __init__(
        self,
        parts: Sequence[dict[str, Any]],
        modes: Sequence[str],
        archive: Archive,
        job: str,
        nodes: Sequence[str],
        environ: Mapping[str, str],
        progress: Callable[[str, int, int], None] | None,
    ) -> None:
        from roadstead.engines.slurm.spool import Spool

        self._parts, self._modes = parts, modes
        self._archive = archive
        self._job = job
        self._nodes = nodes
        self._environ = environ
        self._progress = progress or (lambda what, done, total: None)
        self._spool: Spool = Spool(environ)

    def run(self, cluster: known.Nodes) -> Ready:
        from roadstead.agent import cache
        from roadstead.engines.slurm import accounting, preflight

        paths.node_cache(self._environ), cache.quota(self._environ)  # said here, if they are wrong
        see = self._see()
        keys = [packed.key for packed in map(self._packed_before, self._parts) if packed]
        self._progress(f"looking at {_of_nodes(self._nodes)}", 0, 0)
        copied = accounting.copied(self._nodes, accounting.lately(), self._environ)
        answers = preflight.examine(
            self._nodes, self._job, self._archive, see, keys, self._environ, copied=copied
        )
        accounting.store(copied, answers.values(), self._environ)
        wrong = preflight.faults(answers)
        if wrong:
            raise preflight.refuse(wrong, len(answers))
        shared = {
            node: [at.path for at, yes in zip(see, each.sees, strict=True) if yes]
            for node, each in answers.items()
        }
        agents = {node: each.agent for node, each in answers.items()}
        cluster.note(shared, self._archive.digest, preflight.every_node(self._environ), agents)
        for part, asked in zip(self._parts, self._modes, strict=True):
            self._supply(part, asked, answers, shared)
        ours = set(_ours(self._archive))
        if all(ours <= set(paths) for paths in shared.values()):
            agent = self._archive.command
        else:
            agent = (next(iter(answers.values())).agent,)
        cwd = self._parts[0]["cwd"]
        return Ready(agent, elsewhere=any(cwd not in paths for paths in shared.values()))

    def _see(self) -> list[Seen]:
        from roadstead.agent import check

        wanted = [path for part in self._parts for path in (*paths_of(part), part["cwd"])]
        return [check.seen(path) for path in dict.fromkeys([*_ours(self._archive), *wanted])]

    # -- one part -----------------------------------------------------------------------------

    def _supply(
        self,
        part: dict[str, Any],
        asked: str,
        answers: Mapping[str, Answer],
        shared: Mapping[str, Sequence[str]],
    ) -> None:
        from roadstead.engines.slurm import preflight

        wanted = paths_of(part)
        blind = [node for node, seen in shared.items() if not set(wanted) <= set(seen)]
        if asked == "none" or not wanted or (asked != "bcast" and not blind):
            return
        if asked == "shared":
            raise preflight.unseen(blind, wanted[0])
        began = time.monotonic()
        packed = self._packed(part)
        with self._spool.lock(f"send-{packed.key}") as waited:
            if waited or any(not each.staged for each in answers.values()):
                answers = preflight.examine(
                    self._nodes, self._job, self._archive, (), [packed.key], self._environ
                )
            lacking = [node for node, each in answers.items() if packed.key not in each.staged]
            if lacking:
                self._send(packed, lacking, answers)
        part["staged"] = _staged(packed, next(iter(answers.values())).place)
        part["staging"] = {
            "bytes": packed.size if lacking else 0,
            "nodes": len(lacking),
            "seconds": round(time.monotonic() - began, 3),
        }

    def _packed_before(self, part: Mapping[str, Any]) -> Packed | None:
        return self._spool.known(_name(part)) if paths_of(part) else None

    def _packed(self, part: Mapping[str, Any]) -> Packed:
        name = _name(part)
        with self._spool.lock(name):
            found = self._spool.known(name)
            if found is not None:
                return found
            image = part.get("image")
            if image:
                return self._spool.image(image["store"], image["digest"], self._progress)
            return self._spool.bundle(part["options"]["container"], name, self._progress)

    def _send(self, packed: Packed, lacking: Sequence[str], answers: Mapping[str, Answer]) -> None:
        from roadstead.engines.slurm import preflight

        short = [node for node in lacking if answers[node].room < 2 * packed.size]
        if short:
            raise preflight.no_room(short, answers, 2 * packed.size)
        size = f"{packed.size >> 20} MiB"
        self._progress(f"sending {size} to {_of_nodes(lacking)}", 0, 0)
        preflight.send(self._spool.file(packed), packed, answers, self._job, self._environ)


def _of_nodes(nodes: Sequence[str]) -> str:
    return f"{len(nodes)} node{'s' if len(nodes) > 1 else ''}"


def _staged(packed: Packed, place: str) -> dict[str, str]:
    """What an agent is told of what was sent: --export may keep the place from it."""
    return {"key": packed.key, "writable": packed.writable, "place": place}


def _name(part: Mapping[str, Any]) -> str:
    from roadstead.engines.slurm import spool

    image = part.get("image")
    if image:
        return spool.name_of_image(image["digest"])
    return spool.name_of_bundle(part["options"]["container"])
