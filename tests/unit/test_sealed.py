"""Programs executed from a sealed copy in memory."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

import pytest

from roadstead.host import process, sealed

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


@pytest.fixture(autouse=True)
def free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine has of security modules."""
    monkeypatch.setattr(sealed, "_BY_FILE", ())


def program(name: str) -> str:
    found = shutil.which(name)
    assert found is not None
    return os.path.realpath(found)


def test_a_copy_is_executed_and_cannot_be_written_to() -> None:
    fd = sealed.copy(program("sh"), "sh_copy")
    assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) == _SEALS, "exactly: crun compares"
    assert not os.get_inheritable(fd)
    with pytest.raises(PermissionError):
        os.pwrite(fd, b"x", 0)
    read, write = os.pipe()
    argv = ["called", "-c", 'echo "$0 $1"; readlink /proc/$$/exe; ls /proc/$$/fd', "called", "it"]
    child = process.spawn(argv, env={"PATH": os.defpath}, executed=fd, stdio=(0, write, 2))
    os.close(write)
    with open(read) as file:
        said, executable, *fds = file.read().split("\n")
    assert child.reap() == 0
    assert (said, executable) == ("called it", "/memfd:sh_copy (deleted)")
    assert str(fd) not in fds, "it is closed in what is executed"
    os.close(fd)


@pytest.mark.parametrize("count", [3, 9])
def test_its_number_is_none_of_the_childs(count: int) -> None:
    """However many descriptors the child gets, and whatever they are here."""
    nulls = [os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC) for _ in range(count)]
    fd = sealed.copy(program("true"), "true_copy", least=count)
    assert fd >= count
    assert process.spawn(["true"], env={}, executed=fd, stdio=tuple(nulls)).reap() == 0
    low = tuple(range(3)) + (0,) * (count - 3)
    assert process.spawn(["true"], env={}, executed=fd, stdio=low).reap() == 0
    for each in (fd, *nulls):
        os.close(each)


def test_by_a_fork_too() -> None:
    fd = sealed.copy(program("true"), "true_copy", least=3)
    assert process.spawn(["true"], env={}, executed=fd, pid_variable="PID").reap() == 0
    os.close(fd)


def test_what_is_better_executed_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, large, switch = tmp_path / "script", tmp_path / "large", tmp_path / "enforce"
    script.write_text("#!/bin/sh\n")
    large.write_bytes(b"\x7fELF" + bytes(sealed._MOST_BYTES))
    for path in (script, large, tmp_path / "absent", tmp_path):
        assert sealed.copy(os.fspath(path), "copy") == -1, path
    monkeypatch.setattr(sealed, "_BY_FILE", (os.fspath(switch),))
    for said, wanted in (("1\n", False), ("0\n", True)):
        switch.write_text(said)
        fd = sealed.copy(program("true"), "copy")
        assert (fd >= 0) is wanted, said
        if wanted:
            os.close(fd)
