"""Imports from the packed agent: all its modules, compiled, in one file that a Python starts with.

Looking for sixty modules in directories costs more than executing them, and asking importlib about
each as much again.  A *snapshot* is one .pyc of one version of Python, ``python3 -IS SNAPSHOT.pyc
VERB …``:

    this module's code, as a .pyc has it     where the rest is, for ``start``
    [(name, is a package, code), …]          what every task imports (preloaded.py), as marshal
                                             writes it, each after what it imports itself
    {name: (is a package, offset, size)}     all modules
    each module's code                       read when it is imported

A page that is read is a page fault and a copy, at every start.  A snapshot is made of the archive
(engines/slurm/zipapp.py) once for each version of Python that it meets (install.py).

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

    def __init__(self, path: str, begin: int, end: int) -> None:
        """Those of the snapshot at ``path`` whose table is between two offsets."""
        self._path = path
        self._modules: dict[str, tuple[bool, int, int]] = self._read(begin, end)

    def _read(self, begin: int, end: int) -> Any:
        file = posix.open(self._path, posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            return marshal.loads(posix.pread(file, end - begin, begin))
        finally:
            posix.close(file)

    def load(self, begin: int, end: int) -> None:
        """Import the modules that are together between two offsets."""
        modules, kind = sys.modules, type(sys)
        for name, is_package, code in self._read(begin, end):
            made = modules[name] = kind(name)
            parent, _, last = name.rpartition(".")
            if is_package:
                made.__path__, made.__package__ = [], name
            else:
                made.__package__ = parent
            exec(code, made.__dict__)
            if parent:
                setattr(modules[parent], last, made)

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        found = self._modules.get(name)
        if found is None:
            return None
        import _frozen_importlib as machinery

        loader: Any = self
        return machinery.ModuleSpec(name, loader, origin="packed", is_package=found[0])

    def create_module(self, spec: object) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        _, at, size = self._modules[module.__name__]
        exec(self._read(at, at + size), module.__dict__)


def start(snapshot: str = "", where: str = "") -> int:
    """Run the agent from the ``snapshot``, or, if there is none, from wherever this came from.
    ``where`` says at which offsets its parts begin, numbers in one word."""
    if snapshot:
        together, table, rest = [int(each) for each in where.split("-")]
        packed = Packed(snapshot, table, rest)
        sys.meta_path.insert(0, packed)
        if sys.argv[1:2] in (["task"], ["batch"]) or sys.argv[1:3] == ["oci", "run"]:
            packed.load(together, table)
    from roadstead.agent.__main__ import main

    return main(sys.argv[1:])
