"""What a container of ours is like inside, and what it leaves outside: nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from roadstead.host import process, sealed
from tests.support.account import Account
from tests.support.engine import Engine
from tests.support.skips import require

pytestmark = pytest.mark.container


@pytest.fixture(params=["crun", "runc"])
def runtime(request: pytest.FixtureRequest) -> dict[str, str]:
    require(request.param)
    return {"ROADSTEAD_RUNTIME": request.param, "ROADSTEAD_OCI_CONF": "none"}


def edit(engine: Engine, bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    config = json.loads((bundle / "config.json").read_text())
    change(config)
    engine.account.write(bundle / "config.json", json.dumps(config))


def sh(engine: Engine, bundle: Path, script: str, *options: str, env: Any = None) -> str:
    argv = ["srun", *options, "--container", str(bundle), "sh", "-c", script]
    return engine.run(argv, env=env).check().stdout


def test_who_and_where(engine: Engine, make_bundle: Callable[..., Path], runtime: Any) -> None:
    bundle = make_bundle()
    edit(engine, bundle, lambda c: c["process"].update(cwd="/tmp"))
    said = sh(engine, bundle, "id -u; pwd; hostname; echo $$; cat /proc/self/uid_map", env=runtime)
    uid, cwd, hostname, pid, mapping = said.splitlines()[:5]
    assert (uid, cwd, hostname, pid) == ("0", "/tmp", "runc", "1")
    if engine.account.uid:
        assert mapping.split()[0] == "0"
        assert mapping.split()[2] == "1", "the bundle's one id is the user's"


def test_a_bundle_made_by_somebody_else(
    engine: Engine, make_bundle: Callable[..., Path], runtime: Any
) -> None:
    """umoci and `runc spec --rootless` write their user's uid into config.json."""
    other = [{"containerID": 0, "hostID": 4242, "size": 1}]
    bundle = make_bundle(uid_map=other)
    assert sh(engine, bundle, "id -u", env=runtime) == "0\n"


def test_a_range_of_ids(engine: Engine, make_bundle: Callable[..., Path], runtime: Any) -> None:
    """A bundle that asks for many ids gets the user's subordinate ones."""
    if engine.account.uid:
        require("newuidmap")
    many = [
        {"containerID": 0, "hostID": engine.account.uid, "size": 1},
        {"containerID": 1, "hostID": 100000, "size": 65536},
    ]
    bundle = make_bundle(uid_map=many)
    edit(engine, bundle, lambda c: c["linux"].update(gidMappings=many))
    lines = sh(engine, bundle, "cat /proc/self/uid_map", env=runtime).splitlines()
    assert [line.split()[0] for line in lines] == ["0", "1"]
    assert [line.split()[2] for line in lines] == ["1", "65536"]


def test_the_bundle_is_used_in_place(
    engine: Engine, make_bundle: Callable[..., Path], runtime: Any
) -> None:
    bundle = make_bundle(readonly=False)
    before = (bundle / "config.json").read_text()
    sh(engine, bundle, "echo kept >/root/file", env=runtime)
    assert (bundle / "rootfs/root/file").read_text() == "kept\n"
    assert (bundle / "config.json").read_text() == before
    assert sorted(path.name for path in bundle.iterdir()) == ["config.json", "rootfs"]


def test_a_private_writable_layer(
    engine: Engine, make_bundle: Callable[..., Path], runtime: Any
) -> None:
    bundle = make_bundle(readonly=True)
    script = "echo $SLURM_PROCID >/root/file; sleep 0.2; cat /root/file"
    said = sh(engine, bundle, script, "-n2", "-O", "--container-writable=private", env=runtime)
    assert sorted(said.split()) == ["0", "1"], "each task has a layer of its own"
    assert list((bundle / "rootfs/root").iterdir()) == []


def test_readonly(engine: Engine, make_bundle: Callable[..., Path], runtime: Any) -> None:
    bundle = make_bundle(readonly=False)
    argv = ["srun", "--container-readonly", "--container", str(bundle), "touch", "/root/file"]
    done = engine.run(argv, env=runtime)
    assert done.returncode == 1, str(done)
    assert "Read-only file system" in done.stderr


