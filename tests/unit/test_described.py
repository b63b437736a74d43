"""What other systems leave in their images to say how they are to be run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from roadstead.errors import ImageError
from roadstead.images.described import Description, assign, describe, enroot, udocker

SINGULARITY = """#!/bin/sh
# what docker:// images become
export PATH="/opt/conda/bin:/usr/bin"
export LANG="${LANG:-"C.UTF-8"}"
"""
OWN = """#!/bin/sh
export PATH=/opt/app/bin:$PATH
export GREETING='hello $USER' # not a variable
export WHEN=$(date)
if [ -z "$X" ]; then
    export X=1
fi
A="a \\"quoted\\" ${GREETING}";
"""
RC = """mkdir -p "/workspace" 2> /dev/null
cd "/workspace" && unset OLDPWD || exit 1

if [ $# -gt 0 ]; then
    exec '/entry.sh' "$@"
else
    exec '/entry.sh' 'serve'
fi
"""


def made(top: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text)
    return str(top)


def test_nothing_in_particular(tmp_path: Path) -> None:
    assert describe(made(tmp_path, {"etc/environment": 'PATH="/usr/bin"\n'})) == Description(
        "rootfs"
    )


def test_singularity(tmp_path: Path) -> None:
    found = describe(
        made(
            tmp_path,
            {
                ".singularity.d/env/10-docker2singularity.sh": SINGULARITY,
                ".singularity.d/env/90-environment.sh": OWN,
                ".singularity.d/env/99-base.sh": "export LD_LIBRARY_PATH=/.singularity.d/libs",
                ".singularity.d/runscript": "#!/bin/sh\nexec app",
                ".singularity.d/labels.json": '{"org.label-schema.name": "app", "n": 1}',
            },
        )
    )
    assert found.system == "Singularity"
    assert found.config.entrypoint == ("/.singularity.d/runscript",)
    assert found.config.env == (
        "PATH=/opt/app/bin:/opt/conda/bin:/usr/bin",
        "LANG=C.UTF-8",
        "GREETING=hello $USER",
        'A=a "quoted" hello $USER',
    )
    assert found.config.labels == {"org.label-schema.name": "app"}
    assert len(found.notes) == 1
    assert found.notes[0].startswith("2 lines of /.singularity.d/env")


@pytest.mark.parametrize(
    "line", ["export A=`date`", "A=$(id)", 'A="$((1 + 1))"', "A=b; rm -rf /", "A='open", "A=${B%c}"]
)
def test_what_is_more_than_an_assignment(line: str) -> None:
    env: dict[str, str] = {}
    assert assign(line, env) == 1
    assert env == {}


def test_charliecloud(tmp_path: Path) -> None:
    known = {
        "arch": "x86_64",
        "cwd": "/srv",
        "env": {"PATH": "/bin", "A": "1"},
        "labels": {"l": "v"},
        "volumes": ["/data"],
    }
    found = describe(made(tmp_path, {"ch/metadata.json": json.dumps(known)})).config
    assert (found.workdir, found.architecture, found.volumes) == ("/srv", "amd64", ("/data",))
    assert (found.env, found.labels) == (("PATH=/bin", "A=1"), {"l": "v"})


def test_charliecloud_of_old(tmp_path: Path) -> None:
    lines = "# comment\nA=1\nB='two words'\n\nnonsense\nwith space=1\n"
    found = describe(made(tmp_path, {"ch/environment": lines}))
    assert (found.system, found.config.env) == ("Charliecloud", ("A=1", "B=two words"))


def test_enroot(tmp_path: Path) -> None:
    root = made(tmp_path, {"etc/rc": RC, "etc/environment": "A=1\nB=x=y\n"})
    found = describe(root)
    assert found.system == "Enroot"
    assert found.config.entrypoint == ("/bin/sh", "/etc/rc")
    assert (found.config.env, found.config.workdir) == (("A=1", "B=x=y"), "/workspace")


def test_enroot_of_which_it_is_known(tmp_path: Path) -> None:
    assert enroot(made(tmp_path, {"etc/environment": "A=1\n"})).config.env == ("A=1",)
    assert enroot(str(tmp_path / "nowhere")).config.entrypoint == ()


def test_udocker(tmp_path: Path) -> None:
    inner = {
        "Env": ["A=1", "nonsense", 3],
        "Cmd": ["serve"],
        "Entrypoint": None,
        "WorkingDir": "/app",
        "Volumes": {"/b": {}, "/a": {}},
        "User": "app",
    }
    text = json.dumps({"architecture": "arm64", "config": inner})
    found = udocker(made(tmp_path, {"container.json": text})).config
    assert (found.cmd, found.entrypoint, found.env) == (("serve",), (), ("A=1",))
    assert (found.workdir, found.user, found.architecture) == ("/app", "app", "arm64")
    assert found.volumes == ("/a", "/b")
    with pytest.raises(ImageError, match="has no config"):
        udocker(made(tmp_path, {"container.json": "[1]"}))


def test_nothing_is_read_from_outside(tmp_path: Path) -> None:
    """Links lead where they would lead in a container, and only regular files are read."""
    made(tmp_path / "outside", {"secret": "A=secret\n"})
    root = tmp_path / "root"
    (root / "ch").mkdir(parents=True)
    (root / "ch/environment").symlink_to(tmp_path / "outside/secret")
    assert describe(str(root)).config.env == ()
    (root / "ch/environment").unlink()
    (root / "ch/environment").symlink_to("../../outside/secret")
    assert describe(str(root)).config.env == ()
    (root / "ch/environment").unlink()
    (root / "ch/environment").mkdir()
    assert describe(str(root)).config.env == ()
    (root / "ch/metadata.json").write_text("[" * 100_000)
    assert describe(str(root)).config.env == ()
