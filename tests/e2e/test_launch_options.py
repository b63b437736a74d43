"""What the launch commands do around a step: prologs, letters, limits, copies, nodes."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.engine import Engine
from tests.support.waiting import eventually

SOFT = 333


def program(engine: Engine, name: str, body: str) -> str:
    path = engine.account.write(engine.work / name, f"#!/bin/sh\n{body}\n", 0o755)
    return str(path)


# -- prologs and epilogs ---------------------------------------------------------------------------


def test_a_task_prolog_changes_its_task(engine: Engine) -> None:
    program(engine, "before", "echo export COLOUR=blue green; echo unset HOME; echo print hello; "
            "echo junk; echo on stderr $SLURM_PROCID >&2")  # fmt: skip
    after = program(engine, "after", "echo bye $COLOUR")
    done = engine.run(
        ["srun", "-l", "-On2", "--task-prolog=before", f"--task-epilog={after}", "sh", "-c",
         "echo $COLOUR $HOME."]
    ).check()  # fmt: skip
    said = sorted(done.stdout.splitlines())
    assert said == sorted(
        f"{task}: {line}" for task in (0, 1) for line in ("hello", "blue green .", "bye blue green")
    )
    assert sorted(done.stderr.splitlines()) == ["0: on stderr 0", "1: on stderr 1"]


@pytest.mark.parametrize("around", [[], ["--task-prolog=before", "--task-epilog=after"]])
def test_a_task_has_its_cpus_whatever_comes_before_it(engine: Engine, around: list[str]) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two CPUs")
    look = "grep Cpus_allowed_list /proc/self/status"
    program(engine, "before", f'echo "print $({look})"')
    program(engine, "after", look)
    done = engine.run(["srun", "-n2", "--cpu-bind=cores", *around, *look.split()]).check()
    found = done.stdout.splitlines()
    assert len(set(found)) == 2, done  # each task its own, and what is around it the same
    assert len(found) == (6 if around else 2), done


def test_a_task_prolog_that_fails_keeps_its_task_from_starting(engine: Engine) -> None:
    bad = program(engine, "bad", "exit 3")
    done = engine.run(["srun", f"--task-prolog={bad}", "echo", "started"])
    assert (done.returncode, done.stdout) == (1, "")
    assert "error: task 0: --task-prolog failed status=3" in done.stderr
    done = engine.run(["srun", f"--task-epilog={bad}", "echo", "started"]).check()
    assert "--task-epilog failed status=3" in done.stderr
    done = engine.run(["srun", "--task-prolog=/nowhere", "true"])
    assert done.returncode == 1
    assert "cannot execute /nowhere" in done.stderr


def test_a_task_that_is_ended_takes_its_prolog_along(engine: Engine) -> None:
    slow = program(engine, "slow", "sleep 60")
    done = engine.run(["sbatch", "-W", "-t", "0:02", "--wrap", f"srun --task-prolog={slow} x"])
    assert done.returncode
    eventually(lambda: engine.run(["squeue", "-h"]).stdout == "", timeout=20)


def test_sruns_own_prolog_and_epilog(engine: Engine) -> None:
    mine = program(engine, "mine", 'echo $SLURM_JOB_ID "$@"')
    done = engine.run(["srun", f"--prolog={mine}", f"--epilog={mine}", "echo", "a"]).check()
    assert done.stdout.splitlines() == ["echo a", "a", "1 echo a"]
    bad = program(engine, "bad", "exit 3")
    done = engine.run(["srun", f"--prolog={bad}", "echo", "a"])
    assert (done.returncode, done.stdout) == (1, "")
    assert "srun prolog failed rc = 3. Aborting step." in done.stderr
    done = engine.run(["srun", f"--epilog={bad}", "echo", "a"]).check()
    assert "srun epilog failed status=3" in done.stderr


def test_epilogs_of_containers(engine: Engine, make_bundle: Callable[..., Path]) -> None:
    bundle = make_bundle()
    after = program(engine, "after", "echo after $SLURM_PROCID")
    done = engine.run(
        ["srun", "--container", str(bundle), f"--task-epilog={after}", "echo", "inside"]
    ).check()
    assert done.stdout.splitlines() == ["inside", "after 0"]
    done = engine.run(["srun", "--container", str(bundle), f"--task-prolog={after}", "true"])
    assert done.returncode == 1
    assert "--task-prolog runs outside of the container" in done.stderr


# -- letters ---------------------------------------------------------------------------------------


@pytest.fixture
def letters(engine: Engine) -> Callable[[], list[str]]:
    """A fake mail transfer agent, first on PATH; what it was given."""
    folder = engine.account.mkdir(engine.base / "fake-mta")
    box = engine.account.mkdir(engine.base / "letters") / "letter"
    engine.account.write(
        folder / "sendmail", f'#!/bin/sh\n(echo "$*"; cat) > {box}.$$.new\n'
        f"mv {box}.$$.new {box}.$$\n", 0o755,
    )  # fmt: skip
    engine.variables["PATH"] = f"{folder}:{engine.variables['PATH']}"

    def read() -> list[str]:
        found = [path.read_text() for path in box.parent.glob("letter.*[0-9]")]
        return sorted(line for text in found for line in text.splitlines() if line)

    return read


def test_letters_about_jobs(engine: Engine, letters: Callable[[], list[str]]) -> None:
    engine.run(
        ["sbatch", "-W", "--mail-type=ALL", "--mail-user=me@example.org", "-J", "é", "--wrap",
         "exit 3"]
    ).check(3)  # fmt: skip
    eventually(lambda: len(letters()) == 6, timeout=20)
    began, failed = [line for line in letters() if line.startswith("Subject")]
    assert letters()[:2] == ["-t -i"] * 2
    assert letters().count("To: me@example.org") == 2
    assert began.startswith("Subject: =?utf-8?b?")
    assert failed.startswith("Subject: =?utf-8?b?")


def test_letters_about_arrays(engine: Engine, letters: Callable[[], list[str]]) -> None:
    wrap = ["--wrap", "exit $SLURM_ARRAY_TASK_ID"]
    engine.run(["sbatch", "-W", "-a", "1-2", "--mail-type=BEGIN,END,FAIL", *wrap]).check(2)
    wanted = [
        "Subject: Slurm Array Summary Job_id=1_* (1) Name=wrap Began",
        "Subject: Slurm Array Summary Job_id=1_* (1) Name=wrap Failed, FAILED, ExitCode [1-2]",
    ]

    def subjects() -> list[str]:
        return [line for line in letters() if line.startswith("Subject")]

    eventually(lambda: subjects() == wanted, timeout=20)


def test_without_a_mail_transfer_agent_the_user_is_told(engine: Engine) -> None:
    if any(os.path.exists(f"{folder}/sendmail") for folder in ("/usr/sbin", "/usr/lib", "/sbin")):
        pytest.skip("this machine has one")
    done = engine.run(["sbatch", "-W", "--mail-type=END", "--wrap", "true"]).check()
    assert "there is no sendmail on this machine" in done.stderr
    done = engine.run(["sbatch", "--mail-type=SOON", "--wrap", "true"])
    assert done.returncode == 255
    assert "Invalid --mail-type specification" in done.stderr


# -- limits ----------------------------------------------------------------------------------------


def test_soft_limits_are_the_users(engine: Engine, make_bundle: Callable[..., Path]) -> None:
    bundle = make_bundle()
    engine.run(["srun", "true"]).check()  # the controller has other limits
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    show = "ulimit -S -n; ulimit -H -n"
    lowered = f"ulimit -S -n {SOFT}; exec"
    done = engine.run(["sh", "-c", f"{lowered} srun sh -c '{show}'"]).check()
    assert done.stdout.split() == [str(SOFT), str(hard)]
    done = engine.run(["sh", "-c", f"{lowered} srun --propagate=CORE sh -c '{show}'"]).check()
    assert done.stdout.split()[0] != str(SOFT)
    done = engine.run(["sh", "-c", f"{lowered} sbatch -W -o out --wrap '{show}'"]).check()
    assert (engine.work / "out").read_text().split()[0] == str(SOFT)
    done = engine.run(
        ["sh", "-c", f"{lowered} srun --container {bundle} sh -c 'ulimit -S -n'"]
    ).check()
    assert done.stdout.split() in ([str(SOFT)], ["1024"]), "1024 is what the bundle itself says"
    done = engine.run(["srun", "--propagate=SPEED", "true"])
    assert done.returncode == 1
    assert "--propagate=SPEED is not valid." in done.stderr


# -- copies ----------------------------------------------------------------------------------------


def test_a_program_is_copied_and_the_copy_runs(engine: Engine) -> None:
    mine = program(engine, "mine", 'echo "$0" "$@"')
    done = engine.run(["srun", "--bcast=copy", mine, "a"]).check()
    assert done.stdout == f"{engine.work}/copy a\n"
    done = engine.run(["srun", "--bcast", mine, "b"]).check()
    made = list(engine.work.glob("slurm_bcast_2.0_*"))
    assert done.stdout == f"{made[0]} b\n"
    done = engine.run(["srun", "--bcast=/nowhere/copy", mine])
    assert done.returncode == 1
    assert f"Failed to broadcast '{mine}'. Step launch aborted" in done.stderr
    engine.account.mkdir(engine.work / "folder")
    assert "Is a directory" in engine.run(["srun", "--bcast=folder", mine]).stderr


# -- variables and nodes ---------------------------------------------------------------------------


def test_variables_of_a_file(engine: Engine) -> None:
    engine.account.write(engine.work / "vars", "X=1 2\0Y=z\n\0\0")
    argv = ["sbatch", "-W", "-o", "out", "--export-file=vars", "--wrap", "echo $X,$Y,$Z"]
    engine.run(argv, env={"Z": "mine"}).check()
    assert (engine.work / "out").read_text() == "1 2,z,\n"
    done = engine.run(["sbatch", "--export-file=none", "--wrap", "true"])
    assert "Unable to read --export-file none: No such file" in done.stderr


def test_nodes_of_a_file(engine: Engine) -> None:
    folder = engine.account.mkdir(engine.base / "config" / "roadstead")
    node = "NodeName=n[1-3] CPUs=1 Sockets=1 CoresPerSocket=1\n"
    conf = f"{node}PartitionName=p Nodes=n[1-3] Default=YES\n"
    engine.account.write(folder / "roadstead.conf", conf)
    engine.account.write(engine.work / "hosts", "# mine\nn2\nn3  # and this\n")
    for option in ("--nodefile=hosts", "--nodelist=./hosts"):
        done = engine.run(["srun", option, "sh", "-c", "echo $SLURM_JOB_NODELIST"]).check()
        assert done.stdout.splitlines()[:1] == ["n[2-3]"]
    done = engine.run(["sbatch", "-F", "nowhere", "--wrap", "true"])
    assert "Invalid --nodefile node file; nowhere: No such file" in done.stderr
    for option in ("--sockets-per-node=9", "--cores-per-socket=9", "--threads-per-core=9", "-B9"):
        done = engine.run(["srun", option, "true"])
        assert done.returncode == 1
        assert "Requested node configuration is not available" in done.stderr
    for option in ("--sockets-per-node=1", "-B1:1", "--ntasks-per-core=1", "--threads-per-core=1"):
        engine.run(["srun", option, "true"]).check()
    spread = ["srun", "-n2", "--ntasks-per-socket=1", "sh", "-c", "echo $SLURMD_NODENAME"]
    assert sorted(engine.run(spread).check().stdout.split()) == ["n1", "n2"]


def test_sbcast(engine: Engine) -> None:
    mine = program(engine, "mine", "echo ran")
    script = engine.account.write(engine.work / "job.sh", f"""#!/bin/sh
