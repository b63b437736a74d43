"""Model values cross sockets and years as JSON."""

from __future__ import annotations

import types
import typing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roadstead.core import model
from roadstead.core.model import (
    Allocation,
    ExitRecord,
    JobSpec,
    Share,
    StepRequest,
    StepSpec,
    TaskExit,
    TaskSpec,
    from_json,
    to_json,
)
from roadstead.host.wire import dumps, loads

KINDS = (JobSpec, StepRequest, Allocation, StepSpec, TaskSpec, ExitRecord)
TEXT = st.text(st.characters(codec=None), max_size=3)  # lone surrogates too: argv may have them


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Anything that a field of this type may hold."""
    arguments = typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        return st.none() | values(arguments[0])
    if typing.get_origin(hint) is typing.Literal:
        return st.sampled_from(arguments)
    if typing.get_origin(hint) is tuple:
        return st.lists(values(arguments[0]), max_size=2).map(tuple)
    if typing.get_origin(hint) is dict:
        return st.dictionaries(TEXT, TEXT, max_size=2)
    if hint in (int, bool):
        return st.booleans() if hint is bool else st.integers(0, 2**40)
    if hint is float:
        return st.floats(0, 2**40)
    return TEXT if hint is str else models(hint)


def models(cls: type, level: int = 0) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(cls)
    found = {name: values(hint) for name, hint in hints.items() if hint != tuple[cls, ...]}
    for name, hint in hints.items():
        if hint == tuple[cls, ...]:  # the parts of a step, which have none
            parts = st.lists(models(cls, 1), max_size=2) if not level else st.just([])
            found[name] = parts.map(tuple)
    return st.builds(cls, **found)


@pytest.mark.parametrize("cls", KINDS)
def test_what_is_written_is_read_as_the_same(cls: type) -> None:
    @given(models(cls))
    @settings(max_examples=12)
    def check(value: Any) -> None:
        assert from_json(cls, loads(dumps(to_json(value)))) == value

    check()


def test_a_record_of_a_neighbouring_version_loads() -> None:
    share = {"node": "n", "cpus": [0], "memory": 5, "ntasks": 1}
    data = {"job_id": 1, "shares": [share], "started_at": 1, "colour": "blue"}
    expected = Allocation(
        job_id=1, shares=(Share(node="n", cpus=(0,), memory=5, ntasks=1),), started_at=1.0
    )
    assert from_json(Allocation, data) == expected


@pytest.mark.parametrize(
    "data", [None, [], {"job_id": "1"}, {"job_id": True}, {"job_id": 1}, {"cpus": 5}]
)
def test_a_wrong_shape_is_a_type_error(data: Any) -> None:
    with pytest.raises(TypeError):
        from_json(Allocation, data)


def test_environments_stay_out_of_reprs() -> None:
    secret = {"TOKEN": "s3cret"}
    task = TaskSpec(procid=0, localid=0, argv=(), env=secret)
    spec = JobSpec(kind="run", name="", user="", uid=1, gid=1, cwd="/", env=secret, script="s3cret")
    assert "s3cret" not in repr(task) + repr(spec)


def test_the_worst_task_has_the_highest_code() -> None:
    tasks = tuple(TaskExit(procid=n, code=code) for n, code in enumerate((0, 137, 3)))
    record = ExitRecord(job_id=1, step_id=0, tasks=tasks, started_at=0.0, ended_at=1.0)
    assert record.worst.procid == 1


def test_the_steps_without_a_number_are_slurms() -> None:
    assert (model.BATCH_STEP, model.INTERACTIVE_STEP) == (4294967291, 4294967290)
