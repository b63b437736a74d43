"""roadstead.Client, AsyncClient and Executor, as programs use them."""

from __future__ import annotations

import os
import re
import signal
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.account import Completed
from tests.support.bundle import make_host_bundle
from tests.support.components import ROOT
from tests.support.engine import Engine
from tests.support.product import Product
from tests.support.skips import require
from tests.support.waiting import eventually

cloudpickle = pytest.importorskip("cloudpickle")
Run = Callable[..., Completed]


@pytest.fixture
def python(engine: Engine, product: Product) -> Run:
    """Run a program that has the package and cloudpickle."""
    beside = Path(cloudpickle.__file__).parents[1]
    env = {"PYTHONPATH": f"{product.library}:{beside}", "PYTHONDONTWRITEBYTECODE": "1"}

    def run(text: str, *arguments: str) -> Completed:
        program = engine.account.write(engine.work / "program.py", textwrap.dedent(text))
        argv = [product.python, "-W", "error", os.fspath(program), *arguments]
        return engine.run(argv, env=env, timeout=120)

    return run


def examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)


def test_the_examples_of_the_manual(python: Run) -> None:
    said = [python(example).check().stdout for example in examples()]
    assert said == [
        "COMPLETED 0 42\n\n",
        "COMPLETED [0, 0, 0]\n",
        "[0, 0, 0, 0, 0]\n",
        "[0, 1, 4, 9]\nexecutor\n",
    ]


def test_a_job_from_its_submission_to_its_end(python: Run) -> None:
    done = python(
        """
        import roadstead

        with roadstead.Client() as client:
            failed = client.submit(["sh", "-c", "echo out; echo err >&2; exit 3"], error="err")
            print(failed.wait())
            print(repr(failed.logs()), repr(failed.logs("stderr")))
            record = failed.record()
            print(record.name, record.state, record.code, record.ended >= record.started)
            killed = client.submit(script="#!/bin/sh\\nkill -9 $$")
            print(killed.wait().state, killed.wait().signal)
            long = client.submit(["sleep", "60"], job_name="long", time=5)
            try:
                long.wait(0.05)
            except TimeoutError:
                print("it runs")
            long.cancel()
            print(long.wait().state, client.job(long.id).wait().ok)
            long.cancel()  # no error
            for wrong in (
                lambda: long.cancel("USR1"),
                lambda: client.job(4711).wait(),
                lambda: client.submit(["true"], ntasks=-1),
                lambda: client.submit(["true"], colour="red"),
                lambda: client.submit(["true"], nodes=99),
                lambda: client.submit(["true"], wait=True),
                lambda: client.submit("true"),
                lambda: client.submit(script="echo"),
                lambda: client.submit(),
            ):
                try:
                    wrong()
                except roadstead.RoadsteadError as error:
                    print(type(error).__name__, error)
        """
    ).check()
    assert done.stdout.splitlines() == [
        f"End(job_id=1, state='FAILED', code=3, signal=0, node='{os.uname().nodename}')",
        r"'out\n' 'err\n'",
        "sh FAILED 3 True",
        "FAILED 9",
        "it runs",
        "CANCELLED False",
        "RequestError Kill job error on job id 3: Invalid job id specified",
        "RequestError Invalid job id specified",
        'RequestError Invalid numeric value "-1" for --ntasks.',
        "UsageError unrecognized option '--colour=red'",
        "RequestError Batch job submission failed: Node count specification invalid",
        "UsageError wait: not an option of submit",
        "UsageError submit wants a command's words",
        "RequestError This does not look like a batch script: line 1 does not name an interpreter",
        "UsageError submit wants a command or a script, one of them",
    ]


def test_thousands_over_one_connection_while_controllers_are_killed(python: Run) -> None:
    """Every submission is accepted once, and every end is heard of."""
    done = python(
        """
        import os, signal, threading, time
        import roadstead
        from roadstead.engines import local

        def kill():
            for _ in range(2):
                time.sleep(0.1)
                try:
                    os.kill(local.ask({"op": "live"})["pid"], signal.SIGKILL)
                except roadstead.RoadsteadError:
                    pass

        with roadstead.Client() as client:
            client.submit(["true"]).wait()
            killer = threading.Thread(target=kill)
            killer.start()
            futures = [client.start(["true"], hold=True) for _ in range(1500)]
            jobs = [future.result() for future in futures]
            killer.join()
            print(len({job.id for job in jobs}), max(job.id for job in jobs))
            ends = [job.end() for job in jobs]
            for job in jobs:
                job.request_cancel()
            print({end.result().state for end in ends})
        """
    ).check()
    assert done.stdout.splitlines() == ["1500 1501", "{'CANCELLED'}"]


def test_a_closed_client_leaves_nothing_waiting(python: Run) -> None:
    done = python(
        """
        import roadstead

        client = roadstead.Client()
        job = client.submit(["sleep", "60"])
        end = job.end()
        client.close()
        for wrong in (end.result, job.wait, lambda: client.submit(["true"])):
            try:
                wrong()
            except roadstead.RoadsteadError as error:
                print(error)
        with roadstead.Client() as another:
            another.job(job.id).cancel()
            print(another.job(job.id).wait().state)
        """
    ).check()
    assert done.stdout.splitlines() == [
        "the client was closed before the answer came",
        "the client has been closed",
        "the client has been closed",
        "CANCELLED",
    ]