def test_a_rootfs_of_any_name(
    engine: Engine, make_bundle: Callable[..., Path], runtime: Any
) -> None:
    bundle = make_bundle(rootfs_name="image")
    assert sh(engine, bundle, "echo here", env=runtime) == "here\n"


def test_crun_spec_too(engine: Engine, make_bundle: Callable[..., Path], runtime: Any) -> None:
    """`crun spec --rootless` writes no mappings and a network namespace."""
    bundle = make_bundle(spec="crun")
    host = os.listdir("/sys/class/net")
    said = sh(engine, bundle, "id -u; ls /sys/class/net", env=runtime).split()
    assert said[0] == "0"
    if engine.account.uid:
        assert sorted(said[1:]) == sorted(host), "the host's network"


def test_chdir_reaches_the_container(
    engine: Engine, make_bundle: Callable[..., Path], runtime: Any
) -> None:
    bundle = make_bundle()
    assert sh(engine, bundle, "pwd", "-D", "/var/tmp", env=runtime) == "/var/tmp\n"
    argv = ["srun", "-D", "/no/such", "--container", str(bundle), "pwd"]
    done = engine.run(argv, env=runtime).check()
    assert done.stdout == "/\n"
    assert "--chdir=/no/such" in done.stderr


def test_step_variables_are_inside(
    engine: Engine, make_bundle: Callable[..., Path], runtime: Any
) -> None:
    bundle = make_bundle()
    said = sh(
        engine, bundle, "echo $SLURM_PROCID $SLURM_LOCALID $SLURM_NTASKS $SLURM_CONTAINER",
        "-n2", "-O", env=runtime,
    )  # fmt: skip
    assert sorted(said.splitlines()) == [f"0 0 2 {bundle}", f"1 1 2 {bundle}"]


@pytest.mark.parametrize(
    ("policy", "host", "image", "path"),
    [
        ("merge", "yes", "image", "/image:/bin"),
        ("image", "", "image", "/image:/bin"),
        ("host", "yes", "host", ""),
        ("clean", "", "", "/image:/bin"),
    ],
)
def test_environment_policies(
    engine: Engine, make_bundle: Callable[..., Path], policy: str, host: str, image: str, path: str
) -> None:
    bundle = make_bundle()
    env = ["PATH=/image:/bin", "BOTH=image", "SLURM_PROCID=wrong"]
    edit(engine, bundle, lambda c: c["process"].update(env=env))
    said = sh(
        engine, bundle, 'echo "$HOSTS|$BOTH|$PATH|$SLURM_PROCID"',
        f"--container-env-policy={policy}", env={"HOSTS": "yes", "BOTH": "host"},
    ).strip()  # fmt: skip
    found = said.split("|")
    assert found[:2] == [host, image]
    assert found[2] == path or (not path and "/usr/bin" in found[2])
    assert found[3] == "0"


def test_a_batch_script_on_a_readonly_root(
    engine: Engine, make_bundle: Callable[..., Path], runtime: Any
) -> None:
    """Slurm's needs a writable /tmp/slurm in the root file system."""
    bundle = make_bundle(readonly=True)
    script = engine.account.write(
        engine.work / "job.sh",
        f'#!/bin/sh\n#SBATCH --container={bundle}\necho "$1 $SLURM_JOB_ID"; id -u\n',
    )
    done = engine.run(["sbatch", "--wait", str(script), "an argument"], env=runtime).check()
    job = done.stdout.split()[-1]
    assert (engine.work / f"slurm-{job}.out").read_text() == f"an argument {job}\n0\n"
    assert sorted(os.listdir(bundle / "rootfs/tmp")) == []
    assert "slurm" not in os.listdir(bundle / "rootfs")


def test_hooks_run_only_if_they_are_allowed(
    engine: Engine, make_bundle: Callable[..., Path]
) -> None:
    bundle = make_bundle()
    mark = engine.work / "mark"
    # One that ends before it has read the state is a failure to crun: "writing to pipe".
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"cat >/dev/null; touch {mark}"]}
    edit(engine, bundle, lambda c: c.update(hooks={"prestart": [hook]}))
    argv = ["srun", "--container", str(bundle)]
    done = engine.run([*argv, "true"]).check()
    assert "hooks of the bundle left out (prestart)" in done.stderr
    assert not mark.exists()
    refused = engine.run([*argv, "--container-hooks=refuse", "true"]).check(1)
    assert "prestart" in refused.stderr
    engine.run([*argv, "--container-hooks=run", "true"]).check()
    assert mark.exists()


