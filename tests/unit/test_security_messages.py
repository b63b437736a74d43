"""Messages that no command of ours sends: refused, with nothing done and nobody falling over."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from roadstead.controller import facts
from roadstead.core import effects as do
from roadstead.core import events as on
from roadstead.core import messages, values
from roadstead.core.model import StepSpec, from_json, to_json
from roadstead.core.reactor import REQUESTS
from roadstead.errors import EngineError, RoadsteadError
from roadstead.host import wire
from tests.unit.test_reactor import World

GOOD: dict[str, Any] = {
    "v": 1, "op": "submit", "key": "", "options": {}, "argv": ["true"], "env": {"PATH": "/bin"},
    "cwd": "/tmp", "umask": 18, "user": "u", "gid": 1, "terminal": None, "in_job": None,
    "in_step": None, "script": "#!/bin/sh\n", "job_id": 1, "step_id": None, "what": "jobs",
    "all": True, "signal": 15, "jobs": ["1"], "rows": 1, "columns": 1, "code": 0,
}  # fmt: skip
OPTIONS = (
    "job-name", "ntasks", "cpus-per-task", "ntasks-per-node", "mem", "mem-per-cpu", "jobid",
    "nodes", "time", "partition", "container", "container-id", "container-hooks", "chdir",
    "export", "hold", "immediate", "kill-on-bad-exit", "wait", "comment", "mpi", "open-mode",
    "output", "error", "input", "exact", "overlap",
)  # fmt: skip
TEXTS = st.one_of(
    st.text(max_size=6),
    st.sampled_from(("1", "0", "-1", "9" * 20, "9" * 5000, "a\0b", "\ud800", "/b", "1:2:3", "1-")),
)
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS)
ANYTHING = st.recursive(
    LEAVES, lambda below: st.lists(below, max_size=3) | st.dictionaries(TEXTS, below, max_size=3)
)


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    """A message with some fields of the wrong kind, or too few."""
    body = {**GOOD, "op": draw(st.sampled_from([*REQUESTS]))}
    body["options"] = draw(st.dictionaries(st.sampled_from(OPTIONS), TEXTS, max_size=3))
    for name in draw(st.lists(st.sampled_from([*GOOD]), max_size=3)):
        body[name] = draw(ANYTHING)
    for name in draw(st.lists(st.sampled_from([*GOOD]), max_size=1)):
        body.pop(name, None)
    return body


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(bodies(), min_size=1, max_size=6))
@pytest.mark.long
def test_every_request_survives_every_field(sent: list[dict[str, Any]]) -> None:
    """What is not refused can be committed, answered, launched and shown."""
    world = World()
    for number, body in enumerate(sent):
        try:
            messages.check(body)
            known = facts.gather(world.state, world.journal, body, 1, world.at)
        except RoadsteadError:
            continue
        event = on.Message(at=world.at, client=number % 2, body=body, facts=known)
        for effect in world.react(event):
            if isinstance(effect, do.Reply):
                wire.dumps(effect.message)
            elif isinstance(effect, do.Launch):
                from_json(StepSpec, wire.loads(wire.dumps(to_json(effect.spec))))


@pytest.mark.parametrize(
    "value",
    [
        "a\0b", {"a\0": "x"}, ["\0"], "\ud800", {"\udc00": 1}, 1 << 63, -(1 << 63), 1e400,
        float("nan"), [[[[[[[]]]]]]],
    ],
)  # fmt: skip
def test_what_no_command_sends_is_refused(value: object) -> None:
    with pytest.raises(EngineError, match="malformed request: "):
        messages.check({**GOOD, "x": value})


def test_what_commands_send_is_not() -> None:
    odd = {"A\udcff": "caf\udce9 é\n\x1b", "LAST": str((1 << 63) - 1)}
    messages.check({**GOOD, "env": odd, "job_id": (1 << 63) - 1, "terminal": {"rows": 1}})


@pytest.mark.parametrize(
    "change",
    [
        {"user": "../../x"}, {"user": ".."}, {"user": ""}, {"cwd": "x"}, {"cwd": ""},
        {"env": {"A=B": "x"}}, {"env": {"": "x"}}, {"env": []}, {"gid": -1}, {"key": "x" * 65},
        {"op": "run", "terminal": {"rows": 70_000, "columns": 1}},
    ],
)  # fmt: skip
def test_what_would_harm_later_is_refused(change: dict[str, Any]) -> None:
    """Names that become parts of paths, variables that execve(2) has no form for."""
    world = World()
    recorded = world.react(on.Message(at=1.0, client=1, body={**GOOD, **change}))
    (reply,) = recorded
    assert isinstance(reply, do.Reply)
    assert reply.message["event"] == "error"
    assert reply.message["sentence"].startswith("malformed request: ")
    assert not world.state.jobs


def test_a_request_that_is_replayed_is_one_job() -> None:
    world = World()
    for client in range(3):
        body = {**GOOD, "key": "once", "options": {"hold": ""}}
        known = facts.gather(world.state, world.journal, body, 1, world.at)
        world.react(on.Message(at=1.0, client=client, body=body, facts=known))
    assert len(world.state.jobs) == 1
    assert {replies[0]["job_id"] for replies in world.replies.values()} == {1}


@pytest.mark.parametrize("text", ["9" * 19, "9" * 5000])
def test_a_number_that_is_too_long_is_none(text: str) -> None:
    """Python refuses to read 4300 digits and more, with an error that is nobody's sentence."""
    assert not values.is_number(text)
    for read in (values.time_limit, values.memory, values.node_count, values.signal_number):
        with pytest.raises(RoadsteadError):
            read(text)
    with pytest.raises(RoadsteadError):
        values.time_limit("9" * 18)  # a date that no clock shows


