"""A step's nodes are looked at before its first task, and get what they lack: on a real Slurm whose
nodes share no directory with where jobs are submitted (slurm_cluster.py, `apart`), and on one whose
nodes share all of them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from roadstead.host import linux
from roadstead.oci import runtime
from tests.support.account import Account, Completed
from tests.support.bundle import make_bundle
from tests.support.components import program
from tests.support.engine import Engine, make_base, make_shims
from tests.support.leaks import remove
from tests.support.places import SCHEDULING
from tests.support.product import Product
from tests.support.skips import require
from tests.support.slurm_cluster import SlurmCluster

pytestmark = [pytest.mark.slurm, pytest.mark.container]
_IN_OPEN, _EVENT_BYTES = 0x20, 16  # an event about a file itself has no name behind it
QUOTA = {"ROADSTEAD_NODE_QUOTA": "40M"}


class Site:
    """A cluster, and a user's commands for it."""

    def __init__(self, cluster: SlurmCluster, engine: Engine) -> None:
        self.cluster, self.engine = cluster, engine
        self.work = engine.work

    def run(self, line: str, **options: Any) -> Completed:
        env = {"SLURM_CONF": os.fspath(self.cluster.conf), "TMPDIR": None}
        env |= options.pop("env", {})
        return self.engine.run(["sh", "-c", line], env=env, timeout=120, **options)

    def on_nodes(self, line: str, nodes: str = "n[1-3]") -> list[str]:
        """What a command prints on each node, outside of any container."""
        count = 3 if nodes == "n[1-3]" else 1
        said = self.run(f"srun -Q -l -w {nodes} -N {count} -n {count} --chdir=/ sh -c '{line}'")
        return sorted(said.check().stdout.splitlines())


def _site(product: Product, user: Account, *, apart: bool) -> Iterator[Site]:
    require("root", "slurm", "address", "crun", "busybox")
    shims = make_shims(product, user)
    engine = Engine(user, shims, make_base(user))
    make_bundle(user, engine.work / "app", spec="crun", readonly=False)
    try:
        with SlurmCluster(
            3,
            more=SCHEDULING,
            apart=(Account.current(), user) if apart else (),
            hidden=(product.library,) if apart else (),
        ) as cluster:
            yield Site(cluster, engine)
    finally:
        engine.close()
        remove(shims)


@pytest.fixture(scope="module")
def apart(product: Product, user: Account) -> Iterator[Site]:
    yield from _site(product, user, apart=True)


@pytest.fixture(scope="module")
def together(product: Product, user: Account) -> Iterator[Site]:
    yield from _site(product, user, apart=False)


def _lines(said: Completed) -> list[str]:
    return sorted(said.check().stdout.splitlines())


# -- nodes that see nothing of the submitter -------------------------------------------------------


def test_nothing_of_ours_is_there(apart: Site) -> None:
    """Else what follows would show nothing."""
    seen = apart.on_nodes(f"ls -d {apart.work} /var/tmp/roadstead-* 2>/dev/null; uname -n")
    assert seen == ["0: n1", "1: n2", "2: n3"]


def test_a_bundle_is_sent(apart: Site) -> None:
    said = apart.run("srun -N3 -l --container=app sh -c 'ls /bin/busybox; echo $SLURM_CONTAINER'")
    bundle = apart.work / "app"
    assert _lines(said) == sorted(
        f"{n}: {what}" for n in range(3) for what in ("/bin/busybox", f"{bundle}")
    )
    assert said.stderr == ""


def test_it_is_sent_once(apart: Site) -> None:
    """The next step finds it; what is in the nodes' records is what was sent first."""
    apart.run("srun -N3 --container=app true").check()
    before = apart.on_nodes("stat -c %W /var/tmp/roadstead-*/bundles/*/config.json")
    apart.run("srun -N3 --container=app true").check()
    assert apart.on_nodes("stat -c %W /var/tmp/roadstead-*/bundles/*/config.json") == before
    assert apart.on_nodes("ls /var/tmp/roadstead-*/incoming") == []