CALLS = """
import os, sys, time
from concurrent.futures import CancelledError, as_completed, wait
import roadstead

program = os.path.abspath(sys.argv[0])

def where(word):
    print("said", word)
    return word, os.environ["SLURM_JOB_ID"], os.path.exists(program), {"any": (1, None)}

def fail(number):
    raise ValueError("no", number)

def lose():
    print("I go", file=sys.stderr)
    os._exit(7)

def far(n):
    return n if n == 0 else far(n - 1)

def main(container=None):
    with roadstead.Executor(container) as executor:
        print(executor.submit(where, "here").result())
        failed = executor.submit(fail, 5).exception()
        print(repr(failed), "in fail" in str(failed.__cause__))
        print(sorted(executor.map(lambda a, b: a * b, [1, 2, 3], [4, 5, 6])))
        lost = executor.submit(lose).exception()
        print(type(lost).__name__, lost.state, "I go" in str(lost), lost.job_id)
        print(executor.submit(lambda: (i for i in ())).exception().args[0].split(": ")[1:])
        print(executor.submit(far, 50).result(), len(executor.submit(bytes, 3_000_000).result()))
        long = executor.submit(time.sleep, 60)
        folder = executor._folder
        while not long.cancel():
            pass
        done, _ = wait([long])
        print(long.cancelled(), len(done))
    print(folder.exists())
    try:
        executor.submit(where)
    except RuntimeError as error:
        print(error)
    other = roadstead.Executor(container)
    futures = [other.submit(time.sleep, 60) for _ in range(3)]
    other.shutdown(cancel_futures=True)
    print([future.cancelled() for future in as_completed(futures)])

main(*sys.argv[1:])
"""


@pytest.mark.container
@pytest.mark.parametrize("contained", [False, True], ids=["host", "container"])
def test_functions_in_jobs(engine: Engine, python: Run, scratch: Path, contained: bool) -> None:
    arguments = []
    if contained:
        require("busybox", "runc")
        arguments = [os.fspath(make_host_bundle(engine.account, scratch / "bundle"))]
    done = python(CALLS, *arguments).check()
    assert done.stdout.splitlines() == [
        f"('here', '1', {not contained}, {{'any': (1, None)}})",
        "ValueError('no', 5) True",
        "[4, 10, 18]",
        "JobFailed FAILED True 6",
        "['its result cannot be pickled', \"cannot pickle 'generator' object\"]",
        "0 3000000",
        "True 1",
        "False",
        "cannot schedule new futures after shutdown",
        "[True, True, True]",
    ]
    assert done.stderr == ""
    left = list((engine.base / "cache" / "roadstead" / "executor").iterdir())
    assert left == []


def test_another_python_in_the_job_is_refused(engine: Engine, python: Run) -> None:
    script = "#!/bin/sh\nexec /usr/bin/python3 -c 'import sys; sys.version_info = (3, 1); '\"$2\"\n"
    odd = engine.account.write(engine.work / "odd", script)
    odd.chmod(0o755)
    done = python(
        """
        import sys, roadstead
        with roadstead.Executor(python=sys.argv[1]) as executor:
            print(executor.submit(len, "abc").exception())
        """,
        os.fspath(odd),
    ).check()
    assert "job 1: the job has Python 3.1, its submitter 3." in done.stdout


def test_a_program_that_is_killed_leaves_its_jobs(engine: Engine, python: Run) -> None:
    done = python(
        """
        import os, signal, roadstead
        client = roadstead.Client()
        client.start(["sh", "-c", "sleep 0.2; echo done"], output="left.txt").result()
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    assert done.returncode == -signal.SIGKILL
    ended = engine.run(["sbatch", "--wait", "-d", "afterany:1", "--wrap", "cat left.txt"])
    if ended.returncode:  # dependencies may not be there
        engine.run(["sbatch", "--wait", "--exclusive", "--wrap", "true"]).check()
    assert (engine.work / "left.txt").read_text() == "done\n"


def test_components_and_letters(engine: Engine, python: Run) -> None:
    folder = engine.account.mkdir(engine.base / "fake-mta")
    box = engine.account.mkdir(engine.base / "letters")
    engine.account.write(folder / "sendmail", f"#!/bin/sh\ncat > {box}/$$\n", 0o755)
    engine.variables["PATH"] = f"{folder}:{engine.variables['PATH']}"
    done = python(
        r"""
        import roadstead

        with roadstead.Client() as client:
            script = "#!/bin/sh\n#SBATCH -n1\n#SBATCH hetjob\n#SBATCH -n1\necho $SLURM_HET_SIZE"
            job = client.submit(script=script, mail_type="END", overcommit=True)
            print(job.wait().state, job.logs())
            try:
                client.submit(["true"], export_file="x")
            except roadstead.RoadsteadError as error:
                print(error)
        """
    ).check()
    assert done.stdout == "COMPLETED 2\n\nexport_file: not an option of submit\n"
    subject = "Subject: Slurm Job_id=1 Name=sbatch Ended, Run time 00:00:0"
    eventually(lambda: any(subject in each.read_text() for each in box.iterdir()), timeout=20)
