"""A command's modules in one file, for the wrappers of ``roadstead shims``.

A command imports some fifteen small modules, and on a Slurm cluster as many more.  Found, read and
checked one by one by the import system they cost 4 to 5 ms, a third of the interpreter's own start;
from one file, already compiled, 1 ms.  On a parallel file system the difference is larger: each
module is several metadata operations.

An image is only used while every module's source is as it was (time and size), so an upgraded
package is never mixed with an old image: the wrapper then imports as usual.  Of the modules that a
command imports later, inside functions, those are in it that its usual ways lead to (LATER); each
module's code is unpacked when it is imported.
"""

from __future__ import annotations
import __future__

import ast
import marshal
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType

# Runs in the wrapper with ``modules`` defined.  A finder for exactly those; nothing if one changed.
_LOADER = """
import sys
from marshal import loads
from posix import stat
from _frozen_importlib import ModuleSpec

class Image:
    codes = {}

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        found = cls.codes.get(name)
        if found is None:
            return None
        file, package, code = found
        spec = ModuleSpec(name, cls, origin=file, is_package=bool(package))
        spec.has_location = True
        if package:
            spec.submodule_search_locations.append(package)
        return spec

    @staticmethod
    def create_module(spec):
        return None

    @classmethod
    def exec_module(cls, module):
        exec(loads(cls.codes[module.__name__][2]), module.__dict__)

def is_fresh():
    try:
        for name, file, package, mtime, size, code in modules:
            found = stat(file)
            if found.st_mtime_ns != mtime or found.st_size != size:
                return False
    except OSError:
        return False
    return True

if is_fresh():
    for name, file, package, mtime, size, code in modules:
        Image.codes[name] = (file, package, code)
    sys.meta_path.insert(0, Image)
"""


# Runs in the wrapper of ``roadstead oci`` with ``seen``, ``boot`` and ``snapshot`` defined: becomes
# the packed agent (agent/boot.py), and does not return; nothing if a source has changed.
_NODE_LOADER = """
import sys
from posix import stat

def is_fresh():
    try:
        for path, *numbers in seen:
            found = stat(path)
            if [found.st_ino, found.st_size, found.st_mtime_ns] != numbers:
                return False
    except OSError:
        return False
    return True

if is_fresh():
    sys.argv[0] = snapshot
    exec(boot, {"__name__": "__main__", "__file__": snapshot})
"""

# What is imported inside of functions, at nearly every start, by these commands.
_LAUNCH = (
    "roadstead.cli.cluster",
    "roadstead.cli.options_launch",
    "roadstead.engines.slurm.real",
    "roadstead.host.child",
)
LATER = {f"roadstead.cli.{command}": _LAUNCH for command in ("srun", "sbatch", "salloc")}


def build(root: str, module: str) -> bytes:
    """The image for ``module`` and all that it imports at its top level of the package below
    ``root``: (loader, modules), as marshal writes it.  Raises OSError."""
    entries = []
    for name in _closure(root, module, *LATER.get(module, ())):
        file = _file(root, name)
        assert file is not None
        with open(file, "rb") as source:
            code = _compiled(source.read(), file)
            found = os.fstat(source.fileno())
        package = os.path.dirname(file) if file.endswith("/__init__.py") else ""
        packed = marshal.dumps(code)
        entries.append((name, file, package, found.st_mtime_ns, found.st_size, packed))
    loader = compile(_LOADER, "<roadstead image>", "exec", dont_inherit=True)
    return marshal.dumps((loader, tuple(entries)))


def node_side() -> bytes:
    """The packed agent as one file."""
    import io

    from roadstead.agent import install
    from roadstead.engines.slurm import zipapp

    return install.snapshot_of(io.BytesIO(zipapp.build()))


def before(snapshot: str) -> bytes:
    """What the wrapper of ``roadstead oci`` reads before the packed agent at ``snapshot``, as
    marshal writes it: (loader, what is to be as it is now, how that file begins)."""
    from roadstead.agent import install
    from roadstead.engines.slurm import zipapp

    seen = []
    for path in (snapshot, *zipapp.witnesses()):
        found = os.stat(path)
        seen.append((path, found.st_ino, found.st_size, found.st_mtime_ns))
    loader = compile(_NODE_LOADER, "<roadstead oci>", "exec", dont_inherit=True)
    with open(snapshot, "rb") as file:
        boot = marshal.loads(file.read()[install.HEADER_BYTES :])
    return marshal.dumps((loader, seen, boot))


def _compiled(source: bytes, file: str) -> CodeType:
    """Without docstrings, a third of the bytes; and without the import of __future__, which looks
    through directories for a module that does nothing."""
    tree = ast.parse(source, file)
    wanted = [each for each in tree.body if _is_future(each)]
    tree.body = [each for each in tree.body if each not in wanted]
    flags = __future__.annotations.compiler_flag if wanted else 0
    code: CodeType = compile(tree, file, "exec", flags, dont_inherit=True, optimize=2)
    return code


def _is_future(statement: ast.stmt) -> bool:
    """``from __future__ import annotations``, the only one that we have."""
    return isinstance(statement, ast.ImportFrom) and statement.module == "__future__"


def _file(root: str, name: str) -> str | None:
    base = os.path.join(root, *name.split("."))
    for file in (f"{base}/__init__.py", f"{base}.py"):
        if os.path.isfile(file):
            return file
    return None


def _closure(root: str, *modules: str) -> list[str]:
    """Names of the package's modules that importing ``modules`` imports, themselves included."""
    found: dict[str, None] = {}
    pending = list(modules)
    while pending:
        name = pending.pop()
        file = _file(root, name)
        if file is None or name in found:
            continue
        found[name] = None
        if "." in name:
            pending.append(name.rpartition(".")[0])
        with open(file, encoding="utf-8") as source:
            pending += _imports(ast.parse(source.read()))
    return list(found)


def _imports(tree: ast.Module) -> list[str]:
    names: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.append(node.module)
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names