def test_crun_starts_once(engine: Engine, make_bundle: Callable[..., Path]) -> None:
    """It is content with the sealed copy that it is started from (host/sealed.py), and makes none
    of its own."""
    require("crun")
    if any(map(sealed._is_on, sealed._BY_FILE)):
        pytest.skip("a security module knows crun by its file")
    env = {"ROADSTEAD_RUNTIME": "crun", "ROADSTEAD_OCI_CONF": "none"}
    argv = ["srun", "--container", str(make_bundle()), "sh", "-c", "echo up; exec cat"]
    step = engine.popen(argv, env=env, stdin=subprocess.PIPE)
    assert step.stdout.readline() == "up\n"
    runtimes = {
        process.executable(pid)
        for pid in map(int, filter(str.isdigit, os.listdir("/proc")))
        if process.arguments(pid)[:1] == [shutil.which("crun")]
        and engine.base.name in " ".join(process.arguments(pid))
    }
    assert engine.finish(step, typed="").returncode == 0
    assert runtimes == {"/memfd:crun_cloned (deleted)"}


def test_names_with_shell_characters(engine: Engine, make_bundle: Callable[..., Path]) -> None:
    """What a pattern puts into a command line is quoted: a bundle's name runs nothing."""
    evil = engine.work / "a b$(touch pwned);'`\"x"
    bundle = make_bundle(evil)
    conf = (
        "RunTimeRun=\"crun --root=%m/../../../crun run --bundle %b %n.%j.%s.%t && : %r '%r'\"\n"
        'RunTimeKill="crun --root=%m/../../../crun kill %n.%j.%s.%t"\n'
        'RunTimeDelete="crun --root=%m/../../../crun delete --force %n.%j.%s.%t"\n'
    )
    path = engine.account.write(engine.base / "oci.conf", conf)
    done = engine.run(
        ["srun", "--container", str(bundle), "echo", "ran"], env={"ROADSTEAD_OCI_CONF": str(path)}
    )
    assert done.check().stdout == "ran\n"
    assert not (engine.work / "pwned").exists()


def test_env_file_and_spool(engine: Engine, make_bundle: Callable[..., Path]) -> None:
    """CreateEnvFile, MountSpoolDir, ContainerPath, EnvExclude: later releases' keys."""
    bundle = make_bundle()
    edit(
        engine, bundle,
        lambda c: c["mounts"].append({"destination": "/var/run", "type": "tmpfs", "source": "t"}),
    )  # fmt: skip
    seen = engine.work / "seen"
    base = engine.base
    conf = (
        f'ContainerPath="{base}/work/box/%j.%s.%t"\n'
        'MountSpoolDir="/var/run/slurm/"\nCreateEnvFile=newline\nEnvExclude="^SECRET="\n'
        f'RunTimeRun="cp %e {seen}; crun --root={base}/run/c run --bundle %b %j.%s.%t"\n'
        f'RunTimeKill="crun --root={base}/run/c kill %j.%s.%t"\n'
        f'RunTimeDelete="crun --root={base}/run/c delete --force %j.%s.%t"\n'
    )
    path = engine.account.write(base / "oci.conf", conf)
    done = engine.run(
        ["srun", "--container", str(bundle), "sh", "-c", "ls -d /var/run/slurm; echo $SECRET."],
        env={"ROADSTEAD_OCI_CONF": str(path), "SECRET": "s", "PLAIN": "p"},
    )
    assert done.check().stdout == "/var/run/slurm\n.\n"
    written = seen.read_text().splitlines()
    assert "PLAIN=p" in written
    assert not any(line.startswith("SECRET=") for line in written)
    assert os.listdir(base / "work" / "box") == []


