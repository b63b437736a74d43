"""How a batch script becomes its agent, and what is known of nodes before."""

from __future__ import annotations

import base64
import os
import subprocess
from pathlib import Path

import pytest

from roadstead.agent import cache, found, request
from roadstead.engines.slurm import carried, known, script, stage
from roadstead.errors import LaunchError
from roadstead.host import mounts

TEXT = "#!/bin/sh\necho never\n"
# An archive that settles as install.py does, and an agent that says where it is from.
ARCHIVE = """\
#!/bin/sh
test "$1" = install || exit 1
mkdir -p "$3"
printf '#!/bin/sh\\necho "%s: $1 $3"; grep -c roadstead "$2" >/dev/null\\n' FROM >"$3/$4"
chmod 755 "$3/$4"
"""
DIGEST = "0123abcd"


class Node:
    """What a batch script finds, under one directory."""

    def __init__(self, top: Path, carries: str = "") -> None:
        self.top = top
        self.python = top / "python"
        self.snapshot = top / "state/agent.pyc"
        self.archive = top / f"state/{DIGEST}.pyz"
        (top / "state").mkdir()
        start = carried.start(
            [str(self.python), "-IS", str(self.snapshot)], str(self.archive), "cpython-311",
            f"{top}/node's", f"{top}/land's-", base64.encodebytes(carries.encode()).decode(),
        )  # fmt: skip
        made = script.made([[("ntasks", "2")]], lambda name: False, start, '{"v":1}', TEXT)
        assert request.taken_apart(made) == ('{"v":1}', TEXT)
        self.script = top / "slurm_script"
        self.script.write_text(made)

    def run(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", self.script, "word"], capture_output=True, text=True,
            env={"PATH": os.environ["PATH"], "SLURMD_NODENAME": "n7"},
        )  # fmt: skip

    def has(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)


def test_the_submitters_own_agent_where_its_python_is(tmp_path: Path) -> None:
    node = Node(tmp_path, ARCHIVE.replace("FROM", "carried"))
    node.has(node.snapshot, "")
    node.has(node.python, '#!/bin/sh\n[ "$1" = -ISc ] || echo "own: $3 $5"\n')
    assert node.run().stdout == "own: batch word\n"
    # One of another version does not read the snapshot.
    node.has(node.python, "#!/bin/sh\nexit 1\n")
    assert node.run().stdout == "carried: batch word\n"


def test_the_agent_that_has_settled_then_the_archive_then_the_one_in_the_script(
    tmp_path: Path,
) -> None:
    node = Node(tmp_path, ARCHIVE.replace("FROM", "carried"))
    settled = tmp_path / "node's/agent" / DIGEST
    assert node.run().stdout == "carried: batch word\n"
    assert settled.exists()
    settled.unlink()
    node.has(node.archive, ARCHIVE.replace("FROM", "shared"))
    assert node.run().stdout == "shared: batch word\n"
    node.archive.unlink()
    assert node.run().stdout == "shared: batch word\n", "it has settled"


@pytest.mark.parametrize("carries", ["", "#!/bin/sh\nexit 1\n"])
def test_no_agent_is_said(tmp_path: Path, carries: str) -> None:
    done = Node(tmp_path, carries).run()
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("slurmstepd: error: n7: there is no agent of roadstead here")


def test_a_batch_scripts_container_in_place_or_sent_before(tmp_path: Path) -> None:
    bundle = tmp_path / "config.json"
    told = {"see": [str(bundle)], "options": {"container": str(tmp_path)}, "cwd": "/"}
    staged = {"key": "k", "writable": "private", "place": str(tmp_path / "node")}
    for each in (told, {**told, "staged": staged}):
        with pytest.raises(LaunchError, match="is not on n1, and was not sent there before"):
            found.settle(each, "n1")
    (tmp_path / "node/staged").mkdir(parents=True)
    (tmp_path / "node/staged/k.json").write_text('{"key": "k", "kind": "bundle", "size": 1}')
    assert found.settle({**told, "staged": staged}, "n1")["staged"] == staged
    bundle.touch()
    assert found.settle({**told, "staged": staged}, "n1") == told


