"""Looking at every node of a job before its first task: one real srun, one task a node.

The agent comes to the nodes with it: by srun's own --bcast, or, where they see the submitter's
state directory, from there.  What it finds (agent/check.py) comes back as a line of JSON a node.
What of it matters is judged here; a table by node shows it.

What was found of a node is remembered (known.py), so that this is no part of most steps.
"""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from roadstead.agent import cache, check, tell
from roadstead.agent.check import Answer, Question, Seen
from roadstead.agent.receive import Parcel, Receipt
from roadstead.core import hostlist
from roadstead.core.model import from_json, to_json
from roadstead.engines.slurm import real
from roadstead.engines.slurm.zipapp import Archive
from roadstead.errors import EngineError, LaunchError, RoadsteadError, RuntimeFailure
from roadstead.host import paths, program, wire

if TYPE_CHECKING:
    from roadstead.engines.slurm.spool import Packed

T = TypeVar("T")

# What a step of ours inherits of the variables that are about steps: which job, which cluster.
_KEPT: Final = ("SLURM_CONF", "SLURM_JOB_ID", "SLURM_JOBID", "SLURM_CLUSTERS", "SLURM_MPI_TYPE")
# Findings that no container gets past; others are warnings in the table.
_FATAL: Final = ("user-namespaces", "oci-runtime", "oci.conf", "kernel")
_MACHINES: Final = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "armv7l": "arm"}


