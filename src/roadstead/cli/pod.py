"""roadstead pod: Kubernetes' manifests as jobs and steps; and what sbatch does with one.

A manifest is read here, where the user sees what is wrong with it: images are resolved, ConfigMaps
and Secrets looked up, resources become the job's request.  What travels is a Plan (pods/plan.py).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from roadstead.cli import attend, containers, options, report
from roadstead.cli import script as scripts
from roadstead.engines import choice
from roadstead.engines.slurm import agent, real, rewrite
from roadstead.errors import ImageError, RequestError, RoadsteadError, UsageError
from roadstead.images.reference import TRANSPORTS
from roadstead.pods import documents, manifest
from roadstead.pods import plan as plans
from roadstead.pods.model import Image, Job, Plan

if TYPE_CHECKING:
    from typing import NoReturn

    from roadstead.cli.script import Directive

USAGE: Final = "roadstead pod run [OPTIONS] FILE… | check FILE… | ls | status | logs | delete NAME"
HELP: Final = f"""Usage: {USAGE}

  run FILE…      run the pods of the manifests and wait for them; the exit code is theirs
  check FILE…    say what is wrong with the manifests, and what the job would ask for
  ls             the pods that run, and those that have in the last 30 days
  status NAME    one of them, container by container; --json, as with ls, is for programs
  logs NAME      what a container of it has printed: -c CONTAINER, or --all-containers
  delete NAME…   end pods, as their manifests say, and forget them

NAME is the last pod of that name, JOB/NAME that of a job.
OPTIONS are srun's: in an allocation the pods are a step of it, else a job of their own.
sbatch FILE… submits the same as a job.  docs/pods.md has a table of the fields.
"""
_COMMAND: Final = "roadstead pod"
_OF_RECORDS: Final = ("ls", "status", "logs", "delete")
_FORCED: Final = ("ntasks", "nodes")
_OF_RESOURCES: Final = ("job-name", "cpus-per-task", "mem", "gres")


def main(operands: list[str]) -> int:
    """Run ``roadstead pod``; its exit code.  Raises RoadsteadError."""
    verb, *rest = operands or [""]
    if verb in ("", "-h", "--help", "help"):
        report.write_out(HELP)
        return 0 if verb else 1
    if verb == "run":
        return _run(rest)
    if verb == "check":
        return _check(rest)
    if verb in _OF_RECORDS:
        from roadstead.cli import pod_records

        return {
            "ls": pod_records.listed,
            "status": pod_records.shown,
            "logs": pod_records.logs,
            "delete": pod_records.deleted,
        }[verb](rest)
    raise UsageError(f"pod does not know {verb}", hint=USAGE)


def _run(argv: list[str]) -> int:
    attend.open_standard_streams()
    asked, files = options.gather("srun", argv, os.environ)
    if not files:
        raise UsageError("no manifest is named", hint=USAGE)
    jobs = read(files, _texts(files))
    plan = _plan(jobs, asked)
    _settle(asked, jobs, forced=_FORCED)
    if os.environ.get("SLURM_JOB_ID"):
        asked.setdefault("exact", "1")  # several pods share the allocation they are in
    if choice.is_slurm(os.environ):
        return _become_srun(argv, asked, plan)
    message = attend.base_message("srun", "run", asked, command())
    message["env"].update(plans.environment(plan))
    return attend.Attendance(
        "srun", message, verbose=int(asked.get("verbose", "0")), quiet="quiet" in asked
    ).run()


def _become_srun(argv: list[str], asked: Mapping[str, str], plan: Plan) -> NoReturn:
    """The same on a cluster: Slurm's srun starts the pod on a node."""
    given = dict(options.parse("srun", argv)[0])
    words = [
        f"--{name}={value}"
        for name, value in asked.items()
        if name in (*_FORCED, "exact") or (name in _OF_RESOURCES and name not in given)
    ]
    words = [word.removesuffix("=1") if word == "--exact=1" else word for word in words]
    own = rewrite.words([pair for pair in given.items() if pair[0] not in _FORCED], lambda _: False)
    environ = {**os.environ, **plans.environment(plan)}
    real.become("srun", [*own, *words, *command()], environ)


def _check(files: list[str]) -> int:
    if not files:
        raise UsageError("no manifest is named", hint=USAGE)
    jobs = read(files, _texts(files), verbose=True)
    for job in jobs:
        names = ", ".join(each.name for each in job.pod.containers)
        report.write_out(f"pod {job.pod.name}: {names}\n")
    words = " ".join(f"--{name}={value}" for name, value in plans.options(jobs).items())
    report.write_out(f"asks for: {words}\n")
    return 0


