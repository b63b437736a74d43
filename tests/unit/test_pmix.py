"""PMIx without its library; with it: e2e/test_mpi.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from roadstead.core.model import Launch, StepSpec
from roadstead.errors import LaunchError
from roadstead.host import pmix as library
from roadstead.host.loop import Loop
from roadstead.step import mpi


def test_without_the_library_a_step_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "NAME", "libnowhere.so.2")
    assert not library.is_there()
    spec = StepSpec(
        job_id=1, step_id=0, kind="run", name="x", user="u", uid=1, gid=1, node="n", cwd="/",
        argv=("x",), launch=Launch(mpi="pmix"), directory=str(tmp_path),
    )  # fmt: skip
    server = mpi.Server(Loop(), spec, lambda *_: None, lambda _: None)
    with pytest.raises(LaunchError, match=r"^--mpi=pmix: libnowhere\.so\.2: ") as caught:
        server.prepared([])
    assert caught.value.hint.startswith("apt install libpmix2")
    server.close()


def test_other_kinds_need_no_server(tmp_path: Path) -> None:
    spec = StepSpec(
        job_id=1, step_id=0, kind="run", name="x", user="u", uid=1, gid=1, node="n", cwd="/",
        argv=("x",), directory=str(tmp_path),
    )  # fmt: skip
    assert mpi.Server(Loop(), spec, lambda *_: None, lambda _: None).prepared([]) == []
