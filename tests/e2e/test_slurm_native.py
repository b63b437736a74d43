"""A real Slurm whose oci.conf calls ``roadstead oci``: plain ``srun --container BUNDLE``, in both
forms, over three nodes."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import bundle
from tests.support.account import Account, Completed
from tests.support.engine import make_shims
from tests.support.leaks import remove
from tests.support.product import Product
from tests.support.skips import require
from tests.support.slurm_cluster import SlurmCluster
from tests.support.waiting import eventually

pytestmark = [pytest.mark.slurm, pytest.mark.container]

FOREIGN = [{"containerID": 0, "hostID": 54321, "size": 1}]


class Site:
    """A cluster, a user of it, and the user's bundle."""

    def __init__(self, cluster: SlurmCluster, user: Account, shims: Path, bundle: Path) -> None:
        self.cluster, self.user, self.bundle = cluster, user, bundle
        self.shims = shims

    def configure(self, mode: str) -> None:
        """Have the site's oci.conf call us, in one form or the other."""
        command = ["engine", "oci-conf", f"--mode={mode}", f"--command={self.shims}/roadstead oci"]
        text = self.user.run([self.shims / "roadstead", *command]).check().stdout
        (self.cluster.base / "oci.conf").write_text(text)

    def run(self, *argv: str | Path, **options: object) -> Completed:
        return self.cluster.run(self.user, argv, cwd=self.bundle.parent, **options)  # type: ignore[arg-type]

    def srun(self, script: str, *options: str) -> Completed:
        """A script in containers."""
        return self.run("srun", *options, "--container", self.bundle, "/bin/sh", "-c", script)

    def left(self) -> list[str]:
        """What is left of containers: processes, and files where we keep track of them."""
        places = Path(f"/tmp/roadstead-{self.user.uid}")
        found = [
            str(path) for place in ("oci", "containers") for path in (places / place).glob("*")
        ]
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if b"ROADSTEAD_STEP_DIR=/tmp/roadstead" in path.read_bytes():
                    found.append(str(path.parent))
            except OSError:
                continue
        return found

    def is_clean(self) -> None:
        eventually(lambda: not self.left(), timeout=20, what="nothing is left")


