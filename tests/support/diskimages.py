"""Images that are one file, made by the tools that people make them with."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.components import program


def squashfs(tree: Path, file: Path, *options: str) -> Path:
    """`mksquashfs` with these options."""
    _run("mksquashfs", tree, file, "-noappend", "-no-progress", "-quiet", *options)
    return file


def ext(tree: Path, file: Path, *options: str, mib: int = 16) -> Path:
    """`mke2fs -d`: a file system of so many MiB."""
    with file.open("wb") as made:
        made.truncate(mib << 20)
    _run("mke2fs", "-q", "-F", *options, "-d", tree, file)
    return file


def _run(name: str, *words: str | Path) -> None:
    path = program(name)
    assert path is not None
    done = subprocess.run([path, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