def batch(
    argv: Sequence[str], text: str, operands: list[str], environ: Mapping[str, str]
) -> tuple[dict[str, str], str]:
    """What sbatch submits for a manifest and those named after it: the options, with what its
    #SBATCH lines and its resources say, and the script.  Raises RoadsteadError."""
    name, *others = operands if operands != ["sbatch"] else ["standard input"]
    found = _directives(text)
    asked, _ = options.gather("sbatch", argv, environ, found)
    jobs = read([name, *others], [text, *_texts(others)])
    plan = _plan(jobs, asked)
    _settle(asked, jobs, forced=_FORCED)
    return asked, plans.script(plan, command())


def _directives(text: str) -> list[Directive]:
    """The #SBATCH lines that a manifest begins with: to YAML they are comments."""
    found = scripts.directives(f"#!/bin/sh\n{text}")
    for each in found:
        each.line_number -= 1
    return found


def _texts(files: Sequence[str]) -> list[str]:
    found = []
    for name in files:
        try:
            with open(name, encoding="utf-8") as file:
                found.append(file.read(documents.LARGEST + 1))
        except OSError as error:
            raise RoadsteadError(f"Unable to open file {name}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise RequestError(f"{name}: not UTF-8") from None
    return found


def read(files: Sequence[str], texts: Sequence[str], *, verbose: bool = False) -> list[Job]:
    """The pods of some manifests.  Raises RequestError."""
    every = [
        each
        for name, text in zip(files, texts, strict=True)
        for each in documents.documents(name, text)
    ]
    jobs, unused = manifest.read(every)
    for path, why in unused if verbose else ():
        report.write_out(f"{path}: does nothing here: {why}\n")
    if not jobs:
        raise RequestError(f"{', '.join(files)}: no Pod and no Job in there")
    return jobs


def _settle(asked: dict[str, str], jobs: Sequence[Job], *, forced: tuple[str, ...]) -> None:
    """Add what the pods need to what the user asked for, who has the last word."""
    for name in asked:
        if name == "container" or name.startswith("container-") or name == "device":
            raise RequestError(
                f"--{name}: the images of a pod are in its manifest", hint=f"leave out --{name}"
            )
    for name in ("ntasks-per-node", "mem-per-cpu") if forced else ():
        asked.pop(name, None)
    for name, value in plans.options(jobs).items():
        if name in forced:
            asked[name] = value
        else:
            asked.setdefault(name, value)


def _plan(jobs: Sequence[Job], asked: Mapping[str, str]) -> Plan:
    policies = {each.image: each.pull for job in jobs for each in job.pod.containers}
    images = [_image(text, policies[text]) for text in plans.references(jobs)]
    return Plan(jobs=tuple(jobs), images=tuple(images), verbose="verbose" in asked)


def _image(text: str, policy: str) -> Image:
    """What a container's image is.  As in Kubernetes a name without more is a registry's; a path
    begins with / or a dot."""
    reference = text
    if text.partition(":")[0] not in TRANSPORTS and not text.startswith(("/", "./", "../")):
        reference = f"docker://{text}"
    asked = {"container": reference}
    cwd = os.getcwd()
    if policy == "Never" and reference.startswith("docker://"):
        _check_stored(reference, cwd)
    if policy == "Always" and reference.startswith("docker://"):
        _pull(reference, cwd)
    found = containers.prepare(_COMMAND, asked, cwd, os.environ).get("image", {})
    return Image(
        reference=text,
        bundle=asked["container"],
        digest=found.get("digest", ""),
        store=found.get("store", ""),
    )


def _check_stored(reference: str, cwd: str) -> None:
    from roadstead.images import pins
    from roadstead.images.reference import parse

    places = (pins.store_path(os.environ), *pins.other_stores(os.environ))
    if not any(pins.pinned(place, parse(reference, cwd)) for place in places):
        raise ImageError(
            f"{reference} is not in the image store, and its imagePullPolicy is Never",
            hint=f"roadstead image pull {reference}",
        )


def _pull(reference: str, cwd: str) -> None:
    from roadstead.cli.progress import Line
    from roadstead.images.resolve import resolve
    from roadstead.images.store import Store

    with Line(sys.stderr) as shown:
        resolve(reference, store=Store.default(os.environ), cwd=cwd, refresh=True, progress=shown)


def command() -> list[str]:
    """What a pod's task executes: the agent, wherever it is (agent/inner.py)."""
    return [*agent.command(), "pod"]