def test_the_source_is_read_once(apart: Site) -> None:
    """By whom it may be: each open(2) of a file in it is heard of (inotify(7), IN_OPEN)."""
    bundle = make_bundle(apart.engine.account, apart.work / "once", spec="crun")
    apart.engine.account.write(bundle / "rootfs" / "large", "text\n" * 10_000)
    opened = linux.FileWatch(os.fspath(bundle / "rootfs" / "large"), _IN_OPEN)
    try:
        for step in (f"-w {nodes} -N{count}" for nodes, count in (("n[1-3]", 3), ("n[2-3]", 2))):
            apart.run(f"srun {step} --container=once grep -c text /large").check()
        events = os.read(opened.fileno(), 1 << 16)
    finally:
        opened.close()
    assert len(events) == _EVENT_BYTES, "opened more than once"


def test_several_jobs_wait_for_one_transfer(apart: Site) -> None:
    make_bundle(apart.engine.account, apart.work / "many", spec="crun")
    line = "srun -Q -N3 -l --overlap --container=many true || echo failed; "
    said = apart.run(f"for n in 1 2 3; do ({line}) & done; wait")
    assert (said.check().stdout, said.stderr) == ("", "")
    spool = apart.engine.state / "roadstead" / "staging"
    names = [each for each in spool.iterdir() if each.name.startswith("of-")]
    key = json.loads(max(names, key=lambda each: each.stat().st_mtime).read_text())["key"]
    assert apart.on_nodes(f"ls /var/tmp/roadstead-*/staged/{key}.json | wc -l") == [
        "0: 1", "1: 1", "2: 1",
    ]  # fmt: skip


def test_what_is_written_stays_in_the_container(apart: Site) -> None:
    """The bundle's root is writable; what was sent is everybody's next container."""
    apart.run("srun -N3 --container=app touch /written").check()
    said = apart.run("srun -N3 -l --container=app ls /written")
    assert said.returncode == 1
    assert not (apart.work / "app" / "rootfs" / "written").exists()


def test_a_changed_bundle_is_another_one(apart: Site) -> None:
    make_bundle(apart.engine.account, apart.work / "changing", spec="crun")
    apart.run("srun -N1 -w n2 --container=changing true").check()
    apart.engine.account.write(apart.work / "changing" / "rootfs" / "new", "text\n")
    said = apart.run("srun -N1 -w n2 --container=changing cat /new")
    assert said.check().stdout == "text\n"


def test_an_image_is_sent(apart: Site) -> None:
    apart.run("tar -C app/rootfs -cf image.tar .").check()
    said = apart.run("srun -N3 -l --container=tarball:image.tar sh -c 'ls -d /bin; id -u'")
    assert _lines(said) == sorted(f"{n}: {what}" for n in range(3) for what in ("/bin", "0"))


def test_exit_codes_and_signals_are_exact(apart: Site) -> None:
    apart.run("srun --container=app sh -c 'exit 7'").check(7)
    apart.run("srun --container=app sh -c 'sleep 60 & kill -9 $!; wait $!'").check(137)
    assert apart.run("srun --container=app /nowhere").returncode == 127


def test_standard_streams_are_slurms(apart: Site) -> None:
    said = apart.run("echo typed | srun -N2 -l --container=app sh -c 'cat; echo more >&2'")
    assert _lines(said) == ["0: typed", "1: typed"]
    assert sorted(said.stderr.splitlines()) == ["0: more", "1: more"]


def test_inside_an_allocation(apart: Site) -> None:
    said = apart.run("salloc -Q -N2 sh -c 'srun -l --container=app hostname; srun true'")
    assert len(_lines(said)) == 2


def test_salloc_in_a_container(apart: Site) -> None:
    said = apart.run("salloc -Q -N2 --container=app sh -c 'ls -d /bin/busybox'")
    assert said.check().stdout == "/bin/busybox\n"


