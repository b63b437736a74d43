"""Imports from the packed agent: all its modules, compiled, in one file that a Python starts with.

Looking for eighty modules in directories costs more than executing them.  A *snapshot* is one .pyc
of one version of Python, ``python3 -IS SNAPSHOT.pyc VERB …``: its code is this module's, and
MODULES in it has the code of every other, loaded when it is imported.  A snapshot is made of the
archive (engines/slurm/zipapp.py) once for each version of Python that it meets (install.py).

The archive starts here as well, without a snapshot: then the modules are read from the archive, as
any Python reads a zip file.

Any Python from 3.9 on; imports what is in the interpreter already.
"""

from __future__ import annotations

import marshal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

# name → whether it is a package, and its code as marshal writes it; empty outside of a snapshot.
MODULES: dict[str, tuple[bool, bytes]] = {}


class Packed:
    """Finds and loads the modules of MODULES (importlib's finder and loader)."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        found = MODULES.get(name)
        if found is None:
            return None
        import _frozen_importlib as machinery

        loader: Any = self
        return machinery.ModuleSpec(name, loader, origin="packed", is_package=found[0])

    def create_module(self, spec: object) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        exec(marshal.loads(MODULES[module.__name__][1]), module.__dict__)


def start(modules: dict[str, tuple[bool, bytes]]) -> int:
    """Run the agent from ``modules``, or, if there are none, from wherever this came from."""
    if modules:
        MODULES.update(modules)
        sys.meta_path.insert(0, Packed())
    from roadstead.agent.__main__ import main

    return main(sys.argv[1:])
