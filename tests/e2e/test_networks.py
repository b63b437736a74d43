"""Networks of containers: what reaches what, and that nothing of them stays."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import outside, waiting
from tests.support.components import program
from tests.support.engine import Engine
from tests.support.skips import require

pytestmark = pytest.mark.container
MakeBundle = Callable[..., Path]
RUNTIMES = ("crun", "runc")

# Task 0 serves twice on port 8000 and once on 9000; task 1 asks for both, and says what it got.
SERVE = "(for n in 1 2; do echo hello | nc -l -p 8000; done) & echo secret | nc -l -p 9000 & wait"
ASK = (
    'for n in 1 2 3 4 5; do x=$(nc -w 2 task0 8000 </dev/null) && [ "$x" ] && break;'
    " sleep 0.2; done; echo got:$x; nc -w 1 task0 9000 </dev/null;"
    " nc -w 1 127.0.0.1 9000 </dev/null; nc -w 1 127.0.0.1 8000 </dev/null; echo done"
)


def pair(engine: Engine, bundle: Path, *options: str, env: dict[str, str] | None = None) -> str:
    engine.account.write(engine.work / "ask.sh", ASK)
    engine.account.write(engine.work / "serve.sh", SERVE)
    command = "if [ $SLURM_PROCID = 1 ]; then sh /w/ask.sh; else timeout 3 sh /w/serve.sh; fi; true"
    said = engine.run(
        ["srun", "-n2", "-O", f"--container={bundle}", f"--container-mounts={engine.work}:/w",
         *options, "sh", "-c", command],
        env=env,
    )  # fmt: skip
    assert said.returncode == 0, said
    return said.stdout


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_private_networks_reach_each_other_where_that_is_published_and_nowhere_else(
    engine: Engine, make_bundle: MakeBundle, runtime: str
) -> None:
    require(runtime)
    env = {"ROADSTEAD_RUNTIME": runtime, "ROADSTEAD_OCI_CONF": "none"}
    bundle, before = make_bundle(), devices()
    closed = pair(engine, bundle, "--container-network=private", env=env)
    assert closed == "got:\ndone\n"
    opened = pair(engine, bundle, "--container-publish=8000", env=env)
    assert opened == "got:hello\ndone\n"
    assert devices() == before
    assert not [each for each in engine.processes() if _name(each.pid) == "roadstead-hub"]


def devices() -> set[str]:
    """The machine's network devices: a cable that was left would be one of them."""
    lines = Path("/proc/self/net/dev").read_text().splitlines()[2:]
    return {line.partition(":")[0].strip() for line in lines}


def test_ports_are_published_on_the_host(engine: Engine, make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    command = "echo $ROADSTEAD_PORT_80 > /w/port; cat /w/big | nc -l -p 80"
    (engine.work / "big").write_bytes(os.urandom(3_000_000))
    waits = engine.popen(
        ["srun", f"--container={bundle}", "--container-publish=0:80",
         f"--container-mounts={engine.work}:/w", "sh", "-c", command],
        stdout=-1, stderr=-1,
    )  # fmt: skip
    port = int(waiting.eventually(_text(engine)))
    with socket.create_connection(("127.0.0.1", port), timeout=10) as found:
        data = b""
        while part := found.recv(1 << 16):
            data += part
    assert data == (engine.work / "big").read_bytes()
    assert engine.finish(waits).returncode == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=10)


def _text(engine: Engine) -> Callable[[], str]:
    path = engine.work / "port"
    return lambda: path.read_text().strip() if path.exists() else ""


