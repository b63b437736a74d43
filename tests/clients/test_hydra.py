"""Hydra's submitit launcher: a sweep is an array."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.environment import Environment

APP = """
import os, hydra

@hydra.main(version_base=None, config_path=None)
def app(cfg):
    inside = os.path.exists("/.in-the-container")
    print(f"x is {cfg.x}, inside: {inside}, task {os.environ['SLURM_ARRAY_TASK_ID']}")
    return cfg.x

app()
"""


def sweep(light: Environment, *overrides: str) -> list[str]:
    app = light.write("app.py", APP)
    argv = [light.python, app, "--multirun", "hydra/launcher=submitit_slurm", "+x=3,5"]
    light.call(*argv, "hydra.launcher.timeout_min=2", *overrides).check()
    logs = Path(light.engine.work).glob("multirun/**/*_log.out")
    return sorted(line for log in logs for line in log.read_text().splitlines() if "x is" in line)


def test_a_sweep(light: Environment) -> None:
    assert sweep(light) == ["x is 3, inside: False, task 0", "x is 5, inside: False, task 1"]


@pytest.mark.container
def test_in_a_container(light: Environment) -> None:
    """The launcher has no argument for srun's options; its variables do as well."""
    lines = [
        f'"export SRUN_CONTAINER={light.bundle()}"',
        f'"export PYXIS_CONTAINER_MOUNTS={light.engine.work}"',
        f'"export PYXIS_CONTAINER_WORKDIR={light.engine.work}"',
    ]
    assert sweep(light, f"hydra.launcher.setup=[{','.join(lines)}]") == [
        "x is 3, inside: True, task 0",
        "x is 5, inside: True, task 1",
    ]