def environment(environ: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """For a step of our own: what srun would take for options is taken away."""
    kept = {
        name: value
        for name, value in environ.items()
        if name in _KEPT or not name.startswith(("SLURM_", "SLURMD_", "SRUN_", "PMI_"))
    }
    if "SLURM_JOB_ID" in kept:  # which may be one of a heterogeneous job's
        kept["SLURM_JOB_ID"] = kept["SLURM_JOB_ID"].partition("+")[0]
    return {**kept, **more}


def step(nodes: Sequence[str], job: str, name: str) -> list[str]:
    """srun's options for one task on each of these nodes, beside whatever else runs there.  ``job``
    is JOB, or JOB+GROUP in a heterogeneous one."""
    leader, _, group = job.partition("+")
    which = [f"--jobid={leader}", *([f"--het-group={group}"] if group else [])]
    return [
        *which, "--quiet", "--overlap", f"--nodelist={hostlist.fold(list(nodes))}",
        f"--nodes={len(nodes)}", f"--ntasks={len(nodes)}", "--ntasks-per-node=1",
        "--cpus-per-task=1", "--mpi=none", "--cpu-bind=none", "--input=none", "--chdir=/",
        "--kill-on-bad-exit=0", "--wait=0", f"--job-name=roadstead-{name}",
    ]  # fmt: skip


def examine(
    nodes: Sequence[str],
    job: str,
    archive: Archive,
    see: Sequence[Seen],
    keys: Sequence[str],
    environ: Mapping[str, str],
    *,
    checks: tuple[str, ...] = check.CHECKS,
    copied: Mapping[str, int] | None = None,
) -> dict[str, Answer]:
    """Each node's answer, by its name.  ``copied``: how much we have of their records.

    Where the agent is seen in the submitter's state directory, or has settled before, it starts
    from there; it is sent to the job, and settles on its nodes, if any of them has none.  Raises
    EngineError.
    """
    question = Question(
        digest=archive.digest,
        see=tuple(see),
        keys=tuple(keys),
        checks=checks,
        copied=dict(copied or {}),
    )
    settled = f"{paths.node_cache(environ)}/agent/{archive.digest}"
    here = ["/bin/sh", "-c", _IF_SEEN, "sh", f"{archive.place}/{archive.digest}", settled]
    answers = _ask(nodes, job, here, question, environ)
    if len({each.agent for each in answers.values() if not each.error}) < 2 and not any(
        _UNSEEN in each.error for each in answers.values()
    ):
        return answers
    landing = f"{cache.LANDING}/{cache.TRAVELLING}{os.getuid()}-{job}-{secrets.token_hex(8)}"
    sent = [f"--bcast={landing}", archive.path, "check"]
    answers = _ask(nodes, job, sent, replace(question, install=True), environ)
    wrong = [node for node in nodes if answers[node].error]
    if wrong and len(wrong) < len(nodes):
        # Of nodes with one /var/tmp the first to be ready removes what was sent to all of them; the
        # others have the agent that has settled.
        again = _ask(wrong, job, here, question, environ)
        answers.update({node: each for node, each in again.items() if not each.error})
    return answers


# The answer of a node that does not see the submitter's state directory.
_UNSEEN: Final = "the agent is not seen"
_IF_SEEN: Final = (
    'for each; do if [ -x "$each" ]; then "$each" check; code=$?; [ $code = 127 ] || exit $code; '
    "fi; done; "
    """printf 'roadstead-says %s 0 1 {"node":"%s","error":"the agent is not seen"}\\n' """
    '"$SLURMD_NODENAME" "$SLURMD_NODENAME"'
)


def _ask(
    nodes: Sequence[str],
    job: str,
    command: Sequence[str],
    question: Question,
    environ: Mapping[str, str],
) -> dict[str, Answer]:
    asked = {check.VARIABLE: wire.dumps(to_json(question))}
    argv = [real.must_find("srun", environ), *step(nodes, job, "check"), *command]
    found = _heard(Answer, run(argv, environment(environ, asked)))
    return {node: found.get(node) or Answer(node=node, error=_SILENT) for node in nodes}


_SILENT: Final = "it has not answered"


def every_node(environ: Mapping[str, str]) -> list[str]:
    """The names of the cluster's nodes; none where it does not say."""
    sinfo = real.find("sinfo", environ)
    if not sinfo:
        return []
    argv = [sinfo, "--noheader", "--Node", "--format=%N"]
    _, output, _ = program.answer(argv, only=environment(environ, {}))
    return list(dict.fromkeys(output.decode().split()))


def send(
    path: str,
    packed: Packed,
    answers: Mapping[str, Answer],
    job: str,
    environ: Mapping[str, str],
) -> None:
    """Send a packed file to the job's nodes and have it received.  Raises LaunchError, EngineError.

    sbcast sends to all nodes of a job; those that have it already only throw it away.
    """
    place = next(iter(answers.values())).place
    name = f"{job}-{secrets.token_hex(4)}-{packed.key[:16]}"
    fanout = max(2, math.isqrt(len(answers)))
    argv = [
        real.must_find("sbcast", environ), f"--jobid={job}", "--force", f"--fanout={fanout}",
        path, f"{place}/incoming/{name}",
    ]  # fmt: skip
    status, _, said = program.answer(argv, only=environment(environ, {}))
    if status:
        raise LaunchError(f"sbcast could not send the container: {' | '.join(said)}")
    parcel = Parcel(
        name=name, key=packed.key, kind=packed.kind, size=packed.size,
        config=packed.config, reference=packed.reference,
    )  # fmt: skip
    asked = {check.VARIABLE: wire.dumps(to_json(parcel))}
    agent = next(iter(answers.values())).agent
    nodes = list(answers)
    argv = [real.must_find("srun", environ), *step(nodes, job, "receive"), agent, "receive"]
    found = _heard(Receipt, run(argv, environment(environ, asked)))
    wrong = {node: found[node].error if node in found else _SILENT for node in nodes}
    wrong = {node: why for node, why in wrong.items() if why}
    if wrong:
        raise refuse(wrong, len(nodes))


def unseen(nodes: Sequence[str], path: str) -> RoadsteadError:
    """The error for nodes that do not see what is only to be used in place."""
    return LaunchError(
        f"{hostlist.fold(list(nodes))} does not see {path} as it is here",
        hint="--container-stage=auto sends it there",
    )


def no_room(nodes: Sequence[str], answers: Mapping[str, Answer], wanted: int) -> RoadsteadError:
    """The error for nodes that have no room for what is to be sent."""
    least = min(answers[node].room for node in nodes)
    place = answers[nodes[0]].place
    return LaunchError(
        f"{hostlist.fold(list(nodes))} has no room for the container: {wanted >> 20} MiB are "
        f"needed in {place}, and {least >> 20} MiB are free",
        hint=f"make room there, set {paths.NODE_CACHE} to another directory, or --exclude the "
        "nodes",
    )


def run(argv: Sequence[str], env: Mapping[str, str]) -> list[str]:
    """The lines that a step of ours prints.  Raises EngineError where there are none."""
    status, output, said = program.answer(argv, only=env)
    lines = output.decode("utf-8", "replace").splitlines()
    if not lines:
        raise EngineError(
            "the nodes of the job cannot be reached: "
            + (" | ".join(said) or f"srun exited with {status}"),
            hint="sinfo shows their states",
        )
    return lines


def _heard(kind: type[T], lines: Sequence[str]) -> dict[str, T]:
    """What the nodes say."""
    found = {}
    for node, said in tell.heard(lines).items():
        try:
            found[node] = from_json(kind, said)
        except TypeError:  # no answer, then
            continue
    return found


def faults(answers: Mapping[str, Answer], platform: str = "") -> dict[str, str]:
    """Why no container can run on a node, for each where that is so."""
    found = {}
    for node, answer in answers.items():
        why = _fault(answer, platform)
        if why:
            found[node] = why
    return found


def _fault(answer: Answer, platform: str) -> str:
    if answer.error:
        return answer.error
    own = _MACHINES.get(answer.machine, answer.machine)
    if platform and platform.split("/")[1:2] not in ([own], []):
        return f"it is {answer.machine}, and the image is for {platform}"
    for each in answer.findings:
        if each["status"] == "failure" and each["name"] in _FATAL:
            fix = f" ({each['fix']})" if each["fix"] else ""
            return f"{each['name']}: {each['cause'] or each['found']}{fix}"
    return ""


def refuse(wrong: Mapping[str, str], of: int) -> RoadsteadError:
    """The error for nodes on which no container can run: nothing has been started on any."""
    names = hostlist.fold(list(wrong))
    why = next(iter(wrong.values()))
    others = len(set(wrong.values())) - 1
    more = f", and {others} other reason{'s' * (others > 1)}" if others else ""
    return RuntimeFailure(
        f"no container can be run on {names} ({len(wrong)} of {of} nodes): {why}{more}",
        hint=f"roadstead doctor --nodes {names} tells more; --exclude={names} leaves them out",
    )


def table(answers: Mapping[str, Answer]) -> list[str]:
    """One row a node, for people."""
    wrong = faults(answers)
    names = [name for name in check.CHECKS if any(_of(each, name) for each in answers.values())]
    rows = [["NODE", "ARCH", "PYTHON", *(name.upper() for name in names), "ROOM"]]
    for node, answer in sorted(answers.items()):
        if answer.error:
            rows.append([node, "-", "-", *("-" for _ in names), "-"])
            continue
        states = [_word(_of(answer, name)) for name in names]
        room = f"{answer.room >> 30} GiB" if answer.room >> 30 else f"{answer.room >> 20} MiB"
        rows.append([node, answer.machine, answer.python.split()[0], *states, room])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{word:<{width}}" for word, width in zip(row, widths, strict=True)).rstrip()
             for row in rows]  # fmt: skip
    for node, why in sorted(wrong.items()):
        lines.append(f"{node}: {why}")
    return lines


def _of(answer: Answer, name: str) -> dict[str, Any] | None:
    return next((each for each in answer.findings if each["name"] == name), None)


def _word(finding: dict[str, Any] | None) -> str:
    if finding is None:
        return "-"
    return {"ok": "ok", "warning": "warning", "failure": "FAILURE"}.get(finding["status"], "-")
