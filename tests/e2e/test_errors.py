"""Bad input: one sentence that says what, where, and what to type next; nothing half-made."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.engine import Engine


def one_sentence(engine: Engine, argv: list[str], code: int, *words: str, **env: str) -> str:
    """Run ``argv``; it must end with ``code`` and say one line that holds all of ``words``."""
    done = engine.run(argv, env=env or None)
    assert done.returncode == code, str(done)
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len([line for line in lines if not line.startswith("Try ")]) == 1, str(done)
    missing = [word for word in words if word not in lines[0]]
    assert not missing, str(done)
    assert lines[0].startswith(f"{argv[0]}: "), str(done)
    return lines[0]


@pytest.fixture(scope="module")
def engine(shared_engine: Engine) -> Engine:
    return shared_engine


def bundle_at(engine: Engine, name: str, config: str | None, *, rootfs: bool = False) -> str:
    path = engine.account.mkdir(engine.work / name)
    if config is not None:
        engine.account.write(path / "config.json", config)
    if rootfs:
        engine.account.mkdir(path / "rootfs")
    return str(path)


def test_bundles(engine: Engine) -> None:
    def refused(path: str, *words: str) -> None:
        one_sentence(engine, ["srun", "--container", path, "true"], 1, "error: ", *words)

    refused("/no/such/bundle", "/no/such/bundle does not exist", "config.json")
    refused("/etc/passwd", "/etc/passwd is no image")
    refused(bundle_at(engine, "empty", None), "has no config.json", "runc spec --rootless")
    refused(bundle_at(engine, "broken", "{nope"), "not valid JSON: line 1, column 2")
    refused(bundle_at(engine, "array", "[]"), "config.json: not an object")
    refused(bundle_at(engine, "rootless", "{}"), "no root.path")
    config = '{"root": {"path": "gone"}}'
    refused(bundle_at(engine, "gone", config), "root.path is gone", "does not exist")
    if engine.account.uid:
        config = '{"root": {"path": "/root"}}'
        refused(bundle_at(engine, "secret", config), "cannot be read: Permission denied")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("RunTimeRan=x\n", ("oci.conf:1:", "RunTimeRan")),
        ('RunTimeRun="x %q"\nRunTimeKill=x\nRunTimeDelete=x\n', ("oci.conf:1:", "%q")),
        ("RunTimeRun=a b\n", ("oci.conf:1:",)),
        ("RunTimeRun=a\n", ("oci.conf", "RunTimeKill")),
        ("RunTimeRun=a\nRunTimeCreate=a\n", ("oci.conf", "RunTimeCreate")),
        ("CreateEnvFile=perhaps\n", ("oci.conf:1:", "CreateEnvFile")),
        ('EnvExclude="["\n', ("oci.conf:1:", "EnvExclude")),
        ("include nowhere.conf\n", ("oci.conf:1:", "nowhere.conf")),
        ("", ("oci.conf",)),
    ],
)
def test_oci_conf(engine: Engine, tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    conf = engine.account.write(engine.base / "oci.conf", text)
    bundle = engine.work / "plain"
    if not bundle.exists():
        bundle_at(engine, "plain", '{"root": {"path": "rootfs"}}', rootfs=True)
    one_sentence(
        engine, ["srun", "--container", str(bundle), "true"], 1, "error: ", *words,
        ROADSTEAD_OCI_CONF=str(conf),
    )  # fmt: skip


def test_an_oci_conf_that_is_not_there(engine: Engine) -> None:
    one_sentence(
        engine, ["srun", "--container", "/tmp", "true"], 1, "error: ", "/no/such.conf",
        ROADSTEAD_OCI_CONF="/no/such.conf",
    )  # fmt: skip


def test_command_lines(engine: Engine) -> None:
    one_sentence(engine, ["srun", "--bogus", "true"], 255, "unrecognized option '--bogus'")
    one_sentence(engine, ["srun", "--contain=x", "true"], 255, "is ambiguous")
    one_sentence(engine, ["srun"], 1, "No command given to execute")
    one_sentence(engine, ["srun", "-n", "many", "true"], 1, 'Invalid numeric value "many"')
    one_sentence(engine, ["sbatch", "-t", "soon", "--wrap", "true"], 255, "--time")
    one_sentence(engine, ["scontrol", "show", "nonsense"], 1, "nonsense")
    one_sentence(engine, ["roadstead", "nonsense"], 1, "nonsense")


def test_impossible_requests(engine: Engine) -> None:
    cpus = len(os.sched_getaffinity(0)) + 1
    one_sentence(engine, ["srun", f"-n{cpus}", "true"], 1, "Unable to allocate resources")
    one_sentence(engine, ["srun", "-N2", "-n2", "true"], 1, "Unable to allocate resources")
    one_sentence(engine, ["srun", "--mem=900T", "true"], 1, "Unable to allocate resources")
    one_sentence(engine, ["srun", "-p", "gpu", "true"], 1, "invalid partition specified: gpu")
    wrap = ["--wrap", "true"]
    one_sentence(engine, ["sbatch", f"-n{cpus}", *wrap], 1, "Batch job submission failed")
    one_sentence(engine, ["srun", "--gres=gpu:1", "true"], 1, "(gres)")
    one_sentence(engine, ["srun", "--pty", "sh"], 1, "--pty needs a terminal")
    one_sentence(engine, ["srun", "--jobid", "99999", "true"], 1, "99999")


def test_scripts(engine: Engine) -> None:
    one_sentence(engine, ["sbatch", "nowhere.sh"], 1, "Unable to open file nowhere.sh")
    engine.account.write(engine.work / "notes.txt", "just text\n")
    one_sentence(engine, ["sbatch", "notes.txt"], 1, "does not look like a batch script")
    engine.account.write(engine.work / "bad.sh", "#!/bin/sh\n#SBATCH --bogus\ntrue\n")
    one_sentence(engine, ["sbatch", "bad.sh"], 255, "--bogus", "line 2")


def test_output_that_cannot_be_written(engine: Engine) -> None:
    one_sentence(engine, ["srun", "-o", "/no/such/dir/out", "true"], 1, "/no/such/dir/out")


@pytest.mark.parametrize("mode", ["0755", "0700"])
def test_a_runtime_directory_that_is_not_ours_alone(
    engine: Engine, user: object, mode: str, scratch: Path
) -> None:
    """In a shared /tmp somebody else may have made the directory first."""
    folder = scratch / "tmp" / f"roadstead-{engine.account.uid}"
    folder.mkdir()
    if mode == "0755":
        engine.account.own(folder)
        folder.chmod(0o755)
        expected = "is open to other users"
    else:
        if os.geteuid() != 0:
            pytest.skip("needs root to make somebody else's directory")
        folder.chmod(0o700)
        os.chown(folder, 4242, 4242)
        expected = "belongs to uid 4242, not to you"
    env = {
        "XDG_RUNTIME_DIR": "", "TMPDIR": str(scratch / "tmp"), "XDG_STATE_HOME": str(scratch / "s")
    }  # fmt: skip
    one_sentence(engine, ["srun", "true"], 1, "error: ", expected, **env)


def test_a_controller_of_another_version(engine: Engine, make_bundle: Callable[..., Path]) -> None:
    """Every message carries the protocol's version; a controller answers only its own."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import os\n"
        "from roadstead.host import wire\n"
        "wire.VERSION = 999\n"
        "from roadstead.cli.srun import main\n"
        "sys.exit(main(['true']))\n"
    )
    shim = (Path(engine.shims or "") / "srun").read_text()
    library = shim.split("sys.path.insert(0, '")[1].split("'")[0]
    python = shim.splitlines()[0][2:].split()[0]
    done = engine.run([python, "-IS", "-c", code, library])
    assert done.returncode == 1, str(done)
    assert "protocol" in done.stderr
    assert "roadstead engine stop" in done.stderr
