"""`roadstead image`: what goes, what never goes, what is found out and what is written; and many
that want the same at once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.support import layouts, leaks
from tests.support.account import Account
from tests.support.components import ROOT, program
from tests.support.engine import Engine
from tests.support.product import Product
from tests.support.skips import needs
from tests.support.waiting import eventually

pytestmark = [pytest.mark.container, needs("busybox", "crun")]


def image_layers() -> list[bytes]:
    busybox = Path(program("busybox") or "").read_bytes()
    names = ("sh", "sleep", "cat", "echo", "true", "touch")
    return [
        layouts.layer({f"bin/{name}": busybox for name in names}, ["bin", "etc", "tmp"]),
        layouts.layer({"etc/hello": b"from an image\n"}),
    ]


def make_image(engine: Engine) -> str:
    """The reference of an image of two layers."""
    layout = layouts.write(engine.work / "layout", image_layers())
    engine.account.own(layout)
    return "oci:layout:latest"


def store_of(engine: Engine) -> Path:
    return engine.home / ".local/share/roadstead/images"


def held(engine: Engine) -> int:
    return len(list((store_of(engine) / "holds").iterdir()))


def image(engine: Engine, *words: str, code: int = 0) -> str:
    done = engine.run(["roadstead", "image", *words]).check(code)
    return done.stderr if code else done.stdout


def test_what_a_job_needs_is_not_removed(engine: Engine) -> None:
    """Neither of one that waits nor of one that runs, with or without its controller."""
    name = make_image(engine)
    argv = ["sbatch", "--parsable", "--container", name]
    running = engine.run([*argv, "--wrap", "sleep 100"]).check().stdout.strip()
    waiting = engine.run([*argv, "-H", "--wrap", "cat /etc/hello"]).check().stdout.strip()
    eventually(lambda: "R" in engine.run(["squeue", "-h", "-o%t", "-j", running]).stdout.split())
    assert "removed: 0 images" in image(engine, "gc", "--older-than=0s", "--quota=0")
    said = image(engine, "rm", name, code=1)
    assert f"is needed by jobs of uid {engine.account.uid} on" in said
    assert "squeue shows which jobs wait or run" in said
    engine.run(["scancel", running]).check()
    eventually(lambda: engine.run(["squeue", "-h", "-j", running]).stdout == "")
    # Only the held job needs it now, and nobody is there to say so.
    (lock,) = engine.state.glob("roadstead/*/controller.lock")
    os.kill(int(lock.read_text()), signal.SIGKILL)
    assert "removed: 0 images" in image(engine, "gc", "--older-than=0s", "--quota=0")
    assert held(engine) == 1
    engine.run(["scontrol", "release", waiting]).check()
    eventually(lambda: (engine.work / f"slurm-{waiting}.out").exists() and held(engine) == 0)
    assert (engine.work / f"slurm-{waiting}.out").read_text() == "from an image\n"
    assert "removed: 1 image, 2 layers" in image(engine, "rm", name)
    assert list((store_of(engine) / "layers").iterdir()) == []


def test_a_container_with_a_name_outlives_its_step(engine: Engine) -> None:
    name = make_image(engine)
    script = (
        "#!/bin/sh\n"
        f"srun --container={name} --container-name=c true\n"
        "roadstead image gc --older-than=0s\n"
        "srun --container-name=c cat /etc/hello\n"
    )
    engine.account.write(engine.work / "job", script)
    engine.run(["sbatch", "-W", "-o", "out", "job"])
    said = (engine.work / "out").read_text().splitlines()
    assert said == ["removed: 0 images, 0 layers, 0 B", "from an image"]


def test_an_image_that_has_gone_is_fetched_or_told(engine: Engine) -> None:
    name = make_image(engine)
    digest = image(engine, "pull", name).strip()
    assert f"{digest[7:19]}  oci:" in image(engine, "gc", "--older-than=0s")
    assert image(engine, "ls").count("\n") == 1
    argv = ["srun", "--container", name, "cat", "/etc/hello"]
    assert engine.run(argv).check().stdout == "from an image\n"
    eventually(lambda: held(engine) == 0)


def test_a_store_of_somebody_elses(engine: Engine, account: Account, product: Product) -> None:
    """A user runs from root's store, and writes nothing there but a hold, which root then sees."""
    if account.uid == 0 or os.geteuid() != 0:
        pytest.skip("needs root and another account")
    root = Account.current()
    top = Path(tempfile.mkdtemp(prefix=leaks.PREFIX, dir="/tmp"))
    try:
        top.chmod(0o755)
        (top / "store").mkdir(mode=0o755)
        layout = layouts.write(top / "layout", image_layers())
        env = {"ROADSTEAD_IMAGES": f"{top}/store", "HOME": f"{top}"}

        def roots(*words: str) -> str:
            main = f"import sys; sys.path.insert(0, '{product.library}'); "
            code = f"{main}from roadstead.__main__ import main; sys.exit(main())"
            argv = [product.python, "-IS", "-c", code, "image", *words]
            return root.run(argv, env={**root.environment, **env}).check().stdout

        digest = roots("pull", f"oci:{layout}").strip()
        before = tree(top / "store")
        mine = {"ROADSTEAD_IMAGE_STORES": f"{top}/store"}
        argv = ["srun", "--container", f"oci:{layout}", "sh", "-c", "cat /etc/hello; sleep 100"]
        assert engine.run([*argv[:3], "true"], env=mine).check().stderr == ""
        process = engine.popen(argv, env=mine, stdout=subprocess.PIPE)
        assert process.stdout.readline() == "from an image\n"
        (hold,) = tree(top / "store") - before
        assert hold.startswith(f"holds/{digest[7:]}.{account.uid}-")
        assert not list(engine.home.glob(".local/share/roadstead/images/layers/*"))
        assert roots("gc", "--older-than=0s") == "removed: 0 images, 0 layers, 0 B\n"
        process.send_signal(signal.SIGTERM)
        engine.finish(process)
        eventually(lambda: tree(top / "store") == before)
        assert "removed: 1 image, 2 layers" in roots("gc", "--older-than=0s")
    finally:
        leaks.remove(top)


