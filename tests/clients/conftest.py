"""Fixtures: the environment of clients that are installed together, and those of single ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients.environment import Environment
from tests.support.engine import Engine


def _environment(engine: Engine, name: str) -> Iterator[Environment]:
    made = Environment(engine, name)
    yield made
    made.close()


@pytest.fixture
def light(engine: Engine) -> Iterator[Environment]:
    """submitit, Hydra, dask-jobqueue, simple-slurm, Parsl, PSI/J, ReFrame, executorlib, pysqa,
    batchspawner."""
    yield from _environment(engine, "light")


@pytest.fixture
def snakemake(engine: Engine) -> Iterator[Environment]:
    yield from _environment(engine, "snakemake")


@pytest.fixture
def aiida(engine: Engine) -> Iterator[Environment]:
    yield from _environment(engine, "aiida")


@pytest.fixture
def jax(engine: Engine) -> Iterator[Environment]:
    yield from _environment(engine, "jax")


@pytest.fixture
def suites(engine: Engine) -> Iterator[Environment]:
    """Clients with tests of their own, and what those need."""
    yield from _environment(engine, "suites")


@pytest.fixture
def lightning(engine: Engine) -> Iterator[Environment]:
    yield from _environment(engine, "lightning")