def test_an_opaque_container(engine: Engine) -> None:
    """IgnoreFileConfigJson: --container is a string, and %@ is the command, quoted."""
    conf = engine.account.write(
        engine.base / "oci.conf",
        'IgnoreFileConfigJson=true\nRunTimeRun="echo in %b: ; exec env %@"\n',
    )
    for image in ("/an/image", "docker://an/image:tag"):
        done = engine.run(
            ["srun", "--container", image, "printf", "%s|", "it's", "$HOME", "a b"],
            env={"ROADSTEAD_OCI_CONF": str(conf)},
        )
        assert done.check().stdout == f"in {image}:\nit's|$HOME|a b|"


def test_no_user_namespaces(engine: Engine, make_bundle: Callable[..., Path], runtime: Any) -> None:
    """A sentence that names the setting; the user forbids them to itself, a namespace down."""
    if engine.account.uid == 0:
        pytest.skip("root needs none")
    script = 'echo 0 >/proc/sys/user/max_user_namespaces && exec "$@"'
    done = engine.run(
        ["unshare", "--user", "--map-current-user", "--keep-caps", "sh", "-c", script, "sh",
         "srun", "--container", str(make_bundle()), "hostname"],
        env=runtime,
    ).check(125)  # fmt: skip
    assert done.stdout == ""
    assert "sysctl -w user.max_user_namespaces=" in done.stderr.splitlines()[-1]


@pytest.mark.root
def test_a_private_layer_without_overlay(
    engine: Engine, make_bundle: Callable[..., Path], runtime: Any
) -> None:
    """Overlays can be stacked twice; a root file system on two of them gets a copy instead."""
    bundle = make_bundle()
    require("util-linux")
    lower, account = bundle / "rootfs", engine.account
    mounts = ""
    for level in ("1", "2"):
        top = engine.account.mkdir(engine.base / f"overlay{level}")
        for name in ("upper", "work", "merged"):
            account.mkdir(top / name)
        options = f"lowerdir={lower},upperdir={top}/upper,workdir={top}/work"
        lower = top / "merged"
        mounts += f"mount -t overlay overlay -o {options} {lower} && "
    edit(engine, bundle, lambda c: c["root"].update(path=str(lower)))
    become = f"setpriv --reuid={account.uid} --regid={account.gid} --init-groups"
    done = Account.current().run(
        ["unshare", "--mount", "sh", "-c", f'{mounts} cd / && exec {become} "$@"', "sh",
         "srun", "--container-writable=private", "--container", str(bundle),
         "sh", "-c", "echo written >/root/file; cat /root/file; ls /bin/sh"],
        env={**engine.variables, "USER": account.name, **runtime},
    ).check()  # fmt: skip
    assert done.stdout == "written\n/bin/sh\n"
    assert "the container's root was copied" in done.stderr
    assert not (engine.base / "overlay2/upper/root/file").exists()


def test_what_ran(engine: Engine, make_bundle: Callable[..., Path]) -> None:
    """`roadstead jobs`: the steps in containers, and how each task ended."""
    bundle = make_bundle()
    engine.run(["srun", "true"]).check()
    argv = ["srun", "-n2", f"--container={bundle}", "sh", "-c", "exit $SLURM_PROCID"]
    engine.run(argv).check(1)
    engine.run(["srun", f"--container={bundle}", "nosuch"]).check(127)
    said = engine.run(["roadstead", "jobs", "--json"]).check()
    shown = json.loads(said.stdout)
    assert (shown["version"], shown["engine"]) == (1, "local")
    (first,), (second,) = (job["steps"] for job in shown["jobs"])
    assert (first["state"], first["code"], first["container"]) == ("FAILED", 1, str(bundle))
    assert [(each["task"], each["code"]) for each in first["tasks"]] == [(0, 0), (1, 1)]
    (task,) = second["tasks"]
    assert (task["code"], task["reason"]) == (127, "launch")
    assert "nosuch" in task["message"]
    rows = engine.run(["roadstead", "jobs", "2.0", "3"]).check().stdout.splitlines()
    assert [row.split()[:3] for row in rows[1:]] == [
        ["2.0", "FAILED", "1:0"], ["3.0", "FAILED", "127:0"],
    ]  # fmt: skip
