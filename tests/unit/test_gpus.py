"""--gpu-bind, and GPUs as a measure of tasks, CPUs and memory."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.core import gpus
from roadstead.core.model import GpuBinding
from roadstead.errors import RequestError

ALL = None


@pytest.mark.parametrize(
    ("options", "count", "seen"),
    [
        ({}, 2, [ALL] * 3),
        ({"gpu-bind": "closest"}, 2, [ALL] * 3),
        ({"gpu-bind": "none", "gpus-per-task": "1"}, 2, [ALL] * 3),
        ({"gpus-per-task": "1"}, 2, [(0,), (1,), (0,)]),
        ({"gpus-per-task": "a100:2"}, 4, [(0, 1), (2, 3), (0, 1)]),
        ({"gpu-bind": "single:1"}, 2, [(0,), (1,), (0,)]),
        ({"gpu-bind": "verbose,single:2"}, 2, [(0,), (0,), (1,)]),
        ({"gpu-bind": "per_task:2"}, 3, [(0, 1), (0, 2), (1, 2)]),
        ({"gpu-bind": "map_gpu:1*2,0"}, 2, [(1,), (1,), (0,)]),
        ({"gpu-bind": "mask_gpu:0x3,2"}, 2, [(0, 1), (1,), (0, 1)]),
        ({"gpu-bind": "map_gpu:7"}, 0, [ALL] * 3),
        ({"gpu-bind": "map_gpu:7"}, 2, "the step has no such GPU"),
        ({"gpu-bind": "map_gpu:x"}, 2, "Invalid --gpu-bind argument: map_gpu:x"),
        ({"gpu-bind": "single"}, 2, "Invalid --gpu-bind argument"),
        ({"gpu-bind": "nearest"}, 2, "Invalid --gpu-bind argument"),
        ({"gpu-bind": ",,"}, 2, "Invalid --gpu-bind argument"),
    ],
)
def test_which_gpus_a_task_sees(options: dict[str, str], count: int, seen: Any) -> None:
    if isinstance(seen, str):
        with pytest.raises(RequestError, match=seen):
            gpus.of_task(gpus.binding(options), count, 0)
        return
    bound = gpus.binding(options)
    assert [gpus.of_task(bound, count, localid) for localid in range(3)] == seen


@given(
    st.integers(1, 8),
    st.integers(1, 8),
    st.integers(0, 40),
    st.sampled_from(["single", "per_task"]),
)
def test_a_task_sees_some_of_them_each_once(number: int, count: int, task: int, kind: str) -> None:
    seen = gpus.of_task(GpuBinding(kind=kind, values=(str(number),)), count, task)
    assert seen
    assert len(set(seen)) == len(seen) == (1 if kind == "single" else min(number, count))
    assert set(seen) <= set(range(count))


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"gpus": "2"}, {}),
        ({"gpus": "4", "ntasks-per-tres": "2"}, {"ntasks": "8"}),
        ({"ntasks": "5", "ntasks-per-tres": "2"}, {"gpus": "3"}),
        ({"gpus": "a:1,b:2", "cpus-per-gpu": "4"}, {"cpus-per-task": "12"}),
        ({"gpus-per-node": "2", "nodes": "2", "ntasks": "4", "cpus-per-gpu": "3"},
         {"cpus-per-task": "3"}),
        ({"gpus-per-task": "1", "ntasks": "3", "cpus-per-gpu": "2"}, {"cpus-per-task": "2"}),
        ({"gres": "gpu:a100:2,lic:1", "mem-per-gpu": "1G"}, {"mem": "2048"}),
        ({"gres": "gpu", "cpus-per-gpu": "2"}, {"cpus-per-task": "2"}),
        ({"cpus-per-gpu": "2"}, "--cpus-per-gpu: no GPUs are asked for"),
        ({"gpus": "1", "cpus-per-gpu": "2", "cpus-per-task": "1"}, "are mutually exclusive"),
        ({"gpus": "1", "mem-per-gpu": "2", "mem-per-cpu": "1"}, "are mutually exclusive"),
    ],
)  # fmt: skip
def test_gpus_as_a_measure(options: dict[str, str], found: Any) -> None:
    if isinstance(found, str):
        with pytest.raises(RequestError, match=found):
            gpus.spread(options, 1)
    else:
        assert gpus.spread(options, 1) == {**options, **found}
