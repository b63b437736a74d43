"""Container systems on a real Slurm of three nodes: each that installs here, from an image to the
exit code, with its agents in a slurmd's hands.  The whole of the contract is in test_systems.py.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import bundle, leaks, systems
from tests.support.account import Account, Completed
from tests.support.engine import make_shims
from tests.support.places import Place, place
from tests.support.product import Product
from tests.support.skips import needs

pytestmark = [pytest.mark.container, needs("root", "slurm", "address", "crun", "busybox", "runc")]

_OWN_ALONE = ("docker",)
# Of these slurmstepd's signals end the system's own processes, and the program with them.
_ENDED = ("bubblewrap", "podman", "udocker")
# These are called in a namespace that goes with the agent.  Of the others SIGKILL leaves what the
# next step on the node removes, as whoever would have removed it is killed too.
_NESTED = ("apptainer", "bubblewrap", "charliecloud")


class Steps:
    """srun on the cluster, with one container system."""

    def __init__(self, here: Place, system: str, image: str, own: str, env: dict[str, str]) -> None:
        self.here, self.system, self.image, self.own, self.env = here, system, image, own, env
        self.before: set[str] = set()

    def signal(self, name: str) -> None:
        """To the step that runs; a look at the nodes may have been one before."""
        listed = self.run(["squeue", "--noheader", "--steps", "--format=%i %j"]).check().stdout
        (step,) = [line.split()[0] for line in listed.splitlines() if line.endswith(" sh")]
        self.run(["scancel", f"--signal={name}", step]).check()

    def left(self) -> list[leaks.Leak]:
        return self.here.engine.watch.settled(timeout=20, known=self.before)

    def argv(self, *words: str) -> list[str]:
        system = f"--container-system={self.system}"
        return ["srun", system, f"--container={self.image}", "--chdir=/etc", *words]

    def __call__(self, *words: str) -> Completed:
        return self.run(self.argv(*words))

    def run(self, argv: list[str]) -> Completed:
        return self.here.engine.run(argv, env=self.env)


@pytest.fixture(scope="module")
def cluster(user: Account, product: Product) -> Iterator[Place]:
    shims = make_shims(product, user)
    with place("slurm", user, shims) as made:
        yield made
    leaks.remove(shims)


# Singularity is Apptainer by another name: its difference is shown in test_systems.py.
@pytest.fixture(scope="module", params=sorted({*systems.INSTALLED} - {"singularity"}))
def steps(cluster: Place, request: pytest.FixtureRequest) -> Iterator[Steps]:
    engine = cluster.engine
    path: Path = engine.work / f"bundle-{request.param}"
    bundle.make_bundle(engine.account, path, readonly=False)
    folder = engine.account.mkdir(path / "rootfs/srv")
    engine.account.write(folder / "hello", "from an image\n")
    with systems.ready(request.param, engine, path / "rootfs") as (env, own):
        image = own if request.param in _OWN_ALONE else f"{path}"
        made = Steps(cluster, request.param, image, own, env)
        made("true").check()
        # Daemons, their control groups, and who keeps Podman's namespace.
        made.before = {each.what for each in engine.watch.find()}
        yield made


def test_exit_code_and_environment_of_a_task_on_each_node(steps: Steps) -> None:
    steps.env = {**steps.env, "WORDS": "two  'words' $(id) $HOME"}
    script = 'cat /srv/hello; echo "$SLURM_PROCID $SLURMD_NODENAME $WORDS"; pwd; exit 3'
    done = steps("-N3", "sh", "-c", script)
    want = ["from an image", "/etc"] * 3
    want += [f"{n} n{n + 1} two  'words' $(id) $HOME" for n in range(3)]
    assert sorted(done.stdout.splitlines()) == sorted(want), done
    assert done.returncode == 3, done


def test_an_image_of_its_own_runs_as_a_bundle(steps: Steps) -> None:
    if not steps.own:
        pytest.skip("it knows no image by a name")
    argv = ["srun", "-n1", f"--container={steps.own}", "sh", "-c", "cat /srv/hello; exit 4"]
    done = steps.run(argv)
    assert (done.returncode, done.stdout) == (4, "from an image\n"), done


def test_the_program_has_the_last_word(steps: Steps) -> None:
    """slurmstepd signals every process of a step, the system's own among them."""
    engine = steps.here.engine
    script = 'trap "sleep 1; echo term; exit 8" TERM; echo up; while :; do sleep 0.1; done'
    process = engine.popen(steps.argv("-n1", "sh", "-c", script), env=steps.env)
    assert process.stdout.readline() == "up\n"
    steps.signal("TERM")
    done = engine.finish(process)
    want = (143, "") if steps.system in _ENDED else (8, "term\n")
    assert (done.returncode, done.stdout) == want, done


@pytest.mark.parametrize("name", ["TERM", "KILL"])
def test_nothing_is_left_of_a_step_that_is_ended(steps: Steps, name: str) -> None:
    engine = steps.here.engine
    argv = steps.argv("-N2", "sh", "-c", "echo up; exec sleep 97")
    process = engine.popen(argv, env=steps.env)
    assert [process.stdout.readline() for _ in range(2)] == ["up\n"] * 2
    steps.signal(name)
    done = engine.finish(process)
    assert done.returncode == 128 + signal.Signals[f"SIG{name}"], done
    if name == "KILL" and steps.system not in _NESTED:
        steps("-N3", "true").check()
    if name == "KILL" and steps.system == "udocker":
        for each in Path("/tmp").glob("prooted-*"):  # PRoot's, which is in no namespace of ours
            leaks.remove(each)
    left = steps.left()
    assert not left, leaks.as_table(left)
    systems.nothing_is_kept(steps.system, engine, steps.env)
