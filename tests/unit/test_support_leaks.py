"""The leak checker finds what is leaked on purpose.

A checker that finds nothing would pass every test of the product; so each kind of leak is made here
for real, by an account that the product would run as, and looked for in the way the engine's end
does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import leaks
from tests.support.account import Account
from tests.support.engine import Engine
from tests.support.skips import needs, require, skipped_components
from tests.support.waiting import eventually


@pytest.fixture
def bare(account: Account, scratch: Path) -> Iterator[Engine]:
    """An engine without the product."""
    engine = Engine(account, None, scratch)
    yield engine
    engine.leaks_are_expected = True
    engine.close()


def kinds(engine: Engine) -> set[str]:
    return {leak.kind for leak in engine.watch.find()}


def test_nothing_is_found_where_nothing_is_left(bare: Engine) -> None:
    assert bare.run(["sh", "-c", "echo out; echo err >&2; exit 7"]).returncode == 7
    assert bare.watch.find() == []


def test_the_end_fails_with_a_table(account: Account, scratch: Path) -> None:
    engine = Engine(account, None, scratch)
    engine.watch.settled = engine.watch.find  # type: ignore[method-assign,assignment]
    engine.run(["sh", "-c", "sleep 77 >/dev/null 2>&1 &"])
    with pytest.raises(AssertionError, match=r"left behind:\n  process .*sleep 77"):
        engine.close()
    assert not scratch.exists()
    assert engine.processes() == []


@pytest.mark.parametrize(
    "how",
    [
        pytest.param("setsid sleep 77 >/dev/null 2>&1 &", id="a daemon"),
        pytest.param("cd /; env -i sleep 77 >/dev/null 2>&1 &", id="without its environment"),
        pytest.param("unshare -Ur env -i sleep 77 >/dev/null 2>&1 &", id="in a user namespace"),
    ],
)
def test_a_process_is_found(bare: Engine, how: str) -> None:
    bare.run(["sh", "-c", how])
    eventually(lambda: kinds(bare) == {"process"}, what="the process is found")
    (process,) = bare.processes()
    assert process.user == bare.account.uid
    leaks.kill(bare.mark)
    assert bare.watch.find() == []


@needs("userns")
def test_a_mount_in_another_namespace_is_found(bare: Engine) -> None:
    script = "mount -t tmpfs leaked work && echo mounted >work/ready && env -i sleep 77"
    argv = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    process = bare.popen(argv, cwd=bare.base, stdout=None, stderr=None)
    eventually(lambda: "mount" in kinds(bare), what="the mount is found")
    leaks.kill(bare.mark)
    process.wait()
    assert bare.watch.settled() == []


@pytest.mark.root
def test_a_mount_in_our_namespace_is_found_and_survives_nobody(bare: Engine) -> None:
    target = bare.account.mkdir(bare.work / "target")
    Account.current().run(["mount", "-t", "tmpfs", "leaked", target]).check()
    assert leaks.mount_points(bare.base) == [os.fspath(target)]
    assert kinds(bare) == {"mount"}


@pytest.mark.parametrize("place", ["tmp/left", "run/roadstead/steps/1.0"])
def test_a_directory_is_found(bare: Engine, place: str) -> None:
    bare.run(["mkdir", "-p", bare.base / place]).check()
    assert kinds(bare) == {"directory"}


def test_a_directory_outside_is_found(bare: Engine) -> None:
    made = bare.run(["mktemp", "-d", "/var/tmp/roadstead-leak-XXXXXX"]).check().stdout.strip()
    assert [(leak.kind, leak.what) for leak in bare.watch.find()] == [("directory", made)]
    os.rmdir(made)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("status", {"pid": 1, "bundle": "{}"}),
        ("state.json", {"init_process_pid": 1, "config": "{}"}),
    ],
)
def test_a_container_is_found(bare: Engine, name: str, content: dict[str, object]) -> None:
    state = bare.work / "container"
    bare.account.mkdir(state)
    bare.account.write(state / name, json.dumps(content))
    assert [(leak.kind, leak.what) for leak in bare.watch.find()] == [("container", str(state))]


def test_a_held_output_is_told_from_a_slow_command(bare: Engine) -> None:
    with pytest.raises(AssertionError, match="had exited with 0, its output still held"):
        bare.run(["sh", "-c", "setsid sleep 77 & exit 0"], timeout=0.1)
    with pytest.raises(AssertionError, match=r"still ran after 0\.1 s"):
        bare.run(["sleep", "77"], timeout=0.1)


def test_the_environment_is_built_from_nothing(
    bare: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    seen = bare.run(["env"], env={"TERM": None, "EXTRA": "1"}).check().stdout.split("\n")
    assert f"HOME={bare.home}" in seen
    assert "EXTRA=1" in seen
    assert not [each for each in seen if each.startswith(("SLURM_", "TERM="))]


def test_a_skip_names_the_component(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.skips.lack", lambda name: f"no {name} here")
    with pytest.raises(pytest.skip.Exception) as said:
        require("crun")

    class Report:
        longrepr = ("file.py", 1, f"Skipped: {said.value}")

    assert skipped_components([Report(), Report()]) == {"crun": ("no crun here", 2)}
