"""Starting a command is cheap: what the clients import, and how long that takes.

A user waits for these imports at every command, and workflow tools run thousands of commands.  Each
module below costs between two and fifty milliseconds; all of a lean client costs about as much as
one of them.  The time is judged against the same interpreter doing nothing, alternately, by the
minima of several runs: their ratio holds on slow and busy machines too.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from roadstead.engines.slurm import zipapp
from tests.support.product import Product

SOURCE = Path(__file__).resolve().parents[1] / "src" / "roadstead"
CLIENTS = ("srun", "sbatch", "salloc", "squeue", "scancel", "sinfo", "scontrol", "sattach")
# Parses, sends, waits, or is asked again and again: these may not import any of the below.
LEAN = [
    name
    for name in (
        *("srun", "sbatch", "salloc", "squeue", "sattach"),
        *("scancel", "sinfo", "scontrol", "sacct", "sstat"),
    )
    if (SOURCE / f"cli/{name}.py").exists()
]
FORBIDDEN = {
    *("argparse", "asyncio", "collections", "contextlib", "dataclasses", "enum", "functools"),
    *("importlib.metadata", "inspect", "json", "logging", "pathlib", "re", "selectors"),
    *("signal", "socket", "subprocess", "typing"),
}
# Measured: 1.7; a single forbidden module more adds from 0.3 to 6.
BUDGET = 1.8
# Minima only fall, so a busy machine just takes more rounds.
ROUNDS = range(10, 100)


def _code(product: Product, statement: str) -> list[str]:
    path = f"import sys; sys.path.insert(0, {os.fspath(product.library)!r})"
    return [product.python, "-IS", "-c", f"{path}; {statement}"]


def _loaded(product: Product, statement: str) -> set[str]:
    argv = _code(product, f"{statement}; print(*sys.modules)")
    return set(subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split())


@pytest.mark.parametrize("client", LEAN)
def test_a_client_imports_nothing_heavy(product: Product, client: str) -> None:
    loaded = _loaded(product, f"import roadstead.cli.{client}") - _loaded(product, "pass")
    assert loaded & FORBIDDEN == set()


def test_an_image_in_the_store_costs_a_client_nothing_heavy(product: Product) -> None:
    statement = "import roadstead.cli.srun, roadstead.cli.containers, roadstead.oci.search"
    assert (_loaded(product, statement) - _loaded(product, "pass")) & FORBIDDEN == set()


def test_a_step_on_a_cluster_costs_a_client_nothing_heavy(product: Product) -> None:
    statement = "import roadstead.cli.srun, roadstead.cli.cluster, roadstead.cli.options_launch"
    assert (_loaded(product, statement) - _loaded(product, "pass")) & FORBIDDEN == set()


def test_a_task_s_agent_imports_nothing_heavy(product: Product, tmp_path: Path) -> None:
    """The packed one, which starts once for each task (engines/slurm/lowering.py)."""
    archive = tmp_path / "agent.pyz"
    archive.write_bytes(zipapp.build())
    path = f"import sys; sys.path.insert(0, {os.fspath(archive)!r}); import zlib, roadstead; "
    loaded = [
        subprocess.run(
            [product.python, "-IS", "-c", f"{path}{more}print(*sys.modules)"],
            check=True, capture_output=True, text=True,
        ).stdout.split()
        for more in ("", "import roadstead.agent.task; ")
    ]  # fmt: skip
    assert not (set(loaded[1]) - set(loaded[0])) & FORBIDDEN


def _milliseconds(argv: list[str]) -> float:
    begin = time.perf_counter()
    pid = os.posix_spawn(argv[0], argv, {})
    _, status = os.waitpid(pid, 0)
    assert status == 0
    return (time.perf_counter() - begin) * 1000


def test_srun_starts_in_its_budget(product: Product) -> None:
    nothing, lean = _code(product, "pass"), _code(product, "import roadstead.cli.srun")
    bases, takens = [], []
    while len(bases) < ROUNDS.stop:
        bases.append(_milliseconds(nothing))
        takens.append(_milliseconds(lean))
        if len(bases) >= ROUNDS.start and min(takens) <= BUDGET * min(bases):
            return
    pytest.fail(f"srun: {min(takens):.1f} ms, the interpreter alone {min(bases):.1f} ms")
