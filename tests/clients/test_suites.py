"""Clients' own tests, where they can be aimed at a Slurm: unchanged, from PyPI.

What their repositories have beside the tests, and PyPI has not, is written here: the option that
chooses Slurm.  Tests that are left out are named, with the reason.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.clients.environment import Environment
from tests.e2e.test_scheduling import configure

pytestmark = pytest.mark.clients

SITE = """
NodeName=n[1-2] CPUs=2 RealMemory=8000
PartitionName=debug Nodes=ALL Default=YES
"""

DASK = """
import pytest
import dask_jobqueue  # before the next line, which remembers the configuration
from distributed.utils_test import cleanup, loop, loop_in_thread

def pytest_configure(config):
    config.addinivalue_line("markers", "env(name): needs this system")

def pytest_collection_modifyitems(items):
    items[:] = [each for each in items if [*each.iter_markers("env")]]
"""

PSIJ_PARAMETERS = """
class ExecutorTestParams:
    executor = "slurm"
    launcher = url = queue_name = multi_node_queue_name = account = project = None
    custom_attributes = {}
"""
PSIJ_TOOLS = """
import shutil, tempfile
from contextlib import contextmanager
from pathlib import Path
from psij import JobAttributes, JobExecutor, JobState
from psij.executors.batch.slurm import SlurmExecutorConfig

HERE = Path.home() / ".psij" / "test"

def _make_test_dir():
    HERE.mkdir(parents=True, exist_ok=True)

def _get_timeout(_):
    return None

def assert_completed(job, status, attached=False):
    assert status is not None and status.state == JobState.COMPLETED, status

def _get_executor_instance(parameters, job=None):
    if job is not None:
        job.spec.attributes = JobAttributes()
    config = SlurmExecutorConfig(initial_queue_polling_delay=1, queue_polling_interval=1)
    return JobExecutor.get_instance("slurm", config=config)

@contextmanager
def _deploy(path):
    _make_test_dir()
    with tempfile.TemporaryDirectory(dir=HERE) as folder:
        yield Path(shutil.copy(path, folder))
"""
PSIJ_CONFTEST = """
import pytest
from executor_test_params import ExecutorTestParams

@pytest.fixture(params=[ExecutorTestParams()], ids=["slurm"])
def execparams(request):
    return request.param
"""


def passed(suites: Environment, *words: str | Path, without: tuple[str, ...] = ()) -> int:
    """How many tests passed; that another one failed fails this one."""
    configure(suites.engine, SITE)
    settings = suites.write("pytest.ini", "[pytest]\nasyncio_mode = auto\n")
    choice = ["-k", " and ".join(f"not {each}" for each in without)] if without else []
    argv = [suites.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", settings]
    argv += ["--rootdir", suites.engine.work, *choice, *words]
    done = suites.call(*argv, timeout=900)
    assert done.returncode == 0, done
    print(done.stdout)
    found = re.search(r"(\d+) passed", done.stdout)
    assert found, done
    return int(found[1])


def packages(suites: Environment) -> Path:
    return next((suites.place / "lib").glob("python3*/site-packages"))


def test_dask_jobqueue(suites: Environment) -> None:
    """One skips itself, without an interface eth0; left out is one that writes to /shared_space."""
    suites.write("conftest.py", DASK)
    tests = suites.engine.work / "test_slurm.py"
    suites.write("test_slurm.py", "from dask_jobqueue.tests.test_slurm import *\n")
    assert passed(suites, tests, without=("slurm_runner",)) == 3


def test_parsl(suites: Environment) -> None:
    """Left out for root are two that expect it not to be able to write somewhere."""
    tests = packages(suites) / "parsl" / "tests"
    names = ["test_python_apps/test_basic.py", "test_python_apps/test_fibonacci_iterative.py"]
    names += ["test_bash_apps/test_basic.py", "test_bash_apps/test_stdout.py"]
    root = suites.engine.account.uid == 0
    without = ("bad_stdout_file", "bad_stderr_file") if root else ()
    config = tests / "configs" / "slurm_local.py"
    done = passed(suites, *(tests / each for each in names), "--config", config, without=without)
    assert done == (28 if root else 30)


def test_psij(suites: Environment) -> None:
    """One skips itself: it counts nodes for other executors only."""
    work = suites.engine.work / "tests"
    shutil.copytree(suites.place / "sources" / "psij-python" / "tests", work)
    suites.engine.account.own(work)
    suites.write("tests/conftest.py", PSIJ_CONFTEST)
    suites.write("tests/executor_test_params.py", PSIJ_PARAMETERS)
    suites.write("tests/_test_tools.py", PSIJ_TOOLS)
    names = ("executor", "resources", "wait", "issue_435")
    done = passed(suites, *(work / f"test_{each}.py" for each in names))
    assert done == 22