def _name(pid: int) -> str:
    """ "" for a process that has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_none_has_nothing_but_lo_and_host_has_the_hosts(
    engine: Engine, make_bundle: MakeBundle
) -> None:
    bundle = make_bundle()
    look = [
        "sh",
        "-c",
        "ls /proc/self/net/dev_snmp6; grep -c task /etc/hosts; readlink /proc/self/ns/net",
    ]
    none = engine.run(["srun", f"--container={bundle}", "--container-network=none", *look]).check()
    *devices, names, space = none.stdout.split()
    assert (devices, names) == (["lo"], "1")
    assert space != os.readlink("/proc/self/ns/net")
    host = engine.run(
        ["srun", "-N1", "-n2", "-O", f"--container={bundle}", "--container-network=host", *look]
    ).check()
    assert host.stdout.split()[-1] == os.readlink("/proc/self/ns/net")
    assert "2" in host.stdout.split()
    # A bundle may ask for a network; without an option it is the host's, as ever.
    usual = engine.run(["srun", f"--container={bundle}", *look[:2], "readlink /proc/self/ns/net"])
    assert usual.stdout.strip() == os.readlink("/proc/self/ns/net")


@pytest.mark.root
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("way", ["out", "none"])
def test_a_private_network_leads_out_where_the_machine_has_the_means(
    engine: Engine, make_bundle: MakeBundle, runtime: str, way: str
) -> None:
    """By slirp4netns, if a tun device can be opened. It leads to no other task, and to nothing that
    listens on the machine's loopback."""
    require(runtime, "address", "util-linux", "slirp4netns", "tun")
    env = {"ROADSTEAD_RUNTIME": runtime, "ROADSTEAD_OCI_CONF": "none"}
    path: list[str] = []
    if way == "none":
        tools = engine.account.mkdir(engine.base / "tools")
        for name in ("sh", "cat", "env", runtime, "newuidmap", "newgidmap"):
            (tools / name).symlink_to(program(name) or shutil.which(name) or "")
        path = ["env", f"PATH={engine.shims}:{tools}"]
    bundle = make_bundle()
    with outside.greeter() as (host, port), socket.create_server(("127.0.0.1", 0)) as local:
        inner = local.getsockname()[1]
        ask = (
            f"nc -w 5 {host} {port} </dev/null || echo unreachable;"
            f" nc -w 2 10.0.2.2 {inner} </dev/null; nc -w 1 127.0.0.1 {inner} </dev/null;"
            " grep -h nameserver /etc/resolv.conf; ls /proc/sys/net/ipv4/conf"
        )
        done = outside.run(
            engine,
            [
                *path,
                "srun",
                f"--container={bundle}",
                "--container-network=private",
                "sh",
                "-c",
                ask,
            ],
            env=env,
        )
    assert done.returncode == 0, done
    said = done.stdout.split()
    if way == "out":
        assert said == [
            "hello", "nameserver", "10.0.2.3", "all", "default", "eth0", "lo", "tap0",
        ], done  # fmt: skip
    else:
        assert said[0] == "unreachable", done
        assert said[-4:] == ["all", "default", "eth0", "lo"], done
    assert not [each for each in engine.processes() if _name(each.pid) == "slirp4netns"]


@pytest.mark.root
def test_nothing_of_a_way_out_stays_if_the_supervisor_is_killed(
    engine: Engine, make_bundle: MakeBundle
) -> None:
    require("address", "util-linux", "slirp4netns", "tun")
    bundle = make_bundle()
    outside.run(engine, ["roadstead", "engine", "start"]).check()
    command = ["sh", "-c", "ls /proc/sys/net/ipv4/conf; sleep 99"]
    waits = engine.popen(
        ["srun", f"--container={bundle}", "--container-network=private", *command],
        stdout=-1, stderr=-1,
    )  # fmt: skip
    for _ in range(5):
        line = waits.stdout.readline()
    assert line == "tap0\n"
    (claim,) = engine.runtime.glob("roadstead/steps/*/claim.json")
    os.kill(json.loads(claim.read_text())["pid"], signal.SIGKILL)
    assert engine.finish(waits).returncode == 125
    waiting.eventually(
        lambda: not [each for each in engine.processes() if _name(each.pid) == "slirp4netns"]
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--container-publish=80x"], "--container-publish=80x: not a port"),
        (["--container-publish=80/udp"], "only TCP ports can be published"),
        (["--container-publish=80,80"], "80 is there twice"),
        (["--container-publish=80", "--container-network=host"], "nothing is published of"),
        (["--container-network=bridge"], "Invalid --container-network specification"),
        (["--container-network=private", "--mpi=pmi2"], "do not find each other"),
    ],
)
def test_what_is_refused(shared_engine: Engine, options: list[str], words: str) -> None:
    said = shared_engine.run(["srun", "--container=/nothing", *options, "true"])
    assert said.returncode != 0
    assert words in said.stderr


def test_a_port_of_the_host_that_is_taken(engine: Engine, make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = engine.run(
            ["srun", f"--container={bundle}", f"--container-publish={port}:80", "true"]
        )
    assert said.returncode == 1
    assert f"127.0.0.1:{port} of the host, for task 0: Address already in use" in said.stderr
    assert "0:80 takes one that is free" in said.stderr


def test_nothing_stays_if_the_supervisor_is_killed(engine: Engine, make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    waits = engine.popen(
        ["srun", "-n3", "-O", f"--container={bundle}", "--container-publish=0:80,81",
         f"--container-mounts={engine.work}:/w", "sh", "-c",
         "echo $ROADSTEAD_PORT_80 >> /w/port; sleep 99"],
        stdout=-1, stderr=-1,
    )  # fmt: skip
    waiting.eventually(lambda: _text(engine)().count("\n") == 2)
    assert len([each for each in engine.processes() if _name(each.pid) == "roadstead-hub"]) == 1
    (claim,) = engine.runtime.glob("roadstead/steps/*/claim.json")
    os.kill(json.loads(claim.read_text())["pid"], signal.SIGKILL)
    assert engine.finish(waits).returncode == 125
    for port in _text(engine)().split():
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(port)), timeout=10)
