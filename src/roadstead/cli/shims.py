"""roadstead shims: wrappers for the commands that start as fast as Python can.

Each is a script whose first line is this interpreter with ``-I -S``: no site packages to scan, no
``PYTHONPATH`` and no ``.pth`` file of a module system in the way.  The kernel names the process
after the script, so it is ``srun`` in ps, not ``python3``.
"""

from __future__ import annotations

import os
import sys

COMMANDS = ("srun", "sbatch", "salloc", "squeue", "scancel", "sinfo", "scontrol", "roadstead")

_TEMPLATE = """#!{python} -IS
import sys
sys.path.insert(0, {root!r})
from roadstead.cli.{module} import main
import os
code = main()
try:
    sys.stdout.flush()
except BrokenPipeError:
    code = 141
os._exit(code)
"""


def write(directory: str) -> list[str]:
    """Write the wrappers into ``directory`` (made if need be); their paths.  Raises OSError."""
    import roadstead

    root = os.path.dirname(os.path.dirname(os.path.abspath(roadstead.__file__)))
    os.makedirs(directory, exist_ok=True)
    paths = []
    for command in COMMANDS:
        path = os.path.join(directory, command)
        module = "umbrella" if command == "roadstead" else command
        text = _TEMPLATE.format(python=sys.executable, root=root, module=module)
        temporary = f"{path}.{os.getpid()}.new"
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o755)
        os.rename(temporary, path)
        paths.append(path)
    return paths