def test_a_step_of_a_batch_script(apart: Site) -> None:
    """The batch script runs on a node that has neither our commands nor the bundle; but sbatch of
    ours, and a container of its own, are refused there by name."""
    said = apart.run("sbatch --container-stage=bcast --container=app --wrap true")
    assert said.returncode == 1
    assert "--container-stage=bcast" in said.stderr


def test_a_batch_script_carries_the_agent_and_not_its_container(apart: Site) -> None:
    """Nobody can send anything when its job starts."""
    make_bundle(apart.engine.account, apart.work / "batch", spec="crun")
    line = (
        "sbatch --parsable --wait -w n2 -D /tmp -o /tmp/said --container=batch --wrap 'ls -d /bin'"
    )
    apart.on_nodes("rm -r /var/tmp/roadstead-*/agent", nodes="n2")
    said = apart.run(line)
    assert said.returncode == 1
    assert apart.on_nodes("cat /tmp/said; ls /var/tmp/roadstead-*/agent | wc -l", nodes="n2") == [
        "0: 3",
        f"0: slurmstepd: error: n2: {apart.work}/batch/config.json is not on n2, and was not sent "
        f"there before the job; srun -w n2 --container={apart.work}/batch true sends it there, for "
        "batch jobs as well",
    ]
    apart.run("srun -Q -w n2 --container=batch true").check()
    apart.run(line).check()
    assert apart.on_nodes("cat /tmp/said", nodes="n2") == ["0: /bin"]


def test_a_heterogeneous_step_of_its_own(apart: Site) -> None:
    """Its nodes are looked at component by component, and sent what each lacks."""
    make_bundle(apart.engine.account, apart.work / "het", spec="crun")
    said = apart.run(
        "srun -Q -w n1 --container=het sh -c 'echo A $SLURM_PROCID' "
        ": -w n2 --container=het sh -c 'echo B $SLURM_PROCID'"
    )
    assert _lines(said) == ["A 0", "B 1"]


def test_shared_is_refused_where_it_is_not(apart: Site) -> None:
    said = apart.run("srun -N3 --container=app --container-stage=shared echo started")
    assert (said.returncode, said.stdout) == (1, "")
    assert re.match(
        r"srun: error: n\[1-3\] does not see \S+/app/config.json as it is here; ", said.stderr
    )


def test_no_room(apart: Site) -> None:
    """Before any task starts, and with the nodes' names."""
    make_bundle(apart.engine.account, apart.work / "large", spec="crun")
    with open(apart.work / "large" / "rootfs" / "blob", "wb") as file:
        file.write(os.urandom(8 << 20))
    apart.engine.account.own(apart.work / "large")
    said = apart.run("srun -N3 --container=large echo started", env={"ROADSTEAD_NODE_QUOTA": "10M"})
    assert (said.returncode, said.stdout) == (1, "")
    assert said.stderr.startswith("srun: error: n[1-3] has no room for the container: ")


def test_a_node_that_cannot_run_containers(apart: Site) -> None:
    """No task starts on any node if one of them lacks a runtime."""
    runtimes = [found for name in runtime.KNOWN if (found := program(name))]
    inside = ["nsenter", "--mount", f"--target={_slurmd(apart.cluster, 'n2')}"]
    root = Account.current()
    for each in runtimes:
        root.run([*inside, "mount", "--bind", "/dev/null", each]).check()
    try:
        said = apart.run("srun -N3 --container=app echo started")
        assert (said.returncode, said.stdout) == (125, "")
        assert said.stderr.startswith(
            "srun: error: no container can be run on n2 (1 of 3 nodes): oci-runtime: "
        )
        table = apart.run("roadstead doctor --nodes n[1-3]")
        assert table.returncode == 1
        states = {line.split()[0]: line.split() for line in table.stdout.splitlines()[:4]}
        column = states["NODE"].index("OCI-RUNTIME")
        assert [states[f"n{n}"][column] for n in (1, 2, 3)] == ["ok", "FAILURE", "ok"]
    finally:
        for each in runtimes:
            root.run([*inside, "umount", each]).check()