def test_what_nobody_has_received_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "LANDING", str(tmp_path))
    incoming, mine = tmp_path / "incoming", f"{cache.TRAVELLING}{os.getuid()}-"
    incoming.mkdir()
    for name in (
        f"{mine}1",
        f"{mine}2",
        f"{cache.TRAVELLING}x-1",
        "else",
        "incoming/1",
        "incoming/2",
    ):
        (tmp_path / name).touch()
    for name in (f"{mine}1", f"{cache.TRAVELLING}x-1", "else", "incoming/1"):
        os.utime(tmp_path / name, (1, 1))
    cache.sweep(str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{mine}2", f"{cache.TRAVELLING}x-1", "else", "incoming",
    }  # fmt: skip
    assert os.listdir(incoming) == ["2"]


def test_the_components_of_a_heterogeneous_job() -> None:
    environ = {
        "SLURM_JOB_ID": "7",
        "SLURM_HET_SIZE": "2",
        "SLURM_JOB_NODELIST": "n1",
        "SLURM_JOB_NODELIST_HET_GROUP_0": "n1",
        "SLURM_JOB_NODELIST_HET_GROUP_1": "n[2-3]",
    }

    def found(*groups: str) -> list[tuple[str, str]]:
        said = stage.jobs(len(groups), groups, environ)
        return [(each["SLURM_JOB_ID"], each["SLURM_JOB_NODELIST"]) for each in said]

    assert found("", "") == [("7+0", "n1"), ("7+1", "n[2-3]")]
    assert found("1", "0") == [("7+1", "n[2-3]"), ("7+0", "n1")]
    assert found("1") == [("7+1", "n[2-3]")]
    assert found("") == [("7", "n1")]
    assert found("0-1") == found("5", "0") == [("7", "n1")]
    assert stage.jobs(2, ["", ""], {"SLURM_JOB_ID": "7"}) == [{"SLURM_JOB_ID": "7"}]


def test_where_an_agent_has_settled_is_remembered(tmp_path: Path) -> None:
    environ = {"XDG_STATE_HOME": str(tmp_path), "SLURM_CONF": str(tmp_path / "slurm.conf")}
    nodes = known.Nodes.of(environ)
    agents = {"n1": "/a/D", "n2": "/a/D", "n3": "/b/D"}
    nodes.note({name: [str(tmp_path)] for name in agents}, "D", ["n1", "n2", "n3"], agents)
    nodes = known.Nodes.of(environ)
    here = [str(tmp_path)]
    assert nodes.agent_of(["n1", "n2"], "D", here) == "/a/D"
    assert nodes.agent_of(["n1", "n3"], "D", here) == "", "they have it in different places"
    assert nodes.agent_of(["n1"], "other", here) == ""
    assert nodes.agent_of(["n1", "n4"], "D", here) == nodes.agent_of([], "D", here) == ""


def test_an_agent_that_is_remembered_and_gone_is_said(tmp_path: Path) -> None:
    agent = tmp_path / "agent"
    argv = ["/bin/sh", "-c", stage.IF_THERE, agent, "task", "0", "a b"]
    env = {"SLURMD_NODENAME": "n7"}
    done = subprocess.run(argv, capture_output=True, text=True, env=env)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr == (
        "srun: error: n7: the agent is not there any more; "
        "roadstead doctor --nodes n7 brings it again\n"
    )
    agent.write_text('#!/bin/sh\necho "$1 $2 $3"\n')
    agent.chmod(0o755)
    done = subprocess.run(argv, capture_output=True, text=True, env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "task 0 a b\n", "")


def test_which_file_systems_are_of_networks() -> None:
    assert not mounts.is_of_a_network("/proc")
