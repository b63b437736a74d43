"""The agent as one file that any node can run: the node side's modules, lowered and packed.

    archive(environ) → Archive(path, digest)

It is a zip file behind a few lines of shell, which look for a Python from 3.9 on: sbcast, srun's
--bcast and a copy by hand bring it anywhere, and nothing needs to be installed there.  The same
sources give the same bytes; their digest is its name.

    STATE/agent/FINGERPRINT         the digest of the archive of the package in this state
    STATE/agent/DIGEST…             agent/install.py's

STATE is $XDG_STATE_HOME/roadstead, without the host: where homes are shared the archive is too.
"""

from __future__ import annotations

import os
import sys

from roadstead.host import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Final

# Whole rooms: some of their modules are imported by names that are only known when it runs.
_ROOMS: Final = (
    "agent",
    "host",
    "oci",
    "images",
    "step",
    "systems",
    "plugins",
    "pods",
    "daemons",
    "doctor",
)
_LOOKED_AT: Final = ("", "core", "engines/slurm", *_ROOMS)
_INSTALLED: Final = ("site-packages", "dist-packages")
_SHELL: Final = """\
#!/bin/sh
# Roadstead's agent {version}: an archive of Python modules behind these lines.
for python in python3 /usr/bin/python3 /usr/libexec/platform-python \\
  python3.14 python3.13 python3.12 python3.11 python3.10 python3.9; do
  if python=$(command -v "$python") &&
    "$python" -ISc 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; then
    exec "$python" -IS "$0" "$@"
  fi
done
echo "roadstead: error: $(uname -n): there is no Python 3.9 or later; install one there" >&2
exit 125
"""
_MAIN: Final = """\
import sys
from roadstead.agent import boot
sys.exit(boot.start())
"""


class Archive:
    """Where the archive is, and its digest; ``place`` is the directory that it is in."""

    __slots__ = ("digest", "place")

    def __init__(self, place: str, digest: str) -> None:
        self.place, self.digest = place, digest

    @property
    def path(self) -> str:
        return f"{self.place}/{self.digest}.pyz"

    @property
    def command(self) -> tuple[str, ...]:
        """What starts it where this directory and this Python are: no shell, one file to read."""
        return (interpreter(), "-IS", _own_snapshot(self.place, self.digest))


def interpreter() -> str:
    """This Python, itself: a virtual environment has nothing for the agent, which knows the
    standard library alone, and looking for it takes Python 0.4 ms."""
    return getattr(sys, "_base_executable", "") or sys.executable


def archive(environ: Mapping[str, str]) -> Archive:
    """The archive of this package, made if it is not there.  Raises EngineError, OSError."""
    place = f"{os.path.dirname(paths.state_directory(environ))}/agent"
    fingerprint = f"{place}/{_fingerprint()}"
    try:
        digest = os.readlink(fingerprint)
        if os.path.exists(f"{place}/{digest}") and os.path.exists(_own_snapshot(place, digest)):
            return Archive(place, digest)
    except OSError:
        pass
    return _made(place, fingerprint)


def _own_snapshot(place: str, digest: str) -> str:
    return f"{place}/{digest}.{sys.implementation.cache_tag}.pyc"


def _made(place: str, fingerprint: str) -> Archive:
    import hashlib

    from roadstead.agent import install

    paths.make_private(place)
    data = build()
    digest = hashlib.sha256(data).hexdigest()[:32]
    new = f"{place}/{os.getpid()}.new"
    with open(
        os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o700), "wb"
    ) as out:
        out.write(data)
    try:
        install.settle(new, place, digest)
        if not os.path.exists(_own_snapshot(place, digest)):  # another Python's has settled
            install.add_snapshot(place, digest)
    finally:
        os.unlink(new)
    linked = f"{new}.link"
    os.symlink(digest, linked)
    os.rename(linked, fingerprint)
    return Archive(place, digest)


def _package() -> str:
    return os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def _sources() -> Iterator[tuple[str, os.DirEntry[str]]]:
    """The package's sources that may be packed, each by its place in it."""
    package = _package()
    for room in _LOOKED_AT:
        try:
            with os.scandir(f"{package}/{room}") as entries:
                found = [each for each in entries if each.name.endswith(".py")]
        except FileNotFoundError:
            continue
        for entry in sorted(found, key=lambda each: each.name):
            yield f"{room}/{entry.name}".lstrip("/"), entry


def witnesses() -> list[str]:
    """What to look at to see whether any of the sources has been exchanged (stat(2): number, size
    and time of change).

    What is installed is exchanged by programs, which put new files in place of old ones; what is
    edited, as in a checkout, may be written to, and has to be looked at file by file (0.8 ms).
    """
    if os.path.basename(os.path.dirname(_package())) in _INSTALLED:
        return [f"{_package()}/{room}" for room in _LOOKED_AT]
    return [entry.path for _, entry in _sources()]


def _fingerprint() -> str:
    """Of the sources as they lie there: it changes when any of them is exchanged."""
    seen: list[int] = []
    for about in map(os.stat, witnesses()):
        seen += [about.st_ino, about.st_size, about.st_mtime_ns]
    # No digest: who could choose these numbers could as well change the sources.
    return f"of-{len(seen):x}-{hash(tuple(seen)) & 0xFFFFFFFFFFFFFFFF:016x}"


def build() -> bytes:
    """The archive's bytes.  Raises lowering.Untranslatable, which a test has seen before a user."""
    import io
    import zipfile

    from roadstead import __version__
    from roadstead.engines.slurm.lowering import lower

    sources = _packed({name: entry.path for name, entry in _sources()})
    file = io.BytesIO()
    file.write(_SHELL.format(version=__version__).encode())
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as opened:
        ours = {_dotted(name) for name in sources}
        texts = {f"roadstead/{name}": lower(text, name, ours) for name, text in sources.items()}
        for name, text in sorted({"__main__.py": _MAIN, **texts}.items()):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.external_attr = 0o644 << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            opened.writestr(info, text)
    return file.getvalue()


def _dotted(name: str) -> str:
    return f"roadstead.{name.removesuffix('.py').removesuffix('/__init__').replace('/', '.')}"


def _packed(sources: dict[str, str]) -> dict[str, str]:
    """The texts of the rooms that travel, and of what they import of the others."""
    texts: dict[str, str] = {}
    pending = [name for name in sources if name.partition("/")[0].removesuffix(".py") in _ROOMS]
    pending += ["__init__.py", "errors.py"]
    while pending:
        name = pending.pop()
        if name in texts or name not in sources:
            continue
        with open(sources[name], encoding="utf-8") as file:
            texts[name] = file.read()
        pending += _imports(texts[name])
    return texts


def _imports(text: str) -> Iterator[str]:
    """The files of the package that a module imports, wherever it does so."""
    import ast

    for node in ast.walk(ast.parse(text)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{each.name}" for each in node.names)]
        for name in names:
            if name.startswith("roadstead."):
                path = name.removeprefix("roadstead.").replace(".", "/")
                yield f"{path}.py"
                yield f"{path}/__init__.py"