def tree(top: Path) -> set[str]:
    return {os.fspath(path.relative_to(top)) for path in top.rglob("*")}


def test_verify_and_its_sentences(engine: Engine) -> None:
    name = make_image(engine)
    digest = image(engine, "pull", name).strip()
    assert image(engine, "verify") == "1 image is as unpacked\n"
    found = next(store_of(engine).glob("layers/*/root/etc/hello"))
    found.write_text("something else\n")
    done = engine.run(["roadstead", "image", "verify", digest[7:19]])
    assert done.returncode == 1
    assert "'etc/hello' has changed" in done.stdout
    assert done.stderr.count("\n") == 1
    answer = json.loads(engine.run(["roadstead", "image", "verify", "--json"]).check(1).stdout)
    assert len(answer["faults"]) == 1
    # What is damaged is brought again when it was removed.
    image(engine, "rm", digest)
    image(engine, "pull", name)
    assert image(engine, "verify") == "1 image is as unpacked\n"


@needs("squashfs-tools", "skopeo", "umoci")
def test_export(engine: Engine) -> None:
    """What is written is read: by others, and by us."""
    name = make_image(engine)
    image(engine, "pull", name)
    for target in ("oci:out:app", "oci-archive:out.oci", "tarball:out.tar", "sqsh:out.sqsh"):
        image(engine, "export", name, target)
        argv = ["srun", "--container", target, "cat", "/etc/hello"]
        assert engine.run(argv).check().stdout == "from an image\n", target
    seen = engine.run(["skopeo", "inspect", "--config", "oci:out:app"]).check().stdout
    assert json.loads(seen)["config"]["Cmd"] == ["sh"]
    engine.run(["umoci", "unpack", "--rootless", "--image", "out:app", "unpacked"]).check()
    assert (engine.work / "unpacked/rootfs/etc/hello").read_text() == "from an image\n"
    assert "out.tar is there already" in image(engine, "export", name, "tarball:out.tar", code=1)
    assert "must be one of oci:PATH" in image(engine, "export", name, "docker://x/y", code=1)
    assert not list(engine.work.glob("*.new"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gc", "--older-than=soon"], "--older-than=soon: not a number; --older-than=30d"),
        (["gc", "--quota"], "--quota needs a value"),
        (["rm", "oci:nothing"], "roadstead image pull oci:nothing"),
        (["ls", "--all"], "unknown option --all"),
        (["export", "x"], "image does not know export x"),
        (["rm", "abcdef123"], "abcdef123 is not in the store"),
    ],
)
def test_what_is_wrong(engine: Engine, words: list[str], said: str) -> None:
    answer = image(engine, *words, code=1)
    assert said in answer
    assert answer.count("\n") == 1


def test_a_killed_import_is_nothing(account: Account, product: Product, scratch: Path) -> None:
    """Some of script/trials' trials; a hundred are for a quiet hour."""
    checkout = scratch / "checkout"
    (checkout / "script").mkdir(parents=True)
    for name in ("trials", "components"):
        shutil.copy(ROOT / "script" / name, checkout / "script" / name)
    shutil.copytree(ROOT / "tests" / "support", checkout / "tests" / "support")
    shutil.copytree(product.library / "roadstead", checkout / "src" / "roadstead")
    account.own(checkout)
    argv = [product.python, checkout / "script" / "trials", "--kind=image", "--seed=7", "--count=4"]
    began = time.monotonic()
    done = account.run(argv, timeout=200)
    assert done.returncode == 0, f"{done} after {time.monotonic() - began:.0f} s"
    assert done.stdout == "4 trials, seed 7: nothing lost, nothing left\n"