# -- the wire --------------------------------------------------------------------------------------


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(
    ("body", "size"),
    [
        (b"[" * 300_000, 300_000),
        (b'{"a":' * 100_000, 500_000),
        (b'{"v":1}', 8),
        (b'{"v":1}', 6),
        (b"{}", 1 << 40),
        (b"{}", -1),
        (b"\xff\xff", 2),
        (b"", 5),
    ],
)
def test_a_body_that_lies_leaves_nothing_open(body: bytes, size: int) -> None:
    """Too deep, too short, too long, not text: the message is refused, its descriptors closed."""
    before = descriptors()
    ours, theirs = wire.pair()
    memfd = os.memfd_create("body")
    os.write(memfd, body)
    read, write = os.pipe()
    ours._send(json.dumps({"memfd": size}).encode(), (memfd, write), 0)
    os.close(memfd)
    os.close(write)
    with pytest.raises(ValueError, match=r"."):
        theirs.receive()
    assert os.read(read, 1) == b"", "the descriptor that came with it is closed"
    os.close(read)
    ours.close()
    theirs.close()
    assert descriptors() == before


def test_a_body_that_cannot_be_read_at_a_place() -> None:
    ours, theirs = wire.pair()
    read, write = os.pipe()
    path_only = os.open("/", os.O_PATH)
    for fd in (read, write, path_only):
        ours._send(b'{"memfd":5}', (fd,), 0)
        with pytest.raises(ValueError, match="message body unreadable"):
            theirs.receive()
        os.close(fd)
    ours.close()
    theirs.close()


def test_too_many_descriptors_are_closed() -> None:
    before = descriptors()
    ours, theirs = wire.pair()
    null = os.open(os.devnull, os.O_RDONLY)
    ours._send(b"{}", (null,) * (wire.MAX_FDS + 1), 0)
    with pytest.raises(ValueError, match="truncated"):
        theirs.receive()
    os.close(null)
    ours.close()
    theirs.close()
    assert descriptors() == before