@pytest.fixture(scope="module")
def site(
    product: Product, user: Account, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    require("root", "slurm", "address", "crun")

    shims = make_shims(product, user)
    with SlurmCluster(nodes=3) as cluster:
        base = user.mkdir(cluster.base / "work")
        made = bundle.make_bundle(user, base / "bundle", args=["true"], uid_map=FOREIGN)
        yield Site(cluster, user, shims, made)
    remove(shims)


@pytest.fixture(params=["run", "create"])
def mode(site: Site, request: pytest.FixtureRequest) -> Iterator[str]:
    site.configure(request.param)
    yield request.param
    site.is_clean()


@pytest.mark.parametrize("code", [0, 3, 42])
def test_exit_codes(site: Site, mode: str, code: int) -> None:
    """The bundle's ids are those of somebody else, who made it."""
    ran = site.srun(f"exit {code}", "-n1")
    assert ran.returncode == code
    if code:
        assert f"task 0: Exited with exit code {code}" in ran.stderr


def test_an_exit_code_that_slurm_has_no_way_to_be_told(site: Site, mode: str) -> None:
    """slurmstepd's process for the task exits with the raw wait status of RunTimeStart."""
    ran = site.srun("exit 77", "-n1")
    assert ran.returncode == (77 if mode == "run" else 1)
    if mode == "create":
        (said,) = site.bundle.parent.glob("slurm-*.out")
        assert "exit code 77 is told to Slurm as 1" in said.read_text()
        said.unlink()


def test_each_task_knows_its_place(site: Site) -> None:
    site.configure("run")
    ran = site.srun(
        "echo $SLURM_PROCID $SLURM_NODEID $SLURMD_NODENAME $SLURM_LOCALID", "-N3"
    ).check()
    assert sorted(ran.stdout.splitlines()) == ["0 0 n1 0", "1 1 n2 0", "2 2 n3 0"]
    # A step of a batch job has the batch script's variables, which are not its own.
    script = f"#!/bin/sh\nsrun -N3 --container {site.bundle} /bin/sh -c 'echo $SLURM_PROCID'\n"
    path = site.user.write(site.bundle.parent / "job.sh", script)
    site.run("sbatch", "--wait", "-N3", "-o", "ranks.txt", path).check()
    assert sorted((site.bundle.parent / "ranks.txt").read_text().split()) == ["0", "1", "2"]
    site.is_clean()


def test_streams_are_the_tasks_own(site: Site) -> None:
    site.configure("run")
    argv = ["srun", "-n1", "--container", site.bundle, "/bin/cat"]
    assert site.run(*argv, stdin="hello").check().stdout == "hello"


def test_what_is_not_there(site: Site, mode: str) -> None:
    ran = site.run("srun", "-n1", "--container", site.bundle, "nosuch")
    assert ran.returncode == (127 if mode == "run" else 1)
    assert "roadstead oci: " in ran.stderr
    assert "nosuch: not found in the container" in ran.stderr


def test_cancelled(site: Site, mode: str) -> None:
    """A signal is told as that signal, though the container's first process has no handler."""
    marker = site.user.mkdir(site.bundle.parent / f"marker-{mode}")
    process = site.user.popen(
        ["srun", "-n1", "-J", mode, "--container", site.bundle, "/bin/sleep", "1000"],
        env=site.cluster.variables,
        cwd=marker,
    )
    eventually(lambda: "sleep" in _commands(site), timeout=20, what="the container runs")
    site.run("scancel", "--name", mode).check()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert "task 0: Terminated" in errors


def test_a_handler_gets_the_signal_once(site: Site, mode: str) -> None:
    count = 'trap "n=1$n" USR1; for i in 1 2 3 4 5 6 7 8; do sleep 0.3; done; exit $((${#n} + 30))'
    process = site.user.popen(
        ["srun", "-n1", "-J", mode, "--container", site.bundle, "/bin/sh", "-c", count],
        env=site.cluster.variables,
        cwd=site.bundle.parent,
    )
    eventually(lambda: "sleep" in _commands(site), timeout=20, what="the container runs")
    job = site.run("squeue", "-h", "-o", "%i", "--name", mode).check().stdout.strip()
    site.run("scancel", "--signal=USR1", job).check()
    process.communicate(timeout=30)
    assert process.returncode == 31


def test_batch_script_on_a_read_only_root(site: Site, mode: str) -> None:
    config = json.loads((site.bundle / "config.json").read_text())
    config["root"]["readonly"] = True
    made = site.user.mkdir(site.bundle.parent / f"ro-{mode}")
    (made / "rootfs").symlink_to(site.bundle / "rootfs")
    site.user.write(made / "config.json", json.dumps(config))
    path = site.user.write(
        made / "job.sh", "#!/bin/sh\necho in $SLURM_PROCID $SLURM_JOB_NAME\nexit 9\n"
    )
    ran = site.run("sbatch", "--wait", "-J", "boxed", "-o", made / "out", "--container", made, path)
    assert ran.returncode == 9
    assert (made / "out").read_text() == "in 0 boxed\n"


def test_a_killed_process_of_ours_leaves_nothing(site: Site, mode: str) -> None:
    process = site.user.popen(
        ["srun", "-n1", "--container", site.bundle, "/bin/sleep", "1000"],
        env=site.cluster.variables,
        cwd=site.bundle.parent,
    )
    eventually(lambda: "sleep" in _commands(site), timeout=20, what="the container runs")
    for claim in Path(f"/tmp/roadstead-{site.user.uid}/oci").glob("*/claim.json"):
        os.kill(json.loads(claim.read_text())["pid"], signal.SIGKILL)
    process.communicate(timeout=30)
    assert process.returncode != 0


def test_native_mode(site: Site) -> None:
    """With ContainerMode=native our srun is Slurm's, for plain bundles; never without an oci.conf,
    with which Slurm would run the program outside."""
    site.configure("run")
    conf = site.user.write(site.bundle.parent / "roadstead.conf", "ContainerMode=native\n")
    env = {"ROADSTEAD_CONF": str(conf), "PATH": f"{site.shims}:{site.user.environment['PATH']}"}
    argv = [
        "srun",
        "-n1",
        "--container",
        "bundle",
        "/bin/sh",
        "-c",
        "echo $SLURM_CONTAINER; exit 4",
    ]
    ran = site.run(*argv, env=env)
    assert (ran.returncode, ran.stdout.strip()) == (4, str(site.bundle))
    shown = ["sbatch", "--wait", "-o", "native.txt", "--container", "bundle", "--wrap"]
    ran = site.run(*shown, "cat /proc/1/cmdline; exit 6", env=env)
    assert ran.returncode == 6
    assert "startup" in (site.bundle.parent / "native.txt").read_text()
    (site.cluster.base / "oci.conf").unlink()
    ran = site.run(*argv, env=env)
    assert ran.returncode == 1
    assert "Slurm would run the program outside of its container" in ran.stderr


def _commands(site: Site) -> list[str]:
    """What runs in containers of this user's."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if b"ROADSTEAD_STEP_DIR=/tmp/roadstead" in path.read_bytes():
                found.append((path.parent / "cmdline").read_bytes().split(b"\0")[0].decode())
        except OSError:
            continue
    return [os.path.basename(each) for each in found]
