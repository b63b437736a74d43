"""ReFrame: `scheduler: slurm` polls sacct, `scheduler: squeue` polls squeue."""

from __future__ import annotations

import pytest

from tests.clients.environment import Environment

SETTINGS = """
site_configuration = {
    "systems": [{
        "name": "here", "hostnames": [".*"], "stagedir": "stage", "outputdir": "output",
        "partitions": [
            {"name": scheduler, "scheduler": scheduler, "launcher": "srun", "environs": ["none"],
             "access": ["--partition=local"], "prepare_cmds": []}
            for scheduler in ("slurm", "squeue")
        ],
    }],
    "environments": [{"name": "none"}],
    "general": [{"resolve_module_conflicts": False}],
}
"""

CHECKS = """
import os
import reframe as rfm
import reframe.utility.sanity as sn
from reframe.core.builtins import *

class Base(rfm.RunOnlyRegressionTest):
    valid_systems = ["*"]
    valid_prog_environs = ["*"]
    executable = "sh"

@rfm.simple_test
class Hello(Base):
    num_tasks = 2
    executable_opts = ["-c", "'echo rank $SLURM_PROCID of $SLURM_NTASKS'"]

    @sanity_function
    def both(self):
        found = sn.extractall(r"rank (\\d) of 2", self.stdout, 1, int)
        return sn.assert_eq(sn.sorted(found), [0, 1])

@rfm.simple_test
class Inside(Base):
    executable_opts = ["-c", "'ls /.in-the-container'"]

    @run_before("run")
    def contain(self):
        self.job.launcher.options = ["--container=" + os.environ["BUNDLE"]]

    @sanity_function
    def inside(self):
        return sn.assert_found("in-the-container", self.stdout)
"""


def reframe(light: Environment, name: str, scheduler: str, bundle: str = "") -> None:
    light.write("settings.py", SETTINGS)
    checks = light.write("checks.py", CHECKS.replace('os.environ["BUNDLE"]', repr(bundle)))
    words = ["-C", "settings.py", "-c", checks, "--system", f"here:{scheduler}", "-n", name, "-r"]
    done = light.call(light.python.with_name("reframe"), *words)
    assert done.returncode == 0, done
    assert "Ran 1/1 test case(s) from 1 check(s) (0 failure(s)," in done.stdout, done


@pytest.mark.parametrize("scheduler", ["slurm", "squeue"])
def test_a_check_of_two_tasks(light: Environment, scheduler: str) -> None:
    reframe(light, "Hello", scheduler)


@pytest.mark.container
def test_a_check_in_a_container(light: Environment) -> None:
    reframe(light, "Inside", "slurm", str(light.bundle()))