sbcast {mine} copy && ./copy
sbcast -v mine copy; echo $?
sbcast -fp mine copy; echo $?
[ copy -nt mine ] || [ copy -ot mine ] || echo same age
sbcast nothing x; echo $?
sbcast mine; echo $?
sbcast mine /nowhere/x; echo $?
sbcast mine folder/; echo $?
""")  # fmt: skip
    engine.run(["sbatch", "-W", "-o", "out", str(script)]).check()
    said = (engine.work / "out").read_text().splitlines()
    node = engine.run(["sinfo", "-h", "-o", "%n"]).check().stdout.strip()
    assert said == [
        "ran",
        f"sbcast: mine -> copy on {node}",
        f"sbcast: error: REQUEST_FILE_BCAST({node}): File exists",
        "17",
        "0",
        "same age",
        "sbcast: error: Can't open `nothing`: No such file or directory",
        "255",
        "Need two file names, have 1 names",
        'Try "sbcast --help" for more information',
        "1",
        f"sbcast: error: REQUEST_FILE_BCAST({node}): No such file or directory",
        "2",
        "sbcast: error: Target filename cannot be a directory.",
        "1",
    ]
    done = engine.run(["sbcast", mine, "x"])
    assert "Need a job id to run this command." in done.stderr
    done = engine.run(["sbcast", "-j", "999", mine, "x"])
    assert "Slurm job 999 lookup error: Invalid job id specified" in done.stderr
