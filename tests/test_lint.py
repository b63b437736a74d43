"""What the linters say is a test like any other."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.components import ROOT, program
from tests.support.skips import needs


def _passes(name: str, *words: str) -> None:
    tool = program(name)
    assert tool is not None
    done = subprocess.run([tool, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"


def _shell_scripts() -> list[str]:
    places = [*(ROOT / "script").iterdir(), ROOT / ".ci" / "run", *(ROOT / "bench").iterdir()]
    files = [path for path in places if path.is_file()]
    return sorted(str(path.relative_to(ROOT)) for path in files if _is_shell(path))


def _is_shell(path: Path) -> bool:
    first = path.read_bytes().partition(b"\n")[0]
    return first.startswith(b"#!") and first.rstrip().endswith(b"sh")


@needs("ruff")
@pytest.mark.parametrize("words", [("format", "--check", "--diff"), ("check",)], ids=" ".join)
def test_ruff(words: tuple[str, ...]) -> None:
    _passes("ruff", *words)


@needs("mypy")
def test_mypy_reads_the_product() -> None:
    _passes("mypy")


@needs("mypy")
def test_mypy_reads_what_the_tests_stand_on() -> None:
    _passes("mypy", "tests/support", "tests/conftest.py")


@needs("shellcheck")
def test_shellcheck() -> None:
    assert _shell_scripts()
    _passes("shellcheck", "--external-sources", *_shell_scripts())
