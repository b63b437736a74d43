"""Imports from the packed agent: all its modules, compiled, in one file that a Python starts with.

Looking for eighty modules in directories costs more than executing them.  A *snapshot* is one .pyc
of one version of Python, ``python3 -IS SNAPSHOT.pyc VERB …``:

    this module's code, as a .pyc has it     what follows is where, for ``start``
    {name: (is a package, code)}             those that every task imports, as marshal writes it
    {name: (is a package, code)}             all others, read when one of them is imported

A page that is read is a page fault and a copy, at every start: hence two parts.  A snapshot is made
of the archive (engines/slurm/zipapp.py) once for each version of Python that it meets (install.py).

The archive starts here as well, without a snapshot: then the modules are read from the archive, as
any Python reads a zip file.

Any Python from 3.9 on; imports what is in the interpreter already.
"""

from __future__ import annotations

import marshal
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any


class Packed:
    """Finds and loads the modules of a snapshot (importlib's finder and loader)."""

    def __init__(self, path: str, parts: list[tuple[int, int]]) -> None:
        self._path, self._parts = path, parts
        self._modules: dict[str, tuple[bool, Any]] = {}

    def _found(self, name: str) -> tuple[bool, Any] | None:
        while name not in self._modules and self._parts:
            at, size = self._parts[0]
            file = posix.open(self._path, posix.O_RDONLY | posix.O_CLOEXEC)
            try:
                data = posix.pread(file, size, at)
            finally:
                posix.close(file)
            self._modules.update(marshal.loads(data))
            del self._parts[0]
        return self._modules.get(name)

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        if not name.startswith("roadstead"):
            return None
        found = self._found(name)
        if found is None:
            return None
        import _frozen_importlib as machinery

        loader: Any = self
        return machinery.ModuleSpec(name, loader, origin="packed", is_package=found[0])

    def create_module(self, spec: object) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        exec(self._modules[module.__name__][1], module.__dict__)


def start(snapshot: str = "", where: str = "") -> int:
    """Run the agent from the ``snapshot``, whose parts begin and end ``where`` (numbers in one
    word), or, if there is none, from wherever this came from."""
    if snapshot:
        at = [int(each) for each in where.split("-")]
        parts = [(begin, end - begin) for begin, end in ((at[0], at[1]), (at[1], at[2]))]
        sys.meta_path.insert(0, Packed(snapshot, parts))
    from roadstead.agent.__main__ import main

    return main(sys.argv[1:])
