"""Images of commands: the same program, found in one file, or not used at all."""

from __future__ import annotations

import marshal
import os
import subprocess
import sys
from pathlib import Path

import pytest

from roadstead.cli import image, shims
from roadstead.cli.option import COMMANDS


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package of three modules, one of which nothing imports at its top level."""
    root = tmp_path / "lib"
    cli = root / "roadstead" / "cli"
    cli.mkdir(parents=True)
    (root / "roadstead" / "__init__.py").write_text("")
    (cli / "__init__.py").write_text("")
    (cli / "umbrella.py").write_text(
        "from roadstead.cli import words\n"
        "def main():\n    from roadstead.cli import later\n    return words.CODE + later.MORE\n"
    )
    (cli / "words.py").write_text("CODE = 40\n")
    (cli / "later.py").write_text("MORE = 2\n")
    return root


def names(data: bytes) -> list[str]:
    import marshal

    return sorted(entry[0] for entry in marshal.loads(data)[1])


def test_what_is_in_an_image(package: Path) -> None:
    found = names(image.build(os.fspath(package), "roadstead.cli.umbrella"))
    assert found == ["roadstead", "roadstead.cli", "roadstead.cli.umbrella", "roadstead.cli.words"]


def test_what_a_launch_on_a_cluster_imports_is_in_its_image() -> None:
    """Later on, inside of functions: named there, so a name that is no more has to be seen here."""
    root = Path(image.__file__).parents[2]
    assert set(names(image.build(os.fspath(root), "roadstead.cli.srun"))) >= {
        *image.LATER["roadstead.cli.srun"], "roadstead.engines.slurm.known",
    }  # fmt: skip


def run(package: Path, data: bytes) -> tuple[int, str]:
    path = package / "image"
    path.write_bytes(data)
    script = (
        f"import sys, marshal; sys.path.insert(0, {os.fspath(package)!r})\n"
        f"loader, modules = marshal.load(open({os.fspath(path)!r}, 'rb'))\n"
        "exec(loader, {'modules': modules})\n"
        "import roadstead.cli.umbrella as u\n"
        "print(type(u.__spec__.loader).__name__, u.__file__)\n"
        "sys.exit(u.main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-ISB", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.split()[0]


def test_an_image_is_used_and_a_stale_one_is_not(package: Path) -> None:
    data = image.build(os.fspath(package), "roadstead.cli.umbrella")
    assert run(package, data) == (42, "type")
    (package / "roadstead" / "cli" / "words.py").write_text("CODE = 41\n")
    os.utime(package / "roadstead" / "cli" / "words.py", (1, 1))
    assert run(package, data) == (43, "SourceFileLoader")


def test_shims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(shims.COMMANDS) == {*COMMANDS, "roadstead"}
    monkeypatch.setattr(shims, "COMMANDS", ("srun", "roadstead"))  # the others cost compiling
    monkeypatch.setattr(image, "node_side", bytes)
    monkeypatch.setattr(image, "before", lambda snapshot: marshal.dumps(("", [], "")))
    paths = shims.write(os.fspath(tmp_path / "bin"))
    assert [os.path.basename(path) for path in paths] == ["srun", "roadstead"]
    text = Path(paths[0]).read_text()
    assert text.splitlines()[0] == f"#!{sys.executable} -IS"
    roadstead = tmp_path / "bin" / "roadstead"
    for _ in range(2):
        done = subprocess.run([roadstead, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout.startswith("roadstead ")
        for each in (tmp_path / "bin" / ".roadstead").iterdir():  # the second time without images
            each.unlink()


@pytest.mark.long
def test_roadstead_oci_is_the_packed_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as that is of the sources that are there; else it is slower, and says the same."""
    monkeypatch.setattr(shims, "COMMANDS", ("roadstead",))
    (roadstead,) = shims.write(os.fspath(tmp_path / "bin"))
    (snapshot,) = (tmp_path / "bin" / ".roadstead").glob("node.*.pyc")
    told = [*("oci", "state", f"--root={tmp_path}"), "x.1.0.0"]

    def files() -> set[str]:
        """What it opens, and what it says."""
        script = (
            f"import sys; log = open({os.fspath(tmp_path / 'log')!r}, 'w', 1); "
            "sys.addaudithook(lambda event, what: event == 'open' and print(what[0], file=log)); "
            f"sys.argv = [{roadstead!r}, *{told!r}]; exec(open({roadstead!r}).read())"
        )
        done = subprocess.run([sys.executable, "-IS", "-c", script], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "roadstead oci: error: container x.1.0.0 does not exist\n"
        return set((tmp_path / "log").read_text().split())

    assert os.fspath(snapshot) in files()
    os.utime(snapshot)
    assert os.fspath(snapshot) not in files()
