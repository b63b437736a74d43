"""step/limits.py: what is told from what the kernel counted, and what is said of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.core.model import BATCH_STEP, StepSpec, TaskExit
from roadstead.errors import LaunchError
from roadstead.host import cgroup
from roadstead.host.cgroup import Place
from roadstead.host.loop import Loop
from roadstead.step import limits
from roadstead.step.limits import Limits

SPEC = StepSpec(
    job_id=7, step_id=0, kind="run", name="", user="", uid=1000, gid=1000, node="n", cwd="/",
    argv=("true",), memory=64,
)  # fmt: skip


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host without a delegated tree."""
    place = Place(1, "", "/cg", "/cg is not delegated to this user")
    monkeypatch.setattr(limits, "_known", {False: dict.fromkeys(cgroup.CONTROLLERS, place)})


def made(spec: StepSpec) -> tuple[Limits, list[str]]:
    said: list[str] = []
    made = Limits(spec, Loop(), said.append, said.append)
    return made, said


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", "²"])
def test_a_number_of_processes(text: str) -> None:
    step, _ = made(replace(SPEC, env={"ROADSTEAD_STEP_PIDS": text}))
    with pytest.raises(LaunchError, match="not a number of processes"):
        step.decide()


@pytest.mark.usefixtures("nowhere")
def test_without_a_tree_nothing_is_made() -> None:
    step, said = made(SPEC)
    step.decide()
    assert step.groups == []
    with step.inside(0):
        pass
    ended = TaskExit(procid=0, code=137, signal=9)
    assert step.ended(ended) == ended
    assert step.close([ended]) == [ended]
    assert said == []


@given(
    st.builds(
        TaskExit,
        procid=st.just(0),
        code=st.integers(0, 255),
        reason=st.sampled_from(["program", "runtime", "timeout", "cancelled"]),
    ),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_out_of_memory_is_what_the_kernel_counted(ended: TaskExit, kills: int, hits: int) -> None:
    """Nothing counted: the end is as it was.  Counted for this task: that was it.  Hit, and the
    count went with the runtime's group: what SIGKILL ended."""
    step, _ = made(SPEC)
    group = Counted({"memory": "/nowhere"}, kills)
    step._group = group
    step._tasks = {0: group}
    step._hits = hits
    told = step.ended(ended)
    expected = bool(kills) or (hits > 0 and ended.code == 137)
    assert (told.reason == "memory") is expected
    if not expected:
        assert told == ended
    elif ended.reason != "runtime":
        assert (told.code, told.signal) == (ended.code, ended.signal)


class Counted(cgroup.Group):
    """A group in which the kernel has killed so many."""

    def __init__(self, directories: dict[str, str], kills: int) -> None:
        super().__init__(directories, directories, 2)
        self.kills = kills

    def memory_kills(self) -> int:
        return self.kills


def test_the_sentence_names_the_step() -> None:
    step, _ = made(replace(SPEC, step_id=BATCH_STEP))
    group = Counted({"memory": "/nowhere"}, 2)
    step._group, step._tasks = group, {0: group}
    told = step.ended(TaskExit(procid=0, code=137, signal=9))
    assert told.message == (
        "Detected 2 oom-kill event(s) in StepId=7.batch. Some of your processes may have been "
        "killed by the cgroup out-of-memory handler."
    )


def test_each_kind_is_told_of() -> None:
    found = limits.in_force()
    assert [each.kind for each in found] == ["cpus", "memory", "pids", "devices"]
    for each in found:
        assert each.why
        held = each.mechanism.startswith("cgroup v")
        assert held or each.mechanism in ("affinity", "watched", "none")
        assert not (held and each.better)
