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


@pytest.mark.long
def test_nothing_is_found_where_nothing_is_left(bare: Engine) -> None:
    assert bare.run(["sh", "-c", "echo out; echo err >&2; exit 7"]).returncode == 7
    assert bare.watch.find() == []


@pytest.mark.long
def test_the_end_fails_with_a_table(account: Account, scratch: Path) -> None:
    engine = Engine(account, None, scratch)
    engine.watch.settled = engine.watch.find  # type: ignore[method-assign,assignment]
    engine.run(["sh", "-c", "sleep 77 >/dev/null 2>&1 &"])
    with pytest.raises(AssertionError, match=r"left behind:\n  process .*sleep 77"):
        engine.close()
    assert not scratch.exists()
    assert engine.processes() == []


@pytest.mark.long
def test_a_process_is_found(bare: Engine) -> None:
    script = """exec >/dev/null 2>&1
        setsid sleep 71 &  # a daemon
        (cd /; env -i sleep 72) &  # without its environment
        unshare -Ur env -i sleep 73 &  # in a user namespace
        """
    wanted = {f"sleep {number}": bare.account.uid for number in (71, 72, 73)}
    bare.run(["sh", "-c", script])
    eventually(
        lambda: wanted.items() <= {each.command: each.user for each in bare.processes()}.items(),
        what="the processes are found",
    )
    assert kinds(bare) == {"process"}
    leaks.kill(bare.mark)
    assert bare.watch.find() == []


@needs("userns")
@pytest.mark.long
def test_a_mount_in_another_namespace_is_found(bare: Engine) -> None:
    script = "mount -t tmpfs leaked work && echo mounted >work/ready && env -i sleep 77"
    argv = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    process = bare.popen(argv, cwd=bare.base, stdout=None, stderr=None)
    eventually(lambda: "mount" in kinds(bare), what="the mount is found")
    leaks.kill(bare.mark)
    process.wait()
    assert bare.watch.settled() == []


@pytest.mark.root
@pytest.mark.long
def test_a_mount_in_our_namespace_is_found_and_survives_nobody(bare: Engine) -> None:
    target = bare.account.mkdir(bare.work / "target")
    Account.current().run(["mount", "-t", "tmpfs", "leaked", target]).check()
    assert leaks.mount_points(bare.base) == [os.fspath(target)]
    assert kinds(bare) == {"mount"}


@pytest.mark.long
def test_a_directory_is_found(bare: Engine) -> None:
    inside = [f"{bare.base}/tmp/left", f"{bare.base}/run/roadstead/steps/1.0"]
    script = 'mkdir -p "$@" && mktemp -d /var/tmp/roadstead-leak-XXXXXX'
    outside = bare.run(["sh", "-c", script, "sh", *inside]).check().stdout.strip()
    try:
        found = [(leak.kind, leak.what) for leak in bare.watch.find()]
    finally:
        os.rmdir(outside)
    assert sorted(found) == sorted(("directory", made) for made in (*inside, outside))


@pytest.mark.long
def test_a_container_is_found(bare: Engine) -> None:
    files = {
        "crun/status": {"pid": 1, "bundle": "{}"},
        "runc/state.json": {"init_process_pid": 1, "config": "{}"},
    }
    for name, content in files.items():
        state = bare.account.mkdir((bare.work / name).parent)
        bare.account.write(state / Path(name).name, json.dumps(content))
    found = [(leak.kind, leak.what) for leak in bare.watch.find()]
    assert sorted(found) == [("container", str(bare.work / name)) for name in ("crun", "runc")]


@pytest.mark.long
def test_a_held_output_is_told_from_a_slow_command(bare: Engine) -> None:
    process = bare.popen(["sh", "-c", "setsid sleep 77 & exit 0"])
    process.wait()
    with pytest.raises(AssertionError, match="had exited with 0, its output still held"):
        bare.finish(process, timeout=0.01)
    with pytest.raises(AssertionError, match=r"still ran after 0\.01 s"):
        bare.run(["sleep", "77"], timeout=0.01)


@pytest.mark.long
def test_the_environment_is_built_from_nothing(
    bare: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    seen = bare.run(["env"], env={"TERM": None, "EXTRA": "1"}).check().stdout.split("\n")
    assert f"HOME={bare.home}" in seen
    assert "EXTRA=1" in seen
    assert not [each for each in seen if each.startswith(("SLURM_", "TERM="))]


@pytest.mark.long
def test_a_skip_names_the_component(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.skips.lack", lambda name: f"no {name} here")
    with pytest.raises(pytest.skip.Exception) as said:
        require("crun")

    class Report:
        longrepr = ("file.py", 1, f"Skipped: {said.value}")

    assert skipped_components([Report(), Report()]) == {"crun": ("no crun here", 2)}
