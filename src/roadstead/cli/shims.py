"""roadstead shims: wrappers for the commands that start as fast as Python can.

Each is a script whose first line is this interpreter with ``-I -S``: no site packages to scan, no
``PYTHONPATH`` and no ``.pth`` file of a module system in the way.  The kernel names the process
after the script, so it is ``srun`` in ps, not ``python3``.  Beside them, in ``.roadstead``, lie the
commands' modules as images (image.py).
"""

from __future__ import annotations

import os
import sys

COMMANDS = (
    "srun",
    "sbatch",
    "salloc",
    "squeue",
    "scancel",
    "sinfo",
    "scontrol",
    "sattach",
    "sbcast",
    "sacct",
    "sstat",
    "sprio",
    "sshare",
    "sreport",
    "sacctmgr",
    "sdiag",
    "roadstead",
)

_TEMPLATE = """#!{python} -IS
import _signal
if _signal.getsignal(2) is _signal.default_int_handler:
    _signal.signal(2, _signal.SIG_DFL)  # Ctrl-C now is the end, not a traceback
import gc, marshal, os, sys
gc.disable()  # a command makes no garbage worth looking for
sys.path.insert(0, {root!r})
{first}try:
    with open({image!r} + sys.implementation.cache_tag, "rb") as file:
        loader, modules = marshal.loads(file.read())
    exec(loader, {{"modules": modules}})
except OSError:
    pass  # without its image a command is slower, and works
from roadstead.cli.{module} import main
code = main()
if sys.stdout is not None:
    try:
        sys.stdout.flush()
    except OSError:
        code = code or 1
os._exit(code)
"""

# ``roadstead oci`` is called four times for each step of a site's Slurm, and starts in a third of
# the time as what the packed agent is (docs/decisions/0035).
_NODE_SIDE = """\
if sys.argv[1:2] == ["oci"]:
    try:
        with open({image!r} + sys.implementation.cache_tag, "rb") as file:
            loader, seen, boot = marshal.loads(file.read())
    except OSError:
        pass  # slower, and works
    else:
        snapshot = {snapshot!r} + sys.implementation.cache_tag + ".pyc"
        exec(loader, {{"seen": seen, "boot": boot, "snapshot": snapshot}})
"""


def write(directory: str) -> list[str]:
    """Write the wrappers into ``directory`` (made if need be); their paths.  Raises OSError."""
    import roadstead
    from roadstead.cli import image

    root = os.path.dirname(os.path.dirname(os.path.abspath(roadstead.__file__)))
    directory = os.path.abspath(directory)
    images = os.path.join(directory, ".roadstead")
    os.makedirs(images, exist_ok=True)
    tag = sys.implementation.cache_tag
    node, oci = os.path.join(images, "node."), os.path.join(images, "oci.")
    _replace(f"{node}{tag}.pyc", image.node_side())
    _replace(oci + tag, image.before(f"{node}{tag}.pyc"))
    paths = []
    for command in COMMANDS:
        path = os.path.join(directory, command)
        module = "umbrella" if command == "roadstead" else command
        stem = os.path.join(images, f"{command}.")
        _replace(stem + tag, image.build(root, f"roadstead.cli.{module}"))
        packed = command == "roadstead"
        first = _NODE_SIDE.format(image=oci, snapshot=node) if packed else ""
        text = _TEMPLATE.format(
            python=sys.executable, root=root, image=stem, module=module, first=first
        )
        _replace(path, os.fsencode(text), mode=0o755)
        paths.append(path)
    return paths


def _replace(path: str, data: bytes, mode: int = 0o644) -> None:
    """Write a file whole or not at all: a command may be starting from the old one."""
    temporary = f"{path}.{os.getpid()}.new"
    with open(temporary, "wb") as file:
        file.write(data)
    os.chmod(temporary, mode)
    os.rename(temporary, path)
