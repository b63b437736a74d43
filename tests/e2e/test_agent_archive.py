"""The agent as one file (engines/slurm/zipapp.py), which any Python from 3.9 on runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from roadstead.agent.preloaded import PRELOADED
from roadstead.engines.slurm import zipapp
from tests.support import bundle, leaks
from tests.support.account import Account
from tests.support.components import other_python
from tests.support.engine import make_base
from tests.support.skips import require

VERSIONS = ("3.9", "3.10", "3.11", "3.12", "3.13")
IMPORT_ALL = """
import importlib, sys, zipfile
sys.path.insert(0, sys.argv[1])
for name in zipfile.ZipFile(sys.argv[1]).namelist():
    if name.startswith("roadstead/"):
        importlib.import_module(name[:-3].replace("/", ".").replace(".__init__", ""))
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> zipapp.Archive:
    state = tmp_path_factory.mktemp("state")
    return zipapp.archive({"XDG_STATE_HOME": os.fspath(state)})


def _python(version: str) -> str:
    require(f"python{version}")
    return other_python(version)


def test_the_same_sources_give_the_same_bytes(archive: zipapp.Archive) -> None:
    assert zipapp.build() == Path(archive.path).read_bytes()


def test_it_is_made_once(archive: zipapp.Archive) -> None:
    state = os.path.dirname(os.path.dirname(archive.place))
    before = {entry.name: entry.stat().st_mtime_ns for entry in os.scandir(archive.place)}
    assert zipapp.archive({"XDG_STATE_HOME": state}).digest == archive.digest
    assert before == {entry.name: entry.stat().st_mtime_ns for entry in os.scandir(archive.place)}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_module_imports(archive: zipapp.Archive, version: str) -> None:
    argv = [_python(version), "-IS", "-W", "error", "-c", IMPORT_ALL, archive.path]
    assert subprocess.run(argv, capture_output=True, text=True).stderr == ""


@pytest.mark.parametrize("version", VERSIONS)
def test_it_settles_and_starts(archive: zipapp.Archive, version: str, tmp_path: Path) -> None:
    """What a node of this Python does: verify, keep, make a snapshot, and answer from that."""
    python, place = _python(version), tmp_path / "place"
    argv = [python, "-IS", archive.path, "install", archive.path, place, archive.digest]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"{place}/{archive.digest}\n", "")
    env = {"SLURM_ROADSTEAD_ASKED": "{}", "SLURMD_NODENAME": "n7", "HOME": os.fspath(tmp_path)}
    argv = [f"{place}/{archive.digest}", "check"]
    done = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, **env})
    assert done.stderr == ""
    assert done.stdout.startswith("roadstead-says n7 0 ")
    assert f'"python":"{version}' in done.stdout


@pytest.mark.parametrize("version", VERSIONS)
def test_a_task_reads_a_part_of_a_snapshot(
    archive: zipapp.Archive, version: str, tmp_path: Path
) -> None:
    """What every task imports is there when it starts; another module is read when it is used."""
    snapshot = tmp_path / "agent.pyc"
    code = f"""
import sys
sys.path.insert(0, {archive.path!r})
from roadstead.agent import install
open({os.fspath(snapshot)!r}, "wb").write(install.snapshot_of({archive.path!r}))
"""
    python = _python(version)
    subprocess.run([python, "-ISc", code], check=True)
    code = f"""
import marshal, sys
sys.argv = ["agent", "task"]
with open({os.fspath(snapshot)!r}, "rb") as file:
    file.read(16)
    code = marshal.load(file)
import os
os._exit = lambda code: None
try:
    exec(code, {{"__name__": "__main__", "__file__": {os.fspath(snapshot)!r}}})
except ValueError:  # there is no task
    pass
loaded = sorted(name for name in sys.modules if name.startswith("roadstead"))
import roadstead.agent.receive
assert roadstead.agent.receive.__spec__.origin == "packed"
print(*loaded)
"""
    done = subprocess.run([python, "-ISc", code], capture_output=True, text=True)
    assert done.stdout.split() == sorted(PRELOADED), done.stderr


@pytest.mark.container
@pytest.mark.needs("busybox", "crun")
def test_what_a_task_imports_is_what_is_preloaded(archive: zipapp.Archive, user: Account) -> None:
    """Asked of one that runs from the archive, module by module."""
    base = make_base(user)
    agent = base / "agent.pyz"
    agent.write_bytes(Path(archive.path).read_bytes())
    container = os.fspath(bundle.make_bundle(user, base / "bundle"))
    records = os.fspath(user.mkdir(base / "records", 0o700))
    asked = {"options": {"container": container}, "cwd": "/", "records": records}
    env = {
        "SLURM_ROADSTEAD_REQUEST": json.dumps({"v": 1, "components": [asked]}),
        **{"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURMD_NODENAME": "n7"},
        **{"TMPDIR": os.fspath(base), "XDG_RUNTIME_DIR": "", "PATH": os.environ["PATH"]},
    }
    argv = [sys.executable, "-IS", "-X", "importtime", agent, "task", "0"]
    done = user.run([*argv, "/bin/sh", "-c", "exit 7"], env=env)
    leaks.remove(base)
    assert done.returncode == 7, done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    seen = {name for name in imported if name.partition(".")[0] == "roadstead"}
    assert seen - {"roadstead.agent.boot"} == set(PRELOADED)


def test_a_changed_archive_does_not_settle(archive: zipapp.Archive, tmp_path: Path) -> None:
    changed = tmp_path / "changed.pyz"
    changed.write_bytes(Path(archive.path).read_bytes() + b" ")
    argv = [sys.executable, "-IS", archive.path, "install", changed, tmp_path / "p", archive.digest]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 1
    assert "another digest" in done.stderr
    assert not (tmp_path / "p").exists()


def test_without_python_it_says_so(archive: zipapp.Archive, tmp_path: Path) -> None:
    (tmp_path / "uname").symlink_to("/usr/bin/uname")
    (tmp_path / "python3").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python3").chmod(0o755)
    text = Path(archive.path).read_bytes().replace(b" /usr/bin/python3 ", b" /nowhere/python3 ")
    (tmp_path / "agent").write_bytes(text)
    argv = ["/bin/sh", tmp_path / "agent", "check"]
    done = subprocess.run(argv, capture_output=True, text=True, env={"PATH": os.fspath(tmp_path)})
    assert done.returncode == 125
    assert done.stderr == (
        f"roadstead: error: {os.uname().nodename}: there is no Python 3.9 or later; "
        "install one there\n"
    )
