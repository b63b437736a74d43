"""Some of script/trials' trials on a real Slurm: a hundred are for a quiet hour."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.components import ROOT
from tests.support.skips import require

COUNT = 5
SEED = 6


@pytest.mark.container
def test_nothing_is_left_on_any_node() -> None:
    require("root", "slurm", "address", "crun", "busybox", "runc", "account")
    argv = [sys.executable, ROOT / "script" / "trials", "--kind=cluster", f"--seed={SEED}"]
    done = subprocess.run(
        [*argv, f"--count={COUNT}"], capture_output=True, text=True, timeout=180, env=os.environ
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert f"{COUNT} trials, seed {SEED}: nothing lost, nothing left\n" in done.stdout
