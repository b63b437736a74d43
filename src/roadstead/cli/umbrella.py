"""roadstead: what Slurm has no word for.

Subcommands are rows; each is a function of its operands.  Whatever asks the engine something asks
it as the Slurm commands do.
"""

from __future__ import annotations

import os
import sys

from roadstead.cli import report
from roadstead.engines import choice, local
from roadstead.errors import RoadsteadError, UsageError
from roadstead.host import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

COMMAND = "roadstead"


def _shims(operands: list[str]) -> int:
    from roadstead.cli import shims

    if len(operands) != 1:
        raise UsageError("shims takes the directory to write to", hint="roadstead shims ~/bin")
    try:
        written = shims.write(operands[0])
    except OSError as error:
        raise RoadsteadError(f"cannot write to {operands[0]}: {error.strerror}") from None
    for path in written:
        report.write_out(f"{path}\n")
    return 0


def _engine(operands: list[str]) -> int:
    action, *rest = operands or ["status"]
    if action == "oci-conf":
        from roadstead.cli import oci_conf

        return oci_conf.main(rest)
    if action not in ("status", "start", "stop") or rest not in ([], ["--now"][: action == "stop"]):
        raise UsageError(
            f"engine does not know {' '.join(operands)}",
            hint="roadstead engine status | start | stop [--now] | oci-conf",
        )
    chosen, why = choice.engine(os.environ)
    if action == "status":
        report.write_out(f"engine:  {chosen} ({why})\n")
    running = local.is_running(os.environ)
    if action == "stop":
        if running:
            local.ask({"op": "stop", "now": bool(rest)})
        return 0
    if action == "status" and chosen == choice.SLURM and not running:
        return 0
    if action == "start" or running:
        answer = local.ask({"op": "ping"})
        report.write_out(f"local engine: controller {answer['pid']}, version {answer['version']}\n")
    else:
        report.write_out("local engine: not running (the first command starts it)\n")
    report.write_out(f"state:   {paths.state_directory(os.environ)}\n")
    report.write_out(f"runtime: {paths.runtime_directory(os.environ)}\n")
    return 0


def _doctor(operands: list[str]) -> int:
    from roadstead.cli import doctor

    return doctor.main(operands)


def _runtime(operands: list[str]) -> int:
    from roadstead.cli import runtime_test

    return runtime_test.main(operands)


def _bundle(operands: list[str]) -> int:
    from roadstead.cli import bundle

    return bundle.main(operands)


def _image(operands: list[str]) -> int:
    from roadstead.cli import images

    return images.main(operands)


def _pod(operands: list[str]) -> int:
    from roadstead.cli import pod

    return pod.main(operands)


def _jobs(operands: list[str]) -> int:
    from roadstead.cli import jobs

    return jobs.main(operands)


def _seff(operands: list[str]) -> int:
    from roadstead.cli import seff

    return seff.main(operands)


def _oci(operands: list[str]) -> int:
    from roadstead.agent import oci

    return oci.main(operands)


def _audit(operands: list[str]) -> int:
    from roadstead.cli import audit

    return audit.main(operands)


# name → what it takes, what it is for, what does it
SUBCOMMANDS: dict[str, tuple[str, str, Callable[[list[str]], int]]] = {
    "shims": ("DIR", "write fast-starting wrappers for all commands into DIR", _shims),
    "audit": ("[--clean] [--json]", "what steps have left behind, and its removal", _audit),
    "engine": (
        "[status|start|stop [--now]|oci-conf]",
        "which engine commands are for, and why; the local engine's controller",
        _engine,
    ),
    "oci": (
        "run|create|start|state|kill|delete",
        "what a site's oci.conf calls; `roadstead engine oci-conf` prints that file",
        _oci,
    ),
    "doctor": (
        "[--json] [--verbose] [--nodes LIST]",
        "check what containers need here, or on a cluster's nodes, and say what to do",
        _doctor,
    ),
    "bundle": (
        "create BUNDLE --from KIND WHAT… | check BUNDLE",
        "make a bundle of nearly anything, or say what is wrong with one",
        _bundle,
    ),
    "image": (
        "ls | pull | inspect | rm | gc | verify | export",
        "what is in the image store, what comes there and what goes",
        _image,
    ),
    "pod": (
        "run | check | ls | status | logs | delete",
        "run the pods of Kubernetes manifests, as a job or a step, and look after them",
        _pod,
    ),
    "jobs": (
        "[--tasks] [--json] [--since TIME] [JOB[.STEP]…]",
        "your container jobs: image, staging, start, and how each task ended",
        _jobs,
    ),
    "seff": ("JOB", "how well a job used the CPUs and the memory that it had", _seff),
    "runtime": (
        "test BUNDLE [--keep-going]",
        "call the OCI runtime as a step would, command by command",
        _runtime,
    ),
}


def _usage() -> str:
    lines = ["Usage: roadstead COMMAND …", ""]
    for name, (takes, does, _) in SUBCOMMANDS.items():
        lines.append(f"  {name + ' ' + takes:<36} {does}")
    lines += [
        f"  {'srun | sbatch | salloc …':<36} Slurm's commands, by their own names",
        f"  {'--version, --help':<36} about this program",
        "",
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run ``roadstead`` with ``argv`` (without the program's name); its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        if not argv or argv[0] in ("-h", "--help", "help"):
            report.write_out(_usage())
            return 0 if argv else 1
        if argv[0] in ("-V", "--version"):
            from roadstead import __version__

            report.write_out(f"roadstead {__version__}\n")
            return 0
        if argv[0] not in SUBCOMMANDS:
            return _slurm_command(argv)
        return SUBCOMMANDS[argv[0]][2](argv[1:])
    except RoadsteadError as error:
        return report.fail(COMMAND, error)
    except KeyboardInterrupt:
        return report.INTERRUPTED


def _slurm_command(argv: list[str]) -> int:
    """``roadstead srun …`` is ``srun …``."""
    from roadstead.cli import shims

    if argv[0] not in shims.COMMANDS:
        raise UsageError(f"unknown command {argv[0]}", hint="roadstead --help lists them")
    from importlib import import_module

    return int(import_module(f"roadstead.cli.{argv[0]}").main(argv[1:]))