def _slurmd(cluster: SlurmCluster, node: str) -> int:
    return int(Path(cluster.base / f"{node}.pid").read_text())


def test_the_quota_is_kept(apart: Site) -> None:
    """What was unused the longest goes; what is new can be used."""
    node = "srun -Q -N1 -w n3 --container={} true"
    for name in ("one", "two", "three"):
        make_bundle(apart.engine.account, apart.work / name, spec="crun")
        with open(apart.work / name / "rootfs" / "blob", "wb") as file:
            file.write(os.urandom(12 << 20))
        apart.engine.account.own(apart.work / name)
        apart.run(node.format(name), env=QUOTA).check()
    (kept,) = apart.on_nodes("du -sm /var/tmp/roadstead-*/bundles | cut -f1", nodes="n3")
    assert int(kept.split()[1]) <= 40


def test_records_stay_on_the_nodes_until_somebody_looks(apart: Site) -> None:
    """The next step brings them along, and `roadstead jobs --fetch` whenever it is asked to."""

    def ends(job: str, *options: str) -> list[int | None]:
        said = apart.run(f"roadstead jobs --json {' '.join(options)} {job}").check()
        (found,) = json.loads(said.stdout)["jobs"]
        (step,) = found["steps"]
        assert step["staging"]["nodes"] in (0, 2)
        assert step["container"] == f"{apart.work}/app"
        return [task["code"] if task["end"] else None for task in step["tasks"]]

    line = (
        "salloc -Q -N2 -w n[1-2] sh -c 'echo $SLURM_JOB_ID; srun --container=app sh -c \"exit 4\"'"
    )
    first, second = (apart.run(line).stdout.strip() for _ in range(2))
    assert ends(first) == [4, 4]
    said = apart.run(f"roadstead jobs {second}")
    assert (said.returncode, said.stdout) == (1, "")
    assert f"no container job {second} is known" in said.stderr
    assert ends(second, "--fetch") == [4, 4]


def test_nothing_stays_of_a_step(apart: Site) -> None:
    apart.run("srun -N3 --container=app true").check()
    left = apart.on_nodes(
        "ls -A /var/tmp | grep -v ^roadstead-; ls -A /var/tmp/roadstead-*/incoming;"
        " ls /tmp/roadstead-*/nodes/*/steps 2>/dev/null; true"
    )
    assert left == []


# -- nodes that share all directories --------------------------------------------------------------


def test_in_place(together: Site) -> None:
    """Nothing is sent, and the second step looks at nothing: it becomes srun at once."""
    said = together.run("srun -N3 -l --container=app ls -d /bin")
    assert _lines(said) == ["0: /bin", "1: /bin", "2: /bin"]
    state = together.engine.state / "roadstead"
    assert not (state / "staging").exists()
    (known,) = (state / "clusters").iterdir()
    assert set(json.loads(known.read_text())["nodes"]) == {"n1", "n2", "n3"}
    before = known.stat().st_mtime_ns
    together.run("srun -N3 --container=app true").check()
    assert known.stat().st_mtime_ns == before


def test_bcast_in_any_case(together: Site) -> None:
    env = {"ROADSTEAD_NODE_CACHE": os.fspath(together.work / "node")}
    said = together.run("srun -N1 --container-stage=bcast --container=app ls -d /bin", env=env)
    assert said.check().stdout == "/bin\n"
    assert (together.engine.state / "roadstead" / "staging").exists()


def test_none_does_not_look(together: Site) -> None:
    said = together.run(
        "srun -N1 --container-stage=none --container=app ls -d /bin",
        env={"XDG_STATE_HOME": os.fspath(together.work / "other-state")},
    )
    assert said.check().stdout == "/bin\n"
    assert not (together.work / "other-state" / "roadstead" / "clusters").exists()
