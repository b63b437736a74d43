"""Container systems that cannot be installed here, by their command lines.

A fake checks every argument against the options that the system has published, and refuses what it
does not know; then it really runs the command, in namespaces that bwrap makes, on the files that
the image's name stands for.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from tests.support.engine import Engine

# system → what comes before the options; the options (= takes a value); the form of the operands.
PUBLISHED: Final[dict[str, tuple[list[str], list[str], str]]] = {
    # apptainer exec, 1.1 (apptainer.org/docs/user/main/cli/apptainer_exec.html)
    "apptainer": (
        ["--silent", "exec"],
        ["--userns", "--cleanenv", "--no-home", "--no-mount=", "--no-init", "--no-eval",
         "--fakeroot", "--writable", "--writable-tmpfs", "--bind=", "--pwd="],
        "IMAGE",
    ),
    # enroot start, 3.4 (doc/cmd/start.md)
    "enroot": (
        ["start"],
        ["--rc=", "--root", "--rw", "--mount=", "--env=", "--conf="],
        "-- IMAGE",
    ),
    # sarus run, 1.4 (user/user_guide.html)
    "sarus": (
        ["run"],
        ["--tty", "--mount=", "--workdir=", "--entrypoint=", "--env=", "--mpi", "--ssh"],
        "IMAGE",
    ),
    # shifter, 18.03 (shifter --help)
    "shifter": (
        [],
        ["--image=", "--volume=", "--workdir=", "--entrypoint=", "--env=", "--env-file="],
        "--",
    ),
}  # fmt: skip
_FAKE: Final = '''\
#!/usr/bin/python3
"""A fake of {system}: see tests/support/fakes.py."""
import os, sys
system, before, known, form, images = {system!r}, {before!r}, {known!r}, {form!r}, {images!r}
def refuse(what):
    sys.stderr.write(f"fake {{system}}: {{what}}\\n")
    sys.exit(255 if system == "apptainer" else 1)
words = sys.argv[1:]
if words[:len(before)] != before:
    refuse(f"begins with {{words[:len(before)]}}")
words = words[len(before):]
given = []
while words and words[0].startswith("--") and words[0] != "--":
    name, equals, value = words.pop(0).partition("=")
    if name + equals not in known:
        refuse(f"has no option {{name}}{{equals}}")
    given.append((name, value))
if form.startswith("--"):
    if words.pop(0) != "--":
        refuse("no -- before the operands")
options = dict(given)
image = options["--image"] if system == "shifter" else words.pop(0)
env = dict(os.environ)
if system == "enroot" and "/" not in image:
    root = os.path.realpath(os.environ["ENROOT_DATA_PATH"] + "/" + image)
    missing = [value for name, value in given if name == "--env" and value not in os.environ]
    if missing:
        refuse(f"no such variables: {{missing}}")
    env = {{value: os.environ[value] for name, value in given if name == "--env"}}
elif os.path.isdir(image):
    root = image
else:
    root = images.get(image) or refuse(f"no image {{image}}")
if system == "apptainer":
    head = "APPTAINERENV_"
    env = {{n[len(head):]: v for n, v in os.environ.items() if n.startswith(head)}}
binds = []
for name, value in given:
    if name == "--bind" or name == "--volume":
        source, target, *mode = value.split(":")
        binds.append(("--ro-bind" if "ro" in mode else "--bind", source, target))
    if name == "--mount" and system == "sarus":
        parts = dict(each.partition("=")[::2] for each in value.split(","))
        if parts.get("type") != "bind":
            refuse(f"--mount={{value}}")
        kind = "--ro-bind" if "readonly" in parts else "--bind"
        binds.append((kind, parts["source"], parts["destination"]))
    if name == "--mount" and system == "enroot":
        source, target, kind, flags = value.split(":")
        binds.append(("--ro-bind" if "ro" in flags.split(",") else "--bind", source, target))
where = options.get("--pwd") or options.get("--workdir") or "/"
if system == "enroot":
    binds.append(("--ro-bind", options["--rc"], "/etc/rc"))
    words = ["/bin/sh", "/etc/rc", *words]
asked = {{"--writable", "--rw", "--writable-tmpfs"}} & options.keys()
writable = "--bind" if asked or system in ("sarus", "shifter") else "--ro-bind"
argv = ["bwrap", writable, root, "/", "--dev-bind", "/dev", "/dev", "--ro-bind", "/proc", "/proc"]
for bind in binds:
    argv += bind
os.execvpe("bwrap", [*argv, "--chdir", where, "--", *words], {{**env, "PATH": os.environ["PATH"]}})
'''


def install(engine: Engine, system: str, images: dict[str, str]) -> dict[str, str]:
    """Have the fake on PATH, with images of its own by their names; the variables."""
    before, known, form = PUBLISHED[system]
    folder: Path = engine.account.mkdir(engine.base / f"fake-{system}")
    text = _FAKE.format(system=system, before=before, known=known, form=form, images=images)
    engine.account.write(folder / system, text, 0o755)
    assert sys.version_info >= (3, 11)
    return {"PATH": f"{folder}:{engine.variables['PATH']}"}
