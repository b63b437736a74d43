"""A journal that any release wrote must always load: data/journal-v1.db is one of version 1.

Made by: srun -J done true; sbatch -J failed --wrap "exit 3"; sbatch --hold -J held --container …;
sbatch -J running -t 10 --wrap "srun sleep 60"; then kill -9 of the controller, and paths renamed.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from roadstead.controller.journal import Journal
from roadstead.core import lifecycle as life
from roadstead.core.model import BATCH_STEP

DATA = Path(__file__).parents[1] / "data"


def test_version_1(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    shutil.copy(DATA / "journal-v1.db", path)
    journal = Journal(os.fspath(path))
    found = journal.load()
    assert found.next_job_id == 5
    jobs = {job.spec.name: job for job in found.jobs}
    assert sorted(jobs) == ["held", "running"]
    assert jobs["held"].state == life.JobPending(held=True)
    container = jobs["held"].spec.container
    assert container is not None
    assert container.bundle == "/home/alice/app"
    assert isinstance(jobs["running"].state, life.JobRunning)
    assert jobs["running"].spec.time_limit == 600
    steps = {(step.job_id, step.id): step.state.word.value for step in found.steps}
    assert steps == {(4, 0): "RUNNING", (4, BATCH_STEP): "RUNNING"}
    failed = journal.job(2)
    assert failed is not None
    assert isinstance(failed.state, life.JobEnded)
    assert failed.state.outcome.code == 3
    env, script = journal.payload(3)
    assert env == {"HOME": "/home/alice", "PATH": "/usr/bin:/bin"}
    assert script.endswith("echo hi\n")
    journal.close()
