"""roadstead doctor, on this machine as it is and on worlds that are broken on purpose."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.account import Account, Completed
from tests.support.engine import Engine
from tests.support.skips import require
from tests.support.waiting import eventually

SLOW = """\
RunTimeQuery="sleep 30; crun state %n.%u.%j.%s.%t"
RunTimeKill="crun kill %n.%u.%j.%s.%t KILL"
RunTimeDelete="crun delete --force %n.%u.%j.%s.%t"
RunTimeRun="crun run --bundle %b %n.%u.%j.%s.%t"
"""


@pytest.fixture(autouse=True)
def needed(engine: Engine) -> None:
    require("busybox", "crun", "runc", "userns", "util-linux")


def findings(done: Completed) -> dict[str, dict[str, Any]]:
    """By name; the exit code and the summary must agree with them."""
    told = json.loads(done.stdout)
    statuses = [check["status"] for check in told["checks"]]
    assert told["summary"] == {name: statuses.count(name) for name in told["summary"]}
    assert done.returncode == int("failure" in statuses), str(done)
    assert not any(check["cause"].startswith("the check itself") for check in told["checks"])
    return {check["name"]: check for check in told["checks"]}


def examine(engine: Engine, **env: str) -> dict[str, dict[str, Any]]:
    return findings(engine.run(["roadstead", "doctor", "--json"], env=env))


def test_a_machine_on_which_everything_works(engine: Engine) -> None:
    before = {top: sorted(names) for top, names, _ in os.walk(engine.base)}
    found = examine(engine)
    wanted = ("user-namespaces", "container", "overlay", "oci-runtime", "xdg-runtime-dir", "python")
    assert {found[name]["status"] for name in wanted} == {"ok"}, found
    assert [each["name"] for each in found.values() if each["status"] == "failure"] == []
    assert found["controller"]["found"].startswith("not running")
    assert {top: sorted(names) for top, names, _ in os.walk(engine.base)} == before


def test_people_get_lines_and_a_summary(engine: Engine) -> None:
    done = engine.run(["roadstead", "doctor", "-v"]).check()
    lines = done.stdout.splitlines()
    assert lines[0].startswith("ok       python ")
    assert "delete: the container is deleted" in done.stdout
    assert lines[-1].startswith("26 checks: ")
    assert lines[-1].endswith(" not applicable")
    assert done.stderr == ""


def test_a_running_controller_is_asked(engine: Engine) -> None:
    engine.run(["roadstead", "engine", "start"]).check()
    found = examine(engine)
    assert found["controller"]["status"] == found["controller-log"]["status"] == "ok"
    assert found["controller"]["found"].startswith("pid ")


def test_an_oci_conf_that_is_wrong(engine: Engine) -> None:
    conf = engine.account.write(engine.base / "oci.conf", 'RunTimeRun="crun run"\n')
    found = examine(engine, ROADSTEAD_OCI_CONF=str(conf))
    assert found["oci.conf"]["status"] == "failure"
    assert "RunTimeKill and RunTimeDelete not set" in found["oci.conf"]["cause"]
    assert 'RunTimeKill="crun kill' in found["oci.conf"]["fix"]
    assert {found[name]["status"] for name in ("oci-runtime", "container")} == {"not applicable"}


def test_an_oci_conf_whose_program_is_not_there(engine: Engine) -> None:
    text = SLOW.replace("crun", "no-such-runtime").replace("sleep 30; ", "")
    conf = engine.account.write(engine.base / "oci.conf", text)
    found = examine(engine, ROADSTEAD_OCI_CONF=str(conf))
    assert "RunTimeRun: no-such-runtime is not there" in found["oci.conf"]["cause"]
    assert found["container"]["status"] == found["oci-runtime"]["status"] == "failure"
    assert "status 127" in found["container"]["cause"]


def test_a_runtime_that_is_not_there(engine: Engine) -> None:
    found = examine(engine, ROADSTEAD_RUNTIME="/no/such")
    for name in ("oci-runtime", "container"):
        assert (found[name]["status"], found[name]["cause"]) == (
            "failure",
            "ROADSTEAD_RUNTIME=/no/such: no such program",
        )


def test_a_runtime_that_cannot_be_executed(engine: Engine) -> None:
    broken = engine.account.write(engine.base / "crun", "\x7fELF", mode=0o755)
    found = examine(engine, ROADSTEAD_RUNTIME=str(broken))
    assert "Exec format error" in found["oci-runtime"]["cause"]
    assert found["container"]["status"] == "failure"


@pytest.mark.root
def test_no_runtime_at_all(engine: Engine) -> None:
    """A device over each, in a mount namespace: there is no other way to hide /usr/bin/crun."""
    done = in_mount_namespace(
        engine,
        'for name in crun runc; do for p in $(which -a $name); do mount --bind /dev/null "$p"; '
        "done; done",
    )
    found = findings(done)
    assert found["oci-runtimes"]["status"] == "failure"
    assert found["oci-runtimes"]["fix"] == "sudo apt install crun"
    assert "no OCI runtime found on PATH" in found["oci-runtime"]["cause"]
    assert found["container"]["status"] == "failure"


@pytest.mark.root
def test_a_runtime_directory_that_is_noexec(engine: Engine) -> None:
    account = engine.account
    options = f"noexec,mode=700,uid={account.uid},gid={account.gid}"
    done = in_mount_namespace(engine, f"mount -t tmpfs -o {options} none {engine.runtime}")
    found = findings(done)["runtime-directory"]
    assert (found["status"], "noexec" in found["cause"]) == ("failure", True)


def in_mount_namespace(engine: Engine, script: str) -> Completed:
    """The doctor as the account, where root has run ``script`` first."""
    account = engine.account
    become = f"setpriv --reuid={account.uid} --regid={account.gid} --init-groups"
    return Account.current().run(
        ["unshare", "--mount", "sh", "-c", f'{script} && exec {become} "$@"', "sh",
         "roadstead", "doctor", "--json"],
        env={**engine.variables, "USER": account.name},
    )  # fmt: skip


def test_user_namespaces_are_forbidden(engine: Engine) -> None:
    """The kernel's own limit, in a user namespace that has one of its own."""
    script = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    done = engine.run(
        ["unshare", "--user", "--map-current-user", "--keep-caps", "sh", "-c", script, "sh",
         "roadstead", "doctor", "--json"]
    )  # fmt: skip
    found = findings(done)["user-namespaces"]
    assert found["status"] == "failure", str(done)
    assert found["cause"].endswith("user.max_user_namespaces is 0")
    assert found["fix"].startswith("sudo sysctl -w user.max_user_namespaces=65536")


