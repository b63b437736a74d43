"""roadstead doctor --nodes: what containers need of a Slurm cluster's nodes, as a table by node.

The nodes are allocated first, for as long as they are looked at; in a job they are the job's.  It
is the same look that comes before a step's first task (engines/slurm/preflight.py), and it is
remembered as that is.
"""

from __future__ import annotations

import json
import os

from roadstead.cli import cluster, report
from roadstead.core import hostlist
from roadstead.core.model import to_json
from roadstead.engines import choice
from roadstead.engines.slurm import known, preflight, real, stage, zipapp
from roadstead.errors import RequestError

_EVERY = "ALL"


def main(nodes: str, *, as_json: bool) -> int:
    """Look at these nodes; 0 when containers can run on all of them, else 1."""
    environ = os.environ
    if not choice.is_slurm(environ):
        raise RequestError(
            "--nodes is about a Slurm cluster, and commands go to the local engine here",
            hint="roadstead engine says why; roadstead doctor looks at this machine",
        )
    every = preflight.every_node(environ)
    wanted = every if nodes.upper() == _EVERY else hostlist.expand(nodes)
    job = environ.get("SLURM_JOB_ID", "")
    if not job:
        _allocate(wanted, as_json=as_json)
    archive = zipapp.archive(environ)
    see = stage.seen_of_ours(archive)
    answers = preflight.examine(wanted, job, archive, see, (), environ)
    wrong = preflight.faults(answers)
    shared = {
        node: [at.path for at, yes in zip(see, each.sees, strict=False) if yes]
        for node, each in answers.items()
        if node not in wrong
    }
    agents = {node: each.agent for node, each in answers.items()}
    known.Nodes.of(environ).note(shared, archive.digest, every, agents)
    if as_json:
        told = {
            node: {**to_json(each), "fault": wrong.get(node, "")} for node, each in answers.items()
        }
        report.write_out(json.dumps({"version": 1, "nodes": told}, indent=2) + "\n")
    else:
        report.write_out("".join(f"{line}\n" for line in preflight.table(answers)))
    return 1 if wrong else 0


def _allocate(nodes: list[str], *, as_json: bool) -> None:
    """Become an salloc of the nodes that runs this again."""
    names = hostlist.fold(nodes)
    argv = [
        "--quiet", f"--nodelist={names}", f"--nodes={len(nodes)}", "--ntasks-per-node=1",
        "--time=10", "--job-name=roadstead-doctor",
        *cluster.ourselves("main"), "doctor", f"--nodes={names}",
    ]  # fmt: skip
    argv = [*argv, "--json"] if as_json else argv
    real.become("salloc", argv, os.environ, called="roadstead")
