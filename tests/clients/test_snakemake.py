"""snakemake-executor-plugin-slurm: rules as jobs, asked for by name with sacct or squeue."""

from __future__ import annotations

import pytest

from tests.clients.environment import Environment

pytestmark = pytest.mark.clients

SNAKEFILE = """
rule all:
    input: expand("part-{n}", n=range(2))

rule part:
    output: "part-{n}"
    resources: mem_mb=200, runtime=5
    shell: "echo {wildcards.n} > {output}"
"""
FAILING = """
rule fails:
    output: "never"
    resources: mem_mb=200, runtime=5
    shell: "exit 3"
"""
QUICK = ["--slurm-init-seconds-before-status-checks=1", "--seconds-between-status-checks=1"]


def run(snakemake: Environment, text: str, *options: str, code: int = 0) -> str:
    snakemake.write("Snakefile", text)
    program = snakemake.python.with_name("snakemake")
    argv = [program, "--executor", "slurm", "--jobs", "2", *QUICK, *options]
    done = snakemake.call(*argv, timeout=200)
    assert done.returncode == code, done
    return done.stderr


def parts(snakemake: Environment) -> list[str]:
    return [(snakemake.engine.work / f"part-{n}").read_text() for n in range(2)]


@pytest.mark.parametrize("status", ["sacct", "squeue"])
def test_a_workflow(snakemake: Environment, status: str) -> None:
    resources = ["--default-resources", "slurm_partition=local", "slurm_account=ours"]
    run(snakemake, SNAKEFILE, f"--slurm-status-command={status}", *resources)
    assert parts(snakemake) == ["0\n", "1\n"]


def test_arrays(snakemake: Environment) -> None:
    run(snakemake, SNAKEFILE, "--slurm-array-jobs=all")
    assert parts(snakemake) == ["0\n", "1\n"]


def test_a_rule_that_fails(snakemake: Environment) -> None:
    said = run(snakemake, FAILING, code=1)
    assert "status is: 'FAILED'" in said