@pytest.mark.parametrize(("mode", "status"), [(0o777, "failure"), (0o755, "warning")])
def test_a_runtime_directory_that_others_can_enter(engine: Engine, mode: int, status: str) -> None:
    engine.runtime.chmod(mode)
    found = examine(engine)["xdg-runtime-dir"]
    assert (found["status"], found["fix"]) == (status, f"chmod 700 {engine.runtime}")


def test_a_runtime_directory_that_is_gone(engine: Engine) -> None:
    found = examine(engine, XDG_RUNTIME_DIR="/no/such")
    assert found["xdg-runtime-dir"]["status"] == "warning"
    assert "/no/such does not exist" in found["xdg-runtime-dir"]["cause"]
    assert found["container"]["status"] == "ok"


def test_a_newuidmap_that_fails(engine: Engine) -> None:
    """A fake: the real one does not fail for who has a range."""
    if engine.account.uid == 0:
        pytest.skip("root needs no newuidmap")
    folder = engine.account.mkdir(engine.base / "fake")
    engine.account.write(folder / "newuidmap", "#!/bin/sh\nexit 1\n", mode=0o755)
    found = examine(engine, PATH=f"{folder}:{engine.variables['PATH']}")["subordinate-ids"]
    assert found["status"] == "failure"
    assert found["fix"] == f"sudo chmod u+s {folder}/newuidmap"


def test_without_newuidmap(engine: Engine) -> None:
    if engine.account.uid == 0:
        pytest.skip("root needs no newuidmap")
    assert engine.shims is not None
    found = examine(engine, PATH=str(engine.shims))
    assert found["subordinate-ids"]["found"] == "newuidmap and newgidmap not installed"
    assert found["subordinate-ids"]["fix"] == "sudo apt install uidmap"
    assert found["container"]["status"] == "ok", "with one id"


@pytest.mark.parametrize("signo", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_while_a_container_runs(engine: Engine, signo: int) -> None:
    conf = engine.account.write(engine.base / "oci.conf", SLOW)
    process = engine.popen(["roadstead", "doctor"], env={"ROADSTEAD_OCI_CONF": str(conf)})
    eventually(lambda: any("sleep 30" in each.command for each in engine.processes()), what="query")
    process.send_signal(signo)
    done = engine.finish(process, timeout=10)
    assert done.returncode == (-signo if signo == signal.SIGKILL else 128 + signo)
    eventually(lambda: not engine.processes(), what="all processes to end")
    if signo == signal.SIGKILL:
        examine(engine)  # sweeps what could not be removed
    trials = Path(engine.runtime, "roadstead", "trials")
    assert not trials.exists()


def test_an_operand_that_is_wrong(engine: Engine) -> None:
    done = engine.run(["roadstead", "doctor", "--jsn"]).check(1)
    assert done.stderr == (
        "roadstead: error: doctor does not know --jsn; roadstead doctor [--json] [--verbose] "
        "[--nodes LIST]\n"
    )
    assert "Usage: roadstead doctor" in engine.run(["roadstead", "doctor", "-h"]).check().stdout
