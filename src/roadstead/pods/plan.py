"""What a pod needs of the scheduler, and what travels to the node: the Plan, as text.

Pure.  The plan has the values of Secrets in it: it goes in a job's script or its environment, which
nobody else can read, never on a command line.
"""

from __future__ import annotations

import base64
import json
import math
import shlex
import zlib
from collections.abc import Mapping, Sequence
from typing import Final

from roadstead.core.jsonform import compact_json, from_json
from roadstead.pods.model import Container, Job, Plan, Pod

# In a script what comes after it is the plan; in an environment it is in pieces, as the kernel
# allows a variable no more than 128 KiB (execve(2)).
MARKER: Final = "# ROADSTEAD-POD"
VARIABLE: Final = "ROADSTEAD_POD"
_PIECE: Final = 100_000
_WIDTH: Final = 98
_MIB: Final = 1 << 20
_LEAST_MIB: Final = 32


def options(jobs: Sequence[Job]) -> dict[str, str]:
    """The options of srun and sbatch, by long name, that the pods' resources come to.

    One task, which has all of it: CPUs are whole, a node's memory is what the containers may have
    at most, or, where they do not say, what they ask for.
    """
    pods = [(job.pod, min(job.parallelism, job.completions)) for job in jobs]
    cpus = sum(number * cpus_of(pod) for pod, number in pods)
    memory = sum(number * memory_of(pod) for pod, number in pods)
    gpus = sum(number * gpus_of(pod) for pod, number in pods)
    found = {"job-name": jobs[0].pod.name, "ntasks": "1", "nodes": "1"}
    if cpus > 0:
        found["cpus-per-task"] = str(max(1, math.ceil(cpus - 1e-9)))
    if memory > 0:
        found["mem"] = f"{max(_LEAST_MIB, math.ceil(memory / _MIB))}M"
    if gpus > 0:
        found["gres"] = f"gpu:{gpus}"
    return found


def cpus_of(pod: Pod) -> float:
    """The CPUs that a pod needs at any time."""
    return _at_once(pod, {each.name: each.resources.cpus for each in pod.containers})


def memory_of(pod: Pod) -> int:
    """The bytes of memory that a pod may have at any time; 0 where a container does not say."""
    wanted = {
        each.name: max(each.resources.memory, each.resources.memory_limit)
        for each in pod.containers
    }
    if not all(wanted.values()):
        return 0
    return int(_at_once(pod, wanted))


def gpus_of(pod: Pod) -> int:
    """The GPUs that a pod needs at any time."""
    return int(_at_once(pod, {each.name: each.resources.gpus for each in pod.containers}))


def _at_once(pod: Pod, wanted: Mapping[str, float]) -> float:
    """The most at any time: init containers run one by one beside the sidecars before them, all
    others together (Kubernetes: "Resource sharing within containers")."""
    most = sidecars = 0.0
    for each in pod.containers:
        if each.role == "init":
            most = max(most, sidecars + wanted[each.name])
        elif each.role == "sidecar":
            sidecars += wanted[each.name]
    mains = sum(wanted[each.name] for each in pod.containers if each.role == "main")
    return max(most, sidecars + mains)


def references(jobs: Sequence[Job]) -> list[str]:
    """The images that the pods name, each once."""
    every = [each.image for job in jobs for each in job.pod.containers]
    return list(dict.fromkeys(every))


def pack(plan: Plan) -> str:
    """The plan as one word."""
    text = json.dumps(compact_json(plan), separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def unpack(word: str) -> Plan:
    """The plan that ``pack`` made a word of.  Raises ValueError for what is none."""
    try:
        return from_json(Plan, json.loads(zlib.decompress(base64.b64decode(word))))
    except (zlib.error, TypeError) as error:
        raise ValueError(f"not a plan: {error}") from None


def environment(plan: Plan) -> dict[str, str]:
    """The plan as variables."""
    word = pack(plan)
    pieces = [word[at : at + _PIECE] for at in range(0, len(word), _PIECE)]
    return {f"{VARIABLE}_{number}": piece for number, piece in enumerate(pieces)}


def script(plan: Plan, command: Sequence[str]) -> str:
    """A batch script that runs the plan: ``command`` is called with the script as its argument."""
    word = pack(plan)
    lines = [word[at : at + _WIDTH] for at in range(0, len(word), _WIDTH)]
    head = f'#!/bin/sh\nexec {shlex.join(command)} "$0"\n{MARKER}\n'
    return head + "".join(f"# {line}\n" for line in lines)


def of_script(text: str) -> Plan:
    """The plan in a script.  Raises ValueError."""
    _, marker, rest = text.partition(f"\n{MARKER}\n")
    if not marker:
        raise ValueError("no plan in it")
    return unpack("".join(line.removeprefix("# ") for line in rest.splitlines()))


def of_environment(environ: Mapping[str, str]) -> Plan:
    """The plan in some variables.  Raises ValueError."""
    pieces: list[str] = []
    while (piece := environ.get(f"{VARIABLE}_{len(pieces)}")) is not None:
        pieces.append(piece)
    if not pieces:
        raise ValueError(f"{VARIABLE}_0 is not set")
    return unpack("".join(pieces))


def expand(text: str, variables: Mapping[str, str]) -> str:
    """``$(NAME)`` becomes the variable's value, ``$$`` a dollar; a name that is not known stays as
    it is (Kubernetes: Container.command)."""
    found: list[str] = []
    at = 0
    while (dollar := text.find("$", at)) >= 0:
        found.append(text[at:dollar])
        after = text[dollar + 1 : dollar + 2]
        end = text.find(")", dollar) if after == "(" else -1
        if after == "$":
            found.append("$")
            at = dollar + 2
        elif end > 0:
            name = text[dollar + 2 : end]
            found.append(variables.get(name, text[dollar : end + 1]))
            at = end + 1
        else:
            found.append("$")
            at = dollar + 1
    return "".join([*found, text[at:]])


def arguments(
    container: Container, entrypoint: Sequence[str], words: Sequence[str]
) -> tuple[str, ...]:
    """What a container executes, of its own and its image's entrypoint and command."""
    if container.command is not None:
        return (*container.command, *(container.args or ()))
    return (*entrypoint, *(words if container.args is None else container.args))
