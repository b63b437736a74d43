"""The agent settles on a node, or in the user's state directory: its archive, and a snapshot of it.

    PLACE/DIGEST.pyz                the archive, whole and verified
    PLACE/DIGEST.CACHE_TAG.pyc      its snapshot for one version of Python (boot.py)
    PLACE/DIGEST                    what a task is started by: a script that names Python and
    snapshot

PLACE is the user's own, 0700.  Each file appears by rename(2) when it is complete, so that any
number of agents may settle at the same time; the script is last, as it needs the others.
"""

from __future__ import annotations

import dis
import hashlib
import marshal
import os
import sys
import zipfile
from importlib.util import MAGIC_NUMBER
from typing import TYPE_CHECKING, Final

from roadstead.agent.preloaded import PRELOADED
from roadstead.agent.request import for_shell
from roadstead.errors import EngineError, RoadsteadError
from roadstead.host import paths

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import CodeType
    from typing import IO

    _Modules = Mapping[str, tuple[bool, CodeType]]

# A node may see the script, and not the Python that it was made with: preflight asks on.
_SCRIPT: Final = """\
#!/bin/sh
if [ -x {python} ]; then exec {python} -IS {snapshot} "$@"; fi
[ "$1" = check ] || echo "roadstead: error: there is no" {python} "any more; try again" >&2
exit 127
"""
HEADER_BYTES: Final = 16  # of a .pyc, before its code
_PYC_HEADER: Final = MAGIC_NUMBER + b"\0" * 12  # flags, time and size: looked at by nobody


def digest_of(path: str) -> str:
    """The archive's name: of its bytes."""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()[:32]


def own_script() -> str:
    """The script of the agent that runs this, if it has settled; else ""."""
    place, name = os.path.split(os.path.abspath(sys.argv[0]))
    script = f"{place}/{name.partition('.')[0]}"
    return script if name.endswith(".pyc") and os.path.exists(script) else ""


def snapshot_path(place: str, digest: str) -> str:
    return f"{place}/{digest}.{sys.implementation.cache_tag}.pyc"


def settle(archive: str, place: str, digest: str) -> str:
    """Have the archive at ``archive`` in ``place``, ready to run; the script that runs it.

    Raises EngineError for an archive that is not the one of this digest.
    """
    script = f"{place}/{digest}"
    if os.path.exists(script):
        return script
    with open(archive, "rb") as file:
        data = file.read()
    if hashlib.sha256(data).hexdigest()[:32] != digest:
        raise EngineError(
            f"{archive}: the agent has another digest than it was sent with",
            hint="it was changed or cut off on its way: submit again",
        )
    paths.make_private(place)
    kept = f"{place}/{digest}.pyz"
    if not os.path.exists(kept):
        _put(kept, data, 0o700)
    snapshot = add_snapshot(place, digest)
    text = _SCRIPT.format(python=for_shell(sys.executable), snapshot=for_shell(snapshot))
    _put(script, text.encode(), 0o700)
    return script


def add_snapshot(place: str, digest: str) -> str:
    """Have the snapshot for this Python in ``place``, where the archive is; its path."""
    snapshot = snapshot_path(place, digest)
    if not os.path.exists(snapshot):
        _put(snapshot, snapshot_of(f"{place}/{digest}.pyz"), 0o600)
    return snapshot


def snapshot_of(archive: str | IO[bytes]) -> bytes:
    """A .pyc of this Python with the archive's modules in it."""
    modules: dict[str, tuple[bool, CodeType]] = {}
    with zipfile.ZipFile(archive) as opened:
        for name in opened.namelist():
            if name.startswith("roadstead/") and name.endswith(".py"):
                source = opened.read(name)
                module, package = _module(name)
                # What cannot be compiled here is not for this Python: its import says so.
                code = compile(source, name, "exec", dont_inherit=True, optimize=0)
                modules[module] = (package, code)
    together = marshal.dumps([(name, *modules[name]) for name in _ordered(PRELOADED, modules)])
    begin = len(_boot(modules, 0, 0, 0))
    table = begin + len(together)
    rest = table + len(_table(modules, 0))
    parts = [_boot(modules, begin, table, rest), together, _table(modules, rest)]
    return b"".join([*parts, *_codes(modules)])


def _codes(modules: _Modules) -> list[bytes]:
    return [marshal.dumps(code) for _, code in modules.values()]


def _table(modules: _Modules, at: int) -> bytes:
    """Where each module is, if the first is ``at`` an offset; as long for any."""
    table = {}
    for (name, (is_package, _)), code in zip(modules.items(), _codes(modules), strict=True):
        table[name] = (is_package, at, len(code))
        at += len(code)
    return marshal.dumps(table)


def _boot(modules: _Modules, *where: int) -> bytes:
    """What a .pyc begins with: as long for any numbers."""
    boot = marshal.dumps(modules["roadstead.agent.boot"][1])
    numbers = "-".join([f"{each:012}" for each in where])
    text = (
        "import gc\ngc.disable()\n"  # until a task has started: what is read now stays
        f"import marshal, sys\nexec(marshal.loads({boot!r}))\n"
        f"code = start(__file__, {numbers!r})\n"
        "sys.stdout.flush()\nimport os\nos._exit(code)\n"
    )
    return _PYC_HEADER + marshal.dumps(compile(text, "roadstead-agent", "exec"))


def _ordered(names: Sequence[str], modules: _Modules) -> list[str]:
    """These modules, each after the package that it is in and those that it imports at its top."""
    ordered: dict[str, None] = {}
    begun: set[str] = set()

    def add(name: str) -> None:
        if name in begun or name not in names or name not in modules:
            return
        begun.add(name)
        add(name.rpartition(".")[0])
        # IMPORT_NAME of a module's own code has the names that are imported from it before it.
        known: tuple[str, ...] = ()
        for operation in dis.get_instructions(modules[name][1]):
            if operation.opname == "LOAD_CONST":
                known = operation.argval if isinstance(operation.argval, tuple) else ()
            elif operation.opname == "IMPORT_NAME":
                for each in (operation.argval, *[f"{operation.argval}.{one}" for one in known]):
                    add(each)
        ordered[name] = None

    for name in names:
        add(name)
    return list(ordered)


def _module(name: str) -> tuple[str, bool]:
    dotted = name.removesuffix(".py").replace("/", ".")
    if dotted.endswith(".__init__"):
        return dotted.removesuffix(".__init__"), True
    return dotted, False


def _put(path: str, data: bytes, mode: int) -> None:
    new = f"{path}.{os.getpid()}.new"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(fd, "wb") as file:
            file.write(data)
        os.rename(new, path)
    except BaseException:
        os.unlink(new)
        raise


def main(words: list[str]) -> int:
    """``install ARCHIVE PLACE DIGEST``: prints the script's path."""
    archive, place, digest = words
    try:
        script = settle(archive, place, digest)
    except RoadsteadError as error:
        sys.stderr.write(f"roadstead: error: {error}; {error.hint}\n")
        return error.exit_code
    sys.stdout.write(f"{script}\n")
    return 0
