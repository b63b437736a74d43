"""What an agent is given, the request and what slurmstepd has set; and of both, step and task."""

from __future__ import annotations

import json
import os
import pwd
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from roadstead.agent import cache
from roadstead.agent import request as requests
from roadstead.core import container, multiprog
from roadstead.core.model import (
    BATCH_STEP,
    Launch,
    StepSpec,
    TaskSpec,
    Terminal,
)
from roadstead.errors import EngineError
from roadstead.host import paths
from roadstead.oci import search
from roadstead.step import record

if TYPE_CHECKING:
    from roadstead.agent.place import Place


@dataclass(frozen=True, slots=True)
class Given:
    """What is asked for: of the request the part of this component, as it is and as the text that
    holds it; the program's argv; and the batch script, if that is what is run."""

    told: dict[str, Any]
    text: str
    at: int
    argv: list[str]
    script: str


class Numbers:
    """The numbers in the environment."""

    def __init__(self, environ: dict[str, str]) -> None:
        self._environ = environ

    def of(self, name: str, usual: int) -> int:
        text = self._environ.get(name, "")
        return int(text) if text.isascii() and text.isdigit() else usual


def read(verb: str, argv: list[str], environ: dict[str, str]) -> Given:
    """It; what tells us goes no further.  Raises EngineError."""
    if verb == "batch":
        with open(argv[0], encoding="utf-8", errors="surrogateescape") as file:
            text, body = requests.taken_apart(file.read())
        return Given(_component(text, 0), text, 0, ["startup", *argv[1:]], body)
    text = environ.pop(requests.VARIABLE, "")
    at, *command = argv
    return Given(_component(text, int(at)), text, int(at), command, "")


def _component(text: str, at: int) -> dict[str, Any]:
    try:
        told = json.loads(text)
    except ValueError:
        told = None
    return requests.component(told, at)


def specify(
    given: Given, verb: str, environ: dict[str, str], place: Place, *, of_node: bool = False
) -> tuple[StepSpec, TaskSpec, int]:
    """The step, the task, and a descriptor that keeps here what was sent (-1: nothing was).

    ``of_node``: the directory is one for the node, not the task.  Raises RoadsteadError.
    """
    told = given.told
    number = Numbers(environ)
    cwd = os.getcwd()
    options = told["options"]
    submitted = told["cwd"]
    directory = os.path.normpath(os.path.join(submitted, options.get("chdir", "")))
    request = container.of(told, options, submitted, directory)
    if request is None:
        raise EngineError("no container is named")
    if request.per == "node" and tasks_here(environ) == 1 and not given.script:
        request = replace(request, per="task")
    procid = number.of("SLURM_PROCID", 0)
    step_id = BATCH_STEP if verb == "batch" else number.of("SLURM_STEP_ID", 0)
    which = "node" if of_node else procid
    path = f"{place.path}/steps/{number.of('SLURM_JOB_ID', 0)}.{step_id}.{which}"
    pmi = "PMI_FD" in environ
    argv = given.argv
    if "programs" in told:
        source = told["programs"]
        programs = multiprog.parse(
            source["text"], source["source"], number.of("SLURM_NTASKS", 1), tuple(argv[1:])
        )
        argv = list(multiprog.argv_of(programs, procid))
    env = {
        **environ,
        record.MARK: path,
        "SLURM_CONTAINER": request.bundle,
        **({"SLURM_CONTAINER_ID": request.id} if request.id else {}),
        **({"PMI_FD": "3"} if pmi else {}),
    }
    held = -1
    if "see" in told:
        from roadstead.agent import found

        told = found.settle(told, place.node)
    if "staged" in told:
        request, held = cache.container(request, told["staged"])
        cwd = directory  # which may be in the container though it is not on this node
    spec = StepSpec(
        job_id=number.of("SLURM_JOB_ID", 0),
        step_id=step_id,
        kind="batch" if verb == "batch" else "run",
        name=environ.get("SLURM_JOB_NAME", ""),
        user=_user(environ),
        uid=os.getuid(),
        gid=os.getgid(),
        node=place.node,
        cwd=cwd,
        argv=tuple(argv),
        env=env,
        script=given.script,
        ntasks=number.of("SLURM_NTASKS", 1),
        container=request,
        oci_conf=search.find(environ, slurms=False) or "",
        terminal=_terminal(told, procid),
        umask=paths.umask(),
        launch=Launch(mpi="pmi2" if pmi else "pmix" if "PMIX_RANK" in environ else "none"),
        directory=path,
    )
    task = TaskSpec(
        procid=procid,
        localid=number.of("SLURM_LOCALID", 0),
        argv=tuple(argv),
        env=env,
        node=place.node,
        nodeid=number.of("SLURM_NODEID", 0),
    )
    return spec, task, held


def tasks_here(environ: dict[str, str]) -> int:
    """How many tasks the step has on this node (srun(1): SLURM_STEP_TASKS_PER_NODE is like
    "2(x3),1"); 1 where nothing tells."""
    text = environ.get("SLURM_STEP_TASKS_PER_NODE") or environ.get("SLURM_TASKS_PER_NODE", "")
    at = Numbers(environ).of("SLURM_NODEID", 0)
    for each in text.split(","):
        count, _, times = each.partition("(x")
        nodes = int(times[:-1]) if times[:-1].isdigit() else 1
        if at < nodes:
            return int(count) if count.isdigit() else 1
        at -= nodes
    return 1


def is_wanted(sentence: str, spec: StepSpec) -> bool:
    """Whether the user is to see what a plugin has to say."""
    verbose = spec.container is not None and spec.container.verbose
    return verbose or sentence.startswith(("error:", "warning:"))


def _user(environ: dict[str, str]) -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return environ.get("USER", str(os.getuid()))


def _terminal(told: dict[str, Any], procid: int) -> Terminal | None:
    if not told.get("terminal") or procid or not os.isatty(0):
        return None
    columns, rows = os.get_terminal_size(0)
    return Terminal(rows=rows, columns=columns)
